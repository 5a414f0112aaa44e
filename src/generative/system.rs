//! What the training loop and the sampler ask of a system.
use super::config::Config;
use super::digits::Digits;
use crate::engine::parameter::Parameter;
use crate::engine::rng::Stream;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::training::optimizer::{self, Optimizer, Plan};

/// Networks that draw images.
pub trait System: Send + Sync {
    /// Parameters and buffers of each network that has an optimizer of its own; the first counts the steps.
    fn parts(&self) -> Vec<(&[Parameter], &[Parameter])>;

    /// The side of an image.
    fn side(&self) -> usize;

    /// Draws `count` images `[count, side, side, 1]` in `[-1, 1]`, a function of seed and purpose of `noise`.
    fn sample(&self, noise: Stream, count: usize) -> Result<Tensor>;

    /// How many steps the optimizer of part `part` takes in one of the run.
    fn steps_of(&self, part: usize) -> u64 {
        let _ = part;
        1
    }
}

/// The part of a system that only training needs.
pub(super) trait Trainable: System {
    /// Step `step`, counted from 1: updates every network and says what was measured, the loss first.
    fn step(&self, step: u64, data: &Digits, moved: &mut Moved) -> Result<Measured>;
}

/// What a step measured, by names.
pub(super) type Measured = Vec<(&'static str, f64)>;

/// The optimizers of a run, in the order of [`System::parts`].
pub(super) struct Moved<'a> {
    pub(super) config: &'a Config,
    pub(super) optimizers: Vec<Optimizer>,
}

impl Moved<'_> {
    /// Moves `parameters`, those of part `part`, down the gradient of `loss` `[1]`, and returns its value.
    ///
    /// # Errors
    /// Exit code 6 if the loss or the gradients are not finite.
    pub(super) fn descend(
        &mut self,
        part: usize,
        steps_each: u64,
        parameters: &[Parameter],
        tape: Tape,
        loss: &Var,
    ) -> Result<f64> {
        let value = number(loss)?;
        if !value.is_finite() {
            return Err(not_finite("the loss", value));
        }
        let one = Tensor::from_f64(&[1.0], &[1], loss.value().dtype());
        let mut grads = tape.backward(loss, one)?;
        let gradients = optimizer::take(&mut grads, parameters);
        let steps = self.config.run.steps.saturating_mul(steps_each);
        let plan = Plan { optim: &self.config.optim, ema: &self.config.ema, steps, since: 0 };
        let done = self.optimizers[part].step(parameters, &gradients, &plan)?;
        match done.norm.is_finite() {
            true => Ok(value),
            false => Err(not_finite("the norm of the gradients", done.norm)),
        }
    }
}

/// The number in a tensor of one.
pub(super) fn number(v: &Var) -> Result<f64> {
    Ok(v.value().to_f64_vec()?[0])
}

fn not_finite(what: &str, value: f64) -> Error {
    let report = Report::new(format!("{what} is not finite"), format!("it is {value}"));
    Error::Check(report.help("lower optim.lr, under another run.name"))
}
