//! Validation: whole images through the whole chain, measured as papers do.
mod sets;
mod tiled;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::log::{Reporter, short};
use super::sections::{Config, ValMetric};
use super::sheet::{self, Shown, States};
use crate::data::crops::Pair;
use crate::data::degrade::{self, Degrade};
use crate::data::folder::{OnBroken, Rgb8, Source};
use crate::data::lows::Lows;
use crate::data::store::{Pairs, Recipe};
use crate::diffusion::latent;
use crate::diffusion::sampler::{PixelNoise, Progress, Walk, condition};
pub use crate::engine::tape::Stop;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::imaging::color::{luma_of, with_luma};
use crate::imaging::niqe::Niqe;
use crate::imaging::{Color, Image, Rect, metrics};
use crate::models::Network;
use crate::models::perceptual::folder::Folder;
use crate::models::perceptual::{Distance, Kind};
pub use sets::Validations;
pub(super) use sets::key;

/// The validation images, with their low-resolution versions.
#[derive(Debug)]
pub struct Validation {
    pairs: Pairs,
    measures: Arc<Measures>,
}

/// What `val.metrics` asks for.
#[derive(Debug)]
struct Measures {
    distances: Vec<(Kind, Distance)>,
    niqe: Option<Niqe>,
}

/// PSNR and SSIM of Y, in dB and 0..1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// PSNR of Y in dB.
    pub psnr: f64,
    /// SSIM of Y.
    pub ssim: f64,
}

/// Means over the validation images.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// The model's output.
    pub output: Quality,
    /// Bicubic enlargement.
    pub bicubic: Quality,
    /// The perceptual distances of the model's output, in the order of [`Kind::ALL`]; none where not measured.
    pub distances: [Option<f64>; 3],
    /// NIQE of the model's output; none where not measured.
    pub niqe: Option<f64>,
    images: usize,
    took: Duration,
}

impl Validation {
    /// Reads the images in `files`, whose low resolutions are found in `low` or else made by `degrade`; none if no image
    /// can be measured.
    fn load(
        config: &Config,
        (files, low, degrade): (Vec<Source>, &[PathBuf], Degrade),
        measures: &Arc<Measures>,
        reporter: &mut dyn Reporter,
    ) -> Result<Option<Self>> {
        if files.is_empty() {
            return Ok(None);
        }
        let files = spread(files, config.val.images);
        let warn = &mut |text: &str| reporter.warn(text);
        let (scale, pad) = (config.model.scale(), config.data.pad);
        // As `evaluate::check_size`: less cannot be measured.
        let least = metrics::SSIM_WINDOW + 2 * scale;
        let why = format!("too small for SSIM, which needs {least} pixels a side at this factor");
        let given = Lows::find(low, &files, scale)?;
        let recipe = Recipe { degrade, given, scale, pad, small: (least, why) };
        // Each is used once, in order: nothing is gained by many of them in memory.
        let cache = config.data.cache_bytes() / 8;
        let pairs = Pairs::load(&files, recipe, cache, OnBroken::Skip, warn)?;
        Ok((!pairs.is_empty()).then(|| Self { pairs, measures: Arc::clone(measures) }))
    }

    /// Runs every image through `network`; none if `stop` was set meanwhile. Writes the comparison
    /// sheet into `folder`.
    pub fn measure(
        &self,
        network: &dyn Network,
        config: &Config,
        folder: &Path,
        stop: &Stop,
    ) -> Result<Option<Scores>> {
        let started = Instant::now();
        let Measures { distances, niqe } = &*self.measures;
        let mut sum = [Quality::default(); 2];
        let mut far = distances.iter().map(|_| Vec::new()).collect::<Vec<Vec<f64>>>();
        let (mut natural, mut shown) = (Vec::new(), Vec::new());
        let tiled = tiled::Enlarger::new(network, config)?;
        for index in 0..self.pairs.len() {
            if stop.load(Ordering::Relaxed) != 0 {
                return Ok(None);
            }
            let pair = self.pairs.get(index)?;
            let result = match &tiled {
                Some(tiled) if tiled.takes(&pair) => tiled.enlarge(config, &pair, stop),
                _ => enlarge(network, config, &pair, stop),
            };
            let result = match result {
                Err(Error::Interrupted { .. }) => return Ok(None),
                result => result?,
            };
            for (sum, quality) in sum.iter_mut().zip(result.quality) {
                sum.psnr += quality.psnr;
                sum.ssim += quality.ssim;
            }
            for ((kind, distance), far) in distances.iter().zip(&mut far) {
                let images = [&result.output, &result.truth];
                far.extend(evaluate::distance(distance, *kind, images)?);
            }
            if let Some(niqe) = niqe {
                natural.extend(niqe.of(&result.output)?);
            }
            if (shown.len() as u64) < config.val.sheet {
                shown.push(result);
            }
        }
        let n = self.pairs.len() as f64;
        let [output, bicubic] = sum.map(|q| Quality { psnr: q.psnr / n, ssim: q.ssim / n });
        if !shown.is_empty() {
            sheet::write(shown, config, folder)?;
        }
        let mean =
            |all: &[f64]| (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        let distances =
            Kind::ALL.map(|kind| mean(&far[distances.iter().position(|d| d.0 == kind)?]));
        let (images, took, niqe) = (self.pairs.len(), started.elapsed(), mean(&natural));
        Ok(Some(Scores { output, bicubic, distances, niqe, images, took }))
    }
}

/// NIQE, if `val.metrics` asks for it.
fn niqe(config: &Config) -> Result<Option<Niqe>> {
    if !config.val.metrics.contains(&ValMetric::Niqe) {
        return Ok(None);
    }
    let file = Folder::open(config.loss.features.as_deref()).niqe()?;
    let values = |key: &str| file.tensors.get(key).map_or(&[][..], |t| t.1.as_slice());
    Niqe::new(values("mu"), values("cov")).map(Some)
}

/// The distances that `val.metrics` asks for.
fn distances(config: &Config) -> Result<Vec<(Kind, Distance)>> {
    let wanted = |kind: &Kind| {
        let metric = if *kind == Kind::Dists { ValMetric::Dists } else { ValMetric::Lpips };
        config.val.metrics.contains(&metric)
    };
    let folder = Folder::open(config.loss.features.as_deref());
    let open = |kind| Ok((kind, Distance::open(kind, &folder)?));
    Kind::ALL.into_iter().filter(wanted).map(open).collect()
}

/// `count` of `files`, evenly spread; all if `count` is 0 or more than there are.
fn spread<T>(files: Vec<T>, count: u64) -> Vec<T> {
    let (all, count) = (files.len(), usize::try_from(count).unwrap_or(usize::MAX));
    if count == 0 || count >= all {
        return files;
    }
    let wanted: Vec<usize> = (0..count).map(|i| i * all / count).collect();
    let is_wanted = |i: usize| wanted.binary_search(&i).is_ok();
    files.into_iter().enumerate().filter(|(i, _)| is_wanted(*i)).map(|(_, f)| f).collect()
}

/// One image through the whole chain, and its measures.
fn enlarge(network: &dyn Network, config: &Config, pair: &Pair, stop: &Stop) -> Result<Shown> {
    let scale = config.model.scale();
    let align = network.geometry().align;
    let low = pad(&pair.low, align);
    let (width, height) = (low.width * scale, low.height * scale);
    let wanted = Rect::new(0, 0, width, height);
    let enlarged = degrade::enlarge(&low, config.diffusion.enlarge, scale, wanted)?;
    let (device, channels) = (network.device(), network.channels());
    let tensor = |pixels: &[f32], height: usize, width: usize| {
        let luma = (channels == 1).then(|| luma_of(pixels));
        let values = luma.as_deref().unwrap_or(pixels);
        Tensor::from_slice_on(&device, values, &[1, height, width, channels])
    };
    let y0 = tensor(&enlarged, height, width)?;
    let small = tensor(&degrade::to_signed(&low.pixels), low.height, low.width)?;
    let seen = condition(network, &small, &y0, None)?;
    let noise = PixelNoise::new(&device, config.run.seed, &[[0, 0]])?;
    let steps = match usize::try_from(config.val.steps).unwrap_or(0) {
        0 => config.diffusion.process.steps(),
        steps => steps,
    };
    let mut states = States::new(config);
    let watch = &mut |p: Progress<'_>| states.see(&p);
    let first_stage = network.first_stage().map(|vq| &**vq);
    let start = latent::encode(first_stage, &y0)?;
    let walk = Walk::new(&config.diffusion, start.shape()[0], steps, &device)?.until(stop);
    let output = walk.run(network, seen, &start, &noise, watch)?;
    let truth = to_image(&pair.high)?;
    let image = |state: &Tensor| {
        let pixels = match first_stage {
            None => state.to_f32_vec()?,
            Some(_) => latent::decode(first_stage, state.try_clone()?)?.to_f32_vec()?,
        };
        match channels {
            1 => cut(&with_luma(&enlarged, &pixels), width, &pair.high),
            _ => cut(&pixels, width, &pair.high),
        }
    };
    let output = image(&output)?;
    let bicubic = cut(&enlarged, width, &pair.high)?;
    shown(pair, scale, states.images(image)?, [bicubic, output, truth])
}

/// The measures of an output and of bicubic enlargement, with what the sheet shows.
fn shown(
    pair: &Pair,
    scale: usize,
    states: Vec<(usize, Image)>,
    [bicubic, output, truth]: [Image; 3],
) -> Result<Shown> {
    let quality = [measure(&output, &truth, scale)?, measure(&bicubic, &truth, scale)?];
    Ok(Shown {
        name: pair.name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
        low: sheet::repeated(&pair.low, scale)?,
        states,
        bicubic,
        output,
        truth,
        quality,
    })
}

/// The top left part of `values` `[H, width, 3]` in `[-1, 1]`, as large as `like`, in 8 bits.
fn cut(values: &[f32], width: usize, like: &Rgb8) -> Result<Image> {
    let rows = values.chunks_exact(width * 3).take(like.height);
    let unit: Vec<f32> =
        rows.flat_map(|r| r[..like.width * 3].iter().map(|v| (v + 1.0) / 2.0)).collect();
    Image::from_rgb_f32(like.width, like.height, &unit)
}

fn to_image(image: &Rgb8) -> Result<Image> {
    Image::from_u8(image.width, image.height, Color::Rgb, image.pixels.clone())
}

/// Repeats the last column and row until both sides are multiples of `align`.
fn pad(image: &Rgb8, align: usize) -> Rgb8 {
    let (width, height) =
        (image.width.next_multiple_of(align), image.height.next_multiple_of(align));
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (x.min(image.width - 1), y.min(image.height - 1));
            pixels.extend_from_slice(&image.pixels[(y * image.width + x) * 3..][..3]);
        }
    }
    Rgb8 { width, height, pixels }
}

fn measure(image: &Image, truth: &Image, border: usize) -> Result<Quality> {
    Ok(Quality {
        psnr: metrics::psnr_y_float(image, truth, border)?,
        ssim: metrics::ssim_y_float(image, truth, border)?,
    })
}

impl Scores {
    /// The measures under the names of `metrics.jsonl`.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let mut values = vec![
            ("val_psnr_y", self.output.psnr.into()),
            ("val_ssim_y", self.output.ssim.into()),
            ("val_bicubic_psnr_y", self.bicubic.psnr.into()),
            ("val_bicubic_ssim_y", self.bicubic.ssim.into()),
            ("val_images", self.images.into()),
            ("val_seconds", self.took.as_secs_f64().into()),
        ];
        let names = ["val_lpips_alex", "val_lpips_vgg", "val_dists"];
        let distances = names.into_iter().zip(self.distances);
        values.extend(distances.filter_map(|(name, value)| Some((name, value?.into()))));
        values.extend(self.niqe.map(|value| ("val_niqe", value.into())));
        values
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PSNR-Y {:.3} dB (bicubic {:.3})  SSIM {:.4} ({:.4})",
            self.output.psnr, self.bicubic.psnr, self.output.ssim, self.bicubic.ssim,
        )?;
        for (kind, distance) in Kind::ALL.iter().zip(self.distances) {
            if let Some(distance) = distance {
                write!(f, "  {kind} {distance:.4}")?;
            }
        }
        if let Some(niqe) = self.niqe {
            write!(f, "  niqe {niqe:.3}")?;
        }
        write!(f, "  {} images in {}", self.images, short(self.took))
    }
}
