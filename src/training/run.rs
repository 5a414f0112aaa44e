//! The training loop: one for everything that is trained, wherever it is.
mod among;
mod best;
pub mod dry;
mod images;
mod late;
mod nan;
pub mod resume;
mod sums;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use self::among::Silent;
use self::sums::Sums;
use super::asked;
use super::batch::Batch;
use super::checkpoint::{Checkpoints, Part, Trained};
use super::events::Events;
use super::init;
use super::job::{Job, Prepared, Shared};
use super::journal::Journal;
use super::log::{Meter, Metrics, Reading, Reporter, due, grouped, nothing_left, short};
use super::optimizer::Optimizer;
use super::ranks::{Ranks, Shares};
use super::stepper::{self, Joint, Stepper};
use super::task::{Taken, Task};
use super::tasks::Source;
use crate::data::ahead::Ahead;
use crate::engine::device::{DType, Device};
use crate::engine::files::atomic_write;
use crate::engine::interrupt::Stop;
use crate::engine::lock::FolderLock;
use crate::engine::parameter::Parameter;
use crate::error::{Error, NOT_FINITE, Report, Result};
use crate::ops::bf16;

/// Trains what `job` describes in the folder `out/<run.name>`, resuming what is there, to the end
/// of the run or to step `until`, on `device` in `dtype`.
///
/// # Errors
/// Exit code 2 if the configuration does not fit the data or the run that is there, 6 if the loss is
/// not finite, 128 + signal once `stop` is set; in the last case the step was finished and saved.
pub fn train(
    job: &dyn Job,
    out: &Path,
    until: Option<u64>,
    place: (&Device, DType),
    stop: &Stop,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    train_among(&Ranks::alone(), job, (out, until), place, stop, reporter)
}

/// The same together with the other `ranks`, each of which calls this with a `job` of the same configuration. The first
/// one writes and speaks; the others know nothing of the folder.
///
/// # Errors
/// As [`train`]; 2 if the ranks do not fit together, 1 with its name if one of them ends or hangs.
pub fn train_among(
    ranks: &Ranks,
    job: &dyn Job,
    (out, until): (&Path, Option<u64>),
    place: (&Device, DType),
    stop: &Stop,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    let name = &job.shared().run.name;
    let result = match ranks.is_first() {
        true => train_in(&out.join(name), ranks, job, until, place, stop, reporter),
        false => train_aside(name, ranks, job, until, place, stop),
    };
    result.inspect_err(|error| ranks.fail(error))
}

/// As [`train_among`], in a folder that goes away, and without a word.
fn train_aside(
    name: &str,
    ranks: &Ranks,
    job: &dyn Job,
    until: Option<u64>,
    place: (&Device, DType),
    stop: &Stop,
) -> Result<()> {
    let aside = tempfile::tempdir()
        .map_err(|e| Error::Failed(Report::new("cannot make a temporary folder", e)))?;
    let folder = aside.path().join(name);
    train_in(&folder, ranks, job, until, place, stop, &mut Silent)
}

/// As [`train_among`].
fn train_in(
    folder: &Path,
    ranks: &Ranks,
    job: &dyn Job,
    until: Option<u64>,
    place: (&Device, DType),
    stop: &Stop,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    let shared = job.shared();
    refuse_foreign(folder)?;
    let lock = folder.is_dir().then(|| FolderLock::take(folder)).transpose()?;
    let changes = job.changes(folder)?;
    let mut journal = Journal::new(reporter);
    let prepared = job.prepare(place.0, &mut journal)?;
    prepared.keep_buffers(place.0);
    let Prepared { task, source, images, .. } = prepared;
    among::agree_on(ranks, job, place)?;
    let mut run = Run::open(job, folder, (lock, &*task), place, ranks, &mut journal)?;
    journal.open(folder);
    let reporter = &mut journal;
    changes.iter().for_each(|change| reporter.line(&format!("changed: {change}")));
    if ranks.is_first() {
        images::keep(folder, run.step, images.as_deref(), reporter)?;
    }
    let last = until.unwrap_or(shared.run.steps).min(shared.run.steps);
    run.train(source, last, stop, reporter)
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

/// A run in progress.
struct Run<'a> {
    job: &'a dyn Job,
    config: Shared<'a>,
    task: &'a dyn Task,
    ranks: Ranks,
    /// What this rank takes of a step.
    shares: Shares,
    stepper: Box<dyn Stepper>,
    /// Steps taken.
    step: u64,
    checkpoints: Checkpoints,
    metrics: Metrics,
    /// What was measured since the last line of the log.
    sums: Sums,
    folder: PathBuf,
    /// Steps in a row that were not finite.
    bad: u64,
    /// Looks in a row that were not finite.
    bad_looks: u64,
    /// How often weights were taken back since the last checkpoint because they were not finite.
    taken_back: u64,
    /// The step before, of which it is not known yet what it did.
    late: Option<(u64, Taken)>,
    /// Loss and speed since the last line of the log.
    meter: Meter,
    /// The rate and the norm of the gradients of the last step that is known.
    last: (f64, f64),
    /// No other process works here meanwhile.
    _lock: FolderLock,
}

impl<'a> Run<'a> {
    /// Starts a run, or continues the one in `folder`.
    fn open(
        job: &'a dyn Job,
        folder: &Path,
        (lock, task): (Option<FolderLock>, &'a dyn Task),
        place: (&Device, DType),
        ranks: &Ranks,
        reporter: &mut dyn Reporter,
    ) -> Result<Self> {
        let config = job.shared();
        let whose = (ranks.rank(), ranks.world());
        let shares = Shares::new(whose, config.run.reduce, config.batch, task.together())?;
        let checkpoints = Checkpoints::new(folder, config.ckpt.keep);
        let parts = task.parts();
        // Before anything is written: a run that cannot start leaves no folder.
        if ranks.is_first() && checkpoints.latest().is_none() {
            task.complete()?;
            if let Some(path) = &config.run.init {
                let state: Vec<Parameter> =
                    parts.iter().filter(|part| !part.aside).flat_map(Part::state).collect();
                let (names, widen) = (&config.run.init_names, config.run.init_widen);
                let model = job.metadata(0).remove("srk.config");
                let rules = init::Rules { names, widen, model };
                init::load(&state, path, &rules, reporter)?;
            }
        }
        fs::create_dir_all(folder).map_err(|e| {
            Error::Failed(Report::new(format!("cannot make the folder {}", folder.display()), e))
        })?;
        let lock = lock.map_or_else(|| FolderLock::take(folder), Ok)?;
        let newest = checkpoints.load_newest(&parts, &mut |text: &str| reporter.warn(text))?;
        // After the checkpoint: what the run goes on with is written only once it does.
        let toml = job.toml();
        atomic_write(&folder.join("config.toml"), |file| file.write_all(toml.as_bytes()))?;
        let (step, optimizers) = match newest {
            Some(newest) => newest,
            None => {
                let new = parts.iter().map(|part| Optimizer::new(part.parameters));
                (0, new.collect::<Result<_>>()?)
            }
        };
        let engines = checkpoints.engines(step).unwrap_or_default();
        let (step, optimizers, engines) =
            among::share_state(ranks, &parts, (step, optimizers, engines))?;
        ranks.at_step(step);
        let verb = if step == 0 { "starting" } else { "resuming" };
        let sizes = parts
            .iter()
            .filter(|part| !part.aside)
            .map(|part| grouped(part.parameters.iter().map(|p| p.value().len() as u64).sum()));
        reporter.line(&format!(
            "{verb} {} at step {} of {}: {} parameters",
            folder.display(),
            grouped(step),
            grouped(config.run.steps),
            sizes.collect::<Vec<_>>().join(" and "),
        ));
        let mut metrics = Metrics::open(folder, step)?;
        if config.log.tensorboard && ranks.is_first() {
            metrics.also_to(Events::create(&folder.join("tb"), step)?);
        }
        let buckets = among::join_gpus(ranks, job, place.0, reporter)?;
        let joint = Joint::new(ranks.clone(), shares, buckets);
        let how = (config.optim, config.fewer);
        if let (Device::Cpu, DType::BF16) = place {
            reporter.line(match bf16::is_fast() {
                true => "on the CPU, products in bf16 on AMX tiles",
                false => "on the CPU, products in bf16, which without AMX take longer than in f32",
            });
        }
        let stepper = stepper::place(place, &parts, optimizers, how, joint)?;
        let (device, dtype) = stepper.place();
        task.settle(&device, dtype)?;
        if let Device::Cuda(gpu) = &device {
            reporter.line(&format!("on {} in {dtype:?}", gpu.describe().name));
            gpu.ask_for_libraries();
            if !engines.is_empty() && !gpu.tuner().adopt(&engines) {
                reporter.line(
                    "another GPU, driver or library than before: engines for convolutions are chosen anew, and \
                     last bits may differ",
                );
            }
        }
        let run = Self {
            job,
            config,
            task,
            ranks: ranks.clone(),
            shares,
            stepper,
            step,
            checkpoints,
            metrics,
            sums: Sums::default(),
            folder: folder.to_owned(),
            bad: 0,
            bad_looks: 0,
            taken_back: 0,
            late: None,
            meter: Meter::new(step),
            last: (0.0, f64::NAN),
            _lock: lock,
        };
        if run.step > 0 && run.ranks.is_first() {
            run.checkpoints.correct_best(&run.ranked())?;
        }
        Ok(run)
    }

    /// Steps up to `last`, with everything that is due in between.
    fn train(
        &mut self,
        source: Source,
        last: u64,
        stop: &Stop,
        reporter: &mut dyn Reporter,
    ) -> Result<()> {
        let mut batches = self.batches(self.step..last, source);
        self.meter = Meter::new(self.step);
        // One that was due when the run was interrupted; the checkpoint is there.
        let due_now = self.agreed([u64::from(self.show_is_due())])? != [0];
        if due_now {
            if self.signal_now(0, stop) == 0 {
                let step = grouped(self.step);
                reporter.line(&format!(
                    "making up the look at step {step}, of which there is none yet"
                ));
                self.show_missed(last, stop, reporter)?;
            }
            // After another step that could not be made up any more.
            let asks = [stop.load(Ordering::Relaxed) as u64, self.show_is_due().into()];
            let [signal, left] = self.agreed(asks)?;
            if signal != 0 && (left != 0 || self.step < last) {
                return Err(self.interrupted(signal));
            }
        }
        self.meter.rest();
        let [stale] = self.agreed([u64::from(self.is_stale())])?;
        let mut stale = stale != 0;
        if stale {
            reporter.line(&self.end_of_patience());
        } else if self.step >= last {
            let of = (self.step, self.config.run.steps);
            reporter.line(&nothing_left(&self.folder, of, last));
        }
        while self.step < last && !stale {
            let taken = self.step(&mut batches, reporter);
            let taken = self.saving_whole(taken, reporter)?;
            let taken_in = self.take_in(taken, reporter);
            self.saving_whole(taken_in, reporter)?;
            let step = self.step;
            let asks = [stop.load(Ordering::Relaxed) as u64, asked::take().into()];
            let agreed = self.agreed([asks[0], asks[1], u64::from(self.show_is_due())]);
            let [mut signal, asked, shows] = self.saving_whole(agreed, reporter)?;
            let ends = step == last || signal != 0;
            if due(step, self.config.log.every) || ends {
                self.catch_up(reporter)?;
                self.stepper.warnings().iter().for_each(|text| reporter.warn(text));
                let logged = self.log(batches.take_waited(), last, reporter);
                self.saving_first(logged)?;
            }
            // Before a look, which may take longer than a container has to stop.
            let asked = asked != 0;
            let saves = due(step, self.config.ckpt.every) || ends || asked;
            if saves && (ends || !self.takes_back(reporter)?) {
                self.save_and_say(ends || asked, reporter)?;
            }
            let mut left = shows != 0;
            signal = self.signal_now(signal, stop);
            if shows != 0 && signal == 0 {
                self.catch_up(reporter)?;
                let shown = self.show(stop, reporter);
                self.saving_first(shown)?;
                let asks = [self.is_stale().into(), stop.load(Ordering::Relaxed) as u64];
                let [is_stale, stopped, due] =
                    self.agreed([asks[0], asks[1], u64::from(self.show_is_due())])?;
                (stale, signal, left) = (is_stale != 0, stopped, due != 0);
                self.meter.rest();
            }
            if stale {
                reporter.line(&self.end_of_patience());
            }
            signal = self.signal_now(signal, stop);
            if (stale || signal != 0) && !saves {
                self.save_and_say(true, reporter)?;
            }
            if signal != 0 && (step != self.config.run.steps || left) {
                return Err(self.interrupted(signal));
            }
        }
        let asks = [stop.load(Ordering::Relaxed) as u64, self.show_is_due().into()];
        match self.agreed(asks)? {
            [0, _] | [_, 0] => Ok(()),
            [signal, _] => Err(self.interrupted(signal)),
        }
    }

    /// The batches of these steps, or what is this rank's of them, ahead of their use.
    fn batches(&self, steps: Range<u64>, source: Source) -> Ahead<Batch> {
        let (shares, each) = (self.shares, self.shares.of(self.task.batches()));
        let items = steps.start * each..steps.end * each;
        Ahead::start(items, 2, move |item| source(&shares.unit(item)))
    }

    fn save_and_say(&mut self, says: bool, reporter: &mut dyn Reporter) -> Result<()> {
        self.catch_up(reporter)?;
        if !self.ranks.is_first() {
            self.taken_back = 0;
            return Ok(());
        }
        let saved = self.save()?;
        if says {
            reporter.line(&format!("saved {}", saved.display()));
        }
        Ok(())
    }

    /// `result`, and where it is an error, such as that of a full disk, with the steps so far saved if that can
    /// be done, and they are worth it.
    fn saving_first(&mut self, result: Result<()>) -> Result<()> {
        let sound = |error: &Error| error.code() != NOT_FINITE;
        if result.as_ref().err().is_some_and(sound) && self.ranks.is_first() {
            let _ = self.save();
        }
        result
    }

    /// `result`, and where it is an error because another rank has ended, with the steps so far saved: unless a step has
    /// several descents, weights are those of a whole number of steps then.
    fn saving_whole<T>(&mut self, result: Result<T>, reporter: &mut dyn Reporter) -> Result<T> {
        let whole = self.step > 0 && self.task.batches() == self.task.together();
        if result.is_err() && whole && self.ranks.is_first() && self.ranks.is_broken() {
            let _ = self.save_and_say(true, reporter);
        }
        result
    }

    /// `result`, and where it is an error before anything of a step was done, such as that of an image which cannot be
    /// read any more, with the steps so far saved.
    fn saving_unbegun<T>(&mut self, result: Result<T>, reporter: &mut dyn Reporter) -> Result<T> {
        let is_new = self.step > 0 && self.checkpoints.latest() != Some(self.step);
        if result.is_err() && is_new && self.ranks.is_first() {
            let _ = self.save_and_say(true, reporter);
        }
        result
    }

    /// Whether a look belongs to the step that was reached and there is none of it yet; the first rank knows.
    fn show_is_due(&self) -> bool {
        let ends = self.step == self.config.run.steps;
        let is_known = self.step > 0 && self.ranks.is_first();
        is_known && self.task.shows(self.step, ends, (&self.folder, &self.metrics))
    }

    /// Looks; an interrupt leaves that due.
    fn show(&mut self, stop: &Stop, reporter: &mut dyn Reporter) -> Result<()> {
        let step = self.step;
        let shown = self.seen(stop, reporter)?;
        let values = shown.filter(|values| !values.is_empty() && self.ranks.is_first());
        let Some(values) = values else { return Ok(()) };
        // In one line: an interrupted validation has none.
        let values: Vec<(&str, Value)> =
            values.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        self.metrics.write(step, &values)?;
        self.keep_best()
    }

    /// One step of the task. What it did may not be known yet.
    fn step(&mut self, batches: &mut Ahead<Batch>, reporter: &mut dyn Reporter) -> Result<Taken> {
        let of_step = 0..self.shares.of(self.task.batches());
        let of_step = of_step.map(|_| batches.next_item()).collect::<Result<Vec<_>>>();
        let of_step = self.saving_unbegun(of_step, reporter)?;
        self.stepper.begin(batches.peek())?;
        let taken = self.task.step(&mut *self.stepper, self.step + 1, &of_step)?;
        self.step += 1;
        self.ranks.at_step(self.step);
        self.stepper.count(self.step);
        Ok(taken)
    }

    fn save(&mut self) -> Result<PathBuf> {
        let metadata = self.job.metadata(self.step);
        let (task, checkpoints) = (self.task, &self.checkpoints);
        let (engines, advice) = (self.stepper.engines(), self.advice());
        let mut saved = PathBuf::new();
        let done = self.stepper.at_rest(&mut |optimizers| {
            let parts = task.parts().into_iter().zip(optimizers);
            let trained: Vec<_> = parts.map(|(part, by)| Trained { part, by }).collect();
            saved = checkpoints.save(metadata.clone(), engines.as_deref(), &trained)?;
            Ok(())
        });
        done.map_err(|error| match error {
            Error::Check(report) if report.code == NOT_FINITE => Error::Check(report.help(advice)),
            other => other,
        })?;
        self.taken_back = 0;
        Ok(saved)
    }

    /// Writes a line and a record of the steps since the last one.
    fn log(&mut self, waited: Duration, last: u64, reporter: &mut dyn Reporter) -> Result<()> {
        if !self.ranks.is_first() {
            self.sums.take();
            return Ok(());
        }
        let (step, images) = (self.step, self.config.batch as u64 * self.task.batches());
        let Reading { seconds, steps, left, .. } = self.meter.read(step, last);
        let [images, rate] = [images as f64, 1.0].map(|n| steps as f64 * n / seconds);
        let wait = waited.as_secs_f64() / seconds;
        let means = self.sums.take();
        let label = |name: &'static str| name.strip_suffix("_loss").unwrap_or(name);
        let words: Vec<String> =
            means.iter().map(|&(name, mean)| format!("{} {mean:.5}", label(name))).collect();
        reporter.line(&format!(
            "step {}/{}  {}  lr {:.2e}  {images:.1} images/s  data {:.0} %  left {}",
            grouped(step),
            grouped(self.config.run.steps),
            words.join("  "),
            self.last.0,
            100.0 * wait,
            short(left),
        ));
        let mut values: Vec<(&'static str, Value)> =
            means.iter().map(|&(name, mean)| (name, mean.into())).collect();
        values.extend([
            ("lr", self.last.0.into()),
            ("grad_norm", self.last.1.into()),
            ("images_per_s", images.into()),
            ("steps_per_s", rate.into()),
            ("data_wait", Value::from(wait)),
        ]);
        let mut told = vec![("step", step.into())];
        told.extend(values.iter().cloned());
        told.push(("steps", self.config.run.steps.into()));
        told.push(("seconds_left", left.as_secs_f64().into()));
        reporter.record("step", &told);
        self.metrics.write(step, &values)
    }

    /// The signal that asks to stop: as it is now where this process is alone, else as was `agreed`.
    fn signal_now(&self, agreed: u64, stop: &Stop) -> u64 {
        if self.ranks.world() == 1 { stop.load(Ordering::Relaxed) as u64 } else { agreed }
    }

    /// The largest of what the ranks say.
    fn agreed<const N: usize>(&self, mine: [u64; N]) -> Result<[u64; N]> {
        self.ranks.largest(mine)
    }

    fn interrupted(&self, signal: u64) -> Error {
        let step = self.step;
        let what = match self.ranks.is_first() {
            true => format!("saved step {step} in {}", self.checkpoints.at(step).display()),
            false => format!("rank {} ended after step {step}; rank 0 saves", self.ranks.rank()),
        };
        Error::Interrupted { signal: i32::try_from(signal).unwrap_or(2), what }
    }
}
