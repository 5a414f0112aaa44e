//! Which of several implementations is fastest for a problem: measured once, then remembered.
//!
//! The first engine is the reference, our own kernel. The others are libraries, and kernels for some GPUs, which are taken
//! only where their result agrees with the reference and they are clearly faster. What was found is
//! kept in a file per GPU and driver, so that later runs make the same choice, and with it the same
//! bits. The file is a cache: what cannot be read is ignored and replaced.
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::driver::Description;
use crate::engine::files::{atomic_write, cache_folder};
use crate::error::{Error, Result};

/// Runs of an engine that are timed together take about this long.
const SECONDS: f64 = 2e-3;
/// At most so many of them.
const MOST_RUNS: usize = 20;
/// How often they are timed; the fastest counts, as nothing makes a run too fast.
const ROUNDS: usize = 3;
/// A library must take at most this share of the reference's time.
const CLEARLY_FASTER: f64 = 0.97;
/// Files larger than this are not ours.
const LARGEST_FILE: u64 = 4 << 20;

/// One way to solve a problem.
pub trait Engine {
    /// What it is remembered by, such as `cudnn/1`.
    fn name(&self) -> String;

    /// Solves the problem; the result lies where [`Bench::distance`] looks.
    fn run(&self) -> Result<()>;
}

/// How engines are measured and compared.
pub trait Bench {
    /// Overwrites the result, so that what an engine leaves out shows.
    fn poison(&self) -> Result<()>;

    /// Keeps the result of the last run, which others are compared with.
    fn keep(&self) -> Result<()>;

    /// The relative L2 distance of the result of the last run from the one that was kept; not a number if either has one.
    fn distance(&self) -> Result<f64>;

    /// Seconds that so many runs of `engine`, which has run before, take: the least of `rounds` times.
    fn seconds(&self, engine: &dyn Engine, runs: usize, rounds: usize) -> Result<f64>;
}

/// Choices made so far.
pub struct Tuner {
    file: Option<PathBuf>,
    stamp: Stamp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    read: bool,
    choices: BTreeMap<String, String>,
    /// Those of them that this process made, or adopted.
    of_run: BTreeMap<String, String>,
    warnings: Vec<String>,
}

/// What a file of choices is valid for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    srk: String,
    gpu: String,
    driver: String,
    libraries: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    stamp: Stamp,
    choices: BTreeMap<String, String>,
}

impl fmt::Debug for Tuner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tuner({:?})", self.file)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tuner {
    /// Choices for `gpu` with these versions of libraries, kept in the user's cache folder.
    pub fn new(gpu: &Description, libraries: &str) -> Self {
        Self::with_file(Self::file_of(gpu), gpu, libraries)
    }

    /// Where choices for `gpu` are kept: in the user's cache folder, if there is one.
    pub fn file_of(gpu: &Description) -> Option<PathBuf> {
        let plain = |text: &str| -> String {
            text.chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
                .collect()
        };
        let name = format!("tuning-{}-{}.json", plain(&gpu.name), plain(&gpu.driver));
        cache_folder().map(|folder| folder.join(name))
    }

    /// The same, kept in `file`, or only in memory.
    pub fn with_file(file: Option<PathBuf>, gpu: &Description, libraries: &str) -> Self {
        let stamp = Stamp {
            srk: env!("CARGO_PKG_VERSION").to_owned(),
            gpu: gpu.name.clone(),
            driver: gpu.driver.clone(),
            libraries: libraries.to_owned(),
        };
        Self { file, stamp, state: Mutex::default() }
    }

    /// The index of the engine for the problem `key`. It is measured if it was never met and
    /// `measure` allows that; otherwise it is the first.
    ///
    /// `tolerance` is the relative L2 distance from the first engine's result that is allowed. Where memory is too short to
    /// measure in, it is the first for now.
    ///
    /// # Errors
    /// If the first engine fails, or the measurement itself.
    pub fn choose(
        &self,
        key: &str,
        tolerance: f64,
        engines: &[&dyn Engine],
        bench: &dyn Bench,
        measure: bool,
    ) -> Result<usize> {
        if engines.len() < 2 {
            return Ok(0);
        }
        if let Some(known) = self.known(key) {
            // An engine that is gone since: the reference, for ever rather than now and then.
            return Ok(engines.iter().position(|e| e.name() == known).unwrap_or(0));
        }
        if !measure {
            return Ok(0);
        }
        let (best, warnings) = match fastest(key, tolerance, engines, bench) {
            Err(Error::Memory(_)) => return Ok(0),
            found => found?,
        };
        self.remember(key, &engines[best].name(), warnings);
        Ok(best)
    }

    /// The choices of this process, for [`adopt`](Self::adopt) of a later one; none if none was made.
    pub fn choices(&self) -> Option<String> {
        let choices = lock(&self.state).of_run.clone();
        let file = File { stamp: self.stamp.clone(), choices };
        (!file.choices.is_empty()).then(|| serde_json::to_string(&file).ok()).flatten()
    }

    /// Makes the choices of a run that goes on here, whatever was found fastest since, so that its bits stay what they would
    /// have been. Those of another GPU, driver or library, or of another srk, hold no more: `false` then.
    pub fn adopt(&self, choices: &str) -> bool {
        let Ok(file) = serde_json::from_str::<File>(choices) else { return false };
        if file.stamp != self.stamp {
            return false;
        }
        let mut state = lock(&self.state);
        if !state.read {
            state.read = true;
            state.choices.extend(self.read());
        }
        state.choices.extend(file.choices.clone());
        state.of_run.extend(file.choices);
        true
    }

    /// What was odd about engines since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.state).warnings)
    }

    fn known(&self, key: &str) -> Option<String> {
        let mut state = lock(&self.state);
        if !state.read {
            state.read = true;
            state.choices.extend(self.read());
        }
        let known = state.choices.get(key).cloned()?;
        if !state.of_run.contains_key(key) {
            state.of_run.insert(key.to_owned(), known.clone());
        }
        Some(known)
    }

    /// The choices in the file; none if it is missing, damaged, or of another machine or version.
    fn read(&self) -> BTreeMap<String, String> {
        let usable = |path: &PathBuf| -> Option<BTreeMap<String, String>> {
            let small = path.metadata().is_ok_and(|m| m.is_file() && m.len() <= LARGEST_FILE);
            let bytes = small.then(|| std::fs::read(path).ok())??;
            let file: File = serde_json::from_slice(&bytes).ok()?;
            (file.stamp == self.stamp).then_some(file.choices)
        };
        self.file.as_ref().and_then(usable).unwrap_or_default()
    }

    /// Keeps a choice, and writes all of them; what another process wrote meanwhile stays.
    fn remember(&self, key: &str, engine: &str, warnings: Vec<String>) {
        let mut state = lock(&self.state);
        state.warnings.extend(warnings);
        state.choices.insert(key.to_owned(), engine.to_owned());
        state.of_run.insert(key.to_owned(), engine.to_owned());
        let Some(path) = &self.file else { return };
        let mut choices = self.read();
        choices.extend(state.choices.clone());
        if let Err(error) = write(path, &File { stamp: self.stamp.clone(), choices }) {
            let line = error.to_string().replace('\n', "; ");
            state.warnings.push(format!("choices of engines are not kept: {line}"));
        }
    }
}

fn write(path: &Path, file: &File) -> Result<()> {
    if let Some(folder) = path.parent() {
        // A failure shows when the file is written.
        let _ = std::fs::create_dir_all(folder);
    }
    atomic_write(path, |w| {
        serde_json::to_writer_pretty(&mut *w, file)?;
        w.write_all(b"\n")
    })
}

/// Runs all engines; the index of the best, and what is to be said of the others.
fn fastest(
    key: &str,
    tolerance: f64,
    engines: &[&dyn Engine],
    bench: &dyn Bench,
) -> Result<(usize, Vec<String>)> {
    run_alone(engines[0], bench)?;
    bench.keep()?;
    let mut best = (0, CLEARLY_FASTER * seconds(engines[0], bench)?);
    let mut warnings = vec![];
    for (index, &engine) in engines.iter().enumerate().skip(1) {
        match candidate(engine, tolerance, bench) {
            Ok(seconds) if seconds < best.1 => best = (index, seconds),
            Ok(_) => {}
            Err(why) => warnings.push(format!("{} is not used for {key}: {why}", engine.name())),
        }
    }
    // The result lies where the caller expects it, whatever ran last.
    engines[best.0].run()?;
    Ok((best.0, warnings))
}

/// Seconds that an engine takes, or why it cannot be used.
fn candidate(
    engine: &dyn Engine,
    tolerance: f64,
    bench: &dyn Bench,
) -> std::result::Result<f64, String> {
    let line = |e: Error| e.to_string().replace('\n', "; ");
    run_alone(engine, bench).map_err(line)?;
    let error = bench.distance().map_err(line)?;
    if error.is_nan() || error > tolerance {
        return Err(format!("its result is off by {error:.1e}; {tolerance:.1e} is allowed"));
    }
    seconds(engine, bench).map_err(line)
}

/// Runs an engine so that all of the result is its own.
fn run_alone(engine: &dyn Engine, bench: &dyn Bench) -> Result<()> {
    bench.poison()?;
    engine.run()
}

/// Seconds of one run. The engine has run before, so that nothing is loaded meanwhile.
fn seconds(engine: &dyn Engine, bench: &dyn Bench) -> Result<f64> {
    let once = bench.seconds(engine, 1, 1)?;
    let fits = |runs: &usize| *runs as f64 * once <= SECONDS;
    let runs = (1..=MOST_RUNS).rev().find(fits).unwrap_or(1);
    Ok(bench.seconds(engine, runs, ROUNDS)? / runs as f64)
}

#[cfg(test)]
#[path = "tuning_tests.rs"]
mod tests;
