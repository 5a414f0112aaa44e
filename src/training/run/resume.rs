//! `--resume`: a new run that goes on where another one was.
use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::files::atomic_write;
use crate::engine::lock::FolderLock;
use crate::error::{Error, Report, Result};
use crate::models::run_folder;
use crate::training::job::Job;

/// The files of a checkpoint.
const FILES: [&str; 3] = ["model.safetensors", "ema.safetensors", "state.safetensors"];

/// Refuses a run that is there.
///
/// # Errors
/// [`Error::Usage`] with what goes on with it, or starts another.
pub fn refuse_existing(folder: &Path) -> Result<()> {
    if !folder.join("config.toml").exists() {
        return Ok(());
    }
    let what = format!("the run {} is there already", folder.display());
    let report = Report::new(what, "nothing was done").code("exists");
    let help = "leave --resume out to go on with it, or --set run.name=NAME for another";
    Err(Error::Usage(report.help(help)))
}

/// Makes the run of `job` in `out` one that goes on where `from` is: a run, at its newest checkpoint that is whole, or the
/// folder of a checkpoint. Weights, averages and moments are those; random numbers follow from seed and step. `warn` hears
/// of damaged ones that were passed over.
///
/// # Errors
/// [`Error::Usage`] if the run is there already; [`Error::Model`] if there is no checkpoint, or it is of another network.
/// Nothing is left then.
pub fn adopt(job: &dyn Job, out: &Path, from: &Path, warn: &mut dyn FnMut(&str)) -> Result<u64> {
    let folder = out.join(&job.shared().run.name);
    refuse_existing(&folder)?;
    let (checkpoint, step) = first_taken(job, from, warn)?;
    let was_there = folder.exists();
    let target = folder.join("ckpt").join(step.to_string());
    copy(job, &checkpoint, (&folder, &target), step).inspect_err(|_| {
        let _ = fs::remove_dir_all(if was_there { &target } else { &folder });
    })?;
    Ok(step)
}

/// Makes `folder` a run with the checkpoint `target`, which is the one of `step` in `from`.
fn copy(job: &dyn Job, from: &Path, (folder, target): (&Path, &Path), step: u64) -> Result<()> {
    let failed = |path: &Path, e: std::io::Error| {
        Error::Failed(Report::new(format!("cannot write {}", path.display()), e))
    };
    fs::create_dir_all(target).map_err(|e| failed(target, e))?;
    let _lock = FolderLock::take(folder)?;
    for name in FILES {
        let to = target.join(name);
        fs::copy(from.join(name), &to).map_err(|e| failed(&to, e))?;
    }
    let line = format!("{step}\n");
    atomic_write(&folder.join("ckpt/latest"), |file| file.write_all(line.as_bytes()))?;
    let toml = job.toml();
    atomic_write(&folder.join("config.toml"), |file| file.write_all(toml.as_bytes()))
}

/// The newest checkpoint of those that `from` stands for with which `job` goes on, and its step.
fn first_taken(job: &dyn Job, from: &Path, warn: &mut dyn FnMut(&str)) -> Result<(PathBuf, u64)> {
    let mut refused: Option<Error> = None;
    for (checkpoint, step) in checkpoints(from)? {
        match job.takes(&checkpoint) {
            Ok(()) => {
                if let Some(error) = refused {
                    let text = error.to_string();
                    let text = text.lines().take(2).collect::<Vec<_>>().join(", ");
                    warn(&format!("{text}; taking the checkpoint of step {step}"));
                }
                return Ok((checkpoint, step));
            }
            Err(Error::Model(report)) => {
                refused.get_or_insert(Error::Model(report.help(WEIGHTS_ALONE)));
            }
            Err(other) => return Err(other),
        }
    }
    Err(refused.unwrap_or_else(|| none_in(from)))
}

/// What helps where a checkpoint is of other networks.
const WEIGHTS_ALONE: &str =
    "--resume takes runs of the same networks; --from RUN in its place takes the weights alone";

/// The folders and steps of the checkpoints that `from` stands for, the newest first.
fn checkpoints(from: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let step_of = |path: &Path| path.file_name()?.to_str()?.parse::<u64>().ok();
    if let (true, Some(step)) = (from.join(FILES[0]).is_file(), step_of(from)) {
        return Ok(vec![(from.to_owned(), step)]);
    }
    let ckpt = from.join("ckpt");
    let steps = run_folder::steps(&ckpt);
    match steps.is_empty() {
        true => Err(none_in(from)),
        false => Ok(steps.into_iter().rev().map(|s| (ckpt.join(s.to_string()), s)).collect()),
    }
}

fn none_in(from: &Path) -> Error {
    let what = format!("cannot go on from {}", from.display());
    let report = Report::new(what, "it is neither a run with checkpoints nor a checkpoint");
    Error::Model(report.help("--resume RUN, or RUN/ckpt/STEP"))
}
