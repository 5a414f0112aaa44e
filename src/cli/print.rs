//! Lines on standard output and standard error. A reader that went away, or a full disk behind them, ends no work.
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

use crate::error::{Error, Report, Result};

/// Why standard output takes no more.
static REFUSED: OnceLock<io::Error> = OnceLock::new();

/// A line on standard output. False if it cannot be written, now or before.
pub(super) fn line(text: impl Display) -> bool {
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
    let _ = writeln!(io::stderr(), "{text}");
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
