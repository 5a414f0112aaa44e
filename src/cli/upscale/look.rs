//! What works on an output as a whole: the mean of eight views, and colours brought back.
use crate::error::{Error, Report, Result};
use crate::imaging::encode::Outline;
use crate::upscale::color_fix::{ColorFix, Method};
use crate::upscale::tta;
use crate::upscale::wrap::Wrap;

/// Options for the looks of an output.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Looks")]
pub(super) struct Look {
    /// The mean of eight views, mirrored and turned: smoother and 8 times the work
    #[arg(short = 'x', long)]
    pub(super) tta: bool,
    /// Bring colours back to those of the input: none, lowfreq (what varies over many pixels), adain (mean and spread),
    /// ycbcr (chroma); with a strength from 0 to 1 as in lowfreq:0.5
    #[arg(long, value_name = "HOW", value_parser = color_fix, default_value = "none",
        aliases = ["color_fix", "align_method", "align-method"])]
    pub(super) color_fix: Fix,
}

/// A value of `--color-fix`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fix(pub(super) Option<ColorFix>);

fn color_fix(text: &str) -> std::result::Result<Fix, String> {
    let (name, strength) = text.split_once(':').unwrap_or((text, "1"));
    let strength = match strength.parse::<f32>() {
        Ok(strength) if (0.0..=1.0).contains(&strength) => strength,
        _ => return Err("a strength is a number from 0 to 1".into()),
    };
    let method = match name {
        "none" | "nofix" => return Ok(Fix(None)),
        // What StableSR and those after it call it.
        "lowfreq" | "wavelet" => Method::LowFrequencies,
        "adain" => Method::Statistics,
        "ycbcr" => Method::Chroma,
        _ => return Err("none, lowfreq, adain or ycbcr".into()),
    };
    Ok(Fix(Some(ColorFix { method, strength })))
}

impl Look {
    /// Whether the output must be there as a whole.
    pub(super) fn needs_whole(&self) -> bool {
        self.tta || self.color_fix.0.is_some()
    }

    /// How many times as much work a picture is.
    pub(super) fn times(&self) -> usize {
        if self.tta { tta::VIEWS } else { 1 }
    }

    /// Refuses what does not go together.
    pub(super) fn check(&self, wrap: Wrap) -> Result<()> {
        if !self.needs_whole() || wrap == Wrap::default() {
            return Ok(());
        }
        let option = if self.tta { "--tta" } else { "--color-fix" };
        let what = format!("{option} and --wrap do not go together");
        Err(Error::Usage(Report::new(what, "textures that tile are made in a way of their own")))
    }

    /// For the stamp of an output.
    pub(super) fn settings(&self) -> Vec<(&'static str, String)> {
        let fix = self.color_fix.0.map(|fix| {
            let name = match fix.method {
                Method::LowFrequencies => "lowfreq",
                Method::Statistics => "adain",
                Method::Chroma => "ycbcr",
            };
            ("color-fix", format!("{name}:{}", fix.strength))
        });
        let tta = self.tta.then(|| ("tta", tta::VIEWS.to_string()));
        tta.into_iter().chain(fix).collect()
    }

    /// Bytes that are held beside the plan's, for a picture of `size` that becomes `output`.
    pub(super) fn memory(&self, size: (usize, usize), scale: usize, output: &Outline) -> u64 {
        if !self.needs_whole() {
            return 0;
        }
        let pixels = (size.0 * size.1 * scale * scale) as u64;
        let whole = pixels.saturating_mul(output.bytes_per_pixel() as u64);
        let views = match self.tta {
            true => tta::memory(pixels, output.color.channels() as u64),
            false => (size.0 * size.1 * 3 * 4 * 2) as u64,
        };
        whole.saturating_add(views)
    }
}
