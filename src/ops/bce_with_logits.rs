//! Mean binary cross entropy of logits against one target for all of them: the loss of a discriminator
//! (target 1 for real images, 0 for generated ones), and of what tries to deceive it.
//!
//! ```text
//! y  = sum of (max(x, 0) - x target + ln(1 + exp(-|x|))) / n
//! dx = dy (sigmoid(x) - target) / n
//! ```
//!
//! The logit, not its sigmoid, is what stays exact far from 0. Summed as the [losses](super::mse_loss) are.
use super::mean_loss::mean_on_gpu;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The mean cross entropy of `sigmoid(x)` against `target` in `[0, 1]`, as `[1]`.
    pub fn bce_with_logits(&mut self, x: &Var, target: f64) -> Result<Var> {
        self.apply(BceWithLogits { target }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct BceWithLogits {
    /// The probability that every logit should express, in `[0, 1]`.
    pub target: f64,
}

impl Op for BceWithLogits {
    fn name(&self) -> &'static str {
        "bce_with_logits"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("bce_with_logits takes one input") };
        if x.is_empty() {
            return Err(Error::shape(self.name(), "at least one logit", x.shape()));
        }
        let mean = on_device!(x,
            cpu::<T> => {
                Tensor::from_f64(&[cpu::forward::<T>(self.target, x.cpu()?)], &[1], x.dtype())
            },
            cuda(gpu) => mean_on_gpu(&gpu, x, |partial, grid| {
                let target = f32::from_f64(self.target);
                kernels::bce_with_logits_sums { x, partial, n: x.len(), target }.launch(&gpu, grid)
            })?,
        );
        Ok((mean, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("bce_with_logits takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => {
                let each = dy.to_f64_vec()?[0] / x.len() as f64;
                cpu::backward::<T>(self.target, each, x.cpu()?, dx.cpu_mut()?);
            },
            cuda(gpu) => {
                let (target, n) = (f32::from_f64(self.target), x.len());
                kernels::bce_with_logits_backward { x, dy, dx: &mut dx, target, n }
                    .launch(&gpu, Grid::packs(n, x.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Both targets and one between, one element, logits far from 0, several blocks and a rest; the verdicts on
/// a training batch.
pub fn cases() -> Vec<OpCase> {
    let case = |target, shape: &[usize]| OpCase::new(move || BceWithLogits { target }, &[shape]);
    vec![
        case(1.0, &[2, 3, 5, 7]),
        case(0.0, &[5, 1]),
        case(0.9, &[1]),
        case(1.0, &[17]).inputs(30.0, 0.0),
        // Gradients of dy / n are subnormal in f16, with steps of 6e-8: that is what loss scaling is for.
        case(0.0, &[3, 31, 17, 5]).kernel_only().kernel_tols([1e-5, 2e-2, 8e-3]),
        case(1.0, &[16, 32, 32, 1]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{sum, zip2};

    pub(super) fn forward<T: Real>(target: f64, x: &[T]) -> f64 {
        let each = |x: f64| (if x < 0.0 { 0.0 } else { x }) - x * target + (-x.abs()).exp().ln_1p();
        sum(x.len(), |i| each(x[i].to_f64())) / x.len() as f64
    }

    pub(super) fn backward<T: Real>(target: f64, each: f64, x: &[T], dx: &mut [T]) {
        let slope = |x: f64| each * (1.0 / (1.0 + (-x).exp()) - target);
        zip2(dx, x, move |dx, &x| *dx = T::from_f64(slope(x.to_f64())));
    }
}
