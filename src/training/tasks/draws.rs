//! What a system that draws images from noise is, and what teaching it takes.
use super::digits::Digits;
use crate::engine::rng::Stream;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::optimizer::Plan;
use crate::training::ranks::Unit;
use crate::training::sections::{EmaConfig, OptimConfig, RunConfig};
use crate::training::stepper::{Move, Stepper};
use crate::training::task::Taken;

/// Networks that draw images.
pub trait Draws: Send + Sync {
    /// Each network with an optimizer of its own; the first counts the steps.
    fn parts(&self) -> Vec<Part<'_>>;

    /// The side of an image.
    fn side(&self) -> usize;

    /// Draws `count` images `[count, side, side, 1]` in `[-1, 1]`, a function of seed and purpose of `noise`, where
    /// the networks lie.
    ///
    /// # Errors
    /// If memory is full.
    fn draw(&self, noise: Stream, count: usize) -> Result<Tensor>;
}

/// The same to be trained. On a GPU in single precision: these networks are small.
pub(in crate::training) trait Teaching: Draws {
    /// Batches of a step.
    fn batches(&self) -> u64 {
        1
    }

    /// What makes its batches of `digits`, each a function of `seed` and its number.
    fn source(&self, digits: Digits, seed: u64) -> Whole;

    /// Learns from the batches of a step, or from parts of them: those of one batch follow each other.
    ///
    /// # Errors
    /// If memory is full.
    fn step(&self, on: &mut dyn Stepper, rules: &Rules<'_>, batches: &[Batch]) -> Result<Taken>;
}

/// Makes a part of a batch.
pub(in crate::training) type Source = Box<dyn Fn(&Unit) -> Result<Batch> + Send>;

/// Makes the batch of a number.
pub(in crate::training) type Whole = Box<dyn Fn(u64) -> Result<Batch> + Send>;

/// The sizes of a system, of which it is built.
pub(super) trait Sizes {
    /// Refuses sizes that make no network; exit code 2.
    ///
    /// # Errors
    /// With the key.
    fn check(&self) -> Result<()>;

    /// The system, its initial weights a function of `seed`.
    fn build(&self, seed: u64) -> Box<dyn Teaching>;
}

/// How parts move.
pub(in crate::training) struct Rules<'a> {
    pub(super) run: &'a RunConfig,
    pub(super) optim: &'a OptimConfig,
    pub(super) ema: &'a EmaConfig,
}

impl<'a> Rules<'a> {
    /// How `part` moves, which takes `pace` steps in one of the run.
    pub(super) const fn of(&self, part: usize, pace: u64) -> Move<'a> {
        let steps = self.run.steps.saturating_mul(pace);
        Move { part, plan: Plan { optim: self.optim, ema: self.ema, steps, since: 0 } }
    }
}

/// The rule for `model.latent`.
pub(super) fn latent(n: usize) -> (bool, &'static str) {
    ((1..=65536).contains(&n), "model.latent must lie in 1..=65536")
}

/// Refuses by the first of `rules` that does not hold; exit code 2.
///
/// # Errors
/// With its words.
pub(super) fn rule(rules: &[(bool, &str)]) -> Result<()> {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, cause)) => Err(Error::Usage(Report::new("wrong configuration", *cause))),
        None => Ok(()),
    }
}
