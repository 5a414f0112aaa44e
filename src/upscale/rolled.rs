//! Pictures that go through the network from top to bottom, by networks that can.
//!
//! ```text
//! rows of the picture -> all calls of the network, each some rows behind the one before -> rows of the output
//! ```
//! Nothing is computed twice, as halos of tiles are, and what is held grows with the width alone.
use std::ops::Range;

use super::enlarge::enlarge;
use super::runner::{check_finite, enlarged, padded_region};
use super::{BandCost, Plan};
use crate::diffusion::rolling::{Noise, RollingWalk};
use crate::diffusion::system::System;
use crate::diffusion::walk::condition;
use crate::engine::device::Device;
use crate::engine::pool::Buffer;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect, resample};
use crate::models::damage::{Damage, TOLD};
use crate::nn::rolling::{BLOCK, Rows};
use crate::ops::{conv2d, parallel};

/// About so many low-resolution pixels pass at once: few enough for caches, enough for the blocks above and below
/// to cost little.
const PIXELS: usize = 1 << 15;
/// Fewer rows would be mostly those blocks.
const LEAST_ROWS: usize = 2 * BLOCK;
/// Wider pictures than this pass in single blocks of rows: what is held grows with the width.
const WIDE: usize = 8192;

/// The plan for a picture of `size` (width, height); none if the network cannot roll, the picture is not higher than
/// a piece, or `memory` bytes do not suffice.
pub(super) fn plan(
    system: &System,
    (width, height): (usize, usize),
    steps: usize,
    memory: u64,
    band: BandCost,
) -> Option<Plan> {
    let least = least_rows(width);
    let most = (PIXELS / width.max(1)).next_multiple_of(BLOCK).max(least);
    let cost = |rows: usize| cost(system, width, rows, steps, band);
    let mut rows = most;
    while cost(rows)? > memory && rows > least {
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
        band: rows as u64 * band.row,
        damage: system.told(Damage::default()),
        period: None,
        rolled: Some(rows),
        strict: false,
    })
}

/// The least bytes for which there is a [`plan`]; none if there never is.
pub(super) fn least_bytes(
    system: &System,
    (width, height): (usize, usize),
    steps: usize,
    band: BandCost,
) -> Option<u64> {
    let rows = least_rows(width);
    if height > rows { cost(system, width, rows, steps, band) } else { None }
}

fn least_rows(width: usize) -> usize {
    if width > WIDE { BLOCK } else { LEAST_ROWS }
}

/// Bytes of a picture of `width` columns that passes in pieces of `rows` rows; none if the network cannot roll.
fn cost(system: &System, width: usize, rows: usize, steps: usize, band: BandCost) -> Option<u64> {
    let possible = RollingWalk::is_possible(&*system.network, &system.config.diffusion);
    if system.network.channels() != 3 || !possible {
        return None;
    }
    let reach = system.network.geometry().receptive_field?;
    let walk = system.network.rolling_bytes(width, rows, steps)?;
    let kept = (reach + 2 * rows) * width * 3 * size_of::<f32>();
    Some(walk + kept as u64 + rows as u64 * band.row)
}

/// A picture on its way.
pub(super) struct Picture<'a> {
    pub(super) system: &'a System,
    pub(super) image: &'a Image,
    pub(super) plan: &'a Plan,
    /// How many rows pass at a time.
    pub(super) rows: usize,
}

impl Picture<'_> {
    /// Takes it through the network; each tile of the plan is handed to `store` with its pixels `[H, W, 3]` in [0, 1].
    /// `on_call` is told of every piece as of so many calls (calls done, calls in all).
    ///
    /// # Errors
    /// Those of both, and pixels that are no numbers.
    pub(super) fn run(
        &self,
        seed: u64,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        store: &mut dyn FnMut(&Tile, &[f32]) -> Result<()>,
    ) -> Result<()> {
        conv2d::keep_weights(|| self.walk(seed, on_call, store))
    }

    fn walk(
        &self,
        seed: u64,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        store: &mut dyn FnMut(&Tile, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let (network, scale) = (&*self.system.network, self.system.scale());
        let (diffusion, steps) = (&self.system.config.diffusion, self.plan.steps);
        let noise = Noise { seed, place: [0, 0], period: self.plan.period };
        let Some(mut walk) =
            RollingWalk::new(network, diffusion, steps, noise, (scale, self.rows))?
        else {
            unreachable!("the plan asked the network")
        };
        let told = Tensor::from_slice_on(&Device::Cpu, &self.plan.damage.told(), &[1, TOLD])?;
        let (width, height) = self.plan.padded;
        let calls = height.div_ceil(self.rows) * steps;
        let mut pieces = Pieces::of(self);
        let mut kept = Kept::default();
        let reach = network.geometry().receptive_field.unwrap_or(height);
        for start in (0..height).step_by(self.rows) {
            let rows = start..(start + self.rows).min(height);
            let last = rows.end == height;
            let low = padded_region(self.image, self.plan, self.system, self.region(&rows))?;
            // Calls are at most that far behind.
            kept.forget(start.saturating_sub(reach + self.rows), 3 * width);
            kept.pixels.extend_from_slice(&low);
            let low = Tensor::from_vec(low, &[1, rows.len(), width, 3]);
            let seen = Rows::shared(start, condition(network, &low, &low, Some(&told))?, 1)?;
            let mut high = |rows: Range<usize>| {
                let y0 = self.enlarged(&rows, &kept)?;
                Ok(Tensor::from_vec(y0, &[1, rows.len() * scale, width * scale, 3]))
            };
            let mut next = Some(&seen);
            loop {
                if let Some(made) = walk.pass(next.take(), last, &mut high)? {
                    pieces.add(made.values(made.at.clone())?, store)?;
                }
                // The calls are behind each other; the last rows bring them to the end.
                if !last || walk.is_done() {
                    break;
                }
            }
            on_call(rows.end.div_ceil(self.rows) * steps, calls)?;
        }
        Ok(())
    }

    /// `rows` enlarged, `[H, W, 3]` in [-1, 1], of what is `kept` where that is enough.
    fn enlarged(&self, rows: &Range<usize>, kept: &Kept) -> Result<Vec<f32>> {
        let (padded, scale) = (self.plan.padded, self.system.scale());
        let high = self.region(rows).scaled(scale);
        let held = resample::bicubic_footprint(high, padded, scale);
        let method = (self.system.config.diffusion.enlarge, scale);
        match kept.rows(held.y..held.bottom(), 3 * padded.0) {
            Some(pixels) => enlarge(pixels, (held, padded), method, high),
            None => Ok(enlarged(self.image, self.plan, self.system, self.region(rows))?.0),
        }
    }

    /// The rows as a region of the padded picture.
    fn region(&self, rows: &Range<usize>) -> Rect {
        Rect::new(0, rows.start, self.plan.padded.0, rows.len())
    }
}

/// Rows as the network saw them, in [-1, 1], until they were enlarged: taking blocks out of them costs more than keeping
/// them.
#[derive(Default)]
struct Kept {
    from: usize,
    pixels: Vec<f32>,
}

impl Kept {
    /// Those of `rows`, of `width` numbers, if all are there.
    fn rows(&self, rows: Range<usize>, width: usize) -> Option<&[f32]> {
        let at = |row: usize| Some(row.checked_sub(self.from)? * width);
        self.pixels.get(at(rows.start)?..at(rows.end)?)
    }

    /// Lets go of the rows before `first`.
    fn forget(&mut self, first: usize, width: usize) {
        let many = (first.saturating_sub(self.from) * width).min(self.pixels.len());
        self.pixels.drain(..many);
        self.from += many / width;
    }
}

/// Cuts rows of the output, as they come, into pieces as high as those of the input.
struct Pieces<'a> {
    picture: &'a Picture<'a>,
    /// The first row of the piece to come.
    from: usize,
    /// Room for a piece, `[H, W, 3]`.
    pixels: Buffer<f32>,
    /// How many numbers of it are there.
    filled: usize,
}

impl<'a> Pieces<'a> {
    fn of(picture: &'a Picture<'a>) -> Self {
        let first = picture.region(&(0..picture.rows)).scaled(picture.system.scale());
        Self { picture, from: 0, pixels: Buffer::new(3 * first.area()), filled: 0 }
    }

    /// Takes `values` in [-1, 1], which follow those before.
    fn add(
        &mut self,
        mut values: &[f32],
        store: &mut dyn FnMut(&Tile, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let Picture { system, plan, rows, .. } = self.picture;
        while !values.is_empty() {
            let piece = self.from..(self.from + rows).min(plan.padded.1);
            let region = self.picture.region(&piece);
            let whole = 3 * region.scaled(system.scale()).area();
            let (now, later) = values.split_at((whole - self.filled).min(values.len()));
            let room = &mut self.pixels[self.filled..][..now.len()];
            parallel::zip2(room, now, |to, v| *to = (v + 1.0) / 2.0);
            values = later;
            self.filled += now.len();
            if self.filled < whole {
                break;
            }
            // Not all is wanted of a texture that was continued.
            if let Some(tile) = plan.tiles.iter().find(|tile| tile.padded == region) {
                let pixels = &self.pixels[..whole];
                check_finite(system, tile, pixels)?;
                store(tile, pixels)?;
            }
            self.filled = 0;
            self.from = piece.end;
        }
        Ok(())
    }
}
