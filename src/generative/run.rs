//! The training loop of generative systems. On the CPU.
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::config::Config;
use super::digits::Digits;
use super::grid::grid;
use super::registry::build_to_train;
use super::system::{Measured, Moved, Trainable};
use crate::engine::files::atomic_write;
use crate::engine::lock::FolderLock;
use crate::engine::parameter::Parameter;
use crate::engine::rng::{Purpose, Stream};
use crate::error::{Error, Report, Result};
use crate::imaging::{self, EncodeOptions};
use crate::models::build_within;
use crate::training::asked;
use crate::training::checkpoint::{Checkpoints, Part, Trained};
use crate::training::log::{Meter, Metrics, Reading, Reporter, due, grouped, nothing_left, short};
use crate::training::optimizer::Optimizer;
use crate::training::plan::most_parameters;
use crate::training::settings;
use crate::training::validate::Stop;

/// Trains what `config` describes in the folder `out/<run.name>`, resuming what is there, to the end of the
/// run or to step `until`.
///
/// # Errors
/// Exit code 2 if the configuration does not fit the data or the run that is there, 6 if a loss is not finite,
/// 128 + signal once `stop` is set; in the last case the step was finished and saved.
pub fn train(
    config: &Config,
    out: &Path,
    until: Option<u64>,
    stop: &Stop,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    if config.run.init.is_some() {
        let report =
            Report::new("cannot start from given weights", "run.init is for super-resolution");
        return Err(Error::Usage(report.help("leave run.init and --from out")));
    }
    let folder = out.join(&config.run.name);
    let lock = folder.is_dir().then(|| FolderLock::take(&folder)).transpose()?;
    let changes = settings::compare_with_existing(config, &folder)?;
    let most = most_parameters();
    let build = || build_to_train(&config.model, config.run.seed);
    let system = build_within(&config.model, most, build).map_err(|e| e.of_config(most))?;
    let warn = &mut |text: &str| reporter.warn(text);
    let data = Digits::load(&config.data, system.side(), config.run.seed, warn)?;
    reporter.line(&format!("{} training images", grouped(data.len() as u64)));
    let last = until.unwrap_or(config.run.steps).min(config.run.steps);
    let run = Run::open(config, folder, (lock, system.as_ref()), reporter)?;
    changes.iter().for_each(|change| reporter.line(&format!("changed: {change}")));
    run.train(&data, last, stop, reporter)
}

/// A run in progress.
struct Run<'a> {
    config: &'a Config,
    system: &'a dyn Trainable,
    moved: Moved<'a>,
    checkpoints: Checkpoints,
    metrics: Metrics,
    folder: PathBuf,
    step: u64,
    /// No other process works here meanwhile.
    _lock: FolderLock,
}

/// A part of a system as a checkpoint holds it.
const fn saved<'a>((parameters, buffers): (&'a [Parameter], &'a [Parameter])) -> Part<'a> {
    Part { parameters, buffers, aside: false }
}

impl<'a> Run<'a> {
    /// Starts a run, or continues the one in `folder`.
    fn open(
        config: &'a Config,
        folder: PathBuf,
        (lock, system): (Option<FolderLock>, &'a dyn Trainable),
        reporter: &mut dyn Reporter,
    ) -> Result<Self> {
        fs::create_dir_all(&folder).map_err(|e| {
            Error::Failed(Report::new(format!("cannot make the folder {}", folder.display()), e))
        })?;
        let lock = lock.map_or_else(|| FolderLock::take(&folder), Ok)?;
        let checkpoints = Checkpoints::new(&folder, config.ckpt.keep);
        let parts = system.parts();
        let in_file: Vec<Part> = parts.iter().copied().map(saved).collect();
        let newest = checkpoints.load_newest(&in_file, &mut |text| reporter.warn(text))?;
        // After the checkpoint: what the run goes on with is written only once it does.
        let toml = settings::to_toml(config);
        atomic_write(&folder.join("config.toml"), |file| file.write_all(toml.as_bytes()))?;
        let (step, mut optimizers): (u64, Vec<Optimizer>) = match newest {
            Some(newest) => newest,
            None => (0, parts.iter().map(|(p, _)| Optimizer::new(p)).collect::<Result<_>>()?),
        };
        for (part, optimizer) in optimizers.iter_mut().enumerate() {
            optimizer.step = step * system.steps_of(part);
        }
        let sizes = parts.iter().map(|(parameters, _)| grouped(count(parameters)));
        reporter.line(&format!(
            "{} {} at step {} of {}: {} parameters",
            if step == 0 { "starting" } else { "resuming" },
            folder.display(),
            grouped(step),
            grouped(config.run.steps),
            sizes.collect::<Vec<_>>().join(" and "),
        ));
        let metrics = Metrics::open(&folder, step)?;
        let moved = Moved { config, optimizers };
        Ok(Self { config, system, moved, checkpoints, metrics, folder, step, _lock: lock })
    }

    /// Steps up to `last`, with everything that is due in between.
    fn train(
        mut self,
        data: &Digits,
        last: u64,
        stop: &Stop,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        let mut meter = Meter::new(self.step);
        let mut sums = Measured::new();
        // One that was due when the run was interrupted.
        self.draw_if_due(stop, reporter)?;
        meter.rest();
        if self.step >= last {
            let of = (self.step, self.config.run.steps);
            reporter.line(&nothing_left(&self.folder, of, last));
        }
        while self.step < last {
            let measured = self
                .system
                .step(self.step + 1, data, &mut self.moved)
                .map_err(|e| self.at_step(e))?;
            self.step += 1;
            let step = self.step;
            meter.add(measured.first().map_or(0.0, |m| m.1));
            add(&mut sums, &measured);
            let ends = step == last || stop.load(Ordering::Relaxed) != 0;
            let mut logged = Ok(());
            if due(step, self.config.log.every) || ends {
                logged = self.log(&mut sums, meter.read(step, last), reporter);
            }
            let asked = asked::take();
            if due(step, self.config.ckpt.every) || ends || asked || logged.is_err() {
                let saved = self.save()?;
                if ends || asked {
                    reporter.line(&format!("saved {}", saved.display()));
                }
            }
            logged?;
            if self.drawing_is_due() {
                self.draw_if_due(stop, reporter)?;
                meter.rest();
            }
            let signal = stop.load(Ordering::Relaxed);
            if signal != 0 && (step < self.config.run.steps || self.drawing_is_due()) {
                self.save()?;
                let what = format!("saved step {step} in {}", self.checkpoints.at(step).display());
                let signal = i32::try_from(signal).unwrap_or(2);
                return Err(Error::Interrupted { signal, what });
            }
        }
        Ok(())
    }

    /// Whether a grid belongs to the step that was reached and there is none of it yet.
    fn drawing_is_due(&self) -> bool {
        let belongs =
            due(self.step, self.config.sample.every) || self.step == self.config.run.steps;
        let wanted = self.step > 0 && self.config.sample.count > 0;
        wanted && belongs && !self.folder.join(format!("samples/{}.png", self.step)).exists()
    }

    /// Draws a grid where that is due and nothing asks to stop.
    fn draw_if_due(&self, stop: &Stop, reporter: &mut dyn Reporter) -> Result<()> {
        match self.drawing_is_due() && stop.load(Ordering::Relaxed) == 0 {
            true => self.draw(reporter),
            false => Ok(()),
        }
    }

    /// Writes a line and a record of the steps since the last one.
    fn log(
        &self,
        sums: &mut Measured,
        reading: Reading,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        let Reading { seconds, steps, left, .. } = reading;
        let means: Measured = std::mem::take(sums)
            .into_iter()
            .map(|(name, sum)| (name, sum / steps.max(1) as f64))
            .collect();
        let words = means.iter().map(|(name, mean)| format!("{name} {mean:.5}"));
        let rate = steps as f64 / seconds;
        reporter.line(&format!(
            "step {}/{}  {}  {rate:.2} steps/s  left {}",
            grouped(self.step),
            grouped(self.config.run.steps),
            words.collect::<Vec<_>>().join("  "),
            short(left),
        ));
        let mut values: Vec<(&str, serde_json::Value)> =
            means.iter().map(|&(name, mean)| (name, mean.into())).collect();
        values.push(("steps_per_s", rate.into()));
        let mut told = vec![("step", self.step.into()), ("steps", self.config.run.steps.into())];
        told.extend(values.iter().cloned());
        told.push(("seconds_left", left.as_secs_f64().into()));
        reporter.record("step", &told);
        self.metrics.write(self.step, &values)
    }

    /// Draws a grid with the averaged weights; every grid of a run shows the same noise.
    fn draw(&self, reporter: &mut dyn Reporter) -> Result<()> {
        let count = self.config.sample.count;
        if count == 0 {
            return Ok(());
        }
        let noise = Stream::new(self.config.run.seed, Purpose::Validation, 0);
        let images = self.with_averages(|| self.system.sample(noise, count))?;
        let folder = self.folder.join("samples");
        fs::create_dir_all(&folder).map_err(|e| {
            Error::Failed(Report::new(format!("cannot make the folder {}", folder.display()), e))
        })?;
        let path = folder.join(format!("{}.png", self.step));
        imaging::write(&path, &grid(&images, 2)?, EncodeOptions::default())?;
        reporter.line(&format!("step {}  wrote {}", grouped(self.step), path.display()));
        Ok(())
    }

    /// Runs `body` while all networks hold their averages.
    fn with_averages<R>(&self, body: impl Fn() -> Result<R>) -> Result<R> {
        let parts = self.system.parts();
        let parameters: Vec<Parameter> = parts.iter().flat_map(|(p, _)| p.to_vec()).collect();
        let kept: Vec<_> = parameters.iter().map(Parameter::value).collect();
        for ((parameters, _), optimizer) in parts.iter().zip(&self.moved.optimizers) {
            for (parameter, average) in parameters.iter().zip(&optimizer.average) {
                parameter.set(average.try_clone()?);
            }
        }
        let result = body();
        parameters.iter().zip(kept).for_each(|(parameter, value)| parameter.set(value));
        result
    }

    fn save(&self) -> Result<PathBuf> {
        let of_part = |(&part, by)| Trained { part: saved(part), by };
        let parts = self.system.parts();
        let trained: Vec<Trained> = parts.iter().zip(&self.moved.optimizers).map(of_part).collect();
        self.checkpoints.save(self.config.metadata(self.step), &trained)
    }

    /// `error` with the step it happened at, and what is left.
    fn at_step(&self, error: Error) -> Error {
        let Error::Check(report) = error else { return error };
        let kept = match self.checkpoints.latest() {
            Some(step) => format!("the newest checkpoint is step {step}"),
            None => "there is no checkpoint yet".to_owned(),
        };
        let (step, folder) = (self.step + 1, self.folder.display());
        let what = format!("{} at step {step} of {folder}", report.what);
        Error::Check(Report::new(what, format!("{}; {kept}", report.cause)).help(report.help))
    }
}

fn count(parameters: &[Parameter]) -> u64 {
    parameters.iter().map(|p| p.value().len() as u64).sum()
}

fn add(sums: &mut Measured, measured: &Measured) {
    for &(name, value) in measured {
        match sums.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += value,
            None => sums.push((name, value)),
        }
    }
}
