//! Which file becomes which file, decided before any work starts.
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::globs::Glob;
use super::names::{Facts, Template};
use super::shard::Shard;
use crate::engine::files::{self, is_standard};
pub use crate::engine::outputs::Existing;
use crate::engine::outputs::{Identity, Outputs, identity};
use crate::error::{Error, Report, Result};
use crate::imaging::encode::Format;
use crate::imaging::{decode, folder, stamp};

/// One image to upscale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The file to read.
    pub input: PathBuf,
    /// The file to write, or `-` for standard output.
    pub output: PathBuf,
    /// Its format; none is that of what comes in, where that is known only when it is read.
    pub format: Option<Format>,
    /// The output exists and stays as it is.
    pub skip: bool,
    /// Which of several results of one picture it is, from 0 on: its seed is so many further.
    pub sample: u64,
}

impl Job {
    fn new(input: &Path, output: PathBuf, format: Option<Format>) -> Self {
        Self { input: input.to_owned(), output, format, skip: false, sample: 0 }
    }

    /// Result number `sample` of several, `NAME_s0.png` and on.
    fn numbered(&self, sample: u64) -> Self {
        let mut name = self.output.file_stem().unwrap_or_default().to_os_string();
        name.push(format!("_s{sample}"));
        if let Some(ending) = self.output.extension() {
            name.push(".");
            name.push(ending);
        }
        Self { output: self.output.with_file_name(name), sample, ..self.clone() }
    }
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
    /// Of folders, only what one of these fits; all, if there is none.
    pub include: Vec<Glob>,
    /// Of folders, nothing that one of these fits.
    pub exclude: Vec<Glob>,
    /// The format of outputs whose name is not given; none keeps that of the input.
    pub format: Option<Format>,
    /// Whether that was said, so that it counts for a file whose name does not tell.
    pub asked: bool,
    /// The names of outputs that land beside their input.
    pub beside: Template,
    /// The names of outputs in a folder.
    pub inside: Template,
    /// What names may say of the run.
    pub facts: Facts,
    /// What to do with outputs that exist.
    pub existing: Existing,
    /// What is read beside the inputs: models.
    pub models: Vec<PathBuf>,
    /// Results of each picture, with seeds that follow each other; 0 is 1. Where names say the seed they differ by it,
    /// else by a number at their end.
    pub samples: u64,
    /// The part of all pictures that is wanted; all, if none is said.
    pub shard: Option<Shard>,
    /// Inputs with the outputs that they had before, in place of `inputs`.
    pub again: Vec<[PathBuf; 2]>,
}

/// Why what is called like a picture in a folder is none.
pub fn no_file(path: &Path) -> String {
    let cause = files::refuse_endless(path).err().map_or_else(String::new, |e| e.to_string());
    format!("{} is left out: {cause}", path.display())
}

/// Tells the size (width, height) of the output of an input.
pub type SizeOfFile<'a> = dyn Fn(&Path) -> Result<(usize, usize)> + 'a;

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jobs {
    /// In the order of the inputs; files of a folder in the order of their names.
    pub jobs: Vec<Job>,
    /// Pictures that belong to other parts.
    pub elsewhere: usize,
    /// Pictures in folders that are results of earlier runs.
    pub left_out: Vec<PathBuf>,
    /// Pictures in folders in formats that are not read.
    pub foreign: Vec<PathBuf>,
    /// What is called like a picture in a folder and is no file.
    pub no_files: Vec<PathBuf>,
    /// Folders in folders that cannot be listed, with the reason.
    pub closed: Vec<(PathBuf, String)>,
}

impl Request {
    /// The jobs. Results of srk that lie in an input folder are left out: those that say so themselves, those in
    /// the output folder, and `NAME_x4.png` beside `NAME.jpg`. `size` tells the size of the output of an input, where
    /// names say it.
    ///
    /// # Errors
    /// [`Error::Usage`] if two inputs have one output, an output is an input, or outputs exist
    /// and nothing was said about that; [`Error::Failed`] if an input or folder is not there.
    pub fn jobs(&self, size: &SizeOfFile<'_>) -> Result<Jobs> {
        let mut found = Jobs::default();
        for input in &self.inputs {
            if !input.is_dir() {
                let name = input.file_name().map_or_else(PathBuf::new, PathBuf::from);
                found.jobs.push(self.job(input, &name, size)?);
                continue;
            }
            let listing = folder::listing(input, self.recursive)
                .map_err(|e| cannot_list(input, &e.to_string()))?;
            let is_wanted =
                |file: &PathBuf| self.is_wanted(file.strip_prefix(input).unwrap_or(file));
            let (seen, files) = (listing.pictures.len(), listing.pictures);
            let files: Vec<PathBuf> = files.into_iter().filter(is_wanted).collect();
            let foreign: Vec<PathBuf> = listing.foreign.into_iter().filter(is_wanted).collect();
            let all = files.len();
            let (results, files) = self.split_results(input, files);
            found.left_out.extend(results);
            if let (true, Some((folder, cause))) = (files.is_empty(), listing.closed.first()) {
                return Err(cannot_list(folder, cause));
            }
            let pipe = listing.no_files.first().map(|path| format!("but {}", no_file(path)));
            found.closed.extend(listing.closed);
            found.no_files.extend(listing.no_files.into_iter().filter(is_wanted));
            if files.is_empty() {
                let (cause, help) = match all {
                    0 if seen > 0 => (
                        format!("none of its {seen} pictures fits --include and --exclude"),
                        "change them, or leave them out",
                    ),
                    0 if !foreign.is_empty() => (
                        format!("but {}", named(&foreign)),
                        "save them as PNG or TIFF in another program first",
                    ),
                    0 => (pipe.unwrap_or_default(), "-r searches the folders in it, too"),
                    1 => ("but 1 result of srk".to_owned(), "name it to enlarge it again"),
                    _ => (format!("but {all} results of srk"), "name them to enlarge them again"),
                };
                let report = Report::new(format!("{} holds no image", input.display()), cause);
                return Err(Error::Failed(report.help(help)));
            }
            found.foreign.extend(foreign);
            for file in files {
                let below = file.strip_prefix(input).unwrap_or(&file).to_owned();
                found.jobs.push(self.job(&file, &below, size)?);
            }
        }
        for [input, output] in &self.again {
            let format = match is_standard(output) {
                true => None,
                false => Some(self.format_of(output, input)?),
            };
            found.jobs.push(Job::new(input, output.clone(), format));
        }
        refuse_collisions(&found.jobs)?;
        if let Some(shard) = self.shard {
            let all = found.jobs.len();
            let mut position = 0..all;
            found.jobs.retain(|_| position.next().is_some_and(|at| shard.takes(at)));
            found.elsewhere = all - found.jobs.len();
        }
        let of_one = found.jobs.iter().map(|job| self.samples_of(job, size));
        found.jobs = of_one.collect::<Result<Vec<_>>>()?.concat();
        self.check(&mut found.jobs)?;
        Ok(found)
    }

    /// Whether the patterns let a file of a folder through that is `below` it.
    fn is_wanted(&self, below: &Path) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(below));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }

    /// Those of `files` in the folder `input` that are results of srk, and the others.
    fn split_results(&self, input: &Path, files: Vec<PathBuf>) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let real = |path: &Path| fs::canonicalize(path).ok();
        let goal = self.output.as_deref().and_then(real).filter(|_| self.into_folder);
        let goal = goal.filter(|goal| real(input).as_ref() != Some(goal));
        let names: HashSet<PathBuf> = files.iter().map(|file| file.with_extension("")).collect();
        let is_result = |file: &PathBuf| {
            let in_goal =
                goal.as_ref().is_some_and(|g| real(file).is_some_and(|f| f.starts_with(g)));
            let of = unscaled(file);
            in_goal || of.is_some_and(|of| names.contains(&of)) || stamp::of_file(file).is_some()
        };
        files.into_iter().partition(is_result)
    }

    /// All results of the picture of `job`.
    fn samples_of(&self, job: &Job, size: &SizeOfFile<'_>) -> Result<Vec<Job>> {
        if self.samples <= 1 {
            return Ok(vec![job.clone()]);
        }
        let one = |sample: u64| match self.template().filter(|template| template.says_seed()) {
            Some(template) => {
                let (name, _) = self.named(&job.input, template, size, sample)?;
                let output = job.output.with_file_name(name);
                Ok(Job { output, sample, ..job.clone() })
            }
            None => Ok(job.numbered(sample)),
        };
        (0..self.samples).map(one).collect()
    }

    /// What names outputs, where the one of them is not given.
    fn template(&self) -> Option<&Template> {
        match &self.output {
            _ if !self.again.is_empty() => None,
            Some(folder) if self.into_folder || folder.is_dir() => Some(&self.inside),
            Some(_) => None,
            None => Some(&self.beside),
        }
    }

    /// The format of the file `output`: that of its name, or else the one that was asked for.
    fn format_of(&self, output: &Path, input: &Path) -> Result<Format> {
        let ending = output.extension().unwrap_or_default().to_string_lossy();
        match self.asked && Format::from_extension(&ending).is_none() {
            true => Ok(self.format.or_else(|| kept(input)).unwrap_or(Format::Png)),
            false => Format::from_path(output),
        }
    }

    /// The job of `input`, which `below` names inside the folder it was found in.
    fn job(&self, input: &Path, below: &Path, size: &SizeOfFile<'_>) -> Result<Job> {
        let output = match &self.output {
            Some(folder) if self.into_folder || folder.is_dir() => {
                let (name, format) = self.named(input, &self.inside, size, 0)?;
                let output = folder.join(below).with_file_name(name);
                return Ok(Job::new(input, output, format));
            }
            Some(file) if self.inputs.len() == 1 => file.clone(),
            Some(file) => {
                let what = format!("cannot put several images into {}", file.display());
                let report = Report::new(what, "it is not a folder");
                return Err(Error::Usage(report.help("name a folder with -o FOLDER/")));
            }
            None => {
                let (name, format) = self.named(input, &self.beside, size, 0)?;
                let output = input.with_file_name(name);
                return Ok(Job::new(input, output, format));
            }
        };
        let format = match is_standard(&output) {
            // Of a pipe that is known when it is read.
            true => self.format.or_else(|| kept(input).filter(|_| !is_standard(input))),
            false => Some(self.format_of(&output, input)?),
        };
        Ok(Job::new(input, output, format))
    }

    /// Name and format of the output of `input` by a template, as result number `sample`.
    fn named(
        &self,
        input: &Path,
        template: &Template,
        size: &SizeOfFile<'_>,
        sample: u64,
    ) -> Result<(OsString, Option<Format>)> {
        let format = template.format().or(self.format);
        let format = format.or_else(|| kept(input)).unwrap_or(Format::Png);
        let file = match is_standard(input) {
            true => OsStr::new("stdin"),
            false => input.file_name().unwrap_or_default(),
        };
        let seed = self.facts.seed.wrapping_add(sample);
        let facts = Facts { seed, ..self.facts.clone() };
        let mut name = template.fill(file, &facts, &|| size(input))?;
        name.push(".");
        name.push(format.extension());
        Ok((name, Some(format)))
    }

    fn check(&self, jobs: &mut [Job]) -> Result<()> {
        refuse_collisions(jobs)?;
        let mut outputs = Outputs::new(self.existing, "--overwrite or --skip-existing");
        jobs.iter().for_each(|job| outputs.reads(&job.input));
        self.models.iter().for_each(|path| outputs.reads_below(path));
        for job in jobs.iter_mut().filter(|job| !is_standard(&job.output)) {
            job.skip = !outputs.claim(&job.output, &job.input)?;
        }
        Ok(())
    }
}

/// The error of a folder that cannot be listed.
pub fn cannot_list(folder: &Path, cause: &str) -> Error {
    let report = Report::new(format!("cannot list {}", folder.display()), cause);
    Error::Failed(report.code("unreadable").help("check the permissions of the folder"))
}

/// Pictures that are not read, in words: how many, and the first of them.
pub fn named(foreign: &[PathBuf]) -> String {
    let names: Vec<String> = foreign.iter().take(3).map(|p| p.display().to_string()).collect();
    let more = match foreign.len().saturating_sub(names.len()) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    let (count, s) = (foreign.len(), if foreign.len() == 1 { "" } else { "s" });
    format!("{count} picture{s} in formats that srk does not read: {}{more}", names.join(", "))
}

/// The format of a picture where srk writes it, too.
fn kept(input: &Path) -> Option<Format> {
    decode::kind(input)
}

/// Names every output that several inputs would have, with those inputs.
fn refuse_collisions(jobs: &[Job]) -> Result<()> {
    let mut inputs: HashMap<Identity, Vec<&Path>> = HashMap::new();
    for job in jobs {
        inputs.entry(identity(&job.output)).or_default().push(&job.input);
    }
    let mut lines = Vec::new();
    // Whether their extensions would tell all of them apart.
    let mut differ = true;
    for job in jobs {
        let together = inputs.remove(&identity(&job.output)).unwrap_or_default();
        if together.len() > 1 {
            let names: Vec<String> = together.iter().map(|p| p.display().to_string()).collect();
            lines.push(format!("{} -> {}", names.join(" and "), job.output.display()));
            let ends: HashSet<_> = together.iter().map(|p| p.extension()).collect();
            differ &= ends.len() == together.len();
        }
    }
    let what = match lines.len() {
        0 => return Ok(()),
        1 => "two inputs would be written to one file".to_owned(),
        n => format!("{n} times two inputs would be written to one file"),
    };
    let report = Report::new(what, lines.join("\n       ")).code("collision");
    Err(Error::Usage(report.help(match differ {
        true => "--name '{stem}_{ext}' keeps them apart, or upscale them into different folders",
        false => "upscale them into different folders",
    })))
}

/// `NAME` of a result's name `NAME_x4.png`, in its folder.
fn unscaled(file: &Path) -> Option<PathBuf> {
    let stem = file.file_stem()?.to_str()?;
    let (name, factor) = stem.rsplit_once("_x")?;
    let is_number = factor.starts_with(|c: char| c.is_ascii_digit())
        && factor.parse::<f64>().is_ok_and(|f| f > 0.0);
    (is_number && !name.is_empty()).then(|| file.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_results_are_known() {
        for (name, of) in
            [("a_x4.png", Some("a")), ("a_x2.5.png", Some("a")), ("a_b_x8.jpg", Some("a_b"))]
        {
            assert_eq!(unscaled(Path::new(name)), of.map(PathBuf::from), "{name}");
        }
        for name in
            ["a.png", "_x4.png", "a_x.png", "a_xray.png", "a_x-1.png", "ax4.png", "a_xinf.png"]
        {
            assert_eq!(unscaled(Path::new(name)), None, "{name}");
        }
    }
}
