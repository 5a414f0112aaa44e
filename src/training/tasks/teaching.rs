//! The configuration of a system that draws digits, and what a weights file says about such a system.
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::draws::{Sizes, Teaching, rule};
use crate::engine::document;
use crate::error::{Error, Report, Result};
use crate::models::weights::WeightsFile;
use crate::training::plan::MOST_CROPS;
use crate::training::sections::{
    Best, CkptConfig, EmaConfig, LogConfig, OnNan, OptimConfig, RunConfig, Schedule, whole,
};
use crate::training::settings::{self, Settings};
use crate::training::tasks::ddpm::DdpmConfig;
use crate::training::tasks::digits::DigitsData;
use crate::training::tasks::gan::{DcganConfig, GanConfig, WganConfig};
use crate::training::tasks::vae::VaeConfig;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Name, seed, length. A step of a GAN moves both networks.
    pub run: RunConfig,
    /// The system and its sizes.
    pub model: ModelConfig,
    /// Images.
    pub data: DigitsData,
    /// The optimizers and their rate: every network has one of its own.
    #[serde(default)]
    pub optim: OptimConfig,
    /// The moving average of the weights, which draws the grids; none unless it is asked for.
    #[serde(default = "no_average")]
    pub ema: EmaConfig,
    /// Grids of samples.
    #[serde(default)]
    pub sample: SampleConfig,
    /// Checkpoints.
    #[serde(default)]
    pub ckpt: CkptConfig,
    /// The log.
    #[serde(default)]
    pub log: LogConfig,
}

const fn no_average() -> EmaConfig {
    EmaConfig { decay: 0.0 }
}

/// `[model]`: which system, and its sizes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// A GAN of fully connected layers.
    Gan(GanConfig),
    /// A GAN of convolutions.
    Dcgan(DcganConfig),
    /// The same with a critic, a Wasserstein loss and a gradient penalty.
    WganGp(WganConfig),
    /// A variational autoencoder.
    Vae(VaeConfig),
    /// Denoising diffusion.
    Ddpm(DdpmConfig),
}

/// `model.kind` of every system here.
pub const KINDS: [&str; 5] = ["gan", "dcgan", "wgan-gp", "vae", "ddpm"];

/// `[sample]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SampleConfig {
    /// Steps between grids; 0 draws only at the end.
    #[serde(deserialize_with = "whole")]
    pub every: u64,
    /// Images of a grid; 0 draws none.
    pub count: usize,
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { every: 500, count: 25 }
    }
}

impl Config {
    /// Reads `text`, called `name` in messages, with every `a.b=v` of `overrides` applied to it; see
    /// [`settings::read`].
    pub fn read(text: &str, name: &str, overrides: &[String]) -> Result<Self> {
        settings::read(text, name, overrides)
    }

    /// The metadata of weights after `step` steps.
    pub(in crate::training) fn metadata_at(&self, step: u64) -> BTreeMap<String, String> {
        let model = document::to_json(&self.model);
        [
            ("format", "pt".to_owned()),
            ("srk.arch", model["kind"].as_str().unwrap_or_default().to_owned()),
            ("srk.config", model.to_string()),
            ("srk.step", step.to_string()),
            ("srk.run", self.run.name.clone()),
            ("srk.version", env!("CARGO_PKG_VERSION").to_owned()),
        ]
        .map(|(k, v)| (k.to_owned(), v))
        .into()
    }
}

impl Settings for Config {
    fn check(&self) -> Result<()> {
        self.model.sizes().check()?;
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let unit = |v: f64| (0.0..1.0).contains(&v);
        let o = &self.optim;
        let name = &self.run.name;
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        rule(&[
            (plain, "run.name must be the name of one folder"),
            (self.run.steps > 0, "run.steps must be at least 1"),
            (self.data.batch > 0, "data.batch must be at least 1"),
            (self.data.batch <= MOST_CROPS, "data.batch must be at most 65536"),
            (positive(o.lr), "optim.lr must be above 0"),
            (o.min_lr >= 0.0 && o.min_lr <= o.lr, "optim.min_lr must lie in 0..=lr"),
            (o.betas.iter().all(|&b| unit(b)), "optim.betas must lie in 0..1"),
            (positive(o.eps), "optim.eps must be above 0"),
            (
                o.weight_decay >= 0.0 && o.weight_decay.is_finite(),
                "optim.weight_decay must be 0 or more, and finite",
            ),
            (o.clip >= 0.0, "optim.clip must not be negative"),
            (
                o.accumulate == 1,
                "optim.accumulate must be 1 here: a larger data.batch does the same",
            ),
            (
                self.ckpt.best == Best::No,
                "ckpt.best must be false here: nothing is measured by which one is the best",
            ),
            (!o.recompute, "optim.recompute must be false here: these networks are small"),
            (o.schedule != Schedule::Step || o.fall_every > 0, "optim.fall_every must be above 0"),
            (
                o.on_nan == OnNan::Stop || !self.model.is_a_game(),
                "optim.on_nan must be stop where two networks play against each other",
            ),
            (unit(self.ema.decay), "ema.decay must lie in 0..1"),
            (self.sample.count <= 4096, "sample.count must be at most 4096"),
        ])
    }
}

impl ModelConfig {
    /// The sizes, whichever system they are of.
    fn sizes(&self) -> &dyn Sizes {
        match self {
            Self::Gan(c) => c,
            Self::Dcgan(c) => c,
            Self::WganGp(c) => c,
            Self::Vae(c) => c,
            Self::Ddpm(c) => c,
        }
    }

    /// The system, its initial weights a function of `seed`.
    pub(in crate::training) fn build(&self, seed: u64) -> Box<dyn Teaching> {
        self.sizes().build(seed)
    }

    /// Whether two networks play against each other.
    pub(super) const fn is_a_game(&self) -> bool {
        matches!(self, Self::Gan(_) | Self::Dcgan(_) | Self::WganGp(_))
    }

    /// What `file` says it is; messages call it `name`. Exit code 3 if it is none of these systems.
    pub fn of(file: &WeightsFile, name: &str) -> Result<Self> {
        let refuse = |cause: String| {
            let report = Report::new(format!("cannot sample from {name}"), cause);
            Error::Model(report.help(format!("srk sample draws from: {}", KINDS.join(", "))))
        };
        let Some(text) = file.metadata.get("srk.config") else {
            return Err(refuse("its metadata has no srk.config".to_owned()));
        };
        let model: Self = document::from_json_text(text)
            .map_err(|e| refuse(format!("its srk.config is of no such system: {e}")))?;
        model.sizes().check().map_err(|e| refuse(e.to_string()))?;
        Ok(model)
    }
}
