//! Resampling as Pillow, PyTorch and MATLAB do it.
use super::super::{Depth, Image, Samples};
use super::separable::{
    Axis, Fixed, Float, PRECISION_BITS, Rounded, Taps, clamp, floor, mirror, pass, real, signed,
    signed_real, whole,
};
use super::shape::Shape;
use crate::error::Result;

/// Interpolation kernels of [`pillow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Triangle of support 1.
    Bilinear,
    /// Cubic with a = -0.5, support 2.
    Bicubic,
    /// [`Bilinear`](Self::Bilinear) as Pillow had it up to version 12.
    Bilinear12,
    /// [`Bicubic`](Self::Bicubic) as Pillow had it up to version 12.
    Bicubic12,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear | Self::Bilinear12 => 1.0,
            Self::Bicubic | Self::Bicubic12 => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Bilinear | Self::Bilinear12 => (1.0 - x.abs()).max(0.0),
            Self::Bicubic | Self::Bicubic12 => cubic(x, -0.5),
        }
    }

    /// Whether rows are made before columns.
    fn rows_first(self, from: Shape, to: Shape) -> bool {
        let old = matches!(self, Self::Bilinear12 | Self::Bicubic12);
        let [w, h] = [(from.width, to.width), (from.height, to.height)]
            .map(|(from, to)| signed(from) - signed(to));
        !old && h > 0 && w.saturating_mul(2) < h
    }
}

pub(super) fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// Resizes 8-bit samples to `height` x `width` as Pillow's `Image.resize` does, bit for bit: that of version
/// 13, or of 12 where the filter says so. They differ in the order of the passes, each of which rounds to 8
/// bits: 13 makes the rows first where the height shrinks and 2 (W - w) < H - h, 12 never does.
pub fn pillow(
    src: &[u8],
    from: Shape,
    height: usize,
    width: usize,
    filter: Filter,
) -> Result<Vec<u8>> {
    from.check("pillow", src.len())?;
    let to = from.resized("pillow", height, width)?;
    let (mut out, mut shape) = (src.to_vec(), from);
    let axes = if filter.rows_first(from, to) {
        [Axis::Height, Axis::Width]
    } else {
        [Axis::Width, Axis::Height]
    };
    for axis in axes {
        let (taps, next) = match axis {
            Axis::Width if width != from.width => {
                (pillow_taps(from.width, width, filter), Shape { width, ..shape })
            }
            Axis::Height if height != from.height => {
                (pillow_taps(from.height, height, filter), Shape { height, ..shape })
            }
            _ => continue,
        };
        out = pass::<Fixed>(&out, shape, axis, &taps);
        shape = next;
    }
    Ok(out)
}

#[expect(clippy::cast_possible_truncation, reason = "weights are within 2 in magnitude")]
fn pillow_taps(from: usize, to: usize, filter: Filter) -> Taps<i32> {
    let scale = real(from) / real(to);
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let one = f64::from(1u32 << PRECISION_BITS);
    Taps::new((0..to).map(|o| {
        let center = (real(o) + 0.5) * scale;
        let first = whole(center - support + 0.5);
        let last = whole(center + support + 0.5).min(from);
        let weights: Vec<f64> =
            (first..last).map(|i| filter.at((real(i) - center + 0.5) * (1.0 / stretch))).collect();
        let sum: f64 = weights.iter().sum();
        let fixed = |w: f64| {
            let w = w / sum * one;
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
        };
        (first..last).zip(weights.into_iter().map(fixed)).collect()
    }))
}

/// Resizes to `height` x `width` as torch `interpolate(mode="bicubic", align_corners=False)` does.
pub fn torch_bicubic(src: &[f32], from: Shape, height: usize, width: usize) -> Result<Vec<f32>> {
    from.check("torch_bicubic", src.len())?;
    from.resized("torch_bicubic", height, width)?;
    let taps = |from: usize, to: usize| {
        let scale = real(from) / real(to);
        cubic_taps(from, to, |o| (real(o) + 0.5) * scale - 0.5, -0.75)
    };
    Ok(both_passes(src, from, &taps(from.height, height), &taps(from.width, width)))
}

/// Resizes by `scale` as MATLAB `imresize(..., 'bicubic')` does on floats: antialiased when it
/// shrinks, mirrored edges, not rounded, not clamped; each side becomes `ceil(side * scale)`.
pub fn matlab(src: &[f32], from: Shape, scale: f64) -> Result<(Vec<f32>, Shape)> {
    from.check("matlab", src.len())?;
    let to = from.scaled("matlab", scale, f64::ceil)?;
    let rows = matlab_taps(from.height, to.height, scale, mirror);
    let columns = matlab_taps(from.width, to.width, scale, mirror);
    Ok((both_passes(src, from, &rows, &columns), to))
}

/// Resizes 8-bit samples by `scale` as the MATLAB of 2014 did, which made the published LR images:
/// height first, rounded half up and clipped to 8 bits after each pass, clamped edges.
pub fn matlab_8bit(src: &[u8], from: Shape, scale: f64) -> Result<(Vec<u8>, Shape)> {
    from.check("matlab_8bit", src.len())?;
    let to = from.scaled("matlab_8bit", scale, f64::ceil)?;
    let rows = matlab_taps(from.height, to.height, scale, clamp);
    let columns = matlab_taps(from.width, to.width, scale, clamp);
    let middle = Shape { height: to.height, ..from };
    let out = pass::<Rounded>(src, from, Axis::Height, &rows);
    Ok((pass::<Rounded>(&out, middle, Axis::Width, &columns), to))
}

/// [`matlab_8bit`] of an image: the LR that papers use. 16-bit samples are reduced to 8 first.
pub fn matlab_8bit_image(image: &Image, scale: f64) -> Result<Image> {
    let image = image.clone().to_depth(Depth::Eight);
    let Samples::U8(samples) = &image.samples else {
        unreachable!("to_depth made it 8 bits");
    };
    let from = Shape::new(image.height, image.width, image.channels());
    let (out, to) = matlab_8bit(samples, from, scale)?;
    Image::from_u8(to.width, to.height, image.color, out)
}

pub(super) fn matlab_taps(
    from: usize,
    to: usize,
    scale: f64,
    edge: fn(i64, usize) -> usize,
) -> Taps<f64> {
    // Shrinking stretches the kernel by 1/scale, which is the antialias.
    let shrink = scale.min(1.0);
    let width = 4.0 / shrink;
    let count = signed(whole(width.ceil())) + 2;
    Taps::new((0..to).map(|o| {
        let center = (real(o) + 0.5) / scale - 0.5;
        let left = floor(center - width / 2.0);
        let terms = (left..left + count)
            .map(|i| (edge(i, from), shrink * cubic(shrink * (center - signed_real(i)), -0.5)));
        let terms: Vec<_> = terms.filter(|&(_, w)| w != 0.0).collect();
        let sum: f64 = terms.iter().map(|&(_, w)| w).sum();
        terms.into_iter().map(|(i, w)| (i, w / sum)).collect()
    }))
}

fn cubic_taps(from: usize, to: usize, position: impl Fn(usize) -> f64, a: f64) -> Taps<f64> {
    Taps::new((0..to).map(|o| {
        let u = position(o);
        let below = floor(u);
        let t = u - signed_real(below);
        (-1..=2).map(|k| (clamp(below + k, from), cubic(t - signed_real(k), a))).collect()
    }))
}

/// Height then width, on floats.
pub(super) fn both_passes(
    src: &[f32],
    from: Shape,
    rows: &Taps<f64>,
    columns: &Taps<f64>,
) -> Vec<f32> {
    let middle = Shape { height: rows.outputs(), ..from };
    let out = pass::<Float>(src, from, Axis::Height, rows);
    pass::<Float>(&out, middle, Axis::Width, columns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_shapes_are_errors() {
        assert!(pillow(&[0; 5], Shape::new(2, 3, 1), 4, 4, Filter::Bicubic).is_err());
        assert!(pillow(&[0; 6], Shape::new(2, 3, 1), 0, 4, Filter::Bicubic).is_err());
        assert!(torch_bicubic(&[], Shape::new(0, 3, 1), 4, 4).is_err());
        assert!(matlab(&[], Shape::new(0, 0, 3), 0.5).is_err());
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert!(matlab(&[0.0; 6], Shape::new(2, 3, 1), scale).is_err(), "{scale}");
        }
        assert!(pillow(&[0; 6], Shape::new(2, 3, 1), usize::MAX, 9, Filter::Bicubic).is_err());
    }
}
