//! Damaged crops: every stage against its formula, and the whole as training sees it.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    clippy::unwrap_used
)]
use srk::data::augment::Augment;
use srk::data::crops::{CropBatch, CropPlan, Crops, Pair};
use srk::data::degrade::{self, Degrade, DegradeConfig, Draws, Preset, Process};
use srk::data::folder::Rgb8;
use srk::diffusion::process::Enlarge;

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
    let high = picture(192, 160);
    let low = degrade::shrink(&high, Degrade::MatlabBicubic, 4).unwrap();
    let pairs = vec![Pair { name: "a".into(), high, low }];
    let (degrade, enlarge) = (Degrade::MatlabBicubic, Enlarge::Bicubic);
    let augment = Augment::Symmetries(true);
    let plan =
        CropPlan { size: 64, batch: 6, scale: 4, channels: 3, augment, degrade, enlarge, seed };
    let crops = Crops::new(pairs, plan, &mut |_| ()).unwrap();
    crops.damaged(Some(Process::new(config, degrade, 4)))
}

fn bits(batch: &CropBatch) -> Vec<u32> {
    let parts = [&batch.low, &batch.y0, &batch.x0];
    parts.iter().flat_map(|t| t.to_f32_vec().unwrap()).map(f32::to_bits).collect()
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

/// Not a test of numbers: `cargo test --release --test degrade time -- --ignored --nocapture`.
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
