//! Pictures that go through the network from top to bottom, by networks that can.
//!
//! ```text
//! rows of the picture -> all calls of the network, each some rows behind the one before -> rows of the output
//! ```
//! Nothing is computed twice, as halos of tiles are, and what is held grows with the width alone.
use super::runner::{enlarged, padded_region};
use super::{BandCost, Plan, check_finite};
use crate::diffusion::rolling::RollingWalk;
use crate::diffusion::sampler::condition;
use crate::diffusion::system::System;
use crate::engine::device::Device;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect};
use crate::models::damage::{Damage, TOLD};
use crate::nn::rolling::{BLOCK, Rows};

/// About so many low-resolution pixels pass at once: few enough for caches, enough for the blocks above and below
/// to cost little.
const PIXELS: usize = 1 << 16;
/// Fewer rows would be mostly those blocks.
const LEAST_ROWS: usize = 4 * BLOCK;

/// The plan for a picture of `size` (width, height); none if the network cannot roll, the picture is not higher than
/// a piece, or `memory` bytes do not suffice.
pub(super) fn plan(
    system: &System,
    (width, height): (usize, usize),
    steps: usize,
    memory: u64,
    band: BandCost,
) -> Option<Plan> {
    if system.network.channels() != 3 {
        return None;
    }
    let most = (PIXELS / width.max(1)).next_multiple_of(BLOCK).max(LEAST_ROWS);
    let cost = |rows: usize| {
        let walk = system.network.rolling_bytes(width, rows, steps)?;
        Some(walk + rows as u64 * band.row)
    };
    let mut rows = most;
    while cost(rows)? > memory && rows > LEAST_ROWS {
        rows -= BLOCK;
    }
    if cost(rows)? > memory || height <= rows {
        return None;
    }
    let piece = |y: usize| {
        let core = Rect::new(0, y, width, rows.min(height - y));
        Tile { core, padded: core }
    };
    Some(Plan {
        padded: (width, height),
        tiles: (0..height).step_by(rows).map(piece).collect(),
        batch: 1,
        steps,
        halo: 0,
        blended: false,
        memory: cost(rows)?,
        damage: Damage::default(),
        rolled: true,
    })
}

/// Takes `image` through the network along `plan`; each piece is handed to `store` with its pixels `[H, W, 3]` in
/// [0, 1]. `on_call` is told of every piece as of so many calls (calls done, calls in all).
///
/// # Errors
/// Those of both, and pixels that are no numbers.
pub(super) fn run(
    system: &System,
    image: &Image,
    plan: &Plan,
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    store: &mut dyn FnMut(&Tile, &[f32]) -> Result<()>,
) -> Result<()> {
    let (network, scale) = (&*system.network, system.scale());
    let from = (seed, [0, 0], scale);
    let Some(mut walk) = RollingWalk::new(network, &system.config.diffusion, plan.steps, from)?
    else {
        unreachable!("the plan asked the network")
    };
    let told = Tensor::from_slice_on(&Device::Cpu, &plan.damage.told(), &[1, TOLD])?;
    let (width, calls) = (plan.padded.0, plan.tiles.len() * plan.steps);
    let region = |rows: std::ops::Range<usize>| Rect::new(0, rows.start, width, rows.len());
    let mut out = Pieces { tiles: &plan.tiles, scale, pixels: Vec::new() };
    for (i, tile) in plan.tiles.iter().enumerate() {
        let (rows, last) = (tile.core.y..tile.core.bottom(), i + 1 == plan.tiles.len());
        let low = padded_region(image, tile.core)?;
        let low = Tensor::from_vec(low, &[1, rows.len(), width, 3]);
        let seen = condition(network, &low, &low, Some(&told))?;
        let seen = Rows::shared(rows.start, seen, 1)?;
        let mut high = |rows: std::ops::Range<usize>| {
            let (y0, _) = enlarged(image, plan, system, region(rows.clone()))?;
            Ok(Tensor::from_vec(y0, &[1, rows.len() * scale, width * scale, 3]))
        };
        if let Some(made) = walk.pass(&seen, last, &mut high)? {
            out.add(made.values(made.at.clone())?, system, store)?;
        }
        on_call((i + 1) * plan.steps, calls)?;
    }
    Ok(())
}

/// Cuts rows of the output, as they come, into the pieces of the plan.
struct Pieces<'a> {
    /// Those to come.
    tiles: &'a [Tile],
    scale: usize,
    pixels: Vec<f32>,
}

impl Pieces<'_> {
    /// Takes `values` in [-1, 1], which follow those before.
    fn add(
        &mut self,
        mut values: &[f32],
        system: &System,
        store: &mut dyn FnMut(&Tile, &[f32]) -> Result<()>,
    ) -> Result<()> {
        while let Some((tile, rest)) = self.tiles.split_first() {
            let wanted = 3 * tile.core.area() * self.scale * self.scale - self.pixels.len();
            let (now, later) = values.split_at(wanted.min(values.len()));
            self.pixels.extend(now.iter().map(|v| (v + 1.0) / 2.0));
            values = later;
            if now.len() < wanted {
                break;
            }
            check_finite(system, tile, &self.pixels)?;
            store(tile, &self.pixels)?;
            self.pixels.clear();
            self.tiles = rest;
        }
        Ok(())
    }
}
