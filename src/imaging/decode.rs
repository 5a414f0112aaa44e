//! Reading images: PNG, JPEG, WebP, TIFF, BMP, PNM and GIF, told apart by content.
//!
//! Pixels come out upright (EXIF orientation applied), in the depth and colour of the file: gray
//! stays gray, 16 bits stay 16, alpha is kept apart. CMYK becomes sRGB by its profile. What would be
//! silently wrong is refused: animations, CMYK without a profile, floating point, files cut short, and
//! sizes above [`MAX_PIXELS`].
use std::io::{self, Cursor, Read};
use std::path::Path;

use image::codecs::{bmp, gif, png, pnm, tiff, webp};
use image::{ColorType, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, Limits};

use super::encode::Format;
use super::exif::{self, fields};
use super::variants::{self, Variant};
use super::{Color, Depth, Image, Metadata, Samples};
use super::{cmyk, containers, input, jpeg as jpeg_file, metadata, vp8};
use crate::engine::files::{self, is_standard};
use crate::engine::shield::shielded;
use crate::error::{Error, Report, Result};

/// The most pixels that a file may declare: 2^28, for example 16384 x 16384.
pub const MAX_PIXELS: u64 = 1 << 28;

/// The most bytes of a file: so many pixels uncompressed, with four channels of 16 bits, and 64 MiB more.
pub const MAX_BYTES: u64 = MAX_PIXELS * 8 + (64 << 20);

const FORMATS: &str = "srk reads PNG, JPEG, WebP, TIFF, BMP, PNM and GIF";

/// What compressed metadata of a file may unpack to, in bytes: profiles and descriptions take a few megabytes at most.
const MAX_METADATA: u64 = 32 << 20;

/// Reads the image file at `path`. Every failure is an [`Error::Failed`] that names the file.
pub fn read(path: &Path) -> Result<Image> {
    let bytes = read_bytes(path)?;
    decode(&bytes, &path.display().to_string())
}

/// The bytes of an image file, to be decoded: at most [`MAX_BYTES`], and of a pipe or device only as long as
/// they can be an image.
///
/// # Errors
/// [`Error::Failed`] if it cannot be read; [`Error::Interrupted`] if a signal came while a pipe was waited
/// for.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let name = path.display().to_string();
    let known = |head: &[u8]| Source { bytes: head, name: &name }.format().map(drop);
    input::read(path, MAX_BYTES, &known).map_err(|error| match error {
        input::Failure::Io(error) => {
            let help = match error.kind() {
                io::ErrorKind::NotFound => "check the path and its spelling",
                io::ErrorKind::IsADirectory => "name a file in it, or give the folder with -r",
                io::ErrorKind::PermissionDenied => "check the permissions of the file",
                _ => "",
            };
            let code = match error.kind() {
                io::ErrorKind::NotFound => "not_found",
                _ => "unreadable",
            };
            let report = Report::new(format!("cannot read {name}"), error).code(code);
            Error::Failed(report.help(help))
        }
        input::Failure::TooLong => {
            let cause =
                format!("it has more than {} MiB, the most that srk reads", MAX_BYTES >> 20);
            let help = "cut it into parts if it is really that large";
            Error::Failed(Report::new(format!("cannot read {name}"), cause).help(help))
        }
        input::Failure::Other(error) => error,
    })
}

/// Decodes a whole image file in memory; `name` is what messages call it. A decoder that panics has failed like
/// one that returns an error.
pub fn decode(bytes: &[u8], name: &str) -> Result<Image> {
    let source = Source { bytes, name };
    shielded(|| source.decode()).unwrap_or_else(|panic| {
        let help = "open it in a viewer; if it shows there, save it again as PNG";
        Err(source.refuse(format!("its decoder failed: {panic}"), help))
    })
}

/// Refuses the picture at `path` as [`read`] would for what it is, as far as its head tells.
///
/// # Errors
/// [`Error::Failed`] that names the file.
pub fn check_head(path: &Path) -> Result<()> {
    let name = path.display().to_string();
    // A decoder that panics is told of when the picture is decoded.
    match shielded(|| variants::of_file(path)) {
        Ok(Some(variant)) => Err(Source { bytes: &[], name: &name }.unread(&variant)),
        _ => Ok(()),
    }
}

/// The format of the picture at `path` (or of standard input, once it was read) by its first bytes, if srk
/// writes it, too.
pub fn kind(path: &Path) -> Option<Format> {
    let mut read = Vec::new();
    let head = match is_standard(path) {
        true => input::seen()?,
        false => {
            files::open_file(path).ok()?.take(64).read_to_end(&mut read).ok()?;
            &read
        }
    };
    match (Source { bytes: head, name: "" }).format().ok()? {
        ImageFormat::Png => Some(Format::Png),
        ImageFormat::Jpeg => Some(Format::Jpeg),
        ImageFormat::WebP => Some(Format::WebP),
        ImageFormat::Tiff => Some(Format::Tiff),
        ImageFormat::Bmp => Some(Format::Bmp),
        ImageFormat::Pnm => Some(Format::Pnm),
        _ => None,
    }
}

/// Whether the file at `path` begins like a picture of a format that srk reads.
pub fn is_picture(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = files::open_file(path).and_then(|file| file.take(64).read_to_end(&mut head));
    read.is_ok() && Source { bytes: &head, name: "" }.format().is_ok()
}

struct Source<'a> {
    bytes: &'a [u8],
    name: &'a str,
}

type Bytes<'a> = Cursor<&'a [u8]>;

impl<'a> Source<'a> {
    fn decode(&self) -> Result<Image> {
        let format = self.format()?;
        match format {
            ImageFormat::Png => self.png(),
            ImageFormat::Jpeg => self.jpeg(),
            ImageFormat::WebP => self.webp(),
            ImageFormat::Tiff => self.tiff(),
            ImageFormat::Bmp => self.bmp(),
            ImageFormat::Pnm => self.finish(self.open(pnm::PnmDecoder::new)?, None, None),
            ImageFormat::Gif => self.gif(),
            other => Err(self.refuse(format!("{other:?} files are not supported"), FORMATS)),
        }
    }

    /// The format by the first bytes, whatever the file is called.
    fn format(&self) -> Result<ImageFormat> {
        if self.bytes.is_empty() {
            let help = "the file holds no data: copy or download it again";
            return Err(self.refuse("the file is empty (0 bytes)", help));
        }
        let head = &self.bytes[..self.bytes.len().min(64)];
        let foreign = foreign_format(head);
        if let (None, Ok(format)) = (foreign, image::guess_format(self.bytes)) {
            return Ok(format);
        }
        if head.starts_with(b"II+\0") || head.starts_with(b"MM\0+") {
            return Ok(ImageFormat::Tiff);
        }
        let cause = match foreign {
            Some(format) => format!("this is {format}"),
            None if is_text(head) => "the content is text, not an image".to_owned(),
            None => format!("no known image format starts with the bytes {:02x?}", first(head)),
        };
        Err(self.refuse(cause, FORMATS))
    }

    fn png(&self) -> Result<Image> {
        if let Some(name) = containers::inflated_png_chunk(self.bytes, MAX_METADATA) {
            let most = MAX_METADATA >> 20;
            return Err(self.damaged(format!("its chunk {name} unpacks to more than {most} MiB")));
        }
        let header = ::png::Decoder::new(self.cursor())
            .read_info()
            .map_err(|e| self.decode_error(ImageError::from(io::Error::other(e))))?;
        let info = header.info();
        self.refuse_variant(variants::of_png(info))?;
        let density = info.pixel_dims.and_then(|d| {
            (d.unit == ::png::Unit::Meter && d.xppu > 0 && d.yppu > 0).then_some((d.xppu, d.yppu))
        });
        let mut text: Vec<(String, String)> = Vec::new();
        for t in &info.uncompressed_latin1_text {
            text.push((t.keyword.clone(), t.text.clone()));
        }
        for t in &info.compressed_latin1_text {
            if let Ok(value) = t.get_text() {
                text.push((t.keyword.clone(), value));
            }
        }
        for t in &info.utf8_text {
            if let Ok(value) = t.get_text() {
                text.push((t.keyword.clone(), value));
            }
        }
        let is_xmp = |(keyword, _): &(String, String)| keyword == metadata::XMP_KEYWORD;
        let xmp = text.iter().position(is_xmp).map(|at| text.remove(at).1.into_bytes());
        let mut image = self.finish(self.open(png::PngDecoder::new)?, density, xmp)?;
        image.metadata.text = text;
        image.metadata.png_colors = metadata::png_colors(self.bytes);
        image.metadata.unkept = metadata::png_unkept(self.bytes);
        Ok(image)
    }

    fn jpeg(&self) -> Result<Image> {
        let file = jpeg_file::structure(self.bytes);
        if file.components == 0 {
            return Err(match file.complete {
                true => self.refuse("it holds no picture", "copy or download it again"),
                false => self.truncated(),
            });
        }
        if file.precision != 8 || file.components == 2 {
            let cause = format!("it has {} channels of {} bits", file.components, file.precision);
            return Err(self.refuse(cause, "save it again as PNG"));
        }
        if !file.complete {
            return Err(self.truncated());
        }
        self.check_size(file.size)?;
        if (self.bytes.len() as u64) < file.least_bytes() {
            let (width, height) = file.size;
            let bytes = self.bytes.len();
            return Err(self.damaged(format!("{bytes} bytes cannot hold {width}x{height} pixels")));
        }
        self.refuse_variant(variants::of_jpeg(&file))?;
        let (width, height) = (file.size.0 as usize, file.size.1 as usize);
        let mut pixels = jpeg_file::pixels(self.bytes, &file).map_err(|e| self.damaged(e))?;
        let color = if file.components == 1 { Color::Gray } else { Color::Rgb };
        if let (4, Some(profile)) = (file.components, &file.icc) {
            if file.adobe {
                pixels.iter_mut().for_each(|v| *v = !*v);
            }
            let rgb = cmyk::to_srgb(Samples::U8(pixels), profile);
            let rgb = rgb.map_err(|e| self.bad_profile(&e))?;
            let image = Image { samples: rgb, ..Image::new(width, 0, color, Depth::Eight) };
            let seen =
                Seen { icc: None, exif: file.exif, turn: 1, density: file.density, xmp: file.xmp };
            return Ok(seen.on(Image { height, ..image }));
        }
        let image = Image::from_u8(width, height, color, pixels).map_err(|e| self.damaged(e))?;
        let (icc, exif, xmp) = (file.icc, file.exif, file.xmp);
        let mut image = Seen { icc, exif, turn: 1, density: file.density, xmp }.on(image);
        image.metadata.jpeg_quality = file.quality;
        Ok(image)
    }

    fn refuse_variant(&self, variant: Option<Variant>) -> Result<()> {
        variant.map_or(Ok(()), |variant| Err(self.unread(&variant)))
    }

    fn unread(&self, variant: &Variant) -> Error {
        let name = self.name;
        let (cause, help) = match variant {
            Variant::Animated(format, frames) => (
                format!("it is an animated {format} with {frames}"),
                format!("extract the frames first: ffmpeg -i '{name}' frame_%04d.png"),
            ),
            Variant::Pages(pages) => (
                format!("the TIFF holds {pages} pages"),
                format!("split it first: tiffsplit '{name}'"),
            ),
            Variant::Inks(format) => (
                format!("the {format} is CMYK without a profile; guessed colours would be wrong"),
                format!(
                    "convert it first, with its colour profile: \
                     magick '{name}' -profile sRGB.icc -colorspace sRGB out.png"
                ),
            ),
        };
        self.refuse(cause, &help)
    }

    fn bad_profile(&self, error: &str) -> Error {
        let help = "convert it to RGB in a program that knows its colours";
        self.refuse(format!("it is CMYK and its profile cannot be used: {error}"), help)
    }

    fn damaged(&self, error: impl std::fmt::Display) -> Error {
        let help = "open it in a viewer; if it shows there, save it again as PNG";
        self.refuse(format!("the content is damaged: {error}"), help)
    }

    fn webp(&self) -> Result<Image> {
        // The decoder calls a short file damaged; the RIFF header knows its length.
        let declared = self.bytes.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        if declared.is_some_and(|len| u64::from(len) + 8 > self.bytes.len() as u64) {
            return Err(self.truncated());
        }
        if let Some((name, len)) = containers::overlong_webp_chunk(self.bytes) {
            return Err(self.damaged(format!("its part {name} claims {len} bytes")));
        }
        let mut decoder = self.open(webp::WebPDecoder::new)?;
        self.refuse_variant(variants::of_webp(&decoder))?;
        let xmp = decoder.xmp_metadata().ok().flatten();
        let mut image = self.finish(decoder, None, xmp)?;
        image.metadata.webp_quality = vp8::quality(self.bytes);
        Ok(image)
    }

    fn tiff(&self) -> Result<Image> {
        self.refuse_variant(variants::of_pages(&mut self.cursor()))?;
        let words = fields::storage(self.bytes);
        let refused = |cause: String| {
            let help = "save it as gray or RGB with 8 or 16 bits per channel, uncompressed or LZW";
            self.refuse(format!("it is a kind of TIFF that srk does not read: {cause}"), help)
        };
        let mut decoder = match (tiff::TiffDecoder::new(self.cursor()), words) {
            (Ok(decoder), _) => decoder,
            (Err(ImageError::Unsupported(_)), Some(words)) => return Err(refused(words)),
            (Err(error), _) => return Err(self.decode_error(error)),
        };
        let (width, height) = decoder.dimensions();
        self.check_size((width, height))?;
        self.refuse_variant(variants::of_tiff(&mut decoder))?;
        let original = decoder.original_color_type();
        if matches!(original, ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
            return self.cmyk_tiff(decoder);
        }
        let (density, xmp) = (fields::density(self.bytes), fields::xmp(self.bytes));
        let mut image = self.finish(decoder, density, xmp)?;
        if fields::is_premultiplied(self.bytes) {
            containers::divide_by_alpha(&mut image);
        }
        // The decoder gives no EXIF: it is what the file's own fields say.
        let described = fields::Fields::of(self.bytes).filter(|f| !f.is_empty());
        image.metadata.exif = described.map(|f| f.block(image.metadata.density));
        Ok(image)
    }

    /// A CMYK TIFF that has a profile.
    fn cmyk_tiff(&self, mut decoder: impl ImageDecoder) -> Result<Image> {
        let profile = decoder.icc_profile().ok().flatten().unwrap_or_default();
        let (width, height) = decoder.dimensions();
        let turn = decoder.orientation().map_or(1, image::metadata::Orientation::to_exif);
        drop(decoder);
        let samples = containers::tiff_samples(self.bytes, MAX_PIXELS * 32);
        let samples = samples.map_err(|e| self.damaged(e))?;
        let samples = cmyk::to_srgb(samples, &profile).map_err(|e| self.bad_profile(&e))?;
        let (width, height) = (width as usize, height as usize);
        let like = Image::new(0, 0, Color::Rgb, samples.depth());
        let image = Image { width, height, samples, ..like };
        image.validate().map_err(|e| self.damaged(e))?;
        let (density, xmp) = (fields::density(self.bytes), fields::xmp(self.bytes));
        Ok(Seen { icc: None, exif: None, turn, density, xmp }.on(image))
    }

    fn bmp(&self) -> Result<Image> {
        let density = metadata::bmp_density(self.bytes);
        let image = self.finish(self.open(bmp::BmpDecoder::new)?, density, None)?;
        // A gray BMP is a palette of grays; bits per pixel stand at byte 28 of every header but the
        // oldest.
        let bits = self.bytes.get(28).copied().unwrap_or(0);
        Ok(if bits <= 8 { gray_if_equal(image) } else { image })
    }

    fn gif(&self) -> Result<Image> {
        let decoder = self.open(gif::GifDecoder::new)?;
        let screen = decoder.dimensions();
        self.check_size(screen)?;
        if let Some((width, height)) = containers::gif_frame_beyond(self.bytes, screen) {
            let cause = format!(
                "a frame of {width}x{height} does not fit the picture of {}x{}",
                screen.0, screen.1
            );
            return Err(self.damaged(cause));
        }
        self.refuse_variant(variants::of_gif(decoder))?;
        let mut image = self.finish(self.open(gif::GifDecoder::new)?, None, None)?;
        // The decoder always adds alpha.
        if matches!(&image.alpha, Some(Samples::U8(a)) if a.iter().all(|&v| v == 255)) {
            image.alpha = None;
        }
        Ok(gray_if_equal(image))
    }

    fn open<D>(&self, new: impl FnOnce(Bytes<'a>) -> image::ImageResult<D>) -> Result<D> {
        new(self.cursor()).map_err(|e| self.decode_error(e))
    }

    fn cursor(&self) -> Bytes<'a> {
        Cursor::new(self.bytes)
    }

    /// Reads the pixels and metadata of an opened file.
    fn finish(
        &self,
        mut decoder: impl ImageDecoder,
        density: Option<(u32, u32)>,
        xmp: Option<Vec<u8>>,
    ) -> Result<Image> {
        let (width, height) = decoder.dimensions();
        self.check_size((width, height))?;
        let color = decoder.color_type();
        if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
            let help = "save it with 8 or 16 bits per channel first";
            return Err(self.refuse("the file holds floating-point samples", help));
        }
        // Damaged metadata must not cost the picture.
        let icc = decoder.icc_profile().ok().flatten();
        let block = decoder.exif_metadata().ok().flatten();
        let turn = decoder.orientation().map_or(1, image::metadata::Orientation::to_exif);
        // After the metadata: under limits, TIFF refuses a profile larger than the picture.
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_PIXELS * 32);
        decoder.set_limits(limits).map_err(|e| self.decode_error(e))?;

        let image = self.pixels(decoder, width as usize, height as usize, color)?;
        Ok(Seen { icc, exif: block, turn, density, xmp }.on(image))
    }

    fn pixels(
        &self,
        decoder: impl ImageDecoder,
        width: usize,
        height: usize,
        color: ColorType,
    ) -> Result<Image> {
        let channels = usize::from(color.channel_count());
        let len = width * height * channels;
        let mut raw = if color.bytes_per_pixel() == color.channel_count() {
            Samples::U8(vec![0; len])
        } else {
            Samples::U16(vec![0; len])
        };
        let bytes = match &mut raw {
            Samples::U8(v) => v.as_mut_slice(),
            Samples::U16(v) => bytemuck::cast_slice_mut(v),
        };
        decoder.read_image(bytes).map_err(|e| self.decode_error(e))?;
        let (samples, alpha) = match (raw, color.has_alpha()) {
            (samples, false) => (samples, None),
            (Samples::U8(v), true) => {
                let (samples, alpha) = split_alpha(v, channels);
                (Samples::U8(samples), Some(Samples::U8(alpha)))
            }
            (Samples::U16(v), true) => {
                let (samples, alpha) = split_alpha(v, channels);
                (Samples::U16(samples), Some(Samples::U16(alpha)))
            }
        };
        let color = if color.has_color() { Color::Rgb } else { Color::Gray };
        Ok(Image { width, height, color, samples, alpha, metadata: Metadata::default() })
    }

    fn check_size(&self, (width, height): (u32, u32)) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(self.refuse(format!("its size is {width}x{height}"), "copy it again"));
        }
        let pixels = u64::from(width) * u64::from(height);
        if pixels > MAX_PIXELS {
            let cause = format!(
                "it declares {width}x{height}, {} Mpx; the limit is {} Mpx",
                pixels / 1_000_000,
                MAX_PIXELS / 1_000_000
            );
            return Err(self.refuse(cause, "cut it into parts if it is really that large"));
        }
        Ok(())
    }

    fn decode_error(&self, error: ImageError) -> Error {
        let help = "open it in a viewer; if it shows there, save it again as PNG";
        match error {
            ImageError::IoError(e) if e.kind() == io::ErrorKind::UnexpectedEof => self.truncated(),
            ImageError::Unsupported(e) => {
                self.refuse(format!("it uses a variant that srk does not read: {e}"), help)
            }
            ImageError::Limits(e) => self.refuse(format!("it is too large to decode: {e}"), ""),
            e if e.to_string().to_lowercase().contains("unexpected end") => self.truncated(),
            e => self.refuse(format!("the content is damaged: {e}"), help),
        }
    }

    fn truncated(&self) -> Error {
        let cause = format!("the file ends too early, after {} bytes", self.bytes.len());
        self.refuse(cause, "copy or download it again")
    }

    fn refuse(&self, cause: impl std::fmt::Display, help: &str) -> Error {
        let what = format!("cannot read {}", self.name);
        Error::Failed(Report::new(what, cause).code("decode").help(help))
    }
}

/// What a file says beside its pixels, as it stands there.
struct Seen {
    icc: Option<Vec<u8>>,
    /// With or without its prefix.
    exif: Option<Vec<u8>>,
    /// The orientation, if the EXIF block is not to be had.
    turn: u8,
    density: Option<(u32, u32)>,
    xmp: Option<Vec<u8>>,
}

impl Seen {
    /// The image upright, with all that.
    fn on(self, mut image: Image) -> Image {
        let mut exif = self.exif.as_deref().and_then(exif::normalise);
        let turn = exif.as_deref().map_or(self.turn, exif::orientation);
        let density = self.density.or_else(|| exif.as_deref().and_then(fields::density));
        exif::apply_orientation(&mut image, turn);
        if let Some(block) = &mut exif {
            exif::update(block, image.width, image.height);
        }
        let density = density.map(|(x, y)| if turn >= 5 { (y, x) } else { (x, y) });
        let (icc, mut xmp) = (self.icc, self.xmp);
        if let (Some(xmp), 2..) = (&mut xmp, turn) {
            exif::make_xmp_upright(xmp);
        }
        image.metadata = Metadata { icc, exif, xmp, density, ..Metadata::default() };
        image
    }
}

fn first(head: &[u8]) -> &[u8] {
    &head[..head.len().min(8)]
}

fn is_text(head: &[u8]) -> bool {
    head.iter().all(|&b| b >= 0x20 || matches!(b, b'\t' | b'\n' | b'\r'))
}

/// Formats that people try and that are not read.
fn foreign_format(head: &[u8]) -> Option<&'static str> {
    let brand = head.get(8..12).unwrap_or_default();
    match head {
        _ if head.get(4..8) == Some(b"ftyp") => Some(match brand {
            b"avif" | b"avis" => "AVIF, which srk does not read",
            b"heic" | b"heix" | b"mif1" | b"msf1" => "HEIC, which srk does not read",
            _ => "a video or HEIF container, which srk does not read",
        }),
        [0xFF, 0x0A, ..] => Some("JPEG XL, which srk does not read"),
        _ if head.starts_with(b"\0\0\0\x0cJXL ") => Some("JPEG XL, which srk does not read"),
        _ if head.starts_with(b"%PDF") => Some("a PDF document"),
        _ if head.starts_with(b"<svg") || head.starts_with(b"<?xml") => Some("SVG or XML text"),
        _ => None,
    }
}

/// Colours, in the memory of the pixels, and alpha.
fn split_alpha<T: Copy>(mut pixels: Vec<T>, channels: usize) -> (Vec<T>, Vec<T>) {
    let (count, colors) = (pixels.len() / channels, channels - 1);
    let alpha = pixels.chunks_exact(channels).map(|pixel| pixel[colors]).collect();
    for i in 0..count {
        pixels.copy_within(i * channels..i * channels + colors, i * colors);
    }
    pixels.truncate(count * colors);
    pixels.shrink_to_fit();
    (pixels, alpha)
}

/// The 8-bit RGB image in gray if every pixel has three equal channels.
fn gray_if_equal(mut image: Image) -> Image {
    if let (Color::Rgb, Samples::U8(v)) = (image.color, &image.samples)
        && v.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2])
    {
        image.samples = Samples::U8(v.iter().step_by(3).copied().collect());
        image.color = Color::Gray;
    }
    image
}
