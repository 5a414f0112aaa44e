//! Mean of Huber's distance: a square near 0, a line beyond (Huber 1964, "Robust Estimation of a Location Parameter").
//!
//! ```text
//! d(e) = e^2 / 2                      |e| < delta
//!        delta (|e| - delta / 2)      elsewhere
//! y  = sum of d(a - b) / n
//! da = dy clamp(a - b, -delta, delta) / n,    db = -da
//! ```
//!
//! As PyTorch's `HuberLoss`; divided by `delta` it is its `SmoothL1Loss`.
use super::mean_loss::{self, MeanLoss, mean_loss_kernels};
use super::simd::{Lane, multiversion};
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// The mean of Huber's distance over all elements, as `[1]`; `delta > 0`.
    pub fn huber_loss(&mut self, a: &Var, b: &Var, delta: f64) -> Result<Var> {
        self.apply(HuberLoss { delta }, &[a, b])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct HuberLoss {
    /// Where the line begins, above 0.
    pub delta: f64,
}

impl Op for HuberLoss {
    fn name(&self) -> &'static str {
        "huber_loss"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        mean_loss::forward(self, inputs)
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        mean_loss::backward(self, call, dy)
    }
}

impl MeanLoss for HuberLoss {
    fn distance(&self, difference: f64) -> f64 {
        let (e, delta) = (difference.abs(), self.delta);
        if e < delta { 0.5 * e * e } else { delta * (e - 0.5 * delta) }
    }

    fn slopes<T: Lane>(&self, each: T, a: &[T], b: &[T], da: &mut [T]) {
        slopes(T::from_f64(self.delta), each, a, b, da);
    }

    mean_loss_kernels!(huber_loss_sums, huber_loss_backward, delta);
}

/// As of every mean loss; a quarter of the differences lies beyond delta.
pub fn cases() -> Vec<OpCase> {
    mean_loss::cases(|| HuberLoss { delta: 1.0 })
}

multiversion! {
    fn slopes<T, FMA>(delta: T, each: T, a: &[T], b: &[T], da: &mut [T]) {
        for (da, (&a, &b)) in da.iter_mut().zip(a.iter().zip(b)) {
            let d = a - b;
            let d = if d > delta { delta } else { d };
            *da = each * if d < -delta { -delta } else { d };
        }
    }
}
