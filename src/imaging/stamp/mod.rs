//! What an output of srk says of itself: one line of text, by which the next run knows it.
//!
//! ```text
//! srk 0.2.0 model=srk-x4 scale=4 seed=42 steps=4
//! ```
//!
//! PNG holds it as text, JPEG, WebP and TIFF in their EXIF: under `Software`, or beside a `Software` of the
//! input under `srk` and `ProcessingSoftware`. BMP and PNM have no place for it.
mod file;
mod line;

pub use file::of_file;
pub(super) use line::texts;
pub use line::{is_stamp, stamp};
