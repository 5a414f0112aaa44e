//! Keeping values within bounds.
//!
//! ```text
//! y  = min(max(x, low), high)
//! dx = dy where low <= x <= high, else 0
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `x` within `[low, high]`.
    pub fn clamp(&mut self, x: &Var, low: f64, high: f64) -> Result<Var> {
        self.apply(Clamp { low, high, finite: false }, &[x])
    }

    /// The same, but NaN where `x` is infinite: pixels that half precision could not hold are not to look like any.
    pub fn clamp_finite(&mut self, x: &Var, low: f64, high: f64) -> Result<Var> {
        self.apply(Clamp { low, high, finite: true }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Clamp {
    /// The least value.
    pub low: f64,
    /// The greatest value.
    pub high: f64,
    /// Whether what is infinite becomes NaN.
    pub finite: bool,
}

impl Op for Clamp {
    fn name(&self) -> &'static str {
        "clamp"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("clamp takes one input") };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let (low, high, n) = (f32::from_f64(self.low), f32::from_f64(self.high), x.len());
                let finite = self.finite.into();
                kernels::clamp_forward { x, y: &mut y, low, high, finite, n }
                    .launch(&gpu, Grid::packs(n, x.dtype()))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("clamp takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(self, x.cpu()?, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                let (low, high, n) = (f32::from_f64(self.low), f32::from_f64(self.high), x.len());
                kernels::clamp_backward { x, dy, dx: &mut dx, low, high, n }
                    .launch(&gpu, Grid::packs(n, x.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Bounds that cut both tails of an odd length, and an image of a training batch.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Clamp { low: -0.5, high: 0.3, finite: false }, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Clamp { low: -1.0, high: 1.0, finite: true }, &[&[4, 256, 256, 3]])
            .timed_only(),
    ]
}

mod cpu {
    use super::Clamp;
    use crate::engine::device::Real;
    use crate::ops::parallel::{zip2, zip3};

    pub(super) fn forward<T: Real>(op: &Clamp, x: &[T], y: &mut [T]) {
        let (low, high, finite) = (T::from_f64(op.low), T::from_f64(op.high), op.finite);
        // A NaN stays one.
        zip2(y, x, move |y, &x| {
            *y = if finite && x.to_f64().is_infinite() {
                T::from_f64(f64::NAN)
            } else if x < low {
                low
            } else if x > high {
                high
            } else {
                x
            }
        });
    }

    pub(super) fn backward<T: Real>(op: &Clamp, x: &[T], dy: &[T], dx: &mut [T]) {
        let (zero, low, high) = (T::default(), T::from_f64(op.low), T::from_f64(op.high));
        zip3(dx, x, dy, move |dx, &x, &dy| *dx = if x < low || x > high { zero } else { dy });
    }
}
