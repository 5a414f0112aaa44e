//! Gaussian error linear unit, in its exact form.
//!
//! ```text
//! y  = x P(x),                 P(x) = (1 + erf(x / sqrt(2))) / 2
//! dx = dy (P(x) + x p(x)),     p(x) = exp(-x^2 / 2) / sqrt(2 pi)
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `x` times the normal distribution function of `x`, elementwise.
    pub fn gelu(&mut self, x: &Var) -> Result<Var> {
        self.apply(Gelu, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Gelu;

impl Op for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("gelu takes one input") };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                kernels::gelu_forward { x, y: &mut y, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("gelu takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(x.cpu()?, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                kernels::gelu_backward { x, dy, dx: &mut dx, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// An odd length, inputs far from 0, and the hidden layer of a transformer block.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Gelu, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Gelu, &[&[17]]).inputs(5.0, 0.0),
        OpCase::new(|| Gelu, &[&[1, 64, 64, 192]]).timed_only(),
    ]
}

mod cpu {
    use std::f64::consts::{PI, SQRT_2};

    use crate::engine::device::Real;
    use crate::ops::parallel::{zip2, zip3};

    pub(super) fn forward<T: Real>(x: &[T], y: &mut [T]) {
        zip2(y, x, |y, &x| *y = x * distribution(x));
    }

    pub(super) fn backward<T: Real>(x: &[T], dy: &[T], dx: &mut [T]) {
        let (half, norm) = (T::from_f64(0.5), T::from_f64(1.0 / (2.0 * PI).sqrt()));
        zip3(dx, x, dy, |dx, &x, &dy| {
            let density = norm * (-half * x * x).exp();
            *dx = dy * (distribution(x) + x * density);
        });
    }

    fn distribution<T: Real>(x: T) -> T {
        T::from_f64(0.5) * (T::from_f64(1.0) + (x * T::from_f64(1.0 / SQRT_2)).erf())
    }
}
