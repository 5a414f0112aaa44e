//! What happens when a loss or a gradient is not finite: the run stops, leaves the step out, or goes back.
use super::{Run, parts};
use crate::error::{Error, Report, Result};
use crate::training::optimizer::{Done, StepReport};
use crate::training::sections::OnNan;

/// So many such steps in a row are no accident.
const MOST: u64 = 5;

impl Run<'_> {
    /// Takes in a step whose `what` is `value`, which is not finite. Nothing was changed in it yet.
    ///
    /// # Errors
    /// Exit code 6 if the run stops.
    pub(super) fn bad_step(&mut self, what: &str, value: f64) -> Result<Done> {
        self.bad += 1;
        let step = self.optimizer.step + 1;
        let policy = self.config.optim.on_nan;
        if policy == OnNan::Stop || self.bad > MOST {
            return Err(self.not_finite(what, value));
        }
        let done = match policy {
            OnNan::Rollback => {
                let Some(at) = self.checkpoints.latest() else {
                    return Err(self.not_finite(what, value));
                };
                let loaded = self.checkpoints.load(at, &parts(self.network, None))?;
                for optimizer in loaded {
                    self.optimizer = optimizer;
                }
                format!("the weights are those of step {at} again")
            }
            _ => "it is left out".to_owned(),
        };
        // The batches go on: those that did this are not drawn again.
        self.optimizer.step = step;
        self.incident = Some(format!("{what} of step {step} is {value}: {done}"));
        let step = StepReport { rate: 0.0, norm: f64::NAN };
        Ok(Done { loss: f64::NAN, critic: None, step })
    }

    fn not_finite(&self, what: &str, value: f64) -> Error {
        let step = self.optimizer.step + 1;
        let kept = match self.checkpoints.latest() {
            Some(step) => format!("the newest checkpoint is step {step}"),
            None => "there is no checkpoint yet".to_owned(),
        };
        let row = match self.bad {
            0 | 1 => String::new(),
            n => format!(", {n} steps in a row"),
        };
        let report = Report::new(
            format!("{what} is not finite at step {step} of {}", self.folder.display()),
            format!("it is {value}{row}; nothing was changed in this step, and {kept}"),
        );
        let help = "lower optim.lr or optim.clip, under another run.name; optim.on_nan = \"rollback\" goes back and on";
        Error::Check(report.code("not_finite").help(help))
    }
}
