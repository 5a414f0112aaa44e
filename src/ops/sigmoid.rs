//! Logistic function.
//!
//! ```text
//! y  = 1 / (1 + exp(-x))
//! dx = dy y (1 - y)
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `1 / (1 + exp(-x))`, elementwise.
    pub fn sigmoid(&mut self, x: &Var) -> Result<Var> {
        self.apply(Sigmoid, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Sigmoid;

impl Op for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("sigmoid takes one input") };
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                kernels::sigmoid_forward { x, y: &mut y, n: x.len() }
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
                kernels::sigmoid_backward { y, dy, dx: &mut dx, n: y.len() }
                    .launch(&gpu, Grid::packs(y.len(), y.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// An odd length, inputs far from 0, and the probabilities of a batch of patches.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Sigmoid, &[&[2, 3, 5, 7]]),
        // Near 1 the gradient is what rounding leaves of 1 - y.
        OpCase::new(|| Sigmoid, &[&[17]]).inputs(6.0, 0.0).kernel_tols([1e-5, 5e-3, 3e-2]),
        OpCase::new(|| Sigmoid, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cpu {
    use rayon::prelude::*;

    use crate::engine::device::Real;
    use crate::ops::parallel::{CHUNK, zip3};
    use crate::ops::simd::{Lane, multiversion};

    pub(super) fn forward<T: Lane>(x: &[T], y: &mut [T]) {
        y.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(|(y, x)| sigmoid(x, y));
    }

    multiversion! {
        fn sigmoid<T, FMA>(x: &[T], y: &mut [T]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = x.sigmoid::<FMA>();
            }
        }
    }

    pub(super) fn backward<T: Real>(y: &[T], dy: &[T], dx: &mut [T]) {
        let one = T::from_f64(1.0);
        zip3(dx, y, dy, |dx, &y, &dy| *dx = dy * y * (one - y));
    }
}
