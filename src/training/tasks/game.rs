//! How the verdicts of a network that judges images become losses, of its own and of the one it judges.
//!
//! ```text
//!                 the judge's, of real ones   of generated ones         the generator's
//! hinge           mean max(0, 1 - D(x))       mean max(0, 1 + D(G))     -mean D(G)
//! cross-entropy   -mean log s(D(x))           -mean log (1 - s(D(G)))   -mean log s(D(G))
//! wasserstein     -mean D(x)                  mean D(G)                 -mean D(G)
//! ```
use crate::engine::tape::{Tape, Var};
use crate::error::Result;

/// The rule of a game of two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Game {
    Hinge,
    CrossEntropy,
    Wasserstein,
}

impl Game {
    /// The judge's losses `[1]` of its verdicts on real images and on generated ones.
    ///
    /// # Errors
    /// If memory is full.
    pub(super) fn of_judge(self, tape: &mut Tape, [real, fake]: [&Var; 2]) -> Result<[Var; 2]> {
        Ok(match self {
            Self::Hinge => [hinge(tape, real, -1.0)?, hinge(tape, fake, 1.0)?],
            Self::CrossEntropy => {
                [tape.bce_with_logits(real, 1.0)?, tape.bce_with_logits(fake, 0.0)?]
            }
            Self::Wasserstein => {
                let mean = tape.mean(real)?;
                [tape.scale(&mean, -1.0)?, tape.mean(fake)?]
            }
        })
    }

    /// The generator's loss `[1]` of verdicts on what it made.
    ///
    /// # Errors
    /// If memory is full.
    pub(super) fn of_generator(self, tape: &mut Tape, verdict: &Var) -> Result<Var> {
        match self {
            Self::CrossEntropy => tape.bce_with_logits(verdict, 1.0),
            Self::Hinge | Self::Wasserstein => {
                let mean = tape.mean(verdict)?;
                tape.scale(&mean, -1.0)
            }
        }
    }
}

/// The mean of `max(0, 1 + sign * verdict)`.
fn hinge(tape: &mut Tape, verdict: &Var, sign: f64) -> Result<Var> {
    let margin = tape.affine(verdict, sign, 1.0)?;
    let excess = tape.relu(&margin)?;
    tape.mean(&excess)
}
