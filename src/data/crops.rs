//! Pairs of images, and random crops of them.
//!
//! The low-resolution image is made once of each whole image, and crops are cut from both on its
//! grid: a crop then shows what the network meets in a whole image, also at its edges.
use std::ops::Range;

use super::augment::{Augment, cut_turned};
use super::degrade::{self, Context, Damage, Degrade, Draws, Process};
use super::plain::plain;
pub use super::store::Pair;
use super::store::Pairs;
use crate::diffusion::process::Enlarge;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tensor::Tensor;
use crate::engine::threads::try_map;
use crate::error::{Error, Report, Result};
use crate::imaging::Rect;
use crate::imaging::color::luma_of;

/// Which crops are drawn.
#[derive(Clone, Copy, Debug)]
pub struct CropPlan {
    /// Side of a crop in high-resolution pixels, a multiple of `scale`.
    pub size: usize,
    /// Crops in a batch.
    pub batch: usize,
    /// The factor between the resolutions.
    pub scale: usize,
    /// 3, or 1 for luma alone.
    pub channels: usize,
    /// How crops are changed.
    pub augment: Augment,
    /// How low-resolution images are made, where that is done again.
    pub degrade: Degrade,
    /// How y0 is made.
    pub enlarge: Enlarge,
    /// The share of crops that show [`plain`] colours in place of a picture.
    pub plain: f64,
    /// The seed of the run.
    pub seed: u64,
}

/// A batch of crops in `[-1, 1]`.
#[derive(Debug)]
pub struct CropBatch {
    /// Low resolution, `[N, h, w, C]`.
    pub low: Tensor,
    /// Its enlargement, `[N, H, W, C]`.
    pub y0: Tensor,
    /// High resolution, `[N, H, W, C]`.
    pub x0: Tensor,
    /// What a teacher made of the low resolution, `[N, H, W, C]`, where there is one.
    pub taught: Option<Tensor>,
    /// How much each low-resolution image is damaged, where that is known.
    pub damage: Vec<Option<Damage>>,
}

/// Random crops: batch `step` is a function of the seed and `step` alone.
#[derive(Debug)]
pub struct Crops {
    pairs: Pairs,
    plan: CropPlan,
    process: Option<Process>,
}

/// One crop in `[-1, 1]`: low resolution, its enlargement, and high resolution.
struct Crop {
    images: [Vec<f32>; 3],
    taught: Option<Vec<f32>>,
    damage: Option<Damage>,
}

/// One crop: which image, where (in low-resolution pixels), and under which symmetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    pair: usize,
    x: usize,
    y: usize,
    symmetry: u32,
}

impl Crops {
    /// Crops of those `pairs` that are large enough; `warn` hears how many are not. Exit code 2 if
    /// none is.
    pub fn new(
        pairs: impl Into<Pairs>,
        plan: CropPlan,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let mut pairs: Pairs = pairs.into();
        let all = pairs.len();
        let is_small = |&i: &usize| !fits(pairs.high(i), plan.size);
        let first_small = (0..all).find(is_small).map(|i| pairs.name(i).to_owned());
        pairs.retain(|size| fits(size, plan.size));
        let side = plan.size;
        if pairs.is_empty() {
            let what = format!("none of {all} images is as large as a crop");
            let first = first_small.map_or_else(String::new, |name| format!("; first: {name}"));
            let report = Report::new(what, format!("crops are {side} x {side}{first}"));
            let help = "--set data.train.crop=N    makes them smaller";
            return Err(Error::Usage(report.help(help)));
        }
        if let Some(name) = first_small {
            warn(&format!(
                "{} of {all} images are smaller than a crop of {side} x {side} and are left out \
                 (first: {name})",
                all - pairs.len()
            ));
        }
        Ok(Self { pairs, plan, process: None })
    }

    /// The images that crops are drawn from.
    pub fn images(&self) -> usize {
        self.pairs.len()
    }

    /// The pixels that crops are drawn from.
    pub fn pixels(&self) -> usize {
        self.pairs.pixels()
    }

    /// How many of the images are in memory.
    pub fn held(&self) -> usize {
        self.pairs.held()
    }

    /// The same, their low-resolution sides damaged by `process`; of those that are given plain places alone.
    pub fn damaged(self, process: Option<Process>) -> Self {
        Self { process: process.filter(|p| !p.is_clean()), ..self }
    }

    /// The crops of batch `step`.
    pub fn batch(&self, step: u64) -> Result<CropBatch> {
        self.some(step, 0..self.plan.batch)
    }

    /// Crops in a batch.
    pub fn per_batch(&self) -> usize {
        self.plan.batch
    }

    /// Those of the crops of batch `step`.
    pub fn some(&self, step: u64, which: Range<usize>) -> Result<CropBatch> {
        let (n, side) = (which.len(), self.plan.size);
        let small = side / self.plan.scale;
        let crops = try_map(n, |i| self.crop(step, which.start + i))?;
        let c = self.plan.channels;
        let tensor = |part: &dyn Fn(&Crop) -> Vec<f32>, side: usize| {
            let pixels: Vec<f32> = crops.iter().flat_map(part).collect();
            let pixels = if c == 1 { luma_of(&pixels) } else { pixels };
            Tensor::from_vec(pixels, &[n, side, side, c])
        };
        let image = |part: usize, side| tensor(&|crop: &Crop| crop.images[part].clone(), side);
        let [low, y0, x0] = [(0, small), (1, side), (2, side)].map(|(part, s)| image(part, s));
        // Of plain places a teacher knows no better than the truth.
        let taught = |crop: &Crop| crop.taught.as_ref().unwrap_or(&crop.images[2]).clone();
        let taught = self.pairs.are_taught().then(|| tensor(&taught, side));
        let damage = crops.iter().map(|crop| crop.damage).collect();
        Ok(CropBatch { low, y0, x0, taught, damage })
    }

    /// Crop `index` of batch `step`.
    fn crop(&self, step: u64, index: usize) -> Result<Crop> {
        let CropPlan { size: side, scale, augment, enlarge, .. } = self.plan;
        let small = side / scale;
        let mut place = self.place(step, index);
        let held = self.pairs.get(place.pair)?;
        let mut pair = &*held;
        let varied;
        let other = self.process.is_some() || augment.changes().changes_pixels();
        if self.is_plain(step, index) || other && !self.pairs.are_given() {
            (varied, place) = self.varied(pair, place, step, index)?;
            pair = &varied;
        }
        let (x, y) = (place.x * scale, place.y * scale);
        let y0 = degrade::enlarge(&pair.low, enlarge, scale, Rect::new(x, y, side, side))?;
        let low = degrade::to_signed(&pair.low.cut(place.x, place.y, small, small).pixels);
        let x0 = degrade::to_signed(&pair.high.cut(x, y, side, side).pixels);
        let turned = |image: &[f32], side| turn(image, side, place.symmetry);
        let taught = pair
            .taught
            .as_ref()
            .map(|image| turned(&degrade::to_signed(&image.cut(x, y, side, side).pixels), side));
        let damage = pair.damage;
        Ok(Crop {
            images: [turned(&low, small), turned(&y0, side), turned(&x0, side)],
            taught,
            damage,
        })
    }

    /// Where crop `index` of batch `step` lies: every image is equally likely, then every place in it.
    #[allow(clippy::cast_possible_truncation)] // A batch has fewer than 2^32 crops.
    fn place(&self, step: u64, index: usize) -> Place {
        let stream = Stream::new(self.plan.seed, Purpose::Crops, step);
        let [image, x, y, symmetry] = stream.bits(index as u32, 0);
        let pair = below(image, self.pairs.len());
        let (width, height) = self.pairs.low(pair);
        let small = self.plan.size / self.plan.scale;
        Place {
            pair,
            x: below(x, width - small + 1),
            y: below(y, height - small + 1),
            symmetry: self.plan.augment.changes().symmetry(symmetry),
        }
    }

    /// Whether crop `index` of batch `step` shows a plain place and no picture.
    #[allow(clippy::cast_possible_truncation)] // A batch has fewer than 2^32 crops.
    fn is_plain(&self, step: u64, index: usize) -> bool {
        let [_, _, bits, _] =
            Stream::new(self.plan.seed, Purpose::Crops, step).bits(index as u32, 2);
        f64::from(bits) < self.plan.plain * 2f64.powi(32)
    }

    /// The surroundings of a crop with other colours, turned or damaged, and where the crop is in them.
    /// Its low resolution is made of what has changed, as if the whole image had.
    #[allow(clippy::cast_possible_truncation)] // A batch has fewer than 2^32 crops.
    fn varied(&self, pair: &Pair, place: Place, step: u64, index: usize) -> Result<(Pair, Place)> {
        let CropPlan { scale, augment, degrade, size, seed, .. } = self.plan;
        let small = size / scale;
        let stream = Stream::new(seed, Purpose::Crops, step);
        let ([order, a, b, c], [d, turn, ..]) =
            (stream.bits(index as u32, 1), stream.bits(index as u32, 2));
        let mut draws = Draws::new(seed, step, index as u32);
        let (at, whole) = ([place.x, place.y], [pair.low.width, pair.low.height]);
        let context = match &self.process {
            Some(_) => Context::around(at, small, whole, &mut draws),
            None => margin(at, small, whole),
        };
        let wanted = context.scaled(scale);
        let changes = augment.changes();
        let mut high = match changes.angle(turn) {
            0.0 => pair.high.cut(wanted[0], wanted[1], wanted[2], wanted[3]),
            degrees => cut_turned(&pair.high, wanted, degrees),
        };
        if self.is_plain(step, index) {
            high = plain(high.width, high.height, [3, 4].map(|k| stream.bits(index as u32, k)));
        }
        if changes.changes_pixels() {
            changes.recolor(&mut high, [order, a, b, c, d]);
        }
        let place = Place { x: place.x - context.x, y: place.y - context.y, ..place };
        let (high, low, damage) = match &self.process {
            Some(process) => {
                let made = process.apply(high, draws)?;
                (made.high, process.seen(made.low, &made.damage)?, made.damage)
            }
            None => {
                let low = degrade::shrink(&high, degrade, scale)?;
                (high, low, Damage::default())
            }
        };
        Ok((Pair { name: String::new(), high, low, damage: Some(damage), taught: None }, place))
    }
}

/// Low-resolution pixels around a crop that resampling looks at.
const MARGIN: usize = 4;

/// The crop of `side` pixels at `at` with that many on each side, as far as the `whole` reaches.
fn margin(at: [usize; 2], side: usize, whole: [usize; 2]) -> Context {
    let [x, y] = at.map(|v| v.saturating_sub(MARGIN));
    let end = |i: usize| (at[i] + side + MARGIN).min(whole[i]);
    Context { x, y, width: end(0) - x, height: end(1) - y }
}

fn fits((width, height): (usize, usize), side: usize) -> bool {
    width >= side && height >= side
}

/// A number below `n` from 32 random bits.
#[allow(clippy::cast_possible_truncation)] // The quotient is below n.
const fn below(bits: u32, n: usize) -> usize {
    ((bits as u64 * n as u64) >> 32) as usize
}

/// The square image `[side, side, 3]` under one of the 8 symmetries: bit 0 mirrors left and
/// right, bit 1 top and bottom, bit 2 exchanges rows and columns.
fn turn(image: &[f32], side: usize, symmetry: u32) -> Vec<f32> {
    let mut out = Vec::with_capacity(image.len());
    let flip = |v: usize, bit: u32| if symmetry & bit != 0 { side - 1 - v } else { v };
    for y in 0..side {
        for x in 0..side {
            let (from_x, from_y) = if symmetry & 4 != 0 { (y, x) } else { (x, y) };
            let at = (flip(from_y, 2) * side + flip(from_x, 1)) * 3;
            out.extend_from_slice(&image[at..at + 3]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eight_symmetries_differ_and_keep_the_pixels() {
        let image: Vec<f32> = (0..27u8).map(f32::from).collect();
        let mut seen = Vec::new();
        for symmetry in 0..8 {
            let out = turn(&image, 3, symmetry);
            assert!(!seen.contains(&out), "symmetry {symmetry} repeats another");
            let mut sorted = out.clone();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(sorted, image);
            seen.push(out);
        }
        assert_eq!(seen[0], image);
    }
}
