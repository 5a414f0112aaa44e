//! The gradient of [batch normalisation](super::batch_norm) by its input as an op: what a second derivative
//! passes through.
//!
//! ```text
//! u = r gamma (d - (A + xhat B) / m),    A = sum d,  B = sum d xhat         d: dy of the norm, u: its dx
//!
//! with v = du, V = sum v xhat, and S = sum v d - (A sum v + B V) / m:
//! dd     = r gamma (v - (sum v + xhat V) / m)
//! dgamma = r S
//! dx     = -(r^2 gamma / m) (S xhat + B v + V d - (B sum v + V A) / m - 2 B V xhat / m)
//! ```
//!
//! `r` is 1 / sqrt(variance + eps); sums run over the m elements of a channel. With constant statistics 1 / m is
//! 0 in all of them. The statistics are an input without a gradient: what they depend on x is counted here.
use super::batch_norm::{self, expect, wide};
use super::same_shape;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

/// See the [module](self) for the formulas. Inputs are `x`, `gamma`, `dy` and the statistics; where these may be
/// left out, in training, they are computed.
#[derive(Debug)]
pub struct BatchNormGradient {
    /// Added to the variance.
    pub eps: f64,
    /// Whether the statistics are those of `x`.
    pub training: bool,
}

impl BatchNormGradient {
    /// 1 / m, or 0 with constant statistics.
    fn share(&self, x: &Tensor, gamma: &Tensor) -> f64 {
        let m = (x.len() / gamma.len().max(1)) as f64;
        if self.training { 1.0 / m } else { 0.0 }
    }
}

impl Op for BatchNormGradient {
    fn name(&self) -> &'static str {
        "batch_norm_gradient"
    }

    /// Saves the statistics.
    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, gamma, dy, given @ ..] = inputs else { unreachable!("x, gamma and dy") };
        let [_, _, _, c] = x.nhwc(self.name())?;
        same_shape(self.name(), x, dy)?;
        let found = match given {
            [given] => wide(given)?,
            _ => batch_norm::statistics(x)?,
        };
        expect(self.name(), gamma, &[c])?;
        expect(self.name(), &found, &[2, c])?;
        let share = self.share(x, gamma);
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => {
                let (mean, rstd) = batch_norm::cpu::mean_and_rstd::<T>(found.cpu()?, self.eps);
                let call = batch_norm::cpu::Backward { x: x.cpu()?, dy: dy.cpu()?, mean, rstd: &rstd };
                let (mut of_hat, mut plain) = (vec![T::default(); c], vec![T::default(); c]);
                call.sums(&mut of_hat, &mut plain);
                call.run(gamma.cpu()?, [&of_hat, &plain], share, dx.cpu_mut()?);
            },
            cuda(gpu) => {
                let sums = cuda::sums(&gpu, self.eps, [x, dy, &found])?;
                let inputs = [x, dy, gamma, &found, &sums];
                batch_norm::cuda::input_gradient(&gpu, self.eps, share, inputs, &mut dx)?;
            }
        );
        Ok((dx, vec![found]))
    }

    fn backward(&self, call: &Call, v: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x, gamma, dy, given @ ..] = call.inputs else { unreachable!("as forward") };
        let [found] = &call.saved[..] else { unreachable!("forward saves the statistics") };
        let share = self.share(x, gamma);
        let mut dx = Tensor::empty_as(x, x.shape())?;
        let mut dgamma = Tensor::empty_as(gamma, gamma.shape())?;
        let mut ddy = Tensor::empty_as(dy, dy.shape())?;
        on_device!(x,
            cpu::<T> => {
                let (mean, rstd) = batch_norm::cpu::mean_and_rstd::<T>(found.cpu()?, self.eps);
                let (x, dy, v) = (x.cpu::<T>()?, dy.cpu::<T>()?, v.cpu::<T>()?);
                let call = cpu::Twice { x, dy, v, mean, rstd: &rstd, gamma: gamma.cpu()?, share };
                call.run([dx.cpu_mut()?, dgamma.cpu_mut()?, ddy.cpu_mut()?]);
            },
            cuda(gpu) => {
                let inputs = [x, gamma, dy, found, v];
                let outputs = [&mut dx, &mut dgamma, &mut ddy];
                cuda::backward(&gpu, self.eps, share, inputs, outputs)?;
            }
        );
        let mut gradients = vec![Some(dx), Some(dgamma), Some(ddy)];
        gradients.extend(given.iter().map(|_| None));
        Ok(gradients)
    }
}

/// Training and constant statistics; one image, single channels, whole packs, several blocks of rows; a critic.
pub fn cases() -> Vec<OpCase> {
    let training = |shape: &[usize]| {
        let op = || BatchNormGradient { eps: 1e-5, training: true };
        OpCase::new(op, &[shape, &shape[3..], shape])
    };
    let constant = |shape: &[usize]| {
        let op = || BatchNormGradient { eps: 1e-5, training: false };
        // The variances must be positive.
        OpCase::new(op, &[shape, &shape[3..], shape, &[2, shape[3]]])
            .inputs(1.0, 1.5)
            .without_grad(3)
    };
    // Sums of sums that nearly cancel: a gradient loses about a digit more than the norm's own.
    let tols = [2e-5, 4e-3, 3e-2];
    vec![
        training(&[2, 3, 5, 7]).kernel_tols(tols),
        training(&[1, 2, 3, 1]).kernel_tols(tols),
        training(&[2, 2, 3, 8]).kernel_tols(tols),
        training(&[2, 17, 19, 3]).kernel_only().kernel_tols(tols),
        constant(&[2, 3, 5, 3]).kernel_tols(tols),
        constant(&[1, 2, 3, 8]).kernel_tols(tols),
        training(&[128, 13, 13, 64]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::{DType, Real};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::batch_norm::cuda::{self, Partial};

    /// `sum dy` and `sum dy xhat`, `[2, C]`.
    pub(super) fn sums(
        gpu: &Gpu,
        eps: f64,
        inputs @ [x, _, found]: [&Tensor; 3],
    ) -> Result<Tensor> {
        let empty = || Tensor::empty_as(x, &found.shape()[1..]);
        cuda::sums(gpu, eps, inputs, [&mut empty()?, &mut empty()?])
    }

    pub(super) fn backward(
        gpu: &Gpu,
        eps: f64,
        share: f64,
        [x, gamma, dy, found, v]: [&Tensor; 5],
        [dx, dgamma, ddy]: [&mut Tensor; 3],
    ) -> Result<()> {
        let (n, c, dtype) = (x.len(), gamma.len(), x.dtype());
        let of_dy = sums(gpu, eps, [x, dy, found])?;
        let of_v = sums(gpu, eps, [x, v, found])?;
        cuda::input_gradient(gpu, eps, share, [x, v, gamma, found, &of_v], ddy)?;
        let rows = n / c.max(1);
        let mut partial = Partial::of(x, rows, c)?;
        let Partial { splits, rows_each, grid, .. } = partial;
        kernels::batch_norm_gradient_sums { v, dy, partial: &mut partial.sums, rows, c, rows_each }
            .launch(gpu, grid)?;
        let mut both = Tensor::empty_on(&x.device(), DType::F32, &[c])?;
        let [eps, share] = [eps, share].map(f32::from_f64);
        let (of_dy, of_v, statistics) = (&of_dy, &of_v, found);
        kernels::batch_norm_gradient_finish {
            partial: &partial.sums,
            of_dy,
            of_v,
            statistics,
            both: &mut both,
            dgamma,
            splits,
            c,
            eps,
            share,
        }
        .launch(gpu, Grid::elements(c))?;
        kernels::batch_norm_gradient_backward {
            x,
            dy,
            v,
            gamma,
            statistics,
            of_dy,
            of_v,
            both: &both,
            dx,
            n,
            c,
            eps,
            share,
        }
        .launch(gpu, Grid::packs(n, dtype))
    }
}

mod cpu {
    use crate::engine::device::Real;
    use crate::engine::pool::Buffer;
    use crate::ops::batch_norm::cpu::Backward;
    use crate::ops::parallel::{column_sums, rows, zip3};

    pub(super) struct Twice<'a, T> {
        pub(super) x: &'a [T],
        pub(super) dy: &'a [T],
        pub(super) v: &'a [T],
        pub(super) mean: &'a [T],
        pub(super) rstd: &'a [T],
        pub(super) gamma: &'a [T],
        pub(super) share: f64,
    }

    impl<T: Real> Twice<'_, T> {
        /// Plain sums, and those of products with xhat, of `of` by channel.
        fn sums<'a>(&'a self, of: &'a [T]) -> (Backward<'a, T>, [Vec<T>; 2]) {
            let c = self.mean.len();
            let call = Backward { x: self.x, dy: of, mean: self.mean, rstd: self.rstd };
            let mut sums = [vec![T::default(); c], vec![T::default(); c]];
            let [plain, of_hat] = &mut sums;
            call.sums(of_hat, plain);
            (call, sums)
        }

        pub(super) fn run(&self, [dx, dgamma, ddy]: [&mut [T]; 3]) {
            let c = self.mean.len();
            let (_, [a, b]) = self.sums(self.dy);
            let (call, [sum, hat]) = self.sums(self.v);
            call.run(self.gamma, [&hat, &sum], self.share, ddy);
            let mut products = Buffer::<T>::new(self.v.len());
            zip3(&mut products, self.v, self.dy, |p, &v, &dy| *p = v * dy);
            let share = T::from_f64(self.share);
            let both: Vec<T> = column_sums(&products, c)
                .into_iter()
                .enumerate()
                .map(|(k, p)| T::from_f64(p) - share * (a[k] * sum[k] + b[k] * hat[k]))
                .collect();
            for k in 0..c {
                dgamma[k] = self.rstd[k] * both[k];
            }
            rows(dx, c, |pixel, dx| {
                let at = pixel * c..(pixel + 1) * c;
                let (x, dy, v) = (&self.x[at.clone()], &self.dy[at.clone()], &self.v[at]);
                for k in 0..c {
                    let xhat = (x[k] - self.mean[k]) * self.rstd[k];
                    let means = share * (b[k] * sum[k] + hat[k] * a[k]);
                    let bv = share * b[k] * hat[k];
                    let rest = (both[k] - bv - bv) * xhat + b[k] * v[k] + hat[k] * dy[k] - means;
                    dx[k] =
                        T::default() - self.rstd[k] * self.rstd[k] * self.gamma[k] * share * rest;
                }
            });
        }
    }
}
