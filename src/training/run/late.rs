//! What steps did, which a GPU may say a step late.
use super::Run;
use crate::error::Result;
use crate::training::log::Reporter;
use crate::training::sections::OnNan;
use crate::training::task::{Stepped, Taken};

impl Run<'_> {
    /// Takes in what the step before did, and `taken`, the one that was reached, too, if that takes no wait, or if it must
    /// be known before the next one.
    ///
    /// # Errors
    /// Exit code 6 if something was not finite and the run stops.
    pub(super) fn take_in(&mut self, taken: Taken, reporter: &mut dyn Reporter) -> Result<()> {
        self.catch_up(reporter)?;
        // To go back later would be to go back from another step.
        let at_once = taken.is_known() || self.config.optim.on_nan == OnNan::Rollback;
        self.late = Some((self.step, taken));
        if at_once { self.catch_up(reporter) } else { Ok(()) }
    }

    /// Takes in whatever is not known yet.
    ///
    /// # Errors
    /// As [`take_in`](Self::take_in).
    pub(super) fn catch_up(&mut self, reporter: &mut dyn Reporter) -> Result<()> {
        let Some((step, taken)) = self.late.take() else { return Ok(()) };
        let done = taken.wait()?;
        if let Some((what, value)) = done.bad {
            self.last = (0.0, f64::NAN);
            let text = self.bad_step(step, what, value)?;
            reporter.warn(&text);
            return Ok(());
        }
        let Stepped { measured, rate, norm, .. } = done;
        self.bad = 0;
        self.last = (rate, norm);
        self.meter.add(measured.first().map_or(0.0, |m| m.1));
        self.sums.add(&measured);
        Ok(())
    }
}
