//! Resizing colours under transparency.
//!
//! ```text
//! A, P    Lanczos3 of alpha and of colour times alpha, in f32
//! colour  P / A: a transparent pixel has no say in what is seen
//! alpha   A, held between the least and the greatest sample within one output pixel (at least one
//!         input pixel) of the place: no ringing beside hard edges
//! ```
use fast_image_resize as fir;

use super::resize::{fail, side};
use super::separable::{real, whole};
use crate::error::Result;
use crate::imaging::{Image, Rect, Samples, quantise, quantise_u8};

/// Output rows made at once: bounds the memory for floats.
const ROWS: usize = 64;

/// Below this, alpha is that of no pixel of 16 bits: the colour is then the nearest input pixel's.
const NOTHING: f32 = 1.0 / 131_072.0;

/// The part `from` of an image that has alpha, as `width` x `height` pixels.
pub(super) fn resize(image: &Image, from: Rect, width: usize, height: usize) -> Result<Image> {
    let mut out = Image::new(width, height, image.color, image.depth());
    let mut alpha = Samples::zeros(image.depth(), width * height);
    let columns = Side::new(from.x, from.width, image.width, width);
    let rows = Side::new(from.y, from.height, image.height, height);
    for y in (0..height).step_by(ROWS) {
        let band = Band::new(image, &rows, y..height.min(y + ROWS));
        let values = band.resized(&columns, &rows)?;
        let bounds = band.bounds(&columns, &rows);
        for (i, (pixel, bounds)) in values.chunks_exact(band.channels).zip(bounds).enumerate() {
            let at = y * width + i;
            let nearest = (rows.nearest(at / width), columns.nearest(at % width));
            let (color, a) = straight(image, pixel, bounds, nearest);
            put(&mut alpha, at, a);
            let channels = image.channels();
            (0..channels).for_each(|c| put(&mut out.samples, at * channels + c, color[c]));
        }
    }
    out.alpha = Some(alpha);
    out.metadata = image.metadata.clone();
    Ok(out)
}

/// Colour and alpha of an output pixel in [0, 1].
fn straight(
    image: &Image,
    pixel: &[f32],
    [least, most]: [f32; 2],
    (y, x): (usize, usize),
) -> ([f32; 3], f32) {
    let channels = image.channels();
    let a = pixel[pixel.len() - 1];
    let alpha = a.clamp(least, most);
    let color = |c: usize| match c < channels {
        true if a > NOTHING && alpha > 0.0 => pixel[c] / a,
        true => image.samples.unit((y * image.width + x) * channels + c),
        false => 0.0,
    };
    ([color(0), color(1), color(2)], alpha)
}

fn put(samples: &mut Samples, at: usize, value: f32) {
    match samples {
        Samples::U8(v) => v[at] = quantise_u8(value),
        Samples::U16(v) => v[at] = quantise(value, 65535),
    }
}

/// How outputs lie along one side of the input.
struct Side {
    start: f64,
    scale: f64,
    size: usize,
    outputs: usize,
}

impl Side {
    fn new(start: usize, len: usize, size: usize, outputs: usize) -> Self {
        Self { start: real(start), scale: real(len) / real(outputs), size, outputs }
    }

    /// The centre of output `o`.
    fn center(&self, o: usize) -> f64 {
        self.start + (real(o) + 0.5) * self.scale
    }

    fn nearest(&self, o: usize) -> usize {
        whole(self.center(o)).min(self.size - 1)
    }

    /// The samples whose centres are nearer to output `o` than one output or input pixel.
    fn around(&self, o: usize) -> std::ops::Range<usize> {
        let reach = self.scale.max(1.0);
        let first = whole(self.center(o) - reach + 0.5);
        let last = whole((self.center(o) + reach - 0.5).ceil()).clamp(first + 1, self.size);
        first.min(last - 1)..last
    }
}

/// Some output rows, and the input rows that they are made of, premultiplied.
struct Band {
    outputs: std::ops::Range<usize>,
    /// The first input row held.
    first: usize,
    held: usize,
    width: usize,
    /// Colours and alpha: 2 or 4.
    channels: usize,
    values: Vec<f32>,
}

impl Band {
    fn new(image: &Image, rows: &Side, outputs: std::ops::Range<usize>) -> Self {
        let reach = 3.0 * rows.scale.max(1.0) + 2.0;
        let first = whole(rows.center(outputs.start) - reach);
        let last = whole(rows.center(outputs.end - 1) + reach).min(rows.size);
        let channels = image.channels() + 1;
        let mut values = Vec::with_capacity((last - first) * image.width * channels);
        for i in first * image.width..last * image.width {
            let a = image.alpha.as_ref().map_or(1.0, |a| a.unit(i));
            let colors = (i * (channels - 1)..).take(channels - 1);
            values.extend(colors.map(|c| image.samples.unit(c) * a));
            values.push(a);
        }
        Self { outputs, first, held: last - first, width: image.width, channels, values }
    }

    /// `[rows, width, C + 1]`.
    fn resized(&self, columns: &Side, rows: &Side) -> Result<Vec<f32>> {
        let pixel = if self.channels == 2 { fir::PixelType::F32x2 } else { fir::PixelType::F32x4 };
        let bytes = bytemuck::cast_slice(&self.values);
        let src = fir::images::ImageRef::new(side(self.width)?, side(self.held)?, bytes, pixel)
            .map_err(|e| fail(e.to_string()))?;
        let (width, height) = (columns.outputs, self.outputs.len());
        let mut out = vec![0.0f32; width * height * self.channels];
        let buffer = bytemuck::cast_slice_mut(&mut out);
        let mut dst = fir::images::Image::from_slice_u8(side(width)?, side(height)?, buffer, pixel)
            .map_err(|e| fail(e.to_string()))?;
        let top = rows.start + real(self.outputs.start) * rows.scale - real(self.first);
        let tall = (real(height) * rows.scale).min(real(self.held) - top);
        let wide = (real(width) * columns.scale).min(real(self.width) - columns.start);
        let options = fir::ResizeOptions::new()
            .resize_alg(fir::ResizeAlg::Convolution(fir::FilterType::Lanczos3))
            .crop(columns.start, top, wide, tall)
            .use_alpha(false);
        fir::Resizer::new().resize(&src, &mut dst, &options).map_err(|e| fail(e.to_string()))?;
        Ok(out)
    }

    /// The least and the greatest alpha around each output pixel.
    fn bounds(&self, columns: &Side, rows: &Side) -> Vec<[f32; 2]> {
        let widest = |a: [f32; 2], b: [f32; 2]| [a[0].min(b[0]), a[1].max(b[1])];
        let none = [f32::INFINITY, 0.0];
        let alpha = |y: usize, x: usize| {
            let a = self.values[(y * self.width + x) * self.channels + self.channels - 1];
            [a, a]
        };
        let row = |y: usize| -> Vec<[f32; 2]> {
            let each = |o| columns.around(o).map(|x| alpha(y, x)).fold(none, widest);
            (0..columns.outputs).map(each).collect()
        };
        let held: Vec<Vec<[f32; 2]>> = (0..self.held).map(row).collect();
        let mut out = Vec::with_capacity(self.outputs.len() * columns.outputs);
        for y in self.outputs.clone() {
            let near = rows.around(y);
            let near = &held[near.start - self.first..near.end - self.first];
            out.extend(
                (0..columns.outputs).map(|x| near.iter().map(|r| r[x]).fold(none, widest)),
            );
        }
        out
    }
}
