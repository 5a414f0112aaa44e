//! The mean of all elements, such as the verdicts of a critic.
//!
//! ```text
//! y  = sum of x / n
//! dx = dy / n
//! ```
//!
//! Summed as the [losses](super::mse_loss) are.
use super::mean_loss::mean_on_gpu;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The mean of all elements of `x`, as `[1]`.
    pub fn mean(&mut self, x: &Var) -> Result<Var> {
        self.apply(Mean, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Mean;

impl Op for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("mean takes one input") };
        if x.is_empty() {
            return Err(Error::shape(self.name(), "at least one element", x.shape()));
        }
        let mean = on_device!(x,
            cpu::<T> => Tensor::from_f64(&[cpu::forward::<T>(x.cpu()?)], &[1], x.dtype()),
            cuda(gpu) => mean_on_gpu(&gpu, x, |partial, grid| {
                kernels::mean_sums { x, partial, n: x.len() }.launch(&gpu, grid)
            })?,
        );
        Ok((mean, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("mean takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => dx.cpu_mut()?.fill(T::from_f64(dy.to_f64_vec()?[0] / x.len() as f64)),
            cuda(gpu) => {
                kernels::mean_backward { dy, dx: &mut dx, n: x.len() }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// An odd length, one element, several blocks and a rest, and the verdicts on a training batch.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Mean, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Mean, &[&[1]]),
        // Gradients of dy / n are subnormal in f16, with steps of 6e-8: that is what loss scaling is for.
        OpCase::new(|| Mean, &[&[3, 31, 17, 5]]).kernel_only().kernel_tols([1e-5, 1e-2, 8e-3]),
        OpCase::new(|| Mean, &[&[16, 32, 32, 1]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::sum;

    pub(super) fn forward<T: Real>(x: &[T]) -> f64 {
        sum(x.len(), |i| x[i].to_f64()) / x.len() as f64
    }
}
