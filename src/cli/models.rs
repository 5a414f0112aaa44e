//! `srk models`.
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{brief, refuse_ending_of_torch};
use super::import as import_command;
use super::print::line as print;
use super::voice;
use crate::diffusion::system::{DEGRADE, System};
use crate::engine::cuda::sha256;
use crate::engine::device::{DType, Device};
use crate::engine::memory::in_words;
use crate::engine::outputs::Outputs;
use crate::engine::parameter::Parameter;
use crate::engine::spelling;
use crate::error::{Error, Report, Result};
use crate::import::{self, Request, features, listing, open};
use crate::models::perceptual::folder::Folder;
use crate::models::span::SpanConfig;
use crate::models::weights::WeightsFile;
use crate::models::{ModelConfig, run_folder};
use crate::training::tasks::grid;

const EXAMPLES: &str = "Examples:
  srk models list                                  those in this binary
  srk models list ~/models                         what the files of a folder are
  srk models info RealESRGAN_x4plus.pth            network, sizes, process, licence
  srk models import net.pth                        a file of srk of a checkpoint of others
  srk models export runs/mine/ckpt/40000/ema.safetensors mine.safetensors --license CC0-1.0
  srk models verify *.safetensors                  whole, finite, and their SHA-256
";

/// Show, check and convert models.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The models that this binary carries, or what the files of a folder are
    List {
        /// A folder of weights files: srk's own, .pth, .pt, .ckpt, .safetensors
        folder: Option<PathBuf>,
    },
    /// What a model is made of
    Info {
        /// A model's name or a weights file
        model: String,
        /// Also list every tensor
        #[arg(long)]
        tensors: bool,
    },
    Import(import_command::Args),
    /// Read whole files, check that their tensors fit and are finite, and print their SHA-256; exit code 3 if not
    Verify {
        /// Weights files, or names of models of this binary
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// The file that a model is read from; without one, the folder of the weights of perceptual distances
    Path {
        /// A weights file, or the folder of a run
        model: Option<PathBuf>,
    },
    /// Turn a checkpoint into a model file to share: f16, with licence and default steps
    Export {
        /// A weights file, such as runs/NAME/ckpt/STEP/ema.safetensors
        input: PathBuf,
        /// The file to write
        output: PathBuf,
        /// Calls of the network that a picture takes by default [default: all]
        #[arg(long, value_name = "N")]
        default_steps: Option<usize>,
        /// How much of a JPEG's blocks is taken out of a picture before the network sees it, 0 to 1 [default: as INPUT]
        #[arg(long, value_name = "SHARE", value_parser = share)]
        deblock: Option<f32>,
        /// What users may do with the weights
        #[arg(long, value_name = "TEXT")]
        license: Option<String>,
        /// Store 32 bits a number
        #[arg(long)]
        f32: bool,
        /// Replace the output if it is there
        #[arg(long)]
        overwrite: bool,
    },
}

pub(super) fn run(args: Args) -> Result<()> {
    match args.command {
        Command::List { folder: None } => list(voice::json()),
        Command::List { folder: Some(folder) } => list_folder(&folder, voice::json()),
        Command::Info { model, tensors } => info(&model, tensors, voice::json()),
        Command::Import(args) => import_command::run(args),
        Command::Verify { files } => verify(&files),
        Command::Path { model } => path_of(model.as_deref()),
        Command::Export { input, output, default_steps, deblock, license, f32, overwrite } => {
            let mut outputs = Outputs::overwriting(overwrite);
            outputs.reads_below(&input);
            refuse_ending_of_torch(&output)?;
            outputs.claim(&output, &input)?;
            let name = input.display().to_string();
            let system = open::open(&name)?;
            system.notes.iter().for_each(|note| voice::say(format_args!("warning: {note}")));
            let system = folded(system, &input)?;
            let metadata = system.metadata.clone();
            let file = WeightsFile::of(&system.network.state(), metadata)?;
            let mut config = system.config;
            config.default_steps = default_steps;
            config.deblock = deblock.unwrap_or(config.deblock);
            let keep = ["srk.step", "srk.recipe", "srk.license", "srk.assumed", DEGRADE];
            let mut extra: Vec<(&str, String)> =
                keep.iter().filter_map(|k| Some((*k, file.metadata.get(*k)?.clone()))).collect();
            // What was trained here is called as its run was.
            if !file.metadata.contains_key("srk.recipe")
                && let Some(run) = file.metadata.get("srk.run")
            {
                extra.push(("srk.recipe", run.clone()));
            }
            extra.extend(license.map(|l| ("srk.license", l)));
            let metadata = config.metadata(&extra);
            // Refuse what could not be opened again.
            System::from_file(&WeightsFile { metadata: metadata.clone(), ..file.clone() }, &name)?;
            let stored = if f32 { DType::F32 } else { DType::F16 };
            WeightsFile { metadata, ..file }.write(&output, stored)?;
            voice::done(json!({"written": output}));
            Ok(())
        }
    }
}

/// A number of 0 to 1.
fn share(text: &str) -> std::result::Result<f32, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "it is a number from 0 to 1".to_owned())
}

/// The columns of [`list`] and [`list_folder`].
fn row(name: &str, d: &Description, stored: &Stored, place: &str) -> String {
    format!(
        "{name:<24} {:<16} x{:<2} {:>2} of {:<4} {:>11} {:>9} {:>9}  {:<14}  {}",
        d.arch,
        d.scale,
        d.default_steps,
        d.steps,
        d.parameters,
        stored.precision,
        in_words(stored.bytes),
        place,
        d.license
    )
}

fn heads() -> String {
    format!(
        "{:<24} {:<16} {:<3} {:>10} {:>11} {:>9} {:>9}  {:<14}  licence",
        "name", "network", "x", "steps", "parameters", "stored", "size", "where"
    )
}

/// How a file holds its numbers.
struct Stored {
    precision: String,
    bytes: u64,
}

impl Stored {
    fn of(name: &str) -> Self {
        let (precision, bytes) = match System::embedded_bytes(name) {
            Some(bytes) => (open::stored(bytes, bytes.len() as u64), bytes.len() as u64),
            None => {
                let bytes = std::fs::metadata(name).map_or(0, |file| file.len());
                (std::fs::File::open(name).ok().and_then(|file| open::stored(file, bytes)), bytes)
            }
        };
        Self { precision: precision.unwrap_or_else(|| "-".to_owned()), bytes }
    }

    /// Adds it to a record.
    fn extend(&self, record: &mut serde_json::Value) {
        record["precision"] = self.precision.as_str().into();
        record["bytes"] = self.bytes.into();
    }
}

fn list(as_json: bool) -> Result<()> {
    if !as_json {
        print(heads());
    }
    for name in System::embedded() {
        let system = System::open(name)?;
        let (d, stored) = (Description::of(&system), Stored::of(name));
        if as_json {
            let mut record = d.json();
            stored.extend(&mut record);
            record["where"] = "in this binary".into();
            print(record);
        } else {
            print(row(name, &d, &stored, "in this binary"));
        }
    }
    if !as_json {
        print("A weights file works wherever a name does: srk upscale -m FILE in.png");
    }
    Ok(())
}

fn info(model: &str, tensors: bool, as_json: bool) -> Result<()> {
    let system = open::open(model).map_err(|e| with_contents(e, model))?;
    system.notes.iter().for_each(|note| crate::cli::print::note(format_args!("warning: {note}")));
    let d = Description::of(&system);
    if as_json {
        let mut record = d.json();
        let text = |key: &str| system.metadata.get(key).cloned();
        for key in ["config", "diffusion"] {
            // As the file has it: sizes of the network and its process.
            let value = text(&format!("srk.{key}")).and_then(|t| serde_json::from_str(&t).ok());
            record[key] = value.unwrap_or_default();
        }
        record["source"] = text("srk.source").into();
        record["receptive_field"] = system.network.geometry().receptive_field.into();
        if tensors {
            let all = system.network.state();
            let of = |p: &Parameter| (p.name().to_owned(), json!(p.value().shape()));
            record["tensors"] = all.iter().map(of).collect::<serde_json::Map<_, _>>().into();
        }
        print(record);
        return Ok(());
    }
    let rows = [
        ("model", d.name.clone()),
        ("network", d.arch.clone()),
        ("scale", d.scale.to_string()),
        ("parameters", d.parameters.to_string()),
        ("steps", format!("{} by default, {} trained", d.default_steps, d.steps)),
        ("receptive field", d.field.clone()),
        (
            "deblock",
            Some(system.config.deblock)
                .filter(|&d| d > 0.0)
                .map_or(String::new(), |d| d.to_string()),
        ),
        ("licence", d.license.clone()),
        ("source", system.metadata.get("srk.source").cloned().unwrap_or_default()),
        ("assumed", system.metadata.get("srk.assumed").cloned().unwrap_or_default()),
        ("config", brief(system.metadata.get("srk.config").cloned().unwrap_or_default())),
        ("diffusion", system.metadata.get("srk.diffusion").cloned().unwrap_or_default()),
    ];
    for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        print(format_args!("{key:<16} {value}"));
    }
    if tensors {
        for p in system.network.state() {
            print(format_args!("{:<48} {:?}", p.name(), p.value().shape()));
        }
    }
    Ok(())
}

/// Whether every file can be used, and what its bytes are.
fn verify(files: &[PathBuf]) -> Result<()> {
    let mut failed = Vec::new();
    for file in files {
        // Of a run the file that stands for it.
        let held = match file.is_dir() {
            true => run_folder::averages(file, &mut Vec::new()).ok().map(|(_, held)| held),
            false => Some(file.clone()).filter(|file| file.is_file()),
        };
        let bytes = held.and_then(|held| std::fs::read(held).ok());
        let sum = bytes.map(|bytes| sha256::hex(&bytes));
        let shown = sum.as_deref().unwrap_or("in this binary");
        let mut record = json!({"event": "model", "file": file, "sha256": sum});
        match kind_of(file) {
            Ok(kind) => {
                record["status"] = "ok".into();
                record["what"] = kind.as_str().into();
                voice::event(&record);
                // As sha256sum has it, which then can check it.
                voice::result(format_args!("{shown}  {}", file.display()));
                voice::say(format_args!("{}: {kind}", file.display()));
            }
            Err(error) => {
                record["status"] = "failed".into();
                voice::event(&voice::with_error(record, &error));
                voice::result(format_args!("FAILED  {}: {}", file.display(), cause_of(&error)));
                failed.push(error);
            }
        }
    }
    match (failed.pop(), files.len()) {
        (None, _) => {
            voice::done(json!({"verified": files.len()}));
            Ok(())
        }
        (Some(error), 1) => Err(error),
        (Some(_), all) => {
            let what = format!("{} of {all} files cannot be used", failed.len() + 1);
            let report = Report::new(what, "the lines above say why").code("some_failed");
            Err(Error::Model(report.help("copy or download them again")))
        }
    }
}

/// What a file holds, once all of it was read and fits.
fn kind_of(file: &Path) -> Result<String> {
    let error = match open::open(&file.display().to_string()) {
        Ok(system) => {
            // Of a run a checkpoint was passed over.
            if let (true, Some(note)) = (file.is_dir(), system.notes.first()) {
                let what = format!("a checkpoint of {} is damaged or gone", file.display());
                let help = "the checkpoint that is named can be used: name its folder";
                return Err(Error::Model(Report::new(what, note).help(help)));
            }
            let d = Description::of(&system);
            return Ok(format!("{} x{}, {} parameters", d.arch, d.scale, d.parameters));
        }
        Err(error) => error,
    };
    // Of another kind: networks to learn from, and those that judge pictures.
    if file.is_file() {
        if grid::open(file, None, &Device::Cpu, &mut Vec::new()).is_ok() {
            return Ok("weights for srk sample".to_owned());
        }
        let own = WeightsFile::read(file).ok();
        if let Some(what) = own.as_ref().and_then(|own| own.metadata.get("srk.features")) {
            return Ok(format!("features, {what}"));
        }
        if let Ok(Some(features)) = features::features(file, None) {
            return Ok(format!("features, {}", features.what));
        }
    }
    Err(error)
}

/// Prints where weights are.
fn path_of(model: Option<&Path>) -> Result<()> {
    let path = match model {
        None => Folder::open(None).path().to_owned(),
        Some(name) if System::embedded().iter().any(|known| Path::new(known) == name) => {
            let report =
                Report::new(format!("{} is no file", name.display()), "it is in srk itself");
            return Err(Error::Usage(report.help("srk models info NAME    shows what it is")));
        }
        Some(run) if run.is_dir() => {
            let mut notes = Vec::new();
            let (_, path) = run_folder::averages(run, &mut notes)?;
            notes.iter().for_each(|note| voice::say(format_args!("warning: {note}")));
            path
        }
        Some(file) if file.is_file() => file.to_owned(),
        Some(other) => {
            let report = Report::new(format!("there is no {}", other.display()), "");
            let help = spelling::help(other, "srk models list    shows the models in this binary");
            return Err(Error::Model(report.code("not_found").help(help)));
        }
    };
    voice::result(path.display());
    voice::done(json!({"path": path}));
    Ok(())
}

/// The system with one convolution in place of ways side by side, which only training needs.
fn folded(system: System, input: &Path) -> Result<System> {
    let ModelConfig::Span(SpanConfig { branches: true, range, mean, .. }) = system.config.model
    else {
        return Ok(system);
    };
    let overrides = vec![format!("model.range={range}"), format!("model.mean={mean:?}")];
    let request = Request { overrides, ..Request::default() };
    let file = match input.is_dir() {
        true => run_folder::averages(input, &mut Vec::new())?.1,
        false => input.to_owned(),
    };
    let mut imported = import::import(&file, &request)?;
    // All that the file says of itself but for the network.
    let mut metadata = system.metadata;
    metadata.extend(imported.file.metadata.remove_entry("srk.config"));
    let file = WeightsFile { metadata, tensors: imported.file.tensors };
    System::from_file(&file, &system.name)
}

/// A line for each file of a folder: what it is, or why it cannot be used.
fn list_folder(folder: &Path, as_json: bool) -> Result<()> {
    let files = listing::files(folder)?;
    if !as_json && !files.is_empty() {
        print(heads());
    }
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let described = open::open(&file.display().to_string()).map(|s| Description::of(&s));
        let line = match described {
            Ok(d) if as_json => {
                let mut line = json!({"file": name, "arch": d.arch, "scale": d.scale,
                    "parameters": d.parameters, "license": d.license, "where": file});
                Stored::of(&file.display().to_string()).extend(&mut line);
                line.to_string()
            }
            Ok(d) => row(&name, &d, &Stored::of(&file.display().to_string()), "this folder"),
            Err(e) if as_json => {
                let mut line = json!({"file": name, "code": e.code()});
                line["error"] = cause_of(&e).into();
                line.to_string()
            }
            Err(e) => format!("{name:<24} {}", cause_of(&e)),
        };
        print(&line);
    }
    if files.is_empty() && !as_json {
        print(format_args!("{} holds no weights files", folder.display()));
    }
    Ok(())
}

/// Why a model cannot be used, in a line.
fn cause_of(error: &Error) -> String {
    match error {
        Error::Model(report) | Error::Usage(report) => report.cause.clone(),
        other => other.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Adds what a file holds to the error that it cannot be used.
fn with_contents(error: Error, model: &str) -> Error {
    let Ok(file) = WeightsFile::read(std::path::Path::new(model)) else { return error };
    let Error::Model(report) = error else { return error };
    let names: Vec<&str> = file.tensors.keys().take(3).map(String::as_str).collect();
    let cause =
        format!("{}; {} tensors: {} ...", report.cause, file.tensors.len(), names.join(", "));
    let help = match report.help.is_empty() {
        true => "srk models list    shows what srk runs".to_owned(),
        false => report.help,
    };
    Error::Model(Report::new(report.what, cause).help(help))
}

/// What users ask about a model.
struct Description {
    name: String,
    arch: String,
    scale: usize,
    parameters: usize,
    steps: usize,
    default_steps: usize,
    field: String,
    license: String,
}

impl Description {
    fn of(system: &System) -> Self {
        let get = |key: &str| system.metadata.get(key).cloned();
        let field = match system.network.geometry().receptive_field {
            Some(pixels) => format!("{pixels} input pixels a step"),
            None => "the whole picture".to_owned(),
        };
        Self {
            name: system.name.clone(),
            arch: get("srk.arch").unwrap_or_default(),
            scale: system.scale(),
            parameters: system.network.parameter_count(),
            steps: system.config.diffusion.process.steps(),
            default_steps: system.default_steps(),
            field,
            license: get("srk.license").unwrap_or_else(|| "licence not stated".to_owned()),
        }
    }

    fn json(&self) -> serde_json::Value {
        json!({"name": self.name, "arch": self.arch, "scale": self.scale,
            "parameters": self.parameters, "steps": self.steps,
            "default_steps": self.default_steps, "license": self.license})
    }
}
