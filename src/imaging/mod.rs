//! Images: files in and out, resampling, colour, tiles, metrics and comparison sheets.
//!
//! An [`Image`] keeps samples as the file has them, 8 or 16 bits, gray or RGB, so that a large
//! output stays a few hundred megabytes; floating point exists only for the region that is being
//! worked on.
//!
//! ```text
//! samples   [H, W, C] interleaved, C = 1 (gray) or 3 (RGB), 0..=255 or 0..=65535
//! alpha     [H, W], same depth as the samples, not premultiplied
//! f32       [H, W, C] in [0, 1]: sample / 255 or sample / 65535
//! ```
pub mod artefacts;
pub mod blocks;
mod cmyk;
pub mod color;
mod containers;
pub mod damage;
pub mod deblock;
pub mod decode;
pub mod encode;
mod exif;
pub mod folder;
mod font;
pub mod header;
mod image;
mod input;
mod jpeg;
pub mod lossy;
mod metadata;
pub mod metrics;
pub mod niqe;
mod rect;
pub mod resample;
mod samples;
pub mod sheet;
pub mod stamp;
pub mod tiles;
mod variants;
mod vp8;

pub use decode::decode;
pub use decode::read;
pub use encode::EncodeOptions;
pub use encode::Format;
pub use encode::check_output;
pub use encode::encode;
pub use encode::write;
pub(crate) use image::narrow;
pub use image::{Color, Depth, Image, Samples};
use image::{quantise, quantise_u8};
pub use metadata::Metadata;
pub use rect::Rect;
