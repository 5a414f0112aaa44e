//! The plain enlargements that models start from, on any part of an image.
use super::separable::{clamp, floor, real, signed, signed_real};
use super::{Shape, cubic};
use crate::engine::threads::pieces_with;
use crate::error::{Error, Result};
use crate::imaging::Rect;

/// Enlarges `scale` times with the cubic a = -0.5 and clamped edges: the y0 of the models.
///
/// `low` holds the part `held` `[H, W, C]` of a whole image of `size` (width, height); the result
/// is the part `wanted` of the enlarged image, in its coordinates. It is the same, bit for bit,
/// whatever parts are held and wanted. Fails if `held` lacks a pixel that `wanted` needs: see
/// [`bicubic_footprint`].
pub fn bicubic_up(
    low: &[f32],
    held: Rect,
    size: (usize, usize),
    channels: usize,
    scale: usize,
    wanted: Rect,
) -> Result<Vec<f32>> {
    up(Filter::Cubic(-0.5), low, held, (size, channels, scale), wanted)
}

/// As [`bicubic_up`], but with a = -0.75: PyTorch's `interpolate`.
pub fn torch_bicubic_up(
    low: &[f32],
    held: Rect,
    size: (usize, usize),
    channels: usize,
    scale: usize,
    wanted: Rect,
) -> Result<Vec<f32>> {
    up(Filter::Cubic(-0.75), low, held, (size, channels, scale), wanted)
}

/// As [`bicubic_up`], but linear between the centres of pixels.
pub fn bilinear_up(
    low: &[f32],
    held: Rect,
    size: (usize, usize),
    channels: usize,
    scale: usize,
    wanted: Rect,
) -> Result<Vec<f32>> {
    up(Filter::Linear, low, held, (size, channels, scale), wanted)
}

/// What lies between the centres of pixels.
#[derive(Clone, Copy)]
enum Filter {
    /// A cubic with this a.
    Cubic(f64),
    Linear,
}

fn up(
    filter: Filter,
    low: &[f32],
    held: Rect,
    (size, channels, scale): ((usize, usize), usize, usize),
    wanted: Rect,
) -> Result<Vec<f32>> {
    let from = Shape::new(held.height, held.width, channels);
    from.check("bicubic_up", low.len())?;
    let (width, height) = size;
    if scale == 0 || !Rect::whole(width, height).scaled(scale).contains(&wanted) {
        return Err(Error::shape(
            "bicubic_up",
            format!("a region inside {scale} x {width}x{height}"),
            &[wanted.x, wanted.y, wanted.width, wanted.height],
        ));
    }
    if wanted.area() == 0 {
        return Ok(Vec::new());
    }
    let needed = bicubic_footprint(wanted, size, scale);
    if !held.contains(&needed) {
        return Err(Error::shape(
            "bicubic_up",
            format!("{needed:?} of the low-resolution image"),
            &[held.x, held.y, held.width, held.height],
        ));
    }
    let rows = PhaseTaps::new(filter, wanted.y, wanted.height, [held.y, height], scale);
    let columns = PhaseTaps::new(filter, wanted.x, wanted.width, [held.x, width], scale);
    let stride = held.width * channels;
    let mut out = vec![0.0; wanted.area() * channels];
    pieces_with(
        &mut out,
        wanted.width * channels,
        || vec![0.0; stride],
        |y, out, mixed| {
            let w = rows.weights[y];
            let [a, b, c, d] = rows.index[y].map(|i| &low[i * stride..][..stride]);
            for (i, m) in mixed.iter_mut().enumerate() {
                *m = (a[i] * w[0] + b[i] * w[1]) + (c[i] * w[2] + d[i] * w[3]);
            }
            for (x, pixel) in out.chunks_exact_mut(channels).enumerate() {
                let w = columns.weights[x];
                let at = |i: usize| &mixed[columns.index[x][i] * channels..][..channels];
                let (a, b, c, d) = (at(0), at(1), at(2), at(3));
                for (k, value) in pixel.iter_mut().enumerate() {
                    *value = (a[k] * w[0] + b[k] * w[1]) + (c[k] * w[2] + d[k] * w[3]);
                }
            }
        },
    );
    Ok(out)
}

/// The part of an image of `size` (width, height) that [`bicubic_up`] reads for `wanted`.
pub fn bicubic_footprint(wanted: Rect, size: (usize, usize), scale: usize) -> Rect {
    let side = |start: usize, len: usize, size: usize| {
        let first = (start / scale).saturating_sub(2);
        let last = ((start + len).div_ceil(scale) + 2).min(size);
        (first, last - first)
    };
    let (x, width) = side(wanted.x, wanted.width, size.0);
    let (y, height) = side(wanted.y, wanted.height, size.1);
    Rect::new(x, y, width, height)
}

/// Four clamped taps for each of a run of outputs, relative to the first sample held.
struct PhaseTaps {
    index: Vec<[usize; 4]>,
    weights: Vec<[f32; 4]>,
}

impl PhaseTaps {
    #[expect(clippy::cast_possible_truncation, reason = "weights are stored as f32")]
    fn new(
        filter: Filter,
        start: usize,
        len: usize,
        [held, size]: [usize; 2],
        scale: usize,
    ) -> Self {
        let (mut index, mut weights) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for o in start..start + len {
            // The phase alone decides the weights: the position in the image must not change a bit.
            let offset = (real(o % scale) + 0.5) / real(scale) - 0.5;
            let below = floor(offset);
            let t = offset - signed_real(below);
            let base = signed(o / scale) + below;
            index.push([-1, 0, 1, 2].map(|k| clamp(base + k, size) - held));
            let weight = |k: f64| match filter {
                Filter::Cubic(a) => cubic(t - k, a),
                Filter::Linear => (1.0 - (t - k).abs()).max(0.0),
            };
            weights.push([-1.0, 0.0, 1.0, 2.0].map(|k| weight(k) as f32));
        }
        Self { index, weights }
    }
}

#[cfg(test)]
mod tests {
    use super::super::originals::{both_passes, matlab_taps};
    use super::*;

    fn ramp(len: usize) -> Vec<f32> {
        (0..len).map(|i| single((real(i) * 0.618_034).fract())).collect()
    }

    #[expect(clippy::cast_possible_truncation, reason = "test data")]
    fn single(v: f64) -> f32 {
        v as f32
    }

    #[test]
    fn bicubic_up_of_a_part_equals_the_whole_bit_for_bit() {
        for (width, height, scale) in [(1, 1, 4), (2, 3, 4), (9, 7, 4), (6, 5, 2), (5, 4, 3)] {
            let low = ramp(width * height * 3);
            let all = Rect::whole(width, height);
            let size = (width, height);
            let whole = bicubic_up(&low, all, size, 3, scale, all.scaled(scale)).unwrap();
            for y in 0..height * scale {
                for x in 0..width * scale {
                    let wanted = Rect::new(x, y, (width * scale - x).min(5), 1);
                    let held = bicubic_footprint(wanted, size, scale);
                    let mut part = Vec::new();
                    for row in held.y..held.bottom() {
                        let start = (row * width + held.x) * 3;
                        part.extend_from_slice(&low[start..start + held.width * 3]);
                    }
                    let got = bicubic_up(&part, held, size, 3, scale, wanted).unwrap();
                    let start = (y * width * scale + x) * 3;
                    assert_eq!(got, whole[start..start + wanted.width * 3], "{wanted:?}");
                }
            }
        }
    }

    #[test]
    fn torch_bicubic_up_is_the_resampler_of_that_name() {
        let (width, height) = (7, 6);
        let low = ramp(width * height);
        let all = Rect::whole(width, height);
        let got = torch_bicubic_up(&low, all, (width, height), 1, 4, all.scaled(4)).unwrap();
        let shape = Shape::new(height, width, 1);
        let want = super::super::torch_bicubic(&low, shape, height * 4, width * 4).unwrap();
        for (got, want) in got.iter().zip(&want) {
            assert!((got - want).abs() < 1e-5, "{got} {want}");
        }
    }

    #[test]
    fn bicubic_up_is_the_clamped_matlab_kernel_and_refuses_missing_pixels() {
        let (width, height) = (7, 6);
        let low = ramp(width * height);
        let all = Rect::whole(width, height);
        let got = bicubic_up(&low, all, (width, height), 1, 4, all.scaled(4)).unwrap();
        let rows = matlab_taps(height, height * 4, 4.0, clamp);
        let columns = matlab_taps(width, width * 4, 4.0, clamp);
        let shape = Shape::new(height, width, 1);
        let want = both_passes(&low, shape, &rows, &columns);
        for (g, w) in got.iter().zip(&want) {
            assert!((g - w).abs() < 1e-6, "{g} {w}");
        }
        let linear = bilinear_up(&[0.0, 1.0], Rect::whole(2, 1), (2, 1), 1, 4, Rect::whole(8, 1));
        assert_eq!(linear.unwrap(), [0.0, 0.0, 0.125, 0.375, 0.625, 0.875, 1.0, 1.0]);
        let part = Rect::new(0, 0, 2, 6);
        assert!(bicubic_up(&low[..12], part, (width, height), 1, 4, all.scaled(4)).is_err());
        assert!(bicubic_up(&low, all, (width, height), 1, 4, Rect::new(0, 0, 29, 1)).is_err());
    }
}
