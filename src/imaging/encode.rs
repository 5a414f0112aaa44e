//! Writing images: PNG, JPEG, WebP (lossless), TIFF and BMP, by the extension of the name.
//!
//! [`check_output`] tells before any work whether the format can hold the picture; `write` is atomic
//! (see `engine::files`). 16 bits become 8 where the format has no more; [`losses`] lists what a
//! format does not carry.
use std::io::{self, Write};
use std::path::Path;

use image::codecs::{bmp::BmpEncoder, jpeg::JpegEncoder, tiff::TiffEncoder, webp::WebPEncoder};
use image::{ExtendedColorType, ImageEncoder, ImageError};

use super::{Color, Depth, Image, Samples, exif, narrow, stamp};
use crate::engine::files::{WriteSeek, atomic_write};
use crate::error::{Error, Report, Result};

/// A format that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 8 and 16 bits, gray, alpha, all metadata.
    Png,
    /// 8 bits, no alpha.
    Jpeg,
    /// 8 bits, lossless; sides up to 16383.
    WebP,
    /// 8 and 16 bits.
    Tiff,
    /// 8 bits, no metadata.
    Bmp,
}

impl Format {
    /// The format of `path` by its extension; [`Error::Usage`] if that names none.
    pub fn from_path(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        Self::from_extension(extension).ok_or_else(|| {
            let cause = match extension {
                "" => "the name has no extension".to_owned(),
                other => format!("\".{other}\" is no format that srk writes"),
            };
            let what = format!("cannot write {}", path.display());
            let help = "end the name in .png, .jpg, .webp, .tiff or .bmp, or give --format";
            Error::Usage(Report::new(what, cause).help(help))
        })
    }

    /// The format that an extension (without dot, any case) or a name like `jpeg` stands for.
    pub fn from_extension(extension: &str) -> Option<Self> {
        match extension.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" | "jpe" | "jfif" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            "tif" | "tiff" => Some(Self::Tiff),
            "bmp" => Some(Self::Bmp),
            _ => None,
        }
    }

    /// The usual extension, without dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
            Self::Tiff => "tiff",
            Self::Bmp => "bmp",
        }
    }

    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
            Self::WebP => "WebP",
            Self::Tiff => "TIFF",
            Self::Bmp => "BMP",
        }
    }

    /// Whether it holds 16 bits per sample.
    pub fn has_sixteen_bits(self) -> bool {
        matches!(self, Self::Png | Self::Tiff)
    }

    /// Whether it holds transparency.
    pub fn has_alpha(self) -> bool {
        self != Self::Jpeg
    }

    /// The longest side in pixels.
    pub fn max_side(self) -> usize {
        match self {
            Self::Png | Self::Bmp => 0x7FFF_FFFF,
            Self::Tiff => 0xFFFF_FFFF,
            Self::Jpeg => 65_535,
            Self::WebP => 16_383,
        }
    }

    /// The most bytes of pixels: offsets in BMP and TIFF have 32 bits.
    fn max_bytes(self) -> usize {
        match self {
            Self::Bmp | Self::Tiff => 0xFFFF_FFFF - (1 << 20),
            Self::Png | Self::Jpeg | Self::WebP => usize::MAX,
        }
    }
}

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// JPEG quality 1..=100; colour is never subsampled.
    pub quality: u8,
    /// PNG effort 0..=9 (0 stores, 9 is smallest and slowest).
    pub png_level: u8,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { quality: 95, png_level: 6 }
    }
}

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
    let side = width.max(height);
    let help = "use .png, which has no such limit, or a smaller scale";
    if side > format.max_side() {
        let limit = format.max_side();
        let cause =
            format!("{width}x{height} exceeds the {limit} pixels a side of {}", format.name());
        return Err(Error::Failed(Report::new(what(), cause).help(help)));
    }
    let bytes = width.saturating_mul(height).saturating_mul(bytes_per_pixel);
    if bytes > format.max_bytes() {
        let cause = format!(
            "{width}x{height} needs {} MiB; {} holds less than 4096 MiB",
            bytes >> 20,
            format.name()
        );
        return Err(Error::Failed(Report::new(what(), cause).help(help)));
    }
    if width == 0 || height == 0 {
        return Err(Error::Failed(Report::new(what(), format!("its size is {width}x{height}"))));
    }
    Ok(())
}

/// What of `image` would not survive in `format`, in words for a note; alpha in JPEG is an error
/// instead.
pub fn losses(image: &Image, format: Format) -> Vec<&'static str> {
    let mut lost = Vec::new();
    let metadata = &image.metadata;
    if image.depth() == Depth::Sixteen && !format.has_sixteen_bits() {
        lost.push("16-bit depth (becomes 8)");
    }
    if metadata.icc.is_some() && format == Format::Bmp {
        lost.push("colour profile");
    }
    if metadata.exif.is_some() && matches!(format, Format::Bmp | Format::Tiff) {
        lost.push("EXIF");
    }
    let is_text = |(_, text): &(String, String)| !stamp::is_stamp(text);
    if metadata.text.iter().any(is_text) && format != Format::Png {
        lost.push("text");
    }
    lost
}

/// Writes `image` to `path` atomically, in the format of its extension.
pub fn write(path: &Path, image: &Image, options: EncodeOptions) -> Result<()> {
    write_as(path, image, Format::from_path(path)?, options)
}

/// Writes `image` to `path` atomically, in `format` whatever the name says.
pub fn write_as(path: &Path, image: &Image, format: Format, options: EncodeOptions) -> Result<()> {
    let name = path.display().to_string();
    check_image(&name, image, format)?;
    atomic_write(path, |writer| encode_to(writer, image, format, options))
}

/// The bytes of `image` as a file of `format`; `name` is what messages call it.
pub fn encode(
    name: &str,
    image: &Image,
    format: Format,
    options: EncodeOptions,
) -> Result<Vec<u8>> {
    check_image(name, image, format)?;
    let mut content = io::Cursor::new(Vec::new());
    encode_to(&mut content, image, format, options)
        .map_err(|e| Error::Failed(Report::new(format!("cannot write {name}"), e)))?;
    Ok(content.into_inner())
}

fn check_image(name: &str, image: &Image, format: Format) -> Result<()> {
    image.validate()?;
    if image.alpha.is_some() && !format.has_alpha() {
        let help = "write a .png instead, or give --alpha drop";
        let cause = format!("the image has transparency and {} has none", format.name());
        return Err(Error::Failed(Report::new(format!("cannot write {name}"), cause).help(help)));
    }
    check_output(name, format, image.width, image.height, image.bytes_per_pixel())
}

fn encode_to(
    mut writer: &mut dyn WriteSeek,
    image: &Image,
    format: Format,
    options: EncodeOptions,
) -> io::Result<()> {
    match format {
        Format::Png => encode_png(writer, image, options),
        Format::Jpeg => {
            let mut encoder = JpegEncoder::new_with_quality(writer, options.quality.clamp(1, 100));
            if let Some(density) = image.metadata.density.and_then(jpeg_density) {
                encoder.set_pixel_density(density);
            }
            encode_with(encoder, image, format)
        }
        Format::WebP => encode_with(WebPEncoder::new_lossless(writer), image, format),
        Format::Tiff => match image.metadata.stamp.as_deref() {
            None => encode_with(TiffEncoder::new(writer), image, format),
            // A TIFF file is built as an EXIF block is.
            Some(stamp) => {
                let mut file = io::Cursor::new(Vec::new());
                encode_with(TiffEncoder::new(&mut file), image, format)?;
                let file = exif::stamped(Some(file.into_inner()), Some(stamp));
                writer.write_all(&file.unwrap_or_default())
            }
        },
        Format::Bmp => encode_with(BmpEncoder::new(&mut writer), image, format),
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

/// The longest EXIF block that fits the one segment a JPEG may use for it.
const JPEG_EXIF_BYTES: usize = 65_533 - 6;

fn encode_with(mut encoder: impl ImageEncoder, image: &Image, format: Format) -> io::Result<()> {
    let metadata = &image.metadata;
    // A format that cannot carry them says so here; `losses` told the user.
    if let Some(icc) = &metadata.icc {
        let _ = encoder.set_icc_profile(icc.clone());
    }
    // A block that is just short enough for a JPEG goes without the stamp.
    let fits = |block: &Vec<u8>| format != Format::Jpeg || block.len() <= JPEG_EXIF_BYTES;
    let block = upright_exif(image, metadata.stamp.as_deref()).filter(fits);
    if let Some(block) = block.or_else(|| upright_exif(image, None)).filter(fits) {
        let _ = encoder.set_exif_metadata(block);
    }
    let pixels = Interleaved::new(image, format);
    let size = |v: usize| u32::try_from(v).map_err(io::Error::other);
    encoder
        .write_image(pixels.bytes(), size(image.width)?, size(image.height)?, pixels.color)
        .map_err(|e| match e {
            ImageError::IoError(e) => e,
            e => io::Error::other(e),
        })
}

/// The EXIF block with the size the image has now, and with `stamp` in place of an older one.
fn upright_exif(image: &Image, stamp: Option<&str>) -> Option<Vec<u8>> {
    let mut block = image.metadata.exif.clone();
    if let Some(block) = &mut block {
        exif::update(block, image.width, image.height);
    }
    exif::stamped(block, stamp)
}

/// Samples with alpha woven in, in the depth and colours that the format takes.
struct Interleaved<'a> {
    samples: std::borrow::Cow<'a, Samples>,
    color: ExtendedColorType,
}

impl<'a> Interleaved<'a> {
    fn new(image: &'a Image, format: Format) -> Self {
        use std::borrow::Cow;
        let depth = if format.has_sixteen_bits() { image.depth() } else { Depth::Eight };
        // TIFF and BMP encoders have no gray with alpha.
        let widen = image.color == Color::Gray
            && image.alpha.is_some()
            && matches!(format, Format::Tiff | Format::Bmp);
        let channels = if widen { 3 } else { image.channels() };
        let color = match (channels, image.alpha.is_some(), depth) {
            (1, false, Depth::Eight) => ExtendedColorType::L8,
            (1, false, Depth::Sixteen) => ExtendedColorType::L16,
            (1, true, Depth::Eight) => ExtendedColorType::La8,
            (1, true, Depth::Sixteen) => ExtendedColorType::La16,
            (_, false, Depth::Eight) => ExtendedColorType::Rgb8,
            (_, false, Depth::Sixteen) => ExtendedColorType::Rgb16,
            (_, true, Depth::Eight) => ExtendedColorType::Rgba8,
            (_, true, Depth::Sixteen) => ExtendedColorType::Rgba16,
        };
        let samples = match (&image.samples, &image.alpha) {
            (samples, None) if samples.depth() == depth => Cow::Borrowed(samples),
            (samples, None) => Cow::Owned(samples.to_depth(depth)),
            (Samples::U8(s), Some(Samples::U8(a))) => {
                Cow::Owned(Samples::U8(weave(s, a, image.channels(), channels, |v| v)))
            }
            (Samples::U16(s), Some(Samples::U16(a))) if depth == Depth::Sixteen => {
                Cow::Owned(Samples::U16(weave(s, a, image.channels(), channels, |v| v)))
            }
            (Samples::U16(s), Some(Samples::U16(a))) => {
                Cow::Owned(Samples::U8(weave(s, a, image.channels(), channels, narrow)))
            }
            _ => unreachable!("validate made alpha the depth of the samples"),
        };
        Self { samples, color }
    }

    fn bytes(&self) -> &[u8] {
        match self.samples.as_ref() {
            Samples::U8(v) => v,
            Samples::U16(v) => bytemuck::cast_slice(v),
        }
    }
}

fn weave<T: Copy, U>(
    samples: &[T],
    alpha: &[T],
    from: usize,
    to: usize,
    convert: impl Fn(T) -> U,
) -> Vec<U> {
    let mut out = Vec::with_capacity(alpha.len() * (to + 1));
    for (pixel, &a) in samples.chunks_exact(from).zip(alpha) {
        out.extend((0..to).map(|c| convert(pixel[c.min(from - 1)])));
        out.push(convert(a));
    }
    out
}

/// PNG goes row by row, so that a large image is not copied.
fn encode_png(writer: &mut dyn WriteSeek, image: &Image, options: EncodeOptions) -> io::Result<()> {
    let size = |v: usize| u32::try_from(v).map_err(io::Error::other);
    let metadata = &image.metadata;
    let mut info = png::Info::with_size(size(image.width)?, size(image.height)?);
    info.color_type = match (image.color, image.alpha.is_some()) {
        (Color::Gray, false) => png::ColorType::Grayscale,
        (Color::Gray, true) => png::ColorType::GrayscaleAlpha,
        (Color::Rgb, false) => png::ColorType::Rgb,
        (Color::Rgb, true) => png::ColorType::Rgba,
    };
    info.bit_depth = match image.depth() {
        Depth::Eight => png::BitDepth::Eight,
        Depth::Sixteen => png::BitDepth::Sixteen,
    };
    info.icc_profile = metadata.icc.as_deref().map(Into::into);
    info.exif_metadata = upright_exif(image, None).map(Into::into);
    info.pixel_dims = metadata.density.map(|(xppu, yppu)| png::PixelDimensions {
        xppu,
        yppu,
        unit: png::Unit::Meter,
    });
    let mut encoder = png::Encoder::with_info(writer, info).map_err(png_error)?;
    for (keyword, text) in stamp::texts(&metadata.text, metadata.stamp.as_deref()) {
        encoder.add_itxt_chunk(keyword, text).map_err(png_error)?;
    }
    match options.png_level {
        0 => encoder.set_deflate_compression(png::DeflateCompression::NoCompression),
        level => encoder.set_deflate_compression(png::DeflateCompression::Level(level.min(9))),
    }
    encoder.set_filter(png::Filter::Adaptive);
    let mut file = encoder.write_header().map_err(png_error)?;
    let mut stream = file.stream_writer_with_size(1 << 16).map_err(png_error)?;
    let mut row = Vec::new();
    for y in 0..image.height {
        row.clear();
        png_row(image, y, &mut row);
        stream.write_all(&row)?;
    }
    stream.finish().map_err(png_error)?;
    file.finish().map_err(png_error)
}

/// Row `y` with alpha woven in, 16 bits big-endian.
fn png_row(image: &Image, y: usize, row: &mut Vec<u8>) {
    let channels = image.channels();
    for x in 0..image.width {
        let pixel = y * image.width + x;
        match &image.samples {
            Samples::U8(v) => row.extend_from_slice(&v[pixel * channels..][..channels]),
            Samples::U16(v) => {
                row.extend(v[pixel * channels..][..channels].iter().flat_map(|s| s.to_be_bytes()));
            }
        }
        match &image.alpha {
            Some(Samples::U8(a)) => row.push(a[pixel]),
            Some(Samples::U16(a)) => row.extend_from_slice(&a[pixel].to_be_bytes()),
            None => {}
        }
    }
}

fn png_error(error: png::EncodingError) -> io::Error {
    match error {
        png::EncodingError::IoError(e) => e,
        e => io::Error::other(e),
    }
}
