//! `srk train --dry-run`: everything up to the first steps, in a folder that goes away.
use std::time::{Duration, Instant};

use super::Run;
use super::among::Silent;
use crate::engine::device::{DType, Device};
use crate::engine::memory::{self, in_words};
use crate::error::{Error, Report, Result};
use crate::training::job::{Job, Prepared};
use crate::training::log::{Reporter, grouped, short};
use crate::training::ranks::Ranks;

/// What two steps showed.
#[derive(Clone, Copy, Debug)]
pub struct Dry {
    /// Bytes that a step was expected to take at least.
    pub planned: u64,
    /// Bytes of the process after a step, on the CPU.
    pub resident: u64,
    /// Seconds of a step.
    pub seconds: f64,
    /// The loss of the first step.
    pub loss: f64,
    /// What a GPU holds, where one trains.
    pub on_gpu: Option<u64>,
}

/// Reads the data, builds the network and takes two steps of `job`, of which nothing is kept.
///
/// # Errors
/// As [`train`](super::train), but that of an existing run.
pub fn dry_run(job: &dyn Job, place: (&Device, DType), reporter: &mut dyn Reporter) -> Result<Dry> {
    let temporary = tempfile::tempdir()
        .map_err(|e| Error::Failed(Report::new("cannot make a temporary folder", e)))?;
    let (device, shared) = (place.0, job.shared());
    let folder = temporary.path().join(&shared.run.name);
    let prepared = job.prepare(device, reporter)?;
    prepared.keep_buffers(device);
    let Prepared { task, source, planned, .. } = prepared;
    let free_before = free(device)?;
    let mut run = Run::open(job, &folder, (None, &*task), place, &Ranks::alone(), &mut Silent)?;
    if let Device::Cuda(gpu) = device {
        reporter.line(&format!("on {} in {:?}", gpu.describe().name, place.1));
    }
    let mut batches = run.batches(0..2, source);
    let first = run.step(&mut batches, &mut Silent)?;
    run.take_in(first, reporter)?;
    run.catch_up(reporter)?;
    let loss = run.sums.take().first().map_or(f64::NAN, |m| m.1);
    let started = Instant::now();
    // The first step also pays for what is set up once.
    let second = run.step(&mut batches, &mut Silent)?;
    run.take_in(second, reporter)?;
    run.catch_up(reporter)?;
    let seconds = started.elapsed().as_secs_f64();
    let on_gpu = free_before.zip(free(device)?).map(|(before, now)| before.saturating_sub(now));
    let dry = Dry { planned, resident: memory::resident(), seconds, loss, on_gpu };
    let weights = task.parts().into_iter().flat_map(|part| part.parameters.to_vec());
    let weights = weights.map(|p| p.value().len() as u64).sum();
    let all = Duration::from_secs_f64((seconds * shared.run.steps as f64).min(1e15));
    reporter.line(&format!(
        "{} parameters; memory: at least {} planned, {} after a step{}",
        grouped(weights),
        in_words(planned),
        in_words(dry.resident),
        on_gpu.map_or_else(String::new, |bytes| format!(", {} on the GPU", in_words(bytes))),
    ));
    reporter.line(&format!(
        "a step takes {seconds:.2} s, so {} steps about {}; loss {:.5}",
        grouped(shared.run.steps),
        short(all),
        dry.loss
    ));
    reporter.line("nothing was written: this was a dry run");
    Ok(dry)
}

/// Free bytes of a GPU.
fn free(device: &Device) -> Result<Option<u64>> {
    match device {
        Device::Cpu => Ok(None),
        Device::Cuda(gpu) => Ok(Some(gpu.driver().memory()?.0 as u64)),
    }
}
