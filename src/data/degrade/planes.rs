//! Images as planes of f32, one a channel, and the linear filters on them.
//!
//! All filters keep the middle of the image in the middle: with `s` = input / output size, output `o` lies
//! at `(o + 1/2) s - 1/2`.
use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::kernels::Kernel;
use crate::data::folder::Rgb8;
use crate::ops::simd::multiversion;

/// How sizes are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The mean of what a pixel covers: by shares of pixels where it antialiases, of all it touches (torch's) where not.
    Area,
    /// A triangle.
    Bilinear,
    /// A cubic: a = -0.5 where it antialiases, -0.75 (torch's) where not.
    Bicubic,
    /// Lanczos' with three lobes; always antialiased.
    Lanczos,
}

/// Planes of an image in `0..=255`, not rounded.
#[derive(Clone, Debug)]
pub struct Planes {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Each `[height, width]`.
    pub planes: Vec<Vec<f32>>,
}

impl Planes {
    /// The three planes of an image.
    pub fn of(image: &Rgb8) -> Self {
        let (pixels, _) = image.pixels.as_chunks::<3>();
        let plane = |c: usize| pixels.iter().map(|p| f32::from(p[c])).collect();
        Self { width: image.width, height: image.height, planes: (0..3).map(plane).collect() }
    }

    /// The first three planes as 8 bits, rounded and clamped.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // The cast saturates.
    pub fn to_rgb(&self) -> Rgb8 {
        let mut pixels = vec![0; self.width * self.height * 3];
        for (c, plane) in self.planes.iter().take(3).enumerate() {
            let out = pixels.iter_mut().skip(c).step_by(3);
            out.zip(plane).for_each(|(out, &v)| *out = (v + 0.5) as u8);
        }
        Rgb8 { width: self.width, height: self.height, pixels }
    }

    /// Replaces the first three planes.
    pub fn set_rgb(&mut self, image: &Rgb8) {
        let new = Self::of(image);
        self.planes.splice(..3, new.planes);
    }

    /// Filters every plane; beyond the edge lies its mirror image, the edge itself not repeated.
    pub fn blur(&mut self, kernel: &Kernel) {
        for plane in &mut self.planes {
            *plane = filtered(plane, (self.width, self.height), kernel);
        }
    }

    /// The planes at another size; `antialias` widens the kernel where it shrinks. With them the mean
    /// second moment of the kernel in pixels of before, squared (negative lobes may make it negative).
    pub fn resized(
        &self,
        (width, height): (usize, usize),
        mode: Mode,
        antialias: bool,
    ) -> (Self, f64) {
        let rows = Taps::new(self.height, height, mode, antialias);
        let columns = Taps::new(self.width, width, mode, antialias);
        let resize =
            |plane: &Vec<f32>| across(&down(plane, self.width, &rows), self.width, &columns);
        let planes = self.planes.iter().map(resize).collect();
        (Self { width, height, planes }, 0.5 * (rows.variance + columns.variance))
    }

    /// The part of `width` x `height` whose top left pixel is `(x, y)`.
    pub fn cut(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let row = |plane: &Vec<f32>, r: usize| plane[(y + r) * self.width + x..][..width].to_vec();
        let cut = |plane: &Vec<f32>| (0..height).flat_map(|r| row(plane, r)).collect();
        Self { width, height, planes: self.planes.iter().map(cut).collect() }
    }

    /// The same with `left` columns and `top` rows more, mirrored.
    pub fn padded(&self, left: usize, top: usize) -> Self {
        let (width, height) = (self.width + left, self.height + top);
        let pad = |plane: &Vec<f32>| {
            let size = (self.width, self.height);
            (0..height).flat_map(|y| mirrored_row(plane, size, y, [left, top], width)).collect()
        };
        Self { width, height, planes: self.planes.iter().map(pad).collect() }
    }
}

/// Row `y` of the plane with `margins` columns and rows of its mirror image before it.
fn mirrored_row(
    plane: &[f32],
    (columns, rows): (usize, usize),
    y: usize,
    [left, top]: [usize; 2],
    width: usize,
) -> Vec<f32> {
    let from = &plane[mirror(y, top, rows) * columns..][..columns];
    let mut row = Vec::with_capacity(width);
    row.extend((0..left).map(|x| from[mirror(x, left, columns)]));
    row.extend_from_slice(from);
    row.extend((left + columns..width).map(|x| from[mirror(x, left, columns)]));
    row
}

/// Index `i - margin` mirrored at both ends of `0..len`, which are not repeated: ... 2 1 0 1 2 ...
fn mirror(i: usize, margin: usize, len: usize) -> usize {
    let period = 2 * (len - 1);
    if period == 0 {
        return 0;
    }
    let at = (i + period * margin - margin) % period;
    at.min(period - at)
}

fn filtered(plane: &[f32], (width, height): (usize, usize), kernel: &Kernel) -> Vec<f32> {
    let (size, radius) = (kernel.size, kernel.size / 2);
    if size <= 1 {
        return plane.to_vec();
    }
    let stride = width + 2 * radius;
    let row = |y| mirrored_row(plane, (width, height), y, [radius, radius], stride);
    let padded: Vec<f32> = (0..height + 2 * radius).flat_map(row).collect();
    let mut out = vec![0.0; width * height];
    if kernel.weights.len() == size * size {
        for (y, out) in out.chunks_exact_mut(width).enumerate() {
            filter_row(out, &padded[y * stride..], stride, &kernel.weights, size);
        }
        return out;
    }
    let mut columns = vec![0.0; stride * height];
    for (y, out) in columns.chunks_exact_mut(stride).enumerate() {
        filter_row(out, &padded[y * stride..], stride, &kernel.weights, 1);
    }
    for (out, row) in out.chunks_exact_mut(width).zip(columns.chunks_exact(stride)) {
        filter_row(out, row, stride, &kernel.weights, size);
    }
    out
}

multiversion! {
    /// `out[x] = sum over i, j of weights[i taps + j] rows[i stride + x + j]`, `j` in `0..taps`. No fused
    /// multiply-add, so that all processors agree.
    fn filter_row<T, FMA>(out: &mut [T], rows: &[T], stride: usize, weights: &[T], taps: usize) {
        const LANES: usize = 32;
        let (chunks, rest) = out.as_chunks_mut::<LANES>();
        let done = chunks.len() * LANES;
        for (n, out) in chunks.iter_mut().enumerate() {
            let mut sums = [T::from_f64(0.0); LANES];
            for (i, weights) in weights.chunks_exact(taps).enumerate() {
                for (j, &w) in weights.iter().enumerate() {
                    let from = &rows[i * stride + n * LANES + j..][..LANES];
                    for (sum, &v) in sums.iter_mut().zip(from) {
                        *sum += w * v;
                    }
                }
            }
            *out = sums;
        }
        for (x, out) in rest.iter_mut().enumerate() {
            let mut sum = T::from_f64(0.0);
            for (i, weights) in weights.chunks_exact(taps).enumerate() {
                let from = &rows[i * stride + done + x..][..taps];
                for (&v, &w) in from.iter().zip(weights) {
                    sum += w * v;
                }
            }
            *out = sum;
        }
    }
}

/// What a resized line adds up.
struct Taps {
    /// For each output, the first input and the weights from there on, which sum to 1.
    terms: Vec<(usize, Vec<f32>)>,
    /// The mean second moment about the outputs' places.
    variance: f64,
}

impl Taps {
    fn new(from: usize, to: usize, mode: Mode, antialias: bool) -> Self {
        let scale = from as f64 / to as f64;
        let terms: Vec<_> = match (mode, antialias) {
            (Mode::Area, false) => (0..to).map(|o| touched(o, from, to)).collect(),
            _ => (0..to).map(|o| taps_of(o, from, scale, mode, antialias)).collect(),
        };
        let moment = |(o, (first, weights)): (usize, &(usize, Vec<f32>))| {
            let from = *first as f64 + 0.5 - (o as f64 + 0.5) * scale;
            let square = |(i, &w): (usize, &f32)| f64::from(w) * (from + i as f64).powi(2);
            weights.iter().enumerate().map(square).sum::<f64>()
        };
        let variance = terms.iter().enumerate().map(moment).sum::<f64>() / to as f64;
        Self { terms, variance }
    }
}

/// Output `o` of torch's adaptive pooling: all inputs that it touches, alike.
fn touched(o: usize, from: usize, to: usize) -> (usize, Vec<f32>) {
    let (first, end) = (o * from / to, ((o + 1) * from).div_ceil(to));
    (first, vec![1.0 / (end - first) as f32; end - first])
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Sizes are far below 2^53.
fn taps_of(o: usize, len: usize, scale: f64, mode: Mode, antialias: bool) -> (usize, Vec<f32>) {
    let center = (o as f64 + 0.5) * scale;
    let stretch = if antialias || mode == Mode::Lanczos { scale.max(1.0) } else { 1.0 };
    let (reach, repeats) = match mode {
        Mode::Area => (0.5 * scale, false),
        Mode::Bilinear => (stretch, !antialias),
        Mode::Bicubic => (2.0 * stretch, !antialias),
        Mode::Lanczos => (3.0 * stretch, false),
    };
    let (first, last) = ((center - reach).floor() as i64, (center + reach).ceil() as i64);
    let end = len as i64 - 1;
    let begin = first.clamp(0, end);
    let mut weights = vec![0.0; (last.clamp(begin + 1, end + 1) - begin) as usize];
    for i in first..last {
        let weight = match mode {
            // How much of the pixel is covered.
            Mode::Area => ((i + 1) as f64).min(center + reach) - (i as f64).max(center - reach),
            Mode::Bilinear => (1.0 - (offset(i, center) / stretch).abs()).max(0.0),
            Mode::Bicubic => {
                cubic(offset(i, center) / stretch, if antialias { -0.5 } else { -0.75 })
            }
            Mode::Lanczos => lanczos(offset(i, center) / stretch),
        };
        // Beyond the edge: its pixel again, or nothing.
        if (0..=end).contains(&i) || repeats {
            weights[(i.clamp(0, end) - begin) as usize] += weight;
        }
    }
    let sum: f64 = weights.iter().sum();
    (begin as usize, weights.iter().map(|w| (w / sum) as f32).collect())
}

/// From `center` to the middle of pixel `i`.
fn offset(i: i64, center: f64) -> f64 {
    i as f64 + 0.5 - center
}

fn cubic(x: f64, a: f64) -> f64 {
    match x.abs() {
        x if x < 1.0 => ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0,
        x if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * a,
        _ => 0.0,
    }
}

fn lanczos(x: f64) -> f64 {
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
    if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 }
}

fn down(plane: &[f32], width: usize, taps: &Taps) -> Vec<f32> {
    let mut out = vec![0.0; width * taps.terms.len()];
    for (out, (first, weights)) in out.chunks_exact_mut(width).zip(&taps.terms) {
        filter_row(out, &plane[first * width..], width, weights, 1);
    }
    out
}

fn across(plane: &[f32], width: usize, taps: &Taps) -> Vec<f32> {
    let mut out = Vec::with_capacity(plane.len() / width * taps.terms.len());
    for row in plane.chunks_exact(width) {
        let sum = |(first, weights): &(usize, Vec<f32>)| -> f32 {
            row[*first..].iter().zip(weights).map(|(v, w)| v * w).sum()
        };
        out.extend(taps.terms.iter().map(sum));
    }
    out
}
