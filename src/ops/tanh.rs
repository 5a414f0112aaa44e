//! Hyperbolic tangent.
//!
//! ```text
//! y  = tanh(x)
//! dx = dy (1 - y^2)
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `tanh(x)`, elementwise.
    pub fn tanh(&mut self, x: &Var) -> Result<Var> {
        self.apply(Tanh, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Tanh;

impl Op for Tanh {
    fn name(&self) -> &'static str {
        "tanh"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("tanh takes one input") };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                kernels::tanh_forward { x, y: &mut y, n: x.len() }
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
                kernels::tanh_backward { y, dy, dx: &mut dx, n: y.len() }
                    .launch(&gpu, Grid::packs(y.len(), y.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// An odd length, inputs far from 0, and the images of a generator.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Tanh, &[&[2, 3, 5, 7]]),
        // Near 1 the gradient is what rounding leaves of 1 - y.
        OpCase::new(|| Tanh, &[&[17]]).inputs(3.0, 0.0).kernel_tols([1e-5, 5e-3, 3e-2]),
        OpCase::new(|| Tanh, &[&[128, 28, 28, 1]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{zip2, zip3};

    pub(super) fn forward<T: Real>(x: &[T], y: &mut [T]) {
        zip2(y, x, |y, &x| *y = x.tanh());
    }

    pub(super) fn backward<T: Real>(y: &[T], dy: &[T], dx: &mut [T]) {
        let one = T::from_f64(1.0);
        zip3(dx, y, dy, |dx, &y, &dy| *dx = dy * (one - y) * (one + y));
    }
}
