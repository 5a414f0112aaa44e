//! Which files a command may write: none that it reads, none twice, and none that is there unless it
//! was told so.
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Report, Result};

/// What to do with an output that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Nothing is done.
    Refuse,
    /// It is replaced.
    Overwrite,
    /// It stays, and what it would be made of is left out.
    Skip,
}

/// A file, whatever it is called: through links, hard links and detours through folders it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// Device and number of a file that exists.
    Node(u64, u64),
    /// The place of one that does not, or of any where files have no numbers.
    Place(PathBuf),
}

/// Which file `path` is, or would be.
pub fn identity(path: &Path) -> Identity {
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        return Identity::Node(found.dev(), found.ino());
    }
    Identity::Place(place(path))
}

/// `path` with everything that exists of it resolved.
fn place(path: &Path) -> PathBuf {
    if let Ok(whole) = fs::canonicalize(path) {
        return whole;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if !parent.as_os_str().is_empty() => place(parent).join(name),
        (_, Some(name)) => fs::canonicalize(".").unwrap_or_default().join(name),
        _ => path.to_owned(),
    }
}

/// The files that a command reads and those that it is to write.
#[derive(Debug)]
pub struct Outputs {
    existing: Existing,
    help: &'static str,
    inputs: HashMap<Identity, PathBuf>,
    claimed: HashMap<Identity, PathBuf>,
}

impl Outputs {
    /// Of a command that does `existing` with what is there; `help` says how to have it otherwise.
    pub fn new(existing: Existing, help: &'static str) -> Self {
        Self { existing, help, inputs: HashMap::new(), claimed: HashMap::new() }
    }

    /// As [`new`](Self::new), of a command whose only choice is `--overwrite`.
    pub fn overwriting(overwrite: bool) -> Self {
        let existing = if overwrite { Existing::Overwrite } else { Existing::Refuse };
        Self::new(existing, "--overwrite replaces it; another name keeps it")
    }

    /// The command reads `path`.
    pub fn reads(&mut self, path: &Path) {
        self.inputs.insert(identity(path), path.to_owned());
    }

    /// The command is to write `output`, made of `input`. False if it exists and stays as it is. Name all
    /// that is read before.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is something that the command reads, was claimed before, or exists and
    /// nothing was said about that.
    pub fn claim(&mut self, output: &Path, input: &Path) -> Result<bool> {
        let place = identity(output);
        if let Some(other) = self.inputs.get(&place) {
            let by = match place == identity(input) {
                true => "its own result".to_owned(),
                false => format!("the result of {}", input.display()),
            };
            let what = format!("{} would be overwritten by {by}", other.display());
            let cause = format!("{} is the same file", output.display());
            let cause = if other == output { "output and input are one file" } else { &cause };
            let report = Report::new(what, cause).code("overwrites_input");
            return Err(Error::Usage(report.help("name another output")));
        }
        if let Some(other) = self.claimed.insert(place, input.to_owned()) {
            let what = format!("two inputs would be written to {}", output.display());
            let report = Report::new(what, format!("{} and {}", other.display(), input.display()));
            return Err(Error::Usage(
                report.code("collision").help("write them into different folders"),
            ));
        }
        match (self.existing, output.exists()) {
            (Existing::Skip, true) => Ok(false),
            (Existing::Refuse, true) => {
                let report =
                    Report::new(format!("{} exists", output.display()), "nothing was done");
                Err(Error::Usage(report.code("exists").help(self.help)))
            }
            _ => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("a"), "a").unwrap();
        assert_eq!(identity(&at("a")), identity(&at("sub/../a")));
        assert_eq!(identity(&at("new")), identity(&at("sub/../new")));
        assert_ne!(identity(&at("new")), identity(&at("sub/new")));
        fs::hard_link(at("a"), at("hard")).unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(at("a"), at("soft")).unwrap();
            assert_eq!(identity(&at("a")), identity(&at("soft")));
            assert_eq!(identity(&at("a")), identity(&at("hard")));
            let mut outputs = Outputs::overwriting(true);
            outputs.reads(&at("a"));
            for name in ["a", "hard", "soft"] {
                assert!(outputs.claim(&at(name), &at("other")).is_err(), "{name}");
            }
        }
    }

    #[test]
    fn nothing_is_claimed_twice_or_replaced_unasked() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("there"), "a").unwrap();
        assert!(Outputs::overwriting(false).claim(&at("there"), &at("in")).is_err());
        assert!(Outputs::overwriting(true).claim(&at("there"), &at("in")).unwrap());
        assert!(!Outputs::new(Existing::Skip, "").claim(&at("there"), &at("in")).unwrap());
        let mut outputs = Outputs::overwriting(true);
        assert!(outputs.claim(&at("new"), &at("a")).unwrap());
        let error = outputs.claim(&at("new"), &at("b")).unwrap_err().to_string();
        assert!(error.contains("two inputs"), "{error}");
    }
}
