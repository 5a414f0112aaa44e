//! `srk train`.
use std::path::PathBuf;

use super::common::{self, DeviceChoice, Precision};
use super::print;
use crate::engine::device::{DType, Device};
use crate::error::{Error, Report, Result};
use crate::generative;
use crate::training::config::Config;
use crate::training::log::Reporter;
use crate::training::recipes;
use crate::training::run::train;
use crate::training::settings;

/// Train a model from a recipe or a configuration file.
///
/// A run lives in OUT/NAME and continues by itself when the same command is given again, also with more
/// steps, another rate or its data elsewhere. Ctrl-C
/// finishes the step, saves and exits with 130; a second Ctrl-C leaves at once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A TOML configuration
    #[arg(required_unless_present_any = ["recipe", "list_recipes"], conflicts_with = "recipe")]
    file: Option<PathBuf>,
    /// A recipe that comes with srk
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// Change a value, for example optim.lr=2e-4; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Start a new run from these weights: a weights file, or the folder of a run (run.init)
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Stop after this step, as if the run went on
    #[arg(long, value_name = "STEP")]
    until: Option<u64>,
    /// Where to run: auto, cpu, cuda, or one of several GPUs, such as cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What is computed in on a GPU; auto is bf16, or f16 where there is none
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// The folder of all runs
    #[arg(long, value_name = "DIR", default_value = "runs")]
    out: PathBuf,
    /// Show the recipes and exit
    #[arg(long)]
    list_recipes: bool,
}

pub(super) fn run(args: Args) -> Result<()> {
    if args.list_recipes {
        for recipe in recipes::ALL {
            print::line(format_args!("{:<22}{}", recipe.name, recipe.summary()));
        }
        return print::check();
    }
    let (text, name) = match (&args.recipe, &args.file) {
        (Some(name), _) => (recipes::find(name)?.text.to_owned(), format!("the recipe {name}")),
        (None, file) => {
            let file = file.clone().unwrap_or_default();
            let text = std::fs::read_to_string(&file).map_err(|e| {
                let report = Report::new(format!("cannot read {}", file.display()), e);
                Error::Usage(report.help("srk train --list-recipes    shows what comes with srk"))
            })?;
            (text, file.display().to_string())
        }
    };
    let mut args = args;
    if let Some(from) = &args.from {
        args.overrides.push(format!("run.init={:?}", from.display().to_string()));
    }
    let kind = settings::text_at(&text, "model.kind").unwrap_or_default();
    if generative::config::KINDS.contains(&kind.as_str()) {
        return train_generative(&args, &text, &name, &kind);
    }
    let config = Config::read(&text, &name, &args.overrides)?;
    let device = args.device.open(&mut |_| ())?;
    let dtype = match (args.precision, &device) {
        (Precision::Auto, Device::Cuda(gpu)) if gpu.compute_capability() >= (8, 0) => DType::BF16,
        (precision, device) => precision.on(device)?,
    };
    let stop = common::stop_on_signals()?;
    train(&config, &args.out, args.until, (&device, dtype), &stop, &mut Terminal::default())
}

/// Trains a GAN, VAE or DDPM: small, and on the CPU.
fn train_generative(args: &Args, text: &str, name: &str, kind: &str) -> Result<()> {
    let config = generative::config::Config::read(text, name, &args.overrides)?;
    if args.device.is_a_gpu() {
        let report = Report::new("cannot train on a GPU", format!("{kind} trains on the CPU only"));
        return Err(Error::Usage(report.help("leave --device out")));
    }
    args.precision.on(&Device::Cpu)?;
    let stop = common::stop_on_signals()?;
    generative::run::train(&config, &args.out, args.until, &stop, &mut Terminal::default())
}

/// Lines on standard output, warnings on standard error.
#[derive(Default)]
struct Terminal {
    /// Whether it was said that standard output takes no more.
    told: bool,
}

impl Reporter for Terminal {
    fn line(&mut self, text: &str) {
        if print::line(text) || std::mem::replace(&mut self.told, true) {
            return;
        }
        let cause = print::refused().map_or_else(String::new, |error| format!(" ({error})"));
        self.warn(&format!(
            "standard output takes no more lines{cause}; training goes on, metrics.jsonl has its values"
        ));
    }

    fn warn(&mut self, text: &str) {
        print::note(format_args!("warning: {text}"));
    }
}
