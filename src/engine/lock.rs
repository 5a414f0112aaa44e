//! One process at a time in a folder: a lock of the operating system, which ends with the process that
//! holds it, however that ends.
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::{Error, Report, Result};

/// The name of the file that is locked. It stays; what counts is the lock on it.
const NAME: &str = "lock";

/// What holds a folder; dropped, it lets go.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Takes the lock of `folder`, which must exist.
    ///
    /// # Errors
    /// [`Error::Failed`] that names the process which has it, or if the file cannot be made. Where a file
    /// system knows no locks, none is taken and that is no error.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(NAME);
        let failed = |e: std::io::Error| {
            Error::Failed(Report::new(format!("cannot write {}", path.display()), e))
        };
        let options =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = options.map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(taken(folder, &mut file)),
            Err(TryLockError::Error(_)) => return Ok(Self { _file: file }),
            Ok(()) => {}
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = format!("{} {since}\n", std::process::id());
        // What stands in it is for messages alone.
        let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
        Ok(Self { _file: file })
    }
}

fn taken(folder: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(64).read_to_string(&mut text));
    let mut numbers = text.split_whitespace().filter_map(|n| n.parse::<u64>().ok());
    let holder = read.ok().and_then(|_| Some((numbers.next()?, numbers.next()?)));
    let cause = holder.map_or_else(
        || "another process works in this folder".to_owned(),
        |(process, since)| format!("process {process} has worked in this folder {}", when(since)),
    );
    let report = Report::new(format!("{} is in use", folder.display()), cause);
    Error::Failed(report.help("wait for it or stop it; --set run.name=OTHER starts another run"))
}

/// `since 2026-11-28 17:03:12 UTC (12 minutes)` of a time in seconds since 1970.
fn when(since: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let minutes = now.saturating_sub(Duration::from_secs(since)).as_secs() / 60;
    let (days, second) = (since / 86_400, since % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "since {year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC ({minutes} minutes)"
    )
}

/// Year, month and day of a number of days since 1970-01-01.
fn date(mut days: u64) -> (u64, u64, u64) {
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let mut year = 1970;
    // A damaged number must not keep us counting.
    while days >= 365 + u64::from(leap(year)) && year < 9999 {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while month < 11 && days >= lengths[month] {
        days -= lengths[month];
        month += 1;
    }
    (year, month as u64 + 1, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_and_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let first = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        let process = format!("process {}", std::process::id());
        assert!(error.contains(&process) && error.contains("since 2"), "{error}");
        drop(first);
        FolderLock::take(folder.path()).unwrap();
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_785, (2026, 11, 28)),
        ] {
            assert_eq!(date(days), expected);
        }
    }
}
