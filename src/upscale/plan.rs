//! What is asked of an upscaling, and what is planned of it.
use crate::imaging::Rect;
use crate::imaging::tiles::Tile;
use crate::models::damage::Damage;
use crate::ops::noise::Period;

/// How large tiles are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TileSize {
    /// As large as the memory budget allows.
    Auto,
    /// The whole image at once.
    None,
    /// Squares of about this many low-resolution pixels a side.
    Side(usize),
    /// Rectangles of about this width and height.
    Sides(usize, usize),
}

/// The seed where none is given, in the binary and in the library.
pub const SEED: u64 = 42;

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
    /// Estimated peak of memory for the tiles and the band of the output, in bytes.
    pub memory: u64,
    /// The share of the band in that.
    pub band: u64,
    /// What is known of the damage to the image, for networks that can be told.
    pub damage: Damage,
    /// Where the noise begins again, for textures.
    pub period: Option<Period>,
    /// How many rows at a time go through the network, where the image does so from top to bottom and is never held
    /// whole; tiles are as wide as the image then.
    pub rolled: Option<usize>,
    /// Whether a tile that is not finite in half precision, or a device that is full, is an error: nothing is computed
    /// again in another way.
    pub strict: bool,
}

impl Plan {
    /// How many pixels the network computes for one of the result: above 1 by what surrounds tiles.
    pub fn effort(&self) -> f64 {
        let area = |of: fn(&Tile) -> &Rect| self.tiles.iter().map(|t| of(t).area()).sum::<usize>();
        area(|t| &t.padded) as f64 / area(|t| &t.core).max(1) as f64
    }
}

/// What the rows of a picture's output take until they are handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BandCost {
    /// Bytes for each low-resolution row of a tile.
    pub row: u64,
    /// The same where tiles are blended.
    pub blended: u64,
    /// Bytes that bands may take on a GPU, where they are in other memory than tiles; on the CPU both
    /// share [`Settings::memory`].
    pub host: u64,
}
