//! Mean of `(a - b)^2`.
//!
//! ```text
//! y  = sum of (a - b)^2 / n
//! da = dy 2 (a - b) / n,    db = -da
//! ```
use super::mean_loss::{self, MeanLoss, mean_loss_kernels};
use super::simd::{Lane, multiversion};
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// The mean of `(a - b)^2` over all elements, as `[1]`.
    pub fn mse_loss(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.apply(MseLoss, &[a, b])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct MseLoss;

impl Op for MseLoss {
    fn name(&self) -> &'static str {
        "mse_loss"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        mean_loss::forward(self, inputs)
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        mean_loss::backward(self, call, dy)
    }
}

impl MeanLoss for MseLoss {
    fn distance(&self, difference: f64) -> f64 {
        difference * difference
    }

    fn slopes<T: Lane>(&self, each: T, a: &[T], b: &[T], da: &mut [T]) {
        slopes(each, a, b, da);
    }

    mean_loss_kernels!(mse_loss_sums, mse_loss_backward);
}

/// As of every mean loss.
pub fn cases() -> Vec<OpCase> {
    mean_loss::cases(|| MseLoss)
}

multiversion! {
    fn slopes<T, FMA>(each: T, a: &[T], b: &[T], da: &mut [T]) {
        let twice = each + each;
        for (da, (&a, &b)) in da.iter_mut().zip(a.iter().zip(b)) {
            *da = twice * (a - b);
        }
    }
}
