//! Rectified linear unit.
//!
//! ```text
//! y  = max(x, 0)
//! dx = dy where y > 0, else 0
//! ```
//!
//! A NaN stays a NaN, so that it is seen at the end of the network.
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `max(x, 0)`, elementwise.
    pub fn relu(&mut self, x: &Var) -> Result<Var> {
        self.apply(Relu, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Relu;

impl Op for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("relu takes one input") };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                kernels::relu_forward { x, y: &mut y, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let y = call.output;
        let mut dx = Tensor::empty_as(y, y.shape())?;
        on_device!(y,
            cpu::<T> => cpu::backward::<T>(y.cpu()?, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                kernels::relu_backward { y, dy, dx: &mut dx, n: y.len() }
                    .launch(&gpu, Grid::packs(y.len(), y.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// An odd length (tail of the vectorised loop), and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Relu, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Relu, &[&[1]]),
        OpCase::new(|| Relu, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{zip2, zip3};

    pub(super) fn forward<T: Real>(x: &[T], y: &mut [T]) {
        let zero = T::default();
        zip2(y, x, |y, &x| *y = if x < zero { zero } else { x });
    }

    pub(super) fn backward<T: Real>(y: &[T], dy: &[T], dx: &mut [T]) {
        let zero = T::default();
        zip3(dx, y, dy, |dx, &y, &dy| *dx = if y > zero { dy } else { zero });
    }
}
