//! AVIF by rav1e, an encoder of AV1 in Rust: lossy, 8 bits, the picture held whole.
use std::io;

use image::codecs::avif::AvifEncoder;
use image::{ExtendedColorType, ImageEncoder};

use super::outline::Outline;
use super::rows::{Rows, size};
use super::shared::{plain, set_metadata};
use crate::engine::files::WriteSeek;

/// From 1, slow and small, to 10: a megapixel takes about a second on a core.
const SPEED: u8 = 7;

/// Writes the picture of `rows`; `quality` is 1..=100.
pub(super) fn encode(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    color: ExtendedColorType,
    quality: u8,
    rows: &mut Rows<'_, '_>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    rows.read(image.height, &mut bytes)?;
    let mut encoder = AvifEncoder::new_with_speed_quality(writer, SPEED, quality.clamp(1, 100));
    set_metadata(&mut encoder, image);
    encoder.write_image(&bytes, size(image.width)?, size(image.height)?, color).map_err(plain)
}
