//! Nothing of a run is lost: full disks, closed pipes, interrupts, damaged checkpoints, two processes at once.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::command::{Run, srk, wait_until};
use common::training::*;

impl Place {
    /// `srk train` to its end.
    fn run(&self, out: &Path, overrides: &[&str]) -> Run {
        Run::of(self.command(out, overrides).output().unwrap())
    }
}

/// The lines of `metrics.jsonl` that have `key`.
fn metrics(out: &Path, key: &str) -> Vec<u64> {
    let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    let line = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value.get(key)?;
        value["step"].as_u64()
    };
    text.lines().filter_map(line).collect()
}

fn named(out: &Path, name: &str) -> String {
    fs::read_to_string(out.join("tiny/ckpt").join(name)).unwrap().trim().to_owned()
}

#[cfg(unix)]
#[test]
fn a_log_that_nobody_reads_costs_nothing() {
    let place = Place::new();
    let whole = place.runs("whole");
    place.run(&whole, &[]);
    let (reader, closed) = std::io::pipe().unwrap();
    drop(reader);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for (name, stdout) in [("closed", Stdio::from(closed)), ("full", full().into())] {
        let out = place.runs(name);
        let run = Run::of(place.command(&out, &[]).stdout(stdout).output().unwrap());
        assert_eq!(run.code, 0, "{}", run.err);
        assert_eq!(run.err.matches("takes no more lines").count(), 1, "{}", run.err);
        assert_same(&whole, &out, 6);
    }
    // Nor does standard error.
    let output = place.command(&place.runs("mute"), &[]).stdout(full()).stderr(full()).output();
    assert_eq!(Run::of(output.unwrap()).code, 0);
}

/// Settings whose validation takes a while: a chain of many steps.
const LONG: [&str; 4] =
    ["diffusion.process.steps=20000", "val.every=2", "val.sheet=0", "ckpt.every=0"];

#[cfg(unix)]
#[test]
fn an_interrupt_is_heard_in_validation_which_is_made_up_later() {
    let place = Place::new();
    let val = place.val();
    // At a step in between, and at the last one.
    for (last, exits) in [("run.steps=6", 2), ("run.steps=2", 2)] {
        let out = place.runs(last);
        let settings = [&LONG[..], &[last, &val]].concat();
        let mut child = place.command(&out, &settings).spawn().unwrap();
        let logged = || {
            fs::read_to_string(out.join("tiny/metrics.jsonl")).is_ok_and(|t| t.lines().count() >= 2)
        };
        wait_until(&mut child, logged);
        // Now it validates, of which there is no sign before its end.
        std::thread::sleep(Duration::from_millis(700));
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
        let asked = Instant::now();
        let run = Run::of(child.wait_with_output().unwrap());
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert_eq!(run.code, 130, "{}", run.err);
        assert_eq!(named(&out, "latest"), exits.to_string());
        assert!(metrics(&out, "val_psnr_y").is_empty());
        // The same command again makes it up; here in few steps.
        let settings = [&settings[..], &["val.steps=2"]].concat();
        let run = place.run(&out, &settings);
        assert_eq!(run.code, 0, "{}", run.err);
        let expected: Vec<u64> =
            if exits.to_string() == last[10..] { vec![2] } else { vec![2, 4, 6] };
        assert_eq!(metrics(&out, "val_psnr_y"), expected, "{}", run.out);
        // And once.
        place.run(&out, &settings);
        assert_eq!(metrics(&out, "val_psnr_y"), expected);
    }
}

#[cfg(unix)]
#[test]
fn the_checkpoint_is_there_before_validation() {
    let place = Place::new();
    let (out, val) = (place.runs("runs"), place.val());
    let settings = [&LONG[..3], &["ckpt.every=2", &val]].concat();
    let mut child = place.command(&out, &settings).spawn().unwrap();
    let logged =
        || fs::read_to_string(out.join("tiny/metrics.jsonl")).is_ok_and(|t| t.lines().count() >= 2);
    wait_until(&mut child, logged);
    wait_until(&mut child, || out.join("tiny/ckpt/latest").exists());
    assert!(
        metrics(&out, "val_psnr_y").is_empty(),
        "the validation was too quick to show anything"
    );
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(named(&out, "latest"), "2");
}

#[test]
fn a_run_has_one_process_and_the_other_is_named() {
    let place = Place::new();
    let out = place.runs("runs");
    let settings = ["run.steps=1_000_000", "ckpt.every=0"];
    let mut child = place.command(&out, &settings).spawn().unwrap();
    wait_until(&mut child, || out.join("tiny/metrics.jsonl").exists());
    let second = place.run(&out, &settings);
    assert_eq!(second.code, 1, "{}", second.err);
    for word in [format!("process {}", child.id()), "since 2".into(), "run.name=OTHER".into()] {
        assert!(second.err.contains(&word), "{word}: {}", second.err);
    }
    // A lock does not outlive its process, however that ends.
    child.kill().unwrap();
    child.wait().unwrap();
    let after = place.run(&out, &["run.steps=3", "ckpt.every=0"]);
    assert_eq!(after.code, 0, "{}", after.err);
}

/// Cuts a file in half.
fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn a_damaged_checkpoint_falls_back_to_the_one_before() {
    let place = Place::new();
    let whole = place.runs("whole");
    let all = ["ckpt.every=1", "ckpt.keep=0"];
    finish(&place.config(&all), &whole, None);
    write_image(&place.runs("in.png"), 16, 12, 1);
    for (i, file) in
        ["ema.safetensors", "state.safetensors", "model.safetensors"].iter().enumerate()
    {
        let out = place.runs(&i.to_string());
        finish(&place.config(&all), &out, Some(4));
        let newest = out.join("tiny/ckpt/4").join(file);
        match i {
            0 => cut(&newest),
            1 => fs::write(&newest, "").unwrap(),
            _ => fs::remove_file(&newest).unwrap(),
        }
        if i == 0 {
            let model = out.join("tiny").display().to_string();
            let run = srk(&place.runs(""), &["upscale", "-m", &model, "in.png", "o.png"]);
            assert_eq!(run.code, 0, "{}", run.err);
            assert!(run.err.contains("warning: ") && run.err.contains("step 3"), "{}", run.err);
        }
        let run = place.run(&out, &all);
        assert_eq!(run.code, 0, "{}", run.err);
        assert!(run.err.contains(file) && run.err.contains("from step 3"), "{}", run.err);
        assert!(!run.err.contains("download"), "{}", run.err);
        assert_same(&whole, &out, 4);
        assert_same(&whole, &out, 6);
        assert!(out.join("tiny/ckpt/damaged-4").exists());
    }
    // None is whole: an error, and nothing is moved.
    let out = place.runs("0");
    for step in 1..=6 {
        cut(&out.join(format!("tiny/ckpt/{step}/ema.safetensors")));
    }
    let run = place.run(&out, &all);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(!run.err.contains("download"), "{}", run.err);
    assert!(out.join("tiny/ckpt/6").exists());
}

#[test]
fn best_and_latest_follow_what_is_there_and_lead_nowhere_else() {
    let place = Place::new();
    let (out, val) = (place.runs("runs"), place.val());
    let settings =
        ["val.every=1", "val.patience=50", "val.sheet=0", "ckpt.every=1", "ckpt.keep=0", &val];
    finish(&place.config(&settings), &out, Some(5));
    let right = named(&out, "best");
    let ckpt = out.join("tiny/ckpt");
    let wrong = if right == "2" { "3" } else { "2" };
    for (best, latest) in [(wrong, "1"), ("99", ""), ("../../../elsewhere", "/etc"), ("", "no")] {
        fs::write(ckpt.join("best"), best).unwrap();
        fs::write(ckpt.join("latest"), latest).unwrap();
        let model = out.join("tiny").display().to_string();
        let info = srk(&place.runs(""), &["models", "info", &model]);
        assert_eq!(info.code, 0, "{best}: {}", info.err);
        let again = finish(&place.config(&settings), &out, Some(5));
        assert!(again.lines.iter().any(|l| l.contains("resuming")), "{:?}", again.lines);
        assert_eq!(
            (named(&out, "best"), named(&out, "latest")),
            (right.clone(), "5".into()),
            "{best}"
        );
    }
    fs::remove_file(ckpt.join("latest")).unwrap();
    // The best is no longer there: the best of the others.
    fs::remove_dir_all(ckpt.join(&right)).unwrap();
    finish(&place.config(&settings), &out, Some(5));
    assert!(ckpt.join(named(&out, "best")).exists());
}

#[test]
fn a_run_goes_on_with_more_steps_other_data_and_another_rate() {
    let place = Place::new();
    let out = place.runs("runs");
    place.run(&out, &["optim.schedule=constant"]);
    fs::rename(place.images(), place.runs("moved")).unwrap();
    let moved = format!("data.train.paths=[{:?}]", place.runs("moved").display().to_string());
    let more = ["optim.schedule=constant", "run.steps=8", "optim.lr=1e-5", &moved];
    let run = place.run(&out, &more);
    assert_eq!(run.code, 0, "{}", run.err);
    for told in
        ["changed: run.steps = 6, now 8", "changed: optim.lr = 0.001, now 0.00001", "step 8/8"]
    {
        assert!(
            run.out.contains(told) || run.out.contains(&told.replace("0.00001", "1e-5")),
            "{told}: {}",
            run.out
        );
    }
    let run = place.run(&out, &[&more[..], &["data.train.batch=1"]].concat());
    assert_eq!(run.code, 2);
    assert!(
        run.err.contains("data.train.batch = 2, now 1") && run.err.contains("--from"),
        "{}",
        run.err
    );
    assert!(!run.err.contains("optim.lr"), "{}", run.err);
}

#[test]
fn a_run_starts_from_given_weights() {
    let place = Place::new();
    let out = place.runs("runs");
    finish(&place.config(&["run.steps=2"]), &out, None);
    let from = format!("run.init={:?}", out.join("tiny").display().to_string());
    let settings = ["run.name=next", "run.steps=1", "optim.lr=1e-12", "ema.decay=0", &from];
    let run = place.run(&out, &settings);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("starting from"), "{}", run.out);
    let read =
        |path: &str| srk::models::weights::WeightsFile::read(&out.join(path)).unwrap().tensors;
    let (old, new) = (read("tiny/ckpt/2/ema.safetensors"), read("next/ckpt/1/model.safetensors"));
    for (name, (_, values)) in &old {
        let near = values.iter().zip(&new[name].1).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near, "{name} does not come from the weights given");
    }
    // Under other names: the second convolution of the time's network starts as the first.
    let names = r#"run.init_names={ "time.2." = "time.0." }"#;
    let named = [&settings[1..], &["run.name=named", names]].concat();
    let run = place.run(&out, &named);
    assert_eq!(run.code, 0, "{}", run.err);
    let named = read("named/ckpt/1/model.safetensors");
    let (from, to) = (&old["time.0.bias"], &named["time.2.bias"]);
    assert!(from.0 == to.0 && from.1.iter().zip(&to.1).all(|(a, b)| (a - b).abs() < 1e-6));
    // Another width: what fits is taken, the rest is named. Nothing fits: an error.
    let wider = [&settings[1..], &["run.name=wide", "model.time_dim=16"]].concat();
    let run = place.run(&out, &wider);
    assert!(run.code == 0 && run.err.contains("start at random"), "{} {}", run.out, run.err);
    // Widened: the narrower network's weights, with nothing from the new inputs.
    let widened = [&wider[..], &["run.init_widen=true"]].concat();
    let widened = [&widened[..], &["run.name=widened"]].concat();
    let run = place.run(&out, &widened);
    assert!(run.code == 0 && !run.err.contains("start at random"), "{} {}", run.out, run.err);
    let widened = read("widened/ckpt/1/model.safetensors");
    let (from, to) = (&old["time.2.weight"], &widened["time.2.weight"]);
    for (o, narrow) in from.1.chunks(from.0[1]).enumerate() {
        let wide = &to.1[o * to.0[1]..][..to.0[1]];
        for (i, &value) in wide.iter().enumerate() {
            let expected = narrow.get(i).copied().unwrap_or(0.0);
            assert!((value - expected).abs() < 1e-6, "time.2.weight, output {o}, input {i}");
        }
    }
    let other =
        [&settings[1..], &["run.name=other", "model.channels=16", "model.blocks=1"]].concat();
    let run = place.run(&out, &other);
    assert!(matches!(run.code, 0 | 2), "{}", run.err);
    // A run that has begun is not affected.
    let run = place.run(&out, &["run.name=next", "run.steps=1", "optim.lr=1e-12", "ema.decay=0"]);
    assert_eq!(run.code, 0, "{}", run.err);
}

#[test]
fn pictures_that_cannot_be_measured_are_left_out_of_validation() {
    let place = Place::new();
    let val = place.runs("val");
    fs::create_dir(&val).unwrap();
    for (name, w, h) in [("a", 48, 40), ("b_banner", 120, 17), ("d_dot", 3, 3)] {
        write_image(&val.join(format!("{name}.png")), w, h, 1);
    }
    let paths = format!("data.val.paths=[{:?}]", val.display().to_string());
    let run = place.run(&place.runs("runs"), &["val.every=2", "val.sheet=0", &paths]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.err.contains("b_banner.png (120x17), ") && run.err.contains("d_dot.png (3x3)"),
        "{}",
        run.err
    );
    assert_eq!(run.err.matches("b_banner").count(), 1, "{}", run.err);
    assert_eq!(metrics(&place.runs("runs"), "val_images").len(), 3);
    // The same among the images to learn from.
    write_image(&place.images().join("dot.png"), 3, 3, 1);
    let run = place.run(&place.runs("dot"), &[]);
    assert!(run.code == 0 && run.err.contains("dot.png (3x3)"), "{}", run.err);
}

#[test]
fn configurations_without_measure_end_with_a_message() {
    let place = Place::new();
    for (setting, code, word) in [
        ("model.channels=100000", 2, "100000"),
        ("model.blocks=1_000_000_000_000", 2, "model.blocks"),
        ("model.channels=60000", 5, "memory"),
        ("data.train.batch=1_000_000_000_000", 2, "data.train.batch"),
        ("data.train.batch=9223372036854775807", 2, "data.train.batch"),
        ("data.train.batch=65536", 5, "batch"),
        ("diffusion.process.steps=1_000_000_000", 2, "steps"),
        ("data.train.crop=1_048_576", 2, "data.train.crop"),
        ("model.channels=0", 2, "holds nothing"),
    ] {
        let settings = [setting, "data.train.crop=8192"];
        let settings = if setting.contains("=65536") { &settings[..] } else { &settings[..1] };
        let run = place.run(&place.runs("runs"), settings);
        assert_eq!(run.code, code, "{setting}: {}", run.err);
        assert!(run.err.contains(word), "{setting}: {}", run.err);
    }
    assert!(!place.runs("runs").exists());
    // What the estimates miss ends with a message, too: here there is no memory for the program's own work.
    let out = place.runs("little");
    let file = place.command(&out, &[]).get_args().nth(1).unwrap().to_owned();
    let script = format!(
        "ulimit -v 260000; exec {} train {} --set model.channels=256 --set model.blocks=16",
        env!("CARGO_BIN_EXE_srk"),
        file.display()
    );
    let run = Run::of(
        Command::new("sh").args(["-c", &script]).current_dir(place.runs("")).output().unwrap(),
    );
    assert_eq!(run.code, 5, "{}", run.err);
}
