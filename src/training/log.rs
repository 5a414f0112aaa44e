//! What a run says: lines for people, and `metrics.jsonl` for programs.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use super::events::Events;
use crate::engine::files::atomic_write;
use crate::error::{Error, Report, Result};

/// Where a run's messages go; the library itself prints nothing.
pub trait Reporter {
    /// A line of progress.
    fn line(&mut self, text: &str);
    /// Something that was worked around.
    fn warn(&mut self, text: &str);
    /// Numbers for programs: what a line told, under names. `event` is `step` or `validation`.
    fn record(&mut self, event: &str, values: &[(&str, Value)]) {
        let _ = (event, values);
    }
}

/// The file of measured values, one JSON object a line, each with its `step`.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    /// The same for TensorBoard.
    events: Option<Events>,
}

impl Metrics {
    /// `metrics.jsonl` of `run`, without the lines after `step`: a resumed run repeats those steps.
    pub fn open(run: &Path, step: u64) -> Result<Self> {
        let path = run.join("metrics.jsonl");
        if let Ok(text) = fs::read_to_string(&path) {
            let old = |line: &&str| {
                let value: Option<Value> = serde_json::from_str(line).ok();
                value.and_then(|v| v.get("step")?.as_u64()).is_some_and(|s| s <= step)
            };
            let kept: String = text.lines().filter(old).map(|l| format!("{l}\n")).collect();
            atomic_write(&path, |file| file.write_all(kept.as_bytes()))?;
        }
        Ok(Self { path, events: None })
    }

    /// Writes numbers into `events` as well.
    pub fn also_to(&mut self, events: Events) {
        self.events = Some(events);
    }

    /// Whether there is something under `key` of `step`.
    pub fn has(&self, step: u64, key: &str) -> bool {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let found = |line: &str| {
            let value: Option<Value> = serde_json::from_str(line).ok();
            value.is_some_and(|v| {
                v.get("step").and_then(Value::as_u64) == Some(step) && v.get(key).is_some()
            })
        };
        text.lines().any(found)
    }

    /// The numbers under `key` so far, with their steps.
    pub fn read(&self, key: &str) -> Vec<(u64, f64)> {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let number = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            Some((value.get("step")?.as_u64()?, value.get(key)?.as_f64()?))
        };
        text.lines().filter_map(number).collect()
    }

    /// Appends `values` of `step`.
    pub fn write(&self, step: u64, values: &[(&str, Value)]) -> Result<()> {
        if let Some(events) = &self.events {
            let number = |(key, value): &(&'_ str, Value)| Some((tag(key), value.as_f64()?));
            let numbers: Vec<(String, f64)> = values.iter().filter_map(number).collect();
            let numbers: Vec<(&str, f64)> = numbers.iter().map(|(k, v)| (k.as_str(), *v)).collect();
            events.write(step, &numbers)?;
        }
        let mut line = Map::from_iter([("step".to_owned(), Value::from(step))]);
        line.extend(values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let text = format!("{}\n", Value::Object(line));
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| {
            Error::Failed(Report::new(format!("cannot write {}", self.path.display()), e))
        })
    }
}

/// What TensorBoard groups by: `val/psnr_y`, `train/loss`.
fn tag(key: &str) -> String {
    match key.strip_prefix("val_") {
        Some(of_val) => format!("val/{of_val}"),
        None => format!("train/{key}"),
    }
}

/// `12 300`: groups of three digits, as numbers of steps are read.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// `5h51m`, `3m20s` or `12s`.
pub fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// Why the run in `folder`, at `step` of `steps`, takes no step up to `last`.
pub(crate) fn nothing_left(folder: &Path, (step, steps): (u64, u64), last: u64) -> String {
    let (folder, at) = (folder.display(), grouped(step));
    match step >= steps {
        true => format!("{folder} is finished at step {at}; --set run.steps={} goes on", 2 * step),
        false => format!(
            "{folder} is at step {at} already, beyond --until {last}; without that it goes on"
        ),
    }
}

/// Whether something that happens every `every` steps happens at `step`; never if `every` is 0.
pub const fn due(step: u64, every: u64) -> bool {
    every != 0 && step.is_multiple_of(every)
}

/// Loss and speed since the last line.
#[derive(Debug)]
pub struct Meter {
    losses: Vec<f64>,
    since: Instant,
    first: u64,
    busy: Duration,
}

/// What a [`Meter`] shows.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// The mean of the losses.
    pub loss: f64,
    /// Seconds spent.
    pub seconds: f64,
    /// Steps taken.
    pub steps: usize,
    /// What the rest of the run will take.
    pub left: Duration,
}

impl Meter {
    /// A meter of a run that goes on after `step`.
    pub fn new(step: u64) -> Self {
        Self { losses: Vec::new(), since: Instant::now(), first: step, busy: Duration::ZERO }
    }

    /// Takes in the loss of a step.
    pub fn add(&mut self, loss: f64) {
        self.losses.push(loss);
    }

    /// Leaves out the time since the last reading, which was not spent on steps.
    pub fn rest(&mut self) {
        self.since = Instant::now();
    }

    /// Loss and speed since the last reading, at `step` of a run that ends at `last`.
    pub fn read(&mut self, step: u64, last: u64) -> Reading {
        let passed = self.since.elapsed();
        self.since = Instant::now();
        self.busy += passed;
        let losses = std::mem::take(&mut self.losses);
        let per_step = self.busy.as_secs_f64() / (step - self.first).max(1) as f64;
        Reading {
            // Of no finite step there is no mean.
            loss: losses.iter().sum::<f64>() / losses.len() as f64,
            seconds: passed.as_secs_f64().max(1e-9),
            steps: losses.len(),
            left: Duration::from_secs_f64(per_step * (last - step) as f64),
        }
    }
}
