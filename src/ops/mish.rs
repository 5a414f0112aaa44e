//! Mish (Misra 2019): a smooth unit that stays a little negative left of 0.
//!
//! ```text
//! y  = x T,     T = tanh(ln(1 + exp x)) = (E^2 + 2 E) / (E^2 + 2 E + 2),  E = exp x
//! dx = dy (T + x sigmoid(x) (1 - T^2))
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `x tanh(ln(1 + exp x))`, elementwise.
    pub fn mish(&mut self, x: &Var) -> Result<Var> {
        self.apply(Mish, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Mish;

impl Op for Mish {
    fn name(&self) -> &'static str {
        "mish"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("mish takes one input") };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                kernels::mish_forward { x, y: &mut y, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("mish takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(x.cpu()?, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                kernels::mish_backward { x, dy, dx: &mut dx, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// An odd length, inputs far from 0, and the first level of a UNet.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Mish, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Mish, &[&[17]]).inputs(5.0, 0.0),
        OpCase::new(|| Mish, &[&[33]]).inputs(60.0, 0.0),
        OpCase::new(|| Mish, &[&[1, 160, 160, 64]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{zip2, zip3};

    pub(super) fn forward<T: Real>(x: &[T], y: &mut [T]) {
        zip2(y, x, |y, &x| *y = x * gate(x).0);
    }

    pub(super) fn backward<T: Real>(x: &[T], dy: &[T], dx: &mut [T]) {
        let one = T::from_f64(1.0);
        zip3(dx, x, dy, |dx, &x, &dy| {
            let (gate, rest) = gate(x);
            let sigmoid = one / (one + (-x).exp());
            *dx = dy * (gate + x * sigmoid * rest * (one + gate));
        });
    }

    /// `T` and `1 - T`, both without cancellation.
    fn gate<T: Real>(x: T) -> (T, T) {
        // Beyond 20 the gate is 1 in both precisions, and the square of `E` would overflow.
        let limit = T::from_f64(20.0);
        let e = if x > limit { limit } else { x }.exp();
        let two = T::from_f64(2.0);
        let n = e * (e + two);
        (n / (n + two), two / (n + two))
    }
}
