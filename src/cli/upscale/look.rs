//! What works on an output as a whole: the mean of eight views, and colours brought back.
use super::{Args, Work};
use crate::cli::common;
use crate::engine::memory::in_words;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::Outline;
use crate::imaging::{Image, Metadata};
use crate::upscale::bands::Sink;
use crate::upscale::budget::{self, Wanted};
use crate::upscale::color_fix::{self, ColorFix, Method};
use crate::upscale::jobs::Job;
use crate::upscale::wrap::Wrap;
use crate::upscale::{self, Plan, Upscaler, alpha, tta};

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
    color_fix: Fix,
}

/// A value of `--color-fix`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Fix(Option<ColorFix>);

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
    pub(super) fn check(&self, args: &Args) -> Result<()> {
        if !self.needs_whole() || args.wrap == Wrap::default() {
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

impl Work<'_> {
    /// Enlarges `image`, holding all of the output, and hands it on in the size `to`.
    pub(super) fn whole(
        &self,
        (job, seed): (&Job, u64),
        upscaler: &Upscaler,
        image: &Image,
        plan: &Plan,
        output: &Outline,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let (args, scale) = (self.args, upscaler.system().scale());
        let needed = args.look.memory((image.width, image.height), scale, output);
        let free = common::available_memory();
        if needed > free {
            let what = format!("{} does not fit in memory", job.input.display());
            let (needed, free) = (in_words(needed), in_words(free));
            let cause = format!("the whole output is held, which takes {needed}; {free} are free");
            let help = "leave --tta and --color-fix out, or cut the picture into parts";
            return Err(Error::Memory(Report::new(what, cause).help(help)));
        }
        let (mut whole, report) = match args.look.tta {
            true => {
                let turned = self.turned(job, upscaler, image, output)?;
                let turned = Plan { damage: plan.damage, strict: plan.strict, ..turned };
                tta::enlarge(upscaler, image, [plan, &turned], seed, on_call)?
            }
            false => upscale::upscale(upscaler, image, plan, seed, on_call)?,
        };
        if let Some(fix) = args.look.color_fix.0 {
            let bled = alpha::bled(image);
            color_fix::fix(&mut whole, bled.as_ref().unwrap_or(image), scale, fix)?;
        }
        whole.metadata = Metadata::default();
        match budget::resampler(image, scale, (output.width, output.height))? {
            Some(mut resampler) => resampler.add(&whole, put)?,
            None => put(whole)?,
        }
        Ok(report)
    }

    /// The tiles of the transposed picture.
    fn turned(
        &self,
        job: &Job,
        upscaler: &Upscaler,
        image: &Image,
        output: &Outline,
    ) -> Result<Plan> {
        let args = self.args;
        let turned = Outline {
            width: output.height,
            height: output.width,
            metadata: Metadata::default(),
            ..*output
        };
        let wanted = Wanted {
            name: &job.input.display().to_string(),
            from: (image.height, image.width),
            picture: (image.width * image.height * image.bytes_per_pixel()) as u64,
            output: &turned,
            format: self.format(job)?,
            collected: 0,
        };
        let settings = args.settings(upscaler.memory_or(0)?);
        self.budget.plan(upscaler, &wanted, &settings)
    }
}
