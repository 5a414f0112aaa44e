//! All sets that a run validates on: that of `data.val`, which has no name, and those of `data.val.sets`.
use std::path::Path;
use std::sync::Arc;

use super::measures::{Measures, distances, niqe};
use super::scores::Scores;
use super::set::Validation;
use crate::data::folder::{self, Source};
use crate::engine::interrupt::Stop;
use crate::error::Result;
use crate::models::Network;
use crate::training::log::Reporter;
use crate::training::ranks::Ranks;
use crate::training::sections::Config;

/// The sets, the one without a name first.
#[derive(Debug)]
pub struct Validations(Vec<(String, Validation)>);

impl Validations {
    /// Reads the images that the configuration names, or else those `held_out` of training; none if there are neither.
    ///
    /// # Errors
    /// If paths are missing, or weights of what is to be measured.
    pub fn load(
        config: &Config,
        held_out: Vec<Source>,
        reporter: &mut dyn Reporter,
    ) -> Result<Option<Self>> {
        let data = &config.data.val;
        let (files, low) = match data.paths.is_empty() {
            true => (held_out, &config.data.train.low),
            false => (folder::find(&data.paths)?, &data.low),
        };
        if files.is_empty() && data.sets.is_empty() {
            return Ok(None);
        }
        let measures = Arc::new(Measures { distances: distances(config)?, niqe: niqe(config)? });
        let mut sets = Vec::new();
        let first = Validation::load(config, (files, low, data.degrade), &measures, reporter)?;
        sets.extend(first.map(|set| (String::new(), set)));
        for (name, set) in &data.sets {
            let images = (folder::find(&set.paths)?, &set.low[..], set.degrade);
            let loaded = Validation::load(config, images, &measures, reporter)?;
            sets.extend(loaded.map(|set| (name.clone(), set)));
        }
        Ok((!sets.is_empty()).then_some(Self(sets)))
    }

    /// A key of `metrics.jsonl` that is there once a step was validated.
    pub fn key(&self) -> String {
        self.0.first().map_or_else(String::new, |(name, _)| key(name, "val_psnr_y"))
    }

    /// Runs every image of every set through `network`: the scores of each set with its name; none if the stop of `among`
    /// was set meanwhile. The first of its ranks writes comparison sheets into `folder`, those of named sets into folders of their names.
    ///
    /// # Errors
    /// If an image cannot be read any more, or a sheet not be written.
    pub fn measure(
        &self,
        network: &dyn Network,
        config: &Config,
        folder: &Path,
        among: (&Ranks, &Stop),
    ) -> Result<Option<Vec<(String, Scores)>>> {
        let mut all = Vec::new();
        for (name, set) in &self.0 {
            match set.measure(network, config, &folder.join(name), among)? {
                Some(scores) => all.push((name.clone(), scores)),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }
}

/// What `metrics.jsonl` calls the measure `plain`, such as `val_psnr_y`, of the set `name`.
pub(in crate::training) fn key(name: &str, plain: &str) -> String {
    match (name, plain.strip_prefix("val_")) {
        ("", _) | (_, None) => plain.to_owned(),
        (name, Some(measure)) => format!("val_{name}/{measure}"),
    }
}
