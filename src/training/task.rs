//! What is trained, as the loop sees it.
use std::path::Path;

use serde_json::Value;

use super::batch::Batch;
use super::checkpoint::Part;
use super::log::{Metrics, Reporter};
use super::ranks::Ranks;
use super::stepper::{Bad, Done, Stepper};
use crate::engine::device::{DType, Device};
use crate::engine::interrupt::Stop;
use crate::error::Result;

/// Networks that learn, and what they learn.
pub trait Task: Send + Sync {
    /// Networks that have an optimizer each; the first takes one step in each of the run.
    fn parts(&self) -> Vec<Part<'_>>;

    /// Batches of a step.
    fn batches(&self) -> u64;

    /// Batches that are averaged in one descent; a step has descents one after the other.
    fn together(&self) -> u64 {
        1
    }

    /// Gives the weights of what is not trained to a run that starts.
    ///
    /// # Errors
    /// If they cannot be read.
    fn complete(&self) -> Result<()> {
        Ok(())
    }

    /// Moves what is not trained to where the parts lie.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    fn settle(&self, device: &Device, dtype: DType) -> Result<()> {
        let (_, _) = (device, dtype);
        Ok(())
    }

    /// Takes step `step`, counted from 1, which learns from `batches`.
    ///
    /// # Errors
    /// If a batch does not fit the networks, or memory is full.
    fn step(&self, on: &mut dyn Stepper, step: u64, batches: &[Batch]) -> Result<Stepped>;

    /// Whether a look belongs to `step` that there is none of yet in the run `folder`; `ends` with the run.
    fn shows(&self, step: u64, ends: bool, run: (&Path, &Metrics)) -> bool;

    /// Looks at what the parts have become at `step`, and keeps pictures of it below `folder`, that of the run; none
    /// if the stop of `among` was set meanwhile. Its ranks look together, and the first writes and says what they saw.
    ///
    /// # Errors
    /// If a picture cannot be written.
    fn show(
        &self,
        on: &dyn Stepper,
        step: u64,
        folder: &Path,
        among: (&Ranks, &Stop),
        reporter: &mut dyn Reporter,
    ) -> Result<Option<Vec<(String, Value)>>>;
}

/// What a step did.
#[derive(Clone, Debug)]
pub struct Stepped {
    /// What was measured, under the names of `metrics.jsonl`, the loss first.
    pub measured: Vec<(&'static str, f64)>,
    /// The rate and the norm of the gradients of the first part.
    pub rate: f64,
    /// See `rate`.
    pub norm: f64,
    /// What was not finite, in words and as a number.
    pub bad: Option<(&'static str, f64)>,
}

impl Stepped {
    /// What `done` did, whose numbers are called `names`; `gradients` are the words for those of each part.
    pub fn of(done: &Done, names: &[&'static str], gradients: &[&'static str]) -> Self {
        let measured = names.iter().copied().zip(done.numbers.iter().copied()).collect();
        let (rate, norm) = done.moved.first().map_or((0.0, f64::NAN), |m| (m.rate, m.norm));
        let words =
            |part: usize| gradients.get(part).copied().unwrap_or("the norm of the gradients");
        let bad = done.bad.map(|Bad { part, value }| (part.map_or("the loss", words), value));
        Self { measured, rate, norm, bad }
    }

    /// This, and after it `later`, whose rate and norm count.
    #[must_use]
    pub fn then(mut self, later: Self) -> Self {
        self.measured.extend(later.measured);
        Self { measured: self.measured, bad: self.bad.or(later.bad), ..later }
    }
}
