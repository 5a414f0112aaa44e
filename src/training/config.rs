//! The configuration of a training of super-resolution, and every check of it that needs no image.
use super::plan::{LARGEST_CROP, MOST_CROPS};
pub use super::sections::*;
use super::settings::{self, Settings};
use crate::data::degrade::DegradeConfig;
use crate::engine::memory;
use crate::error::{Error, Report, Result};
use crate::models::discriminator::DiscriminatorConfig;
use crate::models::patch_discriminator::PATCH;

/// The JSON Schema (draft 2020-12) of configurations, those of generative runs included. A test makes it of the
/// definitions of the sections (`tests/cli/configuration.rs`).
pub const SCHEMA: &str = include_str!("configuration.schema.json");

impl Config {
    /// Reads `text`, called `name` in messages, with every `a.b=v` of `overrides` applied to it; see
    /// [`settings::read`].
    pub fn read(text: &str, name: &str, overrides: &[String]) -> Result<Self> {
        settings::read(text, name, overrides)
    }

    /// The configuration with every default written out.
    pub fn to_toml(&self) -> String {
        settings::to_toml(self)
    }

    /// Whether validation measures what `ckpt.best` goes by.
    fn measures_best(&self) -> bool {
        let metric = match self.ckpt.best {
            Best::No | Best::PsnrY | Best::SsimY => return true,
            Best::LpipsAlex | Best::LpipsVgg => ValMetric::Lpips,
            Best::Dists => ValMetric::Dists,
            Best::Niqe => ValMetric::Niqe,
        };
        self.val.metrics.contains(&metric)
    }

    /// What `[adversarial]` must hold, as a condition and what is wrong otherwise.
    fn of_stage(&self) -> Vec<(bool, String)> {
        let Some(a) = &self.adversarial else { return Vec::new() };
        let weight = |key: &str, v: f64| {
            (v >= 0.0 && v.is_finite(), format!("adversarial.{key} = {v} must be 0 or more"))
        };
        let (lr, least) = (a.lr, self.optim.min_lr);
        let crop = self.data.train.crop;
        let (base, takes, cause) = match &a.discriminator {
            DiscriminatorConfig::Srgan(c) => (
                c.base,
                crop == c.crop,
                format!(
                    "adversarial.discriminator.crop = {} must be data.train.crop = {crop}",
                    c.crop
                ),
            ),
            DiscriminatorConfig::Patch(c) => (
                c.base,
                crop >= PATCH,
                format!(
                    "data.train.crop = {crop} is below {PATCH}, the patch of adversarial.discriminator"
                ),
            ),
        };
        vec![
            (base > 0, "adversarial.discriminator.base must be at least 1".to_owned()),
            // A run that ends before the stage needs none of that.
            (takes || a.after >= self.run.steps, cause),
            weight("weight", a.weight),
            weight("pixels", a.pixels),
            weight("features", a.features),
            (lr > 0.0 && lr.is_finite(), format!("adversarial.lr = {lr} must be above 0")),
            (
                a.schedule != Schedule::Cosine || least <= lr,
                format!(
                    "optim.min_lr = {least} must not be above adversarial.lr = {lr}, which falls to it"
                ),
            ),
        ]
    }

    /// The dotted keys in which `self` and `other` differ; see [`settings::differences`].
    pub fn differences(&self, other: &Self) -> Vec<String> {
        settings::differences(self, other)
    }
}

impl Settings for Config {
    /// Refuses values that no run can have.
    fn check(&self) -> Result<()> {
        self.diffusion.check()?;
        let scale = self.model.scale();
        let crop = self.data.train.crop;
        let positive = |v: f64| v > 0.0 && v.is_finite();
        let weight = |v: f64| v >= 0.0 && v.is_finite();
        let unit = |v: f64| (0.0..1.0).contains(&v);
        let o = &self.optim;
        let name = &self.run.name;
        let is_plain = |name: &String| {
            !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\'])
        };
        let wrong = |cause: String| Error::Usage(Report::new("wrong configuration", cause));
        self.data.train.augment.check().map_err(wrong)?;
        self.degrade.as_ref().map_or(Ok(()), DegradeConfig::check).map_err(wrong)?;
        memory::parse(&self.data.cache).map_err(|e| wrong(format!("data.cache: {e}")))?;
        let rules = [
            (is_plain(name), "run.name must be the name of one folder".to_owned()),
            (self.run.steps > 0, "run.steps must be at least 1".to_owned()),
            (
                crop > 0 && crop.is_multiple_of(scale),
                format!("data.train.crop = {crop} must be a multiple of the scale, {scale}"),
            ),
            (crop <= LARGEST_CROP, format!("data.train.crop = {crop} is above {LARGEST_CROP}")),
            (
                self.data.pad <= LARGEST_CROP,
                format!("data.pad = {} is above {LARGEST_CROP}", self.data.pad),
            ),
            (self.data.train.batch > 0, "data.train.batch must be at least 1".to_owned()),
            (
                self.data.train.batch <= MOST_CROPS,
                format!("data.train.batch = {} is above {MOST_CROPS}", self.data.train.batch),
            ),
            (scale > 0, "model.scale must be at least 1".to_owned()),
            (positive(o.lr), format!("optim.lr = {} must be above 0", o.lr)),
            (o.min_lr >= 0.0 && o.min_lr <= o.lr, "optim.min_lr must lie in 0..=lr".to_owned()),
            (o.betas.iter().all(|&b| unit(b)), "optim.betas must lie in 0..1".to_owned()),
            (positive(o.eps), "optim.eps must be above 0".to_owned()),
            (weight(o.weight_decay), "optim.weight_decay must be 0 or more, and finite".to_owned()),
            (o.clip >= 0.0, "optim.clip must not be negative".to_owned()),
            (o.accumulate > 0, "optim.accumulate must be at least 1".to_owned()),
            (unit(self.ema.decay), "ema.decay must lie in 0..1".to_owned()),
            (positive(o.fall_by) && o.fall_by <= 1.0, "optim.fall_by must lie in 0..=1".to_owned()),
            (unit(self.data.train.plain), "data.train.plain must lie in 0..1".to_owned()),
            (unit(self.data.val.split), "data.val.split must lie in 0..1".to_owned()),
            (
                self.data.train.low.is_empty()
                    || (!self.data.train.augment.changes().changes_pixels() && self.data.pad == 0),
                "data.train.low gives the low resolutions; data.pad, and degrees or jitter of data.train.augment \
                 would make others"
                    .to_owned(),
            ),
            (
                self.data.train.low.is_empty()
                    || self.data.train.plain == 0.0
                    || self.degrade.is_some(),
                "data.train.low gives the low resolutions, but [degrade] must say how those of data.train.plain are made"
                    .to_owned(),
            ),
            (
                self.data.train.taught.is_empty() || !self.data.train.low.is_empty(),
                "data.train.taught holds what a teacher made of data.train.low, which is missing"
                    .to_owned(),
            ),
            (
                self.data.val.sets.keys().all(is_plain),
                "names in data.val.sets must be names of folders".to_owned(),
            ),
            (
                self.val.tile == 0 || self.val.states == 0,
                "val.states shows states of whole images, which val.tile does not make".to_owned(),
            ),
            (
                self.ckpt.best == Best::No
                    || !self.data.val.paths.is_empty()
                    || self.data.val.split > 0.0,
                "ckpt.best needs images to validate on: data.val.paths or data.val.split".to_owned(),
            ),
            (
                self.measures_best(),
                format!(
                    "ckpt.best = {:?} is not measured: val.metrics must name it",
                    self.ckpt.best.name()
                ),
            ),
            (
                o.on_nan == OnNan::Stop || self.adversarial.is_none(),
                "optim.on_nan must be stop where there is a stage with [adversarial]".to_owned(),
            ),
            (
                positive(self.loss.eps) && positive(self.loss.delta),
                "loss.eps and loss.delta must be above 0".to_owned(),
            ),
            (weight(self.loss.dct), "loss.dct must be 0 or more, and finite".to_owned()),
            (
                [self.loss.lpips_alex, self.loss.lpips_vgg, self.loss.dists]
                    .iter()
                    .all(|&v| weight(v)),
                "loss.lpips_alex, lpips_vgg and dists must not be negative".to_owned(),
            ),
        ];
        match rules.into_iter().chain(self.of_stage()).find(|(holds, _)| !holds) {
            Some((_, cause)) => Err(Error::Usage(Report::new("wrong configuration", cause))),
            None => Ok(()),
        }
    }
}
