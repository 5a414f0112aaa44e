//! What happens when a loss, a gradient or a look is not finite: the run stops, leaves the step out, or goes back.
use serde_json::Value;

use super::{Run, among};
use crate::engine::interrupt::Stop;
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::{Error, NOT_FINITE, Report, Result};
use crate::training::checkpoint::{HELP, HELP_BEFORE_FIRST};
use crate::training::log::Reporter;
use crate::training::optimizer::Optimizer;
use crate::training::sections::OnNan;

/// So many such steps in a row are no accident, nor are so many returns to one checkpoint.
const MOST: u64 = 5;

/// What a look saw, under the keys of `metrics.jsonl`; none if it was interrupted.
pub(super) type Shown = Option<Vec<(String, Value)>>;

/// How a look ended.
enum Look {
    /// With what was seen.
    Seen(Shown),
    /// With what was not finite.
    Bad(String),
}

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
            return Err(Error::Check(Report::new(what, cause).code(NOT_FINITE).help(HELP)));
        }
        self.go_back(at)?;
        self.count(step);
        let text = format!("the weights after step {step} are not finite");
        reporter.warn(&format!("{text}: the weights are those of step {at} again"));
        Ok(true)
    }

    /// What a look at the step that was reached saw, where `optim.on_nan` is heeded.
    ///
    /// # Errors
    /// Exit code 6 if it is not finite and the run stops.
    pub(super) fn seen(&mut self, stop: &Stop, reporter: &mut dyn Reporter) -> Result<Shown> {
        match self.look(stop, reporter)? {
            Look::Seen(shown) => {
                self.bad_looks = 0;
                Ok(shown)
            }
            Look::Bad(cause) => self.bad_look(&cause, stop, reporter),
        }
    }

    /// Looks at the step that was reached; what was seen, or on all ranks that something was not finite.
    fn look(&mut self, stop: &Stop, reporter: &mut dyn Reporter) -> Result<Look> {
        let among = (&self.ranks, stop);
        let shown = self.task.show(&*self.stepper, self.step, &self.folder, among, reporter);
        let shown = match shown {
            Err(Error::Check(report)) if report.code == NOT_FINITE => Err(report),
            shown => Ok(shown?),
        };
        let [bad] = self.agreed([shown.is_err().into()])?;
        Ok(match shown {
            Ok(shown) if bad == 0 => Look::Seen(shown),
            Ok(_) => Look::Bad("another rank found numbers that are none".to_owned()),
            Err(report) => Look::Bad(format!("{}: {}", report.what, report.cause)),
        })
    }

    /// Takes in that a look was not finite, with `cause`. Where `optim.on_nan` is rollback: takes the weights of the newest
    /// checkpoint with which it is, and what was seen with them; later ones are set aside.
    ///
    /// # Errors
    /// Exit code 6 if the run stops.
    fn bad_look(&mut self, cause: &str, stop: &Stop, reporter: &mut dyn Reporter) -> Result<Shown> {
        let step = self.step;
        self.bad_looks += 1;
        let policy = self.config.optim.on_nan;
        if policy == OnNan::Stop || self.bad_looks >= MOST {
            return Err(self.bad_end(cause, ""));
        }
        if policy == OnNan::Skip {
            reporter.warn(&format!("step {step}: {cause}; it is left out"));
            return Ok(None);
        }
        let mut before = step;
        for _ in 0..MOST {
            let [after] = self.agreed([self.checkpoints.before(before).map_or(0, |at| at + 1)])?;
            let Some(at) = after.checked_sub(1) else { break };
            before = at;
            self.go_back(at)?;
            self.count(step);
            let Look::Seen(shown) = self.look(stop, reporter)? else { continue };
            let text = format!("step {step}: {cause}; the weights are those of step {at} again");
            reporter.warn(&text);
            if self.ranks.is_first() {
                self.checkpoints.set_aside_after(at)?;
                self.save()?;
            }
            return Ok(shown);
        }
        Err(self.bad_end(cause, ", nor is it with those before"))
    }

    /// Looks at a step of an earlier start, of which there is no look yet. Where that cannot be mended a run that has
    /// steps to take up to `last` goes on: its configuration may be another one now.
    ///
    /// # Errors
    /// As [`bad_look`](Self::bad_look), if there is no step to take.
    pub(super) fn show_missed(
        &mut self,
        last: u64,
        stop: &Stop,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        let step = self.step;
        let error = match self.show(stop, reporter) {
            Err(Error::Check(report)) if report.code == NOT_FINITE && step < last => report,
            shown => return shown,
        };
        // Tries may have left the weights of an older one.
        self.go_back(step)?;
        self.count(step);
        reporter.warn(&format!("{}: {}; going on without it", error.what, error.cause));
        Ok(())
    }

    /// The end of a run whose look at the step that was reached is not finite, nor `more`.
    fn bad_end(&self, cause: &str, more: &str) -> Error {
        let kept = match self.checkpoints.latest() {
            Some(step) => {
                format!("the newest checkpoint is {}", self.checkpoints.at(step).display())
            }
            None => "there is no checkpoint yet".to_owned(),
        };
        let report = Report::new(
            format!(
                "a look at step {} of {} is not finite{more}",
                self.step,
                self.folder.display()
            ),
            format!("{cause}; {kept}"),
        );
        let help = "--set optim.lr=SMALLER goes on from there; --set optim.on_nan=rollback from a checkpoint before, \
                    where one is whole; --set run.name=OTHER trains anew";
        Error::Check(report.code(NOT_FINITE).help(help))
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
        Error::Check(report.code(NOT_FINITE).help(self.advice()))
    }

    /// What helps: not to go back, where that is what is done and there is nothing to go back to.
    pub(super) fn advice(&self) -> &'static str {
        match (self.config.optim.on_nan, self.checkpoints.latest()) {
            (OnNan::Rollback, None) => HELP_BEFORE_FIRST,
            _ => HELP,
        }
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
