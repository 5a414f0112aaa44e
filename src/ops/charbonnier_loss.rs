//! Mean of `sqrt((a - b)^2 + eps^2)`: an absolute value that is smooth at 0 (Lai et al. 2017, "Deep Laplacian
//! Pyramid Networks", 3.2).
//!
//! ```text
//! y  = sum of sqrt((a - b)^2 + eps^2) / n
//! da = dy (a - b) / sqrt((a - b)^2 + eps^2) / n,    db = -da
//! ```
//!
//! Even of equal tensors the mean is `eps`.
use super::mean_loss::{self, MeanLoss, mean_loss_kernels};
use super::simd::{Lane, multiversion};
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// The mean of `sqrt((a - b)^2 + eps^2)` over all elements, as `[1]`; `eps > 0`.
    pub fn charbonnier_loss(&mut self, a: &Var, b: &Var, eps: f64) -> Result<Var> {
        self.apply(CharbonnierLoss { eps }, &[a, b])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct CharbonnierLoss {
    /// Where it turns from a square into an absolute value, above 0; 1e-3 as published.
    pub eps: f64,
}

impl Op for CharbonnierLoss {
    fn name(&self) -> &'static str {
        "charbonnier_loss"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        mean_loss::forward(self, inputs)
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        mean_loss::backward(self, call, dy)
    }
}

impl MeanLoss for CharbonnierLoss {
    fn distance(&self, difference: f64) -> f64 {
        difference.hypot(self.eps)
    }

    fn slopes<T: Lane>(&self, each: T, a: &[T], b: &[T], da: &mut [T]) {
        slopes(T::from_f64(self.eps), each, a, b, da);
    }

    mean_loss_kernels!(charbonnier_loss_sums, charbonnier_loss_backward, eps);
}

/// As of every mean loss, with a bend that finite differences see.
pub fn cases() -> Vec<OpCase> {
    mean_loss::cases(|| CharbonnierLoss { eps: 0.1 })
}

multiversion! {
    fn slopes<T, FMA>(eps: T, each: T, a: &[T], b: &[T], da: &mut [T]) {
        for (da, (&a, &b)) in da.iter_mut().zip(a.iter().zip(b)) {
            let d = a - b;
            *da = each * (d / d.fma::<FMA>(d, eps * eps).sqrt());
        }
    }
}
