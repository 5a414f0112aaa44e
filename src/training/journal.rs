//! `train.log`: what a run said, with the time, also where nobody was listening.
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::log::Reporter;

/// Passes lines on and keeps them in a file, once there is a folder for it.
pub(super) struct Journal<'a> {
    listener: &'a mut dyn Reporter,
    file: Option<File>,
    /// Lines from before there was a file.
    held: Vec<String>,
}

impl<'a> Journal<'a> {
    pub(super) fn new(listener: &'a mut dyn Reporter) -> Self {
        Self { listener, file: None, held: Vec::new() }
    }

    /// Goes on in `run/train.log`. That it cannot be written costs no training: it is said once.
    pub(super) fn open(&mut self, run: &Path) {
        let path = run.join("train.log");
        match OpenOptions::new().create(true).append(true).open(&path) {
            Ok(file) => self.file = Some(file),
            Err(error) => self.listener.warn(&format!("cannot write {}: {error}", path.display())),
        }
        let held = std::mem::take(&mut self.held);
        self.put(&held.concat());
    }

    fn keep(&mut self, text: &str) {
        let line = format!("{} {}\n", time(SystemTime::now()), text.replace('\n', " "));
        match self.file {
            Some(_) => self.put(&line),
            None => self.held.push(line),
        }
    }

    fn put(&mut self, text: &str) {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            self.file = None;
            self.listener.warn(&format!("train.log takes no more lines: {error}"));
        }
    }
}

impl Reporter for Journal<'_> {
    fn line(&mut self, text: &str) {
        self.keep(text);
        self.listener.line(text);
    }

    fn warn(&mut self, text: &str) {
        self.keep(&format!("warning: {text}"));
        self.listener.warn(text);
    }

    fn record(&mut self, event: &str, values: &[(&str, Value)]) {
        self.listener.record(event, values);
    }
}

/// `2026-11-28T19:00:00Z`.
fn time(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years from March on, so that a leap day is the last one (Howard Hinnant's civil_from_days).
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_767_225_600, "2026-01-01T00:00:00Z"),
        ] {
            assert_eq!(time(UNIX_EPOCH + Duration::from_secs(seconds)), wanted);
        }
    }
}
