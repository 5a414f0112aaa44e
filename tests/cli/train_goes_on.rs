//! What a training does where its surroundings change: images that go, come or are still being read, a folder that was
//! renamed, signals at bad moments.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::common::command::{Bench, Run, wait_until};
use crate::common::training::*;

/// `srk train` to its end.
#[track_caller]
fn train(place: &Place, out: &Path, sets: &[&str], more: &[&str]) -> Run {
    Run::of(place.command(out, sets).args(more).output().unwrap())
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
}

fn validated(out: &Path) -> usize {
    let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    text.lines().filter(|line| line.contains("val_psnr_y")).count()
}

#[test]
fn a_later_start_says_that_the_images_are_others() {
    let place = Place::new();
    let out = place.runs("out");
    finish(&place.config(&[]), &out, Some(2));
    let others = |heard: &Heard| heard.lines.iter().any(|l| l.contains("images are others"));
    assert!(!others(&finish(&place.config(&[]), &out, Some(3))));
    write_image(&place.images().join("new.png"), 48, 48, 5);
    let heard = finish(&place.config(&[]), &out, Some(4));
    let line = heard.lines.iter().find(|l| l.contains("images are others"));
    let line = line.unwrap_or_else(|| panic!("{:?}", heard.lines));
    assert!(line.contains("up to step 3: 4 images") && line.contains("were 3 images"), "{line}");
    // Said once; and moved they are the same.
    assert!(!others(&finish(&place.config(&[]), &out, Some(5))));
    fs::rename(place.images(), place.runs("moved")).unwrap();
    let moved = format!("data.train.paths=[{:?}]", place.runs("moved").display().to_string());
    assert!(!others(&finish(&place.config(&[&moved]), &out, Some(6))));
}

#[cfg(unix)]
#[test]
fn a_validation_that_is_interrupted_twice_is_not_lost() {
    let place = Place::new();
    let (out, val) = (place.runs("out"), place.val());
    let long = ["diffusion.process.steps=20000", "val.every=2", "val.sheet=0", &val];
    // As one that was interrupted leaves it: step 2 is saved, and nothing says how good it is.
    finish(&place.config(&[&long[..3], &["data.val.paths=[]"]].concat()), &out, Some(2));
    assert_eq!(validated(&out), 0);
    let mut child = place.command(&out, &long).spawn().unwrap();
    let log = || fs::read_to_string(out.join("tiny/train.log")).unwrap_or_default();
    wait_until(&mut child, || log().contains("making up the look at step 2"));
    std::thread::sleep(Duration::from_millis(300));
    interrupt(&child);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{}", run.err);
    assert!(run.err.contains("saved step 2"), "{}", run.err);
    assert_eq!(fs::read_to_string(out.join("tiny/ckpt/latest")).unwrap().trim(), "2");
    let run = train(&place, &out, &[&long[..], &["val.steps=2"]].concat(), &["--until", "2"]);
    assert_eq!((run.code, validated(&out)), (0, 1), "{} {}", run.out, run.err);
}

#[test]
fn an_image_that_goes_ends_the_run_with_its_steps_saved() {
    let place = Place::new();
    let out = place.runs("out");
    let sets = ["run.steps=1_000_000", "ckpt.every=0", "data.cache=0"];
    let mut child = place.command(&out, &sets).spawn().unwrap();
    let metrics = out.join("tiny/metrics.jsonl");
    wait_until(&mut child, || metrics.exists());
    assert!(!out.join("tiny/ckpt/latest").exists());
    fs::rename(place.images(), place.runs("away")).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(
        run.out.contains("saved ") && run.err.contains("cannot read"),
        "{} {}",
        run.out,
        run.err
    );
    let latest = fs::read_to_string(out.join("tiny/ckpt/latest")).unwrap();
    let latest: u64 = latest.trim().parse().unwrap();
    assert_eq!(losses(&out).last().unwrap().0, latest);
    fs::rename(place.runs("away"), place.images()).unwrap();
    let until = (latest + 1).to_string();
    let run = train(&place, &out, &sets, &["--until", &until]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("resuming"), "{}", run.out);
}

#[cfg(unix)]
#[test]
fn an_interrupt_is_heard_while_images_are_read() {
    let place = Place::new();
    let large = place.runs("large.png");
    write_image(&large, 1200, 900, 1);
    for i in 0..300 {
        fs::copy(&large, place.images().join(format!("large{i}.png"))).unwrap();
    }
    let out = place.runs("out");
    let child = place.command(&out, &["data.cache=0"]).args(["-j", "1"]).spawn().unwrap();
    // It reads them by then, of which there is no sign.
    std::thread::sleep(Duration::from_millis(1500));
    interrupt(&child);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, 130, "{}", run.err);
    assert!(!out.exists(), "it went on to a step: {}", run.out);
}

#[test]
fn what_q_keeps_from_the_terminal_is_in_the_log() {
    let place = Place::new();
    let log = place.runs("log.txt");
    let run = train(&place, &place.runs("out"), &[], &["-q", "--log", &log.display().to_string()]);
    assert!(run.code == 0 && run.out.is_empty(), "{} {}", run.out, run.err);
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("starting ") && log.contains("step 6/6"), "{log}");
}

#[test]
fn images_of_which_none_can_be_measured_are_no_validation() {
    let place = Place::new();
    let (val, out) = (place.runs("val"), place.runs("out"));
    fs::create_dir(&val).unwrap();
    write_image(&val.join("dot.png"), 6, 6, 1);
    let paths = format!("data.val.paths=[{:?}]", val.display().to_string());
    let set = format!("data.val.sets.few.paths=[{:?}]", val.display().to_string());
    for sets in [&[&*paths][..], &[&*paths, "ckpt.best=psnr_y"], &[&*place.val(), &*set]] {
        let run = train(&place, &out, sets, &[]);
        run.failed(2, &["none can be measured of 1 image", "dot.png", "data.val.paths"]);
    }
    assert!(!out.exists());
}

#[test]
fn a_folder_that_was_renamed_goes_on_under_its_name() {
    let place = Place::new();
    let [whole, out] = ["whole", "out"].map(|name| place.runs(name));
    finish(&place.config(&[]), &whole, None);
    finish(&place.config(&[]), &out, Some(4));
    fs::rename(out.join("tiny"), out.join("other")).unwrap();
    let run = train(&place, &out, &["run.name=other"], &[]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("changed: run.name") && run.out.contains("at step 4"), "{}", run.out);
    fs::rename(out.join("other"), out.join("tiny")).unwrap();
    assert_same(&whole, &out, 6);
    // What is advised for other keys keeps the steps.
    let other = ["optim.weight_decay=0.1", "run.steps=7"];
    let run = train(&place, &out, &other, &[]);
    run.failed(2, &["--set run.name=OTHER --resume RUN", "--from RUN"]);
    let from = out.join("tiny").display().to_string();
    let next = [&other[..], &["run.name=next"]].concat();
    let run = train(&place, &out, &next, &["--resume", &from]);
    assert!(run.code == 0 && run.out.contains("step 7/7"), "{} {}", run.out, run.err);
}

#[test]
fn going_back_is_not_advised_where_there_is_no_checkpoint() {
    let place = Place::new();
    let wild = ["optim.lr=1e39", "optim.schedule=constant", "optim.warmup=0", "run.steps=1"];
    let with = |policy| train(&place, &place.runs("out"), &[&wild[..], &[policy]].concat(), &[]);
    let run = with("optim.on_nan=rollback").failed(6, &["no checkpoint yet", "ckpt.every"]);
    assert!(!run.err.contains("goes back and on"), "{}", run.err);
    with("optim.on_nan=stop").failed(6, &["goes back and on"]);
}

#[test]
fn steps_beyond_those_of_a_model_are_all_of_them() {
    let p = Bench::new();
    p.photo("in/a.png", 28, 28);
    let sets = ["data.paths=[\"in\"]", "data.batch=1", "run.steps=1", "sample.count=0"];
    let small = ["model.network.base=8", "model.diffusion.process.steps=5", "model.sample_steps=2"];
    let sets = sets.iter().chain(&small).flat_map(|set| ["--set", set]);
    p.srk(&["train", "--recipe", "ddpm"].into_iter().chain(sets).collect::<Vec<_>>()).worked();
    let sample = |name: &str, steps: &str| {
        let of = ["sample", "runs/ddpm", "--count", "1", "-o", name, "--steps", steps];
        (p.srk(&of).worked(), fs::read(p.path(name)).unwrap())
    };
    let (run, all) = sample("all.png", "5");
    assert!(!run.err.contains("warning"), "{}", run.err);
    let (run, more) = sample("more.png", "50");
    run.says("warning").says("has 5 steps, so --steps 50 is 5");
    assert!(all == more, "the stamp says what was not done");
    assert!(String::from_utf8_lossy(&more).contains("steps=5"));
}

#[test]
fn outputs_are_looked_at_before_the_work() {
    let p = Bench::new();
    for name in ["a/x.png", "b/x.png"] {
        p.photo(name, 40, 40);
    }
    for name in ["net.pth", "net.PT", "dir/net.ckpt"] {
        let run = p.srk(&["models", "export", "srk-x4", name]);
        run.failed(2, &["no file of torch", "safetensors"]);
        assert!(!p.has(name));
    }
    p.srk(&["models", "import", "a/x.png", "-o", "net.pth"]).failed(2, &["no file of torch"]);
    let eval = |csv: &str| p.srk(&["eval", "a", "b", "--overwrite", "--csv", csv]);
    let run = eval("a");
    assert!(run.out.is_empty(), "measured in vain: {}", run.out);
    run.failed(1, &["cannot write a"]);
    if cfg!(target_os = "linux") {
        let run = eval("/proc/x.csv");
        assert!(run.out.is_empty(), "measured in vain: {}", run.out);
        run.failed(1, &["cannot write /proc/x.csv"]);
    }
    eval("x.csv").worked();
    assert_eq!(p.names("."), ["a", "b", "x.csv"]);
}

#[test]
fn pictures_smaller_than_truths_are_left_out_of_damaged_pairs() {
    let p = Bench::new();
    for (name, side) in [("a", 40), ("b", 70), ("c", 60), ("d", 80)] {
        p.another(&format!("in/{name}.png"), side, side, side);
    }
    p.srk(&["data", "pack", "in", "in.tar"]).worked();
    let look = |from: &str, out: &str, size: &str| {
        p.srk(&["data", "degrade", from, out, "--count", "4", "--size", size])
    };
    for (from, out) in [("in", "one"), ("in.tar", "two")] {
        let run = look(from, out, "64").worked();
        run.says("warning: 2 pictures smaller than a truth of 64x64 left out (first: in");
        let text = fs::read_to_string(p.path(&format!("{out}/pairs.json"))).unwrap();
        let pairs: serde_json::Value = serde_json::from_str(&text).unwrap();
        let names: Vec<String> = pairs
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| {
                let path = Path::new(pair["source"].as_str().unwrap());
                path.file_name().unwrap().to_string_lossy().into_owned()
            })
            .collect();
        assert_eq!(names, ["b.png", "d.png", "b.png", "d.png"]);
    }
    // The largest says what would do.
    look("in", "none", "96").failed(1, &["d.png is smaller", "--size 80"]);
    assert!(!p.has("none"));
    let run = look("in", "few", "40").worked();
    assert!(!run.err.contains("left out"), "{}", run.err);
}
