//! Lines on standard output and standard error, and in the file of `--log`. A reader that went away, or a full disk
//! behind them, ends no work.
use std::borrow::Cow;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::engine::outputs::identity;
use crate::error::{Error, Report, Result};

/// Why standard output takes no more.
static REFUSED: OnceLock<io::Error> = OnceLock::new();

/// The file that takes all lines, too.
static LOG: Mutex<Option<File>> = Mutex::new(None);

/// Whether words at the beginning of lines have colours.
static COLOR: AtomicBool = AtomicBool::new(false);

/// Those words, and their colours.
const COLORED: [(&str, &str); 5] = [
    ("error:", "1;31"),
    ("warning:", "1;33"),
    ("note:", "1;36"),
    ("cause:", "1"),
    ("help:", "1;32"),
];

/// A line on standard output. False if it cannot be written, now or before.
pub(super) fn line(text: impl Display) -> bool {
    let text = text.to_string();
    log(&text);
    if REFUSED.get().is_some() {
        return false;
    }
    let mut out = io::stdout().lock();
    // What is read while the work goes on is read line by line.
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(error) => {
            let _ = REFUSED.set(error);
            false
        }
    }
}

/// A line on standard error.
pub(super) fn note(text: impl Display) {
    let text = text.to_string();
    log(&text);
    let _ = writeln!(io::stderr(), "{}", colored(&text));
}

/// A line in the log alone, if there is one.
pub(super) fn log(text: impl Display) {
    let mut log = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(file) = log.as_mut() else { return };
    if let Err(error) = writeln!(file, "{text}") {
        *log = None;
        let _ = writeln!(io::stderr(), "warning: the log takes no more lines ({error})");
    }
}

/// From now on all lines go into the file at `path`, too, behind what it holds.
///
/// # Errors
/// If it cannot be written, holds something that is no log, or is one of the files that are `read`.
pub(super) fn log_into(path: &Path, read: &[PathBuf]) -> Result<()> {
    let place = identity(path);
    if let Some(input) = read.iter().find(|input| identity(input) == place) {
        let what = format!("{} would be written into by --log", input.display());
        let report = Report::new(what, "the command reads it").code("overwrites_input");
        return Err(Error::Usage(report.help("name another file with --log")));
    }
    let refuse = |cause: String, help: &str| {
        let what = format!("cannot write the log {}", path.display());
        Error::Usage(Report::new(what, cause).help(help))
    };
    let mut head = Vec::new();
    // What is no file, such as a pipe, has no head that could be looked at without taking it away.
    if path.is_file()
        && let Ok(file) = File::open(path)
    {
        let _ = file.take(512).read_to_end(&mut head);
    }
    if head.contains(&0) || head.starts_with(b"\x89PNG") {
        let help = "name another file with --log";
        return Err(refuse("it is there, and no text".into(), help));
    }
    let opened = File::options().create(true).append(true).open(path);
    let mut file = opened.map_err(|e| refuse(e.to_string(), "name a file you may write"))?;
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into()).collect();
    let first = format!("srk {}: {}", env!("CARGO_PKG_VERSION"), arguments.join(" "));
    writeln!(file, "{first}").map_err(|e| refuse(e.to_string(), "free some space for it"))?;
    *LOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// Sets whether lines on standard error have colours.
pub(super) fn color(on: bool) {
    COLOR.store(on, Ordering::Relaxed);
}

fn colored(text: &str) -> Cow<'_, str> {
    if !COLOR.load(Ordering::Relaxed) {
        return text.into();
    }
    let of_line = |line: &str| {
        let found = COLORED.iter().find(|(word, _)| line.starts_with(word));
        match found {
            Some((word, code)) => format!("\x1b[{code}m{word}\x1b[0m{}", &line[word.len()..]),
            None => line.to_owned(),
        }
    };
    text.split('\n').map(of_line).collect::<Vec<_>>().join("\n").into()
}

/// Why standard output takes no more, if that is so.
pub(super) fn refused() -> Option<&'static io::Error> {
    REFUSED.get()
}

/// An error if something that was to be printed was not, and its reader did not simply go away.
pub(super) fn check() -> Result<()> {
    match REFUSED.get() {
        Some(error) if error.kind() != ErrorKind::BrokenPipe => {
            let report = Report::new("cannot write to standard output", error);
            Err(Error::Failed(report.help("everything else was done; print to another place")))
        }
        _ => Ok(()),
    }
}
