//! Random numbers of one sample: functions of (seed, step, index) and of nothing else.
use crate::engine::rng::{Purpose, Stream};

/// Draws for sample `index` of step `step`.
///
/// A position of the stream is `(index, y)`: single numbers have `y` below 2^28, and each field of
/// noise a range of 2^28 of its own.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    stream: Stream,
    index: u32,
    next: u32,
}

impl Draws {
    /// The draws of sample `index` of step `step` under `seed`.
    pub const fn new(seed: u64, step: u64, index: u32) -> Self {
        Self { stream: Stream::new(seed, Purpose::Degradation, step), index, next: 0 }
    }

    /// A number in `[0, 1)`.
    pub fn uniform(&mut self) -> f64 {
        let [a, b, ..] = self.stream.bits(self.index, self.next);
        self.next += 1;
        ((u64::from(a) << 32 | u64::from(b)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether something of probability `p` happens.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// A number between the two, all alike.
    pub fn between(&mut self, [from, to]: [f64; 2]) -> f64 {
        from + (to - from) * self.uniform()
    }

    /// An index below `n`, all alike; 0 if `n` is.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Below n.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.uniform() * n as f64) as usize).min(n.saturating_sub(1))
    }

    /// An index with a probability in proportion to its weight.
    pub fn weighted(&mut self, weights: &[f64]) -> usize {
        let mut left = self.uniform() * weights.iter().sum::<f64>();
        for (i, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return i;
            }
        }
        weights.iter().rposition(|&w| w > 0.0).unwrap_or(0)
    }

    /// Field `number` (1..=15) of 32-bit numbers.
    pub(super) const fn field(&self, number: u32) -> Field {
        Field { stream: self.stream, index: self.index, start: number << 28 }
    }
}

/// Random bits by position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    stream: Stream,
    index: u32,
    start: u32,
}

impl Field {
    /// Numbers `4 block..4 block + 4`.
    pub(super) const fn bits(&self, block: u32) -> [u32; 4] {
        self.stream.bits(self.index, self.start.wrapping_add(block))
    }
}
