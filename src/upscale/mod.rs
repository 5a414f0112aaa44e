//! The upscaling pipeline: an image in, an image out, tile by tile.
//!
//! The image stays in memory as it was decoded; tiles of it run through the sampler one after the
//! other, on a GPU in batches, the next of which is prepared while one runs. The output is handed on
//! in strips as soon as a row of tiles is complete ([`bands`]), so that it is never held whole. A network with a bounded receptive field gets tiles with a halo as wide as it can see over
//! all steps, so that the tiled result equals the untiled one bit for bit; other networks get
//! overlapping tiles that are blended.
pub mod alpha;
pub mod bands;
mod bounds;
pub mod budget;
pub mod choice;
pub mod color_fix;
pub mod enlarge;
pub mod globs;
pub mod jobs;
mod layout;
pub mod names;
pub mod pipeline;
mod plan;
mod rolled;
mod runner;
pub mod shard;
mod smooth;
mod spread;
mod tiled;
pub mod tta;
mod upscaler;
mod work;
pub mod wrap;

use layout::WIDEST_HALO;
pub use layout::{least_bytes, plan, plan_bands};
pub use plan::{BandCost, Plan, Report, SEED, Settings, TileSize};
pub use runner::{Seen, Watch};
use tiled::part_in_strips;
pub use tiled::{upscale, upscale_strips, upscale_watched};
pub use upscaler::Upscaler;
