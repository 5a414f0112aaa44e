//! `srk upscale --dry-run`: what would be done, in which tiles, and about how long it would take.
//!
//! Of a picture only its head is read. The time comes from one call of the network on a few pixels, here and now.
use std::time::Instant;

use serde_json::{Value, json};

use super::arguments::Args;
use super::report::Tally;
use super::report::{Output, way};
use crate::cli::progress::in_words as time;
use crate::cli::{common, print, voice};
use crate::engine::memory::in_words as bytes;
use crate::error::Result;
use crate::imaging::encode::{Format, Outline};
use crate::imaging::{self, Color, Depth, Image, header};
use crate::upscale::budget::Budget;
use crate::upscale::jobs::Job;
use crate::upscale::{self, Plan, Settings, TileSize, Upscaler};

/// Side of the picture that is measured with.
const SIDE: usize = 16;

/// A picture's part of the plan.
pub(super) struct Planned {
    pub(super) from: (usize, usize),
    pub(super) output: Outline,
    pub(super) plan: Plan,
    pub(super) format: Format,
}

/// Seconds that a call of the network takes for a pixel; none where it cannot be measured.
fn pace(upscaler: &Upscaler) -> Option<f64> {
    let image = Image::new(SIDE, SIDE, Color::Rgb, Depth::Eight);
    let settings = Settings { steps: Some(1), seed: 0, tile: TileSize::None, memory: 1 << 30 };
    let plan = upscale::plan(upscaler, SIDE, SIDE, &settings).ok()?;
    let area: usize = plan.tiles.iter().map(|tile| tile.padded.area()).sum();
    let mut best = f64::INFINITY;
    // The first time also pays for what is set up once.
    for _ in 0..2 {
        let started = Instant::now();
        upscale::upscale(upscaler, &image, &plan, 0, &mut |_, _| Ok(())).ok()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Some(best / (area * plan.steps).max(1) as f64)
}

/// Pixels that the network is called for, with halos.
pub(super) fn work(plan: &Plan) -> usize {
    plan.tiles.iter().map(|tile| tile.padded.area()).sum::<usize>() * plan.steps
}

/// Says what would be done with `jobs`.
pub(super) fn run(
    args: &Args,
    upscaler: &Upscaler,
    (jobs, mut tally): (&[Job], Tally),
    planned: &dyn Fn(&Job) -> Result<Planned>,
    out: &mut Output,
) -> Result<()> {
    let pace = pace(upscaler);
    let mut seconds = 0.0;
    for job in jobs {
        if job.skip {
            tally.skipped += 1;
            out.event(json!({"event": "plan", "input": job.input, "output": job.output,
                "status": "skipped"}));
            continue;
        }
        match planned(job) {
            Ok(planned) => {
                tally.done += 1;
                let pixels = (work(&planned.plan) * args.look.times()) as f64;
                let about = pace.map(|pace| pace * pixels);
                seconds += about.unwrap_or(0.0);
                out.event(record(args, upscaler, job, &planned, about));
                voice::result(line(args, upscaler, job, &planned, about));
            }
            Err(error) => tally.failed(job, error, "plan", out),
        }
    }
    let (count, skipped, failed) = (tally.done, tally.skipped, tally.failed.len());
    out.event(json!({"event": "done", "dry_run": true, "planned": count, "skipped": skipped,
        "failed": failed, "about_seconds": pace.map(|_| seconds)}));
    if jobs.len() != 1 || skipped > 0 {
        let about = pace.map_or(String::new(), |_| format!(", about {} in all", time(seconds)));
        let skipped = if skipped > 0 { format!(", {skipped} left out") } else { String::new() };
        let count = common::counted(count, "picture");
        voice::result(format_args!("{count} to enlarge{skipped}{about}"));
    }
    if let Some(error) = tally.end() {
        return Err(error);
    }
    out.say("nothing was done: this was a dry run");
    print::check()
}

fn tile_side(plan: &Plan) -> (usize, usize) {
    plan.tiles.first().map_or((0, 0), |tile| (tile.core.width, tile.core.height))
}

fn memory(args: &Args, upscaler: &Upscaler, planned: &Planned) -> u64 {
    let scale = upscaler.system().scale();
    planned.plan.memory + args.look.memory(planned.from, scale, &planned.output)
}

fn record(
    args: &Args,
    upscaler: &Upscaler,
    job: &Job,
    planned: &Planned,
    about: Option<f64>,
) -> Value {
    let Planned { from, output, plan, format } = planned;
    let (width, height) = tile_side(plan);
    json!({"event": "plan", "input": job.input, "output": job.output, "status": "ok",
        "from": [from.0, from.1], "to": [output.width, output.height], "format": format.name(),
        "tiles": plan.tiles.len(), "tile": [width, height], "halo": plan.halo,
        "blended": plan.blended, "steps": plan.steps, "views": args.look.times(),
        "memory": memory(args, upscaler, planned), "about_seconds": about,
        "lost": imaging::encode::losses(output, *format)})
}

fn line(
    args: &Args,
    upscaler: &Upscaler,
    job: &Job,
    planned: &Planned,
    about: Option<f64>,
) -> String {
    let Planned { from, output, plan, .. } = planned;
    let (width, height) = tile_side(plan);
    let tiles = match plan.tiles.len() {
        1 => "1 tile".to_owned(),
        n => format!("{n} tiles of {width}x{height}"),
    };
    let views = if args.look.tta { " x 8 views" } else { "" };
    format!(
        "{}  {tiles} x {}{views}  {} for tiles{}",
        way(job, *from, output),
        common::counted(plan.steps, "step"),
        bytes(memory(args, upscaler, planned)),
        about.map_or(String::new(), |seconds| format!("  about {}", time(seconds))),
    )
}

/// The head of the picture of `job`, as decoding would find it.
pub(super) fn header(job: &Job, budget: &Budget) -> Result<header::Header> {
    let name = job.input.display().to_string();
    match imaging::header::of_file(&job.input) {
        Some(header) => {
            let file = std::fs::metadata(&job.input).map_or(0, |file| file.len());
            // Small pictures are decoded before they have their turn; their plan has the last word.
            if !Budget::is_small(&header) {
                budget.check_decoding(&name, file, &header)?;
            }
            imaging::decode::check_head(&job.input)?;
            Ok(header)
        }
        // A pipe, or a head that only decoding understands, or explains.
        None => {
            let image = imaging::read(&job.input)?;
            Ok(header::Header {
                width: image.width,
                height: image.height,
                channels: image.channels() + usize::from(image.alpha.is_some()),
                alpha: image.alpha.is_some(),
                sample: image.depth().bytes(),
                decoding: 0,
            })
        }
    }
}

/// What is worth a warning: tiles that compute mostly what others compute too, and more threads than cores.
pub(super) fn crawling(args: &Args, plan: &Plan) -> Option<String> {
    let core: usize = plan.tiles.iter().map(|tile| tile.core.area()).sum();
    let padded: usize = plan.tiles.iter().map(|tile| tile.padded.area()).sum();
    let times = padded as f64 / core.max(1) as f64;
    let words = match args.tile.size {
        TileSize::Side(side) => side.to_string(),
        TileSize::Sides(width, height) => format!("{width}x{height}"),
        TileSize::Auto | TileSize::None => return None,
    };
    (times > 3.0 && plan.tiles.len() > 1).then(|| {
        format!(
            "tiles of {words} pixels with {} around them compute the picture {times:.0} times over; \
             leave -t out, or take -t {}",
            plan.halo,
            (4 * plan.halo).max(256)
        )
    })
}

/// A warning about more threads than there are cores.
pub(super) fn too_many_threads(threads: Option<u32>) -> Option<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads? as usize;
    (threads > 2 * cores)
        .then(|| format!("{threads} threads on {cores} cores wait for each other; leave -j out"))
}

/// Notes on the picture, before its work.
pub(super) fn notes(args: &Args, upscaler: &Upscaler, planned: [(usize, usize); 2]) -> Vec<String> {
    let [from, to] = planned;
    let scale = upscaler.system().scale();
    args.sizes.note(from, to, scale).into_iter().collect()
}

/// That a model takes fewer steps than were asked for.
pub(super) fn note_of_steps(args: &Args, upscaler: &Upscaler) -> Option<String> {
    let most = upscaler.system().config.diffusion.process.steps();
    let asked = args.steps? as usize;
    (asked > most).then(|| {
        format!("{} has {most} steps, so --steps {asked} is {most}", upscaler.system().name)
    })
}

/// Details for `-v`.
pub(super) fn detail(planned: &Plan) -> String {
    let (width, height) = tile_side(planned);
    common::counted(planned.tiles.len(), "tile")
        + &format!(
            " of {width}x{height} with {} around them, {} at once, {} a batch",
            planned.halo,
            bytes(planned.memory),
            planned.batch
        )
}
