//! The plan: tiles of which size, their halo, how many at once, and what that takes.
use super::plan::{BandCost, Plan, Settings, TileSize};
use super::rolled;
use super::upscaler::Upscaler;
use crate::diffusion::system::System;
use crate::engine::device::Device;
use crate::engine::memory;
use crate::error;
use crate::error::{Error, Result};
use crate::imaging::tiles::Tile;
use crate::imaging::{Rect, tiles};
use crate::models::Network;
use crate::models::damage::Damage;

/// The widest halo that tiles carry, in low-resolution pixels. A network that sees further (the bits of RRDBNet of 23
/// blocks depend on 1,396 pixels each way) would spend almost all its work on halos: it gets the whole image at once
/// where that fits, else tiles that overlap and are blended.
pub(super) const WIDEST_HALO: usize = 160;

/// Plans the tiles for an image of `width` x `height` whose output is collected by the caller.
///
/// # Errors
/// [`Error::Memory`] if not even the smallest tile fits the budget.
pub fn plan(upscaler: &Upscaler, width: usize, height: usize, settings: &Settings) -> Result<Plan> {
    let free = BandCost { row: 0, blended: 0, host: u64::MAX };
    plan_bands(upscaler, width, height, settings, free)
}

/// Plans the tiles for an image of `width` x `height` whose output goes on band by band at the cost of
/// `band`.
///
/// # Errors
/// [`Error::Memory`] if not even the smallest tile fits the budget.
pub fn plan_bands(
    upscaler: &Upscaler,
    width: usize,
    height: usize,
    settings: &Settings,
    band: BandCost,
) -> Result<Plan> {
    let cuts = match lay_out(upscaler, (width, height), settings, band)? {
        Laid::Rolled(plan) => return Ok(*plan),
        Laid::Cut(cuts) => cuts,
    };
    let Cuts { padded, steps, halo, blended, grid, core, cost, held } = cuts;
    let system = upscaler.system();
    let on_gpu = system.network.device() != Device::Cpu;
    let held = if on_gpu { 0 } else { held };
    let tiles = tiles::plan(padded.0, padded.1, core, halo, grid);
    let tiles = if on_gpu && tiles.len() > 1 { equal(tiles, padded) } else { tiles };
    // The CPU gains nothing from batches.
    let fitting = usize::try_from(room(system, settings) / cost.max(1)).unwrap_or(usize::MAX);
    let batch = if on_gpu { fitting.clamp(1, tiles.len().max(1)) } else { 1 };
    let memory = cost * batch as u64 + held;
    let damage = system.told(Damage::default());
    let band = held;
    Ok(Plan {
        padded,
        tiles,
        batch,
        steps,
        halo,
        blended,
        memory,
        band,
        damage,
        period: None,
        rolled: None,
        strict: false,
    })
}

/// The least bytes in which an image of `width` x `height` goes through on the CPU, with its band: in the smallest tiles,
/// or from top to bottom.
///
/// # Errors
/// None, where tiles have a size that is given.
pub fn least_bytes(
    upscaler: &Upscaler,
    width: usize,
    height: usize,
    settings: &Settings,
    band: BandCost,
) -> Result<u64> {
    let settings = Settings { tile: TileSize::Side(1), memory: u64::MAX, ..*settings };
    Ok(match lay_out(upscaler, (width, height), &settings, band)? {
        Laid::Rolled(plan) => plan.memory,
        Laid::Cut(cuts) => {
            let rolled = rolled::least_bytes(upscaler.system(), cuts.padded, cuts.steps, band);
            let tiles = cuts.cost.saturating_add(cuts.held);
            rolled.map_or(tiles, |rolled| rolled.min(tiles))
        }
    })
}

/// How an image goes through the network, before there is a list of tiles, which may be long.
enum Laid {
    Rolled(Box<Plan>),
    Cut(Cuts),
}

/// Where tiles are cut.
pub(super) struct Cuts {
    padded: (usize, usize),
    steps: usize,
    halo: usize,
    blended: bool,
    /// What tiles begin at multiples of.
    grid: usize,
    /// Width and height.
    core: [usize; 2],
    /// Bytes of the largest tile, and of the rows of the output that are held.
    cost: u64,
    held: u64,
}

fn lay_out(
    upscaler: &Upscaler,
    (width, height): (usize, usize),
    settings: &Settings,
    band: BandCost,
) -> Result<Laid> {
    let system = upscaler.system();
    let geometry = system.network.geometry();
    let align = geometry.align;
    let steps = settings.steps.unwrap_or_else(|| system.default_steps());
    let steps = steps.min(system.config.diffusion.process.steps());
    let padded = (width.next_multiple_of(align), height.next_multiple_of(align));
    let on_gpu = system.network.device() != Device::Cpu;
    let per_pixel = bytes_per_pixel(system);
    let packed = if on_gpu { 0 } else { packed_weights(&*system.network) };
    let of_size = |width: usize, height: usize| match on_gpu {
        true => (width * height) as u64 * per_pixel,
        false => {
            let between = between_tiles(system.scale(), system.network.channels());
            let between = (width * height * between * size_of::<f32>()) as u64;
            let peak = system.network.bytes_on_cpu(width, height).max(between);
            // With room for buffers that are asked for again: fresh ones cost a third of a convolution's time.
            peak.saturating_add(peak / 8).saturating_add(packed)
        }
    };
    let at_once = match settings.tile {
        TileSize::None => true,
        TileSize::Side(side) => side >= padded.0.max(padded.1),
        TileSize::Sides(width, height) => width >= padded.0 && height >= padded.1,
        TileSize::Auto => {
            let sees_all = geometry.receptive_field.is_none();
            let rows = padded.1 as u64 * if sees_all { band.blended } else { band.row };
            of_size(padded.0, padded.1).saturating_add(rows) <= room(system, settings)
        }
    };
    if settings.tile == TileSize::Auto
        && !on_gpu
        && let Some(plan) = rolled::plan(system, padded, steps, settings.memory, band)
    {
        return Ok(Laid::Rolled(Box::new(plan)));
    }
    let (halo, blended) = match geometry.receptive_field {
        None => (system.network.overlap(), true),
        Some(reach) if reach * steps <= WIDEST_HALO => (reach * steps, false),
        Some(_) if system.config.model.is_direct() && !at_once => (system.network.overlap(), true),
        Some(reach) => (reach * steps, false),
    };
    // From here on what matters is where tiles start.
    let grid = system.network.tile_align();
    let halo = halo.next_multiple_of(grid);
    // Rows that blended tiles share are held, too.
    let (shared, row) = if blended { (2 * halo, band.blended) } else { (0, band.row) };
    // Bytes of the largest of the tiles with cores of `core`, and of the rows that are held with them.
    let bytes = |core: [usize; 2]| {
        let sizes = tiles::sizes(padded.0, padded.1, core, halo, grid);
        let cost = sizes.padded.iter().map(|&(width, height)| of_size(width, height)).max();
        let rows = if sizes.padded.is_empty() { 0 } else { sizes.core_height + shared };
        (cost.unwrap_or(0), rows as u64 * row)
    };
    let too_large = |(cost, held): (u64, u64)| match on_gpu {
        true => cost > room(system, settings) || held > band.host,
        false => cost.saturating_add(held) > settings.memory,
    };
    let whole = padded.0.max(padded.1).next_multiple_of(grid);
    let core = match settings.tile {
        TileSize::None => [whole; 2],
        // No tile is larger than the picture.
        TileSize::Side(side) => [side.clamp(1, whole).next_multiple_of(grid); 2],
        TileSize::Sides(width, height) => {
            [width, height].map(|side| side.clamp(1, whole).next_multiple_of(grid))
        }
        TileSize::Auto => {
            let mut core = whole;
            while core > grid && too_large(bytes([core; 2])) {
                // Fewer, equal parts rather than a large tile and a sliver.
                let parts = whole.div_ceil(core) + 1;
                core = whole.div_ceil(parts).next_multiple_of(grid).min(core - grid);
            }
            [core; 2]
        }
    };
    let (cost, held) = bytes(core);
    if settings.tile == TileSize::Auto && too_large((cost, held)) {
        return Err(does_not_fit((width, height), cost + held, settings.memory));
    }
    Ok(Laid::Cut(Cuts { padded, steps, halo, blended, grid, core, cost, held }))
}

/// Bytes for each low-resolution pixel of a tile on a GPU: of the network, and of the images around it.
fn bytes_per_pixel(system: &System) -> u64 {
    let network = &system.network;
    // The state, what it came from and what the network says of it; or what it makes alone.
    let images = if system.config.model.is_direct() { 1 } else { 3 };
    let around = network.channels() * (images * system.scale() * system.scale() + 1);
    (network.dtype().size() * network.floats_on_gpu() + size_of::<f32>() * around) as u64
}

/// Bytes that tiles in flight may take: on a GPU no more than a tensor may have whose elements kernels count, so that
/// none of theirs has more.
fn room(system: &System, settings: &Settings) -> u64 {
    let network = &system.network;
    match network.device() {
        Device::Cpu => settings.memory,
        Device::Cuda(_) => settings.memory.min(i32::MAX as u64 * network.dtype().size() as u64),
    }
}

/// Bytes of the largest weights as a convolution of the processor wants them: 36 frequencies of a 3x3 kernel.
fn packed_weights(network: &dyn Network) -> u64 {
    let of = |shape: &[usize]| match *shape {
        [outputs, 3, 3, inputs] => 36 * outputs.next_multiple_of(16) * inputs.next_multiple_of(16),
        _ => shape.iter().product(),
    };
    let largest = network.parameters().iter().map(|p| of(p.value().shape())).max();
    (largest.unwrap_or(0) * size_of::<f32>()) as u64
}

/// Floats for each low-resolution pixel of a tile that are held when it is done and the next is cut: its
/// enlargement and its result as they were computed and as they are stored, and what the next one is made of.
fn between_tiles(scale: usize, channels: usize) -> usize {
    let pixels = match channels {
        1 => 2 + 7 + 3 + 4,
        _ => 12,
    };
    pixels * scale * scale + 12
}

fn does_not_fit((width, height): (usize, usize), needed: u64, budget: u64) -> Error {
    let (needed, budget) = (memory::in_words(needed), memory::in_words(budget));
    let cause = format!("the smallest tile needs {needed}, the budget is {budget}");
    let report = error::Report::new(format!("{width}x{height} does not fit in memory"), cause);
    Error::Memory(report.help("give more with --ram, or use fewer --steps"))
}

/// The tiles, read from regions of one size, so that they can run in batches: regions at the edges of
/// the image grow inwards.
pub(super) fn equal(tiles: Vec<Tile>, (width, height): (usize, usize)) -> Vec<Tile> {
    let largest = |side: fn(&Rect) -> usize| tiles.iter().map(|t| side(&t.padded)).max();
    let (w, h) = (largest(|r| r.width).unwrap_or(0), largest(|r| r.height).unwrap_or(0));
    let grown = |tile: &Tile| {
        let (x, y) = (tile.padded.x.min(width - w), tile.padded.y.min(height - h));
        Tile { core: tile.core, padded: Rect::new(x, y, w, h) }
    };
    tiles.iter().map(grown).collect()
}
