//! The configuration of a generative run, and what a weights file says about such a model.
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::folder::OnBroken;
use crate::diffusion::process::{Prediction, Process};
use crate::diffusion::sampler::Diffusion;
use crate::error::{Error, Report, Result};
use crate::models::teaching::ddpm::DdpmUNetConfig;
use crate::models::weights::WeightsFile;
use crate::training::plan::MOST_CROPS;
use crate::training::sections::{
    Best, CkptConfig, EmaConfig, LogConfig, OptimConfig, RunConfig, Schedule, whole,
};
use crate::training::settings::{self, Settings};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Name, seed, length. A step of a GAN moves both networks.
    pub run: RunConfig,
    /// The system and its sizes.
    pub model: ModelConfig,
    /// Images.
    pub data: DataConfig,
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

/// `kind = "gan"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GanConfig {
    /// Numbers that an image is made of.
    pub latent: usize,
}

impl Default for GanConfig {
    fn default() -> Self {
        Self { latent: 64 }
    }
}

/// `kind = "dcgan"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DcganConfig {
    /// Numbers that an image is made of.
    pub latent: usize,
    /// Where the weights of norms start around; 0 as published.
    pub gamma: f64,
    /// Whether the discriminator sees every pixel; as published it misses the last six rows and columns.
    pub whole_image: bool,
}

impl Default for DcganConfig {
    fn default() -> Self {
        Self { latent: 64, gamma: 1.0, whole_image: true }
    }
}

/// `kind = "wgan-gp"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WganConfig {
    /// Numbers that an image is made of.
    pub latent: usize,
    /// Where the weights of norms start around; 0 as published.
    pub gamma: f64,
    /// Whether the critic has norms over the batch, as published: then the score of an image depends on the
    /// others, and the penalty is on the slope of the sum of all.
    pub critic_norm: bool,
    /// Whether the critic sees every pixel; as published it misses the last six rows and columns.
    pub whole_image: bool,
    /// Steps of the critic for one of the generator.
    pub critic_steps: usize,
    /// The weight of the penalty.
    pub penalty: f64,
}

impl Default for WganConfig {
    fn default() -> Self {
        Self {
            latent: 64,
            gamma: 1.0,
            critic_norm: false,
            whole_image: true,
            critic_steps: 5,
            penalty: 10.0,
        }
    }
}

/// `kind = "vae"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeConfig {
    /// Numbers that an image is made of; 2 in the published autoencoder.
    pub latent: usize,
    /// How far a reconstruction is from its image.
    pub reconstruction: Reconstruction,
    /// The weight of the divergence of codes from the standard normal distribution.
    pub kl: f64,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self { latent: 16, reconstruction: Reconstruction::Bce, kl: 1.0 }
    }
}

/// Likelihoods of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Cross entropy: a pixel is the probability of white.
    Bce,
    /// Half the squared error: a normal distribution of variance 1.
    Mse,
}

/// `kind = "ddpm"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DdpmConfig {
    /// The network.
    #[serde(default)]
    pub network: DdpmUNetConfig,
    /// The process and how it is reversed; the network predicts the noise.
    pub diffusion: Diffusion,
    /// Calls of the network for a sample; 0 takes all T.
    #[serde(default)]
    pub sample_steps: usize,
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    /// Files, idx files of many images, and folders with all pictures below them; colours become gray.
    pub paths: Vec<PathBuf>,
    /// Images in a step.
    pub batch: usize,
    /// What to do with an image that cannot be read.
    #[serde(default)]
    pub on_broken: OnBroken,
}

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
    pub fn metadata(&self, step: u64) -> BTreeMap<String, String> {
        let model = serde_json::to_value(&self.model).unwrap_or_default();
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
        self.model.check()?;
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let unit = |v: f64| (0.0..1.0).contains(&v);
        let o = &self.optim;
        let name = &self.run.name;
        let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']);
        refuse(&[
            (plain, "run.name must be the name of one folder"),
            (self.run.steps > 0, "run.steps must be at least 1"),
            (self.data.batch > 0, "data.batch must be at least 1"),
            (self.data.batch <= MOST_CROPS, "data.batch must be at most 65536"),
            (positive(o.lr), "optim.lr must be above 0"),
            (o.min_lr >= 0.0 && o.min_lr <= o.lr, "optim.min_lr must lie in 0..=lr"),
            (o.betas.iter().all(|&b| unit(b)), "optim.betas must lie in 0..1"),
            (positive(o.eps), "optim.eps must be above 0"),
            (o.weight_decay >= 0.0, "optim.weight_decay must not be negative"),
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
            (unit(self.ema.decay), "ema.decay must lie in 0..1"),
            (self.sample.count <= 4096, "sample.count must be at most 4096"),
        ])
    }
}

impl ModelConfig {
    /// Refuses sizes that make no network.
    fn check(&self) -> Result<()> {
        const LATENT: &str = "model.latent must lie in 1..=65536";
        let latent = |n: usize| (1..=65536).contains(&n);
        match self {
            Self::Gan(c) => refuse(&[(latent(c.latent), LATENT)]),
            Self::Dcgan(c) => {
                let finite = (c.gamma.is_finite(), "model.gamma must be a number");
                refuse(&[(latent(c.latent), LATENT), finite])
            }
            Self::WganGp(c) => refuse(&[
                (latent(c.latent), LATENT),
                (c.gamma.is_finite(), "model.gamma must be a number"),
                (c.critic_steps > 0, "model.critic_steps must be at least 1"),
                (c.penalty >= 0.0 && c.penalty.is_finite(), "model.penalty must not be negative"),
            ]),
            Self::Vae(c) => refuse(&[
                (latent(c.latent), LATENT),
                (c.kl >= 0.0 && c.kl.is_finite(), "model.kl must not be negative"),
            ]),
            Self::Ddpm(c) => {
                c.diffusion.check()?;
                let n = &c.network;
                let grouped = n.groups > 0 && n.base.is_multiple_of(n.groups);
                let levels = (1..=3).contains(&n.multipliers.len());
                refuse(&[
                    (
                        c.diffusion.prediction == Prediction::Epsilon,
                        "model.diffusion.prediction must be epsilon",
                    ),
                    (
                        matches!(c.diffusion.process, Process::Ddpm { .. }),
                        "model.diffusion.process must be ddpm: there is no image to start from",
                    ),
                    (
                        (4..=1024).contains(&n.base) && n.base.is_multiple_of(2),
                        "model.network.base must be even, from 4 to 1024",
                    ),
                    (grouped, "model.network.groups must divide model.network.base"),
                    (
                        levels && n.multipliers.iter().all(|m| (1..=64).contains(m)),
                        "model.network.multipliers must be one to three numbers from 1 to 64",
                    ),
                ])
            }
        }
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
        let model: Self = serde_json::from_str(text)
            .map_err(|e| refuse(format!("its srk.config is of no such system: {e}")))?;
        model.check().map_err(|e| refuse(e.to_string()))?;
        Ok(model)
    }
}

fn refuse(rules: &[(bool, &str)]) -> Result<()> {
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, cause)) => Err(Error::Usage(Report::new("wrong configuration", *cause))),
        None => Ok(()),
    }
}
