//! `srk upscale`.
mod again;
mod care;
mod choice;
mod disk;
mod dry;
mod encoding;
mod look;
mod naming;
pub(super) mod options;
mod report;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use care::Care;
use dry::Planned;
use encoding::Encoding;
use look::Look;
use naming::Naming;
use options::{Alpha, Kept, Tile, Vram, tile, wrap_sides};
use report::{Outcome, Output, Summary, Tally, first_done};

use super::common::{self, DeviceChoice, ModelChoice, Precision, Sampling, Seed, Stop};
use super::habits::{self, Habits};
use super::sizes::Sizes;
use super::{progress, voice};
use crate::diffusion::system::System;
use crate::engine::device::Device;
use crate::engine::files::is_standard;
use crate::engine::pool;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::{Format, Outline};
use crate::imaging::{self, Image, Metadata, Samples};
use crate::upscale::bands::Sink;
use crate::upscale::budget::{self, Budget, Wanted};
use crate::upscale::choice::{Denoise, Models};
use crate::upscale::jobs::{Job, Jobs};
use crate::upscale::pipeline::{Reader, Writer, Written};
use crate::upscale::wrap::{self, Continued, Wrap};
use crate::upscale::{self, Plan, Settings, Upscaler, jobs};

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
pub(super) struct Args {
    /// Pictures, folders, or - for standard input; of two names, the second is the output, unless it is a picture
    /// that exists
    #[arg(required_unless_present_any = ["named_inputs", "from_report"], value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The same as INPUT
    #[arg(short = 'i', long = "input", value_name = "INPUT", hide = true)]
    named_inputs: Vec<PathBuf>,
    /// The output file, the folder of the outputs (made if it is not there), or - for standard output
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    #[command(flatten)]
    model: ModelChoice,
    #[command(flatten)]
    sizes: Sizes,
    /// Calls of the network; the model's default if left out, 1 is the fastest
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..),
        aliases = ["ddpm_steps", "num_steps", "infer_steps"])]
    steps: Option<u32>,
    #[command(flatten)]
    sampling: Sampling,
    /// How much noise and compression is taken away: auto (what the picture shows), or from 0 (none) to 1
    #[arg(long, default_value = "auto", value_name = "AMOUNT", value_parser = choice::denoise)]
    denoise: Denoise,
    /// From 0 to 1, how near the picture stays to its input: 1 less --denoise
    #[arg(long, value_name = "AMOUNT", hide = true, conflicts_with = "denoise", value_parser = choice::fidelity)]
    fidelity: Option<Denoise>,
    /// The seed of the noise: a number, the same of which gives the same bytes, or random, which says what it drew
    #[arg(long, value_name = "N", default_value = "42")]
    seed: Seed,
    /// Tile size in input pixels: auto (also 0), none, a side, or both as in 512x256
    #[arg(short, long, default_value = "auto", value_parser = tile,
        aliases = ["tile-size", "tile_size", "chop_size", "process_size", "upscale-tile-size"])]
    tile: Tile,
    /// Memory for the whole process, such as 2G or 50%; large outputs are written as they are made
    /// [default: SRK_RAM, or the picture and about 0.6G]
    #[arg(long, value_name = "SIZE", value_parser = common::parse_bytes)]
    ram: Option<u64>,
    /// Memory of the GPU for tiles, such as 4G or 50% of what is free [default: 80%]
    #[arg(long, value_name = "SIZE", value_parser = options::vram, alias = "max-vram")]
    vram: Option<Vram>,
    /// Fail where the work would go on in another way: on the CPU without a GPU, in f32 where f16 overflows, in smaller
    /// tiles where the GPU is full
    #[arg(long)]
    no_fallback: bool,
    /// Where to run: auto (what SRK_DEVICE says, or a GPU if there is one), cpu, cuda, or one of several GPUs, such as
    /// cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What is computed in on a GPU; the CPU computes in f32
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = habits::threads)]
    threads: Option<u32>,
    #[command(flatten)]
    naming: Naming,
    #[command(flatten)]
    encoding: Encoding,
    #[command(flatten)]
    look: Look,
    /// What to do with transparency
    #[arg(long, value_name = "HOW", default_value = "keep", value_parser = options::Alphas)]
    alpha: Alpha,
    /// Sides that continue at the opposite side, for textures that tile: none, x, y or both
    #[arg(long, value_name = "SIDES", default_value = "none", value_parser = wrap_sides)]
    wrap: Wrap,
    /// What to write of what a file says beside its pixels: keep, icc (the colour profile), strip (nothing, not even
    /// which model and seed made it)
    #[arg(long, value_enum, default_value_t)]
    metadata: Kept,
    /// Do not say in the output that srk made it, with which model, seed and steps
    #[arg(long)]
    no_stamp: bool,
    /// Say what would be done, in which tiles and about how long it takes, and do nothing
    #[arg(short, long)]
    dry_run: bool,
    #[command(flatten)]
    care: Care,
    #[command(flatten)]
    habits: Habits,
}

pub(super) fn run(mut args: Args) -> Result<()> {
    args.adopt_habits();
    common::set_threads(args.threads.map(|n| n as usize))?;
    args.look.check(&args)?;
    args.ram = common::ram(args.ram)?;
    let places = args.places()?;
    if places.is_piped() {
        voice::leave_stdout();
    }
    let models = {
        let Args { model, sampling, device, precision, dry_run, no_fallback, .. } = &args;
        if *no_fallback {
            device.refuse_fallback()?;
        }
        choice::open(model, sampling, device, *precision, *dry_run)?
    };
    choice::check(&models, args.denoise)?;
    let system = models.any().system();
    let Jobs { jobs, left_out, foreign } = args.jobs(places, models.name(), system)?;
    let full_disks = disk::check(&args, system, &jobs)?;
    let stop = common::stop_on_signals()?;
    let started = Instant::now();
    let mut out = Output;
    out.event(json!({"event": "start", "model": models.name(), "files": jobs.len(),
        "device": common::device_name(system), "precision": common::precision_name(system),
        "seed": args.seed.number, "left_out": left_out, "unread": foreign}));
    out.say(&(common::where_it_runs(models.name(), system) + &args.seed.words()));
    for note in &system.notes {
        out.say(&format!("warning: {note}"));
    }
    for note in common::notes_of_model(system) {
        out.say(&format!("note: {note}"));
    }
    if jobs.is_empty() {
        out.say("note: the report names no picture that failed");
    }
    if let Some(first) = left_out.first() {
        let (n, first) = (left_out.len(), first.display());
        out.say(&format!("note: {n} results of srk in the inputs are left out, first {first}"));
    }
    if !foreign.is_empty() {
        out.say(&format!("note: {} left out", jobs::named(&foreign)));
    }
    if args.tile.zero {
        out.say("note: -t 0 is automatic, as in ncnn's programs; -t none is Real-ESRGAN's 0");
    }
    let warnings = [args.warnings(models.any()), full_disks].concat();
    warnings.iter().for_each(|text| out.warn(text));
    let mut tally = Tally { preserve: args.care.preserve, ..Tally::default() };
    let to_do: Vec<&Job> = jobs.iter().filter(|job| !job.skip).collect();
    let work = Work {
        args: &args,
        models: &models,
        budget: Budget::new(args.ram, to_do.len() > 1),
        reader: Reader::start(match args.dry_run {
            true => vec![],
            false => to_do.iter().map(|job| job.input.clone()).collect(),
        }),
        writer: Writer::start(),
        stop: &stop,
    };
    if args.dry_run {
        return dry::run(&args, models.any(), &jobs, &|job| work.planned(job), &mut out);
    }
    let (mut pending, mut interrupted, mut untried) = (VecDeque::new(), None, 0);
    for (i, job) in jobs.iter().enumerate() {
        let outcome = match work.begin(job, &out) {
            Ok(outcome) => outcome,
            Err(error) => {
                interrupted = Some(error);
                break;
            }
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        pending.push_back((job, outcome));
        while let Some(outcome) = first_done(&mut pending) {
            tally.add(outcome, jobs.len(), &mut out);
        }
        if args.care.fail_fast && (failed || !tally.failed.is_empty()) {
            untried = jobs.len() - i - 1;
            break;
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
    let (done, skipped, failed) = (tally.done, tally.skipped, tally.failed.len());
    if skipped > 0 {
        out.say(&format!("{skipped} of {} left out: their outputs exist", jobs.len()));
    }
    for note in common::notes_of_libraries(system) {
        out.say(&format!("note: {note}"));
    }
    let seconds = started.elapsed().as_secs_f64();
    out.event(json!({"event": "done", "done": done, "skipped": skipped, "failed": failed,
        "not_tried": untried, "seconds": seconds}));
    if untried > 0 {
        out.say(&format!(
            "note: {} not tried, for --fail-fast",
            common::counted(untried, "picture")
        ));
    }
    if jobs.len() > 1 {
        let (pictures, time) = (common::counted(done, "picture"), progress::in_words(seconds));
        let failed = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        out.say(&format!("{pictures} enlarged in {time}{failed}"));
    }
    tally.end(jobs.len()).map_or(Ok(()), Err)
}

impl Args {
    /// Whether outputs say what made them.
    fn stamps(&self) -> bool {
        !self.no_stamp && self.metadata == Kept::Keep
    }

    /// Takes options of other programs for srk's own.
    fn adopt_habits(&mut self) {
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

    /// What is worth a warning before any work.
    fn warnings(&self, upscaler: &Upscaler) -> Vec<String> {
        let on_cpu = upscaler.system().network.device() == Device::Cpu;
        let idle = (self.vram.is_some() && on_cpu)
            .then(|| "--vram does nothing on the CPU; --ram bounds the process".to_owned());
        let notes = [dry::too_many_threads(self.threads), dry::note_of_steps(self, upscaler), idle];
        notes.into_iter().flatten().collect()
    }

    /// The output of a picture of `size` (width, height) like `like`, without its metadata.
    fn outline(&self, system: &System, size: (usize, usize), like: Outline) -> Outline {
        let (width, height) = self.sizes.target(size, system.scale());
        let alpha = like.alpha && self.alpha == Alpha::Keep;
        let depth = self.encoding.depth(like.depth);
        Outline { width, height, alpha, depth, ..like }
    }

    /// What is to be written of the metadata.
    fn kept(&self, metadata: Metadata) -> Metadata {
        match self.metadata {
            Kept::Keep => metadata,
            Kept::Icc => metadata.colors_only(),
            Kept::Strip => Metadata::default(),
        }
    }

    fn settings(&self, memory: u64) -> Settings {
        let steps = self.steps.map(|n| n as usize);
        let memory = self.vram.map_or(memory, |vram| vram.of(memory));
        Settings { steps, seed: self.seed.number, tile: self.tile.size, memory }
    }
}

/// The settings that made an output, for its stamp.
fn stamp(args: &Args, system: &System, seed: u64, steps: usize) -> String {
    let scale = args.sizes.factor().unwrap_or(system.scale() as f64);
    let settings = [
        ("model", system.label.clone()),
        ("scale", scale.to_string()),
        ("seed", seed.to_string()),
        ("steps", steps.to_string()),
    ];
    let more = [args.sizes.settings(system.scale()), args.look.settings()].concat();
    imaging::stamp::stamp(&[&settings[..], &args.sampling.settings(), &more].concat())
}

/// Refuses to write over a file that was not there when the work began.
fn refuse_newcomer(args: &Args, output: &Path) -> Result<()> {
    if args.naming.overwrite || is_standard(output) || !output.is_file() {
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
        // A picture that was not decoded ahead is not small: nothing is done before it is known to fit.
        let mut image = self.reader.next(&job.input, &|file, header| {
            self.budget.check_decoding(&job.input.display().to_string(), file, header)?;
            let size = (header.width, header.height);
            self.plan(job, self.models.any(), self.format(job)?, size, header.outline()).map(drop)
        })?;
        let format = self.format(job)?;
        image = args.encoding.deepened(image);
        image = match args.alpha {
            Alpha::Keep => image,
            Alpha::Drop => Image { alpha: None, ..image },
            Alpha::Flatten(color) => upscale::alpha::flattened(image, color),
        };
        let findings = self.models.findings(&image)?;
        let upscaler = self.models.of(&findings, args.denoise);
        let system = upscaler.system();
        if self.models.looks() {
            let (name, model) = (job.input.display(), &system.name);
            out.say(&format!("{name}: {findings}; enlarged by {model}"));
        }
        let unkept = std::mem::take(&mut image.metadata.unkept);
        image.metadata = args.kept(std::mem::take(&mut image.metadata));
        let (mut plan, mut output, advice) =
            self.plan(job, upscaler, format, (image.width, image.height), Outline::of(&image))?;
        plan.damage = upscale::choice::told(system, &findings, args.denoise);
        plan.strict = args.no_fallback;
        let seed = args.seed.number.wrapping_add(job.sample);
        output.metadata.stamp = args.stamps().then(|| stamp(args, system, seed, plan.steps));
        refuse_newcomer(args, &job.output)?;
        let sizes = [(image.width, image.height), (output.width, output.height)];
        let mut notes = dry::notes(args, upscaler, sizes);
        notes.extend(args.encoding.without_effect(format));
        if args.metadata == Kept::Keep {
            notes.extend(unkept.iter().map(|what| format!("the {what} of the input is not kept")));
        }
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
        dry::crawling(args, &plan).iter().for_each(|text| out.warn(text));
        voice::detail(format_args!("{}: {}", job.input.display(), dry::detail(&plan)));
        pool::budget(Budget::for_tiles(&plan));
        let bar = out.progress(&job.input, &plan);
        let writing =
            self.writer.begin(&job.output, output.clone(), format, args.encoding.options())?;
        let mut on_call = |done: usize, all: usize| {
            bar.at(done as u64, all as u64);
            common::check(self.stop)
        };
        let put = &mut |strip: Image| {
            common::check(self.stop)?;
            writing.put(strip.to_depth(output.depth))
        };
        let to = (output.width, output.height);
        let done = match args.wrap == Wrap::default() {
            true if args.look.needs_whole() => {
                self.whole((job, seed), upscaler, &image, &plan, &output, &mut on_call, put)
            }
            true => self.strips(upscaler, &image, (&plan, seed), to, &mut on_call, put),
            false => self.texture(upscaler, &image, (&plan, seed), to, &mut on_call, put),
        };
        bar.finish();
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
            memory: plan.memory,
            seed,
            steps: plan.steps,
            started,
            report,
            notes,
            model: [system.name.clone(), system.label.clone()],
            damage: self
                .models
                .looks()
                .then(|| choice::json(&findings, &plan.damage, args.denoise)),
        };
        Ok((summary, writing.end()))
    }

    fn strips(
        &self,
        upscaler: &Upscaler,
        image: &Image,
        (plan, seed): (&Plan, u64),
        to: (usize, usize),
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let mut resampler = budget::resampler(image, upscaler.system().scale(), to)?;
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
        (plan, seed): (&Plan, u64),
        to: (usize, usize),
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
        put: &mut Sink<'_>,
    ) -> Result<upscale::Report> {
        let (args, size) = (self.args, (image.width, image.height));
        let steps = args.steps.map(|n| n as usize);
        let scale = upscaler.system().scale();
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

    /// The format of a job's output; of a pipe, once the input was read.
    fn format(&self, job: &Job) -> Result<Format> {
        let kept = || imaging::decode::kind(&job.input).unwrap_or(Format::Png);
        Ok(job.format.unwrap_or_else(kept))
    }

    /// What would be done for a job.
    fn planned(&self, job: &Job) -> Result<Planned> {
        common::check(self.stop)?;
        let header = dry::header(job, &self.budget)?;
        let (from, format) = ((header.width, header.height), self.format(job)?);
        let (plan, output, _) =
            self.plan(job, self.models.any(), format, from, header.outline())?;
        Ok(Planned { from, output, plan, format })
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
        let depth = args.encoding.working_depth(like.depth);
        let pixel =
            Outline { depth, metadata: Metadata::default(), ..like }.bytes_per_pixel() as u64;
        let output = args.outline(system, size, like);
        imaging::check_output(
            &name,
            format,
            output.width,
            output.height,
            output.bytes_per_pixel(),
        )?;
        refuse_lost_alpha(&output, format, &name)?;
        imaging::encode::check_color(&name, output.color, format)?;
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
        let settings = args.settings(upscaler.memory_or(0)?);
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
    let report = report.code("alpha");
    Err(Error::Failed(report.help("write a .png, leave transparency out with --alpha drop, or lay the picture over white with --alpha flatten")))
}
