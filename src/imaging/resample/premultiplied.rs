//! Resizing colours under transparency, strip by strip.
//!
//! ```text
//! A, P    Lanczos3 of alpha and of colour times alpha, in f32
//! colour  P / A: a transparent pixel has no say in what is seen
//! alpha   A, held between the least and the greatest sample within one output pixel (at least one
//!         input pixel) of the place: no ringing beside hard edges
//! ```
use std::ops::Range;

use super::Shape;
use super::lanczos::Lanczos;
use super::separable::{Axis, Float, Taps, pass, real, whole};
use crate::error::{Error, Result};
use crate::imaging::{Image, Rect, Samples, quantise, quantise_u8};

/// Output rows made at once: bounds the memory for floats, and as it is always the same the bits of the
/// output do not depend on how the input came.
const ROWS: usize = 64;

/// Below this, alpha is that of no pixel of 16 bits: the colour is then the nearest input pixel's.
const NOTHING: f32 = 1.0 / 131_072.0;

/// An image with alpha that is being resized, its rows given from the top.
pub struct Premultiplied {
    columns: Side,
    rows: Side,
    /// Rows `first..` of the input, those that are still needed.
    held: Image,
    first: usize,
    /// Output rows made so far.
    made: usize,
}

impl Premultiplied {
    /// The part `part` of images like `like` of the size `from` (width, height), as `to` pixels. Near the
    /// sides of the part the filter sees what lies beyond.
    ///
    /// # Errors
    /// If there is no alpha, a side is 0 or the part does not lie inside.
    pub fn new(like: &Image, from: (usize, usize), part: Rect, to: (usize, usize)) -> Result<Self> {
        let inside = part.area() > 0 && Rect::whole(from.0, from.1).contains(&part);
        if !inside || to.0 == 0 || to.1 == 0 || like.alpha.is_none() {
            let sides = [part.width, part.height, to.0, to.1];
            return Err(Error::shape("resize", "parts of at least 1x1 with alpha", &sides));
        }
        let mut held = Image::new(from.0, 0, like.color, like.depth());
        held.alpha = Some(Samples::zeros(like.depth(), 0));
        let columns = Side::new(part.x, part.width, from.0, to.0);
        let rows = Side::new(part.y, part.height, from.1, to.1);
        Ok(Self { columns, rows, held, first: 0, made: 0 })
    }

    /// Takes the next rows of the input.
    ///
    /// # Errors
    /// If they are of another width, colour or depth, or have no alpha.
    pub fn give(&mut self, strip: &Image) -> Result<()> {
        let same =
            |a: &Image, b: &Image| (a.width, a.color, a.depth()) == (b.width, b.color, b.depth());
        let (Some(held), Some(alpha)) = (&mut self.held.alpha, &strip.alpha) else {
            return Err(Error::shape("resize", "strips with alpha", &[strip.height]));
        };
        held.append(alpha);
        if !same(&self.held, strip) {
            let sides = [strip.width, strip.channels()];
            return Err(Error::shape("resize", "strips like the first", &sides));
        }
        self.held.samples.append(&strip.samples);
        self.held.height += strip.height;
        Ok(())
    }

    /// The next rows of the output, or none while rows of the input are missing or all are made.
    ///
    /// # Errors
    /// If the resizer fails.
    pub fn take(&mut self) -> Result<Option<Image>> {
        let outputs = self.made..(self.made + ROWS).min(self.rows.outputs);
        let needed = self.rows.needed(&outputs);
        if outputs.is_empty() || needed.end > self.first + self.held.height {
            return Ok(None);
        }
        self.forget(needed.start)?;
        let band = Band::new(&self.held, needed.len(), outputs, self.first);
        let values = band.resized(&self.columns, &self.rows);
        let bounds = band.bounds(&self.columns, &self.rows);
        let (width, height) = (self.columns.outputs, band.outputs.len());
        let mut out = Image::new(width, height, self.held.color, self.held.depth());
        let mut alpha = Samples::zeros(out.depth(), width * height);
        for (i, (pixel, bounds)) in values.chunks_exact(band.channels).zip(bounds).enumerate() {
            let y = self.rows.nearest(self.made + i / width) - self.first;
            let at = y * self.held.width + self.columns.nearest(i % width);
            let (color, a) = straight(&self.held, pixel, bounds, at);
            put(&mut alpha, i, a);
            let channels = out.channels();
            (0..channels).for_each(|c| put(&mut out.samples, i * channels + c, color[c]));
        }
        out.alpha = Some(alpha);
        self.made += height;
        Ok(Some(out))
    }

    /// Drops the rows before `first`.
    fn forget(&mut self, first: usize) -> Result<()> {
        let gone = first.saturating_sub(self.first);
        if gone > 0 {
            let left = Rect::new(0, gone, self.held.width, self.held.height - gone);
            self.held = self.held.crop(left)?;
            self.first += gone;
        }
        Ok(())
    }
}

/// The part `part` of an image that has alpha, as `to` (width, height) pixels.
pub(super) fn resize(image: &Image, part: Rect, to: (usize, usize)) -> Result<Image> {
    let mut strips = Premultiplied::new(image, (image.width, image.height), part, to)?;
    strips.give(image)?;
    let mut out = Image::new(to.0, 0, image.color, image.depth());
    let mut all = Samples::zeros(image.depth(), 0);
    while let Some(strip) = strips.take()? {
        out.samples.append(&strip.samples);
        strip.alpha.iter().for_each(|alpha| all.append(alpha));
        out.height += strip.height;
    }
    out.alpha = Some(all);
    out.metadata = image.metadata.clone();
    Ok(out)
}

/// Colour and alpha of an output pixel in [0, 1]; `nearest` is the input pixel it lies on.
fn straight(
    image: &Image,
    pixel: &[f32],
    [least, most]: [f32; 2],
    nearest: usize,
) -> ([f32; 3], f32) {
    let channels = image.channels();
    let a = pixel[channels];
    let alpha = a.clamp(least, most);
    let color = |c: usize| match c < channels {
        true if a > NOTHING && alpha > 0.0 => pixel[c] / a,
        true => image.samples.unit(nearest * channels + c),
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

    /// The inputs that outputs need: three lobes of the filter, which shrinking stretches.
    fn needed(&self, outputs: &Range<usize>) -> Range<usize> {
        let reach = 3.0 * self.scale.max(1.0) + 2.0;
        let last = outputs.end.saturating_sub(1);
        let (first, end) = (self.center(outputs.start) - reach, self.center(last) + reach);
        whole(first)..whole(end).min(self.size)
    }

    /// The samples whose centres are nearer to output `o` than one output or input pixel.
    fn around(&self, o: usize) -> Range<usize> {
        let reach = self.scale.max(1.0);
        let first = whole((self.center(o) - reach + 0.5).floor()).min(self.size - 1);
        let last = whole((self.center(o) + reach - 0.5).ceil()).clamp(first + 1, self.size);
        first..last
    }
}

/// Some output rows, and the input rows that they are made of, premultiplied.
struct Band {
    outputs: Range<usize>,
    /// The first input row held.
    first: usize,
    held: usize,
    width: usize,
    /// Colours and alpha: 2 or 4.
    channels: usize,
    values: Vec<f32>,
}

impl Band {
    /// Of the first `held` rows of `image`, which are those from `first` on.
    fn new(image: &Image, held: usize, outputs: Range<usize>, first: usize) -> Self {
        let channels = image.channels() + 1;
        let mut values = Vec::with_capacity(held * image.width * channels);
        for i in 0..held * image.width {
            let a = image.alpha.as_ref().map_or(1.0, |a| a.unit(i));
            let colors = (i * (channels - 1)..).take(channels - 1);
            values.extend(colors.map(|c| image.samples.unit(c) * a));
            values.push(a);
        }
        Self { outputs, first, held, width: image.width, channels, values }
    }

    /// `[rows, width, C + 1]`.
    fn resized(&self, columns: &Side, rows: &Side) -> Vec<f32> {
        let (width, height) = (columns.outputs, self.outputs.len());
        let top = rows.start + real(self.outputs.start) * rows.scale - real(self.first);
        let tall = (real(height) * rows.scale).min(real(self.held) - top);
        let wide = (real(width) * columns.scale).min(real(self.width) - columns.start);
        let down = taps(&Lanczos::of_part((top, tall), self.held, height));
        let across = taps(&Lanczos::of_part((columns.start, wide), self.width, width));
        let from = Shape { height: self.held, width: self.width, channels: self.channels };
        let lower = pass::<Float>(&self.values, from, Axis::Height, &down);
        pass::<Float>(&lower, Shape { height, ..from }, Axis::Width, &across)
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
            let least_and_most = |x: usize| near.iter().map(|row| row[x]).fold(none, widest);
            out.extend((0..columns.outputs).map(least_and_most));
        }
        out
    }
}

fn taps(axis: &Lanczos) -> Taps<f64> {
    Taps::new((0..axis.outputs()).map(|o| {
        let (first, weights) = axis.weights(o);
        (first..).zip(weights).collect()
    }))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)] // Test data.
mod tests {
    use super::*;
    use crate::imaging::Color;

    fn disc(hidden: u8) -> Image {
        let inside = |i: usize| (i % 40).abs_diff(20).pow(2) + (i / 40).abs_diff(15).pow(2) < 100;
        let samples = (0..40 * 30).flat_map(|i| if inside(i) { [210, 60, 9] } else { [hidden; 3] });
        let mut image = Image::from_u8(40, 30, Color::Rgb, samples.collect()).unwrap();
        image.alpha = Some(Samples::U8((0..1200).map(|i| u8::from(inside(i)) * 255).collect()));
        image
    }

    #[test]
    fn hidden_colours_have_no_say_and_edges_no_ringing() {
        for to in [(30, 23), (20, 15), (61, 44), (11, 7)] {
            let seen = |hidden: u8| -> Vec<u8> {
                let out = resize(&disc(hidden), Rect::whole(40, 30), to).unwrap();
                let (Samples::U8(s), Some(Samples::U8(a))) = (out.samples, out.alpha) else {
                    panic!()
                };
                let far = |i: usize| {
                    let x = (i % to.0) as f32 / to.0 as f32 * 40.0 - 20.0;
                    let y = (i / to.0) as f32 / to.1 as f32 * 30.0 - 15.0;
                    x.hypot(y)
                };
                let reach = 2.5 + 1.5 * (40.0 / to.0 as f32).max(1.0);
                for (i, &a) in a.iter().enumerate() {
                    assert!(far(i) < 10.0 + reach || a == 0, "{to:?}: {a} at {i}");
                    assert!(far(i) > 10.0 - reach || a == 255, "{to:?}: {a} at {i}");
                }
                let over = |i: usize| (u32::from(s[i]) * u32::from(a[i / 3]) / 255) as u8;
                (0..s.len()).map(over).collect()
            };
            let (black, white) = (seen(0), seen(255));
            assert_eq!(black, white, "{to:?}");
            assert_eq!(*black.iter().step_by(3).max().unwrap(), 210, "{to:?}");
        }
    }

    #[test]
    fn strips_of_any_height_give_the_same() {
        let image = disc(7);
        let to = (50, 150);
        let whole = resize(&image, Rect::whole(40, 30), to).unwrap();
        for rows in [1, 4, 30] {
            let mut strips = Premultiplied::new(&image, (40, 30), image.rect(), to).unwrap();
            let (mut samples, mut y) = (Samples::zeros(image.depth(), 0), 0);
            while y < 30 {
                let height = rows.min(30 - y);
                strips.give(&image.crop(Rect::new(0, y, 40, height)).unwrap()).unwrap();
                y += height;
                while let Some(strip) = strips.take().unwrap() {
                    samples.append(&strip.samples);
                }
            }
            assert_eq!(samples, whole.samples, "{rows}");
        }
    }
}
