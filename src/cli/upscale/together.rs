//! Pictures on several GPUs: a thread for each, with every so many-th of the pictures that are to be done.
use std::sync::mpsc::sync_channel;

use super::report::{Outcome, Output};
use super::work::Work;
use crate::error::{Error, Report, Result};
use crate::upscale::choice::Models;
use crate::upscale::jobs::Job;
use crate::upscale::pipeline::{Reader, Writer};

/// Gives `body` what takes the pictures of a run through the network, asked for in their order: those of `to_do` by the
/// first of `models`, the second and so on, ahead of being asked for. They share what `work` may take.
pub(super) fn run<R>(
    models: &[Models],
    work: &Work<'_>,
    to_do: &[&Job],
    body: impl FnOnce(&mut dyn FnMut(&Job) -> Result<Outcome>) -> R,
) -> R {
    let count = models.len().min(to_do.len()).max(1);
    std::thread::scope(|scope| {
        let (args, stop, budget) = (work.args, work.stop, work.budget.shared_by(count as u64));
        let start = |(number, models)| {
            let (send, line) = sync_channel(1);
            let mine = to_do.iter().skip(number).step_by(count);
            scope.spawn(move || {
                let reader = Reader::start(mine.clone().map(|job| job.input.clone()).collect());
                let writer = Writer::start();
                let work = Work { args, models, budget, reader, writer, stop, alone: false };
                for job in mine {
                    if send.send(work.begin(job, &Output)).is_err() {
                        return;
                    }
                }
            });
            line
        };
        let lines: Vec<_> = models.iter().take(count).enumerate().map(start).collect();
        let mut taken = 0;
        body(&mut |job| {
            if job.skip {
                return Ok(Outcome::Skipped);
            }
            let line = &lines[taken % count];
            taken += 1;
            line.recv().unwrap_or_else(|_| {
                let what = format!("cannot enlarge {}", job.input.display());
                Err(Error::Failed(Report::new(what, "its thread stopped")))
            })
        })
    })
}
