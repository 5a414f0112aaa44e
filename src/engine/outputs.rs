//! Which files a command may write: none that it reads, none twice, and none that is there unless it
//! was told so.
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, place};
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
    let place = place(path);
    #[cfg(unix)]
    if let Ok(found) = fs::metadata(&place) {
        use std::os::unix::fs::MetadataExt;
        return Identity::Node(found.dev(), found.ino());
    }
    Identity::Place(place)
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

    /// The command reads `path`; of a folder, such as that of a training run, all files in it and some levels below,
    /// and of a network that lies in two files the other one, too.
    pub fn reads_below(&mut self, path: &Path) {
        // RUN/ckpt/STEP/ema.safetensors
        const LEVELS: usize = 3;
        let mut left = vec![(path.to_owned(), 0), (path.with_extension("bin"), LEVELS)];
        while let Some((path, level)) = left.pop() {
            match fs::read_dir(&path) {
                // Folders that links lead to are read by no command.
                Ok(entries) if level < LEVELS => {
                    let entries = entries.flatten().filter(|entry| !is_linked_folder(entry));
                    left.extend(entries.map(|entry| (entry.path(), level + 1)));
                }
                Err(_) if path.exists() => self.reads(&path),
                _ => {}
            }
        }
    }

    /// The command is to write `output`, made of `input`. False if it exists and stays as it is. Name all
    /// that is read before.
    ///
    /// # Errors
    /// [`Error::Usage`] if it is something that the command reads, was claimed before, or exists and
    /// nothing was said about that; [`Error::Failed`] if no folder can be made for it.
    pub fn claim(&mut self, output: &Path, input: &Path) -> Result<bool> {
        refuse_below_file(output)?;
        let place = identity(output);
        let missing = match &place {
            Identity::Place(at) if !at.exists() => Some(at.clone()),
            _ => None,
        };
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
        let there = missing.is_none() && !keeps_nothing(output);
        if !there && self.existing != Existing::Overwrite {
            refuse_link(output)?;
        }
        if let (Existing::Refuse | Existing::Skip, Some(at)) = (self.existing, missing) {
            // It may appear until the work is done.
            files::expect_new(at);
        }
        match (self.existing, there) {
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

/// Whether `output` is a device such as `/dev/null`, or a pipe: nothing that it holds can be lost.
fn keeps_nothing(output: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = fs::metadata(output).map(|found| found.file_type());
        kind.is_ok_and(|kind| kind.is_char_device() || kind.is_fifo())
    }
    #[cfg(not(unix))]
    {
        let _ = output;
        false
    }
}

/// Refuses an output in a folder that is a file.
fn refuse_below_file(output: &Path) -> Result<()> {
    let above = output.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    match above.into_iter().find(|above| above.exists()).filter(|above| !above.is_dir()) {
        None => Ok(()),
        Some(file) => {
            let what = format!("cannot write {}", output.display());
            let report = Report::new(what, format!("{} is a file, not a folder", file.display()));
            Err(Error::Failed(report.code("write").help("name another folder")))
        }
    }
}

/// Refuses a link to a file that is not there: written through it would be a file elsewhere, in place of it the link
/// would be gone.
fn refuse_link(output: &Path) -> Result<()> {
    let Ok(to) = fs::read_link(output) else { return Ok(()) };
    if output.exists() {
        return Ok(());
    }
    let what = format!("{} is a link to a file that is not there", output.display());
    let report = Report::new(what, format!("it leads to {}", to.display())).code("exists");
    Err(Error::Usage(report.help("--overwrite puts a file in the place of the link")))
}

fn is_linked_folder(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_symlink()) && entry.path().is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_device_that_keeps_nothing_is_written_to() {
        let (null, input) = (Path::new("/dev/null"), Path::new("a.png"));
        assert!(Outputs::overwriting(false).claim(null, input).unwrap());
        assert!(Outputs::new(Existing::Skip, "").claim(null, input).unwrap());
    }

    #[test]
    fn files_are_known_under_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("a"), "a").unwrap();
        assert_eq!(identity(&at("a")), identity(&at("sub/../a")));
        assert_eq!(identity(&at("new")), identity(&at("sub/../new")));
        assert_ne!(identity(&at("new")), identity(&at("sub/new")));
        // Folders on the way that the command would make.
        assert_eq!(identity(&at("a")), identity(&at("ghost/../a")));
        assert_eq!(identity(&at("a")), identity(&at("ghost/deep/../../sub/../a")));
        assert_eq!(identity(&at("sub/new")), identity(&at("ghost/../sub/new")));
        let mut outputs = Outputs::overwriting(true);
        outputs.reads(&at("a"));
        assert!(outputs.claim(&at("ghost/../a"), &at("a")).is_err());
        assert!(Outputs::overwriting(false).claim(&at("ghost/../a"), &at("b")).is_err());
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
    fn what_lies_in_a_folder_that_is_read_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("run/ckpt/5")).unwrap();
        for name in ["run/ckpt/5/ema", "net.param", "net.bin", "other"] {
            fs::write(at(name), name).unwrap();
        }
        let mut outputs = Outputs::overwriting(true);
        outputs.reads_below(&at("run"));
        outputs.reads_below(&at("net.param"));
        outputs.reads_below(&at("missing"));
        for name in ["run/ckpt/5/ema", "net.param", "net.bin"] {
            assert!(outputs.claim(&at(name), &at("in")).is_err(), "{name}");
        }
        assert!(outputs.claim(&at("other"), &at("in")).unwrap());
        assert!(outputs.claim(&at("missing"), &at("in")).unwrap());
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
