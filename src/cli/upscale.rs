//! `srk upscale`.
mod choice;
mod options;
mod report;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use choice::{Denoise, Models};
use options::{Alpha, Kept, positive, tile_size, wrap_sides};
use report::{Outcome, Output, Summary, Tally, first_done};

use super::common::{self, DeviceChoice, ModelChoice, Precision, Sampling, Stop};
use crate::diffusion::system::System;
use crate::engine::outputs::identity;
use crate::engine::pool;
use crate::error::{Error, Report, Result};
use crate::imaging::damage::Findings;
use crate::imaging::encode::{EncodeOptions, Format, Outline};
use crate::imaging::{self, Image, Metadata, Samples, folder};
use crate::upscale::bands::Sink;
use crate::upscale::budget::{self, Budget, Wanted};
use crate::upscale::jobs::{Existing, Job, Jobs, Request};
use crate::upscale::pipeline::{Reader, Writer, Written};
use crate::upscale::wrap::{self, Continued, Wrap};
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
    #[command(flatten)]
    model: ModelChoice,
    /// How many times as large; the model's 4x is resampled to any other factor
    #[arg(short, long, value_name = "FACTOR", value_parser = positive)]
    scale: Option<f64>,
    /// Calls of the network; the model's default if left out, 1 is the fastest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    #[command(flatten)]
    sampling: Sampling,
    /// How much noise and compression is taken away: auto (what the picture shows), or from 0 (none) to 1
    #[arg(long, default_value = "auto", value_name = "AMOUNT", value_parser = choice::denoise)]
    denoise: Denoise,
    /// The seed of the noise; the same seed gives the same bytes
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Tile size in input pixels: auto, none, or a number
    #[arg(short, long, default_value = "auto", value_parser = tile_size)]
    tile: TileSize,
    /// Memory for the whole process, such as 2G or 50%; large outputs are written as they are made
    /// [default: the picture and about 0.6G]
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
    /// JPEG quality, 1 to 100 [default: 95]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: Option<u8>,
    /// PNG effort: 0 stores, 1 is fast, 9 is smallest [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    png_level: Option<u8>,
    /// What to do with transparency
    #[arg(long, value_enum, default_value_t)]
    alpha: Alpha,
    /// Sides that continue at the opposite side, for textures that tile: none, x, y or both
    #[arg(long, value_name = "SIDES", default_value = "none", value_parser = wrap_sides)]
    wrap: Wrap,
    /// What to write of what a file says beside its pixels: keep, icc (the colour profile), strip (nothing)
    #[arg(long, value_enum, default_value_t)]
    metadata: Kept,
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

pub(super) fn run(args: Args) -> Result<()> {
    common::set_threads(args.threads.map(|n| n as usize))?;
    let mut request = args.request()?;
    let models = Models::open(&args.model, &args.sampling, &args.device, args.precision)?;
    models.check(args.denoise)?;
    let system = models.any().system();
    request.suffix = format!("_x{}", args.scale.unwrap_or(system.scale() as f64));
    let Jobs { jobs, left_out } = request.jobs()?;
    let stop = common::stop_on_signals()?;
    let started = Instant::now();
    let mut out = Output { json: args.json, quiet: args.quiet };
    out.event(json!({"event": "start", "model": models.name(), "files": jobs.len(),
        "device": common::device_name(system), "precision": common::precision_name(system),
        "seed": args.seed, "left_out": left_out}));
    out.say(&common::where_it_runs(models.name(), system));
    for note in &system.notes {
        out.say(&format!("warning: {note}"));
    }
    for note in common::notes_of_model(system) {
        out.say(&format!("note: {note}"));
    }
    if let Some(first) = left_out.first() {
        let (n, first) = (left_out.len(), first.display());
        out.say(&format!("note: {n} results of srk in the inputs are left out, first {first}"));
    }
    let mut tally = Tally::default();
    let to_do: Vec<&Job> = jobs.iter().filter(|job| !job.skip).collect();
    let work = Work {
        args: &args,
        models: &models,
        budget: Budget::new(args.ram, to_do.len() > 1),
        reader: Reader::start(to_do.iter().map(|job| job.input.clone()).collect()),
        writer: Writer::start(),
        stop: &stop,
    };
    let (mut pending, mut interrupted) = (VecDeque::new(), None);
    for job in &jobs {
        match work.begin(job, &out) {
            Ok(outcome) => pending.push_back((job, outcome)),
            Err(error) => {
                interrupted = Some(error);
                break;
            }
        }
        while let Some(outcome) = first_done(&mut pending) {
            tally.add(outcome, jobs.len(), &mut out);
        }
    }
    for (job, outcome) in pending {
        tally.add((job, outcome.wait()), jobs.len(), &mut out);
    }
    drop(work);
    if let Some(error) = interrupted {
        return Err(error);
    }
    if !tally.failed.is_empty() {
        // Waiting for a pipe to be read may be what was given up.
        common::check(&stop)?;
    }
    let Tally { done, skipped, mut failed } = tally;
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
    /// Whether outputs say what made them.
    fn stamps(&self) -> bool {
        !self.no_stamp && self.metadata == Kept::Keep
    }

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

    /// The output of a picture of `size` (width, height) like `like`, without its metadata.
    fn outline(&self, system: &System, size: (usize, usize), like: Outline) -> Outline {
        let scale = self.scale.unwrap_or(system.scale() as f64);
        let (width, height) = budget::target(size, scale);
        let alpha = like.alpha && self.alpha == Alpha::Keep;
        Outline { width, height, alpha, ..like }
    }

    fn encode_options(&self) -> EncodeOptions {
        let default = EncodeOptions::default();
        EncodeOptions {
            quality: self.quality.unwrap_or(default.quality),
            png_level: self.png_level.unwrap_or(default.png_level),
        }
    }

    /// What is to be written of the metadata.
    fn kept(&self, metadata: Metadata) -> Metadata {
        match self.metadata {
            Kept::Keep => metadata,
            Kept::Icc => metadata.colors_only(),
            Kept::Strip => Metadata::default(),
        }
    }

    /// What was asked for and does nothing in `format`.
    fn without_effect(&self, format: Format) -> Option<String> {
        let quality = self.quality.is_some() && format != Format::Jpeg;
        let level = self.png_level.is_some() && format != Format::Png;
        let name = format.name();
        match (quality, level) {
            (true, _) => Some(format!("--quality does nothing in a {name}, which loses nothing")),
            (_, true) => Some(format!("--png-level does nothing in a {name}")),
            _ => None,
        }
    }

    fn settings(&self, memory: u64) -> Settings {
        let steps = self.steps.map(|n| n as usize);
        Settings { steps, seed: self.seed, tile: self.tile, memory }
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
fn stamp(args: &Args, system: &System, steps: usize) -> String {
    let scale = args.scale.unwrap_or(system.scale() as f64);
    let settings = [
        ("model", system.label.clone()),
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

fn note_of_overlap(upscaler: &Upscaler, plan: &Plan) -> Option<String> {
    let reach = upscaler.system().network.geometry().receptive_field?;
    let (count, halo) = (plan.tiles.len(), plan.halo);
    (plan.blended && count > 1).then(|| {
        format!(
            "note: the network sees {reach} pixels each way, its {count} tiles share {halo} and are blended; \
             -t none is exact and takes more memory"
        )
    })
}

/// What all pictures of a run share.
struct Work<'a> {
    args: &'a Args,
    models: &'a Models,
    budget: Budget,
    reader: Reader,
    writer: Writer,
    stop: &'a Stop,
}

impl Work<'_> {
    /// Takes a picture through the network; its file may still be written then.
    ///
    /// # Errors
    /// If the work is to stop.
    fn begin(&self, job: &Job, out: &Output) -> Result<Outcome> {
        if job.skip {
            return Ok(Outcome::Skipped);
        }
        match self.upscale(job, out) {
            Ok((summary, written)) => Ok(Outcome::Written(Box::new(summary), written)),
            Err(error @ Error::Interrupted { .. }) => Err(error),
            Err(error) => Ok(Outcome::Failed(error)),
        }
    }

    fn upscale(&self, job: &Job, out: &Output) -> Result<(Summary, Written)> {
        common::check(self.stop)?;
        let (args, started) = (self.args, Instant::now());
        let format = Format::from_path(&job.output)?;
        // A picture that was not decoded ahead is not small: nothing is done before it is known to fit.
        let mut image = self.reader.next(&job.input, &|file, header| {
            self.budget.check_decoding(&job.input.display().to_string(), file, header)?;
            let size = (header.width, header.height);
            self.plan(job, self.models.any(), format, size, header.outline()).map(drop)
        })?;
        if args.alpha == Alpha::Drop {
            image.alpha = None;
        }
        let findings = self.findings(&image)?;
        let upscaler = self.models.of(&findings, args.denoise);
        let system = upscaler.system();
        if self.looks() {
            let (name, model) = (job.input.display(), &system.name);
            out.say(&format!("{name}: {findings}; enlarged by {model}"));
        }
        image.metadata = args.kept(std::mem::take(&mut image.metadata));
        let (mut plan, mut output, advice) =
            self.plan(job, upscaler, format, (image.width, image.height), Outline::of(&image))?;
        plan.damage = choice::told(system, &findings, args.denoise);
        output.metadata.stamp = args.stamps().then(|| stamp(args, system, plan.steps));
        refuse_newcomer(args, &job.output)?;
        if let Some(folder) = job.output.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| {
                Error::Failed(Report::new(format!("cannot create {}", folder.display()), e))
            })?;
        }
        if let Some(note) = note_of_overlap(upscaler, &plan) {
            out.say(&note);
        }
        if let Some(advice) = advice {
            out.say(&format!("warning: {}: {advice}", job.input.display()));
        }
        pool::budget(Budget::for_tiles(&plan));
        let bar = out.progress(&job.input, &plan);
        let writing =
            self.writer.begin(&job.output, output.clone(), format, args.encode_options())?;
        let mut on_call = |done: usize, all: usize| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            common::check(self.stop)
        };
        let put = &mut |strip| {
            common::check(self.stop)?;
            writing.put(strip)
        };
        let to = (output.width, output.height);
        let done = match args.wrap == Wrap::default() {
            true => self.strips(upscaler, &image, &plan, to, &mut on_call, put),
            false => self.texture(upscaler, &image, &plan, to, &mut on_call, put),
        };
        bar.finish_and_clear();
        let report = match done {
            Ok(report) => report,
            Err(error) => {
                writing.abandon();
                return Err(error);
            }
        };
        let summary = Summary {
            from: (image.width, image.height),
            output,
            format,
            tiles: plan.tiles.len(),
            steps: plan.steps,
            started,
            report,
            note: args.without_effect(format),
            model: system.name.clone(),
            damage: self.looks().then(|| choice::json(&findings, &plan.damage, args.denoise)),
        };
        Ok((summary, writing.end()))
    }

    /// Whether pictures are looked at for damage.
    fn looks(&self) -> bool {
        match self.models {
            Models::One(upscaler) => upscaler.system().knows_damage(),
            Models::Auto { .. } => true,
        }
    }

    fn findings(&self, image: &Image) -> Result<Findings> {
        match self.looks() {
            true => imaging::damage::seen(image),
            false => Ok(Findings::default()),
        }
    }

    fn strips(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        plan: &Plan,
        to: (usize, usize),
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let mut resampler = budget::resampler(image, upscaler.system().scale(), to)?;
        let seed = self.args.seed;
        upscale::upscale_strips(upscaler, image, plan, seed, on_call, &mut |strip| {
            match &mut resampler {
                Some(resampler) => resampler.add(&strip, put),
                None => put(strip),
            }
        })
    }

    /// A texture goes on in strips, too, unless it is resampled: that begins with rows from its other end.
    fn texture(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        plan: &Plan,
        to: (usize, usize),
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let (args, size) = (self.args, (image.width, image.height));
        let steps = args.steps.map(|n| n as usize);
        let (scale, seed) = (upscaler.system().scale(), args.seed);
        let way = Continued::new(upscaler, size, args.wrap, steps);
        if (size.0 * scale, size.1 * scale) == to {
            return way.upscale_strips(upscaler, image, plan, seed, on_call, put);
        }
        let mut whole = Image::new(size.0 * scale, 0, image.color, image.depth());
        whole.alpha = image.alpha.as_ref().map(|a| Samples::zeros(a.depth(), 0));
        let collect = &mut |strip: Image| {
            whole.append(&strip);
            Ok(())
        };
        let report = way.upscale_strips(upscaler, image, plan, seed, on_call, collect)?;
        put(wrap::resize(&whole, args.wrap, to.0, to.1)?)?;
        Ok(report)
    }

    /// The tiles and the output of a picture of `size` (width, height) like `like`, if all that fits, and what to say
    /// of the tiles.
    fn plan(
        &self,
        job: &Job,
        upscaler: &Upscaler,
        format: Format,
        size: (usize, usize),
        like: Outline,
    ) -> Result<(Plan, Outline, Option<String>)> {
        let (args, system) = (self.args, upscaler.system());
        let (input, name) = (job.input.display().to_string(), job.output.display().to_string());
        let pixel = like.bytes_per_pixel() as u64;
        let output = args.outline(system, size, like);
        imaging::check_output(
            &name,
            format,
            output.width,
            output.height,
            output.bytes_per_pixel(),
        )?;
        refuse_lost_alpha(&output, format, &name)?;
        let picture = (size.0 * size.1) as u64 * pixel;
        let steps = args.steps.map(|n| n as usize);
        let from = Continued::new(upscaler, size, args.wrap, steps).size();
        let pixels = |(width, height): (usize, usize)| width as u64 * height as u64;
        let wrapped = args.wrap != Wrap::default();
        // The continued picture beside the picture itself.
        let picture = picture + if wrapped { pixels(from) * pixel } else { 0 };
        let large = (size.0 * system.scale(), size.1 * system.scale());
        let resampled = large != (output.width, output.height);
        // It, and it continued, and what becomes of it.
        let collected = match wrapped && resampled {
            true => 2 * pixels(large) * pixel + pixels((output.width, output.height)) * pixel,
            false => 0,
        };
        let wanted = Wanted { name: &input, from, picture, output: &output, format, collected };
        let settings = args.settings(common::memory_for(upscaler, 0)?);
        let plan = self.budget.plan(upscaler, &wanted, &settings)?;
        let advice = self.budget.advice(upscaler, &wanted, &settings, &plan);
        Ok((plan, output, advice))
    }
}

fn refuse_lost_alpha(output: &Outline, format: Format, name: &str) -> Result<()> {
    if !output.alpha || format.has_alpha() {
        return Ok(());
    }
    let cause = format!("{} cannot hold transparency", format.name());
    let report = Report::new(format!("cannot write {name}"), cause);
    Err(Error::Failed(report.help("write a .png, or leave transparency out with --alpha drop")))
}
