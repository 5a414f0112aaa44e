//! The tiles of an image that are still to be computed, on one device.
use std::collections::VecDeque;

use super::plan::{Plan, Report};
use super::rolled;
use super::runner::{Inputs, Runner, Watch, check_finite};
use super::upscaler::Upscaler;
use crate::diffusion::system::System;
use crate::engine::device::DType;
use crate::error::{Error, Result};
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect};

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
