//! Damaged crops: every stage against its formula, and the whole as training sees it.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::unwrap_used
)]
use std::path::Path;

use srk::data::augment::Augment;
use srk::data::crops::{CropBatch, CropPlan, Crops, Pair};
use srk::data::degrade::{self, Degrade, DegradeConfig, Draws, Preset, Process};
use srk::data::folder::{self, OnBroken, Rgb8};
use srk::data::lows::Lows;
use srk::data::pairs;
use srk::data::store::{Pairs, Recipe};
use srk::diffusion::process::Enlarge;
use srk::engine::tensor::Tensor;
use srk::imaging::{self, Color, EncodeOptions, Image};
use tempfile::TempDir;

/// A picture with edges, colours and texture.
fn picture(width: usize, height: usize) -> Rgb8 {
    let pixel = |i: usize| {
        let (x, y) = (i % width, i / width);
        let wave = (x as f64 * 0.3 + (y as f64 * 0.17).sin() * 4.0).sin();
        let edge = if (x / 24 + y / 18) % 2 == 0 { 60.0 } else { 0.0 };
        [0.0, 20.0, 40.0].map(|c| (100.0 + 50.0 * wave + edge + c) as u8)
    };
    Rgb8 { width, height, pixels: (0..width * height).flat_map(pixel).collect() }
}

fn crops(config: DegradeConfig, seed: u64) -> Crops {
    partly_plain(config, 0.0, seed)
}

fn partly_plain(config: DegradeConfig, plain: f64, seed: u64) -> Crops {
    let high = picture(192, 160);
    let low = degrade::shrink(&high, Degrade::MatlabBicubic, 4).unwrap();
    let pairs = vec![Pair { name: "a".into(), high, low, damage: None, taught: None }];
    let crops = Crops::new(pairs, plan(plain, seed), &mut |_| ()).unwrap();
    crops.damaged(Some(Process::new(config, Degrade::MatlabBicubic, 4)))
}

fn plan(plain: f64, seed: u64) -> CropPlan {
    let (degrade, enlarge) = (Degrade::MatlabBicubic, Enlarge::Bicubic);
    let augment = Augment::Symmetries(true);
    let (size, batch) = (64, 6);
    CropPlan { size, batch, scale: 4, channels: 3, augment, degrade, enlarge, plain, seed }
}

/// The crops' damage, low resolutions and truths of pairs in `folder`, of which `plain` of all show no picture.
fn given(folder: &Path, process: &Process, plain: f64) -> srk::error::Result<CropBatch> {
    let sources = folder::find(&[folder.join("high")])?;
    let given = Lows::find(&[folder.join("low")], &sources, 4)?;
    let teacher = folder.join("taught");
    let taught = match teacher.exists() {
        true => Lows::find(&[teacher], &sources, 1)?,
        false => None,
    };
    let (degrade, small) = (Degrade::MatlabBicubic, (4, String::new()));
    let recipe =
        Recipe { degrade, given, taught, process: Some(process.clone()), scale: 4, pad: 0, small };
    let pairs = Pairs::load(&sources, recipe, 1 << 20, OnBroken::Error, &mut |_| ())?;
    let crops = Crops::new(pairs, plan(plain, 5), &mut |_| ())?;
    crops.damaged(Some(process.clone())).batch(0)
}

/// Pairs that `srk data degrade` wrote tell what was done to them, are not damaged again, and lose their blocks if asked.
#[test]
fn given_pairs_tell_their_damage_and_stay_as_they_are() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let Rgb8 { width, height, pixels } = picture(192, 160);
    let image = Image::from_u8(width, height, Color::Rgb, pixels).unwrap();
    imaging::write(&at("a.png"), &image, EncodeOptions::default()).unwrap();
    let process = |deblock: f64| {
        let mut config = Preset::Web.config();
        (config.clean_prob, config.jpeg_prob, config.deblock) = (0.0, 1.0, deblock);
        Process::new(config, Degrade::MatlabBicubic, 4)
    };
    let request = pairs::Request {
        inputs: vec![at("a.png")],
        out: at("p"),
        process: process(0.0),
        scale: 4,
        count: 1,
        size: 64,
        seed: 3,
        as_files: false,
        force: false,
    };
    let damage = pairs::write(&request, &mut |_| (), &|| Ok(())).unwrap()[0].damage;
    assert!(damage.jpeg_quality.is_some(), "{damage:?}");
    let batch = |deblock, plain| given(&at("p"), &process(deblock), plain);
    let low = |batch: &CropBatch| batch.low.to_f32_vec().unwrap();
    let all = batch(0.0, 0.0).unwrap();
    assert_eq!(all.damage, [Some(damage); 6]);
    // A crop is all of the pair, mirrored and turned: damaged again, their sums would differ.
    let sum = |values: &[f32]| values.iter().map(|&v| f64::from(v)).sum::<f64>();
    let sums: Vec<f64> = low(&all).chunks(16 * 16 * 3).map(sum).collect();
    assert!(sums.iter().all(|s| (s - sums[0]).abs() < 1e-3), "{sums:?}");
    assert_ne!(low(&all), low(&batch(0.5, 0.0).unwrap()));
    let plain = batch(0.0, 0.999_999).unwrap();
    assert!(plain.damage.iter().all(|one| one.is_some() && *one != Some(damage)));
    // What a teacher made is the target of pictures, and of plain places the truth.
    assert!(all.taught.is_none());
    std::fs::create_dir(at("p/taught")).unwrap();
    let gray = Image::from_u8(64, 64, Color::Rgb, vec![90; 64 * 64 * 3]).unwrap();
    imaging::write(&at("p/taught/000.png"), &gray, EncodeOptions::default()).unwrap();
    let values = |tensor: &Tensor| tensor.to_f32_vec().unwrap();
    let pictures = batch(0.0, 0.0).unwrap();
    let is_gray = |v: &f32| (127.5 * (v + 1.0) - 90.0).abs() < 1e-3;
    assert!(values(&pictures.taught.unwrap()).iter().all(is_gray));
    assert_eq!(values(&pictures.x0), values(&all.x0));
    let plain = batch(0.0, 0.999_999).unwrap();
    assert_eq!(values(&plain.taught.unwrap()), values(&plain.x0));
    std::fs::write(at("p/pairs.json"), "[{\"low\": 5}]").unwrap();
    let error = batch(0.0, 0.0).unwrap_err();
    assert!(error.to_string().contains("pairs.json") && error.exit_code() == 2, "{error}");
    std::fs::remove_file(at("p/pairs.json")).unwrap();
    assert_eq!(batch(0.5, 0.0).unwrap().damage, [None; 6]);
}

fn bits(batch: &CropBatch) -> Vec<u32> {
    let parts = [&batch.low, &batch.y0, &batch.x0];
    parts.iter().flat_map(|t| t.to_f32_vec().unwrap()).map(f32::to_bits).collect()
}

#[test]
fn plain_crops_are_as_many_as_asked_for_and_the_others_stay() {
    let mut config = Preset::Photo.config();
    config.clean_prob = 0.0;
    let [none, some] = [0.0, 0.25].map(|share| partly_plain(config.clone(), share, 5));
    // Pixels of a picture differ a lot from their neighbours; of plain crops in one line at most.
    let is_plain = |pixels: &[f32]| {
        let steps = pixels.chunks_exact(64 * 3).flat_map(|row| row.windows(4));
        steps.filter(|w| (w[3] - w[0]).abs() > 0.05).count() < 3 * 64 * 3
    };
    let (mut plain, mut noisy) = (0, 0);
    for step in 0..40 {
        let [a, b] = [&none, &some].map(|c| c.batch(step).unwrap());
        let [pictures, mixed] = [&a.x0, &b.x0].map(|t| t.to_f32_vec().unwrap());
        let lows = b.low.to_f32_vec().unwrap();
        let crops = pictures.chunks_exact(64 * 64 * 3).zip(mixed.chunks_exact(64 * 64 * 3));
        for ((picture, crop), low) in crops.zip(lows.chunks_exact(16 * 16 * 3)) {
            assert!(!is_plain(picture), "step {step}");
            if picture == crop {
                continue;
            }
            assert!(is_plain(crop), "step {step}");
            plain += 1;
            let rough = low.windows(4).filter(|w| (w[3] - w[0]).abs() > 1e-6).count();
            noisy += usize::from(rough > 100);
        }
    }
    assert!((45..=75).contains(&plain), "{plain} of 240");
    assert!(noisy * 2 > plain, "{noisy} of {plain} are damaged");
}

#[test]
fn a_batch_is_a_function_of_seed_and_step() {
    for preset in [Preset::Photo, Preset::RealEsrgan, Preset::Web] {
        let (a, b) = (crops(preset.config(), 5), crops(preset.config(), 5));
        // In another order.
        let [a2, a1] = [a.batch(2).unwrap(), a.batch(1).unwrap()];
        let [b1, b2] = [b.batch(1).unwrap(), b.batch(2).unwrap()];
        assert!(bits(&a1) == bits(&b1) && bits(&a2) == bits(&b2), "{preset:?}");
        assert!(bits(&a1) != bits(&a2), "{preset:?}");
        assert!(bits(&a1) != bits(&crops(preset.config(), 6).batch(1).unwrap()), "{preset:?}");
        assert_eq!(a1.damage, b1.damage);
        assert_eq!(a1.damage.len(), 6);
    }
    // Clean is what there is without the section.
    let clean = crops(Preset::Bicubic.config(), 5).batch(1).unwrap();
    let none = crops(Preset::Photo.config(), 5).damaged(None).batch(1).unwrap();
    assert!(bits(&clean) == bits(&none));
    let mut all_clean = Preset::Photo.config();
    all_clean.clean_prob = 1.0;
    all_clean.usm = true;
    let sharpened = crops(all_clean, 5).batch(1).unwrap();
    assert!(bits(&sharpened) != bits(&none), "the truth was not sharpened");
}

/// Not a test of numbers: `cargo test --release --test suite degrade::time -- --ignored --nocapture`.
#[test]
#[ignore = "measures time"]
fn time_of_a_crop() {
    for preset in [Preset::Photo, Preset::Web, Preset::RealEsrgan] {
        let process = Process::new(preset.config(), Degrade::MatlabBicubic, 4);
        let side = 128 + 4 * 23;
        let high = picture(side, side);
        let started = std::time::Instant::now();
        for index in 0..200 {
            process.apply(high.clone(), Draws::new(1, 0, index)).unwrap();
        }
        let ms = started.elapsed().as_secs_f64() * 5.0;
        println!("{preset:?}: {ms:.2} ms a crop of 128 pixels");
    }
}
