//! SiLU (swish) activation: the template of an op file.
//!
//! ```text
//! y  = x s(x),                      s(x) = 1 / (1 + exp(-x))
//! dx = dy (s + x s (1 - s)) = dy s (1 + x (1 - s))
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `x * sigmoid(x)`, elementwise.
    pub fn silu(&mut self, x: &Var) -> Result<Var> {
        self.apply(Silu, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Silu;

impl Op for Silu {
    fn name(&self) -> &'static str {
        "silu"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("silu takes one input") };
        let mut y = Tensor::empty_as(x, x.shape());
        on_device!(x, cpu::<T> => cpu::forward::<T>(x.cpu()?, y.cpu_mut()?));
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("silu takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape());
        on_device!(x, cpu::<T> => cpu::backward::<T>(x.cpu()?, dy.cpu()?, dx.cpu_mut()?));
        Ok(vec![Some(dx)])
    }
}

/// An odd length (tail of the vectorised loop), and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Silu, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Silu, &[&[1, 64, 64, 128]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::zip2;

    pub(super) fn forward<T: Real>(x: &[T], y: &mut [T]) {
        zip2(y, x, |y, &x| *y = x * sigmoid(x));
    }

    pub(super) fn backward<T: Real>(x: &[T], dy: &[T], dx: &mut [T]) {
        let one = T::from_f64(1.0);
        crate::ops::parallel::zip3(dx, x, dy, |dx, &x, &dy| {
            let s = sigmoid(x);
            *dx = dy * s * (one + x * (one - s));
        });
    }

    fn sigmoid<T: Real>(x: T) -> T {
        let one = T::from_f64(1.0);
        one / (one + (-x).exp())
    }
}
