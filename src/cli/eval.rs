//! `srk eval`.
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{self, DeviceChoice, ModelChoice, Precision, Sampling, Seed, Stop};
use super::eval_checks::{self, Border, Convention, Limit, Space};
use super::eval_metrics::{self, Metric, Metrics, Values};
use super::eval_table::{Head, Layout, Row, Table};
use super::progress::Progress;
use super::voice;
use crate::diffusion::system::System;
use crate::engine::files;
use crate::engine::outputs::Outputs;
use crate::error::{Error, Report, Result};
use crate::evaluate::{self, Scores};
use crate::imaging::{self, Color, Image};
use crate::models::damage::Damage;
use crate::upscale::choice::{Denoise, Models, told};
use crate::upscale::{self, Settings, TileSize, Upscaler};

const EXAMPLES: &str = "Examples:
  srk eval results/ truths/                       finished pictures, pairs by name
  srk eval --hr Set5/                             the model, on pictures made small by MATLAB's bicubic
  srk eval --hr Set5/HR --lr Set5/LRx4 -m x.pth   the model, on pictures that were made small elsewhere
  srk eval --hr Set5/ --min psnr_y=29 --csv set5.csv
";

/// Measure quality: PSNR and SSIM in RGB and Y, and what --metrics names.
///
/// Either of finished pictures against the truth (`srk eval RESULTS TRUTHS`), or of a model on
/// pictures that are degraded first (`srk eval --hr DIR --degrade matlab-bicubic --scale 4`).
///
/// LPIPS, DISTS and NIQE take weights that packages ship; the error without them names the command to get them.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    /// Finished pictures: a file or a folder
    #[arg(value_name = "RESULTS", requires = "truths", conflicts_with = "hr")]
    results: Option<PathBuf>,
    /// Their ground truths, under the same names
    #[arg(value_name = "TRUTHS")]
    truths: Option<PathBuf>,
    /// Ground truths to degrade, enlarge and compare; of several folders each gets its mean
    #[arg(long, value_name = "DIR", required_unless_present = "results", num_args = 1..)]
    hr: Vec<PathBuf>,
    /// Their low resolutions, under the same names, in place of degrading
    #[arg(long, value_name = "DIR", requires = "hr", conflicts_with = "degrade")]
    lr: Option<PathBuf>,
    /// How they are degraded
    #[arg(long, value_enum, default_value_t)]
    degrade: Degrade,
    /// The factor between low and high resolution
    #[arg(long, default_value_t = 4, value_parser = eval_checks::scale)]
    scale: usize,
    /// Calls of the network; the model's default if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    #[command(flatten)]
    sampling: Sampling,
    #[command(flatten)]
    model: ModelChoice,
    /// What is measured, separated by commas
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        value_name = "LIST",
        default_value = "psnr,ssim"
    )]
    metrics: Vec<Metric>,
    /// The folder with the weights of lpips, dists and niqe [default: SRK_FEATURES, or ~/.cache/srk/features]
    #[arg(long, value_name = "DIR")]
    features: Option<PathBuf>,
    /// Leave out pictures without a partner of their name, and say which
    #[arg(long)]
    allow_missing: bool,
    /// Pixels left out at every side of PSNR and SSIM; auto is as many as the scale
    #[arg(long, value_name = "N", default_value = "auto")]
    border: Border,
    /// Whether Y, RGB or both are measured by PSNR and SSIM
    #[arg(long, value_enum, default_value_t)]
    space: Space,
    /// Which Y is measured
    #[arg(long, value_enum, default_value_t)]
    convention: Convention,
    /// Also write the numbers into this file, a line a picture, the mean last
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Exit with 6 if a mean is below this, such as psnr_y=27.5; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = eval_checks::limit)]
    min: Vec<Limit>,
    /// Exit with 6 if a mean is above this, such as lpips_alex=0.2; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = eval_checks::limit)]
    max: Vec<Limit>,
    /// The seed of the noise: a number, or random
    #[arg(long, value_name = "N", default_value = "42")]
    seed: Seed,
    /// Where to run: auto (what SRK_DEVICE says, or a GPU if there is one), cpu, cuda, or one of several GPUs, such as
    /// cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What is computed in; auto is f16 on a GPU and f32 on the CPU
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Also write the enlarged pictures into this folder, those of several sets into a folder each
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Replace pictures in that folder, and the file of --csv
    #[arg(long)]
    overwrite: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Degrade {
    /// MATLAB's imresize, 8 bits: the published LRx4 sets
    #[default]
    #[value(alias = "bicubic")]
    MatlabBicubic,
}

impl Args {
    /// What the first lines say.
    fn head<'a>(&self, border: usize, runs: Option<[&'a str; 3]>) -> Head<'a> {
        let given = !self.hr.is_empty();
        let source = match given {
            true if self.lr.is_some() => {
                format!("model {}, given pairs, x{}", self.model, self.scale)
            }
            true => format!("model {}, MATLAB bicubic 8-bit, x{}", self.model, self.scale),
            false => "pairs by name".to_owned(),
        };
        let mut better = eval_metrics::directions_by_name(&self.metrics);
        better.retain(|name, _| self.space.has(name));
        Head {
            source: source + &self.seed.words(),
            border,
            range: self.convention.range(),
            seed: self.seed.number,
            better,
            runs,
        }
    }

    /// What each folder of `--hr` is called: by its own name, or its whole path where several have that.
    fn set(&self, folder: &Path) -> String {
        let name = |folder: &Path| folder.file_name().unwrap_or(folder.as_os_str()).to_owned();
        let alike = self.hr.iter().filter(|other| name(other) == name(folder)).count() > 1;
        match alike {
            true => folder.display().to_string(),
            false => name(folder).to_string_lossy().into_owned(),
        }
    }

    /// What may be written: nothing that is read.
    fn outputs(&self) -> Outputs {
        let mut outputs = Outputs::overwriting(self.overwrite);
        let places = [&self.results, &self.truths, &self.lr].into_iter().flatten();
        places.chain(&self.hr).for_each(|path| outputs.reads_below(path));
        self.model.paths().iter().for_each(|path| outputs.reads_below(path));
        outputs
    }
}

pub(super) fn run(args: Args) -> Result<()> {
    common::set_threads(args.threads)?;
    let border = args.border.0.unwrap_or(args.scale);
    let limits: Vec<&Limit> = args.min.iter().chain(&args.max).collect();
    eval_checks::check_names(&limits, &eval_metrics::names(&args.metrics), args.space)?;
    // Before anything is printed or enlarged: weights may be missing.
    let metrics = Metrics::open(&args.metrics, args.features.as_deref(), args.scale)?;
    if let Some(csv) = &args.csv {
        eval_checks::check_folder(csv)?;
        args.outputs().claim(csv, csv)?;
        files::try_to_write(csv)?;
    }
    let mut table = Table {
        layout: Layout { space: args.space, bicubic: !args.hr.is_empty() },
        json: voice::json(),
        rows: Vec::new(),
        set: String::new(),
        records: Vec::new(),
        all: 0,
        failed: Vec::new(),
        metrics,
        cut: 0,
        alone: Vec::new(),
    };
    match (&args.results, &args.truths) {
        (Some(results), Some(truths)) => {
            table.header(&args.head(border, None));
            finished(&args, [results, truths], border, &mut table)?;
        }
        _ => degraded(&args, border, &mut table)?,
    }
    table.note_of_gray(args.convention.range());
    if table.cut > 0 {
        let n = common::counted(table.cut, "truth");
        voice::say(format_args!("note: {n} cut to a multiple of {}", args.scale));
    }
    if let Some(csv) = &args.csv {
        eval_checks::write_csv(csv, &table.records)?;
    }
    match (table.all, table.failed.pop()) {
        (_, None) => {
            if let Some(summary) = table.records.last() {
                eval_checks::check(summary, &args.min, &args.max)?;
            }
            voice::done(json!({"images": table.rows.len(), "written": args.csv}));
            Ok(())
        }
        (1, Some(error)) => Err(error),
        (all, Some(_)) => {
            let what =
                format!("{} of {all} pictures could not be measured", all - table.rows.len());
            let cause = "each was reported above; the means are of the rest";
            Err(Error::Failed(Report::new(what, cause).code("some_failed")))
        }
    }
}

/// A ground truth, and where its enlargement is written.
struct Task {
    truth: PathBuf,
    low: Option<PathBuf>,
    save: Option<PathBuf>,
}

/// The pictures of each folder. Nothing is measured if something of theirs cannot be saved.
fn tasks<'a>(args: &'a Args, alone: &mut Vec<PathBuf>) -> Result<Vec<(&'a PathBuf, Vec<Task>)>> {
    let mut sets = Vec::new();
    for folder in &args.hr {
        let files: Vec<(PathBuf, Option<PathBuf>)> = match &args.lr {
            Some(lr) if args.hr.len() == 1 => {
                let pairs = pairs(args, [lr, folder], alone)?;
                pairs.into_iter().map(|(low, truth)| (truth, Some(low))).collect()
            }
            Some(_) => {
                let report = Report::new("--lr goes with one folder of --hr", "");
                return Err(Error::Usage(report.help("measure one set at a time")));
            }
            None => evaluate::images_of(folder)?.into_iter().map(|file| (file, None)).collect(),
        };
        if files.is_empty() {
            let what = format!("{} holds no image", folder.display());
            let report = Report::new(what, "nothing to measure");
            return Err(Error::Usage(report.help("name folders of pictures with --hr")));
        }
        let save = |(truth, low): (PathBuf, Option<PathBuf>)| {
            let below = if args.hr.len() > 1 { folder.file_name() } else { None };
            let place = args.save.as_ref().map(|save| save.join(below.unwrap_or_default()));
            let name = truth.file_stem().unwrap_or_default().to_os_string();
            // Not with_extension: the stem may hold points.
            let mut file = name;
            file.push(".png");
            Task { save: place.map(|place| place.join(&file)), truth, low }
        };
        sets.push((folder, files.into_iter().map(save).collect::<Vec<_>>()));
    }
    let mut outputs = args.outputs();
    if let Some(csv) = &args.csv {
        outputs.claim(csv, csv)?;
    }
    let all = || sets.iter().flat_map(|(_, tasks)| tasks);
    all().flat_map(|t| t.low.iter().chain([&t.truth])).for_each(|file| outputs.reads(file));
    for task in all() {
        if let Some(save) = &task.save {
            outputs.claim(save, &task.truth)?;
        }
    }
    Ok(sets)
}

/// Degrades every picture of the folders, enlarges it and compares.
fn degraded(args: &Args, border: usize, table: &mut Table) -> Result<()> {
    let place = |mut system: System| {
        args.sampling.apply(&mut system)?;
        system.notes.iter().for_each(|note| voice::say(format_args!("warning: {note}")));
        if system.scale() != args.scale {
            let what = format!("{} enlarges {} times", system.name, system.scale());
            let report = Report::new(what, format!("--scale is {}", args.scale));
            return Err(Error::Usage(report.help(format!("--scale {}", system.scale()))));
        }
        common::place(system, &args.device, args.precision)
    };
    let models = args.model.models(place)?;
    let sets = tasks(args, &mut table.alone)?;
    let system = models.any().system();
    let runs = [models.name(), common::device_name(system), common::precision_name(system)];
    table.header(&args.head(border, Some(runs)));
    table.left_out();
    table.all = sets.iter().map(|(_, tasks)| tasks.len()).sum();
    let stop = common::stop_on_signals()?;
    let several = sets.len() > 1;
    for (folder, tasks) in sets {
        let first = table.rows.len();
        if several {
            table.set = args.set(folder);
        }
        for task in &tasks {
            common::check(&stop)?;
            let row = measured(args, &models, task, border, &stop, &table.metrics);
            table.measured(&task.truth, row)?;
        }
        if several {
            table.summary(first);
            table.set.clear();
        }
    }
    table.summary(0);
    if args.model.is_auto() {
        table.note_of_models();
    }
    Ok(())
}

fn measured(
    args: &Args,
    models: &Models,
    Task { truth: file, low, save }: &Task,
    border: usize,
    stop: &Stop,
    metrics: &Metrics,
) -> Result<Row> {
    let image = evaluate::read(file)?;
    evaluate::check_size(image.width, image.height, args.scale, border)?;
    let pair = match low {
        Some(low) => evaluate::paired(&image, evaluate::read(low)?, args.scale)?,
        None => evaluate::degrade_matlab(&image, args.scale)?,
    };
    let name = stem(file);
    // As `srk upscale` does.
    let findings = models.findings(&pair.low)?;
    let upscaler = models.of(&findings, Denoise::Auto);
    let damage = told(upscaler.system(), &findings, Denoise::Auto);
    let mut output = enlarge(upscaler, (&pair.low, damage), args, stop, &name)?;
    if let Some(path) = save {
        output.metadata.stamp = Some(stamp(args, upscaler.system()));
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::Failed(Report::new(format!("cannot create {}", folder.display()), e))
        })?;
        imaging::write(path, &output, imaging::EncodeOptions::default())?;
    }
    let y = args.convention.channels();
    let scores = Scores::with_y(&output, &pair.truth, border, y)?;
    let bicubic = Some(Scores::with_y(&pair.bicubic, &pair.truth, border, y)?);
    let more = [&output, &pair.bicubic].map(|i| metrics.of(i, &pair.truth, Some(&pair.bicubic)));
    let [of_output, of_bicubic] = more;
    let gray = pair.truth.color == Color::Gray;
    let model = Some(upscaler.system().name.clone());
    Ok(Row { name, model, scores, bicubic, gray, more: [of_output?, of_bicubic?] })
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The settings that made an output, for its stamp.
fn stamp(args: &Args, system: &System) -> String {
    let trained = system.config.diffusion.process.steps();
    let steps = args.steps.map_or(system.default_steps(), |n| (n as usize).min(trained));
    let settings = [
        ("model", system.label.clone()),
        ("scale", args.scale.to_string()),
        ("seed", args.seed.number.to_string()),
        ("steps", steps.to_string()),
    ];
    imaging::stamp::stamp(&[&settings[..], &args.sampling.settings()].concat())
}

fn enlarge(
    upscaler: &Upscaler,
    (low, damage): (&Image, Damage),
    args: &Args,
    stop: &Stop,
    name: &str,
) -> Result<Image> {
    let memory = upscaler.memory_or(common::available_memory() / 2)?;
    let steps = args.steps.map(|n| n as usize);
    let settings = Settings { steps, seed: args.seed.number, tile: TileSize::Auto, memory };
    let mut plan = upscale::plan(upscaler, low.width, low.height, &settings)?;
    plan.damage = damage;
    let progress = Progress::new(name, (plan.tiles.len() * plan.steps) as u64);
    let on_call = &mut |done: usize, all: usize| {
        progress.at(done as u64, all as u64);
        common::check(stop)
    };
    let done = upscale::upscale(upscaler, low, &plan, args.seed.number, on_call);
    progress.finish();
    Ok(done?.0)
}

/// The pairs of two folders; those without a partner are `alone`, if they may be missing.
fn pairs(
    args: &Args,
    [results, truths]: [&Path; 2],
    alone: &mut Vec<PathBuf>,
) -> Result<evaluate::Pairs> {
    match args.allow_missing {
        false => evaluate::pairs(results, truths),
        true => {
            let (pairs, others) = evaluate::pairs_and_others(results, truths)?;
            alone.extend(others);
            Ok(pairs)
        }
    }
}

/// Compares pictures that exist.
fn finished(
    args: &Args,
    [results, truths]: [&Path; 2],
    border: usize,
    table: &mut Table,
) -> Result<()> {
    let pairs = match results.is_file() && truths.is_file() {
        true => vec![(results.to_owned(), truths.to_owned())],
        false => pairs(args, [results, truths], &mut table.alone)?,
    };
    table.left_out();
    table.all = pairs.len();
    let stop = common::stop_on_signals()?;
    for (result, truth) in pairs {
        common::check(&stop)?;
        let row = compared(args, [&result, &truth], border, &table.metrics);
        table.cut += usize::from(row.as_ref().is_ok_and(|(_, cut)| *cut));
        table.measured(&result, row.map(|(row, _)| row))?;
    }
    table.summary(0);
    Ok(())
}

/// The scores of a result, and whether its truth was cut to a multiple of the factor, as `--hr` does.
fn compared(
    args: &Args,
    [result, truth]: [&Path; 2],
    border: usize,
    metrics: &Metrics,
) -> Result<(Row, bool)> {
    let (image, mut other) = evaluate::same_color(evaluate::read(result)?, evaluate::read(truth)?);
    let size = (image.width, image.height);
    let whole = |side: usize| side / args.scale * args.scale;
    let cut =
        size != (other.width, other.height) && size == (whole(other.width), whole(other.height));
    if cut {
        other = other.crop_to_multiple(args.scale)?;
    }
    if (image.width, image.height) != (other.width, other.height) {
        let what = format!("{} and {} differ in size", result.display(), truth.display());
        let cause = format!("{} and {}", image.size_text(), other.size_text());
        let report = Report::new(what, cause).code("size");
        let report = report.help(
            "srk eval never resizes what it measures; --scale N cuts truths to multiples of N",
        );
        return Err(Error::Failed(report));
    }
    evaluate::check_size(image.width, image.height, 1, border)?;
    let scores = Scores::with_y(&image, &other, border, args.convention.channels())?;
    let more = [metrics.of(&image, &other, None)?, Values::new()];
    let gray = other.color == Color::Gray;
    let row = Row { name: stem(result), model: None, scores, bicubic: None, gray, more };
    Ok((row, cut))
}
