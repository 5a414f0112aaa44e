//! The noise of a walk over an image or its tiles.
use crate::engine::device::Device;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::ops::noise::{self, Period};

/// Noise that is a function of seed, draw and absolute output pixel: tiles of one image draw what the
/// whole image would.
#[derive(Debug)]
pub struct PixelNoise {
    seed: u64,
    origins: Tensor,
    period: Option<Period>,
}

impl PixelNoise {
    /// The noise of the image with `seed`, on `device`; `places` are row and column of the first pixel
    /// of every batch entry in the whole output.
    ///
    /// # Errors
    /// If a place is beyond 2^24 or the memory of a GPU is full.
    pub fn new(device: &Device, seed: u64, places: &[[usize; 2]]) -> Result<Self> {
        Ok(Self { seed, origins: noise::origins(device, places)?, period: None })
    }

    /// The same, which begins again by `period`; a graph cannot record it.
    #[must_use]
    pub fn repeating(self, period: Option<Period>) -> Self {
        Self { period, ..self }
    }

    /// The same of other places, as many as before.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn move_to(&mut self, places: &[[usize; 2]]) -> Result<()> {
        let moved = noise::origins(&Device::Cpu, places)?;
        self.origins.write(moved.cpu()?)
    }

    /// Whether it begins again somewhere.
    pub(super) const fn repeats(&self) -> bool {
        self.period.is_some()
    }

    /// Where entries of the batch begin.
    pub(super) const fn origins(&self) -> &Tensor {
        &self.origins
    }

    /// The numbers that start a chain; those of a step follow from its factors.
    pub const fn numbers(&self) -> noise::Noise<'_> {
        noise::Noise::Pixels(noise::PixelNoise {
            stream: Stream::new(self.seed, Purpose::Sampling, 0),
            origins: Some(&self.origins),
            later: None,
            period: self.period,
        })
    }
}
