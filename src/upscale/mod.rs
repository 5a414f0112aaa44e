//! The upscaling pipeline: an image in, an image out, tile by tile.
//!
//! The image stays in memory as it was decoded; tiles of it run through the sampler one after the
//! other. A network with a bounded receptive field gets tiles with a halo as wide as it can see over
//! all steps, so that the tiled result equals the untiled one bit for bit; other networks get
//! overlapping tiles that are blended.
pub mod jobs;

use crate::diffusion::sampler::{PixelNoise, sample};
use crate::diffusion::system::System;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::imaging::tiles::{self, Tile};
use crate::imaging::{Image, Rect, Samples, resample};

/// How large tiles are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileSize {
    /// As large as the memory budget allows.
    Auto,
    /// The whole image at once.
    None,
    /// Squares of about this many low-resolution pixels a side.
    Side(usize),
}

/// How an image is upscaled.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Calls of the network; the model's default if absent.
    pub steps: Option<usize>,
    /// The seed of the noise.
    pub seed: u64,
    /// How large tiles are.
    pub tile: TileSize,
    /// Bytes that the tiles in flight may take.
    pub memory: u64,
}

/// The tiles of one image and what they cost.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Low-resolution size after padding to the network's alignment.
    pub padded: (usize, usize),
    /// The tiles, in the order they run.
    pub tiles: Vec<Tile>,
    /// Calls of the network per tile.
    pub steps: usize,
    /// Whether neighbouring tiles are blended rather than cut.
    pub blended: bool,
    /// Estimated peak of memory for the tiles, in bytes.
    pub memory: u64,
}

/// Low-resolution pixels that neighbouring tiles share where the network sees the whole map.
const BLEND_OVERLAP: usize = 16;

/// Plans the tiles for an image of `width` x `height`.
///
/// # Errors
/// [`Error::Memory`] if not even the smallest tile fits the budget.
pub fn plan(system: &System, width: usize, height: usize, settings: &Settings) -> Result<Plan> {
    let geometry = system.network.geometry();
    let align = geometry.align;
    let steps = settings.steps.unwrap_or_else(|| system.default_steps());
    let steps = steps.min(system.config.diffusion.process.steps());
    let padded = (width.next_multiple_of(align), height.next_multiple_of(align));
    let blended = geometry.receptive_field.is_none();
    let halo = geometry.receptive_field.map_or(BLEND_OVERLAP, |r| r * steps);
    let halo = halo.next_multiple_of(align);
    let per_pixel = 4 * system.network.floats_per_pixel() as u64;
    let cut = |core: usize| tiles::plan(padded.0, padded.1, core, halo, align);
    let cost = |tiles: &[Tile]| {
        tiles.iter().map(|t| t.padded.area() as u64 * per_pixel).max().unwrap_or(0)
    };
    let whole = padded.0.max(padded.1);
    let tiles = match settings.tile {
        TileSize::None => cut(whole),
        TileSize::Side(side) => cut(side.max(1).next_multiple_of(align)),
        TileSize::Auto => {
            let mut core = whole;
            while cost(&cut(core)) > settings.memory && core > align {
                // Fewer, equal parts rather than a large tile and a sliver.
                let parts = whole.div_ceil(core) + 1;
                core = whole.div_ceil(parts).next_multiple_of(align).min(core - align);
            }
            cut(core)
        }
    };
    let memory = cost(&tiles);
    if settings.tile == TileSize::Auto && memory > settings.memory {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let cause = format!(
            "the smallest tile needs {} MiB, the budget is {} MiB",
            mib(memory),
            mib(settings.memory)
        );
        let report = Report::new(format!("{width}x{height} does not fit in memory"), cause);
        return Err(Error::Memory(report.help("give more with --ram, or use fewer --steps")));
    }
    Ok(Plan { padded, tiles, steps, blended, memory })
}

/// Enlarges `image` by the model's factor along `plan`; `on_call` is told of every call of the
/// network (calls done, calls in all) and may stop the work with an error.
pub fn upscale(
    system: &System,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Image> {
    let scale = system.scale();
    let (width, height) = (image.width * scale, image.height * scale);
    let mut output = Image::new(width, height, image.color, image.depth());
    output.metadata = image.metadata.clone();
    let calls = plan.tiles.len() * plan.steps;
    let mut blend = plan.blended.then(|| Blend::new(width, height));
    for (i, tile) in plan.tiles.iter().enumerate() {
        let mut told = |done: usize| on_call(i * plan.steps + done, calls);
        let pixels = run_tile(system, image, plan, tile, seed, &mut told)?;
        match &mut blend {
            Some(blend) => blend.add(tile, scale, &pixels),
            None => {
                store(&mut output, tile.core.scaled(scale), tile.padded.scaled(scale), &pixels)?
            }
        }
    }
    if let Some(blend) = blend {
        let whole = Rect::whole(width, height);
        store(&mut output, whole, whole, &blend.finish())?;
    }
    output.alpha = match &image.alpha {
        Some(alpha) => Some(enlarge_alpha(alpha, image, width, height)?),
        None => None,
    };
    Ok(output)
}

/// Alpha by a Lanczos filter; where it is the same everywhere it stays that exactly.
fn enlarge_alpha(alpha: &Samples, image: &Image, width: usize, height: usize) -> Result<Samples> {
    let constant = match alpha {
        Samples::U8(v) => v
            .windows(2)
            .all(|w| w[0] == w[1])
            .then(|| v.first())
            .flatten()
            .map(|&a| Samples::U8(vec![a; width * height])),
        Samples::U16(v) => v
            .windows(2)
            .all(|w| w[0] == w[1])
            .then(|| v.first())
            .flatten()
            .map(|&a| Samples::U16(vec![a; width * height])),
    };
    match constant {
        Some(constant) => Ok(constant),
        None => resample::resize_samples(alpha, image.width, image.height, 1, width, height),
    }
}

/// The tile's pixels `[H, W, 3]` in [0, 1], halo included.
fn run_tile(
    system: &System,
    image: &Image,
    plan: &Plan,
    tile: &Tile,
    seed: u64,
    on_step: &mut dyn FnMut(usize) -> Result<()>,
) -> Result<Vec<f32>> {
    let scale = system.scale();
    let held = resample::bicubic_footprint(tile.padded.scaled(scale), plan.padded, scale);
    let wider = padded_region(image, held)?;
    let high = tile.padded.scaled(scale);
    let y0 = resample::bicubic_up(&wider, held, plan.padded, 3, scale, high)?;
    let low = crop(&wider, held, tile.padded);
    drop(wider);
    let low = Tensor::from_vec(low, &[1, tile.padded.height, tile.padded.width, 3]);
    let y0 = Tensor::from_vec(y0, &[1, high.height, high.width, 3]);
    let condition = system.network.condition(&low, &y0)?;
    let noise = PixelNoise { seed, origins: vec![[high.y, high.x]] };
    let x0 = sample(
        &*system.network,
        &system.config.diffusion,
        &condition,
        &y0,
        &noise,
        plan.steps,
        &mut |progress| on_step(progress.done),
    )?;
    let pixels: Vec<f32> = x0.cpu::<f32>()?.iter().map(|v| (v + 1.0) / 2.0).collect();
    if let Some(bad) = pixels.iter().find(|v| !v.is_finite()) {
        let what = format!("the model {} gave {bad} in place of a pixel", system.name);
        let report = Report::new(what, format!("in the tile at {}, {}", high.x, high.y));
        return Err(Error::Check(report.help("the weights are damaged or the model diverged")));
    }
    Ok(pixels)
}

/// The region `[H, W, 3]` of the image padded by reflection on the right and below, in [-1, 1].
fn padded_region(image: &Image, region: Rect) -> Result<Vec<f32>> {
    let inside = Rect::new(
        region.x,
        region.y,
        region.right().min(image.width).saturating_sub(region.x),
        region.bottom().min(image.height).saturating_sub(region.y),
    );
    if inside == region {
        let pixels = image.rgb_f32(region)?;
        return Ok(pixels.into_iter().map(|v| 2.0 * v - 1.0).collect());
    }
    let (rows, columns) = (
        reflected(region.y, region.height, image.height),
        reflected(region.x, region.width, image.width),
    );
    let mut out = Vec::with_capacity(region.area() * 3);
    for &y in &rows {
        let row = image.rgb_f32(Rect::new(0, y, image.width, 1))?;
        for &x in &columns {
            out.extend(row[3 * x..3 * x + 3].iter().map(|v| 2.0 * v - 1.0));
        }
    }
    Ok(out)
}

/// Where the positions `start..start + len` lie in a side of `size`, reflected at its end without
/// repeating the last pixel; a side too short for that bounces to and fro.
fn reflected(start: usize, len: usize, size: usize) -> Vec<usize> {
    let period = (2 * size.saturating_sub(1)).max(1);
    let fold = |i: usize| {
        let i = i % period;
        if i < size { i } else { period - i }
    };
    (start..start + len).map(fold).collect()
}

/// The part `wanted` of `pixels`, which are the region `held` `[H, W, 3]`.
fn crop(pixels: &[f32], held: Rect, wanted: Rect) -> Vec<f32> {
    let mut out = Vec::with_capacity(wanted.area() * 3);
    for y in wanted.y..wanted.bottom() {
        let at = ((y - held.y) * held.width + wanted.x - held.x) * 3;
        out.extend_from_slice(&pixels[at..at + wanted.width * 3]);
    }
    out
}

/// Writes the part of `core` that lies in the image, out of `pixels` of the region `held`.
fn store(output: &mut Image, core: Rect, held: Rect, pixels: &[f32]) -> Result<()> {
    let width = core.width.min(output.width.saturating_sub(core.x));
    let height = core.height.min(output.height.saturating_sub(core.y));
    let core = Rect::new(core.x, core.y, width, height);
    if core.area() == 0 {
        return Ok(());
    }
    output.store(core, &crop(pixels, held, core))
}

/// Weighted sums of overlapping tiles.
struct Blend {
    width: usize,
    height: usize,
    sums: Vec<f32>,
    weights: Vec<f32>,
}

impl Blend {
    fn new(width: usize, height: usize) -> Self {
        let pixels = width * height;
        Self { width, height, sums: vec![0.0; 3 * pixels], weights: vec![0.0; pixels] }
    }

    /// Adds a tile with weights that fall off towards its edges: raised cosines, half a pixel inside
    /// the edge so that none is zero.
    fn add(&mut self, tile: &Tile, scale: usize, pixels: &[f32]) {
        let held = tile.padded.scaled(scale);
        let (rows, columns) = (window(held.height), window(held.width));
        for y in 0..held.height.min(self.height.saturating_sub(held.y)) {
            for x in 0..held.width.min(self.width.saturating_sub(held.x)) {
                let (at, from) = ((held.y + y) * self.width + held.x + x, y * held.width + x);
                let weight = rows[y] * columns[x];
                self.weights[at] += weight;
                for c in 0..3 {
                    self.sums[3 * at + c] += weight * pixels[3 * from + c];
                }
            }
        }
    }

    fn finish(mut self) -> Vec<f32> {
        for (pixel, weight) in self.sums.chunks_exact_mut(3).zip(&self.weights) {
            pixel.iter_mut().for_each(|v| *v /= weight);
        }
        self.sums
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
