//! The files that `srk upscale` writes: format, depth, and how hard they are packed.
use std::path::Path;

use crate::cli::defaults;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::{AVIF_HELP, EncodeOptions, Format, TiffCompression};
use crate::imaging::{Depth, Image};

/// Options of encoding.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Files")]
pub(super) struct Encoding {
    /// The format of outputs whose name does not tell: png, jpg, webp, tiff, bmp, ppm, avif (where srk was built with
    /// it), or keep for that of the input
    /// [default: png; through a pipe, keep]
    #[arg(short, long, value_name = "FORMAT", value_parser = format, visible_alias = "ext")]
    format: Option<Wanted>,
    /// Quality of JPEG and AVIF, 1 to 100 [default: 95]; makes a WebP lossy
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: Option<u8>,
    /// As upscayl counts it: --quality is 100 less this
    #[arg(short = 'c', long = "compression", value_name = "N", hide = true, conflicts_with = "quality",
        value_parser = clap::value_parser!(u8).range(0..=99))]
    compression: Option<u8>,
    /// WebP without loss, which it is unless --quality is given
    #[arg(long, conflicts_with = "quality")]
    lossless: bool,
    /// PNG effort: 0 stores, 1 is fast, 9 is smallest [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    png_level: Option<u8>,
    /// How a TIFF is packed, all without loss [default: none]
    #[arg(long, value_enum, value_name = "KIND")]
    tiff_compression: Option<Tiff>,
    /// Bits of a sample: keep, 8, or 16, also of pictures with 8
    #[arg(long, value_enum, default_value_t, value_name = "BITS")]
    depth: Bits,
}

/// A name of `--format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Keep,
    Named(Format),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Tiff {
    /// Not at all
    None,
    /// LZW, which every reader knows
    Lzw,
    /// Deflate: smaller
    Deflate,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Bits {
    /// Those of the input
    #[default]
    Keep,
    #[value(name = "8")]
    Eight,
    #[value(name = "16")]
    Sixteen,
}

fn format(text: &str) -> std::result::Result<Wanted, String> {
    match text {
        // "auto" is what Real-ESRGAN calls it.
        "keep" | "auto" => Ok(Wanted::Keep),
        _ => match Format::from_extension(text.trim_start_matches('.')) {
            Some(format) => match format.missing() {
                Some(cause) => Err(format!("{cause}; {AVIF_HELP}")),
                None => Ok(Wanted::Named(format)),
            },
            None => Err(format!("srk writes no {text}: png, jpg, webp, tiff, bmp, ppm or keep")),
        },
    }
}

impl Encoding {
    /// The format of outputs whose name does not tell; none keeps the input's. `piped` outputs keep it unless they
    /// are told otherwise.
    pub(super) fn format(&self, piped: bool) -> Option<Format> {
        match self.format {
            Some(Wanted::Named(format)) => Some(format),
            Some(Wanted::Keep) => None,
            None => (!piped).then_some(Format::Png),
        }
    }

    /// Refuses an output whose name says another format than `--format` on the command line, or none where that says
    /// none either. The name counts more than the settings of a file.
    pub(super) fn check_name(&self, output: &Path) -> Result<()> {
        let ending = output.extension().unwrap_or_default().to_string_lossy();
        if self.format.is_some() && Format::from_extension(&ending).is_none() {
            return Ok(());
        }
        let help = "end the name in .png, .jpg, .webp, .tiff, .bmp or .ppm, or give --format";
        let named = Format::told_by(output, help)?;
        let asked = self.format.filter(|_| self.is_format_typed());
        let Some(Wanted::Named(wanted)) = asked.filter(|&f| f != Wanted::Named(named)) else {
            return Ok(());
        };
        let what = format!("{} is to be two formats at once", output.display());
        let cause = format!("its name says {}, -f says {}", named.name(), wanted.name());
        let other = output.with_extension(wanted.extension());
        let help = format!("leave -f out, or write to {}", other.display());
        Err(Error::Usage(Report::new(what, cause).help(help)))
    }

    /// Whether a format was asked for.
    pub(super) fn is_format_given(&self) -> bool {
        self.format.is_some()
    }

    /// Whether that was on the command line, and not in the file of settings.
    pub(super) fn is_format_typed(&self) -> bool {
        self.format.is_some() && !defaults::is_setting("format")
    }

    fn asked_quality(&self) -> Option<u8> {
        self.quality.or_else(|| self.compression.map(|compression| 100 - compression))
    }

    pub(super) fn options(&self) -> EncodeOptions {
        let default = EncodeOptions::default();
        EncodeOptions {
            quality: self.asked_quality().unwrap_or(default.quality),
            webp_quality: self.asked_quality().filter(|_| !self.lossless),
            png_level: self.png_level.unwrap_or(default.png_level),
            tiff: match self.tiff_compression {
                None => default.tiff,
                Some(Tiff::None) => TiffCompression::None,
                Some(Tiff::Lzw) => TiffCompression::Lzw,
                Some(Tiff::Deflate) => TiffCompression::Deflate,
            },
        }
    }

    /// The depth of the output of a picture of depth `of`.
    pub(super) fn depth(&self, of: Depth) -> Depth {
        match self.depth {
            Bits::Keep => of,
            Bits::Eight => Depth::Eight,
            Bits::Sixteen => Depth::Sixteen,
        }
    }

    /// The depth in which a picture of depth `of` is worked on: narrowing comes last.
    pub(super) fn working_depth(&self, of: Depth) -> Depth {
        if self.depth == Bits::Sixteen { Depth::Sixteen } else { of }
    }

    /// The picture in that depth.
    pub(super) fn deepened(&self, image: Image) -> Image {
        let depth = self.working_depth(image.depth());
        image.to_depth(depth)
    }

    /// What was asked for and does nothing in `format`.
    pub(super) fn without_effect(&self, format: Format) -> Option<String> {
        let lossy = matches!(format, Format::Jpeg | Format::WebP | Format::Avif);
        let name = format.name();
        if self.asked_quality().is_some() && !lossy && !defaults::is_setting("quality") {
            return Some(format!("--quality does nothing in a {name}, which loses nothing"));
        }
        let idle = [
            (self.lossless && format == Format::Jpeg, "--lossless", "lossless"),
            (self.png_level.is_some() && format != Format::Png, "--png-level", "png_level"),
            (
                self.tiff_compression.is_some() && format != Format::Tiff,
                "--tiff-compression",
                "tiff_compression",
            ),
        ];
        // Settings of a file are for whatever they fit.
        let typed = |(idle, _, id): &&(bool, &str, &str)| *idle && !defaults::is_setting(id);
        let (_, option, _) = idle.iter().find(typed)?;
        match format {
            Format::Jpeg if *option == "--lossless" => {
                Some("--lossless does nothing in a JPEG, which always loses something".into())
            }
            _ => Some(format!("{option} does nothing in a {name}")),
        }
    }
}
