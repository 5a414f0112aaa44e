//! The walk over the tiles of a plan.
use std::collections::VecDeque;

use super::bands::{Bands, Sink};
use super::plan::{Plan, Report};
use super::runner::{Inputs, Runner, Watch, check_finite};
use super::upscaler::Upscaler;
use super::{alpha, rolled, spread};
use crate::diffusion::system::System;
use crate::engine::device::DType;
use crate::error::{Error, Result};
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect, Samples};

/// The tile as two, cut across its longer side; none if it cannot be cut.
fn halves(tile: &Tile, plan: &Plan, grid: usize) -> Option<[Tile; 2]> {
    let core = tile.core;
    let tall = core.height >= core.width;
    let side = if tall { core.height } else { core.width };
    let first = (side / 2).next_multiple_of(grid);
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
    upscale_watched(upscaler, image, plan, seed, on_call, None)
}

/// As [`upscale`]; `watch` sees the states of the walks of all tiles. An image that rolls through the network has none.
///
/// # Errors
/// Those of `upscale` and of `watch`.
pub fn upscale_watched(
    upscaler: &Upscaler,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    watch: Option<&mut Watch<'_>>,
) -> Result<(Image, Report)> {
    let scale = upscaler.system().scale();
    let (width, height) = (image.width * scale, image.height * scale);
    let mut output = Image::new(width, 0, image.color, image.depth());
    output.metadata = image.metadata.clone();
    output.alpha = image.alpha.as_ref().map(|a| Samples::zeros(a.depth(), 0));
    output.samples.reserve(width * height * image.channels());
    let whole = Rect::whole(image.width, image.height);
    let sink = &mut |strip: Image| {
        output.append(&strip);
        Ok(())
    };
    let report = watched(upscaler, image, (plan, whole), seed, on_call, (sink, watch))?;
    Ok((output, report))
}

/// As [`upscale`], but the output goes to `sink` in strips of its whole width, from the top down,
/// without metadata. Its errors end the work.
///
/// # Errors
/// Those of `upscale` and of `sink`.
pub fn upscale_strips(
    upscaler: &Upscaler,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    sink: &mut Sink<'_>,
) -> Result<Report> {
    let whole = Rect::whole(image.width, image.height);
    part_in_strips(upscaler, image, (plan, whole), seed, on_call, sink)
}

/// As [`upscale_strips`], of the part of the image that a plan for it needs.
pub(super) fn part_in_strips(
    upscaler: &Upscaler,
    image: &Image,
    (plan, part): (&Plan, Rect),
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    sink: &mut Sink<'_>,
) -> Result<Report> {
    watched(upscaler, image, (plan, part), seed, on_call, (sink, None))
}

/// The same; `watch` sees the states.
fn watched(
    upscaler: &Upscaler,
    image: &Image,
    (plan, part): (&Plan, Rect),
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    (sink, watch): (&mut Sink<'_>, Option<&mut Watch<'_>>),
) -> Result<Report> {
    let bled = alpha::bled(image);
    let image = bled.as_ref().unwrap_or(image);
    let mut bands = Bands::new(image, plan, upscaler.system().scale(), part);
    let store = &mut |tile: &Tile, pixels: &[f32]| bands.add(tile, pixels, sink);
    if upscaler.systems().len() > 1 && plan.tiles.len() > 1 && watch.is_none() {
        return spread::run(upscaler, image, (plan, seed), on_call, store);
    }
    let mut work = Work::new((upscaler, upscaler.system()), image, plan, seed);
    upscaler.system().computing(|| work.run(on_call, store, watch))?;
    Ok(work.report)
}

/// Takes the pixels `[H, W, 3]` of a tile in [0, 1], halo included.
pub(super) type Store<'a> = dyn FnMut(&Tile, &[f32]) -> Result<()> + 'a;

/// The tiles of an image that are still to be computed, on one device.
pub(super) struct Work<'a> {
    upscaler: &'a Upscaler,
    /// The one of its systems that computes them.
    system: &'a System,
    image: &'a Image,
    plan: &'a Plan,
    seed: u64,
    queue: VecDeque<Tile>,
    batch: usize,
    /// Calls of the network so far.
    done: usize,
    /// For tiles that half precision cannot hold, once there was one.
    precise: Option<System>,
    pub(super) report: Report,
}

impl<'a> Work<'a> {
    /// All tiles of `plan`, on `system`, one of those of `upscaler`.
    pub(super) fn new(
        (upscaler, system): (&'a Upscaler, &'a System),
        image: &'a Image,
        plan: &'a Plan,
        seed: u64,
    ) -> Self {
        Self {
            upscaler,
            system,
            image,
            plan,
            seed,
            queue: plan.tiles.iter().copied().collect(),
            batch: plan.batch,
            done: 0,
            precise: None,
            report: Report::default(),
        }
    }

    /// Those of its tiles that `tiles` are, at most `batch` at a time.
    pub(super) fn of(self, tiles: VecDeque<Tile>, batch: usize) -> Self {
        Self { queue: tiles, batch, ..self }
    }

    /// Computes all tiles, each handed to `store`, in their order; halved ones in pieces.
    pub(super) fn run(
        &mut self,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        store: &mut Store<'_>,
        mut watch: Option<&mut Watch<'_>>,
    ) -> Result<()> {
        let system = self.system;
        if let Some(rows) = self.plan.rolled {
            let whole = rolled::Picture { system, image: self.image, plan: self.plan, rows };
            return whole.run(self.seed, on_call, store);
        }
        let mut runner = Runner::new(system, self.plan, self.seed);
        let mut prepared = self.prepare()?;
        while let Some(mut inputs) = prepared.take() {
            let calls = inputs.tiles.len() * self.plan.steps;
            let total = self.done + calls + self.queue.len() * self.plan.steps;
            let before = self.done;
            let count = inputs.tiles.len();
            let mut told = |k: usize| on_call(before + k * count, total);
            let watch = watch.as_mut().map(|watch| &mut **watch as &mut Watch<'_>);
            match runner.start(&mut inputs, &mut told, watch) {
                Ok(()) => {}
                Err(full @ Error::Memory(_)) if !self.plan.strict => {
                    // What the runner holds would stay on the device beside the smaller tiles.
                    runner = Runner::new(system, self.plan, self.seed);
                    self.make_smaller(inputs.tiles, full)?;
                    prepared = self.prepare()?;
                    continue;
                }
                Err(other) => return Err(other),
            }
            // A GPU is busy now: time to prepare what follows.
            prepared = self.prepare()?;
            let _beside = inputs.beside_pixels();
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
        Inputs::of(self.image, self.plan, self.system, tiles).map(Some)
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
        let grid = self.system.network.tile_align();
        let all: Vec<Tile> = tiles.into_iter().chain(self.queue.drain(..)).collect();
        for tile in all {
            match halves(&tile, self.plan, grid) {
                Some(parts) => self.queue.extend(parts),
                None => return Err(full),
            }
        }
        Ok(())
    }

    /// One tile again in single precision.
    fn again(&mut self, tile: &Tile) -> Result<Vec<f32>> {
        let system = self.system;
        let mut inputs = Inputs::of(self.image, self.plan, system, vec![*tile])?;
        let mut pixels = vec![f32::NAN];
        if system.dtype() != DType::F32 && !self.plan.strict {
            self.report.redone += 1;
            let precise = match self.precise.take() {
                Some(precise) => precise,
                None => self.upscaler.precise(system)?,
            };
            let mut runner = Runner::new(&precise, self.plan, self.seed);
            pixels = precise.computing(|| {
                runner.start(&mut inputs, &mut |_| Ok(()), None)?;
                runner.finish()
            })?;
            pixels = inputs.colored(pixels);
            self.precise = Some(precise);
        }
        check_finite(system, tile, &pixels)?;
        Ok(pixels)
    }
}
