//! The training loop.
mod best;
pub mod dry;
mod nan;
pub mod resume;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::adversary::Adversary;
use super::asked;
use super::batch::{Batch, Source};
use super::checkpoint::{Checkpoints, Part, Trained};
use super::events::Events;
use super::gpu::GpuTrainer;
use super::init;
use super::journal::Journal;
use super::log::{Meter, Metrics, Reading, Reporter, due, grouped, nothing_left, short};
use super::loss;
use super::optimizer::{self, Done, Gradients, Optimizer, Plan};
use super::own;
use super::perceptual::Perceptual;
use super::plan;
use super::sections::{Config, OnNan};
use super::settings;
use super::validate::{self, Stop, Validations};
use crate::data::ahead::Ahead;
use crate::data::crops::{CropPlan, Crops};
use crate::data::degrade::{Preset, Process};
use crate::data::folder;
use crate::data::lows::Lows;
use crate::data::store::{Pairs, Recipe};
use crate::diffusion::latent;
use crate::diffusion::sampler::condition;
use crate::diffusion::system::{self, DEGRADE, SystemConfig};
use crate::engine::cuda::Gpu;
use crate::engine::device::{DType, Device};
use crate::engine::files::atomic_write;
use crate::engine::lock::FolderLock;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::Network;

/// Trains what `config` describes in the folder `out/<run.name>`, resuming what is there, to the end
/// of the run or to step `until`, on `device` in `dtype`.
///
/// # Errors
/// Exit code 2 if the configuration does not fit the data or the run that is there, 6 if the loss is
/// not finite, 128 + signal once `stop` is set; in the last case the step was finished and saved.
pub fn train(
    config: &Config,
    out: &Path,
    until: Option<u64>,
    (device, dtype): (&Device, DType),
    stop: &Stop,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    loss::check(&config.loss, &config.diffusion)?;
    let folder = out.join(&config.run.name);
    refuse_foreign(&folder)?;
    let lock = folder.is_dir().then(|| FolderLock::take(&folder)).transpose()?;
    let changes = settings::compare_with_existing(config, &folder)?;
    let mut journal = Journal::new(reporter);
    let Prepared { network, data, validation, .. } = Prepared::new(config, device, &mut journal)?;
    let mut run = Run::open(config, &folder, (lock, &*network, validation), &mut journal)?;
    journal.open(&folder);
    let reporter = &mut journal;
    changes.iter().for_each(|change| reporter.line(&format!("changed: {change}")));
    if let Device::Cuda(gpu) = device {
        run.move_to(gpu, dtype, reporter)?;
    }
    let last = until.unwrap_or(config.run.steps).min(config.run.steps);
    run.train(data, last, stop, reporter)
}

/// Refuses a folder that holds something and is no run: what is in it would be taken for results, and replaced.
fn refuse_foreign(folder: &Path) -> Result<()> {
    if folder.join("config.toml").exists() {
        return Ok(());
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    // What a start that was ended at once leaves behind.
    match names.find(|name| name != "lock" && !name.to_string_lossy().starts_with(".srk-")) {
        Some(name) => {
            let what = format!("{} is no training run", folder.display());
            let cause = format!("it holds {} and no config.toml", name.display());
            let help = "--set run.name=NAME    trains in another folder";
            Err(Error::Usage(Report::new(what, cause).help(help)))
        }
        None => Ok(()),
    }
}

/// What a run needs before it has a folder.
struct Prepared {
    network: Box<dyn Network>,
    data: Crops,
    validation: Option<Validations>,
    /// Bytes that a step takes at least.
    planned: u64,
}

impl Prepared {
    /// Builds the network and reads the images of `config`.
    fn new(config: &Config, device: &Device, reporter: &mut dyn Reporter) -> Result<Self> {
        loss::check(&config.loss, &config.diffusion)?;
        let network = plan::build(config)?;
        latent::check(&*network, &config.diffusion)?;
        let planned = plan::check_memory(config, &*network, *device == Device::Cpu)?;
        let sources = folder::find(&config.data.train.paths)?;
        let share = if config.data.val.paths.is_empty() { config.data.val.split } else { 0.0 };
        let [sources, held_out] = folder::hold_out(sources, share, config.run.seed);
        let data = load_crops(config, &sources, network.channels(), reporter)?;
        let validation = Validations::load(config, held_out, reporter)?;
        Ok(Self { network, data, validation, planned })
    }
}

/// A run in progress.
struct Run<'a> {
    config: &'a Config,
    /// On the CPU; where a GPU trains, as it was at the last checkpoint.
    network: &'a dyn Network,
    optimizer: Optimizer,
    adversary: Option<Adversary>,
    perceptual: Option<Perceptual>,
    gpu: Option<GpuTrainer>,
    checkpoints: Checkpoints,
    metrics: Metrics,
    validation: Option<Validations>,
    folder: PathBuf,
    /// Steps in a row that were not finite.
    bad: u64,
    /// How often weights were taken back since the last checkpoint because they were not finite.
    taken_back: u64,
    /// What is to be said of the last of them.
    incident: Option<String>,
    /// No other process works here meanwhile.
    _lock: FolderLock,
}

impl<'a> Run<'a> {
    /// Starts a run, or continues the one in `folder`.
    fn open(
        config: &'a Config,
        folder: &Path,
        (lock, network, validation): (Option<FolderLock>, &'a dyn Network, Option<Validations>),
        reporter: &mut dyn Reporter,
    ) -> Result<Self> {
        let checkpoints = Checkpoints::new(folder, config.ckpt.keep);
        // Before anything is written: a run that cannot start leaves no folder.
        if checkpoints.latest().is_none() {
            load_frozen(config, network)?;
            if let Some(path) = &config.run.init {
                init::load(network, path, &config.run.init_names, reporter)?;
            }
        }
        let mut adversary = Adversary::open(config, &mut |text| reporter.warn(text))?;
        let perceptual = Perceptual::open(config)?;
        fs::create_dir_all(folder).map_err(|e| {
            Error::Failed(Report::new(format!("cannot make the folder {}", folder.display()), e))
        })?;
        let lock = lock.map_or_else(|| FolderLock::take(folder), Ok)?;
        let mut optimizer = Optimizer::new(network.parameters())?;
        let warn = &mut |text: &str| reporter.warn(text);
        let newest = checkpoints.load_newest(&parts(network, adversary.as_ref()), warn)?;
        // After the checkpoint: what the run goes on with is written only once it does.
        let toml = config.to_toml();
        atomic_write(&folder.join("config.toml"), |file| file.write_all(toml.as_bytes()))?;
        if let Some((_, loaded)) = newest {
            let mut loaded = loaded.into_iter();
            let mut take = |to: &mut Optimizer| loaded.next().map(|found| *to = found);
            take(&mut optimizer);
            adversary.iter_mut().for_each(|a| _ = take(&mut a.optimizer));
        }
        let verb = if optimizer.step == 0 { "starting" } else { "resuming" };
        reporter.line(&format!(
            "{verb} {} at step {} of {}: {} parameters",
            folder.display(),
            grouped(optimizer.step),
            grouped(config.run.steps),
            grouped(network.parameter_count() as u64),
        ));
        let mut metrics = Metrics::open(folder, optimizer.step)?;
        if config.log.tensorboard {
            metrics.also_to(Events::create(&folder.join("tb"), optimizer.step)?);
        }
        let folder = folder.to_owned();
        let gpu = None;
        let run = Self {
            config,
            network,
            optimizer,
            adversary,
            perceptual,
            gpu,
            checkpoints,
            metrics,
            validation,
            folder,
            bad: 0,
            taken_back: 0,
            incident: None,
            _lock: lock,
        };
        if run.optimizer.step > 0 {
            run.checkpoints.correct_best(&run.ranked())?;
        }
        Ok(run)
    }

    /// Goes on on `gpu`.
    fn move_to(&mut self, gpu: &Gpu, dtype: DType, reporter: &mut dyn Reporter) -> Result<()> {
        if self.config.optim.on_nan != OnNan::Stop {
            let report = Report::new("cannot train on a GPU", "optim.on_nan is not stop");
            return Err(Error::Usage(report.help("--set optim.on_nan=stop, or --device cpu")));
        }
        if self.adversary.is_some() {
            let report =
                Report::new("cannot train on a GPU", "there is a stage with [adversarial]");
            return Err(Error::Usage(report.help("--device cpu")));
        }
        if self.config.diffusion.own_states > 0.0 || self.network.has_first_call() {
            let what =
                "the call that starts the chain is one of its own, or diffusion.own_states is set";
            let report = Report::new("cannot train on a GPU", what);
            return Err(Error::Usage(report.help("--device cpu")));
        }
        if self.perceptual.is_some() {
            let report =
                Report::new("cannot train on a GPU", "the loss has perceptual terms ([loss])");
            return Err(Error::Usage(report.help("--device cpu")));
        }
        let trainer = GpuTrainer::new(gpu, dtype, self.config, self.network, &self.optimizer)?;
        self.gpu = Some(trainer);
        reporter.line(&format!("on {} in {dtype:?}", gpu.describe().name));
        Ok(())
    }

    /// Steps up to `last`, with everything that is due in between.
    fn train(
        &mut self,
        data: Crops,
        last: u64,
        stop: &Stop,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        let parts = self.config.optim.accumulate;
        let source = Source::new(data, self.config, self.network, self.gpu.is_none());
        let numbers = self.optimizer.step * parts..last * parts;
        let mut batches = Ahead::start(numbers, 2, move |number| source.batch(number));
        let mut meter = Meter::new(self.optimizer.step);
        // One that was due when the run was interrupted; the checkpoint is there.
        self.validate_if_due(stop, reporter)?;
        meter.rest();
        let mut stale = self.is_stale();
        if stale {
            reporter.line(&self.end_of_patience());
        } else if self.optimizer.step >= last {
            let of = (self.optimizer.step, self.config.run.steps);
            reporter.line(&nothing_left(&self.folder, of, last));
        }
        while self.optimizer.step < last && !stale {
            let done = self.step(&mut batches)?;
            let step = self.optimizer.step;
            match self.incident.take() {
                Some(text) => reporter.warn(&text),
                None => meter.add(done.loss),
            }
            let ends = step == last || stop.load(Ordering::Relaxed) != 0;
            if due(step, self.config.log.every) || ends {
                let warnings = self.gpu.iter().flat_map(GpuTrainer::warnings);
                warnings.for_each(|text| reporter.warn(&text));
                let logged = self.log(&done, &mut meter, batches.take_waited(), last, reporter);
                self.saving_first(logged)?;
            }
            // Before validation, which may take longer than a container has to stop.
            let asked = asked::take();
            let saves = due(step, self.config.ckpt.every) || ends || asked;
            if saves && (ends || !self.takes_back(reporter)?) {
                self.save_and_say(ends || asked, reporter)?;
            }
            if self.validation_is_due() {
                let validated = self.validate_if_due(stop, reporter);
                stale = self.saving_first(validated).map(|()| self.is_stale())?;
                meter.rest();
            }
            if stale {
                reporter.line(&self.end_of_patience());
            }
            let signal = stop.load(Ordering::Relaxed);
            if (stale || signal != 0) && !saves {
                self.save_and_say(true, reporter)?;
            }
            if signal != 0 && (step != self.config.run.steps || self.validation_is_due()) {
                return Err(self.interrupted(signal));
            }
        }
        match stop.load(Ordering::Relaxed) {
            signal if signal != 0 && self.validation_is_due() => Err(self.interrupted(signal)),
            _ => Ok(()),
        }
    }

    fn save_and_say(&mut self, says: bool, reporter: &mut dyn Reporter) -> Result<()> {
        let saved = self.save()?;
        if says {
            reporter.line(&format!("saved {}", saved.display()));
        }
        Ok(())
    }

    /// `result`, and where it is an error, such as that of a full disk, with the steps so far saved if that can
    /// be done.
    fn saving_first(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            let _ = self.save();
        }
        result
    }

    /// Whether validation belongs to the step that was reached and there is none of it yet.
    fn validation_is_due(&self) -> bool {
        let step = self.optimizer.step;
        let belongs = step == self.config.run.steps || due(step, self.config.val.every);
        let has = |sets: &Validations| self.metrics.has(step, &sets.key());
        step > 0 && belongs && self.validation.as_ref().is_some_and(|sets| !has(sets))
    }

    /// Validates where that is due; an interrupt leaves it due.
    fn validate_if_due(&mut self, stop: &Stop, reporter: &mut dyn Reporter) -> Result<()> {
        match self.validation_is_due() && stop.load(Ordering::Relaxed) == 0 {
            true => self.validate(stop, reporter),
            false => Ok(()),
        }
    }

    /// One optimizer step: the gradients of some batches, averaged, clipped and applied.
    fn step(&mut self, batches: &mut Ahead<Batch>) -> Result<Done> {
        if let Some(gpu) = &mut self.gpu {
            let step = self.optimizer.step + 1;
            let done = gpu.step(step, self.config, &mut || batches.next_item())?;
            return match (done.loss.is_finite(), done.step.norm.is_finite()) {
                (false, _) => self.bad_step("the loss", done.loss),
                (_, false) => self.bad_step("the norm of the gradients", done.step.norm),
                _ => {
                    self.optimizer.step = step;
                    Ok(done)
                }
            };
        }
        let parts = self.config.optim.accumulate;
        let (mut total, mut critic) = (0.0, None);
        let mut sum: Gradients = self.network.parameters().iter().map(|_| None).collect();
        for _ in 0..parts {
            let (loss, gradients, of_critic) = self.gradients(batches.next_item()?)?;
            total += loss / parts as f64;
            critic = of_critic.map(|loss| critic.unwrap_or(0.0) + loss / parts as f64).or(critic);
            optimizer::accumulate(&mut sum, gradients)?;
        }
        if !total.is_finite() {
            return self.bad_step("the loss", total);
        }
        let adversary = self.adversary.as_ref().filter(|a| a.plays(self.optimizer.step));
        let plan = adversary.map_or_else(|| Plan::of(self.config), |a| a.plan(self.config));
        let step = self.optimizer.step(self.network.parameters(), &sum, &plan)?;
        if !step.norm.is_finite() {
            return self.bad_step("the norm of the gradients", step.norm);
        }
        self.bad = 0;
        if let Some(adversary) = self.adversary.as_mut().filter(|_| critic.is_some()) {
            adversary.step(self.optimizer.step, self.config)?;
        }
        Ok(Done { loss: total, critic, step })
    }

    /// The loss of a batch and its gradients by all parameters, and the loss of the discriminator, where
    /// there is one, which keeps its own gradients.
    fn gradients(&mut self, batch: Batch) -> Result<(f64, Gradients, Option<f64>)> {
        let mut tape = loss::tape(&self.config.optim);
        let crops = &batch.crops;
        let told = batch.told.as_ref();
        let condition = tape.input(condition(self.network, &crops.low, &crops.y0, told)?);
        let Some([state, target]) = &batch.noised else {
            unreachable!("batches for the CPU are noised")
        };
        let state = match batch.own.contains(&true) {
            true => Arc::new(own::state(self.network, self.config, &batch)?),
            false => Arc::clone(state),
        };
        let [state, target] = [state, Arc::clone(target)].map(|t| tape.input(t));
        let last = self.config.diffusion.process.steps();
        let predicted = match batch.steps.iter().all(|&t| t == last) {
            true => self.network.forward_first(&mut tape, &state, &condition, &batch.times)?,
            false => self.network.forward(&mut tape, &state, &condition, &batch.times)?,
        };
        let mut loss = loss::loss(&mut tape, &self.config.loss, &predicted, &target)?;
        if let Some(perceptual) = &self.perceptual {
            let more = perceptual.loss(&mut tape, [&predicted, &state], &batch)?;
            loss = tape.add(&loss, &more)?;
        }
        let mut critic = None;
        if let Some(adversary) = self.adversary.as_mut().filter(|a| a.plays(self.optimizer.step)) {
            let (more, fake) = adversary.judge(&mut tape, [&predicted, &state], &batch)?;
            loss = tape.add(&loss, &more)?;
            critic = Some(adversary.learn(&crops.x0, fake)?);
        }
        let value = loss.value().to_f64_vec()?[0];
        let one = Tensor::from_f64(&[1.0], &[1], loss.value().dtype());
        let mut grads = tape.backward(&loss, one)?;
        Ok((value, optimizer::take(&mut grads, self.network.parameters()), critic))
    }

    fn save(&mut self) -> Result<PathBuf> {
        if let Some(gpu) = &self.gpu {
            gpu.download(self.network, &mut self.optimizer)?;
        }
        let metadata = metadata(self.config, self.optimizer.step);
        let parts = parts(self.network, self.adversary.as_ref());
        let optimizers =
            [&self.optimizer].into_iter().chain(self.adversary.iter().map(|a| &a.optimizer));
        let trained = parts.into_iter().zip(optimizers).map(|(part, by)| Trained { part, by });
        let saved = self.checkpoints.save(metadata, &trained.collect::<Vec<_>>())?;
        self.taken_back = 0;
        Ok(saved)
    }

    /// Writes a line and a record of the steps since the last one.
    fn log(
        &self,
        done: &Done,
        meter: &mut Meter,
        waited: Duration,
        last: u64,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        let step = self.optimizer.step;
        let batch = self.config.data.train.batch as u64 * self.config.optim.accumulate;
        let Reading { loss, seconds, steps, left } = meter.read(step, last);
        let rate = steps as f64 * batch as f64 / seconds;
        let wait = waited.as_secs_f64() / seconds;
        let critic = done.critic.map_or_else(String::new, |loss| format!("  critic {loss:.5}"));
        reporter.line(&format!(
            "step {}/{}  loss {loss:.5}{critic}  lr {:.2e}  {rate:.1} images/s  data {:.0} %  left {}",
            grouped(step),
            grouped(self.config.run.steps),
            done.step.rate,
            100.0 * wait,
            short(left),
        ));
        let mut values = vec![
            ("loss", loss.into()),
            ("lr", done.step.rate.into()),
            ("grad_norm", done.step.norm.into()),
            ("images_per_s", rate.into()),
            ("data_wait", wait.into()),
        ];
        values.extend(done.critic.map(|loss| ("critic_loss", loss.into())));
        let mut told = record(step, &values);
        told.push(("steps", self.config.run.steps.into()));
        told.push(("seconds_left", left.as_secs_f64().into()));
        reporter.record("step", &told);
        self.metrics.write(step, &values)
    }

    /// Measures the averaged weights on the validation images.
    fn validate(&mut self, stop: &Stop, reporter: &mut dyn Reporter) -> Result<()> {
        let Some(validation) = &self.validation else { return Ok(()) };
        let step = self.optimizer.step;
        let folder = self.folder.join("val").join(step.to_string());
        let measure =
            |network: &dyn Network| validation.measure(network, self.config, &folder, stop);
        let scores = match &self.gpu {
            Some(gpu) => gpu.with_average(measure)?,
            None => {
                let body = || measure(self.network);
                self.optimizer.with_average(self.network.parameters(), body)?
            }
        };
        let Some(scores) = scores else { return Ok(()) };
        let mut values = Vec::new();
        for (name, scores) in &scores {
            let title = if name.is_empty() { String::new() } else { format!("{name}: ") };
            reporter.line(&format!("step {}  {title}{scores}", grouped(step)));
            let mut told = record(step, &scores.values());
            if !name.is_empty() {
                told.push(("set", name.as_str().into()));
            }
            reporter.record("validation", &told);
            let named = |(key, value): (&str, Value)| (validate::key(name, key), value);
            values.extend(scores.values().into_iter().map(named));
        }
        // In one line: an interrupted validation has none.
        let values: Vec<(&str, Value)> =
            values.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        self.metrics.write(step, &values)?;
        self.keep_best()
    }

    fn interrupted(&self, signal: usize) -> Error {
        let step = self.optimizer.step;
        let what = format!("saved step {step} in {}", self.checkpoints.at(step).display());
        Error::Interrupted { signal: i32::try_from(signal).unwrap_or(2), what }
    }
}

/// `values` of `step` as programs hear of them: the event says what is of validation.
fn record(step: u64, values: &[(&'static str, Value)]) -> Vec<(&'static str, Value)> {
    let plain = values.iter().map(|(key, v)| (key.strip_prefix("val_").unwrap_or(key), v.clone()));
    [("step", step.into())].into_iter().chain(plain).collect()
}

/// What the weights of `config` say about themselves after `step` steps.
fn metadata(config: &Config, step: u64) -> BTreeMap<String, String> {
    let (model, diffusion) = (config.model.clone(), config.diffusion.clone());
    #[allow(clippy::cast_possible_truncation)] // A share.
    let deblock = config.degrade.as_ref().map_or(0.0, |degrade| degrade.deblock as f32);
    let system = SystemConfig { deblock, ..SystemConfig::new(model, diffusion) };
    let preset = config.degrade.as_ref().map_or(Preset::Bicubic, |degrade| degrade.preset);
    system.metadata(&[
        ("srk.step", step.to_string()),
        ("srk.run", config.run.name.clone()),
        (DEGRADE, preset.name()),
    ])
}

/// Gives a network the weights of the part that is not trained.
fn load_frozen(config: &Config, network: &dyn Network) -> Result<()> {
    match (&config.run.frozen, network.frozen_part()) {
        (Some(path), _) => network.load_frozen(&system::read(path)?, &path.display().to_string()),
        (None, None) => Ok(()),
        (None, Some(part)) => {
            let cause = format!("its {part} is not trained here and needs weights of its own");
            let report = Report::new("the network is not complete", cause);
            let help = "--set run.frozen=FILE    names them, or the run that made them";
            Err(Error::Usage(report.help(help)))
        }
    }
}

/// What a checkpoint holds: the network, and the discriminator if there is one.
fn parts<'a>(network: &'a dyn Network, adversary: Option<&'a Adversary>) -> Vec<Part<'a>> {
    let (parameters, buffers) = (network.parameters(), network.buffers());
    let mut parts = vec![Part { parameters, buffers, aside: false }];
    parts.extend(adversary.map(|a| {
        let (parameters, buffers) = (a.critic.parameters(), a.critic.buffers());
        Part { parameters, buffers, aside: true }
    }));
    parts
}

/// Reads the images and prepares for cropping.
fn load_crops(
    config: &Config,
    sources: &[folder::Source],
    channels: usize,
    reporter: &mut dyn Reporter,
) -> Result<Crops> {
    let data = &config.data.train;
    let scale = config.model.scale();
    let warn = &mut |text: &str| reporter.warn(text);
    let small = (scale, format!("smaller than the factor {scale}"));
    let (given, pad) = (Lows::find(&data.low, sources, scale)?, config.data.pad);
    let recipe = Recipe { degrade: data.degrade, given, scale, pad, small };
    let pairs = Pairs::load(sources, recipe, config.data.cache_bytes(), data.on_broken, warn)?;
    let plan = CropPlan {
        size: data.crop,
        batch: data.batch,
        scale,
        channels,
        augment: data.augment,
        degrade: data.degrade,
        enlarge: config.diffusion.enlarge,
        plain: data.plain,
        seed: config.run.seed,
    };
    let process = config.degrade.clone().map(|d| Process::new(d, data.degrade, scale));
    let crops = Crops::new(pairs, plan, warn)?.damaged(process);
    let pixels = crops.pixels() as f64 / 1e6;
    let (images, held) = (crops.images(), crops.held());
    let kept = match held == images {
        true => String::new(),
        false => format!(", {held} of them in memory, the others read as they are drawn"),
    };
    reporter.line(&format!("{images} training images, {pixels:.1} Mpx{kept}"));
    Ok(crops)
}
