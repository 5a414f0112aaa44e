//! `srk data check`: what training had better not see.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::counted::with_progress;
use super::{common, voice};
use crate::data::survey::{self, Entry, Survey};
use crate::data::{folder, lows};
use crate::engine::files::{self, atomic_write};
use crate::engine::outputs::Outputs;
use crate::error::{Error, Report, Result};
use crate::training::config::Config;

const EXAMPLES: &str = "Examples:
  srk data check photos/                           broken, small, gray, CMYK, there twice
  srk data check photos/ --fix-list good.txt       a list of the others, which srk train takes as data.train.paths
  srk data check HR/ --low LRx4/ --scale 4         pairs: partners that are missing or of another size
  srk data check train/ --val valid/               pictures that are in both
  srk data check run.toml                          all that of the data of a configuration
";

/// Decode every picture and name those that training had better not see.
///
/// Broken ones, those with a side under --least, those without a colour, JPEGs of four inks (CMYK), and files with the
/// same pixels as another. With low resolutions also pairs that are none, with validation pictures those that are
/// trained on, too. Exit code 1 if any is broken, 6 if pairs do not fit or validation is trained on.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Check {
    /// Pictures, idx files, tar files, folders with all pictures below them, and lists (.txt) of such; or a
    /// configuration of srk train (.toml)
    #[arg(required = true, value_name = "FOLDER")]
    inputs: Vec<PathBuf>,
    /// Their low resolutions, which have the same names, with or without x4 at the end
    #[arg(long, value_name = "FOLDER", visible_alias = "lr")]
    low: Vec<PathBuf>,
    /// Pictures for validation, which are not to be trained on
    #[arg(long, value_name = "FOLDER")]
    val: Vec<PathBuf>,
    /// The factor between the resolutions
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    scale: u16,
    /// The shortest side, in pixels, that is not too small
    #[arg(long, value_name = "N", default_value_t = 64)]
    least: usize,
    /// Write a list of the pictures that are neither broken nor small nor there before, a path a line
    #[arg(long, value_name = "FILE")]
    fix_list: Option<PathBuf>,
    /// Replace that list
    #[arg(long)]
    overwrite: bool,
    /// Threads [default: all cores]
    #[arg(short = 'j', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
}

/// What is to be looked at.
struct Sets {
    train: Vec<PathBuf>,
    low: Vec<PathBuf>,
    val: Vec<PathBuf>,
    scale: usize,
}

impl Check {
    fn sets(&self) -> Result<Sets> {
        let is_config = |path: &&PathBuf| path.extension().is_some_and(|end| end == "toml");
        let Some(file) = self.inputs.iter().find(is_config) else {
            return Ok(Sets {
                train: self.inputs.clone(),
                low: self.low.clone(),
                val: self.val.clone(),
                scale: usize::from(self.scale),
            });
        };
        if self.inputs.len() > 1 || !self.low.is_empty() || !self.val.is_empty() {
            let what = format!("{} names all data itself", file.display());
            return Err(Error::Usage(Report::new(what, "more was given").help("name it alone")));
        }
        let text = files::read_text(file, 16 << 20).map_err(|e| {
            let report = Report::new(format!("cannot read {}", file.display()), e);
            Error::Usage(report.code("not_found").help("check the path and its spelling"))
        })?;
        let config = Config::read(&text, &file.display().to_string(), &[])?;
        let (data, scale) = (config.data, config.model.scale());
        let mut val = data.val.paths;
        val.extend(data.val.sets.into_values().flat_map(|set| set.paths));
        Ok(Sets { train: data.train.paths, low: data.train.low, val, scale })
    }
}

impl Sets {
    /// What the list may be: none of what is named, and no picture in it.
    fn outputs(&self, args: &Check) -> Result<Outputs> {
        let mut outputs = Outputs::overwriting(args.overwrite);
        args.inputs.iter().for_each(|path| outputs.reads(path));
        for paths in [&self.train, &self.low, &self.val].into_iter().filter(|p| !p.is_empty()) {
            paths.iter().for_each(|path| outputs.reads(path));
            folder::find(paths)?.iter().for_each(|source| outputs.reads(source.file()));
        }
        Ok(outputs)
    }
}

/// Findings, counted by kind.
#[derive(Default)]
struct Findings(BTreeMap<&'static str, usize>);

impl Findings {
    fn add(&mut self, kind: &'static str, path: &Path, cause: &str) {
        *self.0.entry(kind).or_default() += 1;
        voice::event(&json!({"event": "finding", "kind": kind, "file": path, "cause": cause}));
        let cause = if cause.is_empty() { String::new() } else { format!(": {cause}") };
        voice::result(format_args!("{kind:<10} {}{cause}", path.display()));
    }

    fn count(&self, kind: &str) -> usize {
        self.0.get(kind).copied().unwrap_or(0)
    }
}

pub(super) fn run(args: &Check) -> Result<()> {
    let sets = args.sets()?;
    if let Some(list) = &args.fix_list {
        sets.outputs(args)?.claim(list, list)?;
    }
    let surveyed = |name: &str, paths: &[PathBuf]| match paths.is_empty() {
        true => Ok(Survey::default()),
        false => with_progress(name, args.threads, |done| survey::survey(paths, done)),
    };
    let survey = surveyed("data check", &sets.train)?;
    let (low, val) = (surveyed("low", &sets.low)?, surveyed("validation", &sets.val)?);
    let mut findings = Findings::default();
    for (path, cause) in survey.broken.iter().chain(&low.broken).chain(&val.broken) {
        findings.add("broken", path, cause);
    }
    for entry in &survey.entries {
        let size = size(entry);
        let small = entry.width.min(entry.height) < args.least;
        for (is_so, kind, cause) in
            [(small, "small", size.as_str()), (entry.gray, "gray", ""), (entry.cmyk, "CMYK", "")]
        {
            if is_so {
                findings.add(kind, &entry.path, cause);
            }
        }
    }
    let twins = survey.twins();
    for [path, first] in &twins {
        findings.add("duplicate", path, &format!("the same pixels as {}", first.display()));
    }
    if !sets.low.is_empty() {
        pairs(&survey, &low, sets.scale, &mut findings);
    }
    for [path, other] in val.shared_with(&survey) {
        findings.add("leak", path, &format!("trained on as {}", other.display()));
    }
    if let Some(list) = &args.fix_list {
        let kept = kept(&survey, &twins, args.least);
        write_list(list, &kept)?;
        voice::status(format_args!(
            "{} in {}",
            common::counted(kept.len(), "picture"),
            list.display()
        ));
    }
    end(args, &sets, &findings, [&survey, &low, &val])
}

/// Says how many of what were found, and fails where training would.
fn end(args: &Check, sets: &Sets, found: &Findings, all: [&Survey; 3]) -> Result<()> {
    let [survey, low, val] = all;
    let of = |kind| found.count(kind);
    let (pictures, broken, twins) = (survey.len(), of("broken"), of("duplicate"));
    let mut counts = json!({"pictures": pictures, "broken": broken, "small": of("small"),
        "gray": of("gray"), "cmyk": of("CMYK"), "duplicates": twins});
    let mut line = format!(
        "{}: {broken} broken, {} with a side under {}, {} gray, {} CMYK, {}",
        common::counted(pictures, "picture"),
        of("small"),
        args.least,
        of("gray"),
        of("CMYK"),
        common::counted(twins, "duplicate")
    );
    if !sets.low.is_empty() {
        counts["low"] = low.len().into();
        counts["unpaired"] = of("unpaired").into();
        counts["size"] = of("size").into();
        line.push_str(&format!(", {} unpaired, {} of a wrong size", of("unpaired"), of("size")));
    }
    if !sets.val.is_empty() {
        counts["val"] = val.len().into();
        counts["leaks"] = of("leak").into();
        line.push_str(&format!(", {} of {} for validation trained on", of("leak"), val.len()));
    }
    voice::result(line);
    let wrong = of("unpaired") + of("size") + of("leak");
    if broken == 0 && wrong == 0 {
        counts["fix_list"] = json!(args.fix_list);
        voice::done(counts);
        return Ok(());
    }
    counts["event"] = "summary".into();
    voice::event(&counts);
    if broken > 0 {
        let everything = pictures + low.len() + val.len();
        let verb = if broken == 1 { "is" } else { "are" };
        let what = format!("{broken} of {} {verb} broken", common::counted(everything, "picture"));
        let broken = all.iter().find_map(|survey| survey.broken.first());
        let first = broken.map_or_else(String::new, |(path, _)| path.display().to_string());
        let report = Report::new(what, format!("first: {first}")).code("some_failed");
        return Err(Error::Failed(report.help("copy them again, or remove them")));
    }
    let what = match of("leak") {
        0 => "pictures and their low resolutions do not belong together",
        _ => "pictures for validation are trained on",
    };
    let report = Report::new(what, "the lines above name them");
    Err(Error::Check(report.help("remove them from one of the folders, or name others")))
}

fn size(entry: &Entry) -> String {
    format!("{}x{}", entry.width, entry.height)
}

/// Names pictures and low resolutions that have no partner, or one of another size.
fn pairs(survey: &Survey, low: &Survey, scale: usize, findings: &mut Findings) {
    let by_name = |survey: &Survey| -> BTreeMap<String, Entry> {
        let of = |entry: &Entry| (lows::key(&entry.path, scale), entry.clone());
        survey.entries.iter().map(of).collect()
    };
    let (highs, lows) = (by_name(survey), by_name(low));
    for (name, high) in &highs {
        match lows.get(name) {
            None => findings.add("unpaired", &high.path, "it has no low resolution"),
            Some(low) if (low.width, low.height) != (high.width / scale, high.height / scale) => {
                let cause = format!("{} beside {}, at a factor of {scale}", size(low), size(high));
                findings.add("size", &low.path, &cause);
            }
            Some(_) => {}
        }
    }
    for low in lows.iter().filter(|(name, _)| !highs.contains_key(*name)).map(|(_, low)| low) {
        findings.add("unpaired", &low.path, "it is no picture's low resolution");
    }
}

/// The pictures that training may see.
fn kept<'a>(survey: &'a Survey, twins: &[[&Path; 2]], least: usize) -> Vec<&'a Path> {
    let is_twin = |entry: &&Entry| twins.iter().any(|[path, _]| *path == entry.path);
    let large = |entry: &&Entry| entry.width.min(entry.height) >= least;
    let kept = survey.entries.iter().filter(large).filter(|entry| !is_twin(entry));
    kept.map(|entry| entry.path.as_path()).collect()
}

/// Writes a list that training reads: paths that hold from its folder on.
fn write_list(list: &Path, paths: &[&Path]) -> Result<()> {
    let mut text = String::new();
    for path in paths {
        // Those of a list are relative to it.
        let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        text.push_str(&format!("{}\n", whole.display()));
    }
    atomic_write(list, |writer| writer.write_all(text.as_bytes()))
}
