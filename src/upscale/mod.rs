//! The upscaling pipeline: an image in, an image out, tile by tile.
//!
//! The image stays in memory as it was decoded; tiles of it run through the sampler one after the
//! other, on a GPU in batches, the next of which is prepared while one runs. A network with a bounded receptive field gets tiles with a halo as wide as it can see over
//! all steps, so that the tiled result equals the untiled one bit for bit; other networks get
//! overlapping tiles that are blended.
pub mod alpha;
pub mod jobs;
mod runner;
pub mod wrap;

use std::collections::VecDeque;

use crate::diffusion::system::System;
use crate::engine::device::{DType, Device};
use crate::error::{self, Error, Result};
use crate::imaging::tiles::{self, Tile};
use crate::imaging::{Image, Rect};
use runner::{Inputs, Runner, crop};

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

/// A system where it runs.
pub struct Upscaler {
    /// As it was opened: on the CPU, in F32.
    system: System,
    /// Where it runs, if that is elsewhere.
    placed: Option<System>,
}

impl Upscaler {
    /// `system` on `device`, computing in `dtype` there.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn new(system: System, device: &Device, dtype: DType) -> Result<Self> {
        let stays = *device == Device::Cpu && dtype == DType::F32;
        let placed = (!stays).then(|| system.on(device, dtype)).transpose()?;
        Ok(Self { system, placed })
    }

    /// The system as it runs.
    pub fn system(&self) -> &System {
        self.placed.as_ref().unwrap_or(&self.system)
    }

    /// The same in single precision on the same device.
    fn precise(&self) -> Result<System> {
        self.system.on(&self.system().network.device(), DType::F32)
    }
}

/// What happened on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Tiles that were not finite in half precision and were computed again in single precision.
    pub redone: usize,
    /// How often tiles were made smaller because the device was full.
    pub halved: usize,
}

/// The tiles of one image and what they cost.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Low-resolution size after padding to the network's alignment.
    pub padded: (usize, usize),
    /// The tiles, in the order they run.
    pub tiles: Vec<Tile>,
    /// Tiles that run at once.
    pub batch: usize,
    /// Calls of the network per tile.
    pub steps: usize,
    /// What surrounds the core of a tile, in low-resolution pixels.
    pub halo: usize,
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
pub fn plan(upscaler: &Upscaler, width: usize, height: usize, settings: &Settings) -> Result<Plan> {
    let system = upscaler.system();
    let geometry = system.network.geometry();
    let align = geometry.align;
    let steps = settings.steps.unwrap_or_else(|| system.default_steps());
    let steps = steps.min(system.config.diffusion.process.steps());
    let padded = (width.next_multiple_of(align), height.next_multiple_of(align));
    let blended = geometry.receptive_field.is_none();
    let halo = geometry.receptive_field.map_or(BLEND_OVERLAP, |r| r * steps);
    let halo = halo.next_multiple_of(align);
    let per_pixel = (system.network.dtype().size() * system.network.floats_per_pixel()) as u64;
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
    let on_gpu = system.network.device() != Device::Cpu;
    let tiles = if on_gpu && tiles.len() > 1 { equal(tiles, padded) } else { tiles };
    let memory = memory.max(cost(&tiles));
    if settings.tile == TileSize::Auto && memory > settings.memory {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let cause = format!(
            "the smallest tile needs {} MiB, the budget is {} MiB",
            mib(memory),
            mib(settings.memory)
        );
        let report = error::Report::new(format!("{width}x{height} does not fit in memory"), cause);
        return Err(Error::Memory(report.help("give more with --ram, or use fewer --steps")));
    }
    // The CPU gains nothing from batches.
    let fitting = usize::try_from(settings.memory / memory.max(1)).unwrap_or(usize::MAX);
    let batch = if on_gpu { fitting.clamp(1, tiles.len().max(1)) } else { 1 };
    let memory = memory * batch as u64;
    Ok(Plan { padded, tiles, batch, steps, halo, blended, memory })
}

/// The tiles, read from regions of one size, so that they can run in batches: regions at the edges of
/// the image grow inwards.
fn equal(tiles: Vec<Tile>, (width, height): (usize, usize)) -> Vec<Tile> {
    let largest = |side: fn(&Rect) -> usize| tiles.iter().map(|t| side(&t.padded)).max();
    let (w, h) = (largest(|r| r.width).unwrap_or(0), largest(|r| r.height).unwrap_or(0));
    let grown = |tile: &Tile| {
        let (x, y) = (tile.padded.x.min(width - w), tile.padded.y.min(height - h));
        Tile { core: tile.core, padded: Rect::new(x, y, w, h) }
    };
    tiles.iter().map(grown).collect()
}

/// The tile as two, cut across its longer side; none if it cannot be cut.
fn halves(tile: &Tile, plan: &Plan, align: usize) -> Option<[Tile; 2]> {
    let core = tile.core;
    let tall = core.height >= core.width;
    let side = if tall { core.height } else { core.width };
    let first = (side / 2).next_multiple_of(align);
    if first >= side {
        return None;
    }
    let parts = match tall {
        true => [
            Rect::new(core.x, core.y, core.width, first),
            Rect::new(core.x, core.y + first, core.width, side - first),
        ],
        false => [
            Rect::new(core.x, core.y, first, core.height),
            Rect::new(core.x + first, core.y, side - first, core.height),
        ],
    };
    Some(parts.map(|core| Tile { core, padded: core.grown(plan.halo, plan.padded) }))
}

/// Enlarges `image` by the model's factor along `plan`; `on_call` is told of every call of the
/// network (calls done, calls in all) and may stop the work with an error.
///
/// Tiles that come out infinite or undefined in half precision are computed again in single precision,
/// and where a GPU is full although the plan says otherwise, tiles are halved; both are reported.
pub fn upscale(
    upscaler: &Upscaler,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<(Image, Report)> {
    let bled = alpha::bled(image);
    let image = bled.as_ref().unwrap_or(image);
    let scale = upscaler.system().scale();
    let (width, height) = (image.width * scale, image.height * scale);
    let mut output = Image::new(width, height, image.color, image.depth());
    output.metadata = image.metadata.clone();
    let mut work = Work {
        upscaler,
        image,
        plan,
        seed,
        queue: plan.tiles.iter().copied().collect(),
        batch: plan.batch,
        done: 0,
        precise: None,
        report: Report::default(),
    };
    let mut blend = plan.blended.then(|| Blend::new(width, height));
    work.run(on_call, &mut |tile, pixels| match &mut blend {
        Some(blend) => {
            blend.add(tile, scale, pixels);
            Ok(())
        }
        None => store(&mut output, tile.core.scaled(scale), tile.padded.scaled(scale), pixels),
    })?;
    if let Some(blend) = blend {
        let whole = Rect::whole(width, height);
        store(&mut output, whole, whole, &blend.finish())?;
    }
    output.alpha = match &image.alpha {
        Some(alpha) => Some(alpha::enlarge(alpha, (image.width, image.height), scale)?),
        None => None,
    };
    Ok((output, work.report))
}

/// The tiles of an image that are still to be computed.
struct Work<'a> {
    upscaler: &'a Upscaler,
    image: &'a Image,
    plan: &'a Plan,
    seed: u64,
    queue: VecDeque<Tile>,
    batch: usize,
    /// Calls of the network so far.
    done: usize,
    /// For tiles that half precision cannot hold, once there was one.
    precise: Option<System>,
    report: Report,
}

impl Work<'_> {
    /// Computes all tiles, each handed to `store` with its pixels `[H, W, 3]` in [0, 1], halo included.
    fn run(
        &mut self,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        store: &mut dyn FnMut(&Tile, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let system = self.upscaler.system();
        let mut runner = Runner::new(system, self.plan.steps, self.seed);
        let mut prepared = self.prepare()?;
        while let Some(inputs) = prepared.take() {
            let calls = inputs.tiles.len() * self.plan.steps;
            let total = self.done + calls + self.queue.len() * self.plan.steps;
            let before = self.done;
            let mut told = |k: usize| on_call(before + k * inputs.tiles.len(), total);
            match runner.start(&inputs, &mut told) {
                Ok(()) => {}
                Err(full @ Error::Memory(_)) => {
                    // What the runner holds would stay on the device beside the smaller tiles.
                    runner = Runner::new(system, self.plan.steps, self.seed);
                    self.make_smaller(inputs.tiles, full)?;
                    prepared = self.prepare()?;
                    continue;
                }
                Err(other) => return Err(other),
            }
            // A GPU is busy now: time to prepare what follows.
            prepared = self.prepare()?;
            let pixels = inputs.colored(runner.finish()?);
            self.done += calls;
            on_call(self.done, self.done + (total - before - calls))?;
            let each = pixels.len() / inputs.tiles.len();
            for (i, tile) in inputs.tiles.iter().enumerate() {
                let pixels = &pixels[i * each..(i + 1) * each];
                match pixels.iter().all(|v| v.is_finite()) {
                    true => store(tile, pixels)?,
                    false => store(tile, &self.again(tile)?)?,
                }
            }
        }
        Ok(())
    }

    /// The next tiles of one size with what the network is to see of them; none at the end.
    fn prepare(&mut self) -> Result<Option<Inputs>> {
        let Some(first) = self.queue.front() else { return Ok(None) };
        let size = (first.padded.width, first.padded.height);
        let same = |t: &&Tile| (t.padded.width, t.padded.height) == size;
        let count = self.queue.iter().take(self.batch).take_while(same).count();
        let tiles: Vec<Tile> = self.queue.drain(..count).collect();
        Inputs::of(self.image, self.plan, self.upscaler.system(), tiles).map(Some)
    }

    /// Puts `tiles` back in smaller pieces, or fails with `full` if they are as small as can be.
    fn make_smaller(&mut self, tiles: Vec<Tile>, full: Error) -> Result<()> {
        self.report.halved += 1;
        let alone = self.batch == 1;
        self.batch = (self.batch / 2).max(1);
        if !alone {
            tiles.into_iter().rev().for_each(|tile| self.queue.push_front(tile));
            return Ok(());
        }
        let align = self.upscaler.system().network.geometry().align;
        let all: Vec<Tile> = tiles.into_iter().chain(self.queue.drain(..)).collect();
        for tile in all {
            match halves(&tile, self.plan, align) {
                Some(parts) => self.queue.extend(parts),
                None => return Err(full),
            }
        }
        Ok(())
    }

    /// One tile again in single precision.
    fn again(&mut self, tile: &Tile) -> Result<Vec<f32>> {
        let system = self.upscaler.system();
        let inputs = Inputs::of(self.image, self.plan, system, vec![*tile])?;
        let mut pixels = vec![f32::NAN];
        if system.network.dtype() != DType::F32 {
            self.report.redone += 1;
            let precise = match self.precise.take() {
                Some(precise) => precise,
                None => self.upscaler.precise()?,
            };
            let mut runner = Runner::new(&precise, self.plan.steps, self.seed);
            runner.start(&inputs, &mut |_| Ok(()))?;
            pixels = inputs.colored(runner.finish()?);
            self.precise = Some(precise);
        }
        if let Some(bad) = pixels.iter().find(|v| !v.is_finite()) {
            let (name, at) = (&system.name, tile.padded.scaled(system.scale()));
            let what = format!("the model {name} gave {bad} in place of a pixel");
            let cause = format!("in the tile at {}, {}", at.x, at.y);
            let help = "the weights are damaged or the model diverged";
            return Err(Error::Check(error::Report::new(what, cause).help(help)));
        }
        Ok(pixels)
    }
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
