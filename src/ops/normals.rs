//! The normal numbers of pixels, many at a time: Philox and the transform of Box and Muller, in single precision.
//!
//! Logarithm, sine and cosine are polynomials of this file, off by less than 3e-7 of their size. No multiply-add is
//! fused, so that every instruction set gives the same bits, and the kernels (`kernels/philox.cuh`) too; roots are rounded
//! to the nearest everywhere. The numbers are within 2e-6 of those in double precision.
use std::f32::consts::{FRAC_1_SQRT_2, LN_2, SQRT_2, TAU};

use super::simd::multiversion;
use crate::engine::device::Real;
use crate::engine::rng::Stream;

/// Pixels that are drawn at once.
pub(super) const PIECE: usize = 64;

/// Bits of as many pixels, word by word.
type Words = [[u32; PIECE]; 4];

multiversion! {
    /// Writes the first `channels` (1 to 3) of the four normal numbers of each pixel at `columns` of `row`, to `[columns, channels]`; at
    /// most [`PIECE`] pixels.
    pub(super) fn draw<T, FMA>(
        stream: &Stream, row: u32, columns: &[u32], channels: usize, out: &mut [T],
    ) {
        // Always a whole piece: loops of a known length are what compilers make vectors of.
        let mut at = [0; PIECE];
        at.iter_mut().zip(columns).for_each(|(at, &column)| *at = column);
        let mut words: Words = [[0; PIECE]; 4];
        for i in 0..PIECE {
            let bits = stream.bits(at[i], row);
            for k in 0..4 {
                words[k][i] = bits[k];
            }
        }
        let [a, b, c, d] = &words;
        let mut normals = [[0.0f32; PIECE]; 3];
        for i in 0..PIECE {
            let (radius, [cos, sin]) = (radius(a[i]), cos_sin(b[i]));
            normals[0][i] = radius * cos;
            normals[1][i] = radius * sin;
        }
        if channels > 2 {
            for i in 0..PIECE {
                normals[2][i] = radius(c[i]) * cos_sin(d[i])[0];
            }
        }
        match channels {
            3 => interleave::<T, 3>(&normals, out),
            2 => interleave::<T, 2>(&normals, out),
            _ => interleave::<T, 1>(&normals, out),
        }
    }
}

/// Pixel by pixel.
#[inline(always)]
fn interleave<T: Real, const CHANNELS: usize>(normals: &[[f32; PIECE]; 3], out: &mut [T]) {
    for (i, pixel) in out.chunks_exact_mut(CHANNELS).enumerate().take(PIECE) {
        for channel in 0..CHANNELS {
            pixel[channel] = T::from_f64(f64::from(normals[channel][i]));
        }
    }
}

/// What a whole number is multiplied by to be one of `[0, 1)`.
const UNIT: f32 = 1.0 / 4_294_967_296.0;

/// `sqrt(-2 ln((u + 1) / 2^32))`.
#[inline(always)]
fn radius(u: u32) -> f32 {
    // Above 1/2 by the distance to 1, which is exact enough there.
    let near = u >> 31 == 1;
    let whole = (if near { !u } else { u }) as i32 as f32;
    // (u + 1) / 2^32 = 2^e (1 + f), with 1 + f between the roots of 1/2 and 2.
    let bits = (whole + 1.0).to_bits();
    let mantissa = f32::from_bits(bits & 0x007F_FFFF | 0x3F80_0000);
    let exponent = (bits >> 23) as i32 - (127 + 32);
    let large = mantissa > SQRT_2;
    let far_f = (if large { 0.5 * mantissa } else { mantissa }) - 1.0;
    let far_e = (if large { exponent + 1 } else { exponent }) as f32;
    let distance = whole * UNIT;
    let small = distance > 1.0 - FRAC_1_SQRT_2;
    let near_f = if small { 1.0 - 2.0 * distance } else { -distance };
    let near_e = if small { -1.0 } else { 0.0 };
    let (f, e) = if near { (near_f, near_e) } else { (far_f, far_e) };
    (-2.0 * (e * LN_2 + ln_1p(f))).sqrt()
}

/// `ln(1 + f)` for `1 + f` between the roots of 1/2 and 2: `f - f^2 / 2 + f^3 p(f)`, p by a minimax fit.
#[inline(always)]
fn ln_1p(f: f32) -> f32 {
    const P: [f32; 9] = [
        0.067_466_13,
        -0.116_756_41,
        0.118_881_75,
        -0.124_055_915,
        0.142_195_51,
        -0.166_679_96,
        0.200_021_19,
        -0.250_000_1,
        0.333_333_13,
    ];
    let z = f * f;
    f + (z * f * polynomial(&P, f) - 0.5 * z)
}

/// Cosine and sine of `2 pi v / 2^32`.
#[inline(always)]
fn cos_sin(v: u32) -> [f32; 2] {
    const COS: [f32; 3] = [2.443_845e-5, -0.001_388_736_8, 0.041_666_646];
    const SIN: [f32; 3] = [-0.000_195_172_98, 0.008_332_178, -0.166_666_55];
    // The nearest quarter of a turn, and what is left: at most an eighth.
    let quarter = v.wrapping_add(1 << 29) >> 30;
    let rest = v.wrapping_sub(quarter << 30) as i32 as f32 * (TAU * UNIT);
    let z = rest * rest;
    let sin = rest + rest * z * polynomial(&SIN, z);
    let cos = 1.0 - (0.5 * z - z * z * polynomial(&COS, z));
    let (x, y) = if quarter & 1 == 1 { (sin, cos) } else { (cos, sin) };
    // The cosine is negative in the second and third quarter, the sine in the third and fourth.
    let signed = |v: f32, sign: u32| f32::from_bits(v.to_bits() ^ (sign << 30 & 1 << 31));
    [signed(x, quarter + 1), signed(y, quarter)]
}

/// The highest power first.
#[inline(always)]
fn polynomial<const N: usize>(factors: &[f32; N], x: f32) -> f32 {
    factors[1..].iter().fold(factors[0], |sum, factor| sum * x + factor)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Whole numbers of tests.
mod tests {
    use super::*;
    use crate::engine::rng::Purpose;

    /// Box and Muller's transform of two words in double precision.
    fn exact(u: u32, v: u32) -> [f64; 2] {
        let radius = (-2.0 * ((f64::from(u) + 1.0) / 4_294_967_296.0).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * (f64::from(v) / 4_294_967_296.0)).sin_cos();
        [radius * cos, radius * sin]
    }

    fn single(u: u32, v: u32) -> [f32; 2] {
        let (radius, [cos, sin]) = (radius(u), cos_sin(v));
        [radius * cos, radius * sin]
    }

    /// Both ends of every range that a polynomial is used on, and a million between.
    #[test]
    fn numbers_are_those_in_double_precision() {
        let edges = (0..32).flat_map(|k| [(1u64 << k) - 1, 1 << k, (1 << k) + 1]);
        let roots = [2_f64.sqrt() * 1e9, 0.5_f64.sqrt() * 4_294_967_296.0].map(|r| r as u64);
        let mut all: Vec<u32> = edges
            .chain(roots)
            .flat_map(|u| [u as u32, !(u as u32), (u as u32).wrapping_add(1 << 29)])
            .collect();
        all.extend((0..1_000_000u32).map(|i| i.wrapping_mul(2_654_435_761)));
        let (mut worst, mut of_radius) = (0.0f64, 0.0f64);
        for (i, &u) in all.iter().enumerate() {
            let v = all[(i * 7919 + 13) % all.len()];
            for (a, b) in single(u, v).into_iter().zip(exact(u, v)) {
                worst = worst.max((f64::from(a) - b).abs());
            }
            let wanted = exact(u, 0)[0];
            let off = (f64::from(radius(u)) - wanted).abs() / wanted.max(1e-30);
            of_radius = of_radius.max(if u == u32::MAX { 0.0 } else { off });
        }
        assert!(worst < 2e-6, "off by {worst:e}");
        // Also where it is small: the logarithm of a number close to 1.
        assert!(of_radius < 3e-7, "radii are off by {of_radius:e}");
        assert_eq!(single(u32::MAX, 5), [0.0, 0.0]);
    }

    /// Every instruction set, whole pieces and ragged ones, against one pixel at a time.
    #[test]
    fn a_row_has_the_bits_of_its_pixels() {
        let stream = Stream::new(0xFEDC_BA98_7654_3210, Purpose::Test, 9);
        for channels in 1..=3 {
            for len in [1, 7, 16, PIECE] {
                let columns: Vec<u32> =
                    (0..len as u32).map(|i| (i % 5 * 77).wrapping_sub(3)).collect();
                let mut out = vec![f32::NAN; len * channels];
                draw(&stream, 11, &columns, channels, &mut out);
                for (pixel, &column) in out.chunks_exact(channels).zip(&columns) {
                    let [a, b, c, d] = stream.bits(column, 11);
                    let wanted = [single(a, b)[0], single(a, b)[1], single(c, d)[0]];
                    assert_eq!(pixel, &wanted[..channels]);
                }
            }
        }
    }

    #[test]
    fn numbers_have_mean_0_and_variance_1() {
        let stream = Stream::new(7, Purpose::Test, 0);
        let mut all = vec![0.0f64; 3 * 100_032];
        for (row, out) in all.chunks_exact_mut(3 * PIECE).enumerate() {
            let columns: Vec<u32> = (0..PIECE as u32).collect();
            draw(&stream, row as u32, &columns, 3, out);
        }
        let moment = |k: i32| all.iter().map(|v| v.powi(k)).sum::<f64>() / all.len() as f64;
        let (mean, var, fourth) = (moment(1), moment(2), moment(4));
        assert!(mean.abs() < 0.008 && (var - 1.0).abs() < 0.01, "mean {mean}, variance {var}");
        assert!((fourth - 3.0).abs() < 0.08, "fourth moment {fourth}");
    }
}
