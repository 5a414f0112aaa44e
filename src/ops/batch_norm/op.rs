//! The op, its entries on the tape, and its gradient as an op.
use super::passes::{cpu, cuda, expect, follow, statistics, wide};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::batch_norm_gradient::BatchNormGradient;

impl Tape {
    /// `x` `[N, H, W, C]` normalised by its own statistics, then `gamma` and `beta` `[C]`. The running
    /// statistics `[2, C]` (f32 on a GPU) move towards them by `momentum`.
    pub fn batch_norm(
        &mut self,
        x: &Var,
        [gamma, beta]: [&Var; 2],
        running: &mut Tensor,
        momentum: f64,
        eps: f64,
    ) -> Result<Var> {
        let found = statistics(x.value())?;
        follow(running, &found, x.value().len(), momentum)?;
        let found = self.input(found);
        self.apply(BatchNorm { eps, training: true }, &[x, gamma, beta, &found])
    }

    /// `x` `[N, H, W, C]` normalised by given `statistics` `[2, C]`, then `gamma` and `beta` `[C]`.
    pub fn batch_norm_with(
        &mut self,
        x: &Var,
        [gamma, beta]: [&Var; 2],
        statistics: &Var,
        eps: f64,
    ) -> Result<Var> {
        self.apply(BatchNorm { eps, training: false }, &[x, gamma, beta, statistics])
    }
}

/// See the [module](super) for the formulas. Inputs are `x`, `gamma`, `beta` and statistics, which
/// have no gradient; in training these may be left out and are computed.
#[derive(Debug)]
pub struct BatchNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Whether the statistics are those of `x`, so that gradients flow through them.
    pub training: bool,
}

impl Op for BatchNorm {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, gamma, beta, given @ ..] = inputs else { unreachable!("batch_norm takes three") };
        let [_, _, _, c] = x.nhwc(self.name())?;
        for v in [gamma, beta] {
            expect(self.name(), v, &[c])?;
        }
        let found = match given {
            [given] => wide(given)?,
            _ if self.training => statistics(x)?,
            _ => unreachable!("constant statistics are an input"),
        };
        expect(self.name(), &found, &[2, c])?;
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => {
                let (mean, rstd) = cpu::mean_and_rstd::<T>(found.cpu()?, self.eps);
                cpu::forward(x.cpu()?, mean, &rstd, gamma.cpu()?, beta.cpu()?, y.cpu_mut()?);
            },
            cuda(gpu) => cuda::forward(&gpu, self.eps, [x, gamma, beta, &found], &mut y)?,
        );
        Ok((y, vec![found]))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x, gamma, _, given @ ..] = call.inputs else { unreachable!("as forward") };
        let [found] = &call.saved[..] else { unreachable!("forward saves the statistics") };
        let m = x.len() / gamma.len().max(1);
        let share = if self.training { 1.0 / m as f64 } else { 0.0 };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        let mut dgamma = Tensor::empty_as(gamma, gamma.shape())?;
        let mut dbeta = Tensor::empty_as(gamma, gamma.shape())?;
        on_device!(x,
            cpu::<T> => {
                let (mean, rstd) = cpu::mean_and_rstd::<T>(found.cpu()?, self.eps);
                let call = cpu::Backward { x: x.cpu()?, dy: dy.cpu()?, mean, rstd: &rstd };
                call.sums(dgamma.cpu_mut()?, dbeta.cpu_mut()?);
                call.run(gamma.cpu()?, [dgamma.cpu()?, dbeta.cpu()?], share, dx.cpu_mut()?);
            },
            cuda(gpu) => {
                let gradients = [&mut dx, &mut dgamma, &mut dbeta];
                cuda::backward(&gpu, self.eps, share, [x, dy, gamma, found], gradients)?;
            }
        );
        let mut gradients = vec![Some(dx), Some(dgamma), Some(dbeta)];
        gradients.extend(given.iter().map(|_| None));
        Ok(gradients)
    }

    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        let [x, gamma, _, statistics] = call.inputs else {
            let what = "a second derivative without given statistics".to_owned();
            return Err(Error::Unsupported { op: self.name(), what });
        };
        if call.wants[1..].contains(&true) {
            let what = "a second derivative by gamma or beta".to_owned();
            return Err(Error::Unsupported { op: self.name(), what });
        }
        let op = BatchNormGradient { eps: self.eps, training: self.training };
        Ok(vec![Some(tape.apply(op, &[x, gamma, dy, statistics])?), None, None, None])
    }
}

/// Training and constant statistics; one image, single channels, whole packs, several blocks of rows;
/// a residual block.
pub fn cases() -> Vec<OpCase> {
    let training = |shape: &[usize]| {
        let c = &shape[3..];
        OpCase::new(|| BatchNorm { eps: 1e-5, training: true }, &[shape, c, c])
    };
    let constant = |shape: &[usize]| {
        let (c, statistics) = (&shape[3..], [2, shape[3]]);
        // The variances must be positive.
        OpCase::new(|| BatchNorm { eps: 1e-5, training: false }, &[shape, c, c, &statistics])
            .inputs(1.0, 1.5)
            .without_grad(3)
    };
    vec![
        training(&[2, 3, 5, 7]),
        training(&[1, 2, 3, 1]),
        training(&[2, 2, 3, 8]),
        training(&[1, 3, 2, 2]).inputs(1.0, 30.0),
        training(&[2, 17, 19, 3]).kernel_only(),
        training(&[1, 33, 16, 24]).kernel_only(),
        constant(&[2, 3, 5, 3]),
        constant(&[1, 2, 3, 8]),
        training(&[16, 48, 48, 64]).timed_only(),
        constant(&[1, 256, 256, 64]).timed_only(),
    ]
}
