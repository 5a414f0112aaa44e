//! The best checkpoint so far, and the end of a run that does not become better.
use super::Run;
use crate::error::Result;
use crate::training::sections::Best;

impl Run<'_> {
    /// Keeps the checkpoint of this step where it is the best so far and that is looked for.
    pub(super) fn keep_best(&mut self) -> Result<()> {
        let step = self.step;
        if self.best().is_some_and(|(best, _)| best == step) {
            self.save()?;
            self.checkpoints.mark_best(step)?;
        }
        Ok(())
    }

    /// The steps that were validated and how good they were, by what the best is looked for; none if it is not.
    fn ranks(&self) -> Vec<(u64, f64)> {
        let Some(by) = self.config.best else { return Vec::new() };
        let all = self.metrics.read(&by.key());
        all.into_iter().map(|(step, value)| (step, by.rank(value))).collect()
    }

    /// The step of the best so far, and how many validations there were since.
    fn best(&self) -> Option<(u64, usize)> {
        let all = self.ranks();
        let better = |&i: &usize, &j: &usize| all[i].1.total_cmp(&all[j].1).then(j.cmp(&i));
        let best = (0..all.len()).max_by(better)?;
        Some((all[best].0, all.len() - 1 - best))
    }

    /// The steps that were validated, the best first, where the best is kept.
    pub(super) fn ranked(&self) -> Vec<u64> {
        let mut all = self.ranks();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.into_iter().map(|(step, _)| step).collect()
    }

    /// Whether validation has not become better for as long as the configuration is patient.
    pub(super) fn is_stale(&self) -> bool {
        let patience = usize::try_from(self.config.patience).unwrap_or(usize::MAX);
        patience > 0 && self.best().is_some_and(|(_, since)| since >= patience)
    }

    pub(super) fn end_of_patience(&self) -> String {
        let title = self.config.best.map_or("", Best::title);
        format!("no better {title} in {} validations: the end", self.config.patience)
    }
}
