//! Lanczos3 to any size, strip by strip, so that neither picture is held whole.
//!
//! The results are those of `fast_image_resize` 5.1 on the whole picture, bit for bit: its weights for
//! 8 bits have 16 bits, of which as many are a fraction as the largest weight leaves, those for 16 bits
//! have 32; what lies between the passes has the depth of the samples. 8-bit pictures go through the
//! vertical pass first, 16-bit pictures through the horizontal one.
use super::lanczos::{Lanczos, SUPPORT};
use super::separable::Taps;
use crate::engine::threads::{self, map, pieces_with};
use crate::error::{Error, Result};
use crate::imaging::{Depth, Samples};

/// A picture that is being resized, its rows given from the top.
pub struct Strips {
    from: (usize, usize),
    to: (usize, usize),
    channels: usize,
    across: Across,
    down: Pass,
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
        let across = Across::new(from.0, to.0, channels, depth);
        let down = Pass::new(from.1, to.1, depth);
        let held = Samples::zeros(depth, 0);
        Ok(Self { from, to, channels, across, down, held, first: 0, given: 0, made: 0 })
    }

    /// Bytes that are held at a time, beside what is given and taken.
    pub fn bytes(from: (usize, usize), to: (usize, usize), pixel: usize) -> u64 {
        let stretch = (from.1 as f64 / to.1.max(1) as f64).max(1.0);
        let rows = (2.0 * SUPPORT * stretch).ceil() + 2.0;
        // The window, the rows that threads turn, and the weights of a row, which are made for all of it.
        let rows = rows + (LANES * threads::count()) as f64;
        let columns = (from.0 as f64 / to.0.max(1) as f64).max(1.0) * 7.0 * 16.0 + 64.0;
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
            true => self.down.axis.span(self.made).0,
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
                narrowed = self.across.resized(rows);
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
    pub fn take(&mut self, most: usize) -> Option<Samples> {
        let last = (self.made + most).min(self.to.1);
        let mut end = self.made;
        while end < last && self.down.axis.span(end).1 <= self.given {
            end += 1;
        }
        if end == self.made {
            return None;
        }
        let rows = self.made..end;
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
            Samples::U8(_) if self.from.0 != self.to.0 => Some(self.across.resized(&made)),
            made => Some(made),
        }
    }
}

fn refill<T: Copy>(held: &mut Vec<T>, gone: usize, rows: &[T]) {
    held.drain(..gone.min(held.len()));
    held.extend_from_slice(rows);
}

/// An axis whose weights are whole numbers.
struct Pass {
    axis: Lanczos,
    depth: Depth,
    /// Fraction bits of the weights.
    precision: u32,
}

impl Pass {
    fn new(from: usize, to: usize, depth: Depth) -> Self {
        let axis = Lanczos::new(from, to);
        let largest = |o| axis.weights(o).1.into_iter().fold(0.0, f64::max);
        let largest = match axis.is_identity() {
            true => 1.0,
            false => map(to, largest).into_iter().fold(0.0, f64::max),
        };
        let (most, bits) = match depth {
            Depth::Eight => (32 - 8 - 2, 15),
            Depth::Sixteen => (64 - 16 - 2, 31),
        };
        let overflows =
            |p: u32| (largest * (1u64 << (p + 1)) as f64).round() >= f64::from(1u32 << bits);
        let precision = (0..most).find(|&p| overflows(p)).unwrap_or(most - 1);
        Self { axis, depth, precision }
    }

    /// The samples that add to output `o`, and their weights.
    #[expect(clippy::cast_possible_truncation, reason = "at most 32 bits by the precision")]
    fn terms(&self, o: usize) -> impl Iterator<Item = (usize, i32)> + use<> {
        let one = (1u64 << self.precision) as f64;
        let (first, weights) = self.axis.weights(o);
        (first..).zip(weights).map(move |(i, weight)| (i, (weight * one).round() as i32))
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
        pieces_with(
            &mut out,
            line,
            || vec![T::Sum::default(); line],
            |i, out, sums| {
                sums.fill(T::half(self.precision));
                for (y, weight) in self.terms(rows.start + i) {
                    T::add(sums, &held[(y - first) * line..][..line], weight);
                }
                for (out, &sum) in out.iter_mut().zip(&*sums) {
                    *out = T::finish(sum, self.precision);
                }
            },
        );
        out
    }
}

/// Rows that the horizontal pass takes at once, so that sums of several are added together.
const LANES: usize = 16;

/// The horizontal pass.
struct Across {
    pass: Pass,
    from: usize,
    channels: usize,
    taps: Taps<i32>,
}

impl Across {
    fn new(from: usize, to: usize, channels: usize, depth: Depth) -> Self {
        let pass = Pass::new(from, to, depth);
        let taps = Taps::new((0..to).map(|o| pass.terms(o).collect()));
        Self { pass, from, channels, taps }
    }

    /// Of whole rows.
    fn resized(&self, rows: &Samples) -> Samples {
        match rows {
            Samples::U8(rows) => Samples::U8(self.rows(rows)),
            Samples::U16(rows) => Samples::U16(self.rows(rows)),
        }
    }

    fn rows<T: Sample>(&self, rows: &[T]) -> Vec<T> {
        let (channels, precision) = (self.channels, self.pass.precision);
        let [line, wide] = [self.from, self.taps.outputs()].map(|pixels| pixels * channels);
        let mut out = vec![T::default(); rows.len() / line * wide];
        // Samples of one place side by side.
        let turned = || vec![T::default(); LANES * line];
        pieces_with(&mut out, LANES * wide, turned, |i, out, turned| {
            let rows = &rows[i * LANES * line..][..out.len() / wide * line];
            for (lane, row) in rows.chunks_exact(line).enumerate() {
                let places = turned.iter_mut().skip(lane).step_by(LANES);
                places.zip(row).for_each(|(to, &sample)| *to = sample);
            }
            for i in 0..wide {
                let (pixel, c) = (i / channels, i % channels);
                let mut sums = [T::half(precision); LANES];
                for &(column, weight) in self.taps.of(pixel) {
                    let samples = &turned[(column * channels + c) * LANES..][..LANES];
                    T::add(&mut sums, samples, weight);
                }
                let places = out.iter_mut().skip(i).step_by(wide);
                places.zip(sums).for_each(|(to, sum)| *to = T::finish(sum, precision));
            }
        });
        out
    }
}

/// How samples are added: in fixed point, exactly.
trait Sample: Copy + Default + Send + Sync {
    type Sum: Copy + Default + Send;
    /// One half in the fixed point.
    fn half(precision: u32) -> Self::Sum;
    /// Adds samples times a whole weight.
    fn add(sums: &mut [Self::Sum], samples: &[Self], weight: i32);
    fn finish(sum: Self::Sum, precision: u32) -> Self;
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded by design")]
impl Sample for u8 {
    type Sum = i32;

    #[inline]
    fn half(precision: u32) -> i32 {
        1 << (precision - 1)
    }

    #[inline]
    fn add(sums: &mut [i32], samples: &[Self], weight: i32) {
        // So that 16 bits are multiplied.
        let weight = i32::from(weight as i16);
        sums.iter_mut().zip(samples).for_each(|(sum, &s)| *sum += i32::from(s) * weight);
    }

    #[inline]
    fn finish(sum: i32, precision: u32) -> Self {
        (sum >> precision).clamp(0, 255) as Self
    }
}

#[expect(clippy::cast_sign_loss, reason = "bounded by design")]
impl Sample for u16 {
    type Sum = i64;

    #[inline]
    fn half(precision: u32) -> i64 {
        1 << (precision - 1)
    }

    #[inline]
    fn add(sums: &mut [i64], samples: &[Self], weight: i32) {
        let weight = i64::from(weight);
        sums.iter_mut().zip(samples).for_each(|(sum, &s)| *sum += i64::from(s) * weight);
    }

    #[inline]
    fn finish(sum: i64, precision: u32) -> Self {
        (sum >> precision).clamp(0, 65535) as Self
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // Made-up pixels.
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    /// FNV-1a of the bytes of 64 bits.
    fn digest(samples: &Samples) -> u64 {
        let bytes: &[u8] = match samples {
            Samples::U8(v) => v,
            Samples::U16(v) => bytemuck::cast_slice(v),
        };
        let add = |sum: u64, &byte: &u8| (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, add)
    }

    /// What `fast_image_resize` 5.1.4 makes of the pictures below: gray and colours of 8 bits, then of 16.
    const PACKAGE: [[u64; 8]; 4] = [
        [
            0x9adb_e046_faba_5576,
            0x7826_ba31_872a_aac3,
            0x8dac_d7e8_f32a_97a0,
            0xf1a2_e148_d0ff_83db,
            0x47f6_9ed9_d31f_9b18,
            0x1e4c_7e85_d437_a748,
            0xaf64_3d4c_8602_915f,
            0x7cc2_8c8e_ac75_a1e3,
        ],
        [
            0x59f3_9e0b_d02d_a625,
            0x3e5a_1e2a_490a_56f7,
            0x6c39_3f68_2ba3_85ea,
            0x687c_eb93_5a17_c126,
            0x0d2f_b8dd_40e4_1149,
            0x7f01_a042_2973_5250,
            0xa2b0_0919_6ea4_7b1e,
            0xbb7e_b6a2_b183_d290,
        ],
        [
            0x6252_7bfa_8061_3767,
            0x4657_06e1_4127_fc9f,
            0x2fe8_adf0_3748_736e,
            0x3540_03c7_e34e_0fb8,
            0x090d_c44c_61b6_34ca,
            0xd7cb_d03f_ce47_77e0,
            0x08f1_4907_b58d_e0e8,
            0x46c5_92e2_db77_5d5a,
        ],
        [
            0x75e5_2482_b971_e084,
            0xd0f7_35ab_6660_68b6,
            0xbecc_9e92_3317_91fe,
            0xeed2_75f6_5fb7_de01,
            0x07c8_8a93_8cf6_6166,
            0xdec9_6c54_6736_7d19,
            0x7132_1e05_85fb_0724,
            0xb9df_226b_bc14_40ce,
        ],
    ];

    #[test]
    fn strips_of_any_height_give_the_bits_of_the_whole_picture() {
        let from = (37, 41);
        let sizes = [(74, 82), (18, 20), (37, 103), (93, 41), (20, 90), (5, 3), (1, 1), (60, 400)];
        let kinds = [(1, false), (3, false), (1, true), (3, true)];
        for ((channels, deep), digests) in kinds.into_iter().zip(PACKAGE) {
            let bytes = noise(from.0 * from.1 * channels * 2);
            let samples = match deep {
                false => Samples::U8(bytes[..bytes.len() / 2].to_vec()),
                true => Samples::U16(bytemuck::pod_collect_to_vec(&bytes)),
            };
            for (to, want) in sizes.into_iter().zip(digests) {
                for (given, taken) in [(1, 1), (3, 50), (7, 4), (41, 1000)] {
                    let mut strips = Strips::new(from, to, channels, samples.depth()).unwrap();
                    let mut got = Samples::zeros(samples.depth(), 0);
                    let line = from.0 * channels;
                    for start in (0..from.1).step_by(given) {
                        let end = (start + given).min(from.1);
                        strips.give(&samples.part(start * line..end * line)).unwrap();
                        while let Some(rows) = strips.take(taken) {
                            got.append(&rows);
                        }
                    }
                    assert_eq!(digest(&got), want, "{channels} {deep} {to:?} {given} {taken}");
                }
            }
        }
    }
}
