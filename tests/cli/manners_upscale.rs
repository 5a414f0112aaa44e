//! What people expect of `srk upscale`: rectangles for tiles, several samples, only what failed, flattened alpha, words
//! about what a format or a machine cannot do.
#![allow(clippy::unwrap_used)]

use std::fs;

use crate::common::command::{Bench, Run, size};

fn upscale(place: &Bench, arguments: &[&str]) -> Run {
    place.srk(&[&["upscale", "--steps", "1"], arguments].concat())
}

#[test]
fn tiles_may_be_rectangles_and_give_the_same_bytes() {
    let p = Bench::new();
    p.photo("in.png", 96, 80);
    upscale(&p, &["in.png", "whole.png", "-t", "none"]).worked();
    let tiled = upscale(&p, &["in.png", "tiled.png", "-t", "96x40", "--json"]).worked();
    assert_eq!(tiled.event("file")["tiles"], 2);
    assert_eq!(fs::read(p.path("whole.png")).unwrap(), fs::read(p.path("tiled.png")).unwrap());
    for wrong in ["4x40", "40x", "x40", "40x40x40", "ax9"] {
        upscale(&p, &["in.png", "x.png", "-t", wrong]).failed(2, &["512x256"]);
    }
}

#[test]
fn several_samples_have_names_and_seeds_of_their_own() {
    let p = Bench::new();
    p.photo("in.png", 24, 20);
    let ended = p.srk(&["upscale", "in.png", "--samples", "3", "--seed", "7", "--json"]).worked();
    let seeds: Vec<u64> = (ended.events().iter())
        .filter(|event| event["event"] == "file")
        .map(|event| event["seed"].as_u64().unwrap())
        .collect();
    assert_eq!(seeds, [7, 8, 9]);
    let read = |name: &str| fs::read(p.path(name)).unwrap();
    p.srk(&["upscale", "in.png", "eight.png", "--seed", "8"]).worked();
    assert_eq!(read("in_x4_s1.png"), read("eight.png"));
    assert_ne!(read("in_x4_s0.png"), read("in_x4_s2.png"));
    // In a folder and under a name that was given, too; one is no sample.
    p.srk(&["upscale", "in.png", "o.jpg", "--samples", "2"]).worked();
    assert!(p.path("o_s0.jpg").exists() && p.path("o_s1.jpg").exists());
    p.srk(&["upscale", "in.png", "one.png", "--samples", "1"]).worked();
    assert!(p.path("one.png").exists());
    p.srk(&["upscale", "in.png", "-", "--samples", "2"]).failed(2, &["standard output"]);
    p.srk(&["upscale", "in.png", "--samples", "0"]).failed(2, &["--samples"]);
    p.srk(&["upscale", "in.png", "--samples", "3"]).failed(2, &["in_x4_s0.png exists"]);
}

#[test]
fn only_what_failed_is_done_again() {
    let p = Bench::new();
    p.photo("in/a.png", 16, 12);
    p.put("in/b.png", "no picture");
    let ended = upscale(&p, &["in", "-o", "out", "--json"]).failed(1, &[]);
    fs::write(p.path("report.jsonl"), &ended.bytes).unwrap();
    fs::remove_file(p.path("in/b.png")).unwrap();
    p.another("in/b.png", 16, 12, 1);
    let again = upscale(&p, &["--from-report", "report.jsonl", "--json"]).worked();
    let done = again.event("done");
    assert_eq!((&done["done"], &done["failed"]), (&1.into(), &0.into()));
    assert_eq!(p.names("out"), ["a.png", "b.png"]);
    // The output is there now.
    upscale(&p, &["--from-report", "report.jsonl"]).failed(2, &["b.png exists"]);
    fs::write(p.path("good.jsonl"), &again.bytes).unwrap();
    upscale(&p, &["--from-report", "good.jsonl"])
        .worked()
        .says_all(&["names no picture that failed"]);
    p.put("no.jsonl", "{\"a\": 1}\n");
    upscale(&p, &["--from-report", "no.jsonl"]).failed(2, &["no event of srk", "--json >"]);
    p.put("text.jsonl", "hello\n");
    upscale(&p, &["--from-report", "text.jsonl"]).failed(2, &["line 1"]);
    upscale(&p, &["--from-report", "none.jsonl"]).failed(2, &["none.jsonl"]);
    upscale(&p, &["in", "--from-report", "report.jsonl"]).failed(2, &["cannot be used with"]);
}

#[test]
fn transparency_can_be_laid_over_a_colour() {
    let p = Bench::new();
    p.sprite("in.png", 16);
    upscale(&p, &["in.png", "x.jpg"]).failed(1, &["--alpha flatten", "--alpha drop"]);
    upscale(&p, &["in.png", "o.jpg", "--alpha", "flatten"]).worked();
    upscale(&p, &["in.png", "o.png", "--alpha", "flatten:#0000ff"]).worked();
    let image = image::open(p.path("o.png")).unwrap();
    assert!(!image.color().has_alpha());
    let (left, right) = (image.to_rgb8().get_pixel(4, 30).0, image.to_rgb8().get_pixel(60, 30).0);
    assert!(left[0] < 20 && left[2] > 235, "{left:?}");
    assert!(right[0] > 180 && right[2] < 60, "{right:?}");
    let white = image::open(p.path("o.jpg")).unwrap().to_rgb8().get_pixel(4, 30).0;
    assert!(white.iter().all(|&v| v > 235), "{white:?}");
    for word in ["auto", "resize"] {
        upscale(&p, &["in.png", "same.png", "--alpha", word, "--overwrite"]).worked();
        assert!(image::open(p.path("same.png")).unwrap().color().has_alpha());
    }
    upscale(&p, &["in.png", "x.png", "--alpha", "model"]).failed(2, &["no model of srk"]);
    upscale(&p, &["in.png", "x.png", "--alpha", "flatten:#12"]).failed(2, &["#rrggbb"]);
}

#[test]
fn what_cannot_be_done_here_is_said_and_done_elsewhere() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    // A GPU or nothing.
    let strict = p.command(&["upscale", "in.png", "gpu.png", "--no-fallback"]);
    let ended = p.fed_to(strict, b"");
    assert!(ended.code == 4 || ended.code == 0, "{}", ended.err);
    assert_eq!(p.path("gpu.png").exists(), ended.code == 0);
    upscale(&p, &["in.png", "cpu.png", "--no-fallback", "--device", "cpu"]).worked();
    let ended = upscale(&p, &["in.png", "v.png", "--vram", "2G", "--device", "cpu"]).worked();
    assert!(ended.err.contains("--vram does nothing on the CPU"), "{}", ended.err);
    upscale(&p, &["in.png", "x.png", "--vram", "200%"]).failed(2, &["1% to 100%"]);
    // As near to the input as can be is no denoising.
    upscale(&p, &["in.png", "f.png", "--fidelity", "1", "--no-stamp"]).worked();
    upscale(&p, &["in.png", "d.png", "--denoise", "0", "--no-stamp"]).worked();
    assert_eq!(fs::read(p.path("f.png")).unwrap(), fs::read(p.path("d.png")).unwrap());
    upscale(&p, &["in.png", "x.png", "--fidelity", "2"]).failed(2, &["from 0"]);
    for (arguments, word) in [
        (["--precision", "tf32"], "--precision f32"),
        (["--precision", "int8"], "f32, f16 or bf16"),
        (["--sampler", "dpm++"], "--sampler ddim"),
    ] {
        upscale(&p, &[&["in.png", "x.png"][..], &arguments].concat()).failed(2, &[word]);
    }
}

#[test]
fn avif_is_written_or_its_absence_said() {
    let p = Bench::new();
    p.photo("in.png", 24, 16);
    let named = upscale(&p, &["in.png", "o.avif"]);
    let asked = upscale(&p, &["in.png", "-o", "out", "-f", "avif", "--quality", "60"]);
    match cfg!(feature = "avif") {
        true => {
            named.worked();
            asked.worked();
            let file = fs::read(p.path("out/in.avif")).unwrap();
            assert_eq!(&file[4..12], b"ftypavif");
        }
        false => {
            named.failed(2, &["no AVIF", "--features avif"]);
            asked.failed(2, &["no AVIF", "--features avif"]);
            upscale(&p, &["in.png", "--name", "{stem}.avif"]).failed(2, &["--features avif"]);
            assert!(!p.path("o.avif").exists() && !p.path("out").exists());
        }
    }
}

#[test]
fn events_say_what_it_took_and_by_which_weights() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    let ended = upscale(&p, &["in.png", "o.png", "--json"]).worked();
    let file = ended.event("file");
    assert!(!file["weights"].as_str().unwrap().is_empty(), "{file}");
    assert!(file["memory"].as_u64().unwrap() > 1000, "{file}");
    assert_eq!(file["seed"], 42);
    assert_eq!(size(&p.path("o.png")), (64, 48));
}

#[cfg(unix)]
#[test]
fn a_link_into_nowhere_is_called_one() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    std::os::unix::fs::symlink("nowhere.png", p.path("o.png")).unwrap();
    let ended = upscale(&p, &["in.png", "o.png"]);
    ended.failed(2, &["o.png is a link to a file that is not there", "nowhere.png", "--overwrite"]);
    assert!(fs::symlink_metadata(p.path("o.png")).unwrap().is_symlink());
    upscale(&p, &["in.png", "o.png", "--overwrite"]).worked();
    assert_eq!(size(&p.path("o.png")), (64, 48));
}

/// A PNG with these chunks behind its head.
fn with_chunks(file: &[u8], chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
    let mut out = file[..33].to_vec();
    for (name, data) in chunks {
        out.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        out.extend(*name);
        out.extend(*data);
        let mut sum = flate2::Crc::new();
        sum.update(&[&name[..], data].concat());
        out.extend(sum.sum().to_be_bytes());
    }
    out.extend(&file[33..]);
    out
}

#[test]
fn what_a_png_says_of_its_pixels_is_kept_or_named() {
    let p = Bench::new();
    p.photo("plain.png", 16, 12);
    let plain = fs::read(p.path("plain.png")).unwrap();
    let aspect = [0, 0, 0, 4, 0, 0, 0, 3, 0];
    let chunks: [(&[u8; 4], &[u8]); 3] =
        [(b"pHYs", &aspect), (b"sBIT", &[5, 6, 5]), (b"bKGD", &[0, 255, 0, 0, 0, 0])];
    fs::write(p.path("in.png"), with_chunks(&plain, &chunks)).unwrap();
    let ended = upscale(&p, &["in.png", "o.png"]).worked();
    for word in ["significant bits (sBIT)", "background colour (bKGD)"] {
        assert!(ended.err.contains(word), "{}", ended.err);
    }
    let out = fs::read(p.path("o.png")).unwrap();
    let at = out.windows(4).position(|w| w == b"pHYs").unwrap();
    assert_eq!(out[at + 4..at + 13], aspect);
    let ended = upscale(&p, &["in.png", "o.jpg"]).worked();
    assert!(ended.err.contains("shape of its pixels (pHYs)"), "{}", ended.err);
    // Nothing is kept, as asked.
    let ended = upscale(&p, &["in.png", "s.png", "--metadata", "strip"]).worked();
    assert!(!ended.err.contains("sBIT"), "{}", ended.err);
    let help = p.srk(&["upscale", "--help"]).out;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("strip (nothing, not even which model and seed made it)"), "{help}");
}

#[test]
fn a_jpeg_that_cannot_hold_its_size_is_refused_before_it_is_decoded() {
    let p = Bench::new();
    p.photo("in.jpg", 16, 16);
    let mut file = fs::read(p.path("in.jpg")).unwrap();
    let at = file.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    file[at + 5..at + 9].copy_from_slice(&[0x3E, 0x80, 0x3E, 0x80]);
    fs::write(p.path("huge.jpg"), &file).unwrap();
    upscale(&p, &["huge.jpg", "o.png"]).failed(1, &["cannot hold 16000x16000 pixels"]);
    p.srk(&["data", "check", "huge.jpg"]).failed(1, &["1 of 1 picture is broken"]);
}
