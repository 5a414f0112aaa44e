//! Textures that tile: the left edge sees the right one, the upper the lower.
//!
//! The image is continued periodically as far as the network sees over all steps, the noise repeats itself with it,
//! and what the middle becomes is handed on:
//!
//! ```text
//! |   margin   | 0 ........ W-1 |   margin   |      network
//!              | 0 ........ W-1 |                   result
//! ```
//! so that the network saw, and drew, beside W-1 what it saw of 0 and what lies behind it. Tiles stay exact.
use super::bands::Sink;
use super::{Plan, Report, Upscaler, WIDEST_HALO, part_in_strips};
use crate::error::Result;
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect, Samples, resample};
use crate::ops::noise::Period;

/// Which sides of an image continue at the opposite side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wrap {
    /// Left and right.
    pub x: bool,
    /// Above and below.
    pub y: bool,
}

/// How an image is continued.
#[derive(Clone, Copy, Debug)]
pub struct Continued {
    /// Width and height of the image.
    size: (usize, usize),
    /// What lies before it, and as much behind.
    margin: (usize, usize),
    /// Pixels of the network's states for one of the image.
    states: f64,
}

impl Continued {
    /// How an image of `size` (width, height) is continued for `steps` calls of the network.
    pub fn new(
        upscaler: &Upscaler,
        size: (usize, usize),
        wrap: Wrap,
        steps: Option<usize>,
    ) -> Self {
        let system = upscaler.system();
        let geometry = system.network.geometry();
        let steps = steps.unwrap_or_else(|| system.default_steps());
        let steps = steps.min(system.config.diffusion.process.steps());
        let reach = geometry.receptive_field.map(|r| r * steps).filter(|&r| r <= WIDEST_HALO);
        let halo = reach.unwrap_or_else(|| system.network.overlap());
        // Enlarging reads two pixels beyond what the network sees.
        let margin = (halo + 2).next_multiple_of(system.network.tile_align());
        let side = |on: bool| if on { margin } else { 0 };
        let latent = system.network.first_stage().map_or(1, |vq| vq.config().factor());
        let states = system.scale() as f64 / latent as f64;
        Self { size, margin: (side(wrap.x), side(wrap.y)), states }
    }

    /// Width and height of the continued image.
    pub fn size(&self) -> (usize, usize) {
        (self.size.0 + 2 * self.margin.0, self.size.1 + 2 * self.margin.1)
    }

    /// The part of the continued image that the result is made of.
    fn wanted(&self) -> Rect {
        Rect::new(self.margin.0, self.margin.1, self.size.0, self.size.1)
    }

    /// The part of a plan for the continued image that the result needs, with noise that repeats.
    fn needed(&self, plan: &Plan) -> Plan {
        let wanted = self.wanted();
        let cut = |tile: &Tile| {
            let core = overlap(tile.core, wanted)?;
            let padded = match plan.rolled {
                Some(_) => tile.padded,
                None => core.grown(plan.halo, plan.padded),
            };
            Some(Tile { core, padded })
        };
        let tiles = match plan.blended {
            true => plan.tiles.clone(),
            false => plan.tiles.iter().filter_map(cut).collect(),
        };
        Plan { tiles, period: Some(self.period()), ..plan.clone() }
    }

    fn period(&self) -> Period {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Sizes.
        let states = |pixels: usize| (pixels as f64 * self.states).round() as usize;
        let side = |margin: usize, size: usize| if margin > 0 { states(size) } else { 0 };
        Period {
            first: [states(self.margin.1), states(self.margin.0)],
            size: [side(self.margin.1, self.size.1), side(self.margin.0, self.size.0)],
        }
    }

    /// The texture `image` enlarged by the model's factor along `plan`, which is for the continued image;
    /// see [`upscale_strips`](super::upscale_strips).
    ///
    /// # Errors
    /// As there.
    pub fn upscale_strips(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        plan: &Plan,
        seed: u64,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        sink: &mut Sink<'_>,
    ) -> Result<Report> {
        let image = continued(image, [self.margin.0; 2], [self.margin.1; 2])?;
        let plan = self.needed(plan);
        part_in_strips(upscaler, &image, (&plan, self.wanted()), seed, on_call, sink)
    }
}

/// Resizes a texture to `width` x `height` so that it still tiles.
///
/// # Errors
/// As [`resample::resize`].
pub fn resize(image: &Image, wrap: Wrap, width: usize, height: usize) -> Result<Image> {
    // Three lobes of the filter, which shrinking stretches.
    let margin = |on: bool, from: usize, to: usize| match on {
        true => 3 * from.div_ceil(to.max(1)).max(1) + 2,
        false => 0,
    };
    let (x, y) = (margin(wrap.x, image.width, width), margin(wrap.y, image.height, height));
    let all = continued(image, [x; 2], [y; 2])?;
    resample::resize_part(&all, Rect::new(x, y, image.width, image.height), width, height)
}

/// What two rectangles share.
fn overlap(a: Rect, b: Rect) -> Option<Rect> {
    let (x, y) = (a.x.max(b.x), a.y.max(b.y));
    let (right, bottom) = (a.right().min(b.right()), a.bottom().min(b.bottom()));
    (x < right && y < bottom).then(|| Rect::new(x, y, right - x, bottom - y))
}

/// The image with that many more columns left and right and rows above and below, as it repeats itself.
fn continued(image: &Image, columns: [usize; 2], rows: [usize; 2]) -> Result<Image> {
    image.validate()?;
    let places = |[before, behind]: [usize; 2], size: usize| -> Vec<usize> {
        let first = size - before % size;
        (first..first + before + size + behind).map(|i| i % size).collect()
    };
    let (columns, rows) = (places(columns, image.width), places(rows, image.height));
    let channels = image.channels();
    let of = |samples: &Samples, channels| match samples {
        Samples::U8(v) => Samples::U8(gathered(v, image.width, channels, &columns, &rows)),
        Samples::U16(v) => Samples::U16(gathered(v, image.width, channels, &columns, &rows)),
    };
    Ok(Image {
        width: columns.len(),
        height: rows.len(),
        color: image.color,
        samples: of(&image.samples, channels),
        alpha: image.alpha.as_ref().map(|a| of(a, 1)),
        metadata: image.metadata.clone(),
    })
}

fn gathered<T: Copy>(
    samples: &[T],
    width: usize,
    channels: usize,
    columns: &[usize],
    rows: &[usize],
) -> Vec<T> {
    let mut out = Vec::with_capacity(rows.len() * columns.len() * channels);
    for y in rows {
        for x in columns {
            out.extend_from_slice(&samples[(y * width + x) * channels..][..channels]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Color;

    #[test]
    fn an_image_is_continued_as_it_repeats_itself() {
        let image = Image::from_u8(3, 2, Color::Gray, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let wide = continued(&image, [4, 2], [0, 0]).unwrap();
        let row = |from: u8| [3, 1, 2, 3, 1, 2, 3, 1, 2].map(|v| v + from);
        assert_eq!(wide.samples, Samples::U8([row(0), row(3)].concat()));
        let tall = continued(&image, [0, 0], [1, 3]).unwrap();
        assert_eq!((tall.width, tall.height), (3, 6));
        assert_eq!(tall.crop(Rect::new(0, 0, 3, 1)).unwrap().samples, Samples::U8(vec![4, 5, 6]));
    }

    #[test]
    fn a_resized_texture_still_tiles() {
        let wave = |x: usize| (x as f32 * std::f32::consts::TAU / 12.0).sin() * 100.0 + 128.0;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let samples = (0..12 * 12).map(|i| wave(i % 12) as u8).collect();
        let image = Image::from_u8(12, 12, Color::Gray, samples).unwrap();
        for to in [9, 17, 24] {
            let wrap = Wrap { x: true, y: false };
            let Samples::U8(out) = resize(&image, wrap, to, 12).unwrap().samples else { panic!() };
            let step = |a: usize, b: usize| out[a].abs_diff(out[b]);
            let inside = (1..to).map(|x| step(x - 1, x)).max().unwrap();
            // Steepest across the border; both samples are rounded.
            assert!(step(to - 1, 0) <= inside + 1, "{to}: {} {inside}", step(to - 1, 0));
        }
    }
}
