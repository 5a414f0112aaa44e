//! One axis of a resizing by Lanczos3: which samples make an output, and their weights.
use super::numbers::{real, whole};

/// Of the filter, in input samples where it does not shrink.
pub(super) const SUPPORT: f64 = 3.0;

/// `to` outputs of the part of `len` samples from `start` on, of an axis of `from` samples.
#[derive(Clone, Copy)]
pub(super) struct Lanczos {
    start: f64,
    /// Input samples of an output.
    scale: f64,
    from: usize,
    to: usize,
}

impl Lanczos {
    /// Of all `from` samples.
    pub(super) fn new(from: usize, to: usize) -> Self {
        Self::of_part((0.0, real(from)), from, to)
    }

    pub(super) fn of_part((start, len): (f64, f64), from: usize, to: usize) -> Self {
        Self { start, scale: len / real(to), from, to }
    }

    pub(super) const fn outputs(&self) -> usize {
        self.to
    }

    /// Whether outputs are the samples.
    #[allow(clippy::float_cmp)] // Whole numbers.
    pub(super) fn is_identity(&self) -> bool {
        self.from == self.to && self.start == 0.0 && self.scale == 1.0
    }

    /// First sample and one past the last that output `o` may need, and its centre.
    fn bounds(&self, o: usize) -> (usize, usize, f64) {
        let (center, radius) =
            (self.start + (real(o) + 0.5) * self.scale, SUPPORT * self.scale.max(1.0));
        let first = whole((center - radius).floor().max(0.0));
        let last = whole((center + radius).ceil().min(real(self.from)));
        (first, last, center - 0.5)
    }

    /// The samples that output `o` needs: the first, and one past the last.
    pub(super) fn span(&self, o: usize) -> (usize, usize) {
        if self.is_identity() {
            return (o, o + 1);
        }
        let (first, last, _) = self.bounds(o);
        (first, last)
    }

    /// The first sample that adds to output `o`, and the weights from there on; their sum is 1.
    pub(super) fn weights(&self, o: usize) -> (usize, Vec<f64>) {
        if self.is_identity() {
            return (o, vec![1.0]);
        }
        let (begin, last, center) = self.bounds(o);
        let shrink = 1.0 / self.scale.max(1.0);
        let mut first = begin;
        let mut weights = Vec::with_capacity(last - begin);
        let mut sum = 0.0;
        for i in begin..last {
            let weight = lanczos((real(i) - center) * shrink);
            if i == first && weight == 0.0 {
                first += 1;
            } else {
                weights.push(weight);
                sum += weight;
            }
        }
        if sum != 0.0 {
            weights.iter_mut().for_each(|w| *w /= sum);
        }
        (first, weights)
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| match x == 0.0 {
        true => 1.0,
        false => (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI),
    };
    if (-SUPPORT..SUPPORT).contains(&x) { sinc(x) * sinc(x / SUPPORT) } else { 0.0 }
}
