//! Writing images: PNG, JPEG, WebP, TIFF, BMP, PNM and, if built so, AVIF, by the extension of the name.
//!
//! [`check_output`] tells before any work whether the format can hold the picture; `write` is atomic
//! (see `engine::files`). 16 bits become 8 where the format has no more; [`losses`] lists what a
//! format does not carry.
#[cfg(feature = "avif")]
mod avif;
mod fitted;
mod format;
mod jpeg;
mod outline;
mod png;
mod pnm;
mod rows;
mod shared;
mod tiff;
pub(super) mod webp;

use std::borrow::Cow;
use std::cell::Cell;
use std::io;
use std::path::Path;

use image::ImageEncoder;
use image::codecs::{bmp::BmpEncoder, jpeg::JpegEncoder};

pub use format::{AVIF_HELP, EncodeOptions, Format, TiffCompression};
pub use outline::Outline;
pub use rows::Strips;
use rows::{Packing, Rows, size};
use shared::{plain, set_metadata};

use super::{Color, Depth, Image, metadata, stamp};
use crate::engine::files::{WriteSeek, atomic_write, is_standard, write_to_stdout};
use crate::error::{Error, Report, Result};

/// Checks, before the work, that `format` can hold `width` x `height` pixels of `bytes_per_pixel`
/// ([`Image::bytes_per_pixel`]); `name` is what the message calls the output.
pub fn check_output(
    name: &str,
    format: Format,
    width: usize,
    height: usize,
    bytes_per_pixel: usize,
) -> Result<()> {
    let what = || format!("cannot write {name}");
    if let Some(cause) = format.missing() {
        return Err(Error::Usage(Report::new(what(), cause).help(AVIF_HELP)));
    }
    let side = width.max(height);
    let help = match format == Format::Png || side > Format::Png.max_side() {
        true => "take a smaller scale",
        false => "use .png, which has no such limit, or a smaller scale",
    };
    if side > format.max_side() {
        let limit = format.max_side();
        let cause =
            format!("{width}x{height} exceeds the {limit} pixels a side of {}", format.name());
        return Err(Error::Failed(Report::new(what(), cause).code("too_large").help(help)));
    }
    let bytes = width.saturating_mul(height).saturating_mul(bytes_per_pixel);
    if bytes > format.max_bytes() {
        let cause = format!(
            "{width}x{height} needs {} MiB; {} holds less than 4096 MiB",
            bytes >> 20,
            format.name()
        );
        return Err(Error::Failed(Report::new(what(), cause).code("too_large").help(help)));
    }
    if width == 0 || height == 0 {
        return Err(Error::Failed(Report::new(what(), format!("its size is {width}x{height}"))));
    }
    Ok(())
}

/// Refuses colours in a format of gray alone.
///
/// # Errors
/// [`Error::Failed`] that says what holds them.
pub fn check_color(name: &str, color: Color, format: Format) -> Result<()> {
    if color == Color::Gray || format.has_color() {
        return Ok(());
    }
    let cause = format!("the picture has colours and {} holds gray alone", format.name());
    let report = Report::new(format!("cannot write {name}"), cause).code("color");
    Err(Error::Failed(report.help("write a .ppm, or a .pnm, which is what the picture is")))
}

/// What of `image` would not survive in `format`, in words for a note; alpha in JPEG is an error
/// instead.
pub fn losses(image: &Outline, format: Format) -> Vec<&'static str> {
    let mut lost = Vec::new();
    if image.depth == Depth::Sixteen && !format.has_sixteen_bits() {
        lost.push("16-bit depth (becomes 8)");
    }
    lost.extend(fitted::fitted(image, format).1);
    lost
}

/// Writes `image` to `path` atomically, in the format of its extension.
pub fn write(path: &Path, image: &Image, options: EncodeOptions) -> Result<()> {
    write_as(path, image, Format::from_path(path)?, options)
}

/// Writes `image` to `path` atomically, in `format` whatever the name says.
pub fn write_as(path: &Path, image: &Image, format: Format, options: EncodeOptions) -> Result<()> {
    image.validate()?;
    let mut whole = || Ok(Cow::Borrowed(image));
    write_strips(path, &Outline::of(image), format, options, &mut whole)
}

/// Writes a picture to `path` atomically, strip by strip as `strips` gives them; an error of `strips`
/// leaves nothing behind. PNG, JPEG, TIFF and PNM are written as the strips come, WebP and BMP hold the
/// whole picture ([`memory`]).
///
/// # Errors
/// [`Error::Failed`] if the format cannot hold the picture, a strip is not to be had or does not
/// fit, or the file cannot be written.
pub fn write_strips(
    path: &Path,
    image: &Outline,
    format: Format,
    options: EncodeOptions,
    strips: &mut Strips<'_>,
) -> Result<()> {
    check_image(&path.display().to_string(), image, format)?;
    match is_standard(path) {
        true => write_to_stdout(|writer| encode_to(writer, image, format, options, strips)),
        false => atomic_write(path, |writer| encode_to(writer, image, format, options, strips)),
    }
}

/// The bytes of `image` as a file of `format`; `name` is what messages call it.
pub fn encode(
    name: &str,
    image: &Image,
    format: Format,
    options: EncodeOptions,
) -> Result<Vec<u8>> {
    image.validate()?;
    let outline = Outline::of(image);
    check_image(name, &outline, format)?;
    let mut content = io::Cursor::new(Vec::new());
    let mut whole = || Ok(Cow::Borrowed(image));
    encode_to(&mut content, &outline, format, options, &mut whole)
        .map_err(|e| Error::Failed(Report::new(format!("cannot write {name}"), e)))?;
    Ok(content.into_inner())
}

/// Bytes of a file that is not there yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileSize {
    /// It has no fewer.
    pub least: u64,
    /// As photographs have them, about.
    pub likely: u64,
}

impl FileSize {
    /// Of both.
    pub fn plus(self, other: Self) -> Self {
        let least = self.least.saturating_add(other.least);
        Self { least, likely: self.likely.saturating_add(other.likely) }
    }
}

/// How large a file of `format` will be.
pub fn file_size(image: &Outline, format: Format, options: &EncodeOptions) -> FileSize {
    let pixels = (image.width as u64).saturating_mul(image.height as u64);
    let bytes = pixels.saturating_mul(Packing::of(image, format).bytes() as u64);
    if format.is_plain(options) {
        return FileSize { least: bytes, likely: bytes };
    }
    // Enlarged pictures are smooth, and pack better than others.
    let times = match format {
        Format::Jpeg => 20,
        Format::WebP if options.webp_quality.is_some() => 40,
        Format::Avif => 40,
        _ => 4,
    };
    FileSize { least: 0, likely: bytes / times }
}

/// Bytes that writing a picture in `format` takes beside its strips.
pub fn memory(image: &Outline, format: Format) -> u64 {
    let packing = Packing::of(image, format);
    let row = (image.width * packing.bytes()) as u64;
    match format {
        // Groups of strips: raw, filtered and packed; JPEG some rows, TIFF a strip twice.
        Format::Png => png::memory(row),
        Format::Jpeg => 16 * row,
        Format::Tiff => 3 * row.max(1 << 20),
        Format::Ppm | Format::Pgm | Format::Pnm => pnm::memory(row),
        Format::Bmp => row * image.height as u64,
        // Beside the bytes it works on four channels and what it finds in them.
        Format::WebP => 5 * row * image.height as u64,
        // The picture in planes of 16 bits, several times over, and what is known of its blocks.
        Format::Avif => 20 * row * image.height as u64,
    }
}

fn check_image(name: &str, image: &Outline, format: Format) -> Result<()> {
    if image.alpha && !format.has_alpha() {
        let help = "write a .png instead, or give --alpha drop or --alpha flatten";
        let cause = format!("the image has transparency and {} has none", format.name());
        let report = Report::new(format!("cannot write {name}"), cause).code("alpha");
        return Err(Error::Failed(report.help(help)));
    }
    check_color(name, image.color, format)?;
    check_output(name, format, image.width, image.height, image.bytes_per_pixel())
}

fn encode_to(
    mut writer: &mut dyn WriteSeek,
    image: &Outline,
    format: Format,
    options: EncodeOptions,
    strips: &mut Strips<'_>,
) -> io::Result<()> {
    let image = &Outline { metadata: fitted::fitted(image, format).0, ..image.clone() };
    let packing = Packing::of(image, format);
    let mut rows = Rows::new(image, strips, packing);
    match format {
        Format::Png => encode_png(writer, image, options, packing, &mut rows),
        Format::Jpeg => {
            let failed = Cell::new(false);
            let writer = jpeg::Failing { writer, failed: &failed };
            let segment = image.metadata.xmp.as_deref().map(jpeg::xmp_segment);
            let writer = jpeg::Inserting::new(writer, segment.unwrap_or_default());
            let mut encoder = JpegEncoder::new_with_quality(writer, options.quality.clamp(1, 100));
            if let Some(density) = image.metadata.density.and_then(jpeg_density) {
                encoder.set_pixel_density(density);
            }
            set_metadata(&mut encoder, image);
            let size = (size(image.width)?, size(image.height)?);
            jpeg::encode(&mut encoder, size, image.color == Color::Gray, rows, &failed)
        }
        Format::Tiff => tiff::encode(writer, image, packing.color(), options.tiff, &mut rows),
        Format::WebP => match options.webp_quality {
            Some(quality) => webp::encode(writer, image, quality, rows),
            None => encode_webp(writer, image, rows),
        },
        Format::Ppm | Format::Pgm | Format::Pnm => pnm::encode(writer, image, packing, &mut rows),
        #[cfg(feature = "avif")]
        Format::Avif => avif::encode(writer, image, packing.color(), options.quality, &mut rows),
        #[cfg(not(feature = "avif"))]
        Format::Avif => Err(io::Error::other(AVIF_HELP)),
        Format::Bmp => {
            let mut bytes = Vec::new();
            rows.read(image.height, &mut bytes)?;
            let encoder = BmpEncoder::new(&mut writer);
            let size = (size(image.width)?, size(image.height)?);
            encoder.write_image(&bytes, size.0, size.1, packing.color()).map_err(plain)?;
            bmp_density(writer, image.metadata.density)
        }
    }
}

/// Pixels per metre as the dots per inch of a JFIF header.
fn jpeg_density((x, y): (u32, u32)) -> Option<image::codecs::jpeg::PixelDensity> {
    let inch = |metre: u32| u16::try_from((u64::from(metre) * 254 + 5000) / 10_000).ok();
    Some(image::codecs::jpeg::PixelDensity {
        density: (inch(x)?.max(1), inch(y)?.max(1)),
        unit: image::codecs::jpeg::PixelDensityUnit::Inches,
    })
}

/// Writes pixels per metre into the header, which the encoder leaves at a value of its own.
fn bmp_density(writer: &mut dyn WriteSeek, density: Option<(u32, u32)>) -> io::Result<()> {
    let Some((x, y)) = density else { return Ok(()) };
    writer.seek(io::SeekFrom::Start(38))?;
    writer.write_all(&[x.to_le_bytes(), y.to_le_bytes()].concat())?;
    writer.seek(io::SeekFrom::End(0)).map(drop)
}

fn encode_webp(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    mut rows: Rows<'_, '_>,
) -> io::Result<()> {
    let mut encoder = image_webp::WebPEncoder::new(writer);
    let metadata = image.metadata.clone();
    metadata.icc.into_iter().for_each(|icc| encoder.set_icc_profile(icc));
    metadata.exif.into_iter().for_each(|exif| encoder.set_exif_metadata(exif));
    metadata.xmp.into_iter().for_each(|xmp| encoder.set_xmp_metadata(xmp));
    let mut bytes = Vec::new();
    rows.read(image.height, &mut bytes)?;
    let color = match (image.color, image.alpha) {
        (Color::Gray, false) => image_webp::ColorType::L8,
        (Color::Gray, true) => image_webp::ColorType::La8,
        (Color::Rgb, false) => image_webp::ColorType::Rgb8,
        (Color::Rgb, true) => image_webp::ColorType::Rgba8,
    };
    let (width, height) = (size(image.width)?, size(image.height)?);
    encoder.encode(&bytes, width, height, color).map_err(|e| match e {
        image_webp::EncodingError::IoError(e) => e,
        e => io::Error::other(e),
    })
}

fn encode_png(
    writer: &mut dyn WriteSeek,
    image: &Outline,
    options: EncodeOptions,
    packing: Packing,
    rows: &mut Rows<'_, '_>,
) -> io::Result<()> {
    let metadata = &image.metadata;
    let mut info = ::png::Info::with_size(size(image.width)?, size(image.height)?);
    info.color_type = match (image.color, image.alpha) {
        (Color::Gray, false) => ::png::ColorType::Grayscale,
        (Color::Gray, true) => ::png::ColorType::GrayscaleAlpha,
        (Color::Rgb, false) => ::png::ColorType::Rgb,
        (Color::Rgb, true) => ::png::ColorType::Rgba,
    };
    info.bit_depth = match image.depth {
        Depth::Eight => ::png::BitDepth::Eight,
        Depth::Sixteen => ::png::BitDepth::Sixteen,
    };
    info.icc_profile = metadata.icc.as_deref().map(Into::into);
    info.exif_metadata = metadata.exif.as_deref().map(Into::into);
    info.pixel_dims = metadata.density.map(|(xppu, yppu)| ::png::PixelDimensions {
        xppu,
        yppu,
        unit: ::png::Unit::Meter,
    });
    let mut encoder = ::png::Encoder::with_info(writer, info).map_err(png_error)?;
    for (keyword, text) in stamp::texts(&metadata.text, metadata.stamp.as_deref()) {
        encoder.add_itxt_chunk(keyword, text).map_err(png_error)?;
    }
    if let Some(xmp) = metadata.xmp.as_ref().and_then(|x| std::str::from_utf8(x).ok()) {
        let keyword = metadata::XMP_KEYWORD.to_owned();
        encoder.add_itxt_chunk(keyword, xmp.to_owned()).map_err(png_error)?;
    }
    let mut file = encoder.write_header().map_err(png_error)?;
    for (name, data) in &metadata.png_colors {
        file.write_chunk(::png::chunk::ChunkType(*name), data).map_err(png_error)?;
    }
    let bytes = png::RowBytes { row: image.width * packing.bytes(), pixel: packing.bytes() };
    png::deflate(rows, bytes, options.png_level, &mut |piece| {
        file.write_chunk(::png::chunk::IDAT, piece).map_err(png_error)
    })?;
    file.finish().map_err(png_error)
}

fn png_error(error: ::png::EncodingError) -> io::Error {
    match error {
        ::png::EncodingError::IoError(e) => e,
        e => io::Error::other(e),
    }
}
