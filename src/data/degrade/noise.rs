//! Noise as Real-ESRGAN adds it: white and Gaussian, or that of counted photons.
//!
//! ```text
//! gaussian   v + sigma z,  in levels of 0..=255
//! poisson    v + scale (P(m) / n - m / n) 255,  m = n round(v) / 255,  n the number of levels that occur in
//!            any channel, rounded up to a power of two: a variance of scale^2 v 255 / n
//! gray       one field for all channels; poisson: that of their luma, whose levels n counts
//! ```
use std::sync::LazyLock;

use serde::Serialize;

use super::draws::{Draws, Field};
use super::planes::Planes;

/// What noise is added.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Noise {
    /// Its law.
    pub kind: NoiseKind,
    /// Gaussian: the standard deviation in levels of 0..=255. Poisson: the factor.
    pub amount: f64,
    /// Whether it is the same in all channels.
    pub gray: bool,
}

/// Laws of noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoiseKind {
    /// Of one variance everywhere.
    Gaussian,
    /// Of a variance in proportion to the intensity.
    Poisson,
}

impl Noise {
    /// Adds the noise to the first three planes, which are clamped to `0..=255`, and what it added to
    /// the second one (green), before that, to the fourth, which is made if it is not there. `number`
    /// (1..=15) tells the fields of noise of one sample apart.
    pub fn add(&self, image: &mut Planes, draws: &Draws, number: u32) {
        let field = draws.field(number);
        if image.planes.len() < 4 {
            image.planes.push(vec![0.0; image.width * image.height]);
        }
        let law = |planes: &[Vec<f32>]| {
            (self.kind == NoiseKind::Poisson).then(|| Counts::of(planes.iter().flatten()))
        };
        let one = self.gray.then(|| {
            let gray = luma(image);
            self.values(&gray, law(std::slice::from_ref(&gray)).as_ref(), field, 0)
        });
        // Before any is changed: a picture has one law for all channels.
        let of_all = if self.gray { None } else { law(&image.planes[..3]) };
        let blocks = u32::try_from(image.width * image.height / 4 + 1).unwrap_or(u32::MAX);
        for c in 0..3u32 {
            let plane = c as usize;
            let own;
            let noise = match &one {
                Some(noise) => noise,
                None => {
                    own = self.values(&image.planes[plane], of_all.as_ref(), field, c * blocks);
                    &own
                }
            };
            let add = |(v, n): (&mut f32, &f32)| *v = (*v + n).clamp(0.0, 255.0);
            image.planes[plane].iter_mut().zip(noise).for_each(add);
            if c == 1 {
                image.planes[3].iter_mut().zip(noise).for_each(|(v, n)| *v += n);
            }
        }
    }

    /// The noise of a plane of `levels`, from block `first` of the field on: by the `law` of photons, if it is theirs.
    #[allow(clippy::cast_possible_truncation)] // Noise is stored in f32.
    fn values(&self, levels: &[f32], law: Option<&Counts>, field: Field, first: u32) -> Vec<f32> {
        let bits = (first..).map(|block| field.bits(block));
        let mut noise = Vec::with_capacity(levels.len() + 3);
        match law {
            None => {
                let sigma = self.amount as f32;
                let blocks = bits.take(levels.len().div_ceil(4));
                noise.extend(blocks.flatten().map(|bits| sigma * normal(bits)));
                noise.truncate(levels.len());
            }
            Some(law) => {
                let factor = (self.amount * 255.0 / law.of_white) as f32;
                let bits = bits.flatten();
                noise.extend(levels.iter().zip(bits).map(|(&v, bits)| factor * law.noise(v, bits)));
            }
        }
        noise
    }
}

fn luma(image: &Planes) -> Vec<f32> {
    let [r, g, b, ..] = &image.planes[..] else { return Vec::new() };
    r.iter().zip(g).zip(b).map(|((r, g), b)| 0.299 * r + 0.587 * g + 0.114 * b).collect()
}

/// The level that a value is rounded to.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // The cast saturates.
fn level(v: f32) -> usize {
    usize::from((v + 0.5) as u8)
}

/// Counts of photons at each level.
struct Counts {
    /// The mean count at level 255.
    of_white: f64,
    /// Mean, its root, and the probability of 0, for each level.
    levels: Vec<[f32; 3]>,
}

/// Means from which on counts are rounded quantiles of a skewed normal law, not summed probabilities.
const MANY: f32 = 16.0;

impl Counts {
    #[allow(clippy::cast_possible_truncation)] // Noise is stored in f32.
    fn of<'a>(levels: impl Iterator<Item = &'a f32>) -> Self {
        let mut occurs = [false; 256];
        levels.for_each(|&v| occurs[level(v)] = true);
        let of_white = occurs.iter().filter(|&&o| o).count().next_power_of_two() as f64;
        let one = |level: u32| {
            let mean = f64::from(level) / 255.0 * of_white;
            [mean, mean.sqrt(), (-mean).exp()].map(|v| v as f32)
        };
        Self { of_white, levels: (0..256).map(one).collect() }
    }

    /// A count less its mean, at intensity `v`.
    fn noise(&self, v: f32, bits: u32) -> f32 {
        let [mean, root, none] = self.levels[level(v)];
        if mean >= MANY {
            // Cornish and Fisher's expansion: a Poisson law has the skewness 1 / root.
            let z = normal(bits);
            return (mean + root * z + (z * z - 1.0) / 6.0).round().max(0.0) - mean;
        }
        let mut left = (bits >> 8) as f32 / (1u32 << 24) as f32 - none;
        let (mut count, mut probability) = (0.0, none);
        while left >= 0.0 && count < 8.0 * MANY {
            count += 1.0;
            probability *= mean / count;
            left -= probability;
        }
        count - mean
    }
}

/// Segments of the table of [`normal`].
const SEGMENTS: usize = 4096;

/// The quantiles of |z| at multiples of 1 / SEGMENTS, for z normal; infinite at the end.
static QUANTILES: LazyLock<Vec<f32>> =
    LazyLock::new(|| (0..=SEGMENTS).map(|i| quantile(1.0 - i as f64 / SEGMENTS as f64)).collect());

/// Where |z| has probability `above` of being larger, for z normal.
#[allow(clippy::cast_possible_truncation)] // Noise is stored in f32.
fn quantile(above: f64) -> f32 {
    let (mut low, mut high) = (0.0, 10.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let larger = libm::erfc(middle * std::f64::consts::FRAC_1_SQRT_2);
        if larger > above { low = middle } else { high = middle }
    }
    low as f32
}

/// A standard normal number from 32 random bits: by a table of quantiles, straight between its entries,
/// exact in the last ones, where the law's tail is not straight.
fn normal(bits: u32) -> f32 {
    let (at, part) = ((bits >> 19 & 0xFFF) as usize, bits & 0x7_FFFF);
    let part = (part as f32 + 0.5) / (1u32 << 19) as f32;
    let size = if at + 2 < SEGMENTS {
        let table: &[f32] = &QUANTILES;
        table[at] + (table[at + 1] - table[at]) * part
    } else {
        quantile(1.0 - (at as f64 + f64::from(part)) / SEGMENTS as f64)
    };
    if bits >> 31 == 1 { -size } else { size }
}
