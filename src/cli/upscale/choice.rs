//! Which model takes a picture, and what it is told of the picture's damage.
use serde_json::{Value, json};

use crate::cli::common::{self, DeviceChoice, ModelChoice, Precision, Sampling};
use crate::diffusion::system::System;
use crate::error::{Error, Report, Result};
use crate::imaging::damage::Findings;
use crate::models::damage::Damage;
use crate::upscale::Upscaler;

/// `--denoise`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Denoise {
    /// As much as the picture shows.
    Auto,
    /// This share of it; 0 leaves noise and blocks as they are.
    Strength(f32),
}

pub(super) fn denoise(text: &str) -> std::result::Result<Denoise, String> {
    match (text, text.parse::<f32>()) {
        ("auto", _) => Ok(Denoise::Auto),
        (_, Ok(v)) if (0.0..=1.0).contains(&v) => Ok(Denoise::Strength(v)),
        _ => Err("auto, or a number from 0 (nothing is taken away) to 1".into()),
    }
}

/// The models of a run.
pub(super) enum Models {
    /// The one that was named.
    One(Box<Upscaler>),
    /// One for pictures as they are and one for clean ones, chosen by what each picture shows.
    Auto {
        /// For pictures as they are.
        photo: Box<Upscaler>,
        /// For clean ones.
        clean: Box<Upscaler>,
    },
}

impl Models {
    pub(super) fn open(
        model: &ModelChoice,
        sampling: &Sampling,
        device: &DeviceChoice,
        precision: Precision,
    ) -> Result<Self> {
        let place = |mut system: System| {
            sampling.apply(&mut system)?;
            common::place(system, device, precision)
        };
        match model.is_auto() {
            false => Ok(Self::One(Box::new(place(model.open()?)?))),
            true => {
                let [photo, clean] = System::embedded().map(|name| place(System::open(name)?));
                Ok(Self::Auto { photo: Box::new(photo?), clean: Box::new(clean?) })
            }
        }
    }

    /// The one that a picture takes which shows `findings`.
    pub(super) fn of(&self, findings: &Findings, denoise: Denoise) -> &Upscaler {
        match self {
            Self::One(upscaler) => upscaler,
            Self::Auto { photo, clean } => match denoise {
                Denoise::Auto if findings.is_damaged() => photo,
                Denoise::Auto => clean,
                // Nothing to take away is what clean pictures have.
                Denoise::Strength(0.0) => clean,
                Denoise::Strength(_) => photo,
            },
        }
    }

    /// The one that costs most, before a picture is known.
    pub(super) const fn any(&self) -> &Upscaler {
        match self {
            Self::One(upscaler) => upscaler,
            Self::Auto { photo, .. } => photo,
        }
    }

    /// The name that was asked for.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::One(upscaler) => &upscaler.system().name,
            Self::Auto { .. } => common::AUTO,
        }
    }

    /// Refuses `--denoise` for a model that cannot be told.
    pub(super) fn check(&self, denoise: Denoise) -> Result<()> {
        match self {
            Self::One(upscaler)
                if denoise != Denoise::Auto && !upscaler.system().knows_damage() =>
            {
                let what = format!("--denoise does nothing with the model {}", self.name());
                let cause = "it is not told how damaged a picture is";
                let help = "leave it out, or use -m srk-photo-x4";
                Err(Error::Usage(Report::new(what, cause).help(help)))
            }
            _ => Ok(()),
        }
    }
}

/// What `system` is told of a picture.
pub(super) fn told(system: &System, findings: &Findings, denoise: Denoise) -> Damage {
    system.told(match denoise {
        Denoise::Auto => findings.damage(),
        Denoise::Strength(0.0) => Damage::CLEAN,
        Denoise::Strength(strength) => findings.damage().scaled(strength),
    })
}

/// What was found in a picture and what its model was told, for programs.
pub(super) fn json(findings: &Findings, told: &Damage, denoise: Denoise) -> Value {
    let strength = match denoise {
        Denoise::Auto => json!("auto"),
        Denoise::Strength(v) => json!(v),
    };
    let of = |d: &Damage| json!({"jpeg_quality": d.jpeg_quality, "noise": d.noise});
    json!({
        "found": {"jpeg_quality": findings.jpeg.map(|j| j.quality),
            "jpeg_quality_from": findings.jpeg.map(|j| if j.stated { "tables" } else { "blocks" }),
            "noise": findings.noise},
        "told": of(told),
        "denoise": strength,
    })
}
