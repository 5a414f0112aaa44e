//! Lanczos3 to any size, strip by strip, so that neither picture is held whole.
//!
//! The results are those of `fast_image_resize` on the whole picture, bit for bit: its weights for
//! 8 bits have 16 bits, of which as many are a fraction as the largest weight leaves, those for 16 bits
//! have 32; what lies between the passes has the depth of the samples. 8-bit pictures go through the
//! vertical pass first, 16-bit pictures through the horizontal one. The horizontal pass is that
//! package's own.
use bytemuck::{cast_slice, cast_slice_mut};
use fast_image_resize as fir;
use fir::images::{TypedImage, TypedImageRef};
use rayon::prelude::*;

use super::separable::{real, whole};
use crate::error::{Error, Report, Result};
use crate::imaging::{Depth, Samples};

/// A picture that is being resized, its rows given from the top.
pub struct Strips {
    from: (usize, usize),
    to: (usize, usize),
    channels: usize,
    down: Down,
    /// Rows `first..` of the input, those that are still needed.
    held: Samples,
    first: usize,
    /// Rows given so far.
    given: usize,
    /// Rows made so far.
    made: usize,
}

impl Strips {
    /// From `from` (width, height) to `to`, pictures of 1 or 3 `channels`.
    ///
    /// # Errors
    /// [`Error::Shape`] if a side is 0.
    pub fn new(
        from: (usize, usize),
        to: (usize, usize),
        channels: usize,
        depth: Depth,
    ) -> Result<Self> {
        if [from.0, from.1, to.0, to.1].contains(&0) {
            return Err(Error::shape("resize", "a size of at least 1x1", &[to.0, to.1]));
        }
        let down = Down::new(from.1, to.1, depth);
        let held = Samples::zeros(depth, 0);
        Ok(Self { from, to, channels, down, held, first: 0, given: 0, made: 0 })
    }

    /// Bytes that are held at a time, beside what is given and taken.
    pub fn bytes(from: (usize, usize), to: (usize, usize), pixel: usize) -> u64 {
        let stretch = (from.1 as f64 / to.1.max(1) as f64).max(1.0);
        let rows = (2.0 * SUPPORT * stretch).ceil() + 2.0;
        // The window, and the weights of a row, which the horizontal pass makes for all of it.
        let columns = (from.0 as f64 / to.0.max(1) as f64).max(1.0) * 7.0 * 12.0 + 64.0;
        let width = from.0.max(to.0) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let bytes = (width * pixel as f64 * rows + to.0 as f64 * columns) as u64;
        bytes
    }

    /// Takes the next rows of the input, `[H, W, C]`.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are no whole rows of its depth, or too many.
    pub fn give(&mut self, rows: &Samples) -> Result<()> {
        let line = self.from.0 * self.channels;
        let count = rows.len() / line;
        if !rows.len().is_multiple_of(line)
            || rows.depth() != self.down.depth
            || self.given + count > self.from.1
        {
            return Err(Error::shape("resize", "whole rows of the picture", &[rows.len()]));
        }
        let needed = match self.made < self.to.1 {
            true => self.down.span(self.made).0,
            false => self.given,
        };
        let width = match self.down.depth {
            Depth::Eight => self.from.0,
            Depth::Sixteen => self.to.0,
        };
        let gone = (needed.min(self.given) - self.first) * width * self.channels;
        self.first = needed.min(self.given);
        let narrowed;
        let rows = match self.down.depth {
            Depth::Sixteen if self.from.0 != self.to.0 => {
                narrowed = across(rows, self.from.0, self.to.0, count, self.channels)?;
                &narrowed
            }
            _ => rows,
        };
        match (&mut self.held, rows) {
            (Samples::U8(held), Samples::U8(rows)) => refill(held, gone, rows),
            (Samples::U16(held), Samples::U16(rows)) => refill(held, gone, rows),
            _ => return Err(Error::shape("resize", "one depth", &[])),
        }
        self.given += count;
        Ok(())
    }

    /// The next rows of the result, at most `most`; none until more rows are given.
    ///
    /// # Errors
    /// If the horizontal pass fails.
    pub fn take(&mut self, most: usize) -> Result<Option<Samples>> {
        let last = (self.made + most).min(self.to.1);
        let mut end = self.made;
        while end < last && self.down.span(end).1 <= self.given {
            end += 1;
        }
        if end == self.made {
            return Ok(None);
        }
        let rows = self.made..end;
        let count = rows.len();
        let made = match &self.held {
            Samples::U8(held) => {
                let line = self.from.0 * self.channels;
                Samples::U8(self.down.rows(held, line, self.first, rows))
            }
            Samples::U16(held) => {
                let line = self.to.0 * self.channels;
                Samples::U16(self.down.rows(held, line, self.first, rows))
            }
        };
        self.made = end;
        match made {
            Samples::U8(_) if self.from.0 != self.to.0 => {
                across(&made, self.from.0, self.to.0, count, self.channels).map(Some)
            }
            made => Ok(Some(made)),
        }
    }
}

fn refill<T: Copy>(held: &mut Vec<T>, gone: usize, rows: &[T]) {
    held.drain(..gone.min(held.len()));
    held.extend_from_slice(rows);
}

/// The horizontal pass over `height` rows.
fn across(
    rows: &Samples,
    from: usize,
    to: usize,
    height: usize,
    channels: usize,
) -> Result<Samples> {
    use fir::pixels::{U8, U8x3, U16, U16x3};
    let mut out = Samples::zeros(rows.depth(), to * height * channels);
    let options = fir::ResizeOptions::new();
    let (from, to) = ((from, height), (to, height));
    match (rows, &mut out, channels) {
        (Samples::U8(x), Samples::U8(y), 1) => resize_pixels::<U8>(x, from, y, to, options),
        (Samples::U8(x), Samples::U8(y), _) => resize_pixels::<U8x3>(x, from, y, to, options),
        (Samples::U16(x), Samples::U16(y), 1) => {
            resize_pixels::<U16>(cast_slice(x), from, cast_slice_mut(y), to, options)
        }
        (Samples::U16(x), Samples::U16(y), _) => {
            resize_pixels::<U16x3>(cast_slice(x), from, cast_slice_mut(y), to, options)
        }
        _ => Err(Error::shape("resize", "one depth", &[])),
    }?;
    Ok(out)
}

/// Lanczos3 by the package, of the bytes of pixels `P`, sizes as (width, height). Of one type at a time: what takes any
/// type is compiled for all fourteen, which were a fifth of all code.
///
/// # Errors
/// If a size does not fit the bytes.
pub(super) fn resize_pixels<P: fir::PixelTrait>(
    pixels: &[u8],
    from: (usize, usize),
    out: &mut [u8],
    to: (usize, usize),
    options: fir::ResizeOptions,
) -> Result<()> {
    let fail = |e: String| Error::Failed(Report::new("cannot resize the image", e));
    let side = |v: usize| u32::try_from(v).map_err(|e| fail(e.to_string()));
    let source = TypedImageRef::<P>::from_buffer(side(from.0)?, side(from.1)?, pixels)
        .map_err(|e| fail(e.to_string()))?;
    let mut made = TypedImage::<P>::from_buffer(side(to.0)?, side(to.1)?, out)
        .map_err(|e| fail(e.to_string()))?;
    let options =
        options.resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3)).use_alpha(false);
    let resized = fir::Resizer::new().resize_typed(&source, &mut made, &options);
    resized.map_err(|e| fail(e.to_string()))
}

/// Of Lanczos3, in input pixels where it does not shrink.
const SUPPORT: f64 = 3.0;

/// The vertical pass.
struct Down {
    from: usize,
    to: usize,
    depth: Depth,
    /// Fraction bits of the weights.
    precision: u32,
}

impl Down {
    fn new(from: usize, to: usize, depth: Depth) -> Self {
        let mut down = Self { from, to, depth, precision: 0 };
        let largest = |row| down.weights(row).1.into_iter().fold(0.0, f64::max);
        let largest = match from == to {
            true => 1.0,
            false => (0..to).into_par_iter().map(largest).reduce(|| 0.0, f64::max),
        };
        let (most, bits) = match depth {
            Depth::Eight => (32 - 8 - 2, 15),
            Depth::Sixteen => (64 - 16 - 2, 31),
        };
        let overflows =
            |p: u32| (largest * (1u64 << (p + 1)) as f64).round() >= f64::from(1u32 << bits);
        down.precision = (0..most).find(|&p| overflows(p)).unwrap_or(most - 1);
        down
    }

    /// First input row and one past the last that output row `row` may need.
    fn bounds(&self, row: usize) -> (usize, usize, f64, f64) {
        let scale = real(self.from) / real(self.to);
        let stretch = scale.max(1.0);
        let (center, radius) = ((real(row) + 0.5) * scale, SUPPORT * stretch);
        let first = whole((center - radius).floor().max(0.0));
        let last = whole((center + radius).ceil().min(real(self.from)));
        (first, last, center - 0.5, 1.0 / stretch)
    }

    /// The input rows that output row `row` needs: the first, and one past the last.
    fn span(&self, row: usize) -> (usize, usize) {
        if self.from == self.to {
            return (row, row + 1);
        }
        let (first, last, ..) = self.bounds(row);
        (first, last)
    }

    /// The first row that adds to `row`, and the weights from there on.
    fn weights(&self, row: usize) -> (usize, Vec<f64>) {
        if self.from == self.to {
            return (row, vec![1.0]);
        }
        let (begin, last, center, shrink) = self.bounds(row);
        let mut first = begin;
        let mut weights = Vec::with_capacity(last - begin);
        let mut sum = 0.0;
        for y in begin..last {
            let weight = lanczos((real(y) - center) * shrink);
            if y == first && weight == 0.0 {
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

    /// Rows `rows` of the output; `held` begins with row `first` of the input, of `line` samples.
    fn rows<T: Sample>(
        &self,
        held: &[T],
        line: usize,
        first: usize,
        rows: std::ops::Range<usize>,
    ) -> Vec<T> {
        let mut out = vec![T::default(); line * rows.len()];
        let one = (1u64 << self.precision) as f64;
        out.par_chunks_mut(line).zip(rows).for_each_init(
            || vec![T::Sum::default(); line],
            |sums, (out, row)| {
                let (start, weights) = self.weights(row);
                sums.fill(T::half(self.precision));
                for (y, weight) in (start - first..).zip(weights) {
                    T::add(sums, &held[y * line..][..line], (weight * one).round());
                }
                for (out, &sum) in out.iter_mut().zip(&*sums) {
                    *out = T::finish(sum, self.precision);
                }
            },
        );
        out
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| match x == 0.0 {
        true => 1.0,
        false => (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI),
    };
    if (-3.0..3.0).contains(&x) { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

/// How samples are added: in fixed point, exactly.
trait Sample: Copy + Default + Send + Sync {
    type Sum: Copy + Default + Send;
    /// One half in the fixed point.
    fn half(precision: u32) -> Self::Sum;
    /// Adds samples times a whole weight.
    fn add(sums: &mut [Self::Sum], samples: &[Self], weight: f64);
    fn finish(sum: Self::Sum, precision: u32) -> Self;
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by design")]
impl Sample for u8 {
    type Sum = i32;

    fn half(precision: u32) -> i32 {
        1 << (precision - 1)
    }

    fn add(sums: &mut [i32], samples: &[Self], weight: f64) {
        let weight = i32::from(weight as i16);
        sums.iter_mut().zip(samples).for_each(|(sum, &s)| *sum += i32::from(s) * weight);
    }

    fn finish(sum: i32, precision: u32) -> Self {
        (sum >> precision).clamp(0, 255) as Self
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by design")]
impl Sample for u16 {
    type Sum = i64;

    fn half(precision: u32) -> i64 {
        1 << (precision - 1)
    }

    fn add(sums: &mut [i64], samples: &[Self], weight: f64) {
        let weight = i64::from(weight as i32);
        sums.iter_mut().zip(samples).for_each(|(sum, &s)| *sum += i64::from(s) * weight);
    }

    fn finish(sum: i64, precision: u32) -> Self {
        (sum >> precision).clamp(0, 65535) as Self
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Made-up pixels.
mod tests {
    use super::*;
    use fir::PixelType;

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    /// The package itself on the whole picture.
    fn whole_picture(samples: &Samples, from: (u32, u32), to: (u32, u32), gray: bool) -> Samples {
        let (pixel, bytes): (_, &[u8]) = match (samples, gray) {
            (Samples::U8(v), true) => (PixelType::U8, v),
            (Samples::U8(v), false) => (PixelType::U8x3, v),
            (Samples::U16(v), true) => (PixelType::U16, bytemuck::cast_slice(v)),
            (Samples::U16(v), false) => (PixelType::U16x3, bytemuck::cast_slice(v)),
        };
        let src = fir::images::ImageRef::new(from.0, from.1, bytes, pixel).unwrap();
        let mut dst = fir::images::Image::new(to.0, to.1, pixel);
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3))
            .use_alpha(false);
        fir::Resizer::new().resize(&src, &mut dst, &options).unwrap();
        match samples {
            Samples::U8(_) => Samples::U8(dst.buffer().to_vec()),
            Samples::U16(_) => Samples::U16(bytemuck::pod_collect_to_vec(dst.buffer())),
        }
    }

    #[test]
    fn strips_of_any_height_give_the_bits_of_the_whole_picture() {
        let from = (37, 41);
        let sizes = [(74, 82), (18, 20), (37, 103), (93, 41), (20, 90), (5, 3), (1, 1), (60, 400)];
        for (channels, deep) in [(1, false), (3, false), (1, true), (3, true)] {
            let bytes = noise(from.0 * from.1 * channels * 2);
            let samples = match deep {
                false => Samples::U8(bytes[..bytes.len() / 2].to_vec()),
                true => Samples::U16(bytemuck::pod_collect_to_vec(&bytes)),
            };
            for to in sizes {
                let narrow = |(w, h): (usize, usize)| (w as u32, h as u32);
                let want = whole_picture(&samples, narrow(from), narrow(to), channels == 1);
                for (given, taken) in [(1, 1), (3, 50), (7, 4), (41, 1000)] {
                    let mut strips = Strips::new(from, to, channels, samples.depth()).unwrap();
                    let mut got = Samples::zeros(samples.depth(), 0);
                    let line = from.0 * channels;
                    for start in (0..from.1).step_by(given) {
                        let end = (start + given).min(from.1);
                        strips.give(&samples.part(start * line..end * line)).unwrap();
                        while let Some(rows) = strips.take(taken).unwrap() {
                            got.append(&rows);
                        }
                    }
                    assert_eq!(got, want, "{channels} {deep} {to:?} {given} {taken}");
                }
            }
        }
    }
}
