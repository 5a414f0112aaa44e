//! Work on many pictures, counted on a bar.
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::common;
use super::progress::Progress;
use crate::error::Result;

/// Runs `work` with a progress bar that `name`s it; its argument is to be called for each picture.
pub(super) fn with_progress<R>(
    name: &str,
    threads: Option<u32>,
    work: impl FnOnce(&(dyn Fn(usize) -> Result<()> + Sync)) -> Result<R>,
) -> Result<R> {
    common::set_threads(threads)?;
    let stop = common::stop_on_signals()?;
    let (progress, done) = (Mutex::new(Progress::new(name, 0)), AtomicU64::new(0));
    let result = work(&|all| {
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(progress) = progress.lock() {
            progress.at(done, all as u64);
        }
        common::check(&stop)
    });
    if let Ok(progress) = progress.lock() {
        progress.finish();
    }
    result
}
