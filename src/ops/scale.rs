//! Multiplication by a number, and addition of another.
//!
//! ```text
//! y  = s x + t
//! dx = s dy
//! ```
use crate::engine::cuda::Grid;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `factor * x`, elementwise.
    pub fn scale(&mut self, x: &Var, factor: f64) -> Result<Var> {
        self.apply(Scale { factor, shift: 0.0 }, &[x])
    }

    /// `x` from `[-1, 1]` to `[0, 1]`.
    pub fn to_unit(&mut self, x: &Var) -> Result<Var> {
        self.apply(Scale { factor: 0.5, shift: 0.5 }, &[x])
    }

    /// `x` from `[0, 1]` to `[-1, 1]`.
    pub fn to_signed(&mut self, x: &Var) -> Result<Var> {
        self.apply(Scale { factor: 2.0, shift: -1.0 }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Scale {
    /// What every element is multiplied by.
    pub factor: f64,
    /// What is added then.
    pub shift: f64,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("scale takes one input") };
        Ok((self.applied(x)?, Saved::new()))
    }

    fn backward(&self, _: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(scaled(dy, self.factor)?)])
    }

    fn gradient(&self, tape: &mut Tape, _: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        Ok(vec![Some(tape.scale(dy, self.factor)?)])
    }
}

/// `factor * x`.
pub(super) fn scaled(x: &Tensor, factor: f64) -> Result<Tensor> {
    Scale { factor, shift: 0.0 }.applied(x)
}

impl Scale {
    fn applied(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let (factor, shift) = (self.factor.into(), self.shift.into());
                let args = [x.into(), (&mut y).into(), factor, shift, x.len().into()];
                gpu.launch("scale", x.dtype(), Grid::packs(x.len(), x.dtype()), &args)?;
            }
        );
        Ok(y)
    }
}

/// An odd length, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Scale { factor: -0.3, shift: 0.25 }, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Scale { factor: 0.5, shift: 0.0 }, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cpu {
    use super::Scale;
    use crate::engine::device::Real;
    use crate::ops::parallel::zip2;

    pub(super) fn forward<T: Real>(op: &Scale, x: &[T], y: &mut [T]) {
        let (factor, shift) = (T::from_f64(op.factor), T::from_f64(op.shift));
        zip2(y, x, |y, &x| *y = factor * x + shift);
    }
}
