//! `srk data`.
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use super::progress::Progress;
use super::{common, voice};
use crate::data::degrade::{Degrade as Clean, DegradeConfig, Process};
use crate::data::pairs;
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
    Degrade(Degrade),
}

/// Write pairs of truths and damaged low-resolution images, as training with [degrade] sees them.
///
/// Makes high/ and low/ in the output folder, and pairs.json with what was drawn for each. The pictures take
/// turns in sorted order; where they are cut and how they are damaged follows from the seed alone.
#[derive(Debug, clap::Args)]
struct Degrade {
    /// A picture, or a folder with all pictures below it
    #[arg(value_name = "SRC")]
    input: PathBuf,
    /// The folder to write, new or empty
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// The damage: bicubic (none), photo, web, or real-esrgan
    #[arg(long, value_name = "NAME", default_value = "photo")]
    preset: String,
    /// A key of [degrade] with another value than the preset's
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Pairs to write
    #[arg(long, value_name = "N", default_value_t = 50)]
    count: usize,
    /// What all draws follow from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The factor between the resolutions
    #[arg(long, value_name = "N", default_value_t = 4)]
    scale: usize,
    /// Side of a truth in pixels
    #[arg(long, value_name = "N", default_value_t = 384)]
    size: usize,
    /// How low-resolution images are written
    #[arg(long, value_enum, default_value_t)]
    format: LowFormat,
    /// Write into a folder that is not empty, replacing files of the same names
    #[arg(long)]
    force: bool,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum LowFormat {
    /// The pixels, of a part of a larger damaged picture
    #[default]
    Png,
    /// The JPEG itself where that was the last damage; each truth is a whole picture then
    Jpg,
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
    /// How they are resampled, as Pillow 13 does
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
    /// Cubic, as Pillow up to version 12 makes it of tall pictures
    #[value(name = "pillow-12-bicubic")]
    Bicubic12,
    /// Linear, as Pillow up to version 12 makes it of tall pictures
    #[value(name = "pillow-12-bilinear")]
    Bilinear12,
}

pub(super) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Prep(args) => prepare(args),
        Command::Degrade(args) => degrade(args),
    }
}

fn degrade(args: Degrade) -> Result<()> {
    common::set_threads(args.threads.map(|n| n as usize))?;
    let stop = common::stop_on_signals()?;
    let config = DegradeConfig::read(&args.preset, &args.set)?;
    let request = pairs::Request {
        inputs: vec![args.input],
        out: args.out,
        process: Process::new(config, Clean::default(), args.scale),
        scale: args.scale,
        count: args.count,
        size: args.size,
        seed: args.seed,
        as_files: args.format == LowFormat::Jpg,
        force: args.force,
    };
    let written = pairs::write(&request, &|| common::check(&stop))?;
    voice::result(format_args!("{} pairs in {}", written.len(), request.out.display()));
    voice::done(json!({"written": request.out, "pairs": written.len()}));
    Ok(())
}

fn prepare(args: Prep) -> Result<()> {
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
            Resample::Bicubic12 => Filter::Bicubic12,
            Resample::Bilinear12 => Filter::Bilinear12,
        },
        split: args.split,
        force: args.force,
    };
    let (progress, done) = (Mutex::new(Progress::new("data prep", 0)), AtomicU64::new(0));
    let prepared = prep::prep(&request, &|all| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(progress) = progress.lock() {
            progress.at(done, all as u64);
        }
        common::check(&stop)
    });
    if let Ok(progress) = progress.lock() {
        progress.finish();
    }
    let prepared = prepared?;
    for skipped in &prepared.skipped {
        voice::say(format_args!("warning: {skipped} cannot be read and is left out"));
    }
    let (train, test, out) = (prepared.train, prepared.test, request.out.display());
    voice::done(json!({"written": request.out, "train": train, "test": test,
        "skipped": prepared.skipped}));
    voice::result(format_args!(
        "{train} pictures in {out}/train, {test} in {out}/test, {} left out",
        prepared.skipped.len()
    ));
    Ok(())
}
