//! Checkpoints: `ckpt/<step>/{model,ema,state}.safetensors`, each folder complete or absent.
//!
//! `latest` and `best` name the newest one and the one with the best SSIM, where that is looked for.
//! `model` and `ema` are weights that `srk upscale` loads; `state` holds Adam's moments, and networks that
//! only training needs. Random numbers need no state: they are functions of the seed and the step.
use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::optimizer::{LossScale, Optimizer};
use crate::engine::device::DType;
use crate::engine::disk;
use crate::engine::files::atomic_write;
use crate::engine::memory::in_words;
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::{Error, NOT_FINITE, Report, Result};
use crate::models::weights::{WeightsFile, file_shape, from_file_layout, to_file_layout};
use crate::models::{Module, run_folder};

/// Networks that one optimizer moves.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What it moves.
    pub parameters: &'a [Parameter],
    /// What files hold beside them.
    pub buffers: &'a [Parameter],
    /// Whether nothing but training needs them, as a discriminator: they lie in `state` then.
    pub aside: bool,
    /// Steps that its optimizer takes in one of the run.
    pub pace: u64,
}

impl<'a> Part<'a> {
    /// All of `module`, which takes one step in a step of the run.
    pub fn of<M: Module + ?Sized>(module: &'a M) -> Self {
        let (parameters, buffers) = (module.parameters(), module.buffers());
        Self { parameters, buffers, aside: false, pace: 1 }
    }

    /// The parameters, then the buffers.
    pub fn state(&self) -> Vec<Parameter> {
        [self.parameters, self.buffers].concat()
    }
}

/// A part with its optimizer.
#[derive(Clone, Copy, Debug)]
pub struct Trained<'a> {
    /// What it moves.
    pub part: Part<'a>,
    /// The optimizer.
    pub by: &'a Optimizer,
}

/// What helps where numbers grow without bound.
pub(super) const HELP: &str = "lower optim.lr or optim.clip, under another run.name; optim.on_nan = \"rollback\" goes \
    back and on";

/// The same where `optim.on_nan` is rollback and there is no checkpoint.
pub(super) const HELP_BEFORE_FIRST: &str = "lower optim.lr or optim.clip; optim.on_nan = \"rollback\" has no checkpoint to \
    go back to yet: a smaller ckpt.every writes one sooner";

/// The metadata of `state` that [`Checkpoints::engines`] reads.
const ENGINES: &str = "srk.engines";

/// How the names of parts aside begin.
const ASIDE: &str = "aside.";

/// The folder of a run's checkpoints.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: u64,
}

impl Checkpoints {
    /// Checkpoints under `run`, of which the newest `keep` stay (0: all).
    pub fn new(run: &Path, keep: u64) -> Self {
        Self { folder: run.join("ckpt"), keep }
    }

    /// The step of the newest checkpoint.
    pub fn latest(&self) -> Option<u64> {
        self.steps().last().copied()
    }

    /// The step of the newest checkpoint before `step`.
    pub fn before(&self, step: u64) -> Option<u64> {
        self.steps().into_iter().rfind(|&of| of < step)
    }

    /// Sets the checkpoints after `step` aside.
    ///
    /// # Errors
    /// If one cannot be renamed.
    pub fn set_aside_after(&self, step: u64) -> Result<()> {
        let mut later = self.steps().into_iter().filter(|&of| of > step);
        later.try_for_each(|of| self.set_aside(of).map(drop))
    }

    /// Where the checkpoint of `step` lies.
    pub fn at(&self, step: u64) -> PathBuf {
        self.folder.join(step.to_string())
    }

    /// Steps of all checkpoints, ascending.
    fn steps(&self) -> Vec<u64> {
        run_folder::steps(&self.folder)
    }

    /// Writes the checkpoint of the step of the first optimizer, points `latest` at it and removes old
    /// ones. `metadata` is of the weights files, `engines` what a GPU [chose](Self::engines).
    ///
    /// # Errors
    /// Exit code 6 if a number is not finite: nothing is written or removed then.
    pub fn save(
        &self,
        metadata: BTreeMap<String, String>,
        engines: Option<&str>,
        trained: &[Trained],
    ) -> Result<PathBuf> {
        let step = trained.first().map_or(0, |first| first.by.step);
        let target = self.at(step);
        if !target.exists() {
            self.write(&target, metadata, engines, trained)?;
        }
        self.point("latest", step)?;
        self.remove_old()?;
        Ok(target)
    }

    /// Makes `latest` or `best` name `step`.
    fn point(&self, name: &str, step: u64) -> Result<()> {
        if run_folder::named(&self.folder, name) == Some(step) {
            return Ok(());
        }
        let line = format!("{step}\n");
        atomic_write(&self.folder.join(name), |file| file.write_all(line.as_bytes()))
    }

    fn write(
        &self,
        target: &Path,
        metadata: BTreeMap<String, String>,
        engines: Option<&str>,
        trained: &[Trained],
    ) -> Result<()> {
        let failed = |e: std::io::Error| {
            let report = Report::new(format!("cannot write {}", target.display()), e);
            Error::Failed(report.help("check the space left and the rights of the folder"))
        };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        self.remove_unfinished();
        let builder = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder);
        let temporary = builder.map_err(failed)?;
        let [mut model, mut ema, mut state] = [Named::new(), Named::new(), Named::new()];
        for Trained { part, by } in trained {
            let Part { parameters, buffers, aside, .. } = part;
            let before = if *aside { ASIDE } else { "" };
            state.extend(named(parameters, &by.first, &format!("{before}first."))?);
            state.extend(named(parameters, &by.second, &format!("{before}second."))?);
            if *aside {
                let all = part.state();
                let values: Vec<Tensor> =
                    all.iter().map(|p| p.value().try_clone()).collect::<Result<_>>()?;
                state.extend(named(&all, &values, ASIDE)?);
                continue;
            }
            // Running statistics are averages already.
            let buffers = WeightsFile::of(buffers, BTreeMap::new())?.tensors;
            model.extend(WeightsFile::of(parameters, BTreeMap::new())?.tensors);
            model.extend(buffers.clone());
            ema.extend(buffers);
            ema.extend(named(parameters, &by.average, "")?);
        }
        for tensors in [&model, &ema, &state] {
            self.check_finite(tensors, trained.first().map_or(0, |first| first.by.step))?;
        }
        let numbers: usize =
            [&model, &ema, &state].iter().flat_map(|t| t.values()).map(|t| t.1.len()).sum();
        if let Some(free) = disk::free(&self.folder) {
            fits(target, (numbers * size_of::<f32>()) as u64, free)?;
        }
        let of_state = trained.first().map(|first| metadata_of_state(first.by));
        let mut of_state = of_state.unwrap_or_default();
        of_state.extend(engines.map(|engines| (ENGINES.to_owned(), engines.to_owned())));
        let files = [
            ("model", model, metadata.clone()),
            ("ema", ema, metadata),
            ("state", state, of_state),
        ];
        for (name, tensors, metadata) in files {
            let path = temporary.path().join(format!("{name}.safetensors"));
            WeightsFile { tensors, metadata }.write(&path, DType::F32)?;
        }
        // Until here a kill leaves a folder that is not taken for a checkpoint.
        fs::rename(temporary.path(), target).map_err(failed)?;
        let _ = temporary.keep();
        sync(&self.folder);
        Ok(())
    }

    /// Refuses what could not be read again.
    fn check_finite(&self, tensors: &Named, step: u64) -> Result<()> {
        let broken = |(name, (_, values)): (&String, &(Vec<usize>, Vec<f32>))| {
            let value = values.iter().find(|v| !v.is_finite())?;
            Some(format!("{name} holds {value}"))
        };
        let Some(cause) = tensors.iter().find_map(broken) else { return Ok(()) };
        let kept = match self.latest() {
            Some(good) => format!("the last good checkpoint is {}", self.at(good).display()),
            None => "there is no checkpoint yet".to_owned(),
        };
        let what = format!("the weights after step {step} are not finite");
        let report = Report::new(what, format!("{cause}; nothing was written, and {kept}"));
        Err(Error::Check(report.code(NOT_FINITE).help(HELP)))
    }

    /// Loads the newest checkpoint that is whole, as [`load`](Self::load) does, with its step; none if there is no
    /// checkpoint. Newer ones that are damaged are renamed, so that their steps can be taken again, and `warn`
    /// hears of them. For the one process that works in this run.
    ///
    /// # Errors
    /// Exit code 3 if all are damaged.
    pub fn load_newest(
        &self,
        parts: &[Part],
        warn: &mut dyn FnMut(&str),
    ) -> Result<Option<(u64, Vec<Optimizer>)>> {
        self.remove_unfinished();
        let mut damaged: Vec<(u64, Error)> = Vec::new();
        for step in self.steps().into_iter().rev() {
            match self.load(step, parts) {
                Ok(optimizers) => {
                    for (of, error) in damaged {
                        let aside = self.set_aside(of)?.display().to_string();
                        let text = error.to_string();
                        let text = text.lines().take(2).collect::<Vec<_>>().join(", ");
                        warn(&format!("{text}; it is {aside} now, going on from step {step}"));
                    }
                    self.point("latest", step)?;
                    return Ok(Some((step, optimizers)));
                }
                Err(error @ Error::Model(_)) => damaged.push((step, error)),
                Err(other) => return Err(other),
            }
        }
        match damaged.into_iter().next() {
            Some((_, error)) => Err(run_folder::of_a_run(error, "no other checkpoint is whole")),
            None => Ok(None),
        }
    }

    /// Renames a damaged checkpoint, so that none is found under its step; where it is now.
    fn set_aside(&self, step: u64) -> Result<PathBuf> {
        let (from, to) = (self.at(step), self.folder.join(format!("damaged-{step}")));
        let _ = fs::remove_dir_all(&to);
        fs::rename(&from, &to).map_err(|e| {
            Error::Failed(Report::new(format!("cannot rename {}", from.display()), e))
        })?;
        Ok(to)
    }

    /// Which engines a GPU had chosen for convolutions at `step`, if it had to choose.
    pub fn engines(&self, step: u64) -> Option<String> {
        let mut state = fs::File::open(self.at(step).join("state.safetensors")).ok()?;
        // The header alone: tensors may be gigabytes. What is no such file was refused before.
        let mut length = [0; 8];
        state.read_exact(&mut length).ok()?;
        let mut header = Vec::new();
        state.take(u64::from_le_bytes(length)).read_to_end(&mut header).ok()?;
        let header: serde_json::Value = serde_json::from_slice(&header).ok()?;
        Some(header["__metadata__"][ENGINES].as_str()?.to_owned())
    }

    /// Loads the checkpoint of `step`, as [`load_from`] does.
    pub fn load(&self, step: u64, parts: &[Part]) -> Result<Vec<Optimizer>> {
        load_from(&self.at(step), step, parts)
    }

    /// Keeps the checkpoint of `step` as the best so far, and the one before no longer.
    pub fn mark_best(&self, step: u64) -> Result<()> {
        self.point("best", step)?;
        self.remove_old()
    }

    /// Makes `best` name the first of `steps`, the best before the others, whose checkpoint is there, and nothing
    /// if there is none: a process that was killed may not have come to that.
    pub fn correct_best(&self, steps: &[u64]) -> Result<()> {
        let held = self.steps();
        match steps.iter().find(|step| held.contains(step)) {
            Some(&best) => self.point("best", best),
            None => match fs::remove_file(self.folder.join("best")) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    let what = format!("cannot remove {}", self.folder.join("best").display());
                    Err(Error::Failed(Report::new(what, e)))
                }
                _ => Ok(()),
            },
        }
    }

    fn remove_old(&self) -> Result<()> {
        let best = run_folder::named(&self.folder, "best");
        let steps: Vec<u64> = self.steps().into_iter().filter(|&s| Some(s) != best).collect();
        let keep = usize::try_from(self.keep).unwrap_or(usize::MAX);
        if keep == 0 || steps.len() <= keep {
            return Ok(());
        }
        for step in &steps[..steps.len() - keep] {
            let path = self.at(*step);
            // Renamed first: a kill halfway must not leave half a checkpoint under its number.
            let gone = self.folder.join(format!("{UNFINISHED}old-{step}"));
            fs::rename(&path, &gone).and_then(|()| fs::remove_dir_all(&gone)).map_err(|e| {
                Error::Failed(Report::new(format!("cannot remove {}", path.display()), e))
            })?;
        }
        Ok(())
    }

    /// Removes what a killed run left half written.
    fn remove_unfinished(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Loads the checkpoint of `step` in `folder` into the parameters and buffers of `parts`, whose optimizers it
/// returns, each at its count of steps; a damaged one is an error, exit code 3.
pub fn load_from(folder: &Path, step: u64, parts: &[Part]) -> Result<Vec<Optimizer>> {
    let model = folder.join("model.safetensors");
    let all: Vec<Parameter> = parts.iter().filter(|p| !p.aside).flat_map(Part::state).collect();
    WeightsFile::read(&model)?.apply(&all, &model.display().to_string())?;
    let ema = Moments::read(&folder.join("ema.safetensors"))?;
    let state = Moments::read(&folder.join("state.safetensors"))?;
    let has_aside = state.file.tensors.keys().any(|name| name.starts_with(ASIDE));
    if !has_aside && parts.iter().any(|p| p.aside) {
        let what = format!("cannot resume from {}", state.name);
        let help = "a run without a discriminator is gone on from without one";
        return Err(Error::Model(Report::new(what, "it holds no discriminator").help(help)));
    }
    for part in parts.iter().filter(|p| p.aside) {
        let all = part.state();
        for (parameter, value) in all.iter().zip(state.take(&all, ASIDE)?) {
            parameter.set(value);
        }
    }
    let optimizer = |&Part { parameters, aside, pace, .. }: &Part| {
        let (before, averages) = if aside { (ASIDE, (&state, ASIDE)) } else { ("", (&ema, "")) };
        Ok(Optimizer {
            first: state.take(parameters, &format!("{before}first."))?,
            second: state.take(parameters, &format!("{before}second."))?,
            average: averages.0.take(parameters, averages.1)?,
            step: step * pace,
            scale: loss_scale(&state.file.metadata),
        })
    };
    parts.iter().map(optimizer).collect()
}

/// Refuses a checkpoint of `needed` bytes where `free` are.
fn fits(target: &Path, needed: u64, free: u64) -> Result<()> {
    if needed <= free {
        return Ok(());
    }
    let what = format!("there is no room for the checkpoint {}", target.display());
    let cause = format!("it takes {}, {} are free", in_words(needed), in_words(free));
    let help = "free some space, and give the same command again; ckpt.keep says how many stay";
    Err(Error::Failed(Report::new(what, cause).code("disk").help(help)))
}

/// How folders start that are no checkpoints yet, or no more.
const UNFINISHED: &str = ".unfinished-";

fn metadata_of_state(optimizer: &Optimizer) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([("srk.step".to_owned(), optimizer.step.to_string())]);
    if let Some(scale) = optimizer.scale {
        metadata.insert("srk.loss_scale".to_owned(), format!("{} {}", scale.value, scale.good));
    }
    metadata
}

/// What `metadata_of_state` wrote; none where f16 was not trained in.
fn loss_scale(metadata: &BTreeMap<String, String>) -> Option<LossScale> {
    let (value, good) = metadata.get("srk.loss_scale")?.split_once(' ')?;
    Some(LossScale { value: value.parse().ok()?, good: good.parse().ok()? })
}

type Named = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// `values` under the names of `parameters`, in the layout of files.
fn named(parameters: &[Parameter], values: &[Tensor], prefix: &str) -> Result<Named> {
    let entry = |(p, value): (&Parameter, &Tensor)| {
        let shape = file_shape(p.layout(), value.shape());
        Ok((format!("{prefix}{}", p.name()), (shape, to_file_layout(p.layout(), value)?)))
    };
    parameters.iter().zip(values).map(entry).collect()
}

/// A file of tensors that stand beside parameters.
struct Moments {
    file: WeightsFile,
    name: String,
}

impl Moments {
    fn read(path: &Path) -> Result<Self> {
        Ok(Self { file: WeightsFile::read(path)?, name: path.display().to_string() })
    }

    /// The tensors of `parameters` under `prefix`.
    fn take(&self, parameters: &[Parameter], prefix: &str) -> Result<Vec<Tensor>> {
        let take = |p: &Parameter| {
            let name = format!("{prefix}{}", p.name());
            let wanted = file_shape(p.layout(), p.value().shape());
            match self.file.tensors.get(&name) {
                Some((shape, values)) if *shape == wanted => {
                    Ok(from_file_layout(p.layout(), shape, values))
                }
                found => {
                    let found = found.map_or("absent".to_owned(), |(s, _)| format!("{s:?}"));
                    let cause = format!("{name} should have shape {wanted:?} and is {found}");
                    let what = format!("cannot resume from {}", self.name);
                    let help = "remove this checkpoint folder to resume from the one before";
                    Err(Error::Model(Report::new(what, cause).help(help)))
                }
            }
        };
        parameters.iter().map(take).collect()
    }
}

/// Makes a rename in `folder` survive a power cut, where the file system can.
fn sync(folder: &Path) {
    if let Ok(folder) = fs::File::open(folder) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_the_disk_has_no_room_for_is_refused_before_it_is_written() {
        assert!(fits(Path::new("5"), 100, 100).is_ok());
        let error = fits(Path::new("runs/a/ckpt/5"), 3 << 20, 1 << 20).unwrap_err();
        assert_eq!((error.exit_code(), error.code()), (1, "disk"));
        let text = error.to_string();
        assert!(text.contains("3 MiB, 1 MiB are free") && text.contains("runs/a/ckpt/5"), "{text}");
    }
}
