//! TIFF, uncompressed, a strip of the file at a time.
use std::io::{self, Seek, Write};

use image::ExtendedColorType;
use tiff::encoder::colortype::{self, ColorType};
use tiff::encoder::{
    DirectoryEncoder, ImageEncoder, Rational, TiffEncoder, TiffKindStandard, TiffValue,
};
use tiff::tags::{IfdPointer, ResolutionUnit, Tag, Type};
use tiff::{Directory, TiffError, TiffResult};

use super::rows::{Outline, Rows};
use crate::engine::files::WriteSeek;
use crate::imaging::Metadata;
use crate::imaging::exif::fields::{self, Field, Fields};

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
    let fields = image.metadata.exif.as_deref().and_then(Fields::of).unwrap_or_default();
    let exif = directory(&mut file, &fields.exif).map_err(plain)?;
    let gps = directory(&mut file, &fields.gps).map_err(plain)?;
    let mut encoder = file.new_image::<C>(width, height).map_err(plain)?;
    describe(&mut encoder, &image.metadata, &fields.main, [exif, gps]).map_err(plain)?;
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

/// Writes a directory of its own and tells where it is; none if it would be empty.
fn directory<W: Write + Seek>(
    file: &mut TiffEncoder<W>,
    fields: &[Field],
) -> TiffResult<Option<IfdPointer>> {
    if fields.is_empty() {
        return Ok(None);
    }
    let mut directory = file.extra_directory()?;
    write_fields(&mut directory, fields)?;
    Ok(Some(directory.finish_with_offsets()?.pointer))
}

fn write_fields<W: Write + Seek>(
    directory: &mut DirectoryEncoder<'_, W, TiffKindStandard>,
    fields: &[Field],
) -> TiffResult<()> {
    for field in fields {
        // Types that are unknown were left out when the fields were read.
        let Some(kind) = Type::from_u16(field.kind) else { continue };
        let mut value = field.value.clone();
        if cfg!(target_endian = "big") {
            let unit = fields::sizes(field.kind).map_or(1, |(unit, _)| unit);
            value.chunks_exact_mut(unit).for_each(<[u8]>::reverse);
        }
        let entry = directory.write_entry_bytes(kind, &value)?;
        let mut one = Directory::empty();
        one.extend([(Tag::from_u16_exhaustive(field.tag), entry)]);
        directory.extend_from(&one);
    }
    Ok(())
}

fn describe<W: Write + Seek, C: ColorType>(
    encoder: &mut ImageEncoder<'_, W, C, TiffKindStandard>,
    metadata: &Metadata,
    main: &[Field],
    [exif, gps]: [Option<IfdPointer>; 2],
) -> TiffResult<()> {
    if let Some((x, y)) = metadata.density {
        // Exact for whole pixels per inch as well, which metres round.
        let inch = |metre: u32| Rational { n: (metre * 254 + 5) / 10, d: 1000 };
        encoder.resolution_unit(ResolutionUnit::Inch);
        encoder.x_resolution(inch(x.min(1 << 24)));
        encoder.y_resolution(inch(y.min(1 << 24)));
    }
    let directory = encoder.encoder();
    write_fields(directory, main)?;
    if let Some(icc) = &metadata.icc {
        directory.write_tag(Tag::IccProfile, icc.as_slice())?;
    }
    if let Some(xmp) = &metadata.xmp {
        directory.write_tag(Tag::Unknown(700), xmp.as_slice())?;
    }
    for (tag, pointer) in [(Tag::ExifDirectory, exif), (Tag::GpsDirectory, gps)] {
        if let Some(at) = pointer.and_then(|p| u32::try_from(p.0).ok()) {
            directory.write_tag(tag, at)?;
        }
    }
    Ok(())
}

fn plain(error: TiffError) -> io::Error {
    match error {
        TiffError::IoError(error) => error,
        error => io::Error::other(error),
    }
}
