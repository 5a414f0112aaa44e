//! Reading images: PNG, JPEG, WebP, TIFF, BMP, PNM and GIF, told apart by content.
//!
//! Pixels come out upright (EXIF orientation applied), in the depth and colour of the file: gray
//! stays gray, 16 bits stay 16, alpha is kept apart. What would be silently wrong is refused:
//! animations, CMYK, floating point, files cut short, and sizes above [`MAX_PIXELS`].
use std::fs;
use std::io::{self, Cursor, Read};
use std::path::Path;

use image::codecs::{bmp, gif, jpeg, png, pnm, tiff, webp};
use image::{
    AnimationDecoder, ColorType, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, Limits,
};

use super::{Color, Image, Metadata, Samples, exif, jpeg as jpeg_file};
use crate::engine::shield::shielded;
use crate::error::{Error, Report, Result};

/// The most pixels that a file may declare: 2^28, for example 16384 x 16384.
pub const MAX_PIXELS: u64 = 1 << 28;

const FORMATS: &str = "srk reads PNG, JPEG, WebP, TIFF, BMP, PNM and GIF";

/// Reads the image file at `path`. Every failure is an [`Error::Failed`] that names the file.
pub fn read(path: &Path) -> Result<Image> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| {
        let help = match error.kind() {
            io::ErrorKind::NotFound => "check the path and its spelling",
            io::ErrorKind::IsADirectory => "name a file in it, or give the folder with -r",
            io::ErrorKind::PermissionDenied => "check the permissions of the file",
            _ => "",
        };
        Error::Failed(Report::new(format!("cannot read {name}"), error).help(help))
    })?;
    decode(&bytes, &name)
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

/// Whether the file at `path` begins like a picture of a format that srk reads.
pub fn is_picture(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(64).read_to_end(&mut head));
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
            ImageFormat::Pnm => self.finish(self.open(pnm::PnmDecoder::new)?, None),
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
        let cause = match foreign {
            Some(format) => format!("this is {format}"),
            None if is_text(head) => "the content is text, not an image".to_owned(),
            None => format!("no known image format starts with the bytes {:02x?}", first(head)),
        };
        Err(self.refuse(cause, FORMATS))
    }

    fn png(&self) -> Result<Image> {
        let header = ::png::Decoder::new(self.cursor())
            .read_info()
            .map_err(|e| self.decode_error(ImageError::from(io::Error::other(e))))?;
        let info = header.info();
        if let Some(frames) = info.animation_control().map(|a| a.num_frames).filter(|&n| n > 1) {
            return Err(self.animated("PNG", &format!("{frames} frames")));
        }
        let density = info.pixel_dims.and_then(|d| {
            (d.unit == ::png::Unit::Meter && d.xppu > 0 && d.yppu > 0).then_some((d.xppu, d.yppu))
        });
        let mut text: Vec<(String, String)> = Vec::new();
        for t in &info.uncompressed_latin1_text {
            text.push((t.keyword.clone(), t.text.clone()));
        }
        for t in &info.utf8_text {
            if let Ok(value) = t.get_text() {
                text.push((t.keyword.clone(), value));
            }
        }
        let mut image = self.finish(self.open(png::PngDecoder::new)?, density)?;
        image.metadata.text = text;
        Ok(image)
    }

    fn jpeg(&self) -> Result<Image> {
        let file = jpeg_file::structure(self.bytes);
        if file.components == 4 {
            let help = format!(
                "convert it first, with its colour profile: \
                 magick '{}' -profile sRGB.icc -colorspace sRGB out.png",
                self.name
            );
            return Err(self.refuse("the JPEG is CMYK; guessed colours would be wrong", &help));
        }
        if file.components != 0 && !file.complete {
            return Err(self.truncated());
        }
        self.finish(self.open(jpeg::JpegDecoder::new)?, file.density)
    }

    fn webp(&self) -> Result<Image> {
        // The decoder calls a short file damaged; the RIFF header knows its length.
        let declared = self.bytes.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        if declared.is_some_and(|len| u64::from(len) + 8 > self.bytes.len() as u64) {
            return Err(self.truncated());
        }
        let decoder = self.open(webp::WebPDecoder::new)?;
        if decoder.has_animation() {
            return Err(self.animated("WebP", "several frames"));
        }
        self.finish(decoder, None)
    }

    fn tiff(&self) -> Result<Image> {
        let pages = exif::pages(self.bytes);
        if pages > 1 {
            let help = format!("split it first: tiffsplit '{}'", self.name);
            return Err(self.refuse(format!("the TIFF holds {pages} pages"), &help));
        }
        self.finish(self.open(tiff::TiffDecoder::new)?, None)
    }

    fn bmp(&self) -> Result<Image> {
        let image = self.finish(self.open(bmp::BmpDecoder::new)?, None)?;
        // A gray BMP is a palette of grays; bits per pixel stand at byte 28 of every header but the
        // oldest.
        let bits = self.bytes.get(28).copied().unwrap_or(0);
        Ok(if bits <= 8 { gray_if_equal(image) } else { image })
    }

    fn gif(&self) -> Result<Image> {
        let decoder = self.open(gif::GifDecoder::new)?;
        self.check_size(decoder.dimensions())?;
        let frames = decoder.into_frames().take(2).filter(|f| f.is_ok()).count();
        if frames > 1 {
            return Err(self.animated("GIF", "several frames"));
        }
        let mut image = self.finish(self.open(gif::GifDecoder::new)?, None)?;
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
    fn finish(&self, mut decoder: impl ImageDecoder, density: Option<(u32, u32)>) -> Result<Image> {
        let (width, height) = decoder.dimensions();
        self.check_size((width, height))?;
        let original = decoder.original_color_type();
        if matches!(original, ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
            let help = "convert it to RGB first, with its colour profile";
            return Err(self.refuse("the file is CMYK; guessed colours would be wrong", help));
        }
        let color = decoder.color_type();
        if matches!(color, ColorType::Rgb32F | ColorType::Rgba32F) {
            let help = "save it with 8 or 16 bits per channel first";
            return Err(self.refuse("the file holds floating-point samples", help));
        }
        // Damaged metadata must not cost the picture.
        let icc = decoder.icc_profile().ok().flatten();
        let block = decoder.exif_metadata().ok().flatten();
        let turn = decoder.orientation().map_or(1, image::metadata::Orientation::to_exif);
        let mut exif = block.as_deref().and_then(exif::normalise);
        let turn = exif.as_deref().map_or(turn, exif::orientation);
        // After the metadata: under limits, TIFF refuses a profile larger than the picture.
        let mut limits = Limits::no_limits();
        limits.max_alloc = Some(MAX_PIXELS * 32);
        decoder.set_limits(limits).map_err(|e| self.decode_error(e))?;

        let mut image = self.pixels(decoder, width as usize, height as usize, color)?;
        exif::apply_orientation(&mut image, turn);
        if let Some(block) = &mut exif {
            exif::update(block, image.width, image.height);
        }
        let density = density.map(|(x, y)| if turn >= 5 { (y, x) } else { (x, y) });
        image.metadata = Metadata { icc, exif, density, ..Metadata::default() };
        Ok(image)
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
                let (samples, alpha) = split_alpha(&v, channels);
                (Samples::U8(samples), Some(Samples::U8(alpha)))
            }
            (Samples::U16(v), true) => {
                let (samples, alpha) = split_alpha(&v, channels);
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

    fn animated(&self, format: &str, frames: &str) -> Error {
        let help = format!("extract the frames first: ffmpeg -i '{}' frame_%04d.png", self.name);
        self.refuse(format!("it is an animated {format} with {frames}"), &help)
    }

    fn refuse(&self, cause: impl std::fmt::Display, help: &str) -> Error {
        let what = format!("cannot read {}", self.name);
        Error::Failed(Report::new(what, cause).help(help))
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

fn split_alpha<T: Copy>(pixels: &[T], channels: usize) -> (Vec<T>, Vec<T>) {
    let count = pixels.len() / channels;
    let mut samples = Vec::with_capacity(count * (channels - 1));
    let mut alpha = Vec::with_capacity(count);
    for pixel in pixels.chunks_exact(channels) {
        samples.extend_from_slice(&pixel[..channels - 1]);
        alpha.push(pixel[channels - 1]);
    }
    (samples, alpha)
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
