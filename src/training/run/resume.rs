//! `--resume`: a new run that goes on where another one was.
use std::fs;
use std::path::{Path, PathBuf};

use crate::engine::files::atomic_write;
use crate::engine::lock::FolderLock;
use crate::error::{Error, Report, Result};
use crate::models::run_folder;
use crate::models::weights::WeightsFile;
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

/// Makes the run of `job` in `out` one that goes on where `from` is: a run, at its newest checkpoint, or the folder of
/// a checkpoint. Weights, averages and moments are those; random numbers follow from seed and step.
///
/// # Errors
/// [`Error::Usage`] if the run is there already; [`Error::Model`] if there is no checkpoint, or it is of another network.
pub fn adopt(job: &dyn Job, out: &Path, from: &Path) -> Result<u64> {
    let folder = out.join(&job.shared().run.name);
    refuse_existing(&folder)?;
    let (checkpoint, step) = checkpoint(from)?;
    // Before anything is written: what would not load.
    let state = job.state()?;
    let model = checkpoint.join(FILES[0]);
    WeightsFile::read(&model)?.apply(&state, &model.display().to_string())?;
    let failed = |path: &Path, e: std::io::Error| {
        Error::Failed(Report::new(format!("cannot write {}", path.display()), e))
    };
    let target = folder.join("ckpt").join(step.to_string());
    fs::create_dir_all(&target).map_err(|e| failed(&target, e))?;
    let _lock = FolderLock::take(&folder)?;
    for name in FILES {
        let to = target.join(name);
        fs::copy(checkpoint.join(name), &to).map_err(|e| failed(&to, e))?;
    }
    let line = format!("{step}\n");
    atomic_write(&folder.join("ckpt/latest"), |file| file.write_all(line.as_bytes()))?;
    let toml = job.toml();
    atomic_write(&folder.join("config.toml"), |file| file.write_all(toml.as_bytes()))?;
    Ok(step)
}

/// The folder and the step of the checkpoint that `from` stands for.
fn checkpoint(from: &Path) -> Result<(PathBuf, u64)> {
    let refuse = |cause: String| {
        let report = Report::new(format!("cannot go on from {}", from.display()), cause);
        Err(Error::Model(report.help("--resume RUN, or RUN/ckpt/STEP")))
    };
    let step_of = |path: &Path| path.file_name()?.to_str()?.parse::<u64>().ok();
    let whole = |path: &Path| FILES.iter().all(|name| path.join(name).is_file());
    if let (true, Some(step)) = (whole(from), step_of(from)) {
        return Ok((from.to_owned(), step));
    }
    let ckpt = from.join("ckpt");
    match run_folder::steps(&ckpt).last() {
        Some(step) if whole(&ckpt.join(step.to_string())) => {
            Ok((ckpt.join(step.to_string()), *step))
        }
        Some(step) => refuse(format!("its checkpoint of step {step} is not whole")),
        None => refuse("it is neither a run with checkpoints nor a checkpoint".into()),
    }
}
