//! The checkpoints of a training run, as those see them who only want its weights:
//! `RUN/ckpt/STEP/{model,ema,state}.safetensors`, beside them `best` and `latest` with a step each.
use std::fs;
use std::path::{Path, PathBuf};

use super::weights::WeightsFile;
use crate::error::{Error, Report, Result};

/// The steps of the checkpoints in the folder `ckpt`, ascending. What is still being written, or was set aside,
/// has a name that is no number.
pub fn steps(ckpt: &Path) -> Vec<u64> {
    let entries = fs::read_dir(ckpt).into_iter().flatten().flatten();
    let mut steps: Vec<u64> =
        entries.filter_map(|entry| plain_number(entry.file_name().to_str()?)).collect();
    steps.sort_unstable();
    steps
}

/// Whether the training run in the folder `run` ever saved a step, be it one that was set aside.
pub fn has_saved(run: &Path) -> bool {
    let entries = fs::read_dir(run.join("ckpt")).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
}

/// The step that `ckpt/best` or `ckpt/latest` names: a number and nothing else, so that it leads nowhere but to a
/// checkpoint of the run.
pub fn named(ckpt: &Path, name: &str) -> Option<u64> {
    plain_number(fs::read_to_string(ckpt.join(name)).ok()?.trim())
}

/// `12`, but neither `+12` nor `012`, which would be other names.
fn plain_number(text: &str) -> Option<u64> {
    text.parse::<u64>().ok().filter(|number| number.to_string() == text)
}

/// The averaged weights of the training run in the folder `run`, and their file: of its best checkpoint if that
/// was looked for, else of its newest. A damaged one is passed over for the one before; `notes` hear of it,
/// and of a best one that is gone. The folder
/// of a checkpoint stands for that one.
///
/// # Errors
/// [`Error::Model`] if there is no checkpoint, or none that is whole.
pub fn averages(run: &Path, notes: &mut Vec<String>) -> Result<(WeightsFile, PathBuf)> {
    // One of its checkpoints, or the folder of all of them, will do as well.
    let alone = run.join("ema.safetensors");
    if alone.is_file() {
        return Ok((WeightsFile::read(&alone)?, alone));
    }
    let inside = if steps(run).is_empty() { "ckpt" } else { "" };
    let ckpt = run.join(inside);
    let mut all = steps(&ckpt);
    match named(&ckpt, "best") {
        Some(best) if all.contains(&best) => {
            all.retain(|&step| step != best);
            all.push(best);
        }
        Some(best) if !all.is_empty() => {
            let what = format!("{} names step {best}", ckpt.join("best").display());
            notes.push(format!("{what}, whose checkpoint is gone; taking the newest"));
        }
        _ => {}
    }
    let mut refused = None;
    for step in all.into_iter().rev() {
        let path = ckpt.join(step.to_string()).join("ema.safetensors");
        match (WeightsFile::read(&path), refused.take()) {
            (Ok(file), None) => return Ok((file, path)),
            (Ok(file), Some(Error::Model(report))) => {
                let Report { what, cause, .. } = report;
                notes.push(format!("{what} ({cause}); taking the checkpoint of step {step}"));
                return Ok((file, path));
            }
            (Ok(file), Some(_)) => return Ok((file, path)),
            (Err(error), None) => refused = Some(error),
            (Err(_), first) => refused = first,
        }
    }
    Err(refused.map_or_else(|| no_run(run), |error| of_a_run(error, "its other checkpoints, too")))
}

fn no_run(run: &Path) -> Error {
    let what = format!("{} is not a training run with checkpoints", run.display());
    let report = Report::new(what, "it has no folder ckpt with a checkpoint in it");
    Error::Model(report.help("name a weights file, or a folder that srk train made"))
}

/// `error`, about a checkpoint of a run: that cannot be copied or downloaded again.
pub fn of_a_run(error: Error, more: &str) -> Error {
    match error {
        Error::Model(Report { what, cause, .. }) => {
            let help = "the steps since the last whole checkpoint are lost; without one, start again \
                        under another run.name";
            Error::Model(Report::new(what, format!("{cause}; {more}")).help(help))
        }
        other => other,
    }
}
