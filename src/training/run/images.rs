//! Which images a run learns from: a later start says if they are others.
use std::fs;
use std::path::Path;

use crate::engine::files::atomic_write;
use crate::error::Result;
use crate::training::log::{Reporter, grouped};

/// Keeps `images`, in words that differ where the images do, in `images.txt` of the run in `folder`; says so if the
/// `step` that it goes on from was reached with others.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn keep(
    folder: &Path,
    step: u64,
    images: Option<&str>,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    let Some(images) = images else { return Ok(()) };
    let path = folder.join("images.txt");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let before = before.trim_end();
    if before == images {
        return Ok(());
    }
    if step > 0 && !before.is_empty() {
        let step = grouped(step);
        reporter.line(&format!(
            "the training images are others than up to step {step}: {images}; they were {before}"
        ));
    }
    atomic_write(&path, |file| writeln!(file, "{images}"))
}
