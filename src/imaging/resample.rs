//! Resampling that reproduces the originals, and resizing to any size.
//!
//! Everything is separable. With `s` = input / output size and output index `o`:
//!
//! ```text
//! source position   u = (o + 1/2) s - 1/2                       (align_corners: o (in-1)/(out-1))
//! cubic             k(x) = (a+2)|x|^3 - (a+3)|x|^2 + 1          |x| <= 1
//!                          a|x|^3 - 5a|x|^2 + 8a|x| - 4a        1 < |x| < 2
//!
//!                a      when shrinking   beyond the edge        rounding
//! pillow         -0.5   support times s  taps dropped           8 bits after each pass, width first
//! torch bicubic  -0.75  4 taps           clamped                none
//! torch bilinear        2 taps           clamped                none
//! matlab         -0.5   support times s  mirrored               none
//! matlab 8-bit   -0.5   support times s  clamped                8 bits after each pass, height first
//! bicubic_up     -0.5   (enlarges only)  clamped                none
//! ```
//! The results do not depend on the number of threads: every output value has its own fixed sum.
use fast_image_resize as fir;
use rayon::prelude::*;

use super::{Image, Rect, Samples};
use crate::error::{Error, Report, Result};

/// The shape `[H, W, C]` of interleaved samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Samples per pixel.
    pub channels: usize,
}

impl Shape {
    /// The shape of `height` rows of `width` pixels.
    pub fn new(height: usize, width: usize, channels: usize) -> Self {
        Self { height, width, channels }
    }

    /// Samples in all.
    pub fn len(self) -> usize {
        self.height * self.width * self.channels
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn check(self, op: &'static str, len: usize) -> Result<()> {
        if self.is_empty() || self.len() != len {
            let expected = format!("{} x {} x {} samples", self.height, self.width, self.channels);
            return Err(Error::shape(op, expected, &[len]));
        }
        Ok(())
    }
}

/// Interpolation kernels of [`pillow`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Triangle of support 1.
    Bilinear,
    /// Cubic with a = -0.5, support 2.
    Bicubic,
}

impl Filter {
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => cubic(x, -0.5),
        }
    }
}

fn cubic(x: f64, a: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// Resizes 8-bit samples to `height` x `width` as Pillow's `Image.resize` does, bit for bit.
pub fn pillow(
    src: &[u8],
    from: Shape,
    height: usize,
    width: usize,
    filter: Filter,
) -> Result<Vec<u8>> {
    from.check("resample pillow", src.len())?;
    let to = Shape { height, width, channels: from.channels };
    to.check("resample pillow", to.len())?;
    let middle = Shape { width, ..from };
    let mut out = src.to_vec();
    if width != from.width {
        out = pass(&out, from, Axis::Width, &pillow_taps(from.width, width, filter), fixed_sum);
    }
    if height != from.height {
        let taps = pillow_taps(from.height, height, filter);
        out = pass(&out, middle, Axis::Height, &taps, fixed_sum);
    }
    Ok(out)
}

/// Fraction bits of Pillow's fixed-point weights: 32 less 8 for the sample and 2 for overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

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

/// Adds in `i32` as Pillow does; the weights sum to about 2^22, so 8-bit samples stay below 2^31.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=255 first"
)]
fn fixed_sum(terms: &mut dyn Iterator<Item = (u8, i32)>) -> u8 {
    let half = 1i32 << (PRECISION_BITS - 1);
    let sum = terms.fold(half, |sum, (s, w)| sum.wrapping_add(i32::from(s) * w));
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Resizes to `height` x `width` as torch `interpolate(mode="bicubic", align_corners=False)` does.
pub fn torch_bicubic(src: &[f32], from: Shape, height: usize, width: usize) -> Result<Vec<f32>> {
    let taps = |from: usize, to: usize| {
        let scale = real(from) / real(to);
        cubic_taps(from, to, |o| (real(o) + 0.5) * scale - 0.5, -0.75)
    };
    both_passes("torch_bicubic", src, from, taps(from.height, height), taps(from.width, width))
}

/// Resizes by `factor` as torch `interpolate(scale_factor=factor, mode="bilinear",
/// align_corners=False)` without antialias does; each side becomes `floor(side * factor)`.
pub fn torch_bilinear(src: &[f32], from: Shape, factor: f64) -> Result<(Vec<f32>, Shape)> {
    let to = Shape {
        height: whole((real(from.height) * factor).floor()),
        width: whole((real(from.width) * factor).floor()),
        channels: from.channels,
    };
    let taps = |from: usize, to: usize| {
        linear_taps(from, to, |o| ((real(o) + 0.5) / factor - 0.5).max(0.0))
    };
    let (rows, columns) = (taps(from.height, to.height), taps(from.width, to.width));
    Ok((both_passes("torch_bilinear", src, from, rows, columns)?, to))
}

/// Resizes to `height` x `width` as torch `interpolate(mode="bilinear", align_corners=True)` does.
pub fn torch_bilinear_aligned(
    src: &[f32],
    from: Shape,
    height: usize,
    width: usize,
) -> Result<Vec<f32>> {
    let taps = |from: usize, to: usize| {
        let scale = if to > 1 { real(from - 1) / real(to - 1) } else { 0.0 };
        linear_taps(from, to, |o| real(o) * scale)
    };
    let (rows, columns) = (taps(from.height, height), taps(from.width, width));
    both_passes("torch_bilinear_aligned", src, from, rows, columns)
}

/// Resizes by `scale` as MATLAB `imresize(..., 'bicubic')` does on floats: antialiased when it
/// shrinks, mirrored edges, not rounded, not clamped; each side becomes `ceil(side * scale)`.
pub fn matlab(src: &[f32], from: Shape, scale: f64) -> Result<(Vec<f32>, Shape)> {
    let to = matlab_shape(from, scale);
    let rows = matlab_taps(from.height, to.height, scale, mirror);
    let columns = matlab_taps(from.width, to.width, scale, mirror);
    Ok((both_passes("matlab", src, from, rows, columns)?, to))
}

/// Resizes 8-bit samples by `scale` as the MATLAB of 2014 did, which made the published LR images:
/// height first, rounded half up and clipped to 8 bits after each pass, clamped edges.
pub fn matlab_8bit(src: &[u8], from: Shape, scale: f64) -> Result<(Vec<u8>, Shape)> {
    from.check("resample matlab_8bit", src.len())?;
    let to = matlab_shape(from, scale);
    to.check("resample matlab_8bit", to.len())?;
    let rows = matlab_taps(from.height, to.height, scale, clamp);
    let columns = matlab_taps(from.width, to.width, scale, clamp);
    let middle = Shape { height: to.height, ..from };
    let out = pass(src, from, Axis::Height, &rows, rounded_sum);
    Ok((pass(&out, middle, Axis::Width, &columns, rounded_sum), to))
}

/// [`matlab_8bit`] of an image: the LR that papers use. 16-bit samples are reduced to 8 first.
pub fn matlab_8bit_image(image: &Image, scale: f64) -> Result<Image> {
    let image = image.clone().to_depth(super::Depth::Eight);
    let Samples::U8(samples) = &image.samples else {
        unreachable!("to_depth made it 8 bits");
    };
    let from = Shape::new(image.height, image.width, image.channels());
    let (out, to) = matlab_8bit(samples, from, scale)?;
    Image::from_u8(to.width, to.height, image.color, out)
}

fn matlab_shape(from: Shape, scale: f64) -> Shape {
    let side = |v: usize| whole((real(v) * scale).ceil());
    Shape { height: side(from.height), width: side(from.width), channels: from.channels }
}

fn matlab_taps(from: usize, to: usize, scale: f64, edge: fn(i64, usize) -> usize) -> Taps<f64> {
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

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=255 first"
)]
fn rounded_sum(terms: &mut dyn Iterator<Item = (u8, f64)>) -> u8 {
    let sum: f64 = terms.map(|(s, w)| f64::from(s) * w).sum();
    (sum + 0.5).floor().clamp(0.0, 255.0) as u8
}

#[expect(clippy::cast_possible_truncation, reason = "f64 is for the sum only")]
fn float_sum(terms: &mut dyn Iterator<Item = (f32, f64)>) -> f32 {
    terms.map(|(s, w)| f64::from(s) * w).sum::<f64>() as f32
}

/// Enlarges `scale` times with the cubic a = -0.5 and clamped edges: the y0 of the models.
///
/// `low` holds the part `held` `[H, W, C]` of a whole image of `size` (width, height); the result is the
/// part `wanted` of the enlarged image, in its coordinates. It is the same, bit for bit, whatever parts
/// are held and wanted. Fails if `held` lacks a pixel that `wanted` needs: see [`bicubic_footprint`].
pub fn bicubic_up(
    low: &[f32],
    held: Rect,
    size: (usize, usize),
    channels: usize,
    scale: usize,
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
    let rows = PhaseTaps::new(wanted.y, wanted.height, held.y, height, scale);
    let columns = PhaseTaps::new(wanted.x, wanted.width, held.x, width, scale);
    let stride = held.width * channels;
    let mut out = vec![0.0; wanted.area() * channels];
    out.par_chunks_mut(wanted.width * channels).enumerate().for_each_init(
        || vec![0.0; stride],
        |mixed, (y, out)| {
            let w = rows.weights[y];
            let [a, b, c, d] = rows.index[y].map(|i| &low[i * stride..][..stride]);
            for (i, m) in mixed.iter_mut().enumerate() {
                *m = (a[i] * w[0] + b[i] * w[1]) + (c[i] * w[2] + d[i] * w[3]);
            }
            for (x, pixel) in out.chunks_exact_mut(channels).enumerate() {
                let w = columns.weights[x];
                let at = columns.index[x].map(|i| i * channels);
                for (k, value) in pixel.iter_mut().enumerate() {
                    *value = (mixed[at[0] + k] * w[0] + mixed[at[1] + k] * w[1])
                        + (mixed[at[2] + k] * w[2] + mixed[at[3] + k] * w[3]);
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
    fn new(start: usize, len: usize, held: usize, size: usize, scale: usize) -> Self {
        let (mut index, mut weights) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for o in start..start + len {
            // The phase alone decides the weights: the position in the image must not change a bit.
            let offset = (real(o % scale) + 0.5) / real(scale) - 0.5;
            let below = floor(offset);
            let t = offset - signed_real(below);
            let base = signed(o / scale) + below;
            index.push([-1, 0, 1, 2].map(|k| clamp(base + k, size) - held));
            weights.push([-1.0, 0.0, 1.0, 2.0].map(|k: f64| cubic(t - k, -0.5) as f32));
        }
        Self { index, weights }
    }
}

/// Resizes an image to `width` x `height` with Lanczos3 (antialiased), keeping depth, colour and
/// metadata. Colours and alpha are resized apart: constant alpha stays constant.
pub fn resize(image: &Image, width: usize, height: usize) -> Result<Image> {
    image.validate()?;
    if width == 0 || height == 0 {
        return Err(Error::shape("resize", "a size of at least 1x1", &[width, height]));
    }
    let channels = image.channels();
    let samples =
        resize_samples(&image.samples, image.width, image.height, channels, width, height)?;
    let alpha = match &image.alpha {
        Some(a) => Some(resize_samples(a, image.width, image.height, 1, width, height)?),
        None => None,
    };
    let metadata = image.metadata.clone();
    Ok(Image { width, height, color: image.color, samples, alpha, metadata })
}

/// Resizes samples of 1 or 3 channels to `width` x `height` with Lanczos3.
pub fn resize_samples(
    samples: &Samples,
    from_width: usize,
    from_height: usize,
    channels: usize,
    width: usize,
    height: usize,
) -> Result<Samples> {
    use fir::PixelType;
    let fail = |e: String| Error::Failed(Report::new("cannot resize the image", e));
    let size = |v: usize| u32::try_from(v).map_err(|e| fail(e.to_string()));
    let pixel = match (samples, channels) {
        (Samples::U8(_), 1) => PixelType::U8,
        (Samples::U8(_), _) => PixelType::U8x3,
        (Samples::U16(_), 1) => PixelType::U16,
        (Samples::U16(_), _) => PixelType::U16x3,
    };
    let bytes: &[u8] = match samples {
        Samples::U8(v) => v,
        Samples::U16(v) => bytemuck::cast_slice(v),
    };
    let src = fir::images::ImageRef::new(size(from_width)?, size(from_height)?, bytes, pixel)
        .map_err(|e| fail(e.to_string()))?;
    let mut out = Samples::zeros(samples.depth(), width * height * channels);
    let buffer: &mut [u8] = match &mut out {
        Samples::U8(v) => v,
        Samples::U16(v) => bytemuck::cast_slice_mut(v),
    };
    let mut dst = fir::images::Image::from_slice_u8(size(width)?, size(height)?, buffer, pixel)
        .map_err(|e| fail(e.to_string()))?;
    let options = fir::ResizeOptions::new()
        .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3))
        .use_alpha(false);
    fir::Resizer::new().resize(&src, &mut dst, &options).map_err(|e| fail(e.to_string()))?;
    Ok(out)
}

/// For each output: the input samples it adds and their weights.
struct Taps<W> {
    terms: Vec<(usize, W)>,
    /// Terms of output `o` are `starts[o]..starts[o + 1]`.
    starts: Vec<usize>,
}

impl<W: Copy> Taps<W> {
    fn new(outputs: impl Iterator<Item = Vec<(usize, W)>>) -> Self {
        let mut taps = Self { terms: Vec::new(), starts: vec![0] };
        for terms in outputs {
            taps.terms.extend(terms);
            taps.starts.push(taps.terms.len());
        }
        taps
    }

    fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    fn of(&self, output: usize) -> &[(usize, W)] {
        &self.terms[self.starts[output]..self.starts[output + 1]]
    }
}

fn cubic_taps(from: usize, to: usize, position: impl Fn(usize) -> f64, a: f64) -> Taps<f64> {
    Taps::new((0..to).map(|o| {
        let u = position(o);
        let below = floor(u);
        let t = u - signed_real(below);
        (-1..=2).map(|k| (clamp(below + k, from), cubic(t - signed_real(k), a))).collect()
    }))
}

fn linear_taps(from: usize, to: usize, position: impl Fn(usize) -> f64) -> Taps<f64> {
    Taps::new((0..to).map(|o| {
        let u = position(o);
        let below = floor(u);
        let t = u - signed_real(below);
        vec![(clamp(below, from), 1.0 - t), (clamp(below + 1, from), t)]
    }))
}

#[derive(Clone, Copy)]
enum Axis {
    Height,
    Width,
}

/// Height then width, on floats.
fn both_passes(
    op: &'static str,
    src: &[f32],
    from: Shape,
    rows: Taps<f64>,
    columns: Taps<f64>,
) -> Result<Vec<f32>> {
    from.check(op, src.len())?;
    let middle = Shape { height: rows.outputs(), ..from };
    let to = Shape { width: columns.outputs(), ..middle };
    to.check(op, to.len())?;
    let out = pass(src, from, Axis::Height, &rows, float_sum);
    Ok(pass(&out, middle, Axis::Width, &columns, float_sum))
}

/// One separable pass: every output value is `sum` of its samples and weights, in order.
fn pass<T, W>(
    src: &[T],
    from: Shape,
    axis: Axis,
    taps: &Taps<W>,
    sum: impl Fn(&mut dyn Iterator<Item = (T, W)>) -> T + Sync,
) -> Vec<T>
where
    T: Copy + Default + Send + Sync,
    W: Copy + Sync,
{
    let to = match axis {
        Axis::Height => Shape { height: taps.outputs(), ..from },
        Axis::Width => Shape { width: taps.outputs(), ..from },
    };
    let channels = from.channels;
    let stride = from.width * channels;
    let mut out = vec![T::default(); to.len()];
    out.par_chunks_mut(to.width * channels).enumerate().for_each(|(y, out)| match axis {
        Axis::Height => {
            let terms = taps.of(y);
            for (i, value) in out.iter_mut().enumerate() {
                *value = sum(&mut terms.iter().map(|&(row, w)| (src[row * stride + i], w)));
            }
        }
        Axis::Width => {
            let row = &src[y * stride..][..stride];
            for (i, value) in out.iter_mut().enumerate() {
                let (x, c) = (i / channels, i % channels);
                let terms = taps.of(x).iter();
                *value = sum(&mut terms.map(|&(column, w)| (row[column * channels + c], w)));
            }
        }
    });
    out
}

/// Index `i` held inside `0..len`.
fn clamp(i: i64, len: usize) -> usize {
    usize::try_from(i).unwrap_or(0).min(len - 1)
}

/// Index `i` mirrored at both edges, the edge sample repeated: ... 1 0 | 0 1 2 ...
fn mirror(i: i64, len: usize) -> usize {
    let period = 2 * signed(len);
    let i = i.rem_euclid(period);
    clamp(i.min(period - 1 - i), len)
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn real(v: usize) -> f64 {
    v as f64
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^53")]
fn signed_real(v: i64) -> f64 {
    v as f64
}

fn signed(v: usize) -> i64 {
    i64::try_from(v).unwrap_or(i64::MAX)
}

/// `v` truncated; negative is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn whole(v: f64) -> usize {
    v as usize
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn floor(v: f64) -> i64 {
    v.floor() as i64
}
