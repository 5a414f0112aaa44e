//! Files that are written whole or not at all.
use std::io::{BufWriter, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::error::{Error, Report, Result};

/// Writes `path` through `write` into a temporary file beside it, syncs it, and renames it into
/// place. On any failure nothing is left behind and an older file of that name is untouched.
///
/// # Errors
/// If the folder cannot be written, the disk is full, or `write` fails.
pub fn atomic_write(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let attempt = || -> std::io::Result<()> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = NamedTempFile::with_prefix_in(".srk-", folder)?;
        let mut buffered = BufWriter::new(file.as_file_mut());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.as_file().sync_all()?;
        file.persist(path).map(drop).map_err(|e| e.error)
    };
    attempt().map_err(|e| {
        let report = Report::new(format!("cannot write {}", path.display()), &e);
        Error::Failed(report.help("check that the folder exists, can be written and has space left"))
    })
}
