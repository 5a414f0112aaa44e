//! Training: resuming, stopping, refusing, and learning.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use common::training::*;
use srk::engine::threads::with_count;
use srk::error::{Error, Result};
use srk::imaging;
use srk::training::config::Config;
use srk::training::{jobs, recipes};

fn usage(result: Result<impl Sized>) -> String {
    match result {
        Err(e @ Error::Usage(_)) => e.to_string(),
        Err(e) => panic!("exit code {}: {e}", e.exit_code()),
        Ok(_) => panic!("was accepted"),
    }
}

#[test]
fn a_resumed_run_equals_an_unbroken_one() {
    let place = Place::new();
    let config = place.config(&[]);
    let (whole, parts) = (place.runs("whole"), place.runs("parts"));
    finish(&config, &whole, None);
    let first = finish(&config, &parts, Some(3));
    assert!(first.lines.iter().any(|l| l.starts_with("starting")), "{:?}", first.lines);
    // What a killed run leaves must not be taken for a checkpoint.
    fs::create_dir(parts.join("tiny/ckpt/.unfinished-x")).unwrap();
    let second = finish(&config, &parts, None);
    assert!(second.lines.iter().any(|l| l.contains("resuming") && l.contains("step 3 of 6")));
    assert_same(&whole, &parts, 6);
    assert_eq!(losses(&whole), losses(&parts));
    assert!(!parts.join("tiny/ckpt/.unfinished-x").exists());
    // Three are due (2, 4, 6), two are kept.
    assert!(!whole.join("tiny/ckpt/2").exists() && whole.join("tiny/ckpt/4").exists());
    assert_eq!(fs::read_to_string(whole.join("tiny/ckpt/latest")).unwrap().trim(), "6");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let place = Place::new();
    let config = place.config(&["run.steps=3", "loss.dct=0.1", "optim.accumulate=2"]);
    let run = |threads: usize| {
        let out = place.runs(&threads.to_string());
        with_count(threads, || finish(&config, &out, None));
        out
    };
    assert_same(&run(1), &run(5), 3);
}

#[test]
fn another_seed_gives_other_weights() {
    let place = Place::new();
    let run = |seed: &str| {
        let out = place.runs(seed);
        finish(&place.config(&[seed, "run.steps=1"]), &out, None);
        checkpoint(&out, 1)
    };
    assert!(run("run.seed=1") != run("run.seed=2"));
}

/// Waits until `ready`; gives up on a child that ends or hangs.
fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended too early");
        assert!(started.elapsed() < Duration::from_secs(60), "the run hangs");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_killed_run_continues_as_if_nothing_had_happened() {
    let place = Place::new();
    let settings = ["run.steps=60", "ckpt.every=1", "ckpt.keep=0"];
    let (whole, killed) = (place.runs("whole"), place.runs("killed"));
    finish(&place.config(&settings), &whole, None);
    for wanted in ["3", "20"] {
        let mut child = place.command(&killed, &settings).spawn().unwrap();
        let ckpt = killed.join("tiny/ckpt").join(wanted);
        wait_until(&mut child, || ckpt.exists());
        // SIGKILL: nothing can be tidied up.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(!killed.join("tiny/ckpt/60").exists(), "killed too late to show anything");
    let output = place.command(&killed, &settings).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("resuming"), "{text}");
    for step in [1, 21, 60] {
        assert_same(&whole, &killed, step);
    }
    assert_eq!(losses(&whole), losses(&killed));
}

#[cfg(unix)]
#[test]
fn a_signal_saves_and_says_so() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let place = Place::new();
        let out = place.runs("runs");
        let settings = ["run.steps=1_000_000", "ckpt.every=0", "log.every=1"];
        let mut child = place.command(&out, &settings).spawn().unwrap();
        wait_until(&mut child, || out.join("tiny/metrics.jsonl").exists());
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains("interrupted: saved step"), "{error}");
        let saved = fs::read_to_string(out.join("tiny/ckpt/latest")).unwrap();
        assert!(!checkpoint(&out, saved.trim().parse().unwrap()).is_empty());
    }
}

#[test]
fn another_configuration_is_not_mixed_into_a_run() {
    let place = Place::new();
    let out = place.runs("runs");
    finish(&place.config(&[]), &out, Some(1));
    let text = usage(go(&place.config(&["optim.clip=2.0", "data.train.batch=1"]), &out, None).0);
    for expected in ["optim.clip = 1.0, now 2.0", "data.train.batch = 2, now 1", "run.name"] {
        assert!(text.contains(expected), "{text}");
    }
    // What does not change the weights may change.
    finish(&place.config(&["log.every=2", "ckpt.keep=1", "val.images=1"]), &out, Some(2));
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let place = Place::new();
    let cases = [
        ("optim.lrr=1", "did you mean optim.lr?"),
        ("optm.lr=1", "did you mean optim.lr?"),
        ("optim.lr=fast", "optim.lr is a number, not a text"),
        ("optim.lr=-1", "optim.lr = -1"),
        ("run.steps=-5", "expected a count, got -5"),
        ("run.steps=1.5", "expected a count, got 1.5"),
        ("run.steps=0", "run.steps must be at least 1"),
        ("run.name=../up", "run.name"),
        ("data.train.crop=30", "multiple of the scale, 4"),
        ("data.pad=4294967296", "data.pad = 4294967296 is above 16384"),
        ("data.train.crop=true", "data.train.crop is a whole number, not true or false"),
        ("loss.kind=l3", "multiscale-dct"),
        ("model.chanels=8", "channels"),
        ("model.kind=unet", "dual-domain-grid"),
        ("diffusion.process.kapa=1", "kappa"),
        ("diffusion.t_weights=[1, 2]", "needs 4 numbers"),
        ("ema.decay=1.5", "ema.decay"),
        ("optim.lr.x=1", "lr is a number, not a section"),
        ("nonsense", "there is no ="),
    ];
    for (set, expected) in cases {
        let text = usage(place.try_config(&[set]));
        assert!(text.contains(expected), "{set}: {text}");
    }
    let text = usage(Config::read("[run\nname=1", "x.toml", &[]));
    assert!(text.contains("x.toml") && text.contains("line 1"), "{text}");
    let config = place.config(&["diffusion.prediction=epsilon", "loss.kind=multiscale-dct"]);
    assert!(usage(go(&config, &place.runs("r"), None).0).contains("loss.kind=mse"));
}

#[test]
fn settings_are_read_as_what_they_stand_for() {
    let place = Place::new();
    let config = place.config(&["run.steps=1e5", "run.name=12", "optim.lr=1", "ema.decay=0"]);
    assert_eq!((config.run.steps, config.run.name.as_str()), (100_000, "12"));
    assert_eq!((config.optim.lr, config.ema.decay), (1.0, 0.0));
    let again = Config::read(&config.to_toml(), "again", &[]).unwrap();
    assert_eq!(config, again);
}

#[test]
fn recipes_are_complete() {
    for recipe in recipes::ALL {
        let job = jobs::read(recipe.text, recipe.name, &[]).unwrap();
        assert_eq!(job.shared().run.name, recipe.name);
        assert!(recipe.summary().len() > 20, "{} has no summary", recipe.name);
    }
    assert!(usage(recipes::find("srk-x5")).contains("did you mean srk-x4?"));
}

#[test]
fn a_folder_without_images_is_refused() {
    let place = Place::new();
    let empty = place.runs("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("notes.txt"), "no image").unwrap();
    for folder in [empty, place.runs("missing")] {
        let mut config = place.config(&[]);
        config.data.train.paths = vec![place.images(), folder.clone()];
        let text = usage(go(&config, &place.runs("runs"), None).0);
        assert!(text.contains(&folder.display().to_string()), "{text}");
    }
    assert!(!place.runs("runs").exists(), "a refused run left a folder");
}

#[test]
fn a_broken_image_among_good_ones_is_named_and_left_out() {
    let place = Place::new();
    let broken = place.images().join("broken.png");
    let good = fs::read(place.images().join("1.png")).unwrap();
    fs::write(&broken, &good[..good.len() / 2]).unwrap();
    write_image(&place.images().join("small.png"), 31, 64, 1);
    let heard = finish(&place.config(&["run.steps=1"]), &place.runs("runs"), None);
    assert_eq!(heard.warnings.len(), 2, "{:?}", heard.warnings);
    assert!(heard.warnings[0].contains("1 of 5 images cannot be read"));
    assert!(heard.warnings[0].contains("broken.png"));
    assert!(heard.warnings[1].contains("small.png"));
    assert!(heard.lines.iter().any(|l| l.starts_with("3 training images")), "{:?}", heard.lines);
    let config = place.config(&["data.train.on_broken=error"]);
    assert!(usage(go(&config, &place.runs("strict"), None).0).contains("broken.png"));
}

#[test]
fn crops_larger_than_every_image_are_refused() {
    let place = Place::new();
    let config = place.config(&["data.train.crop=64"]);
    assert!(usage(go(&config, &place.runs("runs"), None).0).contains("64 x 64"));
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run() {
    let place = Place::new();
    let out = place.runs("runs");
    let settings = ["optim.lr=1e30", "optim.schedule=constant", "optim.warmup=0", "ckpt.every=1"];
    let error = go(&place.config(&settings), &out, None).0.unwrap_err();
    assert_eq!(error.exit_code(), 6, "{error}");
    assert!(error.to_string().contains("at step") && error.to_string().contains("checkpoint"));
    assert!(!out.join("tiny/ckpt/6").exists());
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name() {
    let place = Place::new();
    let out = place.runs("runs");
    finish(&place.config(&[]), &out, Some(2));
    let path = out.join("tiny/ckpt/2/state.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let error = go(&place.config(&[]), &out, None).0.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("state.safetensors"), "{error}");
}

#[test]
fn the_loss_falls() {
    let place = Place::new();
    let settings = ["run.steps=300", "optim.lr=3e-3", "ckpt.every=0", "data.train.augment=false"];
    let losses_of = |kind: &str, out: &str| {
        let out = place.runs(out);
        finish(&place.config(&[&settings[..], &[kind]].concat()), &out, None);
        let all = losses(&out);
        let mean = |part: &[(u64, f64)]| part.iter().map(|l| l.1).sum::<f64>() / part.len() as f64;
        (mean(&all[..20]), mean(&all[280..]))
    };
    for kind in ["loss.kind=l1", "loss.kind=mse"] {
        let (first, last) = losses_of(kind, kind);
        assert!(last < 0.8 * first, "{kind}: {first} -> {last}");
    }
}

#[test]
fn validation_measures_the_averaged_weights() {
    let place = Place::new();
    let out = place.runs("runs");
    let mut config = place.config(&["run.steps=2", "val.every=1", "val.images=2", "val.sheet=1"]);
    config.data.val.paths = vec![place.images()];
    let heard = finish(&config, &out, None);
    let lines: Vec<_> = heard.lines.iter().filter(|l| l.contains("PSNR-Y")).collect();
    assert_eq!(lines.len(), 2, "{:?}", heard.lines);
    let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    let records: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .filter(|v: &serde_json::Value| v.get("val_psnr_y").is_some())
        .collect();
    assert_eq!(records.len(), 2);
    // A network that has learned nothing adds little to bicubic.
    let value = |key: &str| records[0][key].as_f64().unwrap();
    assert!((value("val_psnr_y") - value("val_bicubic_psnr_y")).abs() < 6.0, "{text}");
    assert!(value("val_bicubic_ssim_y") > 0.3 && value("val_images") == 2.0);
    let sheet = imaging::read(&out.join("tiny/val/2/sheet.png")).unwrap();
    assert!(sheet.width > 4 * 48 && sheet.height > 40);
    // Validation changes nothing about training.
    let without = place.runs("without");
    finish(&place.config(&["run.steps=2"]), &without, None);
    assert_same(&out, &without, 2);
}

#[test]
fn the_rate_follows_its_schedule() {
    let place = Place::new();
    let o = place.config(&["optim.warmup=10", "optim.min_lr=1e-5", "optim.lr=1e-3"]).optim;
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
    near(o.rate(1, 110), 1e-4);
    near(o.rate(10, 110), 1e-3);
    near(o.rate(11, 110), 1e-3);
    near(o.rate(61, 110), 0.5 * (1e-3 + 1e-5));
    near(o.rate(111, 110), 1e-5);
    let step = place.config(&["optim.schedule=step", "optim.fall_every=5", "optim.warmup=0"]).optim;
    near(step.rate(5, 100), 1e-3);
    near(step.rate(6, 100), 5e-4);
    near(step.rate(16, 100), 1.25e-4);
}

#[test]
fn no_op_reads_what_it_did_not_write() {
    let place = Place::new();
    // For the rest of this process, as those who test ops want it, too.
    srk::engine::pool::poison(true);
    go(&place.config(&["loss.dct=0.1", "run.steps=2"]), &place.runs("runs"), None).0.unwrap();
}
