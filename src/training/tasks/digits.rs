//! Gray images in memory, and batches of them as functions of seed and number.
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::folder::{self, OnBroken, Picture};
use crate::engine::device::Real;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DigitsData {
    /// Files, idx files of many images, and folders with all pictures below them; colours become gray.
    pub paths: Vec<PathBuf>,
    /// Images in a step.
    pub batch: usize,
    /// What to do with an image that cannot be read.
    #[serde(default)]
    pub on_broken: OnBroken,
}

/// What helps where no images are found.
const ELSEWHERE: &str =
    "name a folder of pictures, or an idx file, that is there: --set 'data.paths=[\"FOLDER\"]'";

/// Square images of one size.
#[derive(Debug)]
pub(in crate::training) struct Digits {
    side: usize,
    pixels: Vec<u8>,
    batch: usize,
    seed: u64,
}

impl Digits {
    /// The images of `config`, smaller ones in the middle of black. Exit code 2 if one is larger than `side`.
    pub(in crate::training) fn load(
        config: &DigitsData,
        side: usize,
        seed: u64,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let pictures = folder::decode_all(
            &folder::find_or(&config.paths, ELSEWHERE)?,
            config.on_broken,
            warn,
        )?;
        let mut pixels = Vec::with_capacity(pictures.len() * side * side);
        for Picture { path, image } in pictures {
            if image.width.max(image.height) > side {
                let what = format!("{} does not fit this network", path.display());
                let cause = format!(
                    "it has {} x {} pixels, the network draws {side} x {side}",
                    image.width, image.height
                );
                let help = "train on images as small as MNIST's";
                return Err(Error::Usage(Report::new(what, cause).help(help)));
            }
            let image = image.padded(side);
            pixels.extend(image.pixels.chunks_exact(3).map(gray));
        }
        Ok(Self { side, pixels, batch: config.batch, seed })
    }

    /// How many images there are.
    pub(in crate::training) const fn len(&self) -> usize {
        self.pixels.len() / (self.side * self.side)
    }

    /// Images of a batch.
    pub(super) const fn per_batch(&self) -> usize {
        self.batch
    }

    /// Images `[batch, side, side, 1]` in `[-1, 1]`, drawn with replacement: a function of `number`.
    pub(super) fn batch(&self, number: u64) -> Tensor {
        let mut draws = Stream::new(self.seed, Purpose::Crops, number).sequence();
        let area = self.side * self.side;
        let mut values = Vec::with_capacity(self.batch * area);
        for _ in 0..self.batch {
            let image = draws.below(self.len());
            let pixels = &self.pixels[image * area..][..area];
            values.extend(pixels.iter().map(|&v| f32::from(v) / 127.5 - 1.0));
        }
        Tensor::from_vec(values, &[self.batch, self.side, self.side, 1])
    }
}

fn gray(pixel: &[u8]) -> u8 {
    let sum: u32 = pixel.iter().map(|&v| u32::from(v)).sum();
    u8::try_from((sum + 1) / 3).unwrap_or(u8::MAX)
}

/// Standard normal numbers of `shape`, one after the other in `stream`.
pub(super) fn normal(stream: Stream, shape: &[usize]) -> Tensor {
    let mut draws = stream.sequence();
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| draws.normal()).collect();
    Tensor::from_vec(values, shape)
}

/// Numbers in `[0, 1)`, one for each of `count` images.
pub(super) fn uniform(stream: Stream, count: usize) -> Vec<f32> {
    let mut draws = stream.sequence();
    (0..count).map(|_| f32::from_f64(draws.uniform())).collect()
}
