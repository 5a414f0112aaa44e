//! Pairs of images, and random crops of them.
//!
//! The low-resolution image is made once of each whole image, and crops are cut from both on its
//! grid: a crop then shows what the network meets in a whole image, also at its edges.
use rayon::prelude::*;

use super::augment::{Augment, cut_turned};
use super::degrade::{self, Degrade};
use super::folder::{Picture, Rgb8};
use crate::diffusion::process::Enlarge;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::imaging::Rect;
use crate::imaging::color::luma_of;

/// An image at both resolutions.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The file, for messages.
    pub name: String,
    /// The image, its sides multiples of the scale.
    pub high: Rgb8,
    /// The same at `1 / scale`.
    pub low: Rgb8,
}

/// Pairs of `pictures`: padded with black to `pad` where they are smaller; what is beyond the last
/// whole low-resolution pixel is cut off.
pub fn pairs(
    pictures: Vec<Picture>,
    method: Degrade,
    scale: usize,
    pad: usize,
) -> Result<Vec<Pair>> {
    let pair = |picture: Picture| {
        let high = picture.image.padded(pad).cut_to_multiple(scale);
        let low = degrade::shrink(&high, method, scale)?;
        Ok(Pair { name: picture.path.display().to_string(), high, low })
    };
    pictures.into_par_iter().map(pair).collect()
}

/// Those of `pictures` whose sides, padded to `pad` and cut to multiples of `scale`, have at least `least` pixels;
/// `warn` hears of the others, all by name, that they are `why`.
pub fn of_at_least(
    pictures: Vec<Picture>,
    [pad, scale, least]: [usize; 3],
    why: &str,
    warn: &mut dyn FnMut(&str),
) -> Vec<Picture> {
    let all = pictures.len();
    let side = |side: usize| side.max(pad) / scale * scale;
    let is_large = |p: &Picture| side(p.image.width).min(side(p.image.height)) >= least;
    let (large, small): (Vec<_>, Vec<_>) = pictures.into_iter().partition(is_large);
    if !small.is_empty() {
        let name =
            |p: &Picture| format!("{} ({}x{})", p.path.display(), p.image.width, p.image.height);
        let names = small.iter().map(name).collect::<Vec<_>>().join(", ");
        warn(&format!("{} of {all} images are left out, {why}: {names}", small.len()));
    }
    large
}

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
}

/// Random crops: batch `step` is a function of the seed and `step` alone.
#[derive(Debug)]
pub struct Crops {
    pairs: Vec<Pair>,
    plan: CropPlan,
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
    pub fn new(mut pairs: Vec<Pair>, plan: CropPlan, warn: &mut dyn FnMut(&str)) -> Result<Self> {
        let all = pairs.len();
        let first_small = pairs.iter().find(|p| !fits(p, plan.size)).map(|p| p.name.clone());
        pairs.retain(|p| fits(p, plan.size));
        let side = plan.size;
        match first_small {
            Some(name) if pairs.is_empty() => {
                let what = format!("none of {all} images is as large as a crop");
                let report = Report::new(what, format!("crops are {side} x {side}; first: {name}"));
                return Err(Error::Usage(
                    report.help("--set data.train.crop=N    makes them smaller"),
                ));
            }
            Some(name) => warn(&format!(
                "{} of {all} images are smaller than a crop of {side} x {side} and are left out \
                 (first: {name})",
                all - pairs.len()
            )),
            None => {}
        }
        Ok(Self { pairs, plan })
    }

    /// The images that crops are drawn from.
    pub fn images(&self) -> usize {
        self.pairs.len()
    }

    /// The pixels that crops are drawn from.
    pub fn pixels(&self) -> usize {
        self.pairs.iter().map(|p| p.high.width * p.high.height).sum()
    }

    /// The crops of batch `step`.
    pub fn batch(&self, step: u64) -> Result<CropBatch> {
        let (n, side) = (self.plan.batch, self.plan.size);
        let small = side / self.plan.scale;
        let mut low = Vec::with_capacity(n * small * small * 3);
        let mut y0 = Vec::with_capacity(n * side * side * 3);
        let mut x0 = Vec::with_capacity(n * side * side * 3);
        for index in 0..n {
            let mut place = self.place(step, index);
            let mut pair = &self.pairs[place.pair];
            let varied;
            if self.plan.augment.changes().changes_pixels() {
                (varied, place) = self.varied(pair, place, step, index)?;
                pair = &varied;
            }
            let scale = self.plan.scale;
            let (x, y) = (place.x * scale, place.y * scale);
            let wanted = Rect::new(x, y, side, side);
            let enlarged = degrade::enlarge(&pair.low, self.plan.enlarge, scale, wanted)?;
            let cut = pair.low.cut(place.x, place.y, small, small);
            turn(&degrade::to_signed(&cut.pixels), small, place.symmetry, &mut low);
            turn(&enlarged, side, place.symmetry, &mut y0);
            let cut = pair.high.cut(x, y, side, side);
            turn(&degrade::to_signed(&cut.pixels), side, place.symmetry, &mut x0);
        }
        let c = self.plan.channels;
        let tensor = |pixels: Vec<f32>, side: usize| {
            let pixels = if c == 1 { luma_of(&pixels) } else { pixels };
            Tensor::from_vec(pixels, &[n, side, side, c])
        };
        Ok(CropBatch { low: tensor(low, small), y0: tensor(y0, side), x0: tensor(x0, side) })
    }

    /// Where crop `index` of batch `step` lies: every image is equally likely, then every place in it.
    #[allow(clippy::cast_possible_truncation)] // A batch has fewer than 2^32 crops.
    fn place(&self, step: u64, index: usize) -> Place {
        let stream = Stream::new(self.plan.seed, Purpose::Crops, step);
        let [image, x, y, symmetry] = stream.bits(index as u32, 0);
        let pair = below(image, self.pairs.len());
        let low = &self.pairs[pair].low;
        let small = self.plan.size / self.plan.scale;
        Place {
            pair,
            x: below(x, low.width - small + 1),
            y: below(y, low.height - small + 1),
            symmetry: self.plan.augment.changes().symmetry(symmetry),
        }
    }

    /// The surroundings of a crop with other colours or turned, and where the crop is in them. Its low
    /// resolution is made of what has changed, as if the whole image had.
    #[allow(clippy::cast_possible_truncation)] // A batch has fewer than 2^32 crops.
    fn varied(&self, pair: &Pair, place: Place, step: u64, index: usize) -> Result<(Pair, Place)> {
        let CropPlan { scale, augment, degrade, size, .. } = self.plan;
        let small = size / scale;
        let stream = Stream::new(self.plan.seed, Purpose::Crops, step);
        let ([order, a, b, c], [d, turn, ..]) =
            (stream.bits(index as u32, 1), stream.bits(index as u32, 2));
        let span = |at: usize, side: usize| {
            let first = at.saturating_sub(MARGIN);
            (first, (at + small + MARGIN).min(side) - first)
        };
        let (x, width) = span(place.x, pair.low.width);
        let (y, height) = span(place.y, pair.low.height);
        let wanted = [x, y, width, height].map(|v| v * scale);
        let changes = augment.changes();
        let mut high = match changes.angle(turn) {
            0.0 => pair.high.cut(wanted[0], wanted[1], wanted[2], wanted[3]),
            degrees => cut_turned(&pair.high, wanted, degrees),
        };
        changes.recolor(&mut high, [order, a, b, c, d]);
        let low = degrade::shrink(&high, degrade, scale)?;
        let place = Place { x: place.x - x, y: place.y - y, ..place };
        Ok((Pair { name: String::new(), high, low }, place))
    }
}

/// Low-resolution pixels around a crop that resampling looks at.
const MARGIN: usize = 4;

fn fits(pair: &Pair, side: usize) -> bool {
    pair.high.width >= side && pair.high.height >= side
}

/// A number below `n` from 32 random bits.
#[allow(clippy::cast_possible_truncation)] // The quotient is below n.
const fn below(bits: u32, n: usize) -> usize {
    ((bits as u64 * n as u64) >> 32) as usize
}

/// Appends the square image `[side, side, 3]` under one of the 8 symmetries: bit 0 mirrors left and
/// right, bit 1 top and bottom, bit 2 exchanges rows and columns.
fn turn(image: &[f32], side: usize, symmetry: u32, out: &mut Vec<f32>) {
    let flip = |v: usize, bit: u32| if symmetry & bit != 0 { side - 1 - v } else { v };
    for y in 0..side {
        for x in 0..side {
            let (from_x, from_y) = if symmetry & 4 != 0 { (y, x) } else { (x, y) };
            let at = (flip(from_y, 2) * side + flip(from_x, 1)) * 3;
            out.extend_from_slice(&image[at..at + 3]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eight_symmetries_differ_and_keep_the_pixels() {
        let image: Vec<f32> = (0..27u8).map(f32::from).collect();
        let mut seen = Vec::new();
        for symmetry in 0..8 {
            let mut out = Vec::new();
            turn(&image, 3, symmetry, &mut out);
            assert!(!seen.contains(&out), "symmetry {symmetry} repeats another");
            let mut sorted = out.clone();
            sorted.sort_by(f32::total_cmp);
            assert_eq!(sorted, image);
            seen.push(out);
        }
        assert_eq!(seen[0], image);
    }
}
