//! What happens when a loss or a gradient is not finite: the run stops, leaves the step out, or goes back.
use super::{Run, among};
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::training::checkpoint::HELP;
use crate::training::log::Reporter;
use crate::training::optimizer::Optimizer;
use crate::training::sections::OnNan;

/// So many such steps in a row are no accident, nor are so many returns to one checkpoint.
const MOST: u64 = 5;

impl Run<'_> {
    /// Takes in that `what` of step `step` is `value`, which is not finite: nothing was changed in it. Says what is done.
    ///
    /// # Errors
    /// Exit code 6 if the run stops.
    pub(super) fn bad_step(&mut self, step: u64, what: &str, value: f64) -> Result<String> {
        self.bad += 1;
        let policy = self.config.optim.on_nan;
        if policy == OnNan::Stop || self.bad >= MOST {
            return Err(self.not_finite(step, what, value));
        }
        // The batches go on: those that did this are not drawn again.
        let done = match policy {
            OnNan::Rollback => {
                let Some(at) = self.latest()? else {
                    return Err(self.not_finite(step, what, value));
                };
                self.go_back(at)?;
                self.count(step);
                format!("the weights are those of step {at} again")
            }
            _ => "it is left out".to_owned(),
        };
        Ok(format!("{what} of step {step} is {value}: {done}"))
    }

    /// Where `optim.on_nan` is rollback and a finite step has left weights that are not: takes those of the last
    /// checkpoint and says so. False if there is nothing to take back.
    ///
    /// # Errors
    /// Exit code 6 if that has been of no use several times.
    pub(super) fn takes_back(&mut self, reporter: &mut dyn Reporter) -> Result<bool> {
        if self.config.optim.on_nan != OnNan::Rollback {
            return Ok(false);
        }
        let Some(at) = self.latest()? else { return Ok(false) };
        if self.is_finite()? {
            return Ok(false);
        }
        self.taken_back += 1;
        let step = self.step;
        if self.taken_back >= MOST {
            let what = format!("the weights are not finite at step {step}");
            let cause = format!("{MOST} times since the checkpoint of step {at}, which is kept");
            return Err(Error::Check(Report::new(what, cause).code("not_finite").help(HELP)));
        }
        self.go_back(at)?;
        self.count(step);
        let text = format!("the weights after step {step} are not finite");
        reporter.warn(&format!("{text}: the weights are those of step {at} again"));
        Ok(true)
    }

    /// Takes the weights and moments of the checkpoint of step `at`.
    fn go_back(&mut self, at: u64) -> Result<()> {
        let parts = self.task.parts();
        let optimizers = match self.ranks.is_first() {
            true => self.checkpoints.load(at, &parts)?,
            false => {
                parts.iter().map(|part| Optimizer::new(part.parameters)).collect::<Result<_>>()?
            }
        };
        // Engines stay those that were chosen.
        let state = (at, optimizers, String::new());
        let (_, optimizers, _) = among::share_state(&self.ranks, &parts, state)?;
        self.stepper.go_on_from(optimizers)
    }

    /// The step of the newest checkpoint, which the first rank knows.
    fn latest(&self) -> Result<Option<u64>> {
        let [after] = self.agreed([self.checkpoints.latest().map_or(0, |step| step + 1)])?;
        Ok(after.checked_sub(1))
    }

    /// The run has taken `step` steps.
    fn count(&mut self, step: u64) {
        self.step = step;
        self.stepper.count(step);
    }

    /// Whether all weights are finite.
    fn is_finite(&mut self) -> Result<bool> {
        let (task, mut finite) = (self.task, true);
        self.stepper.at_rest(&mut |optimizers| {
            for (part, by) in task.parts().iter().zip(optimizers) {
                finite &= all_finite(part.parameters, by)?;
            }
            Ok(())
        })?;
        Ok(finite)
    }

    fn not_finite(&self, step: u64, what: &str, value: f64) -> Error {
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
        Error::Check(report.code("not_finite").help(HELP))
    }
}

/// Whether all weights are finite, and all that the optimizer keeps of them.
fn all_finite(parameters: &[Parameter], by: &Optimizer) -> Result<bool> {
    let finite = |t: &Tensor| Ok(t.to_f32_vec()?.iter().all(|v| v.is_finite()));
    for parameter in parameters {
        if !finite(&parameter.value())? {
            return Ok(false);
        }
    }
    for kept in by.first.iter().chain(&by.second).chain(&by.average) {
        if !finite(kept)? {
            return Ok(false);
        }
    }
    Ok(true)
}
