//! What steps measured since the last line of the log.

/// Sums under names, with how many there were of each.
#[derive(Debug, Default)]
pub(super) struct Sums(Vec<(&'static str, f64, usize)>);

impl Sums {
    /// Takes in what a step measured.
    pub(super) fn add(&mut self, measured: &[(&'static str, f64)]) {
        for &(name, value) in measured {
            match self.0.iter_mut().find(|(known, _, _)| *known == name) {
                Some((_, sum, count)) => (*sum, *count) = (*sum + value, *count + 1),
                None => self.0.push((name, value, 1)),
            }
        }
    }

    /// The means, and nothing is left.
    pub(super) fn take(&mut self) -> Vec<(&'static str, f64)> {
        let mean = |(name, sum, count)| (name, sum / count as f64);
        std::mem::take(&mut self.0).into_iter().map(mean).collect()
    }
}
