//! What a user sees of the work: pictures in their order, lines for people, JSON for programs.
use std::collections::VecDeque;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::print;
use crate::error::Error;
use crate::imaging;
use crate::imaging::encode::{Format, Outline};
use crate::upscale::jobs::Job;
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
    pub(super) steps: usize,
    pub(super) started: Instant,
    pub(super) report: upscale::Report,
    pub(super) note: Option<String>,
    pub(super) model: String,
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
    pub(super) done: usize,
    pub(super) skipped: usize,
    pub(super) failed: Vec<Error>,
}

impl Tally {
    /// Counts and reports a picture, one of `all`.
    pub(super) fn add(&mut self, (job, finished): (&Job, Finished), all: usize, out: &mut Output) {
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
            }
            Finished::Failed(error) => {
                out.event(json!({"event": "file", "input": job.input, "output": job.output,
                    "status": "failed", "code": error.exit_code(), "error": error.to_string()}));
                if all > 1 {
                    print::note(format_args!("error: {error}"));
                }
                self.failed.push(error);
            }
        }
    }
}

/// What the user sees: lines for people on standard error, JSON for programs on standard output.
pub(super) struct Output {
    pub(super) json: bool,
    pub(super) quiet: bool,
}

impl Output {
    pub(super) fn event(&mut self, event: serde_json::Value) {
        if self.json {
            print::line(event);
        }
    }

    pub(super) fn say(&self, text: &str) {
        if !self.quiet {
            print::note(text);
        }
    }

    pub(super) fn progress(&self, input: &Path, plan: &Plan) -> ProgressBar {
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
            "tiles": tiles, "steps": steps, "seconds": seconds, "lost": losses,
            "note": summary.note, "model": summary.model, "damage": summary.damage}));
        self.say(&format!(
            "{} -> {}  {}x{} -> {}x{}  {tiles} tile{} x {steps} step{}  {seconds:.1} s",
            job.input.display(),
            job.output.display(),
            from.0,
            from.1,
            output.width,
            output.height,
            if *tiles == 1 { "" } else { "s" },
            if *steps == 1 { "" } else { "s" },
        ));
        for loss in losses {
            self.say(&format!("note: {} cannot hold the {loss}", format.name()));
        }
        if let Some(note) = &summary.note {
            self.say(&format!("note: {note}"));
        }
    }
}
