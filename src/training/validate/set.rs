//! One set of images.
use super::measures::*;
use super::scores::*;
use super::tiled::Enlarger;
use crate::data::degrade::Degrade;
use crate::data::folder::{OnBroken, Source};
use crate::data::lows::Lows;
use crate::data::store::{Pairs, Recipe};
use crate::engine::interrupt::Stop;
use crate::error::{Error, Result};
use crate::evaluate;
use crate::imaging::metrics;
use crate::models::Network;
use crate::models::perceptual::Kind;
use crate::training::log::Reporter;
use crate::training::sections::Config;
use crate::training::sheet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The validation images, with their low-resolution versions.
#[derive(Debug)]
pub struct Validation {
    pairs: Pairs,
    measures: Arc<Measures>,
}

impl Validation {
    /// Reads the images in `files`, whose low resolutions are found in `low` or else made by `degrade`; none if no image
    /// can be measured.
    pub(super) fn load(
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
        let recipe =
            Recipe { degrade, given, taught: None, process: None, scale, pad, small: (least, why) };
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
        let enlarger = Enlarger::new(network, config)?;
        for index in 0..self.pairs.len() {
            if stop.load(Ordering::Relaxed) != 0 {
                return Ok(None);
            }
            let pair = self.pairs.get(index)?;
            let result = match enlarger.enlarge(config, &pair, stop) {
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
