//! Which file becomes which file, decided before any work starts.
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
    /// Its input is left out.
    Skip,
}

/// One image to upscale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The file to read.
    pub input: PathBuf,
    /// The file to write.
    pub output: PathBuf,
    /// The output exists and stays as it is.
    pub skip: bool,
}

/// What was asked for on the command line.
#[derive(Clone, Debug)]
pub struct Request {
    /// Files and folders.
    pub inputs: Vec<PathBuf>,
    /// A file for one input, a folder otherwise; beside the input if absent.
    pub output: Option<PathBuf>,
    /// Whether `output` is a folder although it does not exist yet.
    pub into_folder: bool,
    /// Folders are searched to any depth.
    pub recursive: bool,
    /// The extension of outputs whose name is not given.
    pub extension: String,
    /// Put behind the stem of outputs that land beside their input, such as `_x4`.
    pub suffix: String,
    /// What to do with outputs that exist.
    pub existing: Existing,
}

const EXTENSIONS: &[&str] =
    &["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "pnm", "ppm", "pgm", "gif"];

impl Request {
    /// The jobs, in the order of the inputs; files of a folder in the order of their names.
    ///
    /// # Errors
    /// [`Error::Usage`] if two inputs have one output, an output is its own input, or outputs exist
    /// and nothing was said about that; [`Error::Failed`] if an input or folder is not there.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let mut jobs = Vec::new();
        for input in &self.inputs {
            if input.is_dir() {
                let mut files = Vec::new();
                list(input, self.recursive, &mut files)?;
                if files.is_empty() {
                    let report = Report::new(format!("{} holds no image", input.display()), "");
                    return Err(Error::Failed(report.help("-r searches the folders in it, too")));
                }
                for file in files {
                    let below = file.strip_prefix(input).unwrap_or(&file).to_owned();
                    jobs.push(self.job(&file, &below)?);
                }
            } else {
                let name = input.file_name().map_or_else(PathBuf::new, PathBuf::from);
                jobs.push(self.job(input, &name)?);
            }
        }
        self.check(&mut jobs)?;
        Ok(jobs)
    }

    /// The job of `input`, which `below` names inside the folder it was found in.
    fn job(&self, input: &Path, below: &Path) -> Result<Job> {
        let output = match &self.output {
            Some(folder) if self.into_folder || folder.is_dir() => {
                folder.join(below).with_extension(&self.extension)
            }
            Some(file) if self.inputs.len() == 1 => file.clone(),
            Some(file) => {
                let what = format!("cannot put several images into {}", file.display());
                let report = Report::new(what, "it is not a folder");
                return Err(Error::Usage(report.help("name a folder with -o FOLDER/")));
            }
            None => {
                let stem = input.file_stem().unwrap_or_default().to_string_lossy();
                input.with_file_name(format!("{stem}{}.{}", self.suffix, self.extension))
            }
        };
        Ok(Job { input: input.to_owned(), output, skip: false })
    }

    fn check(&self, jobs: &mut [Job]) -> Result<()> {
        let mut taken: HashMap<PathBuf, PathBuf> = HashMap::new();
        for job in jobs {
            if let Some(other) = taken.insert(job.output.clone(), job.input.clone()) {
                let (a, b) = (other.display(), job.input.display());
                let what = format!("two inputs would be written to {}", job.output.display());
                let report = Report::new(what, format!("{a} and {b}"));
                return Err(Error::Usage(report.help("upscale them into different folders")));
            }
            if same_file(&job.input, &job.output) {
                let what =
                    format!("{} would be overwritten by its own result", job.input.display());
                let report = Report::new(what, "output and input are one file");
                return Err(Error::Usage(report.help("name another output")));
            }
            if job.output.exists() {
                match self.existing {
                    Existing::Overwrite => {}
                    Existing::Skip => job.skip = true,
                    Existing::Refuse => {
                        let what = format!("{} exists", job.output.display());
                        let report = Report::new(what, "nothing was done");
                        return Err(Error::Usage(report.help("--overwrite or --skip-existing")));
                    }
                }
            }
        }
        Ok(())
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Image files in `folder`, by their extension, sorted by name.
fn list(folder: &Path, recursive: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = |e: std::io::Error| {
        Error::Failed(Report::new(format!("cannot list {}", folder.display()), e))
    };
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        entries.push(entry.map_err(failed)?.path());
    }
    entries.sort();
    for path in entries {
        if path.is_dir() {
            if recursive {
                list(&path, recursive, files)?;
            }
            continue;
        }
        if is_image_name(&path) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether the extension is that of a format srk reads.
pub fn is_image_name(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    EXTENSIONS.contains(&extension.as_str())
}
