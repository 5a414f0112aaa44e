//! Whether a signal asked to stop: for what waits without anyone to ask, as reading from a pipe does.
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use crate::error::{Error, Result};

/// The number of the signal that asked to stop, 0 while none has.
pub type Stop = Arc<AtomicUsize>;

static SIGNAL: OnceLock<Stop> = OnceLock::new();

/// Makes `signal`, the number of the signal that came or 0, what [`check`] looks at; the first call counts.
pub fn listen(signal: Stop) {
    let _ = SIGNAL.set(signal);
}

/// # Errors
/// [`Error::Interrupted`] if a signal asked to stop.
pub fn check() -> Result<()> {
    let signal = SIGNAL.get().map_or(0, |signal| signal.load(Ordering::Relaxed));
    match i32::try_from(signal).unwrap_or(2) {
        0 => Ok(()),
        signal => Err(Error::Interrupted { signal, what: "nothing half-written was left".into() }),
    }
}

/// Makes a file that may grow no further (`ulimit -f`) an error of the write, as a full disk is, and not the end of the
/// process without a word.
pub fn survive_limits_of_files() {
    #[cfg(unix)]
    // SAFETY: no handler is installed; the signal is ignored from here on.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
    }
}

/// Whether this process was started deaf to `signal`, as `nohup` makes it to SIGHUP.
pub fn is_ignored(signal: i32) -> bool {
    #[cfg(unix)]
    {
        // SAFETY: zeros are a valid structure to be filled; no action is given, so that nothing changes.
        let mut now: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut now) };
        asked == 0 && now.sa_sigaction == libc::SIG_IGN
    }
    #[cfg(not(unix))]
    {
        let _ = signal;
        false
    }
}
