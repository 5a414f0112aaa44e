//! TIFF, a strip of the file at a time.
use std::io::{self, Seek, Write};

use flate2::write::ZlibEncoder;
use image::ExtendedColorType;
use tiff::encoder::colortype::{self, ColorType};
use tiff::encoder::{
    DirectoryEncoder, Predictor, Rational, TiffEncoder, TiffKindStandard, TiffValue,
};
use tiff::tags::{CompressionMethod, IfdPointer, ResolutionUnit, Tag, Type};
use tiff::{Directory, TiffError, TiffResult};
use weezl::BitOrder;

use super::TiffCompression;
use super::rows::{Outline, Rows};
use crate::engine::files::WriteSeek;
use crate::imaging::Metadata;
use crate::imaging::exif::fields::{self, Field, Fields};

/// Encodes the picture whose rows are `rows`, of the colours `color`.
pub(super) fn encode(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    color: ExtendedColorType,
    packed: TiffCompression,
    rows: &mut Rows<'_, '_>,
) -> io::Result<()> {
    match color {
        ExtendedColorType::L8 => strips::<colortype::Gray8>(writer, image, packed, rows),
        ExtendedColorType::L16 => strips::<colortype::Gray16>(writer, image, packed, rows),
        ExtendedColorType::Rgb8 => strips::<colortype::RGB8>(writer, image, packed, rows),
        ExtendedColorType::Rgb16 => strips::<colortype::RGB16>(writer, image, packed, rows),
        ExtendedColorType::Rgba8 => strips::<colortype::RGBA8>(writer, image, packed, rows),
        ExtendedColorType::Rgba16 => strips::<colortype::RGBA16>(writer, image, packed, rows),
        other => Err(io::Error::other(format!("TIFF holds no {other:?}"))),
    }
}

fn strips<C>(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    packed: TiffCompression,
    rows: &mut Rows<'_, '_>,
) -> io::Result<()>
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
    let row = image.width * C::BITS_PER_SAMPLE.len();
    if packed != TiffCompression::None {
        let mut directory = file.image_directory().map_err(plain)?;
        describe(&mut directory, &image.metadata, &fields.main, [exif, gps]).map_err(plain)?;
        return pack_strips::<C, _>(directory, (width, height), packed, row, rows);
    }
    let mut encoder = file.new_image::<C>(width, height).map_err(plain)?;
    describe(encoder.encoder(), &image.metadata, &fields.main, [exif, gps]).map_err(plain)?;
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

/// Bytes of a strip before it is packed, about, as the `tiff` package has it.
const STRIP_BYTES: usize = 1_000_000;

/// Writes packed strips and what describes them. The encoder of the `tiff` package packs only pictures that are
/// held as a whole.
fn pack_strips<C, W>(
    mut directory: DirectoryEncoder<'_, W, TiffKindStandard>,
    (width, height): (u32, u32),
    packed: TiffCompression,
    row: usize,
    rows: &mut Rows<'_, '_>,
) -> io::Result<()>
where
    C: ColorType<Inner: bytemuck::Pod>,
    W: Write + Seek,
{
    let channels = C::BITS_PER_SAMPLE.len();
    let row_bytes = row * size_of::<C::Inner>();
    let per_strip = STRIP_BYTES.div_ceil(row_bytes.max(1));
    let (mut offsets, mut counts, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    let small = |v: u64| u32::try_from(v).map_err(|_| io::Error::other("a TIFF ends at 4 GiB"));
    while rows.left() > 0 {
        bytes.clear();
        rows.read(per_strip, &mut bytes)?;
        for row in bytes.chunks_exact_mut(row_bytes) {
            match size_of::<C::Inner>() {
                1 => differences(row, channels, |a, b| a.wrapping_sub(b)),
                _ => {
                    let mut wide: Vec<u16> = bytemuck::pod_collect_to_vec(row);
                    differences(&mut wide, channels, |a, b| a.wrapping_sub(b));
                    row.copy_from_slice(bytemuck::cast_slice(&wide));
                }
            }
        }
        let strip = match packed {
            TiffCompression::Lzw => {
                let mut lzw = weezl::encode::Encoder::with_tiff_size_switch(BitOrder::Msb, 8);
                lzw.encode(&bytes).map_err(io::Error::other)?
            }
            _ => {
                let mut zlib = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                zlib.write_all(&bytes)?;
                zlib.finish()?
            }
        };
        offsets.push(small(directory.write_data(&strip[..]).map_err(plain)?)?);
        counts.push(small(strip.len() as u64)?);
    }
    let method = match packed {
        TiffCompression::Lzw => CompressionMethod::LZW,
        _ => CompressionMethod::Deflate,
    };
    let formats: Vec<u16> = C::SAMPLE_FORMAT.iter().map(|format| format.to_u16()).collect();
    let mut tags = || -> TiffResult<()> {
        directory.write_tag(Tag::ImageWidth, width)?;
        directory.write_tag(Tag::ImageLength, height)?;
        directory.write_tag(Tag::BitsPerSample, C::BITS_PER_SAMPLE)?;
        directory.write_tag(Tag::Compression, method.to_u16())?;
        directory.write_tag(Tag::PhotometricInterpretation, C::TIFF_VALUE.to_u16())?;
        directory.write_tag(Tag::SamplesPerPixel, u16::try_from(channels)?)?;
        directory.write_tag(Tag::RowsPerStrip, u32::try_from(per_strip)?)?;
        directory.write_tag(Tag::StripOffsets, &offsets[..])?;
        directory.write_tag(Tag::StripByteCounts, &counts[..])?;
        directory.write_tag(Tag::Predictor, Predictor::Horizontal.to_u16())?;
        directory.write_tag(Tag::SampleFormat, &formats[..])?;
        if channels == 4 {
            // Alpha that was not multiplied in.
            directory.write_tag(Tag::ExtraSamples, &[2u16][..])?;
        }
        Ok(())
    };
    tags().map_err(plain)?;
    directory.finish().map_err(plain)
}

/// Each sample less the same one of the pixel before.
fn differences<T: Copy>(row: &mut [T], channels: usize, minus: impl Fn(T, T) -> T) {
    for i in (channels..row.len()).rev() {
        row[i] = minus(row[i], row[i - channels]);
    }
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

fn describe<W: Write + Seek>(
    directory: &mut DirectoryEncoder<'_, W, TiffKindStandard>,
    metadata: &Metadata,
    main: &[Field],
    [exif, gps]: [Option<IfdPointer>; 2],
) -> TiffResult<()> {
    if let Some((x, y)) = metadata.density {
        // Exact for whole pixels per inch as well, which metres round.
        let inch = |metre: u32| Rational { n: (metre * 254 + 5) / 10, d: 1000 };
        directory.write_tag(Tag::ResolutionUnit, ResolutionUnit::Inch)?;
        directory.write_tag(Tag::XResolution, inch(x.min(1 << 24)))?;
        directory.write_tag(Tag::YResolution, inch(y.min(1 << 24)))?;
    }
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
