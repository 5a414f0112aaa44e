//! Mean of `(a - b)^2`.
//!
//! ```text
//! y  = sum of (a - b)^2 / n
//! da = dy 2 (a - b) / n,    db = -da
//! ```
//!
//! Summed in double precision and a fixed order.
use super::same_shape;
use super::scale::Scale;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

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
        let [a, b] = inputs else { unreachable!("mse_loss takes two inputs") };
        same_shape(self.name(), a, b)?;
        let mean = on_device!(a, cpu::<T> => cpu::forward::<T>(a.cpu()?, b.cpu()?));
        Ok((Tensor::from_f64(&[mean], &[1], a.dtype()), Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [a, b] = call.inputs else { unreachable!("mse_loss takes two inputs") };
        let mut da = Tensor::empty_as(a, a.shape())?;
        let each = dy.to_f64_vec()?[0] / a.len() as f64;
        on_device!(a, cpu::<T> => cpu::backward::<T>(each, a.cpu()?, b.cpu()?, da.cpu_mut()?));
        let db = call.wants[1].then(|| Scale { factor: -1.0 }.scaled(&da)).transpose()?;
        Ok(vec![Some(da), db])
    }
}

/// An odd length, one element, and a training batch.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| MseLoss, &[&[2, 3, 5, 7], &[2, 3, 5, 7]]),
        OpCase::new(|| MseLoss, &[&[1], &[1]]),
        OpCase::new(|| MseLoss, &[&[8, 256, 256, 3], &[8, 256, 256, 3]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{sum, zip3};

    pub(super) fn forward<T: Real>(a: &[T], b: &[T]) -> f64 {
        sum(a.len(), |i| (a[i].to_f64() - b[i].to_f64()).powi(2)) / a.len() as f64
    }

    pub(super) fn backward<T: Real>(each: f64, a: &[T], b: &[T], da: &mut [T]) {
        let twice = T::from_f64(2.0 * each);
        zip3(da, a, b, |da, &a, &b| *da = twice * (a - b));
    }
}
