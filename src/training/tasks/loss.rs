//! What training minimises.
//!
//! ```text
//! l1              mean |p - q|       + dct * mean |DCT (p - q)|
//! mse             mean (p - q)^2     + dct * mean |DCT (p - q)|
//! charbonnier     mean sqrt((p - q)^2 + eps^2)  + dct * mean |DCT (p - q)|
//! huber           mean of (p - q)^2 / 2, beyond delta of delta (|p - q| - delta / 2)  + the same
//! dssim           (1 - SSIM(p, q)) / 2 on the scale of [0, 1], over the whole reflected crop
//! multiscale-dct  sum over s in 1, 2, 4 of (1/s) (mean |e_s| + dct * mean |DCT e_s|) / 1.75
//! ```
//!
//! `p` is what the network predicts and `q` what it should have; `e_s` is the error of x0 on the scale
//! of `[0, 1]`, shrunk `s` times. The DCT is orthonormal, over each whole crop.
use crate::diffusion::process::Prediction;
use crate::diffusion::sampler::Diffusion;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::ops::dssim::Centres;
use crate::training::sections::{LossConfig, LossKind, OptimConfig};

/// Refuses a loss of x0 for a network that predicts something else, where its gradient would grow without
/// bound or it compares no images. Exit code 2.
pub fn check(config: &LossConfig, diffusion: &Diffusion) -> Result<()> {
    let prediction = diffusion.prediction;
    if config.kind == LossKind::Dssim && prediction != Prediction::X0 {
        let cause = "dssim compares images; diffusion.prediction is not x0";
        let report = Report::new("wrong [loss]", cause);
        return Err(Error::Usage(report.help("--set loss.kind=l1")));
    }
    if config.kind == LossKind::MultiscaleDct && prediction == Prediction::Epsilon {
        let cause = "multiscale-dct compares clean images; diffusion.prediction is epsilon";
        let report = Report::new("wrong [loss]", cause);
        return Err(Error::Usage(report.help("--set loss.kind=mse")));
    }
    Ok(())
}

/// The tape of a training step.
pub fn tape(config: &OptimConfig) -> Tape {
    if config.recompute { Tape::recomputing() } else { Tape::training() }
}

/// The loss `[1]` of `predicted` against `target`, both `[N, H, W, 3]` in the network's unit.
///
/// The error of a residual is the error of x0 up to its sign, which no loss here sees.
pub fn loss(tape: &mut Tape, config: &LossConfig, predicted: &Var, target: &Var) -> Result<Var> {
    let plain = match config.kind {
        LossKind::L1 => tape.l1_loss(predicted, target)?,
        LossKind::Mse => tape.mse_loss(predicted, target)?,
        LossKind::Charbonnier => tape.charbonnier_loss(predicted, target, config.eps)?,
        LossKind::Huber => tape.huber_loss(predicted, target, config.delta)?,
        LossKind::Dssim => {
            let (p, q) = (tape.to_unit(predicted)?, tape.to_unit(target)?);
            return tape.dssim(&p, &q, Centres::Reflected);
        }
        LossKind::MultiscaleDct => return multiscale(tape, config.dct, predicted, target),
    };
    with_dct(tape, config.dct, plain, predicted, target)
}

fn with_dct(tape: &mut Tape, weight: f64, plain: Var, p: &Var, q: &Var) -> Result<Var> {
    if weight == 0.0 {
        return Ok(plain);
    }
    let error = tape.scaled_add(p, 1.0, q, -1.0)?;
    let spectral = spectrum(tape, &error)?;
    tape.scaled_add(&plain, 1.0, &spectral, weight)
}

fn multiscale(tape: &mut Tape, weight: f64, p: &Var, q: &Var) -> Result<Var> {
    // All of this is linear up to the absolute values, so the error is shrunk, not both images.
    let error = tape.scaled_add(p, 0.5, q, -0.5)?;
    let mut total: Option<Var> = None;
    for scale in [1usize, 2, 4] {
        let error = if scale == 1 { error.clone() } else { tape.bilinear_down(&error, scale)? };
        let plain = magnitude(tape, &error)?;
        let spectral = spectrum(tape, &error)?;
        let term = tape.scaled_add(&plain, 1.0, &spectral, weight)?;
        let share = 1.0 / (1.75 * scale as f64);
        total = Some(match total {
            None => tape.scale(&term, share)?,
            Some(sum) => tape.scaled_add(&sum, 1.0, &term, share)?,
        });
    }
    total.ok_or_else(|| unreachable!("there are three scales"))
}

/// The mean of `|DCT x|`.
fn spectrum(tape: &mut Tape, x: &Var) -> Result<Var> {
    let coefficients = tape.dct2(x, None)?;
    magnitude(tape, &coefficients)
}

/// The mean of `|x|`.
fn magnitude(tape: &mut Tape, x: &Var) -> Result<Var> {
    let zero = tape.input(Tensor::zeros_as(x.value(), x.shape())?);
    tape.l1_loss(x, &zero)
}
