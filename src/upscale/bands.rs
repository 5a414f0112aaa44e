//! From tiles to strips of the output: what lies between the network and the encoder.
//!
//! ```text
//! tiles of a row -> band, as high as they are -> strips -> (Lanczos to another size) -> encoder
//! ```
//! A band goes on as soon as its last tile is there, so that no more than one is held; where tiles
//! are blended, the rows that no later tile reaches. Alpha is enlarged beside it. Of an image that was
//! continued at its sides, only a part is handed on.
use super::enlarge::crop;
use super::{Plan, alpha, bounds, smooth};
use crate::diffusion::system::System;
use crate::error::{Error, Result};
use crate::imaging::resample::{Premultiplied, Strips};
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect, Samples};

/// Bytes of a strip, about.
const STRIP_BYTES: usize = 2 << 20;
/// Rows of a tile that become samples at a time.
const ROWS: usize = 16;

/// Where strips of the output go, from the top down.
pub type Sink<'a> = dyn FnMut(Image) -> Result<()> + 'a;

/// Collects tiles and hands strips on.
pub(super) struct Bands<'a> {
    image: &'a Image,
    scale: usize,
    /// The part of the enlarged image that is handed on, as strips of its width.
    part: Rect,
    /// Rows of tiles that are still to come, the current one first.
    rows: std::iter::Peekable<std::vec::IntoIter<Row>>,
    /// Low-resolution pixels of the current row that are there.
    there: usize,
    /// Columns of the tiles of a row.
    columns: usize,
    held: Held,
    alpha: Option<Alpha<'a>>,
    /// What enlarges smooth areas.
    by: (&'a Plan, &'a System),
    /// Rows of the part that were handed on.
    made: usize,
}

/// A row of tiles, in low-resolution pixels.
#[derive(Clone, Copy)]
struct Row {
    start: usize,
    end: usize,
    /// The first row that its tiles, or those after it, reach.
    top: usize,
}

fn rows_of(plan: &Plan) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for tile in &plan.tiles {
        // A tile that is halved later reaches a halo beyond its core, again.
        let top = tile.padded.y.min(tile.core.y.saturating_sub(plan.halo));
        match rows.last_mut().filter(|row| row.start == tile.core.y) {
            Some(row) => row.top = row.top.min(top),
            None => rows.push(Row { start: tile.core.y, end: tile.core.bottom(), top }),
        }
    }
    let mut top = usize::MAX;
    for row in rows.iter_mut().rev() {
        top = top.min(row.top);
        row.top = top;
    }
    rows
}

enum Held {
    /// The current band, cut into strips, and its first row.
    Exact(Vec<Image>, usize),
    Blended(Blend),
}

impl<'a> Bands<'a> {
    /// Of the part `part` of the image, whose pixels are the cores of the plan's tiles; those of blended tiles may
    /// be more.
    pub(super) fn new(image: &'a Image, plan: &'a Plan, system: &'a System, part: Rect) -> Self {
        let scale = system.scale();
        let held = match plan.blended {
            true => Held::Blended(Blend::new((image.width * scale, image.height * scale))),
            false => Held::Exact(Vec::new(), 0),
        };
        let first = plan.tiles.first().map_or(0, |tile| tile.core.y);
        let row = plan.tiles.iter().take_while(|tile| tile.core.y == first);
        let columns = row.map(|tile| tile.core.width).sum();
        let part = part.scaled(scale);
        Self {
            image,
            scale,
            part,
            rows: rows_of(plan).into_iter().peekable(),
            there: 0,
            columns,
            held,
            alpha: image.alpha.as_ref().map(|alpha| {
                let size = (image.width, image.height);
                Alpha { alpha, size, scale, part, made: 0 }
            }),
            by: (plan, system),
            made: 0,
        }
    }

    /// Takes the pixels `[H, W, 3]` of a tile, halo included, and hands on what is complete. Tiles come
    /// row by row; within a row in any order and in pieces.
    pub(super) fn add(&mut self, tile: &Tile, pixels: &[f32], sink: &mut Sink<'_>) -> Result<()> {
        let Some(&Row { start, end, .. }) = self.rows.peek() else {
            return Err(Error::shape("upscale", "no more tiles", &[tile.core.y]));
        };
        let held = tile.padded.scaled(self.scale);
        let band = [start, end].map(|y| (y * self.scale).min(self.part.bottom()));
        if matches!(&self.held, Held::Exact(strips, _) if strips.is_empty()) {
            self.held = Held::Exact(self.blank(band[1] - band[0]), band[0]);
        }
        match &mut self.held {
            Held::Exact(strips, first) => {
                let at = (self.part.x, *first);
                store(strips, at, tile.core.scaled(self.scale), held, pixels)?;
            }
            Held::Blended(blend) => blend.add(held, pixels),
        }
        self.there += tile.core.area();
        if self.there < (end - start) * self.columns {
            return Ok(());
        }
        self.there = 0;
        self.rows.next();
        self.hand_on(sink)
    }

    fn hand_on(&mut self, sink: &mut Sink<'_>) -> Result<()> {
        let below = self.rows.peek().map(|row| row.top * self.scale);
        let strips = match &mut self.held {
            Held::Exact(strips, _) => std::mem::take(strips),
            Held::Blended(blend) => {
                let part = self.part;
                // What lies above the part is complete with its first rows.
                let above = blend.complete(below.unwrap_or(usize::MAX).min(part.y));
                blend.take(above);
                let count = blend.complete(below.unwrap_or(usize::MAX).min(part.bottom()));
                let mut strips = self.blank(count);
                let Held::Blended(blend) = &mut self.held else { return Ok(()) };
                for strip in &mut strips {
                    let rows = Rect::new(0, 0, blend.width, strip.height);
                    let means = blend.take(strip.height);
                    let wanted = Rect::new(part.x, 0, part.width, strip.height);
                    strip.store(strip.rect(), &crop(&means, rows, wanted))?;
                }
                strips
            }
        };
        for mut strip in strips {
            self.hold(&mut strip)?;
            self.made += strip.height;
            if let Some(alpha) = &mut self.alpha {
                strip.alpha = Some(alpha.next(strip.height)?);
            }
            sink(strip)?;
        }
        Ok(())
    }

    /// Holds the next strip to what the picture shows, if the network is one of those.
    fn hold(&self, strip: &mut Image) -> Result<()> {
        let (plan, system) = self.by;
        if !system.network.keeps_to_picture() {
            return Ok(());
        }
        let of = Rect { x: self.part.x, y: self.part.y + self.made, ..strip.rect() };
        bounds::hold(self.image, self.scale, of, strip);
        // Blocks of JPEG are smooth, too.
        if plan.damage.jpeg_quality.is_none_or(|quality| quality >= 100.0) {
            smooth::keep(self.image, self.by, of, strip)?;
        }
        Ok(())
    }

    /// Strips for `rows` rows of the output.
    fn blank(&self, rows: usize) -> Vec<Image> {
        let per_strip = strip_rows(self.part.width, self.image.bytes_per_pixel());
        let part = |start: usize| {
            let height = per_strip.min(rows - start);
            Image::new(self.part.width, height, self.image.color, self.image.depth())
        };
        (0..rows).step_by(per_strip).map(part).collect()
    }
}

/// Rows of a strip of `width` pixels.
pub(super) fn strip_rows(width: usize, bytes_per_pixel: usize) -> usize {
    (STRIP_BYTES / (width * bytes_per_pixel).max(1)).max(1)
}

/// Writes the part of `core` that lies in the strips, the first of which begins with the column and row `first`, out
/// of `pixels` of the region `held`.
fn store(
    strips: &mut [Image],
    (left, first): (usize, usize),
    core: Rect,
    held: Rect,
    pixels: &[f32],
) -> Result<()> {
    let mut top = first;
    for strip in strips {
        let (start, end) = (core.y.max(top), core.bottom().min(top + strip.height));
        let width = core.width.min((left + strip.width).saturating_sub(core.x));
        // Some rows at a time where they are copied: as floats they take four times what the strip does.
        let whole = (core.x, width) == (held.x, held.width);
        let rows = if whole { end.saturating_sub(start).max(1) } else { ROWS };
        for y in (start..end).step_by(rows).filter(|_| width > 0) {
            let part = Rect::new(core.x, y, width, rows.min(end - y));
            let place = Rect { x: core.x - left, y: y - top, ..part };
            match whole {
                true => {
                    let from = (y - held.y) * width * 3;
                    strip.store(place, &pixels[from..][..part.area() * 3])?;
                }
                false => strip.store(place, &crop(pixels, held, part))?,
            }
        }
        top += strip.height;
    }
    Ok(())
}

/// Weighted sums of overlapping tiles, of the rows that are not complete yet.
struct Blend {
    width: usize,
    height: usize,
    first: usize,
    /// Three colours and the weight of each pixel.
    sums: Vec<[f32; 4]>,
}

impl Blend {
    fn new((width, height): (usize, usize)) -> Self {
        Self { width, height, first: 0, sums: Vec::new() }
    }

    /// Adds a tile with weights that fall off towards its edges: raised cosines, half a pixel inside
    /// the edge so that none is zero.
    fn add(&mut self, held: Rect, pixels: &[f32]) {
        let (rows, columns) = (window(held.height), window(held.width));
        let bottom = held.bottom().min(self.height);
        let wanted = (bottom - self.first) * self.width;
        self.sums.resize(self.sums.len().max(wanted), [0.0; 4]);
        for y in 0..bottom.saturating_sub(held.y) {
            let line = (held.y + y - self.first) * self.width;
            for x in 0..held.width.min(self.width.saturating_sub(held.x)) {
                let from = 3 * (y * held.width + x);
                let weight = rows[y] * columns[x];
                let sum = &mut self.sums[line + held.x + x];
                sum[3] += weight;
                for c in 0..3 {
                    sum[c] += weight * pixels[from + c];
                }
            }
        }
    }

    /// How many rows no tile adds to any more, if the next ones begin at row `below`.
    fn complete(&self, below: usize) -> usize {
        below.min(self.height).saturating_sub(self.first)
    }

    /// The means of the next `rows` rows, `[H, W, 3]`, which are then forgotten.
    fn take(&mut self, rows: usize) -> Vec<f32> {
        self.first += rows;
        let means = self.sums.drain(..rows * self.width).map(|[r, g, b, w]| [r / w, g / w, b / w]);
        means.flatten().collect()
    }
}

/// A Hann window of `len` weights, sampled between the zeros.
fn window(len: usize) -> Vec<f32> {
    let weight = |i: usize| {
        let phase = (i as f64 + 0.5) / len as f64 * std::f64::consts::TAU;
        0.5 - 0.5 * phase.cos()
    };
    #[allow(clippy::cast_possible_truncation)] // Weights are stored as f32.
    (0..len).map(|i| weight(i).max(1e-4) as f32).collect()
}

/// Alpha on its way to the size of the output.
struct Alpha<'a> {
    alpha: &'a Samples,
    /// Width and height of the image.
    size: (usize, usize),
    scale: usize,
    /// What is wanted of the enlarged image.
    part: Rect,
    made: usize,
}

impl Alpha<'_> {
    /// The next `rows` rows.
    fn next(&mut self, rows: usize) -> Result<Samples> {
        let wanted = Rect { y: self.part.y + self.made, height: rows, ..self.part };
        self.made += rows;
        alpha::enlarge_part(self.alpha, self.size, self.scale, wanted)
    }
}

/// Strips resampled to another size; with alpha, colours count by it.
pub struct Resampled {
    strips: Resampling,
    width: usize,
    like: Image,
    /// Alpha of the output, where that is no larger than the picture itself.
    alpha: Option<Samples>,
    /// Rows handed on.
    made: usize,
}

enum Resampling {
    Opaque(Box<Strips>),
    Transparent(Box<Premultiplied>),
}

impl Resampled {
    /// From `from` (width, height) to `to`, for strips like those of `image`.
    ///
    /// # Errors
    /// If a side is 0.
    pub fn new(image: &Image, from: (usize, usize), to: (usize, usize)) -> Result<Self> {
        let whole = Rect::whole(from.0, from.1);
        let strips = match image.alpha {
            Some(_) => {
                Resampling::Transparent(Box::new(Premultiplied::new(image, from, whole, to)?))
            }
            None => Resampling::Opaque(Box::new(Strips::new(
                from,
                to,
                image.channels(),
                image.depth(),
            )?)),
        };
        let like = Image::new(0, 0, image.color, image.depth());
        let small = to.0 <= image.width && to.1 <= image.height;
        let alpha = image.alpha.as_ref().filter(|_| small);
        let alpha = alpha.map(|a| alpha::shrunk(a, (image.width, image.height), to));
        Ok(Self { strips, width: to.0, like, alpha, made: 0 })
    }

    /// Takes a strip of the original and hands on what can be made.
    ///
    /// # Errors
    /// If it does not fit, and those of `sink`.
    pub fn add(&mut self, strip: &Image, sink: &mut Sink<'_>) -> Result<()> {
        let strips = match &mut self.strips {
            Resampling::Opaque(strips) => strips,
            Resampling::Transparent(strips) => {
                strips.give(strip)?;
                while let Some(mut made) = strips.take()? {
                    if let Some(alpha) = &self.alpha {
                        let rows = self.made..self.made + made.height;
                        made.alpha =
                            Some(alpha.part(rows.start * self.width..rows.end * self.width));
                    }
                    self.made += made.height;
                    sink(made)?;
                }
                return Ok(());
            }
        };
        strips.give(&strip.samples)?;
        let most = strip_rows(self.width, strip.bytes_per_pixel());
        while let Some(samples) = strips.take(most) {
            let height = samples.len() / (self.width * self.like.channels());
            sink(Image { width: self.width, height, samples, ..self.like.clone() })?;
        }
        Ok(())
    }
}
