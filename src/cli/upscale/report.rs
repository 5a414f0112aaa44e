//! What a user sees of the work: pictures in their order, lines for people, JSON for programs.
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::care;
use crate::cli::common::counted;
use crate::cli::progress::Progress;
use crate::cli::{print, voice};
use crate::error::{Error, Report};
use crate::imaging;
use crate::imaging::encode::{Format, Outline};
use crate::upscale::jobs::{self, Job};
use crate::upscale::pipeline::Written;
use crate::upscale::{self, Plan};

/// A picture that the network is done with.
pub(super) enum Outcome {
    Skipped,
    Failed(Error),
    Written(Box<Summary>, Written),
}

/// What became of a picture.
pub(super) struct Summary {
    pub(super) from: (usize, usize),
    pub(super) output: Outline,
    pub(super) format: Format,
    pub(super) tiles: usize,
    /// Bytes that tiles and the band of the output were planned to take.
    pub(super) memory: u64,
    pub(super) seed: u64,
    pub(super) steps: usize,
    pub(super) started: Instant,
    pub(super) report: upscale::Report,
    /// What a user should know of it.
    pub(super) notes: Vec<String>,
    /// Its name, and what its weights are called.
    pub(super) model: [String; 2],
    /// What was found in the picture and what the model was told, where it is looked at.
    pub(super) damage: Option<serde_json::Value>,
}

impl Outcome {
    /// Waits for the file.
    pub(super) fn wait(self) -> Finished {
        match self {
            Self::Skipped => Finished::Skipped,
            Self::Failed(error) => Finished::Failed(error),
            Self::Written(summary, written) => match written.wait() {
                Ok(()) => Finished::Done(summary),
                Err(error) => Finished::Failed(error),
            },
        }
    }
}

pub(super) enum Finished {
    Skipped,
    Failed(Error),
    Done(Box<Summary>),
}

/// The first of the pictures in work, if its file is there; so that they are reported in their order.
pub(super) fn first_done<'j>(
    pending: &mut VecDeque<(&'j Job, Outcome)>,
) -> Option<(&'j Job, Finished)> {
    let ready = match pending.front()? {
        (_, Outcome::Skipped | Outcome::Failed(_)) => None,
        (_, Outcome::Written(_, written)) => Some(written.poll()?),
    };
    let (job, outcome) = pending.pop_front()?;
    let finished = match (outcome, ready) {
        (Outcome::Written(summary, _), Some(Ok(()))) => Finished::Done(summary),
        (_, Some(Err(error))) => Finished::Failed(error),
        (other, _) => other.wait(),
    };
    Some((job, finished))
}

/// How many pictures ended how.
#[derive(Default)]
pub(super) struct Tally {
    /// All there are, with folders that cannot be listed.
    pub(super) all: usize,
    pub(super) done: usize,
    pub(super) skipped: usize,
    pub(super) failed: Vec<Error>,
    /// Whether outputs get times and permissions of their inputs.
    pub(super) preserve: bool,
}

impl Tally {
    /// Counts and reports a picture.
    pub(super) fn add(&mut self, (job, finished): (&Job, Finished), out: &mut Output) {
        match finished {
            Finished::Skipped => {
                self.skipped += 1;
                out.event(json!({"event": "file", "input": job.input, "output": job.output,
                    "status": "skipped"}));
            }
            Finished::Done(summary) => {
                self.done += 1;
                out.finished(job, &summary);
                out.incidents(job, summary.report);
                if self.preserve
                    && let Err(error) = care::preserve(job)
                {
                    let name = job.output.display();
                    out.warn(&format!("{name} does not keep what its input has ({error})"));
                }
            }
            Finished::Failed(error) => self.failed(job, error, "file", out),
        }
    }

    /// Counts and reports a picture that failed.
    pub(super) fn failed(&mut self, job: &Job, error: Error, event: &str, out: &mut Output) {
        let record =
            json!({"event": event, "input": job.input, "output": job.output, "status": "failed"});
        self.report(record, error, out);
    }

    /// The same of a folder that cannot be listed: what is in it is not tried.
    pub(super) fn closed(
        &mut self,
        (folder, cause): &(PathBuf, String),
        event: &str,
        out: &mut Output,
    ) {
        let record = json!({"event": event, "input": folder, "status": "failed"});
        self.report(record, jobs::cannot_list(folder, cause), out);
    }

    fn report(&mut self, record: Value, error: Error, out: &mut Output) {
        out.event(voice::with_error(record, &error));
        if self.all > 1 {
            print::note(format_args!("error: {error}"));
        }
        self.failed.push(error);
    }

    /// How the command ends, if not well: with the error of the only picture, or with a count.
    pub(super) fn end(mut self) -> Option<Error> {
        let (count, all) = (self.failed.len(), self.all);
        let error = self.failed.pop()?;
        Some(match all {
            1 => error,
            _ => {
                let what = format!("{count} of {all} pictures failed");
                Error::Failed(Report::new(what, "each was reported above").code("some_failed"))
            }
        })
    }
}

/// From where to where a picture goes, and its sizes.
pub(super) fn way(job: &Job, from: (usize, usize), output: &Outline) -> String {
    let (input, name) = (job.input.display(), job.output.display());
    let (width, height) = (output.width, output.height);
    format!("{input} -> {name}  {}x{} -> {width}x{height}", from.0, from.1)
}

/// What the user sees: lines for people on standard error, JSON for programs on standard output.
pub(super) struct Output;

impl Output {
    pub(super) fn event(&mut self, event: serde_json::Value) {
        voice::event(&event);
    }

    pub(super) fn say(&self, text: &str) {
        voice::say(text);
    }

    /// A warning, for programs as well.
    pub(super) fn warn(&self, text: &str) {
        voice::event(&json!({"event": "warn", "text": text}));
        voice::say(format_args!("warning: {text}"));
    }

    pub(super) fn progress(&self, input: &Path, plan: &Plan) -> Progress {
        let name = input.file_name().unwrap_or_default().to_string_lossy();
        Progress::new(&name, (plan.tiles.len() * plan.steps) as u64)
    }

    /// What a user should know of an upscale that went another way than planned.
    pub(super) fn incidents(&mut self, job: &Job, report: upscale::Report) {
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

    pub(super) fn finished(&mut self, job: &Job, summary: &Summary) {
        let Summary { from, output, format, tiles, steps, started, .. } = summary;
        let losses = imaging::encode::losses(output, *format);
        let seconds = started.elapsed().as_secs_f64();
        self.event(json!({"event": "file", "input": job.input, "output": job.output,
            "status": "ok", "from": [from.0, from.1], "to": [output.width, output.height],
            "tiles": tiles, "memory": summary.memory, "seed": summary.seed, "steps": steps,
            "seconds": seconds, "lost": losses,
            "notes": summary.notes, "model": summary.model[0],
            "weights": summary.model[1], "damage": summary.damage}));
        self.say(&format!(
            "{}  {} x {}  {seconds:.1} s",
            way(job, *from, output),
            counted(*tiles, "tile"),
            counted(*steps, "step"),
        ));
        for loss in losses {
            self.say(&format!("note: {} cannot hold the {loss}", format.name()));
        }
        for note in &summary.notes {
            self.say(&format!("note: {note}"));
        }
    }
}
