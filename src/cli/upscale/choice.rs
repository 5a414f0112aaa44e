//! `--model` and `--denoise`: the models of a run, and what was found in a picture, for programs.
use serde_json::{Value, json};

use crate::cli::common::{self, DeviceChoice, ModelChoice, Precision, Sampling};
use crate::diffusion::system::System;
use crate::error::{Error, Report, Result};
use crate::imaging::damage::{Findings, Source};
use crate::models::damage::Damage;
use crate::upscale::choice::{Denoise, Models};

pub(super) fn denoise(text: &str) -> std::result::Result<Denoise, String> {
    match (text, text.parse::<f32>()) {
        ("auto", _) => Ok(Denoise::Auto),
        (_, Ok(v)) if (0.0..=1.0).contains(&v) => Ok(Denoise::Strength(v)),
        _ => Err("auto, or a number from 0 (nothing is taken away) to 1".into()),
    }
}

pub(super) fn fidelity(text: &str) -> std::result::Result<Denoise, String> {
    match text.parse::<f32>() {
        Ok(v) if (0.0..=1.0).contains(&v) => Ok(Denoise::Strength(1.0 - v)),
        _ => Err("a number from 0 (all noise and blocks are taken away) to 1 (none are)".into()),
    }
}

/// The models that were asked for, where they run. A dry run opens them, too: what they take counts in `--ram`.
pub(super) fn open(
    model: &ModelChoice,
    sampling: &Sampling,
    device: &DeviceChoice,
    precision: Precision,
) -> Result<Models> {
    let place = |mut system: System| {
        sampling.apply(&mut system)?;
        // Where the choice is ours, `srk doctor` says why a GPU is not used.
        common::place_over(system, &device.open_all()?, precision)
    };
    model.models(place)
}

/// Refuses `--denoise` for a model that cannot be told.
pub(super) fn check(models: &Models, denoise: Denoise) -> Result<()> {
    if denoise == Denoise::Auto || models.looks() {
        return Ok(());
    }
    let what = format!("--denoise does nothing with the model {}", models.name());
    let cause = "it is not told how damaged a picture is";
    let help = "leave it out, or use -m srk-photo-x4";
    Err(Error::Usage(Report::new(what, cause).help(help)))
}

/// What was found in a picture and what its model was told, for programs.
pub(super) fn json(findings: &Findings, told: &Damage, denoise: Denoise) -> Value {
    let strength = match denoise {
        Denoise::Auto => json!("auto"),
        Denoise::Strength(v) => json!(v),
    };
    let of = |d: &Damage| json!({"jpeg_quality": d.jpeg_quality, "noise": d.noise});
    let source = |source| match source {
        Source::Tables => "tables",
        Source::WebP => "webp",
        Source::Blocks => "blocks",
    };
    json!({
        "found": {"jpeg_quality": findings.jpeg.map(|j| j.quality),
            "jpeg_quality_from": findings.jpeg.map(|j| source(j.source)),
            "noise": findings.noise},
        "told": of(told),
        "denoise": strength,
    })
}
