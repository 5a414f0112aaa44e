//! Training for people who watch it: recipes to change, what a step takes, logs, TensorBoard, given pairs, NaN.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use crate::common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::command::{Run, srk};
use common::training::*;
use srk::imaging::resample;
use srk::imaging::{self, EncodeOptions};

/// The configuration of a tiny run as a file in a folder of its own.
fn tiny(place: &Place, more: &str) -> std::path::PathBuf {
    let folder = place.runs("work");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("run.toml"), place.text() + more).unwrap();
    folder
}

#[test]
fn a_recipe_is_printed_with_its_comments_and_can_be_run() {
    let place = Place::new();
    let folder = tiny(&place, "");
    let Run { code, out: text, err, .. } = srk(&folder, &["train", "--init", "laplacian"]);
    assert_eq!(code, 0, "{err}");
    assert!(text.starts_with('#') && text.contains("[data.train]"), "{text}");
    fs::write(folder.join("mine.toml"), &text).unwrap();
    let images = format!("data.train.paths=[{:?}]", place.images().display().to_string());
    let small = ["--set", &images, "--set", "data.train.crop=32", "--set", "data.train.batch=1"];
    let val = ["--set", "data.val.paths=[]", "--dry-run"];
    let Run { code, err, .. } =
        srk(&folder, &[&["train", "mine.toml"][..], &small[..], &val[..]].concat());
    assert_eq!(code, 0, "{err}");
    assert_eq!(srk(&folder, &["train", "--init", "nix"]).code, 2);
}

#[test]
fn a_dry_run_takes_two_steps_and_leaves_nothing() {
    let place = Place::new();
    let folder = tiny(&place, "");
    let Run { code, out, err, .. } = srk(&folder, &["train", "run.toml", "--dry-run"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("planned") && out.contains("a step takes"), "{out}");
    assert!(!folder.join("runs").exists());
    let Run { out, .. } = srk(&folder, &["train", "run.toml", "--dry-run", "--json"]);
    let last: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["event"], "done");
    assert!(last["planned_bytes"].as_u64() > Some(0) && last["seconds_per_step"].is_number());
}

/// The events of a file: step, and the tags with their values.
fn events(path: &Path) -> Vec<(u64, Vec<(String, f32)>)> {
    let bytes = fs::read(path).unwrap();
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let len = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        found.push(event(&bytes[at + 12..at + 12 + len]));
        at += 12 + len + 4;
    }
    assert_eq!(at, bytes.len(), "records end where the file does");
    found
}

fn fields(mut data: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn number(data: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = data[0];
            *data = &data[1..];
            value |= u64::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !data.is_empty() {
        let key = number(&mut data);
        let value = match key & 7 {
            0 => number(&mut data).to_le_bytes().to_vec(),
            kind => {
                let len = match kind {
                    1 => 8,
                    5 => 4,
                    _ => number(&mut data) as usize,
                };
                let (value, rest) = data.split_at(len);
                data = rest;
                value.to_vec()
            }
        };
        found.push((key >> 3, value));
    }
    found
}

fn event(data: &[u8]) -> (u64, Vec<(String, f32)>) {
    let (mut step, mut values) = (0, Vec::new());
    for (field, value) in fields(data) {
        match field {
            2 => step = u64::from_le_bytes(value.try_into().unwrap()),
            5 => {
                for (_, value) in fields(&value) {
                    let parts = fields(&value);
                    let tag = String::from_utf8(parts[0].1.clone()).unwrap();
                    let number = f32::from_le_bytes(parts[1].1.clone().try_into().unwrap());
                    values.push((tag, number));
                }
            }
            _ => {}
        }
    }
    (step, values)
}

#[test]
fn a_run_keeps_its_log_and_writes_for_tensorboard() {
    let place = Place::new();
    let config = place.config(&[]);
    let out = place.runs("out");
    finish(&config, &out, Some(2));
    finish(&config, &out, None);
    let run = out.join("tiny");
    let log = fs::read_to_string(run.join("train.log")).unwrap();
    assert!(log.contains("Z starting") && log.contains("Z resuming"), "{log}");
    assert!(log.contains("training images") && log.contains("Z step 6/6"), "{log}");
    let mut files: Vec<_> =
        fs::read_dir(run.join("tb")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let all: Vec<_> = files.iter().flat_map(|file| events(file)).collect();
    let steps: Vec<u64> = all.iter().filter(|e| !e.1.is_empty()).map(|e| e.0).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 6]);
    let record = &all.iter().find(|e| e.0 == 6 && !e.1.is_empty()).unwrap().1;
    let loss = record.iter().find(|v| v.0 == "train/loss").unwrap().1;
    assert_eq!(f64::from(loss), f64::from(losses(&out).last().unwrap().1 as f32));
    let without = place.config(&["log.tensorboard=false"]);
    finish(&without, &place.runs("without"), Some(1));
    assert!(!place.runs("without").join("tiny/tb").exists());
}

#[test]
fn given_pairs_train_as_made_ones_where_they_are_the_same() {
    let place = Place::new();
    let (lows, out) = (place.runs("lows"), place.runs("made"));
    fs::create_dir_all(&lows).unwrap();
    for entry in fs::read_dir(place.images()).unwrap() {
        let path = entry.unwrap().path();
        let image = imaging::read(&path).unwrap().crop_to_multiple(4).unwrap();
        let low = resample::matlab_8bit_image(&image, 0.25).unwrap();
        let name = format!("{}x4.png", path.file_stem().unwrap().to_string_lossy());
        imaging::write(&lows.join(name), &low, EncodeOptions::default()).unwrap();
    }
    finish(&place.config(&[]), &out, Some(2));
    let low = format!("data.train.low=[{:?}]", lows.display().to_string());
    finish(&place.config(&[&low]), &place.runs("given"), Some(2));
    assert_same(&out, &place.runs("given"), 2);
    // A teacher that knows the truth teaches the same.
    let taught = format!("data.train.taught=[{:?}]", place.images().display().to_string());
    finish(&place.config(&[&low, &taught]), &place.runs("taught"), Some(2));
    assert_same(&out, &place.runs("taught"), 2);
    let Run { code, err, .. } = srk(&tiny(&place, ""), &["train", "run.toml", "--set", &taught]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("data.train.low, which is missing"), "{err}");
    // What does not belong together is refused by name.
    fs::remove_file(lows.join("1x4.png")).unwrap();
    let folder = tiny(&place, "");
    let Run { code, err, .. } = srk(&folder, &["train", "run.toml", "--set", &low]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("1.png") && err.contains("no low resolution"), "{err}");
    let turned = ["--set", &low, "--set", "data.train.augment.degrees=9"];
    let Run { code, err, .. } = srk(&folder, &[&["train", "run.toml"][..], &turned[..]].concat());
    assert_eq!(code, 2, "{err}");
}

#[test]
fn steps_that_are_not_finite_are_left_out_or_taken_back() {
    let place = Place::new();
    let out = place.runs("out");
    finish(&place.config(&[]), &out, Some(4));
    // Weights of such a rate overflow at once: every second step is not finite.
    let wild = ["optim.lr=1e38", "run.steps=12"];
    let with = |policy: &str| place.config(&[&wild[..], &[policy][..]].concat());
    let copy = |name: &str| {
        let to = place.runs(name);
        assert!(Command::new("cp").arg("-r").arg(&out).arg(&to).status().unwrap().success());
        to
    };
    let stopped = |policy: &str| go(&with(policy), &copy(&policy[13..]), None).0.unwrap_err();
    let error = stopped("optim.on_nan=stop");
    assert_eq!((error.exit_code(), error.code()), (6, "not_finite"));
    let error = stopped("optim.on_nan=skip");
    assert!(error.to_string().contains("in a row"), "{error}");
    let back = copy("back");
    let lines = finish(&with("optim.on_nan=rollback"), &back, None);
    let warned = |w: &String| w.contains("weights are those of step 4");
    assert!(lines.warnings.iter().any(warned), "{:?}", lines.warnings);
    let error = place.try_config(&["optim.on_nan=never"]).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}
