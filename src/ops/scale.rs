//! Multiplication by a number.
//!
//! ```text
//! y  = s x
//! dx = s dy
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `factor * x`, elementwise.
    pub fn scale(&mut self, x: &Var, factor: f64) -> Result<Var> {
        self.apply(Scale { factor }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Scale {
    /// What every element is multiplied by.
    pub factor: f64,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("scale takes one input") };
        Ok((scaled(x, self.factor)?, Saved::new()))
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
    let mut y = Tensor::empty_as(x, x.shape())?;
    on_device!(x,
        cpu::<T> => cpu::forward::<T>(factor, x.cpu()?, y.cpu_mut()?),
        cuda(gpu) => {
            let (factor, n) = (f32::from_f64(factor), x.len());
            kernels::scale { x, y: &mut y, factor, n }.launch(&gpu, Grid::packs(n, x.dtype()))?;
        }
    );
    Ok(y)
}

/// An odd length, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Scale { factor: -0.3 }, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Scale { factor: 0.5 }, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::zip2;

    pub(super) fn forward<T: Real>(factor: f64, x: &[T], y: &mut [T]) {
        let factor = T::from_f64(factor);
        zip2(y, x, |y, &x| *y = factor * x);
    }
}
