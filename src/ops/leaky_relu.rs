//! Leaky rectified linear unit.
//!
//! ```text
//! y  = x where x > 0, else slope x
//! dx = dy where x > 0, else slope dy
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `x`, multiplied by `slope` where it is not positive.
    pub fn leaky_relu(&mut self, x: &Var, slope: f64) -> Result<Var> {
        self.apply(LeakyRelu { slope }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct LeakyRelu {
    /// The factor of values that are not positive.
    pub slope: f64,
}

impl Op for LeakyRelu {
    fn name(&self) -> &'static str {
        "leaky_relu"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("leaky_relu takes one input") };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self.slope, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let (slope, n) = (f32::from_f64(self.slope), x.len());
                kernels::leaky_relu_forward { x, y: &mut y, slope, n }
                    .launch(&gpu, Grid::packs(n, x.dtype()))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(gradient(self.slope, call.inputs[0], dy)?)])
    }

    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        Ok(vec![Some(tape.leaky_relu_gradient(&call.inputs[0], dy, self.slope)?)])
    }
}

/// `dy`, multiplied by `slope` where `x` is not positive.
pub(super) fn gradient(slope: f64, x: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let mut dx = Tensor::empty_as(x, x.shape())?;
    on_device!(x,
        cpu::<T> => cpu::backward::<T>(slope, x.cpu()?, dy.cpu()?, dx.cpu_mut()?),
        cuda(gpu) => {
            let (slope, n) = (f32::from_f64(slope), x.len());
            kernels::leaky_relu_backward { x, dy, dx: &mut dx, slope, n }
                .launch(&gpu, Grid::packs(n, x.dtype()))?;
        }
    );
    Ok(dx)
}

/// An odd length (tail of the vectorised loop), and a discriminator-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| LeakyRelu { slope: 0.2 }, &[&[2, 3, 5, 7]]),
        OpCase::new(|| LeakyRelu { slope: 0.01 }, &[&[1]]),
        OpCase::new(|| LeakyRelu { slope: 0.2 }, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{zip2, zip3};

    pub(super) fn forward<T: Real>(slope: f64, x: &[T], y: &mut [T]) {
        let (zero, slope) = (T::default(), T::from_f64(slope));
        zip2(y, x, move |y, &x| *y = if x > zero { x } else { slope * x });
    }

    pub(super) fn backward<T: Real>(slope: f64, x: &[T], dy: &[T], dx: &mut [T]) {
        let (zero, slope) = (T::default(), T::from_f64(slope));
        zip3(dx, x, dy, move |dx, &x, &dy| *dx = if x > zero { dy } else { slope * dy });
    }
}
