//! `srk eval`.
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{self, DeviceChoice, Precision, Sampling};
use crate::error::{Error, Report, Result};
use crate::evaluate::{self, Scores};
use crate::imaging::{self, Image};
use crate::upscale::{self, Settings, TileSize, Upscaler};

/// Measure quality: PSNR and SSIM in RGB and Y.
///
/// Either of finished pictures against the truth (`srk eval RESULTS TRUTHS`), or of a model on
/// pictures that are degraded first (`srk eval --hr DIR --degrade matlab-bicubic --scale 4`).
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
    /// A model of this binary, a weights file, or the folder of a training run
    #[arg(short, long, default_value = "srk-x4")]
    model: String,
    /// Pixels left out at every side [default: the scale]
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
    /// Also write the enlarged pictures into this folder
    #[arg(long, value_name = "DIR")]
    save: Option<PathBuf>,
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
}

pub(super) fn run(args: Args) -> Result<()> {
    common::set_threads(args.threads.map(|n| n as usize))?;
    let border = args.border.unwrap_or(args.scale);
    let mut table = Table { json: args.json, rows: Vec::new() };
    table.header(&args, border);
    match (&args.results, &args.truths) {
        (Some(results), Some(truths)) => finished(results, truths, border, &mut table)?,
        _ => degraded(&args, border, &mut table)?,
    }
    Ok(())
}

/// Degrades every picture of the folders, enlarges it and compares.
fn degraded(args: &Args, border: usize, table: &mut Table) -> Result<()> {
    let mut system = common::open(&args.model)?;
    args.sampling.apply(&mut system)?;
    if system.scale() != args.scale {
        let what = format!("{} enlarges {} times", system.name, system.scale());
        let report = Report::new(what, format!("--scale is {}", args.scale));
        return Err(Error::Usage(report.help(format!("--scale {}", system.scale()))));
    }
    let mut sets = Vec::new();
    for folder in &args.hr {
        let files = evaluate::images_of(folder)?;
        if files.is_empty() {
            let what = format!("{} holds no image", folder.display());
            let report = Report::new(what, "nothing to measure");
            return Err(Error::Usage(report.help("name folders of pictures with --hr")));
        }
        sets.push((folder, files));
    }
    let upscaler = common::place(system, &args.device, args.precision)?;
    let stop = common::stop_on_signals()?;
    let several = sets.len() > 1;
    for (folder, files) in sets {
        let first = table.rows.len();
        for file in &files {
            common::check(&stop)?;
            table.row(measured(args, &upscaler, file, border)?);
        }
        if several {
            let name = folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy();
            table.summary(first, &name);
        }
    }
    table.summary(0, "");
    Ok(())
}

fn measured(args: &Args, upscaler: &Upscaler, file: &Path, border: usize) -> Result<Row> {
    let pair = evaluate::degrade_matlab(&imaging::read(file)?, args.scale)?;
    let output = enlarge(upscaler, &pair.low, args)?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(folder) = &args.save {
        let path = folder.join(format!("{name}.png"));
        imaging::write(&path, &output, imaging::EncodeOptions::default())?;
    }
    let scores = Scores::of(&output, &pair.truth, border)?;
    let bicubic = Some(Scores::of(&pair.bicubic, &pair.truth, border)?);
    Ok(Row { name, scores, bicubic })
}

fn enlarge(upscaler: &Upscaler, low: &Image, args: &Args) -> Result<Image> {
    let memory = common::memory_for(upscaler, common::available_memory() / 2)?;
    let steps = args.steps.map(|n| n as usize);
    let settings = Settings { steps, seed: args.seed, tile: TileSize::Auto, memory };
    let plan = upscale::plan(upscaler, low.width, low.height, &settings)?;
    Ok(upscale::upscale(upscaler, low, &plan, args.seed, &mut |_, _| Ok(()))?.0)
}

/// Compares pictures that exist.
fn finished(results: &Path, truths: &Path, border: usize, table: &mut Table) -> Result<()> {
    let pairs = match results.is_file() && truths.is_file() {
        true => vec![(results.to_owned(), truths.to_owned())],
        false => evaluate::pairs(results, truths)?,
    };
    for (result, truth) in pairs {
        let (image, other) = evaluate::same_color(imaging::read(&result)?, imaging::read(&truth)?);
        if (image.width, image.height) != (other.width, other.height) {
            let what = format!("{} and {} differ in size", result.display(), truth.display());
            let cause = format!("{} and {}", image.size_text(), other.size_text());
            let report = Report::new(what, cause).help("srk eval never resizes what it measures");
            return Err(Error::Failed(report));
        }
        let name = result.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        table.row(Row { name, scores: Scores::of(&image, &other, border)?, bicubic: None });
    }
    table.summary(0, "");
    Ok(())
}

/// Prints rows as they come, and the means last.
struct Table {
    json: bool,
    rows: Vec<Row>,
}

impl Table {
    fn header(&self, args: &Args, border: usize) {
        let source = match args.hr.is_empty() {
            false => format!("model {}, MATLAB bicubic 8-bit, x{}", args.model, args.scale),
            true => "pairs by name".to_owned(),
        };
        if self.json {
            return print(
                &json!({"event": "start", "source": source, "border": border,
                "y": "BT.601 16..235, not rounded", "ssim": "Gaussian 11, sigma 1.5, valid region"})
                .to_string(),
            );
        }
        print(&format!(
            "{source}; border {border}; 8 bits; Y of BT.601 (16..235), not rounded; SSIM Gaussian 11x11 \
             sigma 1.5, valid region; higher is better"
        ));
        print(&format!(
            "{:<24} {:>8} {:>7} {:>8} {:>7}   {:>8} {:>7}",
            "", "PSNR-Y", "SSIM-Y", "PSNR-RGB", "SSIM", "bicubic", "SSIM-Y"
        ));
    }

    fn row(&mut self, row: Row) {
        match self.json {
            true => {
                let mut event = values(&row.scores, row.bicubic.as_ref());
                event["event"] = "image".into();
                event["name"] = row.name.as_str().into();
                print(&event.to_string());
            }
            false => print(&line(&row.name, &row.scores, row.bicubic.as_ref())),
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
        if self.json {
            let mut event = values(&mean, bicubic.as_ref());
            event["event"] = if set.is_empty() { "summary" } else { "set" }.into();
            event["images"] = rows.len().into();
            if !set.is_empty() {
                event["name"] = set.into();
            }
            return print(&event.to_string());
        }
        let of = if set.is_empty() { String::new() } else { format!(" in {set}") };
        print(&line(&format!("mean of {}{of}", rows.len()), &mean, bicubic.as_ref()));
    }
}

fn values(scores: &Scores, bicubic: Option<&Scores>) -> serde_json::Value {
    let mut event = json!({"psnr_y": scores.psnr_y, "ssim_y": scores.ssim_y,
        "psnr_rgb": scores.psnr_rgb, "ssim_rgb": scores.ssim_rgb});
    if let Some(b) = bicubic {
        event["bicubic"] = json!({"psnr_y": b.psnr_y, "ssim_y": b.ssim_y,
            "psnr_rgb": b.psnr_rgb, "ssim_rgb": b.ssim_rgb});
    }
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

/// A line on standard output; a reader that went away is no error.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
