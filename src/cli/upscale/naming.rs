//! Inputs, outputs and their names in `srk upscale`.
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::again;
use super::arguments::Args;
use super::options::Naming;
use crate::cli::defaults;
use crate::diffusion::system::System;
use crate::engine::files::is_standard;
use crate::engine::outputs::identity;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::Format;
use crate::imaging::{self, folder};
use crate::upscale::jobs::{Existing, Jobs, Request};
use crate::upscale::names::{Facts, Template};
use crate::upscale::shard::Shard;

fn usage(what: &str, cause: &str, help: &str) -> Error {
    Error::Usage(Report::new(what, cause).help(help))
}

/// What goes in and where it goes, as far as the command line tells.
pub(super) struct Places {
    inputs: Vec<PathBuf>,
    output: Option<PathBuf>,
    into_folder: bool,
}

impl Places {
    /// Whether the output goes through a pipe.
    pub(super) fn is_piped(&self) -> bool {
        self.output.as_deref().is_some_and(is_standard)
    }
}

impl Args {
    /// Sorts inputs from the output, before anything is read.
    pub(super) fn places(&self) -> Result<Places> {
        let mut inputs = [self.named_inputs.as_slice(), &self.inputs].concat();
        let mut output = self.output.clone();
        refuse_resolutions(&inputs)?;
        let by_option = !self.named_inputs.is_empty();
        if output.is_none() && inputs.len() == 2 && !(by_option && self.inputs.is_empty()) {
            output = inputs.pop();
            refuse_second_input(inputs.first().map(PathBuf::as_path), output.as_deref())?;
        } else if output.is_none() && inputs.len() > 2 {
            return Err(usage(
                "several pictures need a folder to go to",
                "",
                "name it with -o FOLDER",
            ));
        }
        if inputs.iter().filter(|input| is_standard(input)).count() > 1 {
            return Err(usage("standard input can be read but once", "- stands twice", ""));
        }
        // What comes through a pipe goes on through one.
        if output.is_none() && matches!(&inputs[..], [only] if is_standard(only)) {
            output = Some("-".into());
        }
        let into_folder = inputs.len() > 1
            || inputs.iter().any(|input| input.is_dir())
            || output.as_deref().is_some_and(is_folder);
        if let Some(file) = output.as_deref().filter(|output| into_folder && is_file_name(output)) {
            return Err(refuse_file(file, &inputs));
        }
        let places = Places { inputs, output, into_folder };
        self.check_output(&places)?;
        Ok(places)
    }

    fn check_output(&self, places: &Places) -> Result<()> {
        let Some(output) = places.output.as_deref() else { return Ok(()) };
        if places.is_piped() {
            if places.into_folder || self.naming.samples.is_some_and(|n| n > 1) {
                let cause = "standard output takes one picture";
                return Err(usage("several pictures need a folder to go to", cause, "-o FOLDER"));
            }
            if std::io::stdout().is_terminal() && !self.dry_run {
                let help = "srk upscale ... - > out.png    or name a file";
                return Err(usage("a terminal shows no pictures", "the output is -", help));
            }
            return Ok(());
        }
        if places.into_folder {
            return Ok(());
        }
        self.encoding.check_name(output)?;
        // Settings of a file are for outputs whose name is not given.
        let named = |given: bool, id| given && !defaults::is_setting(id);
        if named(self.naming.template.is_some(), "template")
            || named(self.naming.suffix.is_some(), "suffix")
        {
            let what = format!("the output is called {} already", output.display());
            let cause = "--name and --suffix make names in a folder or beside the input";
            return Err(usage(&what, cause, "leave them out, or name a folder with -o FOLDER/"));
        }
        Ok(())
    }

    /// The part of the pictures that is wanted.
    fn shard(&self) -> Result<Option<Shard>> {
        let Some(wanted) = self.naming.shard else { return Ok(None) };
        let variable = |name: &str| std::env::var(name).ok();
        let refused = |cause: String| {
            usage("cannot tell which pictures are wanted", &cause, "--shard 2/8    names the part")
        };
        wanted.of(&variable).map(Some).map_err(refused)
    }

    /// The pictures and their outputs.
    pub(super) fn jobs(&self, places: Places, model: &str, system: &System) -> Result<Jobs> {
        let Naming { template, suffix, overwrite, skip_existing, .. } = &self.naming;
        let piped = places.is_piped();
        let given = template.clone().or_else(|| suffix.clone());
        let typed = self.encoding.is_format_typed();
        let given = given.map(|template| match typed && defaults::is_setting("template") {
            true => template.of_any_format(),
            false => template,
        });
        let plain = |text: &str| {
            Template::parse(text).map_err(|cause| usage("a name cannot be made", &cause, ""))
        };
        let beside = plain(&format!("{{stem}}{}", self.sizes.suffix(system.scale())))?;
        let model = Path::new(model).file_stem().unwrap_or_default().to_string_lossy();
        if let Some(template) = given.as_ref().filter(|template| template.format().is_some())
            && typed
            && self.encoding.format(piped) != template.format()
        {
            return Err(usage(
                "outputs are to be two formats at once",
                "--name ends in one and -f is another",
                "leave one of them out",
            ));
        }
        let request = Request {
            inputs: places.inputs,
            output: places.output,
            into_folder: places.into_folder,
            recursive: self.care.recursive,
            include: self.care.include.clone(),
            exclude: self.care.exclude.clone(),
            format: self.encoding.format(piped),
            asked: self.encoding.is_format_given(),
            beside: given.clone().unwrap_or(beside),
            inside: given.unwrap_or(plain("{stem}")?),
            facts: Facts {
                model: model.into_owned(),
                scale: self.sizes.label(system.scale()),
                seed: self.seed.number,
            },
            existing: match (overwrite, skip_existing) {
                (true, _) => Existing::Overwrite,
                (_, true) => Existing::Skip,
                _ => Existing::Refuse,
            },
            models: self.model.paths(),
            samples: self.naming.samples.unwrap_or(1),
            shard: self.shard()?,
            again: match &self.naming.from_report {
                Some(report) => again::failures(report)?,
                None => Vec::new(),
            },
        };
        request.jobs(&|input| {
            let header = imaging::header::of_file(input).ok_or_else(|| {
                let what = format!("cannot name the output of {}", input.display());
                let report = Report::new(what, "the size of the picture cannot be read");
                Error::Failed(report.help("leave {w} and {h} out of the name"))
            })?;
            Ok(self.sizes.target((header.width, header.height), system.scale()))
        })
    }
}

/// Whether an output is a folder, there or not: its name ends so, or has no extension.
fn is_folder(output: &Path) -> bool {
    let ends = output.to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]);
    let new = output.extension().is_none() && !is_standard(output) && !output.exists();
    ends || output.is_dir() || new
}

/// Whether an output can only be a file: it is one, or its name ends like that of a picture.
fn is_file_name(output: &Path) -> bool {
    let ending = output.extension().unwrap_or_default().to_string_lossy();
    let named = Format::from_extension(&ending).is_some();
    !is_standard(output) && !is_folder(output) && (output.is_file() || named)
}

fn refuse_file(file: &Path, inputs: &[PathBuf]) -> Error {
    let cause = match inputs {
        [folder] => format!("{} is a folder of pictures", folder.display()),
        _ => format!("{} inputs were named", inputs.len()),
    };
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => file.with_extension(""),
    };
    let help = format!("-o {}/    puts the outputs into a folder", folder.display());
    usage(&format!("{} is one file", file.display()), &cause, &help)
}

/// Refuses `-r 1920x1080`, which is how upscayl is told a size.
fn refuse_resolutions(inputs: &[PathBuf]) -> Result<()> {
    let is_size = |path: &PathBuf| {
        let text = path.to_string_lossy();
        let sides = text.split_once('x').map(|(w, h)| [w.parse::<u32>(), h.parse::<u32>()]);
        sides.is_some_and(|sides| sides.iter().all(std::result::Result::is_ok)) && !path.exists()
    };
    match inputs.iter().find(|path| is_size(path)) {
        Some(size) => {
            let size = size.display();
            Err(usage(
                &format!("{size} is no picture"),
                "-r searches folders, and takes no size",
                &format!("--size {size}"),
            ))
        }
        None => Ok(()),
    }
}

/// Refuses a second name that may be an input: a pattern such as `*.png` may have become two pictures. Results of
/// srk, and what is no picture, are none.
fn refuse_second_input(first: Option<&Path>, second: Option<&Path>) -> Result<()> {
    let (Some(first), Some(second)) = (first, second) else { return Ok(()) };
    let is_input =
        |path: &Path| imaging::decode::is_picture(path) && imaging::stamp::of_file(path).is_none();
    let held =
        if second.is_dir() { folder::pictures(second, false).unwrap_or_default() } else { vec![] };
    let may_be_input = match second.is_dir() {
        true => held.iter().any(|file| is_input(file)),
        false => second.is_file() && is_input(second),
    };
    // That no picture becomes its own result is said later, and better.
    if !may_be_input || identity(first) == identity(second) {
        return Ok(());
    }
    let name = second.display();
    let (kind, replace) = match second.is_dir() {
        true => ("a folder with pictures", ""),
        false => ("a picture that exists", " --overwrite"),
    };
    let what = format!("cannot tell whether {name} is to be enlarged or written");
    let report = Report::new(what, format!("it is {kind}"));
    let help =
        format!("-o {name}{replace}    writes to it; -o FOLDER    enlarges both into a folder");
    Err(Error::Usage(report.help(help)))
}
