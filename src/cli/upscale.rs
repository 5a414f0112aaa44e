//! `srk upscale`.
mod again;
mod arguments;
mod care;
mod choice;
mod disk;
mod dry;
mod encoding;
mod look;
mod naming;
pub(super) mod options;
mod report;
mod together;
mod whole;
mod work;

use std::collections::VecDeque;
use std::time::Instant;

use serde_json::json;

use report::{Outcome, Output, Tally, first_done};

use super::common::{self};
use super::{progress, voice};
use crate::engine::device::Device;
use crate::error::{Error, Result};
use crate::upscale::budget::Budget;
use crate::upscale::jobs::{Job, Jobs};
use crate::upscale::pipeline::{Reader, Writer};
use crate::upscale::{Upscaler, jobs};
pub(super) use arguments::Args;
use work::Work;

pub(super) fn run(mut args: Args) -> Result<()> {
    args.adopt_habits();
    common::set_threads(args.threads)?;
    args.look.check(args.wrap)?;
    args.ram = common::ram(args.ram)?;
    let places = args.places()?;
    if places.is_piped() {
        voice::leave_stdout();
    }
    let models = {
        let Args { model, sampling, device, precision, no_fallback, .. } = &args;
        if *no_fallback {
            device.refuse_fallback()?;
        }
        choice::open(model, sampling, device, *precision)?
    };
    choice::check(&models, args.denoise)?;
    let system = models.any().system();
    let Jobs { jobs, elsewhere, left_out, foreign, no_files, closed } =
        args.jobs(places, models.name(), system)?;
    let full_disks = disk::check(&args, system, &jobs)?;
    let stop = common::stop_on_signals()?;
    let started = Instant::now();
    let mut out = Output;
    out.event(json!({"event": "start", "model": models.name(), "files": jobs.len(),
        "device": common::device_name(system), "precision": common::precision_name(system),
        "seed": args.seed.number, "left_out": left_out, "unread": foreign, "other_shards": elsewhere}));
    out.say(&(common::where_it_runs(models.name(), system) + &args.seed.words()));
    let gpus = models.any().systems().len();
    if gpus > 1 {
        out.say(&format!("note: {gpus} GPUs share the work"));
    }
    for note in &system.notes {
        out.say(&format!("warning: {note}"));
    }
    for note in common::notes_of(system) {
        out.say(&format!("note: {note}"));
    }
    if elsewhere > 0 {
        let (here, all) = (jobs.len(), jobs.len() + elsewhere);
        out.say(&format!("note: {here} of {all} pictures belong to this part"));
    } else if jobs.is_empty() {
        out.say("note: the report names no picture that failed");
    }
    if let Some(first) = left_out.first() {
        let (n, first) = (left_out.len(), first.display());
        let (results, are) = (common::counted(n, "result"), if n == 1 { "is" } else { "are" });
        out.say(&format!("note: {results} of srk in the inputs {are} left out, first {first}"));
    }
    if !foreign.is_empty() {
        out.say(&format!("note: {} left out", jobs::named(&foreign)));
    }
    if args.tile.zero {
        out.say("note: -t 0 is automatic, as in ncnn's programs; -t none is Real-ESRGAN's 0");
    }
    let others = no_files.iter().map(|path| jobs::no_file(path));
    let warnings = [warnings(&args, models.any()), full_disks, others.collect()].concat();
    warnings.iter().for_each(|text| out.warn(text));
    let all = jobs.len() + closed.len();
    let mut tally = Tally { all, preserve: args.care.preserve, ..Tally::default() };
    let event = if args.dry_run { "plan" } else { "file" };
    closed.iter().for_each(|folder| tally.closed(folder, event, &mut out));
    let to_do: Vec<&Job> = jobs.iter().filter(|job| !job.skip).collect();
    // Each GPU takes pictures of its own; the tiles of a single one are shared.
    let apart = if to_do.len() > 1 && !args.dry_run { models.apart() } else { vec![] };
    let together = apart.len() > 1;
    let work = Work {
        args: &args,
        models: &models,
        budget: Budget::new(args.ram, to_do.len() > 1),
        reader: Reader::start(match args.dry_run || together {
            true => vec![],
            false => to_do.iter().map(|job| job.input.clone()).collect(),
        }),
        writer: Writer::start(),
        stop: &stop,
        alone: !together,
    };
    if args.dry_run {
        return dry::run(&args, models.any(), (&jobs, tally), &|job| work.planned(job), &mut out);
    }
    let fail_fast = args.care.fail_fast;
    let (interrupted, untried) = match together {
        true => together::run(&apart, &work, &to_do, |begin| {
            take(&jobs, begin, fail_fast, &mut tally, &mut out)
        }),
        false => {
            let begin = &mut |job: &Job| work.begin(job, &Output);
            take(&jobs, begin, fail_fast, &mut tally, &mut out)
        }
    };
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
    tally.end().map_or(Ok(()), Err)
}

/// Takes all pictures, which `begin` takes through the network one after the other, and reports them in their order:
/// why it ended before the last, and how many were not tried.
fn take(
    jobs: &[Job],
    begin: &mut dyn FnMut(&Job) -> Result<Outcome>,
    fail_fast: bool,
    tally: &mut Tally,
    out: &mut Output,
) -> (Option<Error>, usize) {
    let (mut pending, mut interrupted, mut untried) = (VecDeque::new(), None, 0);
    for (i, job) in jobs.iter().enumerate() {
        let outcome = match begin(job) {
            Ok(outcome) => outcome,
            Err(error) => {
                interrupted = Some(error);
                break;
            }
        };
        let failed = matches!(outcome, Outcome::Failed(_));
        pending.push_back((job, outcome));
        while let Some(outcome) = first_done(&mut pending) {
            tally.add(outcome, out);
        }
        if fail_fast && (failed || !tally.failed.is_empty()) {
            untried = jobs.len() - i - 1;
            break;
        }
    }
    for (job, outcome) in pending {
        tally.add((job, outcome.wait()), out);
    }
    (interrupted, untried)
}

/// What is worth a warning before any work.
fn warnings(args: &Args, upscaler: &Upscaler) -> Vec<String> {
    let on_cpu = upscaler.system().network.device() == Device::Cpu;
    let idle = (args.vram.is_some() && on_cpu)
        .then(|| "--vram does nothing on the CPU; --ram bounds the process".to_owned());
    let names: Vec<String> = upscaler.systems().iter().map(|s| common::gpu_name(s)).collect();
    let unlike = names.iter().find(|name| **name != names[0]).map(|other| {
        format!(
            "{} and {other} may round differently: pictures depend on which takes them",
            names[0]
        )
    });
    let steps = dry::note_of_steps(args, upscaler);
    let notes = [dry::too_many_threads(args.threads), steps, idle, unlike];
    notes.into_iter().flatten().collect()
}
