//! What `srk upscale` is told.
use super::care::Care;
use super::choice;
use super::encoding::Encoding;
use super::look::Look;
use super::options::Naming;
use super::options::{self, Alpha, Kept, Tile, Vram, tile, wrap_sides};
use crate::cli::common::{self, DeviceChoice, ModelChoice, Precision, Sampling, Seed};
use crate::cli::habits::{self, Habits};
use crate::cli::sizes::Sizes;
use crate::diffusion::system::System;
use crate::imaging::Metadata;
use crate::imaging::encode::Outline;
use crate::upscale::choice::Denoise;
use crate::upscale::wrap::Wrap;
use crate::upscale::{SEED, Settings};
use std::path::PathBuf;

const EXAMPLES: &str = "Examples:
  srk upscale photo.jpg                      -> photo_x4.png beside it
  srk upscale in.png out.png
  srk upscale in.png out.png -s 2 --steps 1  twice as large, the fastest way
  srk upscale in.png out.jpg --long 4000     the longer side becomes 4000 pixels
  srk upscale scans/ -r -o big/ --skip-existing
  srk upscale scans/ -o big/ --dry-run       what would be done, and about how long it takes
  cat in.png | srk upscale - - > out.png
";

/// Enlarge pictures with a diffusion model.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Pictures, folders, or - for standard input; of two names, the second is the output, unless it is a picture
    /// that exists and no result of srk: -o names that, whatever --overwrite says
    #[arg(required_unless_present_any = ["named_inputs", "from_report"], value_name = "INPUT")]
    pub(super) inputs: Vec<PathBuf>,
    /// The same as INPUT
    #[arg(short = 'i', long = "input", value_name = "INPUT", hide = true)]
    pub(super) named_inputs: Vec<PathBuf>,
    /// The output file, the folder of the outputs (made if it is not there), or - for standard output
    #[arg(short, long, value_name = "PATH")]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) model: ModelChoice,
    #[command(flatten)]
    pub(super) sizes: Sizes,
    /// Calls of the network; the model's default if left out, 1 is the fastest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
        aliases = ["ddpm_steps", "num_steps", "infer_steps"])]
    pub(super) steps: Option<u32>,
    #[command(flatten)]
    pub(super) sampling: Sampling,
    /// How much noise and compression is taken away: auto (what the picture shows), or from 0 (none) to 1
    #[arg(long, default_value = "auto", value_name = "AMOUNT", value_parser = choice::denoise)]
    pub(super) denoise: Denoise,
    /// From 0 to 1, how near the picture stays to its input: 1 less --denoise
    #[arg(long, value_name = "AMOUNT", hide = true, conflicts_with = "denoise", value_parser = choice::fidelity)]
    pub(super) fidelity: Option<Denoise>,
    /// The seed of the noise: a number, the same of which gives the same bytes, or random, which says what it drew
    #[arg(long, value_name = "N", default_value = SEED.to_string())]
    pub(super) seed: Seed,
    /// Tile size in input pixels: auto (also 0), none, a side, or both as in 512x256
    #[arg(short, long, default_value = "auto", value_parser = tile,
        aliases = ["tile-size", "tile_size", "chop_size", "process_size", "upscale-tile-size"])]
    pub(super) tile: Tile,
    /// Memory for the whole process, such as 2G or 50%; large outputs are written as they are made
    /// [default: SRK_RAM, or the picture and about 0.6G; up to 2G for wide ones in many steps]
    #[arg(long, value_name = "SIZE", value_parser = common::parse_bytes)]
    pub(super) ram: Option<u64>,
    /// Memory of the GPU for tiles, such as 4G or 50% of what is free [default: 80%]
    #[arg(long, value_name = "SIZE", value_parser = options::vram, alias = "max-vram")]
    pub(super) vram: Option<Vram>,
    /// Fail where the work would go on in another way: on the CPU without a GPU, in f32 where f16 overflows, in smaller
    /// tiles where the GPU is full
    #[arg(long)]
    pub(super) no_fallback: bool,
    /// Where to run: auto (what SRK_DEVICE says, or a GPU if there is one), cpu, cuda, one of several GPUs, such as
    /// cuda:1, or several that share the pictures, and the tiles of a single one: cuda:0,2 or cuda:all
    #[arg(long, default_value = "auto")]
    pub(super) device: DeviceChoice,
    /// What is computed in; auto is f16 on a GPU and f32 on the CPU
    #[arg(long, value_enum, default_value_t)]
    pub(super) precision: Precision,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = habits::threads)]
    pub(super) threads: Option<u32>,
    #[command(flatten)]
    pub(super) naming: Naming,
    #[command(flatten)]
    pub(super) encoding: Encoding,
    #[command(flatten)]
    pub(super) look: Look,
    /// What to do with transparency
    #[arg(long, value_name = "HOW", default_value = "keep", value_parser = options::Alphas)]
    pub(super) alpha: Alpha,
    /// Sides that continue at the opposite side, for textures that tile: none, x, y or both
    #[arg(long, value_name = "SIDES", default_value = "none", value_parser = wrap_sides)]
    pub(super) wrap: Wrap,
    /// What to write of what a file says beside its pixels: keep, icc (the colour profile), strip (nothing, not even
    /// which model and seed made it)
    #[arg(long, value_enum, default_value_t)]
    pub(super) metadata: Kept,
    /// Do not say in the output that srk made it, with which model, seed and steps
    #[arg(long)]
    pub(super) no_stamp: bool,
    /// Say what would be done, in which tiles and about how long it takes, and do nothing
    #[arg(short, long)]
    pub(super) dry_run: bool,
    #[command(flatten)]
    pub(super) care: Care,
    #[command(flatten)]
    pub(super) habits: Habits,
}

impl Args {
    /// Whether outputs say what made them.
    pub(super) fn stamps(&self) -> bool {
        !self.no_stamp && self.metadata == Kept::Keep
    }

    /// Takes options of other programs for srk's own.
    pub(super) fn adopt_habits(&mut self) {
        if let Some(name) = &self.habits.gpu {
            self.device = DeviceChoice::named(name);
        }
        if let Some(denoise) = self.fidelity {
            self.denoise = denoise;
        }
        match (self.habits.fp32, self.habits.half) {
            (true, _) => self.precision = Precision::F32,
            (_, true) => self.precision = Precision::F16,
            _ => {}
        }
    }

    /// The output of a picture of `size` (width, height) like `like`, without its metadata.
    pub(super) fn outline(&self, system: &System, size: (usize, usize), like: Outline) -> Outline {
        let (width, height) = self.sizes.target(size, system.scale());
        let alpha = like.alpha && self.alpha == Alpha::Keep;
        let depth = self.encoding.depth(like.depth);
        Outline { width, height, alpha, depth, ..like }
    }

    /// What is to be written of the metadata.
    pub(super) fn kept(&self, metadata: Metadata) -> Metadata {
        match self.metadata {
            Kept::Keep => metadata,
            Kept::Icc => metadata.colors_only(),
            Kept::Strip => Metadata::default(),
        }
    }

    pub(super) fn settings(&self, memory: u64) -> Settings {
        let steps = self.steps.map(|n| n as usize);
        let memory = self.vram.map_or(memory, |vram| vram.of(memory));
        Settings { steps, seed: self.seed.number, tile: self.tile.size, memory }
    }
}
