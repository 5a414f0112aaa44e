//! No dead kernel: each that is exported is started by a network, by upscaling, by training or by a measure.
//!
//! All of them run here on the device that only counts (`launches.rs`), so that any size takes moments. What is
//! downloaded from it is zero; which kernels start does not depend on that, but for what follows an overflow.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::sync::Arc;

use cuda_emulation::{Library, Variant};
use srk::diffusion::sampler::{Clamp, Diffusion, Rule};
use srk::diffusion::system::{System, SystemConfig};
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::imaging::{Color, Image};
use srk::import::detect::KNOWN;
use srk::models::ModelConfig;
use srk::models::perceptual::folder::Folder;
use srk::models::perceptual::{Distance, Kind};
use srk::models::weights::WeightsFile;
use srk::training::config::Config;
use srk::training::recipes;
use srk::upscale::{Settings, TileSize, Upscaler, plan, upscale};

use crate::common::training::{Place, go_on};
use crate::launches::{Counting, STARTED, counts};
use crate::perceptual::write_features;

/// Kernels that nothing of the program starts, and why they stay. It may only become shorter.
const ALLOWED: &[(&str, &str)] = &[];

fn device() -> Device {
    Device::Cuda(Gpu::new(Arc::new(Counting::new())))
}

/// The name of a kernel without its element type.
fn plain(name: &str) -> String {
    let types = ["_f32", "_f16", "_bf16"];
    types.iter().find_map(|t| name.strip_suffix(t)).unwrap_or(name).to_owned()
}

fn configurations() -> impl Iterator<Item = Config> {
    recipes::ALL.iter().filter_map(|r| Config::read(r.text, r.name, &[]).ok())
}

fn networks() {
    for known in KNOWN {
        let config = (known.narrow)();
        let side =
            if matches!(config, ModelConfig::SwinUNet(_)) { 64 } else { 32 * config.scale() };
        counts(&config, side).unwrap_or_else(|e| panic!("{}: {e}", known.name));
    }
    for config in configurations() {
        let crop = config.data.train.crop;
        let latent = matches!(config.model, ModelConfig::SwinUNet(_));
        let side = if latent { crop / config.model.scale() } else { crop };
        counts(&config.model, side).unwrap_or_else(|e| panic!("{}: {e}", config.run.name));
    }
}

/// Enlarges a picture by the system of `config`, alone and in batches of tiles, by each rule.
fn upscaling(config: &Config) {
    let rules = [Rule::Posterior, Rule::Ddim { eta: 0.0 }];
    for (rule, dtype) in rules.into_iter().zip([DType::F16, DType::F32]) {
        let mut diffusion: Diffusion = config.diffusion.clone();
        if !config.model.is_direct() {
            diffusion.sampler.rule = rule;
            diffusion.sampler.clamp = Clamp::Xt;
        }
        let model = config.model.clone();
        let system = SystemConfig { model, diffusion, default_steps: Some(2) };
        let state = system.model.build(1).state();
        let file = WeightsFile::of(&state, system.metadata(&[])).unwrap();
        let system = System::from_file(&file, &config.run.name).unwrap();
        let upscaler = Upscaler::new(system, &device(), dtype).unwrap();
        let image = Image::from_u8(72, 40, Color::Rgb, vec![90; 72 * 40 * 3]).unwrap();
        for tile in [TileSize::None, TileSize::Side(16)] {
            let settings = Settings { steps: Some(2), seed: 1, tile, memory: 8 << 30 };
            let plan = plan(&upscaler, 72, 40, &settings).unwrap();
            upscale(&upscaler, &image, &plan, 1, &mut |_, _| Ok(())).unwrap();
        }
    }
}

/// Three steps of the tiny training by each loss.
fn training() {
    let place = Place::new();
    let val = place.val();
    let losses: [&[&str]; 7] = [
        &["loss.kind=l1", "loss.dct=0.1"],
        &["loss.kind=mse"],
        &["loss.kind=charbonnier"],
        &["loss.kind=huber"],
        &["loss.kind=multiscale-dct"],
        &["loss.kind=l1", "optim.accumulate=2", "optim.recompute=true", "optim.kind=adamw"],
        &["loss.kind=mse", "val.every=2", "val.steps=2", &val],
    ];
    for (i, settings) in losses.into_iter().enumerate() {
        for (name, dtype) in [("half", DType::F16), ("single", DType::F32)] {
            let config = place.config(&[settings, &["run.steps=3"]].concat());
            let out = place.runs(&format!("{name}{i}"));
            go_on((&device(), dtype), &config, &out, None).0.unwrap();
        }
    }
}

fn measures() {
    let folder = tempfile::tempdir().unwrap();
    write_features(folder.path(), 1);
    let folder = Folder::open(Some(folder.path()));
    for kind in [Kind::LpipsAlex] {
        Distance::open(kind, &folder).unwrap().to_device(&device(), DType::F32).unwrap();
    }
}

#[test]
fn every_kernel_is_started_by_the_program() {
    let exported: BTreeSet<String> =
        Library::open(Variant::Plain).unwrap().kernels().iter().map(|k| plain(&k.name)).collect();
    assert!(exported.len() > 100, "only {} kernels were found", exported.len());
    networks();
    configurations().for_each(|config| upscaling(&config));
    training();
    measures();
    let started: BTreeSet<String> = STARTED.lock().unwrap().iter().map(|k| plain(k)).collect();
    let allowed: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let dead: Vec<&String> =
        exported.difference(&started).filter(|k| !allowed.contains(*k)).collect();
    assert!(dead.is_empty(), "{} kernels that only tests start: {dead:#?}", dead.len());
    let alive: Vec<&String> = allowed.intersection(&started).collect();
    assert!(alive.is_empty(), "these are started: leave them out of the list: {alive:?}");
}
