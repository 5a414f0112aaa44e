//! SiLU (swish) activation: the template of an op file.
//!
//! ```text
//! y  = x s(x),                      s(x) = 1 / (1 + exp(-x))
//! dx = dy (s + x s (1 - s)) = dy s (1 + x (1 - s))
//! ```
use crate::engine::cuda::{Grid, kernels};
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
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                kernels::silu_forward { x, y: &mut y, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("silu takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(x.cpu()?, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                kernels::silu_backward { x, dy, dx: &mut dx, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// An odd length (tail of the vectorised loop), several blocks, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Silu, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Silu, &[&[4099]]).kernel_only(),
        OpCase::new(|| Silu, &[&[1, 64, 64, 128]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::threads::pieces;
    use crate::ops::parallel::{CHUNK, chunks2};
    use crate::ops::simd::{Lane, multiversion};

    pub(super) fn forward<T: Lane>(x: &[T], y: &mut [T]) {
        chunks2(y, x, |y, x| silu(x, y));
    }

    multiversion! {
        fn silu<T, FMA>(x: &[T], y: &mut [T]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x * x.sigmoid::<FMA>();
            }
        }
    }

    pub(super) fn backward<T: Lane>(x: &[T], dy: &[T], dx: &mut [T]) {
        pieces(dx, CHUNK, |i, dx| {
            let of = i * CHUNK..i * CHUNK + dx.len();
            slope(&x[of.clone()], &dy[of], dx);
        });
    }

    multiversion! {
        fn slope<T, FMA>(x: &[T], dy: &[T], dx: &mut [T]) {
            for (dx, (&x, &dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                let s = x.sigmoid::<FMA>();
                *dx = dy * s * (x - x * s + T::from_f64(1.0));
            }
        }
    }
}
