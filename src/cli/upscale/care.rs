//! Which files of a folder are taken, what happens where one fails, and what outputs have of the files they are made of.
use std::fs::{self, File, FileTimes};
use std::io;

use crate::engine::files::is_standard;
use crate::upscale::globs::Glob;
use crate::upscale::jobs::Job;

/// Options for many files.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Many pictures")]
pub(super) struct Care {
    /// Search folders to any depth; the outputs keep the tree
    #[arg(short, long)]
    pub(super) recursive: bool,
    /// Of folders, only files that this pattern fits, such as '*.jpg' or 'scans/**'; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub(super) include: Vec<Glob>,
    /// Of folders, no file that this pattern fits; may be repeated
    #[arg(long, value_name = "GLOB", value_parser = Glob::parse)]
    pub(super) exclude: Vec<Glob>,
    /// Stop at the first picture that fails, in place of going on with the others
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// Give outputs the permissions and the time of change of their inputs
    #[arg(short, long)]
    pub(super) preserve: bool,
}

/// Gives the output of `job` the permissions and times of its input, where both are files.
///
/// # Errors
/// If the system refuses.
pub(super) fn preserve(job: &Job) -> io::Result<()> {
    if is_standard(&job.input) || is_standard(&job.output) {
        return Ok(());
    }
    let input = fs::metadata(&job.input)?;
    // Nothing is changed of a device or a pipe.
    if !input.is_file() || !fs::metadata(&job.output)?.is_file() {
        return Ok(());
    }
    let mut times = FileTimes::new().set_modified(input.modified()?);
    if let Ok(accessed) = input.accessed() {
        times = times.set_accessed(accessed);
    }
    // Before the permissions: they may forbid it.
    File::options().write(true).open(&job.output)?.set_times(times)?;
    fs::set_permissions(&job.output, input.permissions())
}
