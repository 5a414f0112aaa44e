//! From the values of a checkpoint to a weights file.
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::archive::Archive;
use super::detect::Known;
use super::frozen::Frozen;
use super::imported::{Array, Imported, Request, overridden};
use super::pickle::Parsed;
use super::state_dict::{StateDict, is_harmless};
use super::storage::REPEATS;
use super::{archive, detect, mistaken, ncnn, schedule, shifts, storage};
use crate::diffusion::sampler::Diffusion;
use crate::diffusion::system::SystemConfig;
use crate::engine::document;
use crate::engine::parameter::Parameter;
use crate::error::{Error, Report, Result};
use crate::models::weights::{WeightsFile, file_shape};
use crate::models::{ModelConfig, Shapes};
use crate::training::config::Config;
use crate::training::recipes;

/// Reads the checkpoint `path`.
///
/// # Errors
/// [`Error::Model`] if it is damaged, of no network that srk knows, or does not fit it;
/// [`Error::Usage`] if `request` asks for what there is not.
pub fn import(path: &Path, request: &Request) -> Result<Imported> {
    if ncnn::is_param(path) {
        return ncnn::import(path, request);
    }
    let name = path.display().to_string();
    let refuse = |cause: String| refuse(&name, cause);
    let file = File::open(path).map_err(|e| refuse(e.to_string()))?;
    let size = file.metadata().map_err(|e| refuse(e.to_string()))?.len();
    let archive = Archive::open(Box::new(file), size).map_err(refuse)?;
    import_archive(archive, path, request)
}

/// Every tensor of the state dict in a checkpoint, under the names it has there.
///
/// # Errors
/// If the checkpoint is damaged or holds no tensors.
pub fn tensors(bytes: Vec<u8>, key: Option<&str>) -> Result<BTreeMap<String, Array>> {
    let read = || -> Parsed<_> {
        let mut archive = archive::of_bytes(bytes)?;
        let state = StateDict::find(&archive, key)?;
        let read = |(name, tensor): (String, storage::Tensor)| {
            let values = archive.read(&tensor)?;
            Ok((name, (tensor.shape, values)))
        };
        state.tensors.into_iter().map(read).collect()
    };
    read().map_err(|cause| refuse("the checkpoint", cause))
}

pub(super) fn refuse(name: &str, cause: String) -> Error {
    let help = match mistaken::help(&cause) {
        Some(help) => help,
        None if cause.contains("TorchScript") => {
            "take its weights in Python: torch.save(torch.jit.load(FILE).state_dict(), OTHER)"
        }
        None if cause.contains("state of a training") => {
            "the weights are in another file of that training, such as net_g_ITER.pth or NAME_gen.pth"
        }
        None if cause.contains("which srk does not read") => {
            "convert it in Python: torch.save({k: v.float() for k, v in torch.load(FILE).items()}, OTHER), with \
             safetensors.torch.load_file(FILE) for a .safetensors"
        }
        None if cause.contains(REPEATS) => {
            "save it again in Python: torch.save({k: v.contiguous() for k, v in torch.load(FILE).items()}, OTHER), of the entry \
             with the weights if there are several"
        }
        None if cause.contains("it is one state dict") => "leave --weights out",
        None if cause.contains("it has no entry") => {
            "--weights KEY    names one of these; without it srk chooses"
        }
        None if cause.contains("no weights") => "srk reads .pth, .pt, .ckpt and .safetensors",
        None if cause.contains("several state dicts") => {
            "choose one: srk models import FILE --weights KEY"
        }
        None if cause.contains("no dict of tensors") => {
            "save it again: torch.save(model.state_dict(), FILE); srk models import FILE then says more"
        }
        None if cause.contains("compressed") || cause.contains("big-endian") => {
            "load it in Python and save it again: torch.save(torch.load(FILE), OTHER)"
        }
        None => "copy or download the file again; srk reads torch.save's files and safetensors",
    };
    Error::Model(Report::new(format!("cannot import {name}"), cause).help(help))
}

fn import_archive(mut archive: Archive, path: &Path, request: &Request) -> Result<Imported> {
    let name = path.display().to_string();
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wanted = match &request.arch {
        None => None,
        Some(arch) => Some(detect::by_name(arch).ok_or_else(|| unknown_arch(arch))?),
    };
    let found = StateDict::find(&archive, request.weights.as_deref());
    let mut state = found.map_err(|e| refuse(&name, e))?;
    state.unwrap(wanted, &file);
    let shapes = state.shapes(&file);
    let known =
        wanted.or_else(|| detect::identify(&shapes)).ok_or_else(|| not_known(&name, &shapes))?;
    let mut frozen = match &request.frozen {
        None => None,
        Some(part) => {
            let refuse = |cause| refuse(&part.display().to_string(), cause);
            Some(Frozen::open(part, known, &mut state).map_err(refuse)?)
        }
    };
    let shapes = state.shapes(&file);
    let mut model = known.config(&shapes).ok_or_else(|| {
        let report = Report::new(format!("cannot import {name}"), detect::unfit(known, &shapes));
        Error::Model(report.help(format!(
            "docs/models.md says which sizes of {} srk runs; a damaged file may be copied again",
            known.name
        )))
    })?;
    if !model.is_whole() {
        let report =
            Report::new(format!("{name} is half of a system"), "its autoencoder is missing");
        return Err(Error::Usage(
            report.help(
                "srk models import FILE --frozen OTHER    names the autoencoder's checkpoint",
            ),
        ));
    }
    let mut told = match model.is_settled() {
        true => known.assumed.iter().flat_map(|a| a.keys).copied().collect(),
        false => Vec::new(),
    };
    let by_shifts = shifts::adopt(&mut model, &mut state, &mut archive);
    told.extend_from_slice(by_shifts.map_err(|e| refuse(&name, e))?);
    let (diffusion, process) = diffusion_of(known, &model, request)?;
    let mut notes: Vec<String> = archive.tree.foreign.alarm().into_iter().collect();
    let mut config = SystemConfig::new(model, diffusion);
    if let Some(betas) = state.get("betas") {
        let betas = archive.read(betas).map_err(|e| refuse(&name, e))?;
        notes.extend(schedule::adopt(&mut config.diffusion, &betas));
    }
    let scale = config.model.scale();
    told.extend(overridden(&mut config, &request.overrides)?);
    let held: usize =
        state.shapes(&file).shapes.values().map(|s| s.iter().product::<usize>()).sum();
    let built = config.model.build_within(0, held + held / 4 + (1 << 20));
    let network = built.map_err(|unbuilt| unbuilt.of_file(&name))?;
    let ignored = compare(&network.state(), &state, &name, known, request);
    let ignored = ignored.map_err(|error| match config.model.scale() {
        asked if asked == scale => error,
        asked => of_factor(&name, scale, asked, &error),
    })?;
    let mut tensors = BTreeMap::new();
    for p in network.state() {
        // There, as was compared.
        let Some(tensor) = state.get(p.name()) else { continue };
        let from = match &mut frozen {
            Some(part) if p.name().starts_with(part.prefix) => &mut part.archive,
            _ => &mut archive,
        };
        let values = match state.ways_of(p.name()) {
            Some((ways, is_bias)) => ways
                .fold(&mut |t| from.read(t))
                .map(|[weight, bias]| if is_bias { bias } else { weight }),
            None => from.read(tensor),
        };
        let values = values.map_err(|e| refuse(&name, format!("{}: {e}", p.name())))?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(refuse(
                &name,
                format!("{}[{i}] is {}, not a finite number", p.name(), values[i]),
            ));
        }
        tensors.insert(p.name().to_owned(), (tensor.shape.clone(), values));
    }
    let mut extra = vec![("srk.recipe", format!("imported from {file}"))];
    extra.extend(request.license.clone().map(|l| ("srk.license", l)));
    let assumed = known.assumptions(&told);
    if !assumed.is_empty() {
        extra.push(("srk.assumed", assumed.clone()));
    }
    let file = WeightsFile { metadata: config.metadata(&extra), tensors };
    // Refuse what could not be opened again; that the tensors fit was seen above.
    SystemConfig::of(&file, &name)?;
    let parameters = network.parameter_count();
    let (format, place) = (archive.format, [state.key, state.prefix]);
    Ok(Imported { file, config, parameters, format, place, process, assumed, ignored, notes })
}

fn unknown_arch(name: &str) -> Error {
    let names: Vec<&str> = detect::known().map(|k| k.name).collect();
    let nearest = names.iter().min_by_key(|k| strsim::damerau_levenshtein(k, name)).unwrap_or(&"");
    let report =
        Report::new(format!("srk imports no {name}"), format!("it knows {}", names.join(", ")));
    Error::Usage(report.help(format!("did you mean --arch {nearest}?")))
}

fn not_known(name: &str, shapes: &Shapes) -> Error {
    let first = shapes.shapes.keys().next().map_or("none", String::as_str);
    let names: Vec<&str> = detect::known().map(|k| k.name).collect();
    let near = match detect::nearest(shapes) {
        Some((known, (found, all))) if found > 0 => {
            format!("; nearest is {}, {found} of whose {all} names are there", known.name)
        }
        _ => String::new(),
    };
    let cause = format!(
        "its {} tensors (first \"{first}\") are of no network that srk knows{near}",
        shapes.shapes.len()
    );
    let report = Report::new(format!("cannot import {name}"), cause);
    Error::Model(report.help(format!(
        "srk models import FILE --arch NAME    says what is missing; it knows {}",
        names.join(", ")
    )))
}

/// Refuses tensors that are missing, of another shape, or that the network does not have; the names of
/// those that are left out.
fn compare(
    parameters: &[Parameter],
    state: &StateDict,
    name: &str,
    known: &Known,
    request: &Request,
) -> Result<Vec<String>> {
    let (mut missing, mut wrong) = (Vec::new(), Vec::new());
    let mut unexpected: BTreeMap<&str, ()> =
        state.tensors.keys().chain(state.beside.keys()).map(|k| (k.as_str(), ())).collect();
    for p in parameters {
        unexpected.remove(p.name());
        let shape = file_shape(p.layout(), p.value().shape());
        match state.get(p.name()) {
            None => missing.push(p.name().to_owned()),
            Some(t) if t.shape != shape => {
                wrong.push(format!("{} {:?} instead of {shape:?}", p.name(), t.shape));
            }
            Some(_) => {}
        }
    }
    let (ignored, strange): (Vec<String>, Vec<String>) = unexpected
        .into_keys()
        .map(str::to_owned)
        .partition(|k| is_harmless(k) || state.is_of_judge(k) || request.ignore_unexpected);
    if missing.is_empty() && wrong.is_empty() && strange.is_empty() {
        return Ok(ignored);
    }
    let counted = [("missing", &missing), ("of another shape", &wrong), ("unexpected", &strange)];
    let parts: Vec<String> = counted
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(what, list)| format!("{} are {what} ({})", list.len(), first(list)))
        .collect();
    let cause =
        format!("of the {} tensors of {}, {}", parameters.len(), known.name, parts.join(", "));
    let help = match missing.is_empty() && wrong.is_empty() {
        true => "srk models import FILE --ignore-unexpected    leaves the unexpected ones out",
        false => {
            "srk models import FILE --arch NAME takes another network, --set model.KEY=VALUE another size"
        }
    };
    Err(Error::Model(Report::new(format!("{name} does not fit the network"), cause).help(help)))
}

/// That a file whose tensors tell its factor was asked for another.
fn of_factor(name: &str, scale: usize, asked: usize, error: &Error) -> Error {
    let cause = error.report().map_or_else(String::new, |report| report.cause.clone());
    let what = format!("{name} is of factor {scale}, not {asked}");
    Error::Model(Report::new(what, cause).help("leave --scale and --set model.scale out"))
}

/// The first three of a list.
pub fn first(list: &[String]) -> String {
    let shown = list.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
    if list.len() > 3 { format!("{shown}, ...") } else { shown }
}

/// `[diffusion]` of the recipe that was asked for, or of the one whose network is most like this one,
/// and where it comes from.
fn diffusion_of(
    known: &Known,
    model: &ModelConfig,
    request: &Request,
) -> Result<(Diffusion, String)> {
    if let Some(name) = &request.recipe {
        let (text, from) = match recipes::ALL.iter().find(|r| r.name == name) {
            Some(recipe) => (recipe.text.to_owned(), format!("the recipe {name}")),
            None if PathBuf::from(name).is_file() => {
                let text = std::fs::read_to_string(name);
                let wrong = |e| Error::Usage(Report::new(format!("cannot read {name}"), e));
                (text.map_err(wrong)?, name.clone())
            }
            None => (recipes::find(name)?.text.to_owned(), String::new()),
        };
        return Ok((Config::read(&text, &from, &[])?.diffusion, from));
    }
    let fields = |m: &ModelConfig| document::to_json(m);
    let mine = fields(model);
    let alike = |theirs: &Json| {
        let equal = |(key, value): &(&String, &Json)| theirs[key.as_str()] == **value;
        mine.as_object().into_iter().flatten().filter(equal).count()
    };
    let all =
        recipes::ALL.iter().filter_map(|r| Some((r.name, Config::read(r.text, r.name, &[]).ok()?)));
    let same = all.filter(|(_, c)| fields(&c.model)["kind"] == mine["kind"]);
    // Of equals the first.
    let best = same.min_by_key(|(_, c)| usize::MAX - alike(&fields(&c.model)));
    if let Some((name, config)) = best {
        return Ok((config.diffusion, format!("the recipe {name}")));
    }
    if model.is_direct() {
        return Ok((Diffusion::direct(), "networks that enlarge in one call".to_owned()));
    }
    let what = format!("no recipe tells the process of {}", known.name);
    let report = Report::new(what, "weights do not tell it either");
    Err(Error::Usage(
        report.help("srk models import FILE --recipe NAME    takes the [diffusion] of a recipe"),
    ))
}
