//! What a run says: lines for people, and `metrics.jsonl` for programs.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::engine::files::atomic_write;
use crate::error::{Error, Report, Result};

/// Where a run's messages go; the library itself prints nothing.
pub trait Reporter {
    /// A line of progress.
    fn line(&mut self, text: &str);
    /// Something that was worked around.
    fn warn(&mut self, text: &str);
}

/// The file of measured values, one JSON object a line, each with its `step`.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
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
        Ok(Self { path })
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
        let mut line = Map::from_iter([("step".to_owned(), Value::from(step))]);
        line.extend(values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        let text = format!("{}\n", Value::Object(line));
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|e| {
            Error::Failed(Report::new(format!("cannot write {}", self.path.display()), e))
        })
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
