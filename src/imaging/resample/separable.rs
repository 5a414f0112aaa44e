//! One pass of a separable resampler: which samples are added with which weights, and in what
//! arithmetic.
use super::Shape;
pub(super) use super::numbers::{clamp, floor, mirror, real, signed, signed_real, whole};
use crate::engine::threads::pieces_with;

/// For each output: the input samples it adds and their weights.
pub(super) struct Taps<W> {
    terms: Vec<(usize, W)>,
    /// Terms of output `o` are `starts[o]..starts[o + 1]`.
    starts: Vec<usize>,
}

impl<W: Copy> Taps<W> {
    pub(super) fn new(outputs: impl Iterator<Item = Vec<(usize, W)>>) -> Self {
        let mut taps = Self { terms: Vec::new(), starts: vec![0] };
        for terms in outputs {
            taps.terms.extend(terms);
            taps.starts.push(taps.terms.len());
        }
        taps
    }

    pub(super) fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    pub(super) fn of(&self, output: usize) -> &[(usize, W)] {
        &self.terms[self.starts[output]..self.starts[output + 1]]
    }
}

#[derive(Clone, Copy)]
pub(super) enum Axis {
    Height,
    Width,
}

/// How a pass adds samples times weights and what it stores.
pub(super) trait Arithmetic {
    type Sample: Copy + Default + Send + Sync;
    type Weight: Copy + Sync;
    type Sum: Copy + Send;
    const START: Self::Sum;
    fn add(sum: Self::Sum, sample: Self::Sample, weight: Self::Weight) -> Self::Sum;
    fn finish(sum: Self::Sum) -> Self::Sample;
}

/// Fraction bits of Pillow's fixed-point weights: 32 less 8 for the sample and 2 for overshoot.
pub(super) const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Pillow's: 22 fraction bits in `i32`, rounded and clipped to 8 bits.
pub(super) struct Fixed;

impl Arithmetic for Fixed {
    type Sample = u8;
    type Weight = i32;
    type Sum = i32;
    const START: i32 = 1 << (PRECISION_BITS - 1);

    #[inline]
    fn add(sum: i32, sample: u8, weight: i32) -> i32 {
        // Wraps like C would; the weights sum to 2^22, so 8-bit samples stay below 2^31.
        sum.wrapping_add(i32::from(sample) * weight)
    }

    #[inline]
    #[expect(clippy::cast_sign_loss, reason = "clamped to 0..=255 first")]
    fn finish(sum: i32) -> u8 {
        (sum >> PRECISION_BITS).clamp(0, 255) as u8
    }
}

/// MATLAB's on 8-bit images: f64, rounded half up and clipped.
pub(super) struct Rounded;

impl Arithmetic for Rounded {
    type Sample = u8;
    type Weight = f64;
    type Sum = f64;
    const START: f64 = 0.0;

    #[inline]
    fn add(sum: f64, sample: u8, weight: f64) -> f64 {
        sum + f64::from(sample) * weight
    }

    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..=255 first"
    )]
    fn finish(sum: f64) -> u8 {
        (sum + 0.5).clamp(0.0, 255.0) as u8
    }
}

/// f32 samples added in f64.
pub(super) struct Float;

impl Arithmetic for Float {
    type Sample = f32;
    type Weight = f64;
    type Sum = f64;
    const START: f64 = 0.0;

    #[inline]
    fn add(sum: f64, sample: f32, weight: f64) -> f64 {
        sum + f64::from(sample) * weight
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "f64 is for the sum only")]
    fn finish(sum: f64) -> f32 {
        sum as f32
    }
}

/// One separable pass; every output value adds its terms in their order.
pub(super) fn pass<A: Arithmetic>(
    src: &[A::Sample],
    from: Shape,
    axis: Axis,
    taps: &Taps<A::Weight>,
) -> Vec<A::Sample> {
    let to = match axis {
        Axis::Height => Shape { height: taps.outputs(), ..from },
        Axis::Width => Shape { width: taps.outputs(), ..from },
    };
    let channels = from.channels;
    let stride = from.width * channels;
    let mut out = vec![A::Sample::default(); to.len()];
    let line = to.width * channels;
    pieces_with(
        &mut out,
        line,
        || vec![A::START; line],
        |y, out, sums| {
            sums.fill(A::START);
            match axis {
                Axis::Height => {
                    for &(row, w) in taps.of(y) {
                        for (sum, &s) in sums.iter_mut().zip(&src[row * stride..][..stride]) {
                            *sum = A::add(*sum, s, w);
                        }
                    }
                }
                Axis::Width => {
                    let row = &src[y * stride..][..stride];
                    for (x, sums) in sums.chunks_exact_mut(channels).enumerate() {
                        for &(column, w) in taps.of(x) {
                            let pixel = &row[column * channels..][..channels];
                            for (sum, &s) in sums.iter_mut().zip(pixel) {
                                *sum = A::add(*sum, s, w);
                            }
                        }
                    }
                }
            }
            for (out, &sum) in out.iter_mut().zip(&*sums) {
                *out = A::finish(sum);
            }
        },
    );
    out
}
