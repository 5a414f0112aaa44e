//! `srk bench`: how fast a model is on this machine, and what memory it takes.
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Value, json};

use super::common::{self, DeviceChoice, ModelChoice, Precision, Stop};
use super::progress::Progress;
use super::upscale::options::{Tile, tile};
use super::voice;
use crate::engine::device::Device;
use crate::engine::files::atomic_write;
use crate::engine::memory::{self, in_words};
use crate::engine::outputs::Outputs;
use crate::engine::threads;
use crate::error::{Error, Report, Result};
use crate::imaging::{Color, Depth, Image, Samples};
use crate::upscale::{self, Plan, SEED, Settings, Upscaler};

const EXAMPLES: &str = "Examples:
  srk bench                                      the model for clean pictures, 256 and 512 pixels a side
  srk bench -m net.pth --sizes 512,1024x768 --steps 1
  srk bench --device cuda --precision bf16
  srk bench --export-json bench.json             as hyperfine writes it
";

/// Measure how fast a model is on this machine, and what memory it takes.
///
/// Pictures are made up and stay in memory: no file is read or written. The times are of whole pictures through the
/// network, after one run that is not counted.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelChoice,
    /// Sizes of the input in pixels, separated by commas: a side, or WxH
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "256,512", value_parser = size)]
    sizes: Vec<(usize, usize)>,
    /// Calls of the network; the model's default if left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    steps: Option<u32>,
    /// How often each size is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// How often each size runs before that
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    warmup: u32,
    /// Tile size in input pixels: auto, none, a side, or both as in 512x256
    #[arg(short, long, default_value = "auto", value_parser = tile)]
    tile: Tile,
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
    /// Also write the times into this file, as hyperfine has them
    #[arg(long, value_name = "FILE")]
    export_json: Option<PathBuf>,
    /// Replace that file
    #[arg(long)]
    overwrite: bool,
}

fn size(text: &str) -> std::result::Result<(usize, usize), String> {
    let side = |text: &str| text.parse().ok().filter(|side| (1..=16384).contains(side));
    let both = match text.split_once('x') {
        Some((width, height)) => side(width).zip(side(height)),
        None => side(text).map(|side| (side, side)),
    };
    both.ok_or_else(|| "a side from 1 to 16384 pixels such as 512, or both such as 640x480".into())
}

/// What one size took.
struct Times {
    name: String,
    seconds: Vec<f64>,
    /// The most bytes that the process held.
    memory: Option<u64>,
    tiles: usize,
}

pub(super) fn run(args: &Args) -> Result<()> {
    common::set_threads(args.threads)?;
    if let Some(file) = &args.export_json {
        let mut outputs = Outputs::overwriting(args.overwrite);
        args.model.paths().iter().for_each(|path| outputs.reads_below(path));
        outputs.claim(file, file)?;
    }
    let upscaler = common::place(args.model.open()?, &args.device, args.precision)?;
    let system = upscaler.system();
    if let Device::Cuda(gpu) = system.network.device() {
        gpu.ask_for_libraries();
    }
    let stop = common::stop_on_signals()?;
    let steps = args.steps.map_or(system.default_steps(), |n| n as usize);
    let steps = steps.min(system.config.diffusion.process.steps());
    voice::event(&json!({"event": "start", "model": system.name, "weights": system.label,
        "device": common::device_name(system), "precision": common::precision_name(system),
        "threads": threads::count(), "scale": system.scale(), "steps": steps,
        "runs": args.runs, "warmup": args.warmup, "seed": SEED}));
    voice::result(format_args!(
        "{}, {}, {} to x{}",
        common::where_it_runs(&system.name, system),
        common::counted(steps, "step"),
        common::counted(args.runs as usize, "run"),
        system.scale()
    ));
    voice::result(format_args!(
        "{:<12} {:>10} {:>10} {:>10} {:>10} {:>12}",
        "input", "mean", "deviation", "s/Mpx in", "Mpx/s out", "memory"
    ));
    let mut all = Vec::new();
    for &size in &args.sizes {
        let times = measured(args, &upscaler, size, &stop)?;
        let (event, line) = told(&times, size, system.scale());
        voice::event(&event);
        voice::result(line);
        all.push((times, size));
    }
    if let Some(file) = &args.export_json {
        let results: Vec<Value> =
            all.iter().map(|(times, size)| exported(times, *size, &system.name, steps)).collect();
        let text = format!("{:#}\n", json!({"results": results}));
        atomic_write(file, |writer| writer.write_all(text.as_bytes()))?;
    }
    voice::done(json!({"measured": all.len(), "written": args.export_json}));
    Ok(())
}

/// A picture with edges and noise, the same every time.
fn picture((width, height): (usize, usize)) -> Image {
    let value = |i: usize| {
        let (pixel, channel) = (i / 3, i % 3);
        let (x, y) = (pixel % width, pixel / width);
        let plane = if (x / 9 + y / 7).is_multiple_of(2) { 60 } else { 170 };
        let noise = (pixel.wrapping_mul(2_654_435_761) >> 7) % 23;
        u8::try_from(plane + noise + 20 * channel).unwrap_or(u8::MAX)
    };
    let samples = Samples::U8((0..3 * width * height).map(value).collect());
    Image { height, samples, ..Image::new(width, 0, Color::Rgb, Depth::Eight) }
}

fn measured(args: &Args, upscaler: &Upscaler, size: (usize, usize), stop: &Stop) -> Result<Times> {
    let image = picture(size);
    let name = format!("{}x{}", size.0, size.1);
    let memory = upscaler.memory_or(common::available_memory() / 2)?;
    let steps = args.steps.map(|n| n as usize);
    let settings = Settings { steps, seed: SEED, tile: args.tile.size, memory };
    let plan: Plan = upscale::plan(upscaler, size.0, size.1, &settings)?;
    let whole = u64::from(args.warmup + args.runs);
    let progress = Progress::new(&name, whole);
    memory::reset_peak();
    let mut seconds = Vec::new();
    for run in 0..args.warmup + args.runs {
        common::check(stop)?;
        let started = Instant::now();
        // As files are made: strip by strip, never whole.
        let sink = &mut |strip: Image| {
            std::hint::black_box(&strip);
            Ok(())
        };
        let told = &mut |_: usize, _: usize| common::check(stop);
        upscale::upscale_strips(upscaler, &image, &plan, SEED, told, sink)?;
        if run >= args.warmup {
            seconds.push(started.elapsed().as_secs_f64());
        }
        progress.at(u64::from(run) + 1, whole);
    }
    progress.finish();
    match seconds.is_empty() {
        true => Err(Error::Failed(Report::new("nothing was measured", "there were no runs"))),
        false => Ok(Times { name, seconds, memory: memory::peak(), tiles: plan.tiles.len() }),
    }
}

/// Mean, deviation, median, least and most.
fn statistics(seconds: &[f64]) -> [f64; 5] {
    let n = seconds.len() as f64;
    let mean = seconds.iter().sum::<f64>() / n;
    let variance = seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |i: usize| sorted[i.min(sorted.len() - 1)];
    let median = f64::midpoint(at((sorted.len() - 1) / 2), at(sorted.len() / 2));
    [mean, variance.sqrt(), median, at(0), at(sorted.len() - 1)]
}

fn told(times: &Times, size: (usize, usize), scale: usize) -> (Value, String) {
    let [mean, deviation, median, least, most] = statistics(&times.seconds);
    let megapixels = (size.0 * size.1) as f64 / 1e6;
    let (each, out) = (mean / megapixels, megapixels * (scale * scale) as f64 / mean);
    let event = json!({"event": "bench", "input": [size.0, size.1],
        "output": [size.0 * scale, size.1 * scale], "tiles": times.tiles, "times": times.seconds,
        "mean": mean, "deviation": deviation, "median": median, "min": least, "max": most,
        "seconds_per_megapixel": each, "megapixels_out_per_second": out, "memory": times.memory});
    let memory = times.memory.map_or_else(|| "-".to_owned(), in_words);
    let line = format!(
        "{:<12} {:>8.3} s {:>8.3} s {each:>10.2} {out:>10.2} {memory:>12}",
        times.name, mean, deviation
    );
    (event, line)
}

/// A result under the names that hyperfine gives them.
fn exported(times: &Times, size: (usize, usize), model: &str, steps: usize) -> Value {
    let [mean, deviation, median, least, most] = statistics(&times.seconds);
    json!({"command": format!("srk {model} {} {steps} steps", times.name), "mean": mean,
        "stddev": deviation, "median": median, "min": least, "max": most, "times": times.seconds,
        "memory": times.memory, "parameters": {"model": model, "steps": steps.to_string(),
            "width": size.0.to_string(), "height": size.1.to_string()}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_the_times() {
        assert_eq!(statistics(&[3.0, 1.0, 2.0]), [2.0, 1.0, 2.0, 1.0, 3.0]);
        assert_eq!(statistics(&[4.0, 2.0]), [3.0, 2.0f64.sqrt(), 3.0, 2.0, 4.0]);
        assert_eq!(statistics(&[5.0]), [5.0, 0.0, 5.0, 5.0, 5.0]);
        assert!(size("0").is_err() && size("x5").is_err() && size("20000").is_err());
        assert_eq!(size("640x480"), Ok((640, 480)));
    }
}
