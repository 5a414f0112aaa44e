//! Systems whose states are latents: trained with a frozen first stage, kept in one file, upscaled in tiles.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use crate::common;

use std::collections::BTreeMap;
use std::path::Path;

use common::training::{Place, go};
use srk::diffusion::system::System;
use srk::engine::device::{DType, Device};
use srk::error::Error;
use srk::imaging::{Color, Image, Samples};
use srk::models::Module as _;
use srk::models::vq::{Vq, VqConfig};
use srk::models::weights::WeightsFile;
use srk::upscale::{Settings, TileSize, Upscaler, plan, upscale};

const MODEL: &str = r#"
kind = "swin-unet"
base = 32
multipliers = [1, 2]
blocks = [1, 1]
attention = [16, 8]
image_size = 16
low_size = 16
swin_channels = 32
window = 4
mlp_ratio = 1
autoencoder = { channels = 32, multipliers = [1, 1, 1], blocks = 1, codes = 64 }
[diffusion]
space = "latent"
prediction = "x0"
enlarge = "torch-bicubic"
process = { kind = "resshift", steps = 2, kappa = 2.0, eta = { kind = "official", min_noise_level = 0.2, end = 0.99, power = 0.3 }, input_scale = "latent", first_t = 0 }
"#;

/// The configuration of a tiny latent system.
fn text(place: &Place, first_stage: Option<&Path>) -> String {
    let whole = place.text();
    let (before, rest) = whole.split_once("[model]").unwrap();
    let rest = &rest[rest.find("[data.train]").unwrap()..];
    let path = first_stage.map_or_else(String::new, |p| format!("frozen = {p:?}\n"));
    format!("{before}{path}[model]{MODEL}{rest}[loss]\nkind = \"mse\"\n")
}

fn sizes() -> VqConfig {
    VqConfig {
        channels: 32,
        multipliers: vec![1, 1, 1],
        blocks: 1,
        codes: 64,
        ..VqConfig::default()
    }
}

/// The averaged weights of a run of two steps, and the file of its first stage.
fn trained(place: &Place) -> (WeightsFile, WeightsFile) {
    let file = place.runs("vq.safetensors");
    let first_stage = WeightsFile::of(Vq::new(&sizes(), 3).parameters(), BTreeMap::new()).unwrap();
    first_stage.write(&file, DType::F32).unwrap();
    let text = text(place, Some(&file));
    let config = srk::training::config::Config::read(&text, "latent.toml", &[]).unwrap();
    let (result, _) = go(&config, &place.runs("runs"), Some(2));
    result.unwrap();
    let saved = place.runs("runs").join("tiny/ckpt/2/ema.safetensors");
    (WeightsFile::read(&saved).unwrap(), first_stage)
}

#[test]
fn training_without_a_first_stage_says_what_to_do() {
    let place = Place::new();
    let config =
        srk::training::config::Config::read(&text(&place, None), "latent.toml", &[]).unwrap();
    let (result, _) = go(&config, &place.runs("runs"), Some(2));
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
    assert!(error.to_string().contains("run.frozen"), "{error}");
}

#[test]
fn a_run_keeps_the_first_stage_as_it_was_and_saves_it_with_the_network() {
    let place = Place::new();
    let (saved, first_stage) = trained(&place);
    for (name, tensor) in &first_stage.tensors {
        assert_eq!(&saved.tensors[&format!("first_stage.{name}")], tensor, "{name}");
    }
    assert!(!saved.metadata["srk.config"].contains("vq.safetensors"));
    let system = System::from_file(&saved, "saved").unwrap();
    assert!(system.network.first_stage().is_some());
    assert_eq!(system.network.parameters().len() + first_stage.tensors.len(), saved.tensors.len());
}

fn upscaled(system: System, tile: TileSize, [width, height]: [usize; 2]) -> Vec<u8> {
    let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
    let samples = (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect();
    let image = Image::from_u8(width, height, Color::Rgb, samples).unwrap();
    let settings = Settings { steps: None, seed: 1, tile, memory: 1 << 32 };
    let plan = plan(&upscaler, width, height, &settings).unwrap();
    let (large, _) = upscale(&upscaler, &image, &plan, 1, &mut |_, _| Ok(())).unwrap();
    assert_eq!([large.width, large.height], [4 * width, 4 * height]);
    match large.samples {
        Samples::U8(samples) => samples,
        Samples::U16(_) => panic!("16 bits"),
    }
}

/// Smaller than the 8 pixels that sides must be multiples of, and larger than a tile.
#[test]
fn images_of_any_size_are_upscaled_whole_and_in_tiles() {
    let place = Place::new();
    let (saved, _) = trained(&place);
    let open = || System::from_file(&saved, "saved").unwrap();
    upscaled(open(), TileSize::Auto, [3, 5]);
    let whole = upscaled(open(), TileSize::None, [40, 21]);
    let tiled = upscaled(open(), TileSize::Side(16), [40, 21]);
    let different = whole.iter().zip(&tiled).filter(|(a, b)| a != b).count();
    assert!(different > 0, "the tiles were not used");
    let mean = |v: &[u8]| v.iter().map(|&v| f64::from(v)).sum::<f64>() / v.len() as f64;
    assert!((mean(&whole) - mean(&tiled)).abs() < 20.0, "{} {}", mean(&whole), mean(&tiled));
}
