//! `srk eval`.
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{self, DeviceChoice, ModelChoice, Precision, Sampling, Stop};
use super::eval_metrics::{self, Metric, Metrics, Values};
use super::print::{self, line as print};
use crate::diffusion::system::System;
use crate::engine::outputs::Outputs;
use crate::error::{Error, Report, Result};
use crate::evaluate::{self, Scores};
use crate::imaging::{self, Image};
use crate::upscale::{self, Settings, TileSize, Upscaler};

/// Measure quality: PSNR and SSIM in RGB and Y, and what --metrics names.
///
/// Either of finished pictures against the truth (`srk eval RESULTS TRUTHS`), or of a model on
/// pictures that are degraded first (`srk eval --hr DIR --degrade matlab-bicubic --scale 4`).
///
/// LPIPS, DISTS and NIQE take weights that packages ship; the error without them names the command to get them.
#[derive(Debug, clap::Args)]
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
    /// How they are degraded
    #[arg(long, value_enum, default_value_t)]
    degrade: Degrade,
    /// The factor between low and high resolution
    #[arg(long, default_value_t = 4)]
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
    /// Pixels left out at every side of PSNR and SSIM [default: the scale]
    #[arg(long, value_name = "N")]
    border: Option<usize>,
    /// The seed of the noise
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Where to run: auto, cpu, cuda, or one of several GPUs, such as cuda:1
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// What is computed in on a GPU
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Also write the enlarged pictures into this folder, those of several sets into a folder each
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
    /// Replace pictures in that folder
    #[arg(long)]
    overwrite: bool,
    /// One JSON line a picture, a summary last
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Degrade {
    /// MATLAB's imresize, 8 bits: the published LRx4 sets
    #[default]
    MatlabBicubic,
}

/// One compared picture.
struct Row {
    name: String,
    scores: Scores,
    bicubic: Option<Scores>,
    /// Of `--metrics`: the picture's, and bicubic's.
    more: [Values; 2],
}

pub(super) fn run(args: Args) -> Result<()> {
    common::set_threads(args.threads.map(|n| n as usize))?;
    let border = args.border.unwrap_or(args.scale);
    // Before anything is printed or enlarged: weights may be missing.
    let metrics = Metrics::open(&args.metrics, args.features.as_deref(), args.scale)?;
    let mut table =
        Table { json: args.json, rows: Vec::new(), all: 0, failed: Vec::new(), metrics };
    match (&args.results, &args.truths) {
        (Some(results), Some(truths)) => {
            table.header(&args, border);
            finished(results, truths, border, &mut table)?;
        }
        _ => degraded(&args, border, &mut table)?,
    }
    match (table.all, table.failed.pop()) {
        (_, None) => Ok(()),
        (1, Some(error)) => Err(error),
        (all, Some(_)) => {
            let what =
                format!("{} of {all} pictures could not be measured", all - table.rows.len());
            let cause = "each was reported above; the means are of the rest";
            Err(Error::Failed(Report::new(what, cause)))
        }
    }
}

/// A ground truth, and where its enlargement is written.
struct Task {
    truth: PathBuf,
    save: Option<PathBuf>,
}

/// The pictures of each folder. Nothing is measured if something of theirs cannot be saved.
fn tasks(args: &Args) -> Result<Vec<(&PathBuf, Vec<Task>)>> {
    let mut sets = Vec::new();
    for folder in &args.hr {
        let files = evaluate::images_of(folder)?;
        if files.is_empty() {
            let what = format!("{} holds no image", folder.display());
            let report = Report::new(what, "nothing to measure");
            return Err(Error::Usage(report.help("name folders of pictures with --hr")));
        }
        let save = |truth: PathBuf| {
            let below = if args.hr.len() > 1 { folder.file_name() } else { None };
            let place = args.save.as_ref().map(|save| save.join(below.unwrap_or_default()));
            let name = truth.file_stem().unwrap_or_default().to_os_string();
            // Not with_extension: the stem may hold points.
            let mut file = name;
            file.push(".png");
            Task { save: place.map(|place| place.join(&file)), truth }
        };
        sets.push((folder, files.into_iter().map(save).collect::<Vec<_>>()));
    }
    let mut outputs = Outputs::overwriting(args.overwrite);
    let all = || sets.iter().flat_map(|(_, tasks)| tasks);
    all().for_each(|task| outputs.reads(&task.truth));
    for task in all() {
        if let Some(save) = &task.save {
            outputs.claim(save, &task.truth)?;
        }
    }
    Ok(sets)
}

/// Degrades every picture of the folders, enlarges it and compares.
fn degraded(args: &Args, border: usize, table: &mut Table) -> Result<()> {
    let mut system = args.model.open()?;
    args.sampling.apply(&mut system)?;
    system.notes.iter().for_each(|note| print::note(format_args!("warning: {note}")));
    if system.scale() != args.scale {
        let what = format!("{} enlarges {} times", system.name, system.scale());
        let report = Report::new(what, format!("--scale is {}", args.scale));
        return Err(Error::Usage(report.help(format!("--scale {}", system.scale()))));
    }
    let sets = tasks(args)?;
    table.header(args, border);
    table.all = sets.iter().map(|(_, tasks)| tasks.len()).sum();
    let upscaler = common::place(system, &args.device, args.precision)?;
    let stop = common::stop_on_signals()?;
    let several = sets.len() > 1;
    for (folder, tasks) in sets {
        let first = table.rows.len();
        for task in &tasks {
            common::check(&stop)?;
            let row = measured(args, &upscaler, task, border, &stop, &table.metrics);
            table.measured(&task.truth, row)?;
        }
        if several {
            let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
            table.summary(first, &name);
        }
    }
    table.summary(0, "");
    Ok(())
}

fn measured(
    args: &Args,
    upscaler: &Upscaler,
    Task { truth: file, save }: &Task,
    border: usize,
    stop: &Stop,
    metrics: &Metrics,
) -> Result<Row> {
    let image = imaging::read(file)?;
    evaluate::check_size(image.width, image.height, args.scale, border)?;
    let pair = evaluate::degrade_matlab(&image, args.scale)?;
    let mut output = enlarge(upscaler, &pair.low, args, stop)?;
    let name = stem(file);
    if let Some(path) = save {
        output.metadata.stamp = Some(stamp(args, upscaler.system()));
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(|e| {
            Error::Failed(Report::new(format!("cannot create {}", folder.display()), e))
        })?;
        imaging::write(path, &output, imaging::EncodeOptions::default())?;
    }
    let scores = Scores::of(&output, &pair.truth, border)?;
    let bicubic = Some(Scores::of(&pair.bicubic, &pair.truth, border)?);
    let more = [&output, &pair.bicubic].map(|i| metrics.of(i, &pair.truth, Some(&pair.bicubic)));
    let [of_output, of_bicubic] = more;
    Ok(Row { name, scores, bicubic, more: [of_output?, of_bicubic?] })
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
        ("seed", args.seed.to_string()),
        ("steps", steps.to_string()),
    ];
    imaging::stamp::stamp(&[&settings[..], &args.sampling.settings()].concat())
}

fn enlarge(upscaler: &Upscaler, low: &Image, args: &Args, stop: &Stop) -> Result<Image> {
    let memory = common::memory_for(upscaler, common::available_memory() / 2)?;
    let steps = args.steps.map(|n| n as usize);
    let settings = Settings { steps, seed: args.seed, tile: TileSize::Auto, memory };
    let plan = upscale::plan(upscaler, low.width, low.height, &settings)?;
    let told = &mut |_, _| common::check(stop);
    Ok(upscale::upscale(upscaler, low, &plan, args.seed, told)?.0)
}

/// Compares pictures that exist.
fn finished(results: &Path, truths: &Path, border: usize, table: &mut Table) -> Result<()> {
    let pairs = match results.is_file() && truths.is_file() {
        true => vec![(results.to_owned(), truths.to_owned())],
        false => evaluate::pairs(results, truths)?,
    };
    table.all = pairs.len();
    let stop = common::stop_on_signals()?;
    for (result, truth) in pairs {
        common::check(&stop)?;
        table.measured(&result, compared(&result, &truth, border, &table.metrics))?;
    }
    table.summary(0, "");
    Ok(())
}

fn compared(result: &Path, truth: &Path, border: usize, metrics: &Metrics) -> Result<Row> {
    let (image, other) = evaluate::same_color(imaging::read(result)?, imaging::read(truth)?);
    if (image.width, image.height) != (other.width, other.height) {
        let what = format!("{} and {} differ in size", result.display(), truth.display());
        let cause = format!("{} and {}", image.size_text(), other.size_text());
        let report = Report::new(what, cause).help("srk eval never resizes what it measures");
        return Err(Error::Failed(report));
    }
    evaluate::check_size(image.width, image.height, 1, border)?;
    let scores = Scores::of(&image, &other, border)?;
    let more = [metrics.of(&image, &other, None)?, Values::new()];
    Ok(Row { name: stem(result), scores, bicubic: None, more })
}

/// Prints rows as they come, and the means last.
struct Table {
    json: bool,
    rows: Vec<Row>,
    /// How many pictures there are.
    all: usize,
    /// Why some could not be measured.
    failed: Vec<Error>,
    metrics: Metrics,
}

impl Table {
    fn header(&self, args: &Args, border: usize) {
        let source = match args.hr.is_empty() {
            false => format!("model {}, MATLAB bicubic 8-bit, x{}", args.model, args.scale),
            true => "pairs by name".to_owned(),
        };
        if self.json {
            print(json!({"event": "start", "source": source, "border": border,
                "y": "BT.601 16..235, not rounded", "ssim": "Gaussian 11, sigma 1.5, valid region"}));
            return;
        }
        print(format_args!(
            "{source}; border {border}; 8 bits; Y of BT.601 (16..235), not rounded; SSIM Gaussian 11x11 \
             sigma 1.5, valid region; higher is better"
        ));
        print(format_args!(
            "{:<24} {:>8} {:>7} {:>8} {:>7}   {:>8} {:>7}",
            "", "PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM", "bicubic", "SSIM-Y"
        ));
    }

    /// The row of `file`, or why there is none: one picture that cannot be measured costs only its own row.
    fn measured(&mut self, file: &Path, row: Result<Row>) -> Result<()> {
        match row {
            Ok(row) => self.row(row),
            Err(error @ (Error::Interrupted { .. } | Error::Memory(_) | Error::Device(_))) => {
                return Err(error);
            }
            Err(error) => {
                let text = error.to_string();
                if self.json {
                    print(json!({"event": "image", "name": stem(file), "input": file,
                        "status": "failed", "code": error.exit_code(), "error": text}));
                }
                let named = text.contains(&file.display().to_string());
                let before = if named { String::new() } else { format!("{}: ", file.display()) };
                if self.all > 1 {
                    print::note(format_args!("error: {before}{text}"));
                }
                self.failed.push(error);
            }
        }
        Ok(())
    }

    fn row(&mut self, row: Row) {
        match self.json {
            true => {
                let mut event = values(&row.scores, row.bicubic.as_ref(), &row.more);
                event["event"] = "image".into();
                event["name"] = row.name.as_str().into();
                print(event);
            }
            false => {
                let heads = eval_metrics::heads(&row.more[0]);
                if self.rows.is_empty() && !heads.is_empty() {
                    let gap = if row.bicubic.is_some() { WIDTH } else { SHORT };
                    print(format!("{:gap$}{heads}", ""));
                }
                let cells = eval_metrics::cells(&row.more[0]);
                print(line(&row.name, &row.scores, row.bicubic.as_ref()) + &cells);
            }
        }
        self.rows.push(row);
    }

    /// The means of the rows from number `first` on: those of a set that has a name, or all.
    fn summary(&self, first: usize, set: &str) {
        let rows = &self.rows[first..];
        let scores: Vec<Scores> = rows.iter().map(|r| r.scores).collect();
        let baseline: Vec<Scores> = rows.iter().filter_map(|r| r.bicubic).collect();
        let mean = Scores::mean(&scores);
        let bicubic = (!baseline.is_empty()).then(|| Scores::mean(&baseline));
        let more = [0, 1].map(|k| eval_metrics::mean(rows.iter().map(move |row| &row.more[k])));
        if self.json {
            let mut event = values(&mean, bicubic.as_ref(), &more);
            event["event"] = if set.is_empty() { "summary" } else { "set" }.into();
            event["images"] = rows.len().into();
            if !set.is_empty() {
                event["name"] = set.into();
            }
            print(event);
            return;
        }
        let of = if set.is_empty() { String::new() } else { format!(" in {set}") };
        let name = format!("mean of {}{of}", rows.len());
        print(line(&name, &mean, bicubic.as_ref()) + &eval_metrics::cells(&more[0]));
        // Only then is it a baseline: a column of zeros would be none.
        if bicubic.is_some() && !more[1].is_empty() {
            let cells = eval_metrics::cells(&more[1]);
            print(format!("{:<WIDTH$}{cells}", "bicubic"));
        }
    }
}

/// Columns before those of `--metrics`, with bicubic's and without.
const WIDTH: usize = 77;
const SHORT: usize = 58;

fn values(scores: &Scores, bicubic: Option<&Scores>, more: &[Values; 2]) -> serde_json::Value {
    let mut event = json!({"psnr_y": scores.psnr_y, "ssim_y": scores.ssim_y,
        "psnr_rgb": scores.psnr_rgb, "ssim_rgb": scores.ssim_rgb});
    if let Some(b) = bicubic {
        event["bicubic"] = json!({"psnr_y": b.psnr_y, "ssim_y": b.ssim_y,
            "psnr_rgb": b.psnr_rgb, "ssim_rgb": b.ssim_rgb});
        eval_metrics::extend(&mut event["bicubic"], &more[1]);
    }
    eval_metrics::extend(&mut event, &more[0]);
    event
}

fn line(name: &str, s: &Scores, bicubic: Option<&Scores>) -> String {
    let mut line = format!(
        "{name:<24} {:>8.3} {:>7.4} {:>8.3} {:>7.4}",
        s.psnr_y, s.ssim_y, s.psnr_rgb, s.ssim_rgb
    );
    if let Some(b) = bicubic {
        line.push_str(&format!("   {:>8.3} {:>7.4}", b.psnr_y, b.ssim_y));
    }
    line
}
