//! `[degrade]`: how low-resolution crops are damaged, in the names that Real-ESRGAN's options have.
//!
//! Keys that are not given have the values of the preset. Ranges are drawn from evenly; lists of weights
//! need not sum to 1.
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value as Json};
use toml::{Table, Value};

use super::kernels::KernelKind;
use super::planes::Mode;
use crate::engine::document;
use crate::error::{Error, Report};

/// Sets of values to start from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// No damage: what `data.train.degrade` makes.
    #[serde(alias = "none")]
    Bicubic,
    /// Photographs as the web has them: mostly one stage, sometimes none.
    Photo,
    /// Every sample a JPEG that was blurred, shrunk by one of several filters and is noisy; for test sets.
    Web,
    /// Two stages, as Real-ESRGAN is trained.
    #[default]
    RealEsrgan,
}

/// `[degrade]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self")]
pub struct DegradeConfig {
    /// Where values come from that are not given.
    pub preset: Preset,
    /// The probability that a sample is left as `data.train.degrade` makes it.
    pub clean_prob: f64,
    /// Whether the truth is sharpened, before anything else.
    pub usm: bool,
    /// Whether filters are widened where they shrink; the published process does not.
    pub antialias: bool,
    /// The probability that a JPEG has half the colours in each direction (4:2:0).
    pub subsampling_prob: f64,
    /// The probability of a blur.
    pub blur_prob: f64,
    /// Kernels have odd sides from 7 to this, in pixels.
    pub blur_kernel_size: usize,
    /// Kinds of kernels.
    pub kernel_list: Vec<KernelKind>,
    /// Their weights.
    pub kernel_prob: Vec<f64>,
    /// The probability that the blur is a sinc filter instead.
    pub sinc_prob: f64,
    /// Widths in pixels of the image that is blurred.
    pub blur_sigma: [f64; 2],
    /// Exponents of generalized Gaussians: as often below 1 as above.
    pub betag_range: [f64; 2],
    /// Exponents of plateaus, likewise.
    pub betap_range: [f64; 2],
    /// Weights of enlarging, shrinking, and neither.
    pub resize_prob: [f64; 3],
    /// The smallest and the largest factor.
    pub resize_range: [f64; 2],
    /// How it is resized, all alike.
    pub resize_modes: Vec<Mode>,
    /// The probability of noise.
    pub noise_prob: f64,
    /// The probability that noise is Gaussian and not that of photons.
    pub gaussian_noise_prob: f64,
    /// Standard deviations of Gaussian noise in levels of 0..=255.
    pub noise_range: [f64; 2],
    /// Factors of the noise of photons.
    pub poisson_scale_range: [f64; 2],
    /// The probability that noise is the same in all channels.
    pub gray_noise_prob: f64,
    /// The probability of compression.
    pub jpeg_prob: f64,
    /// Its qualities.
    pub jpeg_range: [f64; 2],
    /// The probability of stage 2.
    pub second_order_prob: f64,
    /// Stage 2: the probability of a blur.
    pub second_blur_prob: f64,
    /// Stage 2: kernels have odd sides from 7 to this, in pixels.
    pub blur_kernel_size2: usize,
    /// Stage 2: kinds of kernels.
    pub kernel_list2: Vec<KernelKind>,
    /// Stage 2: their weights.
    pub kernel_prob2: Vec<f64>,
    /// Stage 2: the probability that the blur is a sinc filter instead.
    pub sinc_prob2: f64,
    /// Stage 2: widths in pixels of the image that is blurred.
    pub blur_sigma2: [f64; 2],
    /// Stage 2: exponents of generalized Gaussians: as often below 1 as above.
    pub betag_range2: [f64; 2],
    /// Stage 2: exponents of plateaus, likewise.
    pub betap_range2: [f64; 2],
    /// Stage 2: weights of enlarging, shrinking, and neither.
    pub resize_prob2: [f64; 3],
    /// Stage 2: the smallest and the largest factor.
    pub resize_range2: [f64; 2],
    /// Stage 2: how it is resized, all alike.
    pub resize_modes2: Vec<Mode>,
    /// Stage 2: the probability of noise.
    pub noise_prob2: f64,
    /// Stage 2: the probability that noise is Gaussian and not that of photons.
    pub gaussian_noise_prob2: f64,
    /// Stage 2: standard deviations of Gaussian noise in levels of 0..=255.
    pub noise_range2: [f64; 2],
    /// Stage 2: factors of the noise of photons.
    pub poisson_scale_range2: [f64; 2],
    /// Stage 2: the probability that noise is the same in all channels.
    pub gray_noise_prob2: f64,
    /// Stage 2: the probability of compression.
    pub jpeg_prob2: f64,
    /// Stage 2: its qualities.
    pub jpeg_range2: [f64; 2],
    /// The probability of a sinc filter at the end.
    pub final_sinc_prob: f64,
    /// The probability that the last compression comes after the last resizing and sinc filter, not before.
    pub jpeg_last_prob: f64,
    /// The share of the last compressions that are WebP in place of JPEG.
    pub webp_prob: f64,
    /// Their qualities.
    pub webp_range: [f64; 2],
    /// The probability that the last compression, if it is a JPEG, follows another whose blocks lie elsewhere.
    pub double_jpeg_prob: f64,
    /// How much of the blocks of the last JPEG is taken out again before the network sees it, 0 to 1, in training and then
    /// in every picture that the model enlarges: the steps of a second compression over those of the first.
    pub deblock: f64,
}

/// One stage of it.
pub(super) struct Stage<'a> {
    pub(super) blur_prob: f64,
    pub(super) blur_kernel_size: usize,
    pub(super) kernel_list: &'a [KernelKind],
    pub(super) kernel_prob: &'a [f64],
    pub(super) sinc_prob: f64,
    pub(super) blur_sigma: [f64; 2],
    pub(super) betag_range: [f64; 2],
    pub(super) betap_range: [f64; 2],
    pub(super) resize_prob: [f64; 3],
    pub(super) resize_range: [f64; 2],
    pub(super) resize_modes: &'a [Mode],
    pub(super) noise_prob: f64,
    pub(super) gaussian_noise_prob: f64,
    pub(super) noise_range: [f64; 2],
    pub(super) poisson_scale_range: [f64; 2],
    pub(super) gray_noise_prob: f64,
    pub(super) jpeg_prob: f64,
    pub(super) jpeg_range: [f64; 2],
}

impl DegradeConfig {
    /// Stage 1.
    pub(super) fn first(&self) -> Stage<'_> {
        Stage {
            blur_prob: self.blur_prob,
            blur_kernel_size: self.blur_kernel_size,
            kernel_list: &self.kernel_list,
            kernel_prob: &self.kernel_prob,
            sinc_prob: self.sinc_prob,
            blur_sigma: self.blur_sigma,
            betag_range: self.betag_range,
            betap_range: self.betap_range,
            resize_prob: self.resize_prob,
            resize_range: self.resize_range,
            resize_modes: &self.resize_modes,
            noise_prob: self.noise_prob,
            gaussian_noise_prob: self.gaussian_noise_prob,
            noise_range: self.noise_range,
            poisson_scale_range: self.poisson_scale_range,
            gray_noise_prob: self.gray_noise_prob,
            jpeg_prob: self.jpeg_prob,
            jpeg_range: self.jpeg_range,
        }
    }

    /// Stage 2.
    pub(super) fn second(&self) -> Stage<'_> {
        Stage {
            blur_prob: self.second_blur_prob,
            blur_kernel_size: self.blur_kernel_size2,
            kernel_list: &self.kernel_list2,
            kernel_prob: &self.kernel_prob2,
            sinc_prob: self.sinc_prob2,
            blur_sigma: self.blur_sigma2,
            betag_range: self.betag_range2,
            betap_range: self.betap_range2,
            resize_prob: self.resize_prob2,
            resize_range: self.resize_range2,
            resize_modes: &self.resize_modes2,
            noise_prob: self.noise_prob2,
            gaussian_noise_prob: self.gaussian_noise_prob2,
            noise_range: self.noise_range2,
            poisson_scale_range: self.poisson_scale_range2,
            gray_noise_prob: self.gray_noise_prob2,
            jpeg_prob: self.jpeg_prob2,
            jpeg_range: self.jpeg_range2,
        }
    }

    /// The preset called `preset` with every `key=value` of `settings`.
    ///
    /// # Errors
    /// Exit code 2 if there is no such preset or key, or a value cannot be.
    pub fn read(preset: &str, settings: &[String]) -> crate::error::Result<Self> {
        let refused = |cause: String, help: &str| {
            Error::Usage(Report::new("cannot read the damage", cause).help(help))
        };
        let wrong =
            |cause: String| refused(cause, "docs/configuration.md has the keys of [degrade]");
        let mut given = Table::new();
        given.insert("preset".to_owned(), Value::String(preset.to_owned()));
        for setting in settings {
            let (key, value) = parsed(setting).map_err(wrong)?;
            // Given twice, the last one counts, as of any option.
            given.insert(key, value);
        }
        let named = given.get("preset").map(document::to_json).unwrap_or_default();
        document::from_json::<Preset>(named)
            .map_err(|cause| refused(cause, "presets are bicubic, photo, web and real-esrgan"))?;
        let known = document::to_json(&Preset::default().config());
        if let Some(key) = given.keys().find(|key| known.get(key.as_str()).is_none()) {
            let names = known.as_object().into_iter().flat_map(|known| known.keys());
            let distance = |name: &str| strsim::damerau_levenshtein(name, key);
            let near = names.min_by_key(|name| distance(name));
            let near = near.filter(|name| distance(name) <= key.len() / 3);
            let help = match near {
                Some(near) => format!("did you mean {near}?"),
                None => "docs/configuration.md has the keys of [degrade]".to_owned(),
            };
            let report = Report::new("cannot read the damage", format!("unknown key {key}"));
            return Err(Error::Usage(report.help(help)));
        }
        let config: Self = document::from_toml(&given).map_err(wrong)?;
        config.check().map_err(wrong)?;
        Ok(config)
    }

    /// What is wrong with the values, if anything.
    pub fn check(&self) -> Result<(), String> {
        let single = [
            ("clean_prob", self.clean_prob),
            ("subsampling_prob", self.subsampling_prob),
            ("second_order_prob", self.second_order_prob),
            ("final_sinc_prob", self.final_sinc_prob),
            ("jpeg_last_prob", self.jpeg_last_prob),
            ("webp_prob", self.webp_prob),
            ("double_jpeg_prob", self.double_jpeg_prob),
            ("deblock", self.deblock),
        ];
        single.into_iter().try_for_each(|(key, p)| probability(key, p))?;
        range("webp_range", self.webp_range, [1.0, 100.0])?;
        self.first().check("")?;
        self.second().check("2")
    }
}

/// The key and the value of `key=value`: a value of TOML, or else a text.
fn parsed(setting: &str) -> Result<(String, Value), String> {
    let (key, text) =
        setting.split_once('=').ok_or_else(|| format!("{setting} is not KEY=VALUE"))?;
    let (key, text) = (key.trim(), text.trim());
    let value = format!("v = {text}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    Ok((key.to_owned(), value.unwrap_or_else(|| Value::String(text.to_owned()))))
}

impl Stage<'_> {
    fn check(&self, end: &str) -> Result<(), String> {
        let blur = if end.is_empty() { "blur_prob" } else { "second_blur_prob" };
        probability(blur, self.blur_prob)?;
        let named = |key: &str| format!("{key}{end}");
        let probabilities = [
            ("sinc_prob", self.sinc_prob),
            ("noise_prob", self.noise_prob),
            ("gaussian_noise_prob", self.gaussian_noise_prob),
            ("gray_noise_prob", self.gray_noise_prob),
            ("jpeg_prob", self.jpeg_prob),
        ];
        probabilities.into_iter().try_for_each(|(key, p)| probability(&named(key), p))?;
        let ranges = [
            ("blur_sigma", self.blur_sigma, [0.05, 20.0]),
            ("betag_range", self.betag_range, [0.1, 20.0]),
            ("betap_range", self.betap_range, [0.1, 20.0]),
            ("resize_range", self.resize_range, [0.05, 4.0]),
            ("noise_range", self.noise_range, [0.0, 255.0]),
            ("poisson_scale_range", self.poisson_scale_range, [0.0, 100.0]),
            ("jpeg_range", self.jpeg_range, [1.0, 100.0]),
        ];
        ranges.into_iter().try_for_each(|(key, r, within)| range(&named(key), r, within))?;
        let size = self.blur_kernel_size;
        if size.is_multiple_of(2) || !(7..=63).contains(&size) {
            let key = named("blur_kernel_size");
            return Err(format!("degrade.{key} = {size} must be odd and lie in 7..=63"));
        }
        if self.kernel_list.len() != self.kernel_prob.len() {
            let (kinds, weights) = (self.kernel_list.len(), self.kernel_prob.len());
            let (list, prob) = (named("kernel_list"), named("kernel_prob"));
            return Err(format!("degrade.{list} has {kinds} entries, degrade.{prob} {weights}"));
        }
        if self.kernel_list.contains(&KernelKind::Sinc) {
            let key = named("kernel_list");
            return Err(format!(
                "degrade.{key} cannot hold sinc: degrade.{} is its share",
                named("sinc_prob")
            ));
        }
        if self.resize_modes.is_empty() {
            return Err(format!("degrade.{} is empty", named("resize_modes")));
        }
        weights(&named("kernel_prob"), self.kernel_prob)?;
        weights(&named("resize_prob"), &self.resize_prob)
    }
}

fn probability(key: &str, p: f64) -> Result<(), String> {
    match (0.0..=1.0).contains(&p) {
        true => Ok(()),
        false => Err(format!("degrade.{key} = {p} must lie in 0..=1")),
    }
}

fn range(key: &str, [from, to]: [f64; 2], [least, most]: [f64; 2]) -> Result<(), String> {
    match least <= from && from <= to && to <= most {
        true => Ok(()),
        false => Err(format!(
            "degrade.{key} = [{from}, {to}] must go from a smaller to a larger number in {least}..={most}"
        )),
    }
}

fn weights(key: &str, weights: &[f64]) -> Result<(), String> {
    let good = weights.iter().all(|w| (0.0..1e9).contains(w)) && weights.iter().sum::<f64>() > 0.0;
    match good {
        true => Ok(()),
        false => Err(format!("degrade.{key} = {weights:?}: none may be negative, and not all 0")),
    }
}

/// Whether all numbers are finite: JSON has no others, they come as null.
fn is_finite(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::Array(all) => all.iter().all(is_finite),
        _ => true,
    }
}

impl Serialize for DegradeConfig {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        Self::serialize(self, to)
    }
}

impl<'de> Deserialize<'de> for DegradeConfig {
    /// The preset's values with those that are given.
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = Map::deserialize(from)?;
        if !given.values().all(is_finite) {
            return Err(D::Error::custom("nan and inf are no numbers to draw with"));
        }
        let preset = given.get("preset").cloned().map(document::from_json).transpose();
        let preset: Preset = preset.map_err(D::Error::custom)?.unwrap_or_default();
        let Json::Object(mut all) = document::to_json(&preset.config()) else { unreachable!() };
        all.extend(given);
        Self::deserialize(Json::Object(all)).map_err(D::Error::custom)
    }
}
