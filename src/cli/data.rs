//! `srk data`.
use std::path::PathBuf;

use serde_json::json;

use super::common::Seed;
use super::counted::with_progress;
use super::{common, data_check, voice};
use crate::data::degrade::{Degrade as Clean, DegradeConfig, Process};
use crate::data::pack;
use crate::data::pairs;
use crate::data::prep::{self, Method, Request};
use crate::data::subimages::{self, Squares};
use crate::data::survey;
use crate::error::{Error, Report, Result};
use crate::imaging::resample::Filter;

const EXAMPLES: &str = "Examples:
  srk data check photos/                                        broken, small, gray, CMYK, there twice
  srk data stats photos/                                        how many, how large, mean and deviation of colours
  srk data prep DIV2K/ -o parts/ --crop 480 --step 240          overlapping squares, which train faster
  srk data prep DIV2K/ -o pairs/ --scale 4                      high/ and low/ of whole pictures
  srk data degrade photos/ look/ --preset photo --count 20      damaged pairs, to look at
  srk data pack photos/ photos.tar                              one file in place of many, which srk train reads
";

/// Look at data sets and prepare them.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(data_check::Check),
    Stats(Stats),
    Prep(Prep),
    Degrade(Degrade),
    Pack(Pack),
}

const DEGRADE_EXAMPLES: &str = "Examples:
  srk data degrade photos/ look/ --count 20                       the damage of photographs on the web
  srk data degrade photos/ look/ --preset real-esrgan --seed 7
  srk data degrade photos/ look/ --set jpeg_prob=1 --size 256
";

/// Write pairs of truths and damaged low-resolution images, as training with [degrade] sees them.
///
/// Makes high/ and low/ in the output folder, and pairs.json with what was drawn for each. The pictures take
/// turns in sorted order, without those that are smaller than --size; where they are cut and how they are damaged follows
/// from the seed alone.
#[derive(Debug, clap::Args)]
#[command(before_help = DEGRADE_EXAMPLES)]
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
    /// What all draws follow from: a number, or random, which says what it drew
    #[arg(long, value_name = "N", default_value = "0")]
    seed: Seed,
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

const PREP_EXAMPLES: &str = "Examples:
  srk data prep DIV2K/ -o parts/ --crop 480 --step 240                squares NAME_s001.png, as BasicSR cuts them
  srk data prep HR/ -o parts/ --crop 480 --step 240 --scale 4 --lr LR/    the same of given pairs
  srk data prep Set5/ -o Set5x4/ --scale 4 --resample matlab-bicubic      high/NAME.png and low/NAMEx4.png
  srk data prep faces/ -o faces64/ --low 64 --high 256                whole pictures as squares of two sizes
";

/// Cut pictures into squares, or write them at a high and a low resolution.
///
/// With --crop and --step: overlapping squares of every picture. With --scale: high/ and low/, of whole pictures or of
/// their squares. With --low and --high: every picture as a square of two sizes, in train/ and test/ (high),
/// train_lr_data/ and test_lr_data/ (low), train_hr_lr_data/ and test_hr_lr_data/ (low enlarged), split in sorted order.
/// All are PNG under the names of the pictures. srk train needs none of this: it makes pairs itself.
#[derive(Debug, clap::Args)]
#[command(before_help = PREP_EXAMPLES)]
struct Prep {
    /// Pictures, idx files, folders with all pictures below them, and lists (.txt) of such
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The folder to write, new or empty; the last of several names without -o
    #[arg(short, long, value_name = "DIR", visible_alias = "output")]
    out: Option<PathBuf>,
    /// Cut squares of this side in pixels
    #[arg(long, value_name = "N", requires = "step")]
    crop: Option<usize>,
    /// From one square to the next, in pixels
    #[arg(long, value_name = "N", requires = "crop")]
    step: Option<usize>,
    /// Where more than so many pixels are left at an edge, a last square ends with it [default: 0]
    #[arg(long, value_name = "N", requires = "crop")]
    thresh: Option<usize>,
    /// Write low resolutions, smaller by this factor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=64))]
    scale: Option<u16>,
    /// Take the low resolutions from here, by their names, instead of making them
    #[arg(long, value_name = "DIR", requires = "scale", conflicts_with = "resample")]
    lr: Option<PathBuf>,
    /// Side of the low resolution in pixels
    #[arg(long, value_name = "N", requires = "high", required_unless_present_any = ["crop", "scale"],
        conflicts_with_all = ["crop", "scale"])]
    low: Option<usize>,
    /// Side of the high resolution in pixels
    #[arg(long, value_name = "N", requires = "low")]
    high: Option<usize>,
    /// With --low: how pictures become squares
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["crop", "scale"])]
    method: Square,
    /// How they are resampled [default: matlab-bicubic with --scale, bicubic with --low]
    #[arg(long, value_enum, alias = "kernel")]
    resample: Option<Resample>,
    /// With --low: the share of the pictures, in sorted order, that goes to train
    #[arg(long, value_name = "SHARE", default_value_t = 0.9, conflicts_with_all = ["crop", "scale"])]
    split: f64,
    /// Write into a folder that is not empty, replacing files of the same names
    #[arg(long)]
    force: bool,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

impl Prep {
    /// The folder to write: that of -o, or the last of several names.
    fn place(&mut self) -> Result<PathBuf> {
        if let Some(out) = self.out.take() {
            return Ok(out);
        }
        match self.inputs.len() {
            2.. => self.inputs.pop().ok_or_else(|| Error::Usage(Report::new("no names", ""))),
            _ => {
                let report = Report::new("where the squares go is not said", "one name was given");
                Err(Error::Usage(report.help("srk data prep SRC OUT, or -o OUT")))
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Square {
    /// The short side becomes the size, the middle is kept
    #[default]
    Crop,
    /// The whole picture is squeezed, whatever its shape
    Squash,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Resample {
    /// MATLAB's antialiased bicubic, which papers measure on; with --scale
    MatlabBicubic,
    /// Pillow 13's antialiased bicubic
    #[value(alias = "pillow-bicubic")]
    Bicubic,
    /// Pillow 13's antialiased bilinear
    #[value(alias = "pillow-bilinear")]
    Bilinear,
    /// Bicubic as Pillow up to version 12 makes it of tall pictures
    #[value(name = "pillow-12-bicubic")]
    Bicubic12,
    /// Bilinear as Pillow up to version 12 makes it of tall pictures
    #[value(name = "pillow-12-bilinear")]
    Bilinear12,
}

const PACK_EXAMPLES: &str = "Examples:
  srk data pack photos/ photos.tar                 one file in place of many
  srk data pack photos/ photos.tar --size 1G       photos-000.tar, photos-001.tar and on
  srk train run.toml --set 'data.train.paths=[\"photos.tar\"]'
";

/// Pack pictures into tar files, which training reads as they are.
///
/// A file system is slow at millions of small files, and copies them slowly. Pictures keep their bytes and their names
/// below the folder; other programs that read tar files (WebDataset) take them, too.
#[derive(Debug, clap::Args)]
#[command(before_help = PACK_EXAMPLES)]
struct Pack {
    /// A folder with all pictures below it, a picture, or a list (.txt)
    #[arg(value_name = "SRC")]
    input: PathBuf,
    /// The file to write, which ends in .tar
    #[arg(value_name = "OUT.tar")]
    out: PathBuf,
    /// The most bytes of a file, such as 1G: several are written then, with numbers
    #[arg(long, value_name = "SIZE", value_parser = common::parse_bytes)]
    size: Option<u64>,
    /// Replace files that are there
    #[arg(long, visible_alias = "force")]
    overwrite: bool,
}

const STATS_EXAMPLES: &str = "Examples:
  srk data stats photos/
  srk data stats train.txt --json
";

/// Count pictures and say how large they are, and what the mean and the deviation of their colours is.
#[derive(Debug, clap::Args)]
#[command(before_help = STATS_EXAMPLES)]
struct Stats {
    /// Pictures, idx files, folders with all pictures below them, and lists (.txt) of such
    #[arg(required = true, value_name = "FOLDER")]
    inputs: Vec<PathBuf>,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

pub(super) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Check(args) => data_check::run(&args),
        Command::Stats(args) => stats(&args),
        Command::Prep(mut args) => {
            let out = args.place()?;
            if args.low.is_some() { prepare(args, out) } else { cut(args, out) }
        }
        Command::Degrade(args) => degrade(args),
        Command::Pack(args) => pack(&args),
    }
}

fn stats(args: &Stats) -> Result<()> {
    let survey =
        with_progress("data stats", args.threads, |done| survey::survey(&args.inputs, done))?;
    for (path, cause) in &survey.broken {
        voice::say(format_args!("warning: {} is left out: {cause}", path.display()));
    }
    if survey.entries.is_empty() {
        let what = format!("none of {} can be read", common::counted(survey.len(), "picture"));
        let cause = survey.broken.first().map_or("", |(_, cause)| cause);
        return Err(Error::Failed(Report::new(what, cause).help("srk data check names them all")));
    }
    let [width, height] = [survey.spread(|e| e.width), survey.spread(|e| e.height)];
    let colors = survey.colors();
    let of_side =
        |[least, middle, most]: [usize; 3]| json!({"min": least, "median": middle, "max": most});
    voice::done(json!({"pictures": survey.entries.len(), "broken": survey.broken.len(),
        "pixels": survey.pixels(), "width": of_side(width), "height": of_side(height),
        "mean": colors.mean, "deviation": colors.deviation}));
    let side = |[least, middle, most]: [usize; 3]| format!("{least} to {most}, median {middle}");
    let three = |v: [f64; 3]| format!("{:.4} {:.4} {:.4}", v[0], v[1], v[2]);
    for (key, value) in [
        ("pictures", survey.entries.len().to_string()),
        ("pixels", format!("{:.1} Mpx", survey.pixels() as f64 / 1e6)),
        ("width", side(width)),
        ("height", side(height)),
        ("mean", format!("{}   of R, G and B in 0..1", three(colors.mean))),
        ("deviation", three(colors.deviation)),
    ] {
        voice::result(format_args!("{key:<12} {value}"));
    }
    Ok(())
}

/// Squares, low resolutions, or both.
fn cut(args: Prep, out: PathBuf) -> Result<()> {
    let squares = args.crop.zip(args.step).map(|(side, step)| Squares {
        side,
        step,
        thresh: args.thresh.unwrap_or(0),
    });
    if let (Some(_), None) = (args.resample, args.scale) {
        let report = Report::new("--resample makes low resolutions", "there is no --scale");
        return Err(Error::Usage(
            report.help("--scale 4    makes them; squares are cut, not resampled"),
        ));
    }
    let method = args.resample.map_or(Clean::MatlabBicubic, |resample| match resample {
        Resample::MatlabBicubic => Clean::MatlabBicubic,
        Resample::Bicubic => Clean::PillowBicubic,
        Resample::Bilinear => Clean::Bilinear,
        Resample::Bicubic12 => Clean::Pillow12Bicubic,
        Resample::Bilinear12 => Clean::Pillow12Bilinear,
    });
    let low = args.scale.map(|scale| subimages::Low {
        scale: usize::from(scale),
        method,
        given: args.lr.into_iter().collect(),
    });
    let request = subimages::Request { inputs: args.inputs, out, squares, low, force: args.force };
    let written =
        with_progress("data prep", args.threads, |done| subimages::write(&request, done))?;
    for skipped in &written.skipped {
        voice::say(format_args!("warning: {skipped} is left out"));
    }
    let out = &request.out;
    voice::done(json!({"written": out, "pictures": written.pictures, "images": written.images,
        "skipped": written.skipped}));
    let what = if request.squares.is_some() { "square" } else { "picture" };
    let place = if request.low.is_some() { out.join("high") } else { out.clone() };
    let beside = match request.low {
        Some(_) => format!(", their low resolutions in {}", out.join("low").display()),
        None => String::new(),
    };
    voice::status(format_args!(
        "{} of {} in {}{beside}, {} left out",
        common::counted(written.images, what),
        common::counted(written.pictures, "picture"),
        place.display(),
        written.skipped.len()
    ));
    Ok(())
}

fn degrade(args: Degrade) -> Result<()> {
    common::set_threads(args.threads)?;
    let stop = common::stop_on_signals()?;
    let config = DegradeConfig::read(&args.preset, &args.set)?;
    let request = pairs::Request {
        inputs: vec![args.input],
        out: args.out,
        process: Process::new(config, Clean::default(), args.scale),
        scale: args.scale,
        count: args.count,
        size: args.size,
        seed: args.seed.number,
        as_files: args.format == LowFormat::Jpg,
        force: args.force,
    };
    let warn = &mut |text: &str| voice::say(format_args!("warning: {text}"));
    let written = pairs::write(&request, warn, &|| common::check(&stop))?;
    let (count, out, seed) = (written.len(), request.out.display(), args.seed.words());
    voice::status(format_args!("{count} pairs in {out}{seed}"));
    voice::done(json!({"written": request.out, "pairs": count, "seed": request.seed}));
    Ok(())
}

/// Squares of two sizes.
fn prepare(args: Prep, out: PathBuf) -> Result<()> {
    let filter = match args.resample.unwrap_or(Resample::Bicubic) {
        Resample::Bicubic => Filter::Bicubic,
        Resample::Bilinear => Filter::Bilinear,
        Resample::Bicubic12 => Filter::Bicubic12,
        Resample::Bilinear12 => Filter::Bilinear12,
        Resample::MatlabBicubic => {
            let report = Report::new("--low and --high resample as Pillow does", "not as MATLAB");
            return Err(Error::Usage(
                report.help("--resample bicubic, or --scale N in their place"),
            ));
        }
    };
    let request = Request {
        inputs: args.inputs,
        out,
        low: args.low.unwrap_or_default(),
        high: args.high.unwrap_or_default(),
        method: match args.method {
            Square::Crop => Method::Crop,
            Square::Squash => Method::Squash,
        },
        filter,
        split: args.split,
        force: args.force,
    };
    let prepared = with_progress("data prep", args.threads, |done| prep::prep(&request, done))?;
    for skipped in &prepared.skipped {
        voice::say(format_args!("warning: {skipped} cannot be read and is left out"));
    }
    let (train, test, out) = (prepared.train, prepared.test, request.out.display());
    voice::done(json!({"written": request.out, "train": train, "test": test,
        "skipped": prepared.skipped}));
    voice::status(format_args!(
        "{train} pictures in {out}/train, {test} in {out}/test, {} left out",
        prepared.skipped.len()
    ));
    Ok(())
}

fn pack(args: &Pack) -> Result<()> {
    let request = pack::Request {
        inputs: vec![args.input.clone()],
        out: args.out.clone(),
        most: args.size,
        overwrite: args.overwrite,
    };
    let written = with_progress("data pack", None, |done| pack::write(&request, done))?;
    let names: Vec<String> = written.files.iter().map(|f| f.display().to_string()).collect();
    voice::status(format_args!(
        "{} in {}",
        common::counted(written.pictures, "picture"),
        names.join(", ")
    ));
    voice::done(json!({"written": written.files, "pictures": written.pictures}));
    Ok(())
}
