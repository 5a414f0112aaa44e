//! The formats, and how they are written.
use std::path::Path;

use super::outline::Outline;
use crate::error::{Error, Report, Result};
use crate::imaging::Color;

/// A format that can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 8 and 16 bits, gray, alpha, all metadata.
    Png,
    /// 8 bits, no alpha.
    Jpeg,
    /// 8 bits; sides up to 16383.
    WebP,
    /// 8 and 16 bits.
    Tiff,
    /// 8 bits, no metadata but the density.
    Bmp,
    /// 8 and 16 bits, colour, no alpha, no metadata.
    Ppm,
    /// The same in gray.
    Pgm,
    /// The one or the other, as the picture is.
    Pnm,
    /// 8 bits, lossy, alpha, of metadata only EXIF; in builds with the feature `avif`.
    Avif,
}

impl Format {
    /// The format of `path` by its extension; [`Error::Usage`] if that names none.
    pub fn from_path(path: &Path) -> Result<Self> {
        Self::told_by(path, "end the name in .png, .jpg, .webp, .tiff, .bmp or .ppm")
    }

    /// The same, with the advice of a command that may be told the format otherwise.
    ///
    /// # Errors
    /// [`Error::Usage`] if the extension names no format.
    pub fn told_by(path: &Path, help: &str) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        let named = Self::from_extension(extension);
        if let Some(cause) = named.and_then(Self::missing) {
            let what = format!("cannot write {}", path.display());
            return Err(Error::Usage(Report::new(what, cause).help(AVIF_HELP)));
        }
        named.ok_or_else(|| {
            let cause = match extension {
                "" => "the name has no extension".to_owned(),
                other => format!("\".{other}\" is not a format that srk writes"),
            };
            let what = format!("cannot write {}", path.display());
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
            "ppm" => Some(Self::Ppm),
            "pgm" => Some(Self::Pgm),
            "pnm" => Some(Self::Pnm),
            "avif" => Some(Self::Avif),
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
            Self::Ppm => "ppm",
            Self::Pgm => "pgm",
            Self::Pnm => "pnm",
            Self::Avif => "avif",
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
            Self::Ppm => "PPM",
            Self::Pgm => "PGM",
            Self::Pnm => "PNM",
            Self::Avif => "AVIF",
        }
    }

    /// Why this build of srk does not write it; none if it does.
    pub fn missing(self) -> Option<&'static str> {
        let absent = self == Self::Avif && !cfg!(feature = "avif");
        absent.then_some("this build of srk writes no AVIF, which takes long to compile")
    }

    /// Whether it holds 16 bits per sample.
    pub fn has_sixteen_bits(self) -> bool {
        matches!(self, Self::Png | Self::Tiff) || self.is_pnm()
    }

    /// Whether it is PNM under one of its names.
    pub fn is_pnm(self) -> bool {
        matches!(self, Self::Ppm | Self::Pgm | Self::Pnm)
    }

    /// Whether it holds any metadata but the density.
    pub(in crate::imaging) fn has_metadata(self) -> bool {
        self != Self::Bmp && !self.is_pnm()
    }

    /// Whether it holds a colour profile and XMP.
    pub(super) fn has_profile(self) -> bool {
        self.has_metadata() && self != Self::Avif
    }

    /// Whether its files have as many bytes as its pixels, and a head.
    pub fn is_plain(self, options: &EncodeOptions) -> bool {
        let unpacked = self == Self::Tiff && options.tiff == TiffCompression::None;
        self == Self::Bmp || self.is_pnm() || unpacked
    }

    /// Whether it holds transparency.
    pub fn has_alpha(self) -> bool {
        self != Self::Jpeg && !self.is_pnm()
    }

    /// Whether it holds colours.
    pub fn has_color(self) -> bool {
        self != Self::Pgm
    }

    /// Whether its file of such a picture has one channel of colour: WebP has none of that kind, TIFF and
    /// BMP have none beside alpha.
    pub(in crate::imaging) fn keeps_gray(self, image: &Outline) -> bool {
        let alone = !image.alpha || matches!(self, Self::Png | Self::Jpeg);
        image.color == Color::Gray && alone && !matches!(self, Self::WebP | Self::Ppm | Self::Avif)
    }

    /// The longest side in pixels.
    pub fn max_side(self) -> usize {
        match self {
            Self::Png | Self::Bmp | Self::Ppm | Self::Pgm | Self::Pnm => 0x7FFF_FFFF,
            Self::Tiff => 0xFFFF_FFFF,
            Self::Jpeg | Self::Avif => 65_535,
            Self::WebP => 16_383,
        }
    }

    /// The most bytes of pixels: offsets in BMP and TIFF have 32 bits.
    pub(super) fn max_bytes(self) -> usize {
        match self {
            Self::Bmp | Self::Tiff => 0xFFFF_FFFF - (1 << 20),
            _ => usize::MAX,
        }
    }
}

/// How a build that writes AVIF is had.
pub const AVIF_HELP: &str = "cargo install --path . --locked --features avif    in srk's sources makes one that does; \
     or write a .webp";

/// How to encode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeOptions {
    /// Quality of JPEG and AVIF, 1..=100; colour is never subsampled.
    pub quality: u8,
    /// The quality of a lossy WebP; none is lossless.
    pub webp_quality: Option<u8>,
    /// PNG effort 0..=9 (0 stores, 9 is smallest and slowest).
    pub png_level: u8,
    /// How strips of a TIFF are packed.
    pub tiff: TiffCompression,
}

/// How strips of a TIFF are packed; all without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TiffCompression {
    /// Not at all.
    None,
    /// LZW of differences between pixels, which every reader knows.
    Lzw,
    /// Deflate of differences between pixels: smaller.
    Deflate,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { quality: 95, webp_quality: None, png_level: 4, tiff: TiffCompression::None }
    }
}
