//! `srk data`.
use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{common, print};
use crate::data::prep::{self, Method, Request};
use crate::error::Result;
use crate::imaging::resample::Filter;

/// Prepare data sets.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Prep(Prep),
}

/// Write pictures at a high and a low resolution, and enlarged from the low one.
///
/// Makes train/ and test/ (high), train_lr_data/ and test_lr_data/ (low), train_hr_lr_data/ and
/// test_hr_lr_data/ (low enlarged) in the output folder, as PNG under the names of the pictures, which
/// are split in sorted order. srk train needs none of this: it makes pairs itself.
#[derive(Debug, clap::Args)]
struct Prep {
    /// Pictures, idx files, and folders with all pictures below them
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The folder to write, new or empty
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// Side of the low resolution in pixels
    #[arg(long, value_name = "N")]
    low: usize,
    /// Side of the high resolution in pixels
    #[arg(long, value_name = "N")]
    high: usize,
    /// How pictures become squares
    #[arg(long, value_enum, default_value_t)]
    method: Square,
    /// How they are resampled, as Pillow does
    #[arg(long, value_enum, default_value_t)]
    resample: Resample,
    /// The share of the pictures, in sorted order, that goes to train
    #[arg(long, value_name = "SHARE", default_value_t = 0.9)]
    split: f64,
    /// Write into a folder that is not empty, replacing files of the same names
    #[arg(long)]
    force: bool,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Square {
    /// The short side becomes the size, the middle is kept
    #[default]
    Crop,
    /// The whole picture is squeezed, whatever its shape
    Squash,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Resample {
    /// Cubic, antialiased
    #[default]
    Bicubic,
    /// Linear, antialiased
    Bilinear,
}

pub(super) fn run(args: Args) -> Result<()> {
    let Command::Prep(args) = args.command;
    common::set_threads(args.threads.map(|n| n as usize))?;
    let stop = common::stop_on_signals()?;
    let request = Request {
        inputs: args.inputs,
        out: args.out,
        low: args.low,
        high: args.high,
        method: match args.method {
            Square::Crop => Method::Crop,
            Square::Squash => Method::Squash,
        },
        filter: match args.resample {
            Resample::Bicubic => Filter::Bicubic,
            Resample::Bilinear => Filter::Bilinear,
        },
        split: args.split,
        force: args.force,
    };
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    if std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::stderr());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} pictures  {eta} left")
    {
        bar.set_style(style);
    }
    let prepared = prep::prep(&request, &|all| {
        bar.set_length(all as u64);
        bar.inc(1);
        common::check(&stop)
    });
    bar.finish_and_clear();
    let prepared = prepared?;
    for skipped in &prepared.skipped {
        print::note(format_args!("warning: {skipped} cannot be read and is left out"));
    }
    let (train, test, out) = (prepared.train, prepared.test, request.out.display());
    print::line(format_args!(
        "{train} pictures in {out}/train, {test} in {out}/test, {} left out",
        prepared.skipped.len()
    ));
    Ok(())
}
