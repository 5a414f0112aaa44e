//! One set of images.
use super::measures::*;
use super::rows::{self, QUALITIES, Rows};
use super::scores::*;
use super::tiled::Enlarger;
use crate::data::degrade::Degrade;
use crate::data::folder::{OnBroken, Source};
use crate::data::lows::Lows;
use crate::data::store::{Pairs, Recipe};
use crate::engine::interrupt::Stop;
use crate::engine::spelling::counted;
use crate::error::{Error, NOT_FINITE, Report, Result};
use crate::evaluate;
use crate::imaging::metrics;
use crate::models::Network;
use crate::models::perceptual::Kind;
use crate::training::log::Reporter;
use crate::training::ranks::Ranks;
use crate::training::sections::Config;
use crate::training::sheet::{self, Shown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What helps where no image can be measured.
const NO_VALIDATION: &str = "name larger ones with data.val.paths; without them, data.val.split and data.val.sets nothing \
    is validated";

/// The validation images, with their low-resolution versions.
#[derive(Debug)]
pub struct Validation {
    pairs: Pairs,
    measures: Arc<Measures>,
}

impl Validation {
    /// Reads the images in `files`, whose low resolutions are found in `low` or else made by `degrade`; none if there are
    /// none.
    ///
    /// # Errors
    /// Exit code 2 if no image can be measured: what is looked for in the best would be missing.
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
        if pairs.is_empty() {
            let images = counted(files.len(), "image");
            let what = format!("none can be measured of {images} for validation");
            let report = Report::new(what, format!("they need {least} pixels a side, for SSIM"));
            return Err(Error::Usage(report.help(NO_VALIDATION)));
        }
        Ok(Some(Self { pairs, measures: Arc::clone(measures) }))
    }

    /// Runs every image through `network`, each by one of the ranks of `among`; none if its stop was set meanwhile. The
    /// first rank writes the comparison sheet into `folder`.
    ///
    /// # Errors
    /// [`NOT_FINITE`] on all ranks if a pixel is no number.
    pub fn measure(
        &self,
        network: &dyn Network,
        config: &Config,
        folder: &Path,
        (ranks, stop): (&Ranks, &Stop),
    ) -> Result<Option<Scores>> {
        let started = Instant::now();
        let mine = self.measure_mine(network, config, ranks, stop)?;
        let (rows, shown) = mine.map_or((None, Vec::new()), |(rows, shown)| (Some(rows), shown));
        let Some(rows) = rows::of_all(ranks, rows)? else { return Ok(None) };
        let broken =
            |row: &&Vec<Option<f64>>| row.first().is_some_and(|v| v.is_some_and(f64::is_nan));
        if rows.values().any(|row| broken(&row)) {
            return Err(Error::Check(
                Report::new("validation", "pixels of an output are no numbers").code(NOT_FINITE),
            ));
        }
        if !shown.is_empty() {
            sheet::write(shown, config, folder)?;
        }
        // In the order of the images, whoever measured them.
        let column = |k: usize| rows.values().filter_map(move |row| *row.get(k)?).collect();
        let mean =
            |all: Vec<f64>| (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64);
        let quality = |k: usize| {
            let [psnr, ssim] = [k, k + 1].map(|k| mean(column(k)).unwrap_or_default());
            Quality { psnr, ssim }
        };
        let kinds = &self.measures.distances;
        let distances = Kind::ALL.map(|kind| {
            let place = kinds.iter().position(|(of, _)| *of == kind)?;
            mean(column(QUALITIES + place))
        });
        let niqe = mean(column(QUALITIES + kinds.len()));
        let (output, bicubic) = (quality(0), quality(2));
        let (images, took) = (self.pairs.len(), started.elapsed());
        Ok(Some(Scores { output, bicubic, distances, niqe, images, took }))
    }

    /// What this rank measures, and what of it the sheet shows; none if `stop` was set meanwhile.
    fn measure_mine(
        &self,
        network: &dyn Network,
        config: &Config,
        ranks: &Ranks,
        stop: &Stop,
    ) -> Result<Option<(Rows, Vec<Shown>)>> {
        let Measures { distances, niqe } = &*self.measures;
        let (mut rows, mut shown) = (Rows::new(), Vec::new());
        let sheet = usize::try_from(config.val.sheet).unwrap_or(usize::MAX);
        let owners = rows::owners(self.pairs.len(), ranks.world(), sheet);
        let enlarger = Enlarger::new(network, config)?;
        for (index, _) in owners.into_iter().enumerate().filter(|(_, by)| *by == ranks.rank()) {
            if stop.load(Ordering::Relaxed) != 0 {
                return Ok(None);
            }
            let pair = self.pairs.get(index)?;
            let result = match enlarger.enlarge(config, &pair, stop) {
                Err(Error::Interrupted { .. }) => return Ok(None),
                // All ranks must hear of it, and do the same.
                Err(Error::Check(_)) => {
                    rows.insert(index, vec![Some(f64::NAN); QUALITIES]);
                    break;
                }
                result => result?,
            };
            let mut row: Vec<Option<f64>> =
                result.quality.iter().flat_map(|q| [Some(q.psnr), Some(q.ssim)]).collect();
            for (kind, distance) in distances {
                let images = [&result.output, &result.truth];
                row.push(evaluate::distance(distance, *kind, images)?);
            }
            row.push(match niqe {
                Some(niqe) => niqe.of(&result.output)?,
                None => None,
            });
            rows.insert(index, row);
            if index < sheet {
                shown.push(result);
            }
        }
        Ok(Some((rows, shown)))
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
