//! The files with weights in a folder.
use std::path::{Path, PathBuf};

use crate::error::{Error, Report, Result};

/// Endings of files with weights, in the order in which a folder is searched for a name.
pub const ENDINGS: [&str; 6] = ["safetensors", "pth", "pt", "ckpt", "param", "bin"];

/// What is called like a file with weights in `folder`, by name, links to nothing among it; the `.bin` of a `.param` is not
/// listed.
///
/// # Errors
/// [`Error::Usage`] if the folder cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let wrong = |e| {
        let what = format!("cannot read the folder {}", folder.display());
        let help = "name a folder of weights files that is there, or a file itself with -m";
        Error::Usage(Report::new(what, e).code("not_found").help(help))
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let path = entry.map_err(wrong)?.path();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let listed = ENDINGS.contains(&ending.as_str())
            && !(ending == "bin" && path.with_extension("param").is_file());
        if listed && !path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
