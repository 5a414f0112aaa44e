//! Mean of `|a - b|`.
//!
//! ```text
//! y  = sum of |a - b| / n
//! da = dy sign(a - b) / n,    db = -da
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
        let [a, b] = inputs else { unreachable!("l1_loss takes two inputs") };
        same_shape(self.name(), a, b)?;
        let mean = on_device!(a, cpu::<T> => cpu::forward::<T>(a.cpu()?, b.cpu()?));
        Ok((Tensor::from_f64(&[mean], &[1], a.dtype()), Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [a, b] = call.inputs else { unreachable!("l1_loss takes two inputs") };
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
        OpCase::new(|| L1Loss, &[&[2, 3, 5, 7], &[2, 3, 5, 7]]),
        OpCase::new(|| L1Loss, &[&[1], &[1]]),
        OpCase::new(|| L1Loss, &[&[8, 256, 256, 3], &[8, 256, 256, 3]]).timed_only(),
    ]
}

mod cpu {
    use rayon::prelude::*;

    use crate::engine::device::Real;
    use crate::ops::parallel::{CHUNK, sum};
    use crate::ops::simd::{Lane, multiversion};

    pub(super) fn forward<T: Real>(a: &[T], b: &[T]) -> f64 {
        sum(a.len(), |i| (a[i].to_f64() - b[i].to_f64()).abs()) / a.len() as f64
    }

    pub(super) fn backward<T: Lane>(each: f64, a: &[T], b: &[T], da: &mut [T]) {
        let each = T::from_f64(each);
        let inputs = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK));
        da.par_chunks_mut(CHUNK).zip(inputs).for_each(|(da, (a, b))| signs(each, a, b, da));
    }

    multiversion! {
        fn signs<T, FMA>(each: T, a: &[T], b: &[T], da: &mut [T]) {
            let zero = T::default();
            for (da, (&a, &b)) in da.iter_mut().zip(a.iter().zip(b)) {
                // A choice, not a branch: signs are random.
                let (above, below) = (if a > b { each } else { zero }, if a < b { each } else { zero });
                *da = above - below;
            }
        }
    }
}
