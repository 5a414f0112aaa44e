//! The sections of a training configuration.
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

pub use super::best::Best;
use crate::data::augment::Augment;
use crate::data::degrade::{Degrade, DegradeConfig};
use crate::data::folder::OnBroken;
use crate::diffusion::sampler::Diffusion;
use crate::engine::memory;
use crate::models::ModelConfig;
use crate::models::discriminator::DiscriminatorConfig;

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Name, seed, length.
    pub run: RunConfig,
    /// The network.
    pub model: ModelConfig,
    /// The process, what is predicted, and how it is sampled.
    pub diffusion: Diffusion,
    /// Images.
    pub data: DataConfig,
    /// How crops are damaged; not at all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degrade: Option<DegradeConfig>,
    /// The optimizer and its rate.
    #[serde(default)]
    pub optim: OptimConfig,
    /// What is minimised.
    #[serde(default)]
    pub loss: LossConfig,
    /// A second stage, against a discriminator; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<AdversarialConfig>,
    /// The moving average of the weights.
    #[serde(default)]
    pub ema: EmaConfig,
    /// Validation.
    #[serde(default)]
    pub val: ValConfig,
    /// Checkpoints.
    #[serde(default)]
    pub ckpt: CkptConfig,
    /// The log.
    #[serde(default)]
    pub log: LogConfig,
}

/// `[run]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// The folder under `runs`.
    pub name: String,
    /// The seed of weights, crops, steps and noise.
    #[serde(default, deserialize_with = "whole")]
    pub seed: u64,
    /// Optimizer steps in all.
    #[serde(deserialize_with = "whole")]
    pub steps: u64,
    /// How gradients of several processes become one sum: `fast`, or `fixed`, whose bits do not depend on their number.
    #[serde(default)]
    pub reduce: Reduce,
    /// Weights of the part that is not trained: a file, or the folder of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frozen: Option<PathBuf>,
    /// Weights to start from: a file, the folder of a run, a model of the binary by its name, or `hf:ORG/REPO`, with tensors of
    /// the same names and shapes; what it does not hold starts anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<PathBuf>,
    /// Under which other names parameters are looked for in that file: the beginning of a name here, and what stands
    /// there in its place. `{ "later." = "" }` starts an expert for later calls as that of the first one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub init_names: BTreeMap<String, String>,
    /// Whether weights of a narrower network may start this one, in its first channels. It begins as that one unless maps are
    /// joined or normalised in groups, as in UNets, RRDB and SPAN: there it learns again what the channels mean.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init_widen: bool,
}

/// How gradients are summed over the images of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reduce {
    /// Those of a process together, then those of the processes: results agree within rounding.
    #[default]
    Fast,
    /// Up to 8 equal parts of a batch apart, by a tree over their order: the same bits for any number of processes.
    Fixed,
}

/// `[data]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    /// Sides that images have at least: smaller ones are padded with black around; 0 pads none.
    #[serde(default)]
    pub pad: usize,
    /// How much memory decoded images may take, such as `2G`, or a share of what is free at the start;
    /// those beyond are read as they are drawn. Batches do not depend on it.
    #[serde(default = "half")]
    pub cache: String,
    /// Images to learn from.
    pub train: TrainData,
    /// Images to validate on.
    #[serde(default)]
    pub val: ValData,
}

fn half() -> String {
    "50%".into()
}

impl DataConfig {
    /// [`cache`](Self::cache) in bytes.
    pub fn cache_bytes(&self) -> u64 {
        memory::parse(&self.cache).unwrap_or(0)
    }
}

/// `[data.train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainData {
    /// Files, idx and tar files of many images, folders with all pictures below them, and lists (`.txt`) of such with a
    /// path a line, relative to the list.
    pub paths: Vec<PathBuf>,
    /// The same of their low resolutions, which are made of the images where this is left out. Pairs have the same
    /// file names, with or without `x4` at their end. `[degrade]` then says how they were made, and damages no more
    /// than what `plain` shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub low: Vec<PathBuf>,
    /// What another model, a teacher, made of `low`, with the same file names: the loss of pixels is of these images,
    /// which hold no detail that cannot be known; perceptual ones are of `paths`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taught: Vec<PathBuf>,
    /// Side of a crop in high-resolution pixels.
    pub crop: usize,
    /// Crops in a step (in each of its parts, where gradients accumulate).
    pub batch: usize,
    /// How low-resolution images are made; with `[degrade]`, those that it leaves clean.
    #[serde(default)]
    pub degrade: Degrade,
    /// What to do with an image that cannot be read.
    #[serde(default)]
    pub on_broken: OnBroken,
    /// Whether crops are mirrored and turned, or in detail how they are changed.
    #[serde(default = "symmetries")]
    pub augment: Augment,
    /// The share of crops that show one colour, a gradient, or two colours that meet, in place of a picture:
    /// photographs hold few such places, and there noise shows most.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub plain: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde asks.
fn is_zero(share: &f64) -> bool {
    *share == 0.0
}

const fn symmetries() -> Augment {
    Augment::Symmetries(true)
}

/// `[data.val]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValData {
    /// Files, idx and tar files of many images, folders with all pictures below them, and lists (`.txt`) of such; no
    /// validation if empty and nothing is split off.
    pub paths: Vec<PathBuf>,
    /// The same of their low resolutions, which are made of the images where this is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub low: Vec<PathBuf>,
    /// Without paths: about this share of the training images, chosen by their names, is kept for validation alone.
    pub split: f64,
    /// How low-resolution images are made.
    pub degrade: Degrade,
    /// More sets under names of their own, each measured by itself; `metrics.jsonl` has `val_NAME/psnr_y` and so on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sets: BTreeMap<String, ValSet>,
}

/// `[data.val.sets.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValSet {
    /// Files, idx and tar files of many images, folders with all pictures below them, and lists (`.txt`) of such.
    pub paths: Vec<PathBuf>,
    /// The same of their low resolutions, which are made of the images where this is left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub low: Vec<PathBuf>,
    /// How low-resolution images are made.
    #[serde(default)]
    pub degrade: Degrade,
}

/// `[optim]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct OptimConfig {
    /// The algorithm.
    pub kind: OptimKind,
    /// The learning rate after the warm-up.
    pub lr: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// What keeps Adam's quotient finite.
    pub eps: f64,
    /// Decoupled weight decay; `adamw` only.
    pub weight_decay: f64,
    /// Steps over which the rate grows from 0.
    #[serde(deserialize_with = "whole")]
    pub warmup: u64,
    /// How the rate falls.
    pub schedule: Schedule,
    /// The rate at the end of `cosine`.
    pub min_lr: f64,
    /// Steps between two falls of `step`.
    #[serde(deserialize_with = "whole")]
    pub fall_every: u64,
    /// What the rate is multiplied by at each fall of `step`.
    pub fall_by: f64,
    /// The largest L2 norm of all gradients together; 0 does not clip.
    pub clip: f64,
    /// Batches whose gradients are averaged in one step.
    #[serde(deserialize_with = "whole")]
    pub accumulate: u64,
    /// What to do where a loss, a gradient or a validation is not finite; `stop` where there is a discriminator.
    pub on_nan: OnNan,
    /// Whether blocks run again on the way back instead of keeping what they made: less memory, other roundings (1e-8).
    pub recompute: bool,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            kind: OptimKind::Adam,
            lr: 1e-4,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
            warmup: 0,
            schedule: Schedule::Constant,
            min_lr: 0.0,
            fall_every: 100_000,
            fall_by: 0.5,
            clip: 1.0,
            accumulate: 1,
            on_nan: OnNan::Stop,
            recompute: false,
        }
    }
}

/// Optimizers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimKind {
    /// Without weight decay.
    Adam,
    /// With decoupled weight decay.
    Adamw,
}

/// What to do with a step that is not finite; five in a row end the run in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnNan {
    /// The run ends with exit code 6 and the last checkpoint.
    Stop,
    /// The step changes nothing.
    Skip,
    /// The weights of the last checkpoint are taken again, and other batches follow.
    Rollback,
}

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// From `lr` to `min_lr` along half a cosine, over the rest of the run.
    Cosine,
    /// To its share `fall_by` every `fall_every` steps.
    Step,
}

impl OptimConfig {
    /// The rate of step `step`, counted from 1, of `steps`.
    pub fn rate(&self, step: u64, steps: u64) -> f64 {
        if step <= self.warmup {
            return self.lr * step as f64 / self.warmup as f64;
        }
        // Counted from 0: the first step after the warm-up has the full rate.
        let done = (step - 1).saturating_sub(self.warmup);
        match self.schedule {
            Schedule::Constant => self.lr,
            Schedule::Cosine => {
                let share = done as f64 / steps.saturating_sub(self.warmup).max(1) as f64;
                let fall = 0.5 * (1.0 + (std::f64::consts::PI * share.min(1.0)).cos());
                self.min_lr + (self.lr - self.min_lr) * fall
            }
            Schedule::Step => {
                let falls = i32::try_from(done / self.fall_every.max(1)).unwrap_or(i32::MAX);
                self.lr * self.fall_by.powi(falls)
            }
        }
    }
}

/// `[loss]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LossConfig {
    /// The kind.
    pub kind: LossKind,
    /// `charbonnier`: where it turns from a square into an absolute value, in the unit of what the network predicts.
    pub eps: f64,
    /// `huber`: where it turns from a square into a line.
    pub delta: f64,
    /// `l1`, `mse`, `charbonnier` and `huber`: weight of the mean absolute DCT coefficient of the error, added to it.
    /// `multiscale-dct`: weight of that term at every scale.
    pub dct: f64,
    /// Weight of LPIPS with AlexNet, of x0_hat and x0, added to the loss.
    pub lpips_alex: f64,
    /// Weight of LPIPS with VGG16.
    pub lpips_vgg: f64,
    /// Weight of DISTS.
    pub dists: f64,
    /// The folder with the weights of these; the default folder if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub features: Option<PathBuf>,
    /// The side of the part of a crop that these compare; 0 compares all.
    pub perceptual_crop: usize,
    /// Whether these take turns, one in each batch with its weight times their number, which costs a fraction.
    pub perceptual_turns: bool,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self {
            kind: LossKind::L1,
            eps: 1e-3,
            delta: 0.1,
            dct: 0.0,
            lpips_alex: 0.0,
            lpips_vgg: 0.0,
            dists: 0.0,
            features: None,
            perceptual_crop: 0,
            perceptual_turns: false,
        }
    }
}

/// Losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Mean absolute error of what the network predicts.
    L1,
    /// Mean squared error of what the network predicts; also called `l2`.
    #[serde(alias = "l2")]
    Mse,
    /// Mean of `sqrt(error^2 + eps^2)`, an absolute value that is smooth at 0.
    Charbonnier,
    /// Huber's: squares of small errors, absolute values of those beyond `delta`.
    Huber,
    /// The `DualDomainUNet` system's: L1 of x0 and of its DCT at scales 1, 2 and 4.
    MultiscaleDct,
    /// (1 - SSIM) / 2 of x0, for direct networks.
    Dssim,
}

/// `[adversarial]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdversarialConfig {
    /// What learns to tell images from the network's.
    pub discriminator: DiscriminatorConfig,
    /// Steps without it, before the stage begins.
    #[serde(deserialize_with = "whole")]
    pub after: u64,
    /// The learning rate of both networks in this stage.
    pub lr: f64,
    /// How it falls over the stage; `cosine` falls to `optim.min_lr`.
    #[serde(default = "constant")]
    pub schedule: Schedule,
    /// How verdicts become losses.
    #[serde(default)]
    pub verdict: Verdict,
    /// The weight of the verdict in the network's loss.
    pub weight: f64,
    /// The weight of the mean absolute error of x0.
    #[serde(default)]
    pub pixels: f64,
    /// The weight of the mean squared error of VGG19's features of x0.
    #[serde(default)]
    pub features: f64,
    /// The layer of VGG19, numbered as torchvision does: 34 is conv5_4 as SRGAN takes it, 35 the ReLU behind it.
    #[serde(default = "last_relu")]
    pub layer: usize,
    /// A weights file of VGG19; without one the features are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vgg: Option<PathBuf>,
    /// How much images of different t count.
    #[serde(default)]
    pub weighting: Weighting,
    /// Whether x0_hat is kept within `[-1, 1]`.
    #[serde(default = "yes")]
    pub clamp: bool,
}

const fn yes() -> bool {
    true
}

const fn constant() -> Schedule {
    Schedule::Constant
}

const fn last_relu() -> usize {
    35
}

/// How verdicts become losses, as `tasks/loss.rs` computes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Margins of 1 (Lim and Ye 2017).
    #[default]
    Hinge,
    /// Probabilities, the network's loss not saturating (Goodfellow et al. 2014).
    CrossEntropy,
}

/// How much images of different t count in a discriminator's stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// By alpha_bar_t where the network predicts noise, else alike.
    #[default]
    Signal,
    /// All alike.
    None,
}

/// `[ema]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EmaConfig {
    /// Share of the old average that is kept at every step, at most (1 + n) / (10 + n) at step n; 0 makes the average the
    /// weights.
    pub decay: f64,
}

impl Default for EmaConfig {
    fn default() -> Self {
        Self { decay: 0.999 }
    }
}

impl EmaConfig {
    /// The decay after `step` steps: smaller at first, so that the random start is soon forgotten.
    pub fn decay_at(&self, step: u64) -> f64 {
        self.decay.min((1 + step) as f64 / (10 + step) as f64)
    }
}

/// `[val]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ValConfig {
    /// Steps between validations; 0 validates only at the end.
    #[serde(deserialize_with = "whole")]
    pub every: u64,
    /// How many of the images, evenly spread over the sorted list; 0 takes all.
    #[serde(deserialize_with = "whole")]
    pub images: u64,
    /// Calls of the network for an image; 0 takes the T of the process.
    #[serde(deserialize_with = "whole")]
    pub steps: u64,
    /// Images shown in the comparison sheet; 0 writes none.
    #[serde(deserialize_with = "whole")]
    pub sheet: u64,
    /// Columns of the sheet that show the state on its way, evenly spread over the chain; 0 shows none.
    #[serde(deserialize_with = "whole")]
    pub states: u64,
    /// Validations without a better SSIM (or what `ckpt.best` names) after which training ends; 0 goes on to the last
    /// step.
    #[serde(deserialize_with = "whole")]
    pub patience: u64,
    /// What is measured beside PSNR and SSIM, with the weights in `loss.features`.
    pub metrics: Vec<ValMetric>,
    /// Images with a longer side than so many low-resolution pixels are enlarged in tiles of about that side; 0 enlarges
    /// all at once.
    #[serde(deserialize_with = "whole")]
    pub tile: u64,
}

/// A measure in validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValMetric {
    /// LPIPS with AlexNet and with VGG16.
    Lpips,
    /// DISTS.
    Dists,
    /// NIQE of the output alone.
    Niqe,
    /// PSNR, which is measured in any case.
    Psnr,
    /// SSIM, which is measured in any case.
    Ssim,
}

impl Default for ValConfig {
    fn default() -> Self {
        Self {
            every: 1000,
            images: 5,
            steps: 0,
            sheet: 3,
            states: 0,
            patience: 0,
            metrics: vec![],
            tile: 0,
        }
    }
}

/// `[ckpt]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CkptConfig {
    /// Steps between checkpoints; 0 saves only at the end.
    #[serde(deserialize_with = "whole")]
    pub every: u64,
    /// How many of the newest are kept; 0 keeps all.
    #[serde(deserialize_with = "whole")]
    pub keep: u64,
    /// The measure of validation by which the best checkpoint is kept beside them, and is what `-m RUN` takes; `false`
    /// keeps it only where `val.patience` asks for it, by SSIM.
    pub best: Best,
}

impl Config {
    /// The measure by which the best checkpoint is kept, if it is.
    pub fn best(&self) -> Option<Best> {
        match self.ckpt.best {
            Best::No => (self.val.patience > 0).then_some(Best::SsimY),
            best => Some(best),
        }
    }
}

impl Default for CkptConfig {
    fn default() -> Self {
        Self { every: 1000, keep: 3, best: Best::No }
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// Steps between lines, which have means over them; the first after a resume, over those since.
    #[serde(deserialize_with = "whole")]
    pub every: u64,
    /// Whether the numbers of metrics.jsonl are written for TensorBoard, too, into `tb`.
    pub tensorboard: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { every: 100, tensorboard: true }
    }
}

/// A number that counts things: `400000`, `400_000` and `4e5` alike, never negative.
pub(crate) fn whole<'de, D: Deserializer<'de>>(value: D) -> Result<u64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Whole(i64),
        Real(f64),
        Other(serde_json::Value),
    }
    let wrong = |got: String| serde::de::Error::custom(format!("expected a count, got {got}"));
    match Number::deserialize(value)? {
        Number::Whole(n) => u64::try_from(n).map_err(|_| wrong(n.to_string())),
        // 2^53: beyond it doubles skip whole numbers.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        Number::Real(v) if v >= 0.0 && v.fract() == 0.0 && v < 9e15 => Ok(v as u64),
        Number::Real(v) => Err(wrong(v.to_string())),
        Number::Other(v) => Err(wrong(v.to_string())),
    }
}
