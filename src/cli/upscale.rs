//! `srk upscale`.
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use super::common::{self, DeviceChoice, Precision, Sampling, Stop};
use super::print;
use crate::diffusion::system::System;
use crate::engine::outputs::identity;
use crate::engine::pool;
use crate::error::{Error, Report, Result};
use crate::imaging::{self, EncodeOptions, Format, Image, folder, resample};
use crate::upscale::jobs::{Existing, Job, Jobs, Request};
use crate::upscale::{self, Plan, Settings, TileSize, Upscaler};

const EXAMPLES: &str = "Examples:
  srk upscale photo.jpg                      -> photo_x4.png beside it
  srk upscale in.png out.png
  srk upscale in.png out.png -s 2 --steps 1  twice as large, the fastest way
  srk upscale scans/ -r -o big/ --skip-existing
";

/// Enlarge pictures with a diffusion model.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    /// Pictures or folders; of two names, the second is the output, unless it is a picture that exists
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The output file, or the folder of the outputs
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// A model of this binary, a weights file, or the folder of a training run
    #[arg(short, long, visible_short_alias = 'n', default_value = "srk-x4")]
    model: String,
    /// How many times as large; the model's 4x is resampled to any other factor
    #[arg(short, long, value_name = "FACTOR", value_parser = positive)]
    scale: Option<f64>,
    /// Calls of the network; the model's default if left out, 1 is the fastest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    #[command(flatten)]
    sampling: Sampling,
    /// The seed of the noise; the same seed gives the same bytes
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Tile size in input pixels: auto, none, or a number
    #[arg(short, long, default_value = "auto", value_parser = tile_size)]
    tile: TileSize,
    /// Memory for the tiles in flight, such as 2G or 50% [default: 30% of what is free, at most 1G]
    #[arg(long, value_name = "SIZE", value_parser = common::parse_bytes)]
    ram: Option<u64>,
    /// Where to run: auto, cpu, cuda, or one of several GPUs, such as cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What is computed in on a GPU; the CPU computes in f32
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// The format of outputs whose name is not given: png, jpg, webp, tiff, bmp
    #[arg(short, long, default_value = "png")]
    format: String,
    /// JPEG quality, 1 to 100
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// What to do with transparency
    #[arg(long, value_enum, default_value_t)]
    alpha: Alpha,
    /// Search folders to any depth; the outputs keep the tree
    #[arg(short, long)]
    recursive: bool,
    /// Replace outputs that exist
    #[arg(long, conflicts_with = "skip_existing")]
    overwrite: bool,
    /// Leave out inputs whose output exists
    #[arg(long)]
    skip_existing: bool,
    /// Do not say in the output that srk made it, with which model, seed and steps
    #[arg(long)]
    no_stamp: bool,
    /// Report as JSON lines on standard output
    #[arg(long)]
    json: bool,
    /// Print errors only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Alpha {
    /// Enlarge it beside the colours
    #[default]
    Keep,
    /// Leave it out
    Drop,
}

fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() && v > 0.0 => Ok(v),
        _ => Err("a factor is a number above 0".into()),
    }
}

fn tile_size(text: &str) -> std::result::Result<TileSize, String> {
    match text {
        "auto" | "0" => Ok(TileSize::Auto),
        "none" => Ok(TileSize::None),
        _ => match text.parse() {
            Ok(side) if side >= 8 => Ok(TileSize::Side(side)),
            _ => Err("auto, none, or a number of at least 8".into()),
        },
    }
}

pub(super) fn run(args: Args) -> Result<()> {
    common::set_threads(args.threads.map(|n| n as usize))?;
    // Less than the tiles themselves: what is kept for reuse counts as memory, too.
    pool::limit(256 << 20);
    let mut request = args.request()?;
    let mut system = System::open(&args.model)?;
    args.sampling.apply(&mut system)?;
    request.suffix = format!("_x{}", args.scale.unwrap_or(system.scale() as f64));
    let Jobs { jobs, left_out } = request.jobs()?;
    let upscaler = common::place(system, &args.device, args.precision)?;
    let system = upscaler.system();
    let stop = common::stop_on_signals()?;
    let started = Instant::now();
    let mut out = Output { json: args.json, quiet: args.quiet };
    out.event(json!({"event": "start", "model": system.name, "files": jobs.len(),
        "device": common::device_name(system), "precision": common::precision_name(system),
        "seed": args.seed, "left_out": left_out}));
    out.say(&common::where_it_runs(system));
    for note in &system.notes {
        out.say(&format!("warning: {note}"));
    }
    if let Some(first) = left_out.first() {
        let (n, first) = (left_out.len(), first.display());
        out.say(&format!("note: {n} results of srk in the inputs are left out, first {first}"));
    }
    let (mut done, mut skipped, mut failed) = (0, 0, vec![]);
    for job in &jobs {
        if job.skip {
            skipped += 1;
            out.event(json!({"event": "file", "input": job.input, "output": job.output,
                "status": "skipped"}));
            continue;
        }
        match one(&args, &upscaler, job, &stop, &mut out) {
            Ok(()) => done += 1,
            Err(error @ Error::Interrupted { .. }) => return Err(error),
            Err(error) => {
                out.event(json!({"event": "file", "input": job.input, "output": job.output,
                    "status": "failed", "code": error.exit_code(), "error": error.to_string()}));
                if jobs.len() > 1 {
                    print::note(format_args!("error: {error}"));
                }
                failed.push(error);
            }
        }
    }
    if skipped > 0 {
        out.say(&format!("{skipped} of {} left out: their outputs exist", jobs.len()));
    }
    for note in common::notes_of_libraries(system) {
        out.say(&format!("note: {note}"));
    }
    out.event(json!({"event": "done", "done": done, "skipped": skipped, "failed": failed.len(),
        "seconds": started.elapsed().as_secs_f64()}));
    match (jobs.len(), failed.pop()) {
        (_, None) => Ok(()),
        (1, Some(error)) => Err(error),
        (n, Some(_)) => {
            let what = format!("{} of {n} pictures failed", n - done - skipped);
            Err(Error::Failed(Report::new(what, "each was reported above")))
        }
    }
}

impl Args {
    fn request(&self) -> Result<Request> {
        let usage = |what: &str, help: &str| Error::Usage(Report::new(what, "").help(help));
        let mut inputs = self.inputs.clone();
        let mut output = self.output.clone();
        if output.is_none() && inputs.len() == 2 {
            output = inputs.pop();
            refuse_second_input(inputs.first().map(PathBuf::as_path), output.as_deref())?;
        } else if output.is_none() && inputs.len() > 2 {
            return Err(usage("several pictures need a folder to go to", "name it with -o FOLDER"));
        }
        let format = Format::from_extension(&self.format).ok_or_else(|| {
            usage(&format!("srk writes no {}", self.format), "png, jpg, webp, tiff or bmp")
        })?;
        let named_folder = output
            .as_ref()
            .is_some_and(|o| o.to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]));
        let into_folder = named_folder || inputs.len() > 1 || inputs.iter().any(|i| i.is_dir());
        if let Some(file) = output.as_ref().filter(|o| !into_folder && !o.is_dir()) {
            Format::from_path(file)?;
        }
        Ok(Request {
            inputs,
            output,
            into_folder,
            recursive: self.recursive,
            extension: format.extension().to_owned(),
            // That of the model, which is not open yet.
            suffix: String::new(),
            existing: match (self.overwrite, self.skip_existing) {
                (true, _) => Existing::Overwrite,
                (_, true) => Existing::Skip,
                _ => Existing::Refuse,
            },
        })
    }

    /// The size of the output for an input of `width` x `height`.
    fn target(&self, system: &System, image: &Image) -> (usize, usize) {
        let scale = self.scale.unwrap_or(system.scale() as f64);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A size, at least 1.
        let side = |v: usize| ((v as f64 * scale).round() as usize).max(1);
        (side(image.width), side(image.height))
    }
}

/// Refuses a second name that may be an input: a pattern such as `*.png` may have become two pictures. Results of
/// srk, and what is no picture, are none.
fn refuse_second_input(first: Option<&Path>, second: Option<&Path>) -> Result<()> {
    let (Some(first), Some(second)) = (first, second) else { return Ok(()) };
    let is_input =
        |path: &Path| imaging::decode::is_picture(path) && imaging::stamp::of_file(path).is_none();
    let held =
        if second.is_dir() { folder::pictures(second, false).unwrap_or_default() } else { vec![] };
    let may_be_input = match second.is_dir() {
        true => held.iter().any(|file| is_input(file)),
        false => second.is_file() && is_input(second),
    };
    // That no picture becomes its own result is said later, and better.
    if !may_be_input || identity(first) == identity(second) {
        return Ok(());
    }
    let name = second.display();
    let (kind, replace) = match second.is_dir() {
        true => ("a folder with pictures", ""),
        false => ("a picture that exists", " --overwrite"),
    };
    let what = format!("cannot tell whether {name} is to be enlarged or written");
    let report = Report::new(what, format!("it is {kind}"));
    let help =
        format!("-o {name}{replace}    writes to it; -o FOLDER    enlarges both into a folder");
    Err(Error::Usage(report.help(help)))
}

/// The settings that made an output, for its stamp.
fn stamp(args: &Args, system: &System, steps: usize, from: &Image, to: (usize, usize)) -> String {
    let name = Path::new(&system.name).file_name().unwrap_or_default().to_string_lossy();
    let scale = args.scale.unwrap_or(to.0 as f64 / from.width.max(1) as f64);
    let settings = [
        ("model", name.into_owned()),
        ("scale", scale.to_string()),
        ("seed", args.seed.to_string()),
        ("steps", steps.to_string()),
    ];
    imaging::stamp::stamp(&[&settings[..], &args.sampling.settings()].concat())
}

/// Refuses to write over a file that was not there when the work began.
fn refuse_newcomer(args: &Args, output: &Path) -> Result<()> {
    if args.overwrite || !output.is_file() {
        return Ok(());
    }
    let what = format!("{} was not written", output.display());
    let report = Report::new(what, "a file of that name appeared while the picture was enlarged");
    Err(Error::Failed(report.help("--overwrite replaces it")))
}

/// Upscales one picture and reports it.
fn one(args: &Args, upscaler: &Upscaler, job: &Job, stop: &Stop, out: &mut Output) -> Result<()> {
    common::check(stop)?;
    let started = Instant::now();
    let mut image = imaging::read(&job.input)?;
    if args.alpha == Alpha::Drop {
        image.alpha = None;
    }
    let (width, height) = args.target(upscaler.system(), &image);
    let name = job.output.display().to_string();
    let format = Format::from_path(&job.output)?;
    imaging::check_output(&name, format, width, height, image.bytes_per_pixel())?;
    refuse_lost_alpha(&image, format, &name)?;
    let memory = match args.ram {
        Some(bytes) => bytes,
        None => common::memory_for(upscaler, default_memory())?,
    };
    let steps = args.steps.map(|n| n as usize);
    let settings = Settings { steps, seed: args.seed, tile: args.tile, memory };
    let plan = upscale::plan(upscaler, image.width, image.height, &settings)?;
    let bar = out.progress(&job.input, &plan);
    let (mut output, report) =
        upscale::upscale(upscaler, &image, &plan, args.seed, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            common::check(stop)
        })?;
    bar.finish_and_clear();
    if (output.width, output.height) != (width, height) {
        output = resample::resize(&output, width, height)?;
    }
    if let Some(folder) = job.output.parent().filter(|p| !p.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::Failed(Report::new(format!("cannot create {}", folder.display()), e))
        })?;
    }
    output.metadata.stamp = match args.no_stamp {
        true => None,
        false => Some(stamp(args, upscaler.system(), plan.steps, &image, (width, height))),
    };
    refuse_newcomer(args, &job.output)?;
    let options = EncodeOptions { quality: args.quality, ..EncodeOptions::default() };
    imaging::write(&job.output, &output, options)?;
    out.finished(job, &image, &output, &plan, format, started.elapsed());
    out.incidents(job, report);
    Ok(())
}

fn refuse_lost_alpha(image: &Image, format: Format, name: &str) -> Result<()> {
    if image.alpha.is_none() || format.has_alpha() {
        return Ok(());
    }
    let cause = format!("{} cannot hold transparency", format.name());
    let report = Report::new(format!("cannot write {name}"), cause);
    Err(Error::Failed(report.help("write a .png, or leave transparency out with --alpha drop")))
}

/// 30 % of what is free, at most 1 GiB: larger tiles gain little.
fn default_memory() -> u64 {
    (common::available_memory() / 10 * 3).min(1 << 30)
}

/// What the user sees: lines for people on standard error, JSON for programs on standard output.
struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    fn event(&mut self, event: serde_json::Value) {
        if self.json {
            print::line(event);
        }
    }

    fn say(&mut self, text: &str) {
        if !self.quiet {
            print::note(text);
        }
    }

    fn progress(&self, input: &Path, plan: &Plan) -> ProgressBar {
        let calls = (plan.tiles.len() * plan.steps) as u64;
        let bar = match self.quiet || !std::io::stderr().is_terminal() {
            true => ProgressBar::with_draw_target(Some(calls), ProgressDrawTarget::hidden()),
            false => ProgressBar::new(calls),
        };
        let style = ProgressStyle::with_template("{msg} {bar:30} {percent:>3} %  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message(input.file_name().unwrap_or_default().to_string_lossy().into_owned());
        bar
    }

    /// What a user should know of an upscale that went another way than planned.
    fn incidents(&mut self, job: &Job, report: upscale::Report) {
        if report == upscale::Report::default() {
            return;
        }
        let upscale::Report { redone, halved } = report;
        self.event(json!({"event": "incidents", "input": job.input, "redone_in_f32": redone,
            "tiles_halved": halved}));
        if redone > 0 {
            self.say(&format!("note: {redone} tiles were not finite and were computed in f32"));
        }
        if halved > 0 {
            self.say(&format!("note: the GPU was full, tiles were made smaller {halved} times"));
        }
    }

    fn finished(
        &mut self,
        job: &Job,
        image: &Image,
        output: &Image,
        plan: &Plan,
        format: Format,
        took: Duration,
    ) {
        let losses = imaging::encode::losses(output, format);
        let (tiles, steps, seconds) = (plan.tiles.len(), plan.steps, took.as_secs_f64());
        self.event(json!({"event": "file", "input": job.input, "output": job.output,
            "status": "ok", "from": [image.width, image.height], "to": [output.width, output.height],
            "tiles": tiles, "steps": steps, "seconds": seconds, "lost": losses}));
        self.say(&format!(
            "{} -> {}  {}x{} -> {}x{}  {tiles} tile{} x {steps} step{}  {seconds:.1} s",
            job.input.display(),
            job.output.display(),
            image.width,
            image.height,
            output.width,
            output.height,
            if tiles == 1 { "" } else { "s" },
            if steps == 1 { "" } else { "s" },
        ));
        for loss in losses {
            self.say(&format!("note: {} cannot hold the {loss}", format.name()));
        }
    }
}
