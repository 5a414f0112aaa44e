//! Whether the outputs fit on their disks, looked at before any work.
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::arguments::Args;
use crate::diffusion::system::System;
use crate::engine::disk;
use crate::engine::files::is_standard;
use crate::engine::memory::in_words;
use crate::engine::shield::shielded;
use crate::error::{Error, Report, Result};
use crate::imaging;
use crate::imaging::encode::{self, FileSize, Format};
use crate::upscale::jobs::Job;

/// What is to be written to a disk.
struct Load {
    /// A folder on it that is there.
    folder: PathBuf,
    size: FileSize,
}

/// Refuses outputs that are larger than what is free for them; those that may be are in the warnings.
///
/// # Errors
/// [`Error::Failed`] with how much is missing where.
pub(super) fn check(args: &Args, system: &System, jobs: &[Job]) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for Load { folder, size } in loads(args, system, jobs) {
        let Some(free) = disk::free(&folder) else { continue };
        let place = folder.display();
        if size.least > free {
            let what = format!("the outputs do not fit on the disk of {place}");
            let (needed, free) = (in_words(size.least), in_words(free));
            let cause = format!("they take {needed}, {free} are free");
            let help = "free some space, name another disk with -o, or write .png, which is packed";
            return Err(Error::Failed(Report::new(what, cause).code("disk").help(help)));
        }
        if size.likely > free {
            let (likely, free) = (in_words(size.likely), in_words(free));
            warnings.push(format!(
                "the outputs may not fit on the disk of {place}: about {likely}, {free} are free"
            ));
        }
    }
    Ok(warnings)
}

fn loads(args: &Args, system: &System, jobs: &[Job]) -> Vec<Load> {
    let mut folders: HashMap<PathBuf, FileSize> = HashMap::new();
    for job in jobs.iter().filter(|job| !job.skip && !is_standard(&job.output)) {
        // What is there and no file, such as a device, is no matter of disks.
        let Some(size) =
            size(args, system, job).filter(|_| job.output.is_file() || !job.output.exists())
        else {
            continue;
        };
        let folder = job.output.parent().unwrap_or(Path::new("")).to_owned();
        let sum = folders.entry(folder).or_default();
        *sum = sum.plus(size);
    }
    let mut disks: HashMap<u64, Load> = HashMap::new();
    for (folder, size) in folders {
        let Some(folder) = existing(&folder) else { continue };
        let load = disks
            .entry(number(&folder))
            .or_insert_with(|| Load { folder, size: FileSize::default() });
        load.size = load.size.plus(size);
    }
    disks.into_values().collect()
}

/// Of the output of `job`; none if the head of its input is not to be had.
fn size(args: &Args, system: &System, job: &Job) -> Option<FileSize> {
    if is_standard(&job.input) {
        return None;
    }
    // A decoder that panics is told of when the picture has its turn.
    let header = shielded(|| imaging::header::of_file(&job.input)).ok()??;
    let output = args.outline(system, (header.width, header.height), header.outline());
    let kept = || imaging::decode::kind(&job.input).unwrap_or(Format::Png);
    let format = job.format.unwrap_or_else(kept);
    Some(encode::file_size(&output, format, &args.encoding.options()))
}

/// The folder, or the nearest one above it that is there.
fn existing(folder: &Path) -> Option<PathBuf> {
    // Above a relative name is where we are.
    let here = Path::new(".");
    let above = folder.ancestors().filter(|folder| !folder.as_os_str().is_empty()).chain([here]);
    let found = above.into_iter().find(|folder| folder.is_dir())?;
    Some(std::fs::canonicalize(found).unwrap_or_else(|_| found.to_owned()))
}

/// A number that tells disks apart.
#[cfg(unix)]
fn number(folder: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(folder).map_or(0, |found| found.dev())
}

#[cfg(not(unix))]
fn number(_folder: &Path) -> u64 {
    0
}
