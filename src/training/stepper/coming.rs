//! What a descent did, which a GPU may say later.
//!
//! To wait for it in each step would leave the GPU idle meanwhile. It holds what is not finite itself
//! ([`Measured`](crate::ops::clip_by_norm::Measured)), so that the host may read it a step late.
use crate::engine::tensor::Later;
use crate::error::Result;
use crate::ops::adam::LaterOutcome;
use crate::training::optimizer::StepReport;

/// What a descent did, known at once or later.
#[derive(Debug)]
pub struct Coming(Kind);

#[derive(Debug)]
enum Kind {
    Known(Done),
    Later { numbers: Numbers, moves: Vec<Moving> },
}

/// The numbers of a descent.
#[derive(Debug)]
pub(super) enum Numbers {
    /// Means over all batches.
    Known(Vec<f64>),
    /// Sums of the first `count` over `batches`.
    Later { sums: Later, count: usize, batches: usize },
}

impl Numbers {
    /// Waits for them.
    ///
    /// # Errors
    /// If the GPU failed.
    pub(super) fn wait(self) -> Result<Vec<f64>> {
        match self {
            Self::Known(numbers) => Ok(numbers),
            Self::Later { sums, count, batches } => {
                let sums = sums.wait()?.into_iter().take(count);
                Ok(sums.map(|sum| f64::from(sum) / batches as f64).collect())
            }
        }
    }
}

/// A part that moves, unless something is not finite.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) part: usize,
    pub(super) rate: f64,
    pub(super) outcome: LaterOutcome,
}

impl Coming {
    /// What is known.
    pub(super) const fn known(done: Done) -> Self {
        Self(Kind::Known(done))
    }

    /// What a GPU will say.
    pub(super) const fn later(numbers: Numbers, moves: Vec<Moving>) -> Self {
        Self(Kind::Later { numbers, moves })
    }

    /// It, if that takes no wait.
    pub const fn if_known(&self) -> Option<&Done> {
        match &self.0 {
            Kind::Known(done) => Some(done),
            Kind::Later { .. } => None,
        }
    }

    /// Waits for it.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn wait(self) -> Result<Done> {
        let (numbers, moves) = match self.0 {
            Kind::Known(done) => return Ok(done),
            Kind::Later { numbers, moves } => (numbers.wait()?, moves),
        };
        let mut done = Done { bad: bad_loss(&numbers), numbers, moved: Vec::new() };
        for Moving { part, rate, outcome } in moves {
            let outcome = outcome.wait()?;
            if done.bad.is_some() {
                break;
            }
            let norm = if outcome.skipped { f64::INFINITY } else { outcome.norm.into() };
            done.moved.push(StepReport { rate, norm });
            if outcome.skipped {
                done.bad = Some(Bad { part: Some(part), value: norm });
            }
        }
        Ok(done)
    }
}

/// The loss among `numbers`, which is the first, if it is not finite.
pub(super) fn bad_loss(numbers: &[f64]) -> Option<Bad> {
    let value = *numbers.first().filter(|loss| !loss.is_finite())?;
    Some(Bad { part: None, value })
}

/// What a descent did.
#[derive(Clone, Debug)]
pub struct Done {
    /// The numbers of [`Learned`](super::Learned), means over the batches.
    pub numbers: Vec<f64>,
    /// What was done with each part of the moves, as far as they went.
    pub moved: Vec<StepReport>,
    /// What was not finite, if something was: the parts from there on did not move.
    pub bad: Option<Bad>,
}

impl Done {
    /// Whether something was not finite.
    pub const fn is_bad(&self) -> bool {
        self.bad.is_some()
    }
}

/// Something that is not finite.
#[derive(Clone, Copy, Debug)]
pub struct Bad {
    /// The part whose gradients it is of; none for the loss.
    pub part: Option<usize>,
    /// Its value.
    pub value: f64,
}
