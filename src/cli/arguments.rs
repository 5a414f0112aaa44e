//! All that the command line takes.
use clap::{Parser, Subcommand};

use super::{bench, compare, data, doctor, eval, manual, models, sample, train, upscale, voice};

/// Super-resolution with diffusion models on an engine of its own.
#[derive(Debug, Parser)]
#[command(name = "srk", bin_name = "srk", version, propagate_version = true, arg_required_else_help = true,
    before_help = EXAMPLES, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) voice: voice::Voice,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Upscale(Box<upscale::Args>),
    Train(train::Args),
    Sample(sample::Args),
    Eval(eval::Args),
    Compare(compare::Args),
    Data(data::Args),
    Models(models::Args),
    Doctor(doctor::Args),
    Bench(bench::Args),
    Completions(manual::Completions),
    Man(manual::Man),
}

const EXAMPLES: &str = "Examples:
  srk upscale photo.jpg                    -> photo_x4.png beside it
  srk upscale scans/ -r -o big/            a folder and all below it
  srk compare small.png photo_x4.png -o look.html
  srk eval --hr Set5/                      PSNR and SSIM of the model on pictures made small first
  srk train --recipe srk-x4 --set 'data.train.paths=[\"photos\"]'
";

const EXIT_CODES: &str = "Exit codes:
  0            everything asked for was done
  1            an input or a run failed
  2            the command line or a configuration is wrong; nothing was done
  3            a model is missing, unsupported or damaged
  4            the requested device cannot be used
  5            the work does not fit in memory
  6            a check said no: eval --min, data check, doctor, or a loss that is not finite
  129 130 143  interrupted; what is worth keeping was saved";
