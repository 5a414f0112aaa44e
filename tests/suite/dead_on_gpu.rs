//! No dead kernel: each that is exported is started by a network, by upscaling or by training.
//!
//! All of them run here on the device that only counts (`launches.rs`), so that any size takes moments. What is
//! downloaded from it is zero; which kernels start does not depend on that, but for what follows an overflow.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;
use std::sync::Arc;

use cuda_emulation::{Library, Variant};
use srk::diffusion::process::{InputScale, Process};
use srk::diffusion::sampler::{Diffusion, Space};
use srk::diffusion::schedule::EtaSchedule;
use srk::diffusion::system::{System, SystemConfig};
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::imaging::{Color, Image};
use srk::models::ModelConfig;
use srk::models::perceptual::Distance;
use srk::models::perceptual::backbone::Architecture;
use srk::models::perceptual::dists::Dists;
use srk::models::perceptual::lpips::Lpips;
use srk::models::sr3_unet::Sr3UNetConfig;
use srk::models::weights::WeightsFile;
use srk::training::config::Config;
use srk::training::recipes;
use srk::upscale::{Settings, TileSize, Upscaler, plan, upscale};

use crate::common::training::{Place, go_on};
use crate::launches::{Counting, STARTED, counts, ledger};
use crate::ncnn::enlarge_by;
use crate::recipes_gpu::steps_of;

/// Kernels that nothing here starts, and why they stay. It may only become shorter.
const ALLOWED: &[(&str, &[&str])] = &[
    (
        "widths that configurations may have and recipes have not",
        &["attention_keys_128", "attention_queries_128"],
    ),
    (
        "what follows a product by a library, which the device that counts has not",
        &["conv2d_epilogue"],
    ),
    (
        "what is taken where it was measured, on compute capability 9.0, which the device that counts is not in all",
        &["conv2d_wgmma_128x64", "conv2d_wgmma_128x128"],
    ),
    ("the gradient of an op that the program uses without one", &["sigmoid_backward"]),
    ("shows the numbers that other kernels draw for themselves", &["pixel_noise"]),
];

fn device() -> Device {
    Device::Cuda(Gpu::new(Arc::new(Counting::new())))
}

/// The name of a kernel without its element type.
fn plain(name: &str) -> String {
    let types = ["_f32", "_f16", "_bf16"];
    types.iter().find_map(|t| name.strip_suffix(t)).unwrap_or(name).to_owned()
}

/// A system of this network with a chain of four steps, or none.
fn system(model: ModelConfig) -> System {
    let eta = EtaSchedule::Official { min_noise_level: 0.2, end: 0.99, power: 0.3 };
    let process =
        Process::ResShift { steps: 4, kappa: 0.5, eta, input_scale: InputScale::None, first_t: 1 };
    let mut diffusion = Diffusion::direct();
    if !model.is_direct() {
        diffusion.process = process;
    }
    let network = model.build(1);
    if network.first_stage().is_some() {
        diffusion.space = Space::Latent;
    }
    let config = SystemConfig { default_steps: Some(2), ..SystemConfig::new(model, diffusion) };
    let file = WeightsFile::of(&network.state(), config.metadata(&[])).unwrap();
    System::from_file(&file, "narrow").unwrap()
}

/// Each network in a call with gradients, and in the upscaler: alone, and in batches of tiles.
fn networks() {
    for known in ModelConfig::KINDS {
        let config = (known.narrow)();
        let side =
            if matches!(config, ModelConfig::SwinUNet(_)) { 64 } else { 32 * config.scale() };
        counts(&config, side).unwrap_or_else(|e| panic!("{}: {e}", known.name));
        for dtype in [DType::F16, DType::F32] {
            let upscaler = Upscaler::new(system(config.clone()), &device(), dtype).unwrap();
            let image = Image::from_u8(72, 40, Color::Rgb, vec![90; 72 * 40 * 3]).unwrap();
            for tile in [TileSize::None, TileSize::Side(16)] {
                let settings = Settings { steps: Some(2), seed: 1, tile, memory: 8 << 30 };
                let plan = plan(&upscaler, 72, 40, &settings).unwrap();
                upscale(&upscaler, &image, &plan, 1, &mut |_, _| Ok(())).unwrap();
            }
        }
    }
}

/// A UNet whose one head of 12 channels fills no packs of 16 bits.
fn ragged_heads() {
    let config = Sr3UNetConfig {
        base: 12,
        multipliers: vec![1],
        blocks: 1,
        groups: 4,
        attention: vec![],
        image_size: 32,
        scale: 4,
        ..Default::default()
    };
    counts(&ModelConfig::Sr3UNet(config), 32).unwrap();
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
        for (name, dtype) in [("half", DType::F16), ("brain", DType::BF16), ("single", DType::F32)]
        {
            let config = place.config(&[settings, &["run.steps=3"]].concat());
            let out = place.runs(&format!("{name}{i}"));
            go_on((&device(), dtype), &config, &out, None).0.unwrap();
        }
    }
}

/// A network that enlarges in one call, by its own loss.
fn direct_training() {
    let place = Place::new();
    let recipe = recipes::ALL.iter().find(|r| r.name == "laplacian").unwrap();
    let paths = format!("data.train.paths=[{:?}]", place.images().display().to_string());
    let settings =
        ["run.steps=2", "model.channels=8", "data.train.crop=32", "data.train.batch=1", &paths];
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    let config = Config::read(recipe.text, recipe.name, &settings).unwrap();
    go_on((&device(), DType::F32), &config, &place.runs("direct"), None).0.unwrap();
}

/// Every recipe in two steps, and a critic with norms, whose slope has a gradient.
fn recipes_train() {
    for recipe in recipes::ALL {
        steps_of(recipe.name, &[]);
    }
    steps_of("wgan-gp", &["model.critic_norm=true"]);
}

/// Distances by features, of which recipes take those that are in files.
fn distances() {
    let distances = [
        Distance::Lpips(Lpips::new(1, Architecture::AlexNet)),
        Distance::Lpips(Lpips::new(1, Architecture::Vgg16)),
        Distance::Dists(Dists::new(1)),
    ];
    let device = device();
    for distance in distances {
        distance.to_device(&device, DType::F32).unwrap();
        let image = || Tensor::zeros_on(&device, DType::F32, &[1, 64, 64, 3]).unwrap();
        let mut tape = Tape::training();
        let (x, truth) = (tape.variable(image()), tape.input(image()));
        let d = distance.forward(&mut tape, &x, &truth).unwrap();
        let one = Tensor::zeros_on(&device, DType::F32, d.shape()).unwrap();
        drop(tape.backward(&d, one).unwrap());
    }
}

/// Layers that only networks of ncnn have.
fn graphs() {
    for layer in ["Sigmoid", "TanH", "Interp"] {
        let numbers = if layer == "Interp" { " 0=3 1=2.0 2=2.0" } else { "" };
        enlarge_by(&format!("{layer} s 1 1 c out{numbers}"), &device());
    }
}

#[test]
fn every_kernel_is_started_by_the_program() {
    let exported: BTreeSet<String> = Library::open(Variant::Plain)
        .unwrap()
        .kernels()
        .iter()
        .map(|k| plain(&k.name))
        .filter(|k| !k.starts_with("probe_"))
        .collect();
    assert!(exported.len() > 100, "only {} kernels were found", exported.len());
    // The recipes' networks.
    ledger();
    networks();
    ragged_heads();
    training();
    direct_training();
    recipes_train();
    distances();
    graphs();
    let started: BTreeSet<String> = STARTED.lock().unwrap().iter().map(|k| plain(k)).collect();
    let allowed: BTreeSet<String> =
        ALLOWED.iter().flat_map(|(_, names)| *names).map(|&name| name.to_owned()).collect();
    let dead: Vec<&String> =
        exported.difference(&started).filter(|k| !allowed.contains(*k)).collect();
    assert!(dead.is_empty(), "{} kernels that only tests start: {dead:#?}", dead.len());
    let alive: Vec<&String> = allowed.intersection(&started).collect();
    assert!(alive.is_empty(), "these are started: leave them out of the list: {alive:?}");
}
