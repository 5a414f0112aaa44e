//! Training a system that draws digits: its steps, and grids of what it draws.
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::draws::{Rules, Teaching};
use super::grid::grid;
use super::teaching::Config;
use crate::engine::interrupt::Stop;
use crate::engine::rng::{Purpose, Stream};
use crate::error::{Error, Report, Result};
use crate::imaging::{self, EncodeOptions};
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::log::{Metrics, Reporter, due, grouped};
use crate::training::ranks::Ranks;
use crate::training::stepper::Stepper;
use crate::training::task::{Taken, Task};

/// See the [module](self).
pub(in crate::training) struct Lesson {
    config: Config,
    system: Box<dyn Teaching>,
}

impl Lesson {
    /// Trains `system` as `config` says.
    pub(in crate::training) fn new(config: &Config, system: Box<dyn Teaching>) -> Self {
        Self { config: config.clone(), system }
    }

    fn picture(step: u64, folder: &Path) -> PathBuf {
        folder.join(format!("samples/{step}.png"))
    }
}

impl Task for Lesson {
    fn parts(&self) -> Vec<Part<'_>> {
        self.system.parts()
    }

    fn batches(&self) -> u64 {
        self.system.batches()
    }

    fn step(&self, on: &mut dyn Stepper, _: u64, batches: &[Batch]) -> Result<Taken> {
        let Config { run, optim, ema, .. } = &self.config;
        self.system.step(on, &Rules { run, optim, ema }, batches)
    }

    fn shows(&self, step: u64, ends: bool, (folder, _): (&Path, &Metrics)) -> bool {
        let belongs = ends || due(step, self.config.sample.every);
        belongs && self.config.sample.count > 0 && !Self::picture(step, folder).exists()
    }

    /// Draws a grid with the averaged weights; every grid of a run shows the same noise.
    fn show(
        &self,
        on: &dyn Stepper,
        step: u64,
        folder: &Path,
        (ranks, _): (&Ranks, &Stop),
        reporter: &mut dyn Reporter,
    ) -> Result<Option<Vec<(String, Value)>>> {
        if !ranks.is_first() {
            return Ok(None);
        }
        let noise = Stream::new(self.config.run.seed, Purpose::Validation, 0);
        let mut images = None;
        on.averaged(&mut || {
            images = Some(self.system.draw(noise, self.config.sample.count)?);
            Ok(())
        })?;
        let Some(images) = images else { return Ok(None) };
        let path = Self::picture(step, folder);
        let below = folder.join("samples");
        fs::create_dir_all(&below).map_err(|e| {
            Error::Failed(Report::new(format!("cannot make the folder {}", below.display()), e))
        })?;
        imaging::write(&path, &grid(&images, 2)?, EncodeOptions::default())?;
        reporter.line(&format!("step {}  wrote {}", grouped(step), path.display()));
        Ok(Some(Vec::new()))
    }
}
