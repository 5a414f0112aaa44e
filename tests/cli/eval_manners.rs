//! `srk eval` for scripts: given pairs, both Y, columns, limits, and pictures that are equal.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::fs;
use std::path::Path;

use crate::common::command::srk;

use image::{ImageBuffer, Rgb, RgbImage};
use serde_json::Value;
use tempfile::TempDir;

fn photo(width: u32, height: u32, shift: u8) -> RgbImage {
    ImageBuffer::from_fn(width, height, |x, y| {
        let v = if (x / 5 + y / 7).is_multiple_of(2) { 60 } else { 200 };
        Rgb([v + shift, (x * 200 / width) as u8, (y * 200 / height) as u8])
    })
}

fn eval(folder: &Path, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let run = srk(folder, &[&["eval", "--json"], arguments].concat());
    (run.code, run.events(), run.err)
}

fn summary(events: &[Value]) -> Value {
    events.iter().find(|e| e["event"] == "summary").unwrap().clone()
}

#[test]
fn equal_pictures_have_infinite_psnr_in_words() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    photo(40, 40, 0).save(f.join("a.png")).unwrap();
    fs::copy(f.join("a.png"), f.join("b.png")).unwrap();
    let (code, events, err) = eval(f, &["a.png", "b.png", "--min", "psnr_y=90", "--csv", "t.csv"]);
    assert_eq!(code, 0, "{err}");
    assert_eq!(summary(&events)["psnr_y"], "inf");
    let csv = fs::read_to_string(f.join("t.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("name,") && lines[0].contains("psnr_y"), "{csv}");
    assert!(lines[1].starts_with("a,") && lines[2].starts_with("mean,") && csv.contains("inf"));
    let (code, events, _) = eval(f, &["a.png", "b.png", "--csv", "t.csv"]);
    assert_eq!((code, &events.last().unwrap()["code"]), (2, &"exists".into()));
}

#[test]
fn both_conventions_of_y_differ_by_what_algebra_says() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    photo(40, 40, 0).save(f.join("a.png")).unwrap();
    photo(40, 40, 9).save(f.join("b.png")).unwrap();
    let psnr = |more: &[&str]| {
        let (_, events, err) = eval(f, &[&["a.png", "b.png"][..], more].concat());
        summary(&events)["psnr_y"].as_f64().unwrap_or_else(|| panic!("{err}"))
    };
    let (papers, full) = (psnr(&[]), psnr(&["--convention", "full-range"]));
    // 20 log10(255 / 219); the published coefficients are rounded.
    assert!((papers - full - 1.3219).abs() < 1e-3, "{papers} {full}");
    assert_eq!(papers, psnr(&["--convention", "basicsr"]));
    assert_eq!(full, psnr(&["--convention", "pyiqa"]));
}

#[test]
fn limits_that_are_missed_exit_with_6() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    photo(40, 40, 0).save(f.join("a.png")).unwrap();
    photo(40, 40, 9).save(f.join("b.png")).unwrap();
    let (code, events, err) = eval(f, &["a.png", "b.png", "--min", "psnr_y=60"]);
    assert_eq!(code, 6, "{err}");
    assert!(err.contains("psnr_y") && err.contains("below 60"), "{err}");
    assert_eq!(events.last().unwrap()["code"], "below_limit");
    assert_eq!(eval(f, &["a.png", "b.png", "--max", "psnr_y=10"]).0, 6);
    assert_eq!(eval(f, &["a.png", "b.png", "--min", "psnr_y=10", "--min", "ssim_y=0.5"]).0, 0);
    for wrong in ["psnr=3", "psnr_y", "lpips_alex=1"] {
        assert_eq!(eval(f, &["a.png", "b.png", "--min", wrong]).0, 2, "{wrong}");
    }
}

#[test]
fn given_low_resolutions_take_the_place_of_degrading() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    for name in ["hr", "lr", "wrong"] {
        fs::create_dir(f.join(name)).unwrap();
    }
    // 83 and 62 are no multiples of 4: truths are cut.
    photo(83, 62, 0).save(f.join("hr/a.png")).unwrap();
    photo(20, 15, 0).save(f.join("lr/ax4.png")).unwrap();
    photo(21, 15, 0).save(f.join("wrong/a.png")).unwrap();
    let (code, events, err) =
        eval(f, &["--hr", "hr", "--lr", "lr", "--steps", "1", "--save", "out"]);
    assert_eq!(code, 0, "{err}");
    assert!(summary(&events)["psnr_y"].is_number());
    assert_eq!(image::image_dimensions(f.join("out/a.png")).unwrap(), (80, 60));
    // Finished pictures meet their truths cut in the same way, with the same numbers.
    let (code, again, err) = eval(f, &["out", "hr"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("1 truth cut to a multiple of 4"), "{err}");
    assert_eq!(summary(&again)["psnr_y"], summary(&events)["psnr_y"]);
    let (code, events, err) = eval(f, &["--hr", "hr", "--lr", "wrong", "--steps", "1"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("20x15") && events.last().unwrap()["code"] == "size", "{err}");
    let (code, ..) = eval(f, &["--hr", "hr", "hr", "--lr", "lr"]);
    assert_eq!(code, 2);
}

#[test]
fn pictures_without_a_partner_may_be_left_out() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    for name in ["sr", "hr", "none"] {
        fs::create_dir(f.join(name)).unwrap();
    }
    for name in ["sr/a_x4.png", "sr/only.png", "hr/a.png", "hr/lost.png", "hr/more.png"] {
        photo(40, 40, 0).save(f.join(name)).unwrap();
    }
    let (code, _, err) = eval(f, &["sr", "hr"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("--allow-missing") && err.contains("3 files"), "{err}");
    let (code, events, err) = eval(f, &["sr", "hr", "--allow-missing"]);
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("3 pictures without a partner") && err.contains("lost.png"), "{err}");
    let mean = summary(&events);
    assert_eq!((&mean["images"], &mean["left_out"]), (&1.into(), &3.into()));
    let warned = events.iter().find(|e| e["event"] == "warn").unwrap();
    assert_eq!(warned["left_out"].as_array().unwrap().len(), 3);
    let (code, ..) = eval(f, &["sr", "none", "--allow-missing"]);
    assert_eq!(code, 2, "of nothing there is no mean");
}

#[test]
fn factors_and_borders_that_cannot_be_are_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    photo(20, 20, 0).save(f.join("a.png")).unwrap();
    photo(20, 20, 9).save(f.join("b.png")).unwrap();
    let noise = ["a.png", "b.png", "--metrics", "flat_noise"];
    for scale in ["0", "-1", "65", "18446744073709551615"] {
        let (code, _, err) = eval(f, &[&noise[..], &["--scale", scale, "--border", "0"]].concat());
        assert!(code == 2 && !err.contains("matlab"), "{scale}: {err}");
    }
    let (_, _, err) = eval(f, &["a.png", "b.png", "--scale", "0"]);
    assert!(err.contains("a number from 1 to 64"), "{err}");
    // Twice this border is 0 in 64 bits.
    for border in ["9223372036854775808", "18446744073709551615"] {
        let (code, _, err) = eval(f, &["a.png", "b.png", "--border", border]);
        assert!(code == 1 && err.contains("20x20 is too small to be measured"), "{err}");
    }
    // Of one pixel bicubic makes a level picture, beside which nothing is as much noise.
    let level = eval(f, &[&noise[..], &["--scale", "16", "--border", "0"]].concat());
    assert!(level.0 == 0 && summary(&level.1)["flat_noise"].is_null(), "{:?}", level.1);
}

#[test]
fn every_column_says_which_way_is_better() {
    let folder = TempDir::new().unwrap();
    let f = folder.path();
    photo(64, 64, 0).save(f.join("a.png")).unwrap();
    photo(64, 64, 9).save(f.join("b.png")).unwrap();
    let text = srk(f, &["eval", "a.png", "b.png", "--metrics", "psnr,grid"]).out;
    assert!(!text.contains("higher is better"), "{text}");
    let line = text.lines().find(|line| line.starts_with("better is")).unwrap();
    assert_eq!(line.matches("higher").count(), 4, "{text}");
    assert!(line.contains("near 1"), "{text}");
    let (_, events, _) = eval(f, &["a.png", "b.png", "--metrics", "psnr,weave"]);
    assert_eq!(events[0]["better"]["psnr_y"], "higher");
    assert_eq!(events[0]["better"]["weave"], "lower");
}
