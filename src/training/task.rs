//! What is trained, as the loop sees it.
use std::path::Path;

use serde_json::Value;

use super::batch::Batch;
use super::checkpoint::Part;
use super::log::{Metrics, Reporter};
use super::ranks::Ranks;
use super::stepper::{Bad, Coming, Done, Stepper};
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
    fn step(&self, on: &mut dyn Stepper, step: u64, batches: &[Batch]) -> Result<Taken>;

    /// Whether a look belongs to `step` that there is none of yet in the run `folder`; `ends` with the run.
    fn shows(&self, step: u64, ends: bool, run: (&Path, &Metrics)) -> bool;

    /// Looks at what the parts have become at `step`, and keeps pictures of it below `folder`, that of the run; none
    /// if the stop of `among` was set meanwhile. Its ranks look together, and the first writes and says what they saw.
    ///
    /// # Errors
    /// If a picture cannot be written; [`NOT_FINITE`](crate::error::NOT_FINITE) if a pixel is no number.
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
    /// What `done` did, whose numbers and gradients are called `words`.
    fn of(done: &Done, words: Words) -> Self {
        let measured = words.numbers.iter().copied().zip(done.numbers.iter().copied()).collect();
        let (rate, norm) = done.moved.first().map_or((0.0, f64::NAN), |m| (m.rate, m.norm));
        let of_part =
            |part: usize| words.gradients.get(part).copied().unwrap_or("the norm of the gradients");
        let bad = done.bad.map(|Bad { part, value }| (part.map_or("the loss", of_part), value));
        Self { measured, rate, norm, bad }
    }

    /// This, and after it `later`, whose rate, norm and numbers of the same names count.
    fn then(self, later: Self) -> Self {
        let again = |name: &str| later.measured.iter().any(|(known, _)| *known == name);
        let mut measured = self.measured;
        measured.retain(|(name, _)| !again(name));
        measured.extend(later.measured);
        Self { measured, ..later }
    }
}

/// What is said of a descent.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// The names of its numbers, a loss first.
    pub numbers: &'static [&'static str],
    /// What gradients of each part are called where they are not finite.
    pub gradients: &'static [&'static str],
}

/// A step that was taken: its descents, of which a GPU may say later what they did.
#[derive(Debug, Default)]
pub struct Taken(Vec<(Coming, Words)>);

impl Taken {
    /// A step of one descent.
    pub fn of(coming: Coming, words: Words) -> Self {
        Self(vec![(coming, words)])
    }

    /// Adds a descent.
    pub fn then(&mut self, coming: Coming, words: Words) {
        self.0.push((coming, words));
    }

    /// Whether nobody has to wait for what it did.
    pub fn is_known(&self) -> bool {
        self.0.iter().all(|(coming, _)| coming.if_known().is_some())
    }

    /// Whether it is known that something was not finite: there are no further descents then.
    pub fn is_known_bad(&self) -> bool {
        let bad = |(coming, _): &(Coming, Words)| coming.if_known().is_some_and(Done::is_bad);
        self.0.iter().any(bad)
    }

    /// What it did, up to the first descent that was not finite.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn wait(self) -> Result<Stepped> {
        let mut all: Option<Stepped> = None;
        for (coming, words) in self.0 {
            let stepped = Stepped::of(&coming.wait()?, words);
            if stepped.bad.is_some() {
                return Ok(stepped);
            }
            all = Some(match all {
                Some(before) => before.then(stepped),
                None => stepped,
            });
        }
        let nothing = Stepped { measured: Vec::new(), rate: 0.0, norm: f64::NAN, bad: None };
        Ok(all.unwrap_or(nothing))
    }
}
