//! Textures that tile: the left edge sees the right one, the upper the lower.
//!
//! The image is continued periodically as far as the network sees over all steps, and what the middle of
//! that becomes is cut out again. Noise belongs to pixels and is not periodic, so the result goes on a few
//! pixels (`FADE`) beyond the border and fades there into its beginning:
//!
//! ```text
//! |   margin   | 0 ........ W-1 | 0' ... FADE-1' |   margin   |      network
//!              | x = fade(x', x) for x < FADE, as it is behind |      result
//! ```
//! so that W-1 is followed by what the network put there, as inside the picture. Tiles stay exact.
use super::runner::crop;
use super::{Plan, Report, Upscaler, WIDEST_HALO, Work, alpha, upscale};
use crate::error::Result;
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect, Samples, resample};

/// Low-resolution pixels over which the end of a texture fades into its beginning.
const FADE: usize = 8;

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
    /// What lies before it, and at least as much behind.
    margin: (usize, usize),
    fade: (usize, usize),
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
        let sides = |on: bool, side: usize| if on { (margin, FADE.min(side)) } else { (0, 0) };
        let (x, y) = (sides(wrap.x, size.0), sides(wrap.y, size.1));
        Self { size, margin: (x.0, y.0), fade: (x.1, y.1) }
    }

    /// Width and height of the continued image.
    pub fn size(&self) -> (usize, usize) {
        let side = |size, margin, fade| size + 2 * margin + fade;
        (
            side(self.size.0, self.margin.0, self.fade.0),
            side(self.size.1, self.margin.1, self.fade.1),
        )
    }

    /// The part of the continued image that the result is made of.
    fn wanted(&self) -> Rect {
        let (width, height) = (self.size.0 + self.fade.0, self.size.1 + self.fade.1);
        Rect::new(self.margin.0, self.margin.1, width, height)
    }

    /// The part of a plan for the continued image that the result needs.
    fn needed(&self, plan: &Plan) -> Plan {
        let wanted = self.wanted();
        let cut = |tile: &Tile| {
            let core = overlap(tile.core, wanted)?;
            Some(Tile { core, padded: core.grown(plan.halo, plan.padded) })
        };
        Plan { tiles: plan.tiles.iter().filter_map(cut).collect(), ..plan.clone() }
    }

    /// The texture `image` enlarged by the model's factor along `plan`, which is for the continued image;
    /// see [`upscale`].
    ///
    /// # Errors
    /// As [`upscale`].
    pub fn upscale(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        plan: &Plan,
        seed: u64,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<(Image, Report)> {
        let (columns, rows) = ((self.margin.0, self.fade.0), (self.margin.1, self.fade.1));
        let around = |(margin, fade)| [margin, margin + fade];
        let image = continued(image, around(columns), around(rows))?;
        let scale = upscaler.system().scale();
        let (mut output, report) = match plan.blended {
            true => {
                let (all, report) = upscale(upscaler, &image, plan, seed, on_call)?;
                (all.crop(self.wanted().scaled(scale))?, report)
            }
            false => self.exactly(upscaler, &image, &self.needed(plan), seed, on_call)?,
        };
        let (width, height) = (self.size.0 * scale, self.size.1 * scale);
        fade_in(&mut output, (width, height), (self.fade.0 * scale, self.fade.1 * scale));
        Ok((output.crop(Rect::whole(width, height))?, report))
    }

    /// The wanted part, without what only its margins would need.
    fn exactly(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        plan: &Plan,
        seed: u64,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<(Image, Report)> {
        let scale = upscaler.system().scale();
        let wanted = self.wanted().scaled(scale);
        let mut output = Image::new(wanted.width, wanted.height, image.color, image.depth());
        output.metadata = image.metadata.clone();
        let size = (image.width, image.height);
        let alpha = image.alpha.as_ref();
        output.alpha = alpha.map(|a| alpha::enlarge_part(a, size, scale, wanted)).transpose()?;
        let bled = alpha::bled(image);
        let image = bled.as_ref().unwrap_or(image);
        let mut work = Work::new(upscaler, image, plan, seed);
        work.run(on_call, &mut |tile, pixels| {
            let core = tile.core.scaled(scale);
            let place = Rect { x: core.x - wanted.x, y: core.y - wanted.y, ..core };
            output.store(place, &crop(pixels, tile.padded.scaled(scale), core))
        })?;
        let report = work.report;
        Ok((output, report))
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

/// Mixes what lies beyond `size` into the beginning, columns first.
fn fade_in(image: &mut Image, size: (usize, usize), fade: (usize, usize)) {
    let (width, height, channels) = (image.width, image.height, image.channels());
    let mix = |samples: &mut Samples, channels: usize| {
        for y in 0..height {
            for x in 0..fade.0 {
                let (to, from) = (y * width + x, y * width + size.0 + x);
                mix_pixel(samples, channels, to, from, x, fade.0);
            }
        }
        for y in 0..fade.1 {
            for x in 0..width {
                let (to, from) = (y * width + x, (size.1 + y) * width + x);
                mix_pixel(samples, channels, to, from, y, fade.1);
            }
        }
    };
    mix(&mut image.samples, channels);
    if let Some(alpha) = &mut image.alpha {
        mix(alpha, 1);
    }
}

/// Pixel `to` becomes a mean of `from`, whose share falls from almost 1 at `step` 0 to almost 0 at `steps`.
fn mix_pixel(
    samples: &mut Samples,
    channels: usize,
    to: usize,
    from: usize,
    step: usize,
    steps: usize,
) {
    let (own, all) = (2 * step as u64 + 1, 2 * steps as u64);
    let mean = |a: u64, b: u64| (own * a + (all - own) * b + steps as u64) / all;
    for c in 0..channels {
        let (to, from) = (to * channels + c, from * channels + c);
        match samples {
            Samples::U8(v) => {
                v[to] = u8::try_from(mean(v[to].into(), v[from].into())).unwrap_or(u8::MAX);
            }
            Samples::U16(v) => {
                v[to] = u16::try_from(mean(v[to].into(), v[from].into())).unwrap_or(u16::MAX);
            }
        }
    }
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
