//! Mean of `|a - b|`.
//!
//! ```text
//! y  = sum of |a - b| / n
//! da = dy sign(a - b) / n,    db = -da
//! ```
use super::mean_loss::{self, MeanLoss, mean_loss_kernels};
use super::simd::{Lane, multiversion};
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// The mean of `|a - b|` over all elements, as `[1]`.
    pub fn l1_loss(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.apply(L1Loss, &[a, b])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct L1Loss;

impl Op for L1Loss {
    fn name(&self) -> &'static str {
        "l1_loss"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        mean_loss::forward(self, inputs)
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        mean_loss::backward(self, call, dy)
    }
}

impl MeanLoss for L1Loss {
    fn distance(&self, difference: f64) -> f64 {
        difference.abs()
    }

    fn slopes<T: Lane>(&self, each: T, a: &[T], b: &[T], da: &mut [T]) {
        slopes(each, a, b, da);
    }

    mean_loss_kernels!(l1_loss_sums, l1_loss_backward);
}

/// As of every mean loss.
pub fn cases() -> Vec<OpCase> {
    mean_loss::cases(|| L1Loss)
}

multiversion! {
    fn slopes<T, FMA>(each: T, a: &[T], b: &[T], da: &mut [T]) {
        let zero = T::default();
        for (da, (&a, &b)) in da.iter_mut().zip(a.iter().zip(b)) {
            // A choice, not a branch: signs are random.
            let (above, below) = (if a > b { each } else { zero }, if a < b { each } else { zero });
            *da = above - below;
        }
    }
}
