//! `srk sample`.
use std::path::PathBuf;

use serde_json::json;

use super::common::{self, DeviceChoice, Seed};
use super::voice;
use crate::engine::outputs::Outputs;
use crate::error::Result;
use crate::imaging::{self, EncodeOptions};
use crate::training::tasks::grid;
use crate::upscale::SEED;

const EXAMPLES: &str = "Examples:
  srk train --recipe ddpm --set 'data.paths=[\"mnist\"]'    makes the run runs/ddpm
  srk sample runs/ddpm -o digits.png                       64 images of its newest weights
  srk sample runs/ddpm -o few.png --count 16 --seed 7 --steps 50 --zoom 4
";

/// Draw a grid of images from a trained GAN, VAE or DDPM.
///
/// What the recipes gan, dcgan, wgan-gp, vae and ddpm of `srk train` make. The same seed draws the same
/// images, on a GPU within rounding.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    /// The folder of a run, whose newest averages are taken, or a weights file
    #[arg(value_name = "RUN_OR_FILE")]
    model: PathBuf,
    /// The picture to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// How many images
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    count: u32,
    /// The seed of the noise: a number, or random, which says what it drew
    #[arg(long, value_name = "N", default_value = SEED.to_string())]
    seed: Seed,
    /// Calls of a ddpm's network for an image; those of its recipe if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// The side of the square that a pixel becomes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    zoom: u32,
    /// Write over an existing file
    #[arg(long)]
    overwrite: bool,
    /// Where to run: auto, cpu, cuda, or one of several GPUs, such as cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    common::set_threads(args.threads)?;
    let mut outputs = Outputs::overwriting(args.overwrite);
    outputs.reads_below(&args.model);
    outputs.claim(&args.output, &args.model)?;
    let mut notes = Vec::new();
    let device = args.device.open(&mut |_| ())?;
    let (system, model, steps) =
        grid::open(&args.model, args.steps.map(|n| n as usize), &device, &mut notes)?;
    notes.iter().for_each(|note| voice::say(format_args!("warning: {note}")));
    let seed = args.seed.number;
    if args.seed.drawn {
        voice::say(format_args!("note: the seed is {seed}"));
    }
    let images = system.draw(grid::noise(seed), args.count as usize)?;
    let mut picture = grid::grid(&images, args.zoom as usize)?;
    let mut settings = vec![("model", model), ("seed", seed.to_string())];
    settings.extend(steps.map(|steps| ("steps", steps.to_string())));
    picture.metadata.stamp = Some(imaging::stamp::stamp(&settings));
    imaging::write(&args.output, &picture, EncodeOptions::default())?;
    voice::done(json!({"written": args.output, "images": args.count, "seed": seed}));
    Ok(())
}
