//! What happens on the way through a training: the best checkpoint, tiles in validation, signals, weights that are not
//! finite, a run that is finished, and what programs hear.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::command::{Run, wait_until};
use common::training::*;
use serde_json::Value;

impl Place {
    /// `srk train` with more arguments than `--set`.
    fn run_with(&self, out: &Path, overrides: &[&str], more: &[&str]) -> Run {
        Run::of(self.command(out, overrides).args(more).output().unwrap())
    }
}

/// The numbers under `key` in `metrics.jsonl`.
fn metrics(out: &Path, key: &str) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        Some((value["step"].as_u64()?, value.get(key)?.as_f64()?))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn the_best_checkpoint_is_kept_by_the_measure_that_is_named() {
    let place = Place::new();
    let val = place.val();
    let every = ["val.every=1", "val.sheet=0", "ckpt.every=1", "ckpt.keep=1", val.as_str()];
    for (name, key) in [("psnr_y", "val_psnr_y"), ("ssim_y", "val_ssim_y")] {
        let (out, by) = (place.runs(name), format!("ckpt.best={name}"));
        // Steps so large that the last is not the best.
        let settings = [&every[..], &["optim.lr=0.05", &by]].concat();
        let run = place.run_with(&out, &settings, &[]);
        assert_eq!(run.code, 0, "{}", run.err);
        let all = metrics(&out, key);
        assert_eq!(all.len(), 6);
        let best = all.iter().fold(all[0], |best, v| if v.1 > best.1 { *v } else { best });
        let ckpt = out.join("tiny/ckpt");
        assert_eq!(fs::read_to_string(ckpt.join("best")).unwrap().trim(), best.0.to_string());
        assert!(ckpt.join(best.0.to_string()).join("ema.safetensors").exists());
    }
    let out = place.runs("none");
    assert_eq!(place.run_with(&out, &every, &[]).code, 0);
    assert!(!out.join("tiny/ckpt/best").exists());
    for (settings, word) in [
        (&["ckpt.best=psnr_y"][..], "validate"),
        (&["ckpt.best=lpips_alex", val.as_str()], "val.metrics"),
        (&["ckpt.best=true", val.as_str()], "psnr_y"),
        (&["ckpt.best=psnr", val.as_str()], "psnr_y"),
    ] {
        let run = place.run_with(&place.runs("refused"), settings, &[]);
        assert_eq!(run.code, 2, "{settings:?}: {}", run.err);
        assert!(run.err.contains(word), "{settings:?}: {}", run.err);
    }
    // Measures that are taken in any case may be named.
    let metrics = ["val.metrics=[\"psnr\", \"ssim\"]", "run.steps=1", "val.sheet=0", &val];
    assert_eq!(place.run_with(&place.runs("named"), &metrics, &[]).code, 0);
}

#[test]
fn validation_in_tiles_measures_the_same() {
    let place = Place::new();
    let val = place.runs("val");
    fs::create_dir(&val).unwrap();
    write_image(&val.join("large.png"), 160, 128, 1);
    write_image(&val.join("small.png"), 32, 32, 2);
    let paths = format!("data.val.paths=[{:?}]", val.display().to_string());
    let settings = ["run.steps=1", paths.as_str()];
    let measured = |name: &str, tile: &[&str]| {
        let out = place.runs(name);
        let run = place.run_with(&out, &[&settings[..], tile].concat(), &[]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(out.join("tiny/val/1/sheet.png").exists());
        (metrics(&out, "val_psnr_y")[0].1, metrics(&out, "val_ssim_y")[0].1)
    };
    let (whole, tiled) = (measured("whole", &[]), measured("tiled", &["val.tile=16"]));
    assert!((whole.0 - tiled.0).abs() < 0.01, "{whole:?} {tiled:?}");
    assert!((whole.1 - tiled.1).abs() < 1e-3, "{whole:?} {tiled:?}");
    let error = place.try_config(&["val.tile=16", "val.states=2"]).unwrap_err();
    assert!(error.to_string().contains("val.states"), "{error}");
}

#[test]
fn several_sets_are_measured_one_by_one() {
    let place = Place::new();
    let (val, other) = (place.val(), place.runs("other"));
    fs::create_dir(&other).unwrap();
    write_image(&other.join("a.png"), 64, 48, 3);
    let set = format!("data.val.sets.other.paths=[{:?}]", other.display().to_string());
    let settings = ["val.every=3", "val.steps=1", "ckpt.best=psnr_y", val.as_str(), &set];
    let out = place.runs("runs");
    let run = place.run_with(&out, &settings, &["--json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let events: Vec<Value> = run.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let validations: Vec<&Value> = events.iter().filter(|e| e["event"] == "validation").collect();
    let sets: Vec<Option<&str>> = validations.iter().map(|e| e["set"].as_str()).collect();
    assert_eq!(sets, [None, Some("other"), None, Some("other")]);
    assert_eq!(validations[1]["images"], 1);
    // Each alone has the same numbers.
    let alone = place.runs("alone");
    let paths = format!("data.val.paths=[{:?}]", other.display().to_string());
    assert_eq!(place.run_with(&alone, &["val.every=3", "val.steps=1", &paths], &[]).code, 0);
    assert_eq!(metrics(&out, "val_other/psnr_y"), metrics(&alone, "val_psnr_y"));
    assert_eq!(metrics(&out, "val_psnr_y").len(), 2);
    assert!(
        out.join("tiny/val/6/sheet.png").exists()
            && out.join("tiny/val/6/other/sheet.png").exists()
    );
    // Named ones alone will do; the same command again validates nothing twice.
    let named = place.runs("named");
    for _ in 0..2 {
        assert_eq!(place.run_with(&named, &["val.steps=1", &set], &[]).code, 0);
        assert_eq!(metrics(&named, "val_other/psnr_y").len(), 1);
    }
    let outside = place.text() + "[data.val.sets.\"../up\"]\npaths = [\"a\"]\n";
    let error = srk::training::config::Config::read(&outside, "a", &[]).unwrap_err().to_string();
    assert!(error.contains("data.val.sets"), "{error}");
}

fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn a_signal_asks_for_a_checkpoint_and_the_run_goes_on() {
    let place = Place::new();
    let out = place.runs("runs");
    let settings = ["run.steps=1_000_000", "ckpt.every=0"];
    let mut child = place.command(&out, &settings).spawn().unwrap();
    wait_until(&mut child, || out.join("tiny/metrics.jsonl").exists());
    let latest = out.join("tiny/ckpt/latest");
    assert!(!latest.exists());
    send("USR1", &child);
    wait_until(&mut child, || latest.exists());
    let first = fs::read_to_string(&latest).unwrap();
    let lines = || fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap().lines().count();
    let before = lines();
    wait_until(&mut child, || lines() > before + 2);
    assert_eq!(fs::read_to_string(&latest).unwrap(), first, "it was asked for one");
    send("INT", &child);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{}", run.err);
    assert_eq!(run.out.matches("saved ").count(), 2, "{}", run.out);
}

#[cfg(unix)]
#[test]
fn other_commands_go_on_where_a_checkpoint_is_asked_for() {
    let place = Place::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
    command.args(["upscale", "-", "out.png"]).current_dir(place.images());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It waits for its picture by then.
    std::thread::sleep(Duration::from_millis(1500));
    send("USR1", &child);
    drop(child.stdin.take());
    let run = Run::of(child.wait_with_output().unwrap());
    assert_ne!(run.code, 0, "there was no picture");
}

#[test]
fn weights_that_are_not_finite_are_never_kept() {
    let place = Place::new();
    let wild = ["optim.lr=1e39", "optim.schedule=constant", "optim.warmup=0", "run.steps=1"];
    let out = place.runs("first");
    let run = place.run_with(&out, &wild, &[]);
    assert_eq!(run.code, 6, "{} {}", run.out, run.err);
    assert!(run.err.contains("not finite") && run.err.contains("no checkpoint yet"), "{}", run.err);
    assert!(!out.join("tiny/ckpt/1").exists());
    for policy in ["stop", "skip", "rollback"] {
        let out = place.runs(policy);
        let tame = ["optim.schedule=constant", "optim.warmup=0", "run.steps=2"];
        assert_eq!(place.run_with(&out, &tame, &[]).code, 0);
        let on_nan = format!("optim.on_nan={policy}");
        let more =
            ["optim.schedule=constant", "optim.warmup=0", "optim.lr=1e39", "run.steps=3", &on_nan];
        let run = place.run_with(&out, &more, &[]);
        assert_eq!(run.code, 6, "{policy}: {} {}", run.out, run.err);
        assert!(run.err.contains("last good checkpoint is"), "{policy}: {}", run.err);
        assert!(!out.join("tiny/ckpt/3").exists(), "{policy}");
        assert_eq!(fs::read_to_string(out.join("tiny/ckpt/latest")).unwrap().trim(), "2");
        // And the run goes on from there.
        let back = [&tame[..2], &["run.steps=3"]].concat();
        let run = place.run_with(&out, &back, &[]);
        assert_eq!(run.code, 0, "{policy}: {}", run.err);
    }
    // Where a checkpoint is due on the way, rollback goes back instead; several times in vain are the end.
    let out = place.runs("due");
    let all =
        ["optim.schedule=constant", "optim.warmup=0", "ckpt.every=1", "optim.on_nan=rollback"];
    assert_eq!(place.run_with(&out, &[&all[..], &["run.steps=1"]].concat(), &[]).code, 0);
    let run = place.run_with(&out, &[&all[..], &["optim.lr=1e39", "run.steps=20"]].concat(), &[]);
    assert_eq!(run.code, 6, "{} {}", run.out, run.err);
    assert!(run.err.contains("the weights are those of step 1 again"), "{}", run.err);
    assert!(run.err.contains("5 times"), "{}", run.err);
    assert!(!out.join("tiny/ckpt/2").exists());
}

#[test]
fn a_run_without_steps_left_says_so() {
    let place = Place::new();
    let out = place.runs("runs");
    let run = place.run_with(&out, &[], &["--until", "4"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(!run.out.contains("finished"), "{}", run.out);
    let run = place.run_with(&out, &[], &["--until", "2"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("is at step 4 already, beyond --until 2"), "{}", run.out);
    assert_eq!(place.run_with(&out, &[], &[]).code, 0);
    let run = place.run_with(&out, &[], &[]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("is finished at step 6; --set run.steps=12 goes on"), "{}", run.out);
    let run = place.run_with(&out, &["run.steps=7"], &[]);
    assert!(run.code == 0 && run.out.contains("step 7/7"), "{} {}", run.out, run.err);
}

#[test]
fn programs_hear_of_steps_and_validations_in_numbers() {
    let place = Place::new();
    let val = place.val();
    let settings = ["val.every=3", "val.sheet=0", val.as_str()];
    let run = place.run_with(&place.runs("runs"), &settings, &["--json", "-j", "1"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let events: Vec<Value> = run.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let of = |kind: &str| -> Vec<&Value> { events.iter().filter(|e| e["event"] == kind).collect() };
    let steps = of("step");
    let numbers: Vec<u64> = steps.iter().map(|e| e["step"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    for event in steps {
        for key in ["steps", "loss", "lr", "grad_norm", "images_per_s", "seconds_left"] {
            assert!(event[key].is_number(), "{key}: {event}");
        }
        assert_eq!(event["steps"], 6);
    }
    let validations = of("validation");
    assert_eq!(validations.len(), 2);
    for event in validations {
        for key in ["step", "psnr_y", "ssim_y", "bicubic_psnr_y", "images", "seconds"] {
            assert!(event[key].is_number(), "{key}: {event}");
        }
    }
    assert_eq!(events.last().unwrap()["event"], "done");
}

#[test]
fn what_is_wrong_in_an_override_is_said_of_that() {
    let place = Place::new();
    for (setting, words) in [
        ("loss.kind=l3", &["unknown variant", "l1"][..]),
        ("optim.rl=3", &["unknown key optim.rl", "did you mean optim.lr?"]),
        ("run.steps=-1", &["-1"]),
        ("optim.lr=fast", &["optim.lr"]),
    ] {
        let run = place.run_with(&place.runs("runs"), &["run.seed=3", setting, "val.every=2"], &[]);
        assert_eq!(run.code, 2, "{}", run.err);
        let what = format!("error: cannot apply --set {setting}");
        assert!(run.err.contains(&what) && run.err.contains("help:"), "{setting}: {}", run.err);
        assert!(!run.err.contains("tiny.toml"), "{setting}: {}", run.err);
        words.iter().for_each(|word| assert!(run.err.contains(word), "{word}: {}", run.err));
    }
    // What is wrong in the file itself is said of the file.
    let file = place.runs("wrong.toml");
    fs::write(&file, place.text().replace("batch = 2", "batch = \"two\"")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
    command.arg("train").arg(&file).args(["--set", "run.seed=3"]);
    let run = Run::of(command.output().unwrap());
    assert_eq!(run.code, 2);
    assert!(run.err.contains("cannot read ") && run.err.contains("wrong.toml"), "{}", run.err);
    // l2 is another name.
    let [a, b] = ["mse", "l2"].map(|kind| {
        let out = place.runs(kind);
        let run = place.run_with(&out, &[&format!("loss.kind={kind}")], &[]);
        assert_eq!(run.code, 0, "{}", run.err);
        losses(&out)
    });
    assert_eq!(a, b);
}
