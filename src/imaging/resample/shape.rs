//! Shapes of interleaved samples.
use super::numbers::{real, whole};
use crate::error::{Error, Result};

/// The shape `[H, W, C]` of interleaved samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Samples per pixel.
    pub channels: usize,
}

impl Shape {
    /// The shape of `height` rows of `width` pixels.
    pub fn new(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels }
    }

    /// Samples in all.
    pub fn len(self) -> usize {
        self.height.saturating_mul(self.width).saturating_mul(self.channels)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    pub(super) fn check(self, op: &'static str, len: usize) -> Result<()> {
        if self.is_empty() || self.len() != len {
            let expected = format!("{} x {} x {} samples", self.height, self.width, self.channels);
            return Err(Error::shape(op, expected, &[len]));
        }
        Ok(())
    }

    /// The same channels at another size, which must have pixels and fit in memory.
    pub(super) fn resized(self, op: &'static str, height: usize, width: usize) -> Result<Self> {
        let to = Self { height, width, channels: self.channels };
        if to.is_empty() || to.len() > MAX_SAMPLES {
            let expected = format!("an output of 1 to {MAX_SAMPLES} samples");
            return Err(Error::shape(op, expected, &[height, width, to.channels]));
        }
        Ok(to)
    }

    /// Each side times `factor`, made whole by `round`.
    pub(super) fn scaled(
        self,
        op: &'static str,
        factor: f64,
        round: fn(f64) -> f64,
    ) -> Result<Self> {
        // NaN and negative factors give 0, infinite ones the maximum: `resized` refuses both.
        let side = |v: usize| whole(round(real(v) * factor));
        self.resized(op, side(self.height), side(self.width))
    }
}

/// Far above any image, low enough that a mistaken factor is an error and not an abort.
const MAX_SAMPLES: usize = 1 << 34;
