//! From the two files of ncnn to a network.
use crate::engine::files;
use crate::models::{Module as _, Network as _};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::{Imported, Request, mistaken, overridden};
use super::bin::Numbers;
use super::{layers, param};
use crate::diffusion::sampler::Diffusion;
use crate::diffusion::system::{System, SystemConfig};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::ModelConfig;
use crate::models::graph::{Activation, Graph, GraphConfig, Kind, Layer};
use crate::models::weights::WeightsFile;

/// The name of the kind of network that files of ncnn become.
pub const KIND: &str = "ncnn-graph";

/// Whether `path` has the name of a description of layers of ncnn.
pub fn is_param(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    name.ends_with(".param") || name.ends_with(".param.bin")
}

/// The system of the layers in `path` and the weights in the `.bin` beside it.
///
/// # Errors
/// [`Error::Model`] if one of the files is missing or damaged, they do not belong together, or a layer is of a
/// kind that srk does not have; it is named with its line.
pub fn open(path: &Path) -> Result<System> {
    let name = path.display().to_string();
    let Imported { file, .. } = import(path, &Request::default())?;
    System::from_file(&file, &name)
}

/// The same as a weights file.
///
/// # Errors
/// As [`open`]; [`Error::Usage`] if `request` asks for what there is not.
pub fn import(path: &Path, request: &Request) -> Result<Imported> {
    let name = path.display().to_string();
    check(&name, request)?;
    let (text, numbers, bin) = files(path, &name)?;
    let (config, tensors) = read(&text, &numbers).map_err(|cause| refuse(&name, cause))?;
    let config = with_conventions(config, &tensors, path)?;
    let model = ModelConfig::Graph(config);
    let mut system = SystemConfig::new(model, Diffusion::direct());
    overridden(&mut system, &request.overrides)?;
    let ModelConfig::Graph(config) = &system.model else {
        return Err(refuse(&name, "--set made another kind of network of it".to_owned()));
    };
    let mut extra = vec![
        ("srk.recipe", format!("imported from {}", file_name(path))),
        ("srk.source", family(&config.layers).to_owned()),
    ];
    extra.extend(request.license.clone().map(|l| ("srk.license", l)));
    let notes = notes(config);
    let parameters = tensors.values().map(|(_, values)| values.len()).sum();
    let file = WeightsFile { metadata: system.metadata(&extra), tensors };
    Ok(Imported {
        file,
        config: system,
        parameters,
        format: "ncnn",
        place: [file_name(&bin), String::new()],
        process: "a network that enlarges in one call".to_owned(),
        assumed: String::new(),
        ignored: Vec::new(),
        notes,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Refuses what makes no sense for a graph.
fn check(name: &str, request: &Request) -> Result<()> {
    let unwanted = [
        ("--arch", request.arch.as_ref().is_some_and(|arch| arch != KIND)),
        ("--weights", request.weights.is_some()),
        ("--recipe", request.recipe.is_some()),
        ("--frozen", request.frozen.is_some()),
    ];
    match unwanted.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => {
            let what = format!("{option} does not go with {name}");
            Err(Error::Usage(Report::new(what, "a .param says all of its network and process")))
        }
    }
}

/// The text, the numbers and where they are.
fn files(path: &Path, name: &str) -> Result<(Vec<u8>, Vec<u8>, PathBuf)> {
    let text = files::read_file(path).map_err(|e| refuse(name, e.to_string()))?;
    let bin = path.with_extension("bin");
    // The binary form of the text is said to be one before its numbers are missed.
    if text.starts_with(&7_767_517_u32.to_le_bytes()) {
        return Ok((text, Vec::new(), bin));
    }
    let numbers = files::read_file(&bin).map_err(|e| {
        let what = format!("cannot load the weights of {name}");
        let report = Report::new(what, format!("{}: {e}", bin.display()));
        Error::Model(report.help("put the .bin of the same name beside the .param"))
    })?;
    for (file, bytes) in [(path, &text), (&bin, &numbers)] {
        if let Some(what) = mistaken::for_weights(bytes) {
            return Err(refuse(&file.display().to_string(), what.into()));
        }
    }
    Ok((text, numbers, bin))
}

type Tensors = BTreeMap<String, crate::import::Array>;

/// The network that the two files describe.
///
/// # Errors
/// In words, with the line.
pub fn read(text: &[u8], numbers: &[u8]) -> std::result::Result<(GraphConfig, Tensors), String> {
    let lines = param::parse(text)?;
    let layers::Read { layers, lines, tensors } = layers::read(&lines, &mut Numbers::new(numbers))?;
    let channels = channels(&layers);
    let config = GraphConfig::new(channels, layers).map_err(|cause| with_line(&lines, cause))?;
    Ok((config, tensors.into_iter().collect()))
}

/// Of the first convolution that reads the image; 3 where there is none.
pub(super) fn channels(layers: &[Layer]) -> usize {
    let first = layers.iter().find_map(|layer| match (&layer.kind, layer.from.contains(&0)) {
        (Kind::Convolution(w), true) => Some(w.channels[0]),
        _ => None,
    });
    if first == Some(1) { 1 } else { 3 }
}

/// `cause`, which names a layer by its number, with its line in the file.
fn with_line(lines: &[usize], cause: String) -> String {
    let number = cause.split("layer ").nth(1).and_then(|rest| {
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().ok()?.checked_sub(1)
    });
    match number.and_then(|i| lines.get(i)) {
        Some(line) => format!("line {line}: {cause}"),
        None => cause,
    }
}

fn refuse(name: &str, cause: String) -> Error {
    let help = match mistaken::help(&cause) {
        Some(help) => help,
        None if cause.contains("too short") || cause.contains("too long") => {
            "copy or download both files again"
        }
        None if cause.contains("is not of this .param") => "copy or download both files again",
        None if cause.contains("binary .param") => "use the .param that it was made of",
        None => "srk models import --help    shows what srk reads",
    };
    Error::Model(Report::new(format!("cannot read {name}"), cause).help(help))
}

/// The range of Real-CUGAN's PRO networks.
const PRO: [f64; 2] = [0.15, 0.85];

/// The same network with what its files do not tell.
fn with_conventions(config: GraphConfig, tensors: &Tensors, path: &Path) -> Result<GraphConfig> {
    // Those of Real-CUGAN eat their borders.
    let network = Graph::new(&config);
    if network.border() == [0, 0] {
        return Ok(config);
    }
    let file = WeightsFile { tensors: tensors.clone(), ..WeightsFile::default() };
    file.apply(network.parameters(), &path.display().to_string())?;
    let residual = leaves_grey_out(&network, &config)?;
    let range = if is_pro(path) { PRO } else { config.range };
    Ok(GraphConfig { residual, range, ..config })
}

/// Whether `pro` is a word of the name of the file or of its folder.
fn is_pro(path: &Path) -> bool {
    let names = [path.file_stem(), path.parent().and_then(Path::file_name)];
    names.into_iter().flatten().any(|name| {
        let name = name.to_string_lossy().to_lowercase();
        name.split(|c: char| !c.is_alphanumeric()).any(|word| word == "pro")
    })
}

/// Whether grey becomes black: then the network gives what is missing of the enlarged image.
fn leaves_grey_out(network: &Graph, config: &GraphConfig) -> Result<bool> {
    let (side, mut tape) = (4 * network.geometry().align, Tape::inference());
    let shape = [1, side, side, config.channels];
    let grey = Tensor::from_vec(vec![0.0f32; shape.iter().product()], &shape);
    let seen = tape.input(grey);
    let t = Tensor::from_vec(vec![1.0f32], &[1]);
    let y = network.forward(&mut tape, &seen.clone(), &seen, &t)?.value().to_f64_vec()?;
    let mean = y.iter().sum::<f64>() / y.len().max(1) as f64;
    // Grey is 0 here and black -1.
    Ok(mean < -0.7)
}

fn notes(config: &GraphConfig) -> Vec<String> {
    let mut notes = Vec::new();
    if config.range != [0.0, 1.0] {
        let [black, white] = config.range;
        notes.push(format!("black is {black} and white {white} for it: PRO is in its name"));
    }
    if config.residual {
        notes.push(
            "its result is added to the image with pixels repeated: it makes black of grey".into(),
        );
    }
    notes
}

/// Whose network the layers look like.
fn family(layers: &[Layer]) -> &'static str {
    let has = |wanted: &dyn Fn(&Kind) -> bool| layers.iter().any(|layer| wanted(&layer.kind));
    let deconvolution = has(&|k| matches!(k, Kind::Deconvolution(_)));
    let cut = has(&|k| matches!(k, Kind::Crop { .. } | Kind::CropLike { .. }));
    let damped = has(&|k| matches!(k, Kind::Sum { factors } if factors.contains(&single(0.2))));
    let silu = has(&|k| *k == Kind::Activation { activation: Activation::Silu });
    match () {
        () if deconvolution && cut && has(&|k| *k == Kind::GlobalMean) => {
            "ncnn: U-nets with squeeze and excitation, as waifu2x's cunet and Real-CUGAN"
        }
        () if deconvolution && cut => "ncnn: U-nets without padding, as Real-CUGAN nose",
        () if deconvolution => "ncnn: convolutions without padding, as waifu2x's upconv_7",
        () if damped => "ncnn: residual in residual dense blocks, as ESRGAN",
        () if silu && has(&|k| *k == Kind::Product) => "ncnn: parameter-free attention, as SPAN",
        () if has(&|k| matches!(k, Kind::Prelu { .. })) => {
            "ncnn: a row of convolutions, as SRVGG Compact"
        }
        () => "ncnn: a network of its own",
    }
}

#[allow(clippy::cast_possible_truncation)] // As the file's numbers are read.
pub(super) fn single(v: f64) -> f64 {
    f64::from(v as f32)
}
