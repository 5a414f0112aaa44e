//! The two kinds of configuration: super-resolution, and systems that draw digits.
use std::collections::BTreeMap;
use std::path::Path;

use super::checkpoint::{self, Part};
use super::job::{Job, Prepared, Shared};
use super::log::{Reporter, grouped};
use super::sections::Config;
use super::tasks::digits::Digits;
use super::tasks::teaching::ModelConfig;
use super::tasks::{Lesson, Source, SuperResolution, Teaching, loss, teaching};
use super::validate::Validations;
use super::{plan, settings};
use crate::data::crops::{CropPlan, Crops};
use crate::data::degrade::{Preset, Process};
use crate::data::folder;
use crate::data::lows::Lows;
use crate::data::split;
use crate::data::store::{Pairs, Recipe};
use crate::diffusion::latent;
use crate::diffusion::system::{DEGRADE, SystemConfig};
use crate::engine::device::Device;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::spelling;
use crate::error::Result;
use crate::models::build_within;

/// The configuration `text`, called `name` in messages, of whichever kind it is, with every `a.b=v` of `overrides`
/// applied to it; see [`settings::read`].
///
/// # Errors
/// Exit code 2 if it is wrong.
pub fn read(text: &str, name: &str, overrides: &[String]) -> Result<Box<dyn Job>> {
    let kind = settings::text_at(text, "model.kind").unwrap_or_default();
    Ok(match teaching::KINDS.contains(&kind.as_str()) {
        true => Box::new(teaching::Config::read(text, name, overrides)?),
        false => Box::new(Config::read(text, name, overrides)?),
    })
}

impl Job for Config {
    fn shared(&self) -> Shared<'_> {
        Shared {
            run: &self.run,
            optim: &self.optim,
            ema: &self.ema,
            ckpt: &self.ckpt,
            log: &self.log,
            best: self.best(),
            patience: self.val.patience,
            batch: self.data.train.batch,
            fewer: |images, batches| {
                format!(
                    "--set data.train.batch={images} --set optim.accumulate={batches}    fits, and learns the same"
                )
            },
        }
    }

    fn toml(&self) -> String {
        self.to_toml()
    }

    fn changes(&self, folder: &Path) -> Result<Vec<String>> {
        settings::compare_with_existing(self, folder)
    }

    fn metadata(&self, step: u64) -> BTreeMap<String, String> {
        let (model, diffusion) = (self.model.clone(), self.diffusion.clone());
        #[allow(clippy::cast_possible_truncation)] // A share.
        let deblock = self.degrade.as_ref().map_or(0.0, |degrade| degrade.deblock as f32);
        let system = SystemConfig { deblock, ..SystemConfig::new(model, diffusion) };
        let preset = self.degrade.as_ref().map_or(Preset::Bicubic, |degrade| degrade.preset);
        system.metadata(&[
            ("srk.step", step.to_string()),
            ("srk.run", self.run.name.clone()),
            (DEGRADE, preset.name()),
        ])
    }

    fn takes(&self, checkpoint: &Path) -> Result<()> {
        let network = plan::build(self)?;
        let seed = self.run.seed;
        let critic = self.adversarial.as_ref().map(|a| plan::build_critic(&a.discriminator, seed));
        let critic = critic.transpose()?;
        let mut parts = vec![Part::of(&*network)];
        parts.extend(critic.iter().map(|critic| Part { aside: true, ..Part::of(&**critic) }));
        checkpoint::load_from(checkpoint, 0, &parts).map(drop)
    }

    fn prepare(&self, device: &Device, reporter: &mut dyn Reporter) -> Result<Prepared> {
        loss::check(&self.loss, &self.diffusion)?;
        let network = plan::build(self)?;
        latent::check(&*network, &self.diffusion)?;
        let planned = plan::check_memory(self, &*network, *device == Device::Cpu)?;
        plan::check_crop(self, &*network)?;
        let sources = folder::find(&self.data.train.paths)?;
        let share = if self.data.val.paths.is_empty() { self.data.val.split } else { 0.0 };
        let images = folder::described(&sources).ok();
        let paths = &self.data.train.paths;
        let [sources, held_out] = split::hold_out(sources, paths, share, self.run.seed)?;
        let crops = load_crops(self, &sources, network.channels(), reporter)?;
        let validation = Validations::load(self, held_out, reporter)?;
        let task = SuperResolution::new(self, network, validation, reporter)?;
        let source = Box::new(task.source(crops));
        Ok(Prepared { task: Box::new(task), source, planned, images })
    }

    fn listing(&self) -> Result<String> {
        let val = &self.data.val;
        let sets = val.sets.values().flat_map(|set| &set.paths);
        let all = self.data.train.paths.iter().chain(&val.paths).chain(sets);
        folder::listing(&all.cloned().collect::<Vec<_>>())
    }

    fn halves(&self) -> bool {
        true
    }
}

/// Reads the images and prepares for cropping.
fn load_crops(
    config: &Config,
    sources: &[folder::Source],
    channels: usize,
    reporter: &mut dyn Reporter,
) -> Result<Crops> {
    let data = &config.data.train;
    let scale = config.model.scale();
    let warn = &mut |text: &str| reporter.warn(text);
    let small = (scale, format!("smaller than the factor {scale}"));
    let (given, pad) = (Lows::find(&data.low, sources, scale)?, config.data.pad);
    let process = config.degrade.clone().map(|d| Process::new(d, data.degrade, scale));
    let taught = Lows::find(&data.taught, sources, 1)?;
    let recipe = Recipe {
        taught,
        degrade: data.degrade,
        given,
        process: process.clone(),
        scale,
        pad,
        small,
    };
    let pairs = Pairs::load(sources, recipe, config.data.cache_bytes(), data.on_broken, warn)?;
    let plan = CropPlan {
        size: data.crop,
        batch: data.batch,
        scale,
        channels,
        augment: data.augment,
        degrade: data.degrade,
        enlarge: config.diffusion.enlarge,
        plain: data.plain,
        seed: config.run.seed,
    };
    let crops = Crops::new(pairs, plan, warn)?.damaged(process);
    let pixels = crops.pixels() as f64 / 1e6;
    let (images, held) = (crops.images(), crops.held());
    let kept = match held == images {
        true => String::new(),
        false => format!(", {held} of them in memory, the others read as they are drawn"),
    };
    let counted = spelling::counted(images, "training image");
    reporter.line(&format!("{counted}, {pixels:.1} Mpx{kept}"));
    Ok(crops)
}

impl teaching::Config {
    /// The system, its initial weights a function of the seed.
    fn system(&self) -> Result<Box<dyn Teaching>> {
        let most = plan::most_parameters();
        let build = || self.model.build(self.run.seed);
        build_within(&self.model, most, build).map_err(|e| e.of_config(most))
    }

    /// Refuses sizes with which nothing is drawn, exit code 2: whether it is is tried.
    fn check_sizes(&self) -> Result<()> {
        let mut model = self.model.clone();
        if let ModelConfig::Ddpm(ddpm) = &mut model {
            ddpm.sample_steps = 1;
        }
        match model.build(self.run.seed).draw(Stream::new(0, Purpose::Sampling, 0), 1) {
            Err(error) => plan::fits(error, &self.model, &[]),
            Ok(_) => Ok(()),
        }
    }
}

impl Job for teaching::Config {
    fn shared(&self) -> Shared<'_> {
        Shared {
            run: &self.run,
            optim: &self.optim,
            ema: &self.ema,
            ckpt: &self.ckpt,
            log: &self.log,
            best: None,
            patience: 0,
            batch: self.data.batch,
            fewer: |images, _| format!("--set data.batch={images}    fits"),
        }
    }

    fn toml(&self) -> String {
        settings::to_toml(self)
    }

    fn changes(&self, folder: &Path) -> Result<Vec<String>> {
        settings::compare_with_existing(self, folder)
    }

    fn metadata(&self, step: u64) -> BTreeMap<String, String> {
        self.metadata_at(step)
    }

    fn takes(&self, checkpoint: &Path) -> Result<()> {
        checkpoint::load_from(checkpoint, 0, &self.system()?.parts()).map(drop)
    }

    fn prepare(&self, _: &Device, reporter: &mut dyn Reporter) -> Result<Prepared> {
        let system = self.system()?;
        self.check_sizes()?;
        let warn = &mut |text: &str| reporter.warn(text);
        let digits = Digits::load(&self.data, system.side(), self.run.seed, warn)?;
        let (images, s) = (grouped(digits.len() as u64), spelling::plural(digits.len()));
        reporter.line(&format!("{images} training image{s}"));
        let weights: usize =
            system.parts().iter().flat_map(Part::state).map(|p| p.value().len()).sum();
        let whole = system.source(digits, self.run.seed);
        let source: Source = Box::new(move |unit| whole(unit.batch)?.part(unit));
        let planned = plan::of_weights(weights);
        let images = self.listing().ok();
        Ok(Prepared { task: Box::new(Lesson::new(self, system)), source, planned, images })
    }

    fn listing(&self) -> Result<String> {
        folder::listing(&self.data.paths)
    }

    fn halves(&self) -> bool {
        false
    }
}
