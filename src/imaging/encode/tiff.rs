//! TIFF, uncompressed, a strip of the file at a time.
use std::io;

use image::ExtendedColorType;
use tiff::encoder::colortype::{self, ColorType};
use tiff::encoder::{TiffEncoder, TiffValue};
use tiff::tags::Tag;
use tiff::{TiffError, TiffResult};

use super::rows::{Outline, Rows};
use crate::engine::files::WriteSeek;

/// Encodes the picture whose rows are `rows`, of the colours `color`.
pub(super) fn encode(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    color: ExtendedColorType,
    rows: &mut Rows<'_, '_>,
) -> io::Result<()> {
    match color {
        ExtendedColorType::L8 => strips::<colortype::Gray8>(writer, image, rows),
        ExtendedColorType::L16 => strips::<colortype::Gray16>(writer, image, rows),
        ExtendedColorType::Rgb8 => strips::<colortype::RGB8>(writer, image, rows),
        ExtendedColorType::Rgb16 => strips::<colortype::RGB16>(writer, image, rows),
        ExtendedColorType::Rgba8 => strips::<colortype::RGBA8>(writer, image, rows),
        ExtendedColorType::Rgba16 => strips::<colortype::RGBA16>(writer, image, rows),
        other => Err(io::Error::other(format!("TIFF holds no {other:?}"))),
    }
}

fn strips<C>(writer: &mut dyn WriteSeek, image: &Outline, rows: &mut Rows<'_, '_>) -> io::Result<()>
where
    C: ColorType<Inner: bytemuck::Pod>,
    [C::Inner]: TiffValue,
{
    let size = |v: usize| u32::try_from(v).map_err(io::Error::other);
    let (width, height) = (size(image.width)?, size(image.height)?);
    let begin = || -> TiffResult<_> { TiffEncoder::new(writer) };
    let mut file = begin().map_err(plain)?;
    let mut encoder = file.new_image::<C>(width, height).map_err(plain)?;
    if let Some(icc) = &image.metadata.icc {
        encoder.encoder().write_tag(Tag::IccProfile, icc.as_slice()).map_err(plain)?;
    }
    if let Some(stamp) = &image.metadata.stamp {
        encoder.encoder().write_tag(Tag::Software, stamp.as_str()).map_err(plain)?;
    }
    let row = image.width * C::BITS_PER_SAMPLE.len();
    let mut bytes = Vec::new();
    while rows.left() > 0 {
        let samples = usize::try_from(encoder.next_strip_sample_count()).unwrap_or(row);
        bytes.clear();
        rows.read((samples / row).max(1), &mut bytes)?;
        encoder
            .write_strip(&bytemuck::pod_collect_to_vec::<u8, C::Inner>(&bytes))
            .map_err(plain)?;
    }
    encoder.finish().map_err(plain)
}

fn plain(error: TiffError) -> io::Error {
    match error {
        TiffError::IoError(error) => error,
        error => io::Error::other(error),
    }
}
