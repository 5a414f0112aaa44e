//! Any model a user has: a name, a file of srk, the folder of a run, or weights of others, which are imported in
//! memory.
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::listing::{self, ENDINGS};
use super::{Imported, Request, foreign, hub, import, ncnn};
use crate::diffusion::system::{self, System};
use crate::engine::files;
use crate::error::{Error, Report, Result};
use crate::models::ModelConfig;
use crate::models::weights::WeightsFile;

/// The metadata of a system by which it is known that its weights were imported as it was opened.
pub const IMPORTED: &str = "srk.imported";

/// Opens a model by name, as a file of srk or of others, or as the folder of a training run.
///
/// # Errors
/// [`Error::Model`] if there is none of that name, or the file is damaged or of no network that srk knows.
pub fn open(model: &str) -> Result<System> {
    if model.starts_with(hub::PREFIX) {
        return open(&hub::file(model)?.display().to_string());
    }
    let path = Path::new(model);
    if let Some(cause) = files::dangling(path) {
        let report = Report::new(format!("there is no model {model}"), cause);
        return Err(Error::Model(report.code("not_found").help("copy the file itself")));
    }
    if System::embedded().contains(&model) || !path.is_file() || is_own(path) {
        return System::open(model);
    }
    let imported = imported(path)?;
    let mut system = System::from_file(&imported.file, model)?;
    system.notes.extend(imported.notes.into_iter().filter(|note| note.contains(foreign::NOT_RUN)));
    system.metadata.insert(IMPORTED.to_owned(), imported.format.to_owned());
    Ok(system)
}

/// A file of others as srk runs it.
///
/// # Errors
/// As [`open`].
pub fn imported(path: &Path) -> Result<Imported> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match ending.as_str() {
        "param" => ncnn::import(path, &Request::default()),
        "bin" if path.with_extension("param").is_file() => {
            ncnn::import(&path.with_extension("param"), &Request::default())
        }
        _ => import(path, &Request::default()),
    }
}

/// The weights in a file of others, or in one that Hugging Face's programs have downloaded: those of the network that it
/// is of, or else all tensors as it has them, such as those of an autoencoder alone.
///
/// # Errors
/// As [`open`].
pub fn weights(path: &Path) -> Result<WeightsFile> {
    if let Some(name) = path.to_str().filter(|name| name.starts_with(hub::PREFIX)) {
        return system::read(&hub::file(name)?);
    }
    let as_they_are = || super::tensors(files::read_file(path).ok()?, None).ok();
    match imported(path) {
        Ok(Imported { mut file, config, place: [_, prefix], .. }) => {
            // What SPAN is trained as, which running it folds.
            let ways = matches!(config.model, ModelConfig::Span(_)).then(as_they_are).flatten();
            for (name, tensor) in ways.into_iter().flatten() {
                let name = name.strip_prefix(&prefix).unwrap_or(&name).to_owned();
                file.tensors.entry(name).or_insert(tensor);
            }
            Ok(file)
        }
        Err(error) => {
            let tensors = as_they_are().ok_or(error)?;
            Ok(WeightsFile { tensors, ..Default::default() })
        }
    }
}

/// The head of a safetensors file of `size` bytes.
fn header(mut file: impl Read, size: u64) -> Option<Json> {
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    let mut text = Vec::new();
    file.take(length.min(size).min(100 << 20)).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// How a safetensors file of `size` bytes stores its numbers, such as `f16`, or `f16 f32` where it does both; none of
/// other files.
pub fn stored(file: impl Read, size: u64) -> Option<String> {
    let header = header(file, size)?;
    let tensors = header.as_object()?.iter().filter(|(name, _)| *name != "__metadata__");
    let mut kinds: Vec<String> =
        tensors.filter_map(|(_, t)| Some(t["dtype"].as_str()?.to_lowercase())).collect();
    kinds.sort_unstable();
    kinds.dedup();
    (!kinds.is_empty()).then(|| kinds.join(" "))
}

/// Whether a file says of itself that srk wrote it.
pub fn is_own(path: &Path) -> bool {
    let head = || -> Option<Json> {
        let file = File::open(path).ok()?;
        let size = file.metadata().ok()?.len();
        header(file, size)
    };
    let metadata = head().map(|h| h["__metadata__"].clone()).unwrap_or_default();
    metadata.as_object().is_some_and(|m| m.keys().any(|key| key.starts_with("srk.")))
}

/// The file of the model `name` in `folder`, as `-m FOLDER -n NAME` of ncnn's programs has it.
///
/// # Errors
/// [`Error::Usage`] if there is none; the names that are there are in it.
pub fn in_folder(folder: &Path, name: &str) -> Result<PathBuf> {
    let candidate = |ending: &&str| folder.join(format!("{name}.{ending}"));
    let with_ending = Some(folder.join(name)).filter(|p| p.is_file());
    if let Some(path) = with_ending.or_else(|| ENDINGS.iter().map(candidate).find(|p| p.is_file()))
    {
        return Ok(path);
    }
    let files = listing::files(folder)?.into_iter().filter(|file| file.is_file());
    let names: Vec<String> = files.filter_map(|file| stem(&file)).collect();
    let near = names.iter().min_by_key(|n| strsim::damerau_levenshtein(n, name));
    let what = format!("there is no model {name} in {}", folder.display());
    let cause = match names.is_empty() {
        true => "no file in it is a model".to_owned(),
        false => format!("it holds {}", super::first(&names)),
    };
    let report = Report::new(what, cause);
    Err(Error::Usage(match near {
        Some(near) => report.help(format!("did you mean -n {near}?")),
        None => report.help("srk models list DIR    shows what a folder holds"),
    }))
}

fn stem(path: &Path) -> Option<String> {
    Some(path.file_stem()?.to_string_lossy().into_owned())
}
