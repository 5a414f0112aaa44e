//! What people expect of data sets, training and measuring: packed pictures, checks of pairs, runs that go on elsewhere.
#![allow(clippy::unwrap_used)]

use std::fs;

use crate::common::command::{Bench, Run, SMALL};
use serde_json::Value;

/// Trains the small network as `name`.
fn train(p: &Bench, name: &str, more: &[&str]) -> Run {
    let name = format!("run.name={name}");
    let mut arguments = vec!["train", "--recipe", "dual-domain-grid", "--set", &name];
    arguments.extend(SMALL.iter().flat_map(|setting| ["--set", setting]));
    arguments.extend(more);
    p.srk(&arguments)
}

fn weights(p: &Bench, run: &str, step: u32) -> Vec<u8> {
    let file = fs::read(p.path(&format!("runs/{run}/ckpt/{step}/ema.safetensors"))).unwrap();
    // Behind the head, which names the run.
    let head = u64::from_le_bytes(file[..8].try_into().unwrap());
    file[8 + usize::try_from(head).unwrap()..].to_vec()
}

fn photos(p: &Bench, folder: &str, count: u32) {
    for i in 0..count {
        p.another(&format!("{folder}/sub/p{i}.png"), 72, 64 + 4 * i, i);
    }
}

#[test]
fn packed_pictures_train_as_those_of_a_folder() {
    let p = Bench::new();
    photos(&p, "in", 4);
    p.srk(&["data", "pack", "in", "all.tar"]).worked().says_all(&["4 pictures in all.tar"]);
    let folder = ["--set", "data.train.paths=[\"in\"]", "--set", "run.steps=3"];
    let packed = ["--set", "data.train.paths=[\"all.tar\"]", "--set", "run.steps=3"];
    train(&p, "a", &folder).worked();
    train(&p, "b", &packed).worked();
    assert_eq!(weights(&p, "a", 3), weights(&p, "b", 3));
    let count = |what: &str| p.srk(&["data", "stats", what, "--json"]).worked().event("done");
    assert_eq!(count("all.tar")["mean"], count("in")["mean"]);
    // Equal pictures, equal files; nothing is replaced unasked.
    p.srk(&["data", "pack", "in", "all.tar"]).failed(2, &["all.tar exists"]);
    p.srk(&["data", "pack", "in", "again.tar"]).worked();
    assert_eq!(fs::read(p.path("all.tar")).unwrap(), fs::read(p.path("again.tar")).unwrap());
    // Several files, and a folder of them.
    p.srk(&["data", "pack", "in", "parts/p.tar", "--size", "1"]).failed(1, &["mkdir"]);
    fs::create_dir(p.path("parts")).unwrap();
    p.srk(&["data", "pack", "in", "parts/p.tar", "--size", "1"]).worked();
    assert_eq!(p.names("parts"), ["p-000.tar", "p-001.tar", "p-002.tar", "p-003.tar"]);
    assert_eq!(count("parts")["pictures"], 4);
    p.srk(&["data", "pack", "in", "all.zip"]).failed(2, &[".tar"]);
    p.srk(&["data", "pack", "all.tar", "x.tar"]).failed(2, &["packed already"]);
    // One that was cut short, and one that is none.
    let whole = fs::read(p.path("all.tar")).unwrap();
    fs::write(p.path("cut.tar"), &whole[..whole.len() / 3]).unwrap();
    p.srk(&["data", "check", "cut.tar"]).failed(1, &["cut.tar"]);
    p.put("no.tar", &"x".repeat(2000));
    p.srk(&["data", "check", "no.tar"]).failed(1, &["no.tar", "srk data pack"]);
}

#[test]
fn pairs_and_validation_are_checked_and_a_list_of_the_good_is_written() {
    let p = Bench::new();
    for (name, width, height, salt) in [
        ("hr/a", 80, 72, 0),
        ("hr/b", 80, 72, 1),
        ("hr/c", 80, 76, 2),
        ("lr/ax4", 20, 18, 0),
        ("lr/bx4", 20, 17, 1),
        ("lr/dx4", 20, 18, 3),
        ("val/v", 80, 72, 1),
    ] {
        p.another(&format!("{name}.png"), width, height, salt);
    }
    fs::copy(p.path("hr/a.png"), p.path("hr/twin.png")).unwrap();
    let asked = ["data", "check", "hr", "--low", "lr", "--val", "val", "--least", "64", "--json"];
    let ended = p.srk(&asked).failed(6, &["validation are trained on"]);
    let found = |kind: &str| -> Vec<String> {
        let events = ended.events();
        let of = events.iter().filter(|e| e["event"] == "finding" && e["kind"] == kind);
        of.map(|e| e["file"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
    };
    assert_eq!(found("unpaired"), ["c.png", "twin.png", "dx4.png"]);
    assert_eq!(found("size"), ["bx4.png"]);
    assert_eq!(found("leak"), ["v.png"]);
    assert_eq!(found("duplicate"), ["twin.png"]);
    assert_eq!(ended.event("summary")["leaks"], 1);
    // The list leaves out what should not be trained on, and training reads it.
    p.another("hr/small.png", 80, 20, 4);
    p.srk(&["data", "check", "hr", "--fix-list", "good.txt"])
        .worked()
        .says_all(&["3 pictures in good.txt"]);
    let list = fs::read_to_string(p.path("good.txt")).unwrap();
    assert!(list.contains("a.png") && !list.contains("twin") && !list.contains("small"), "{list}");
    p.srk(&["data", "check", "hr", "--fix-list", "good.txt"]).failed(2, &["good.txt exists"]);
    let listed = ["--set", "data.train.paths=[\"good.txt\"]", "--set", "run.steps=1"];
    train(&p, "listed", &listed).worked().says_all(&["3 training images"]);
    p.srk(&["data", "check", "hr", "--low", "lr"]).failed(6, &["do not belong together"]);
    // The configuration of a run names all of it.
    let recipe = p.srk(&["train", "--init", "dual-domain-grid"]).worked().out;
    let recipe = recipe.replace("\"data/train\"", "\"hr\"").replace("\"data/valid\"", "\"val\"");
    p.put("run.toml", &recipe);
    p.srk(&["data", "check", "run.toml"]).failed(6, &["validation are trained on"]);
    p.srk(&["data", "check", "run.toml", "hr"]).failed(2, &["name it alone"]);
    p.srk(&["data", "check", "hrr"]).failed(2, &["did you mean hr?"]);
}

#[test]
fn prep_takes_the_words_of_others() {
    let p = Bench::new();
    photos(&p, "in", 1);
    let out = p.srk(&["data", "prep", "in", "out", "--scale", "4", "--kernel", "matlab-bicubic"]);
    out.worked();
    assert_eq!(p.names("out"), ["high", "low"]);
    p.srk(&["data", "prep", "in", "--scale", "4"]).failed(2, &["srk data prep SRC OUT"]);
    let asked = ["data", "degrade", "in", "look", "--count", "1"];
    p.srk(&asked).failed(1, &["it has 72x64 pixels", "crops asked for (384x384)", "--size 64"]);
    assert!(!p.path("look").exists(), "nothing is left of what failed");
    p.srk(&[&asked[..], &["--size", "64"]].concat()).worked();
    // What the answer to a seed below 0 names is taken, and the number that is said makes the same.
    let look = |out: &str, seed: &str| {
        let asked = ["data", "degrade", "in", out, "--count", "1", "--size", "64", "--seed", seed];
        p.srk(&[&asked[..], &["--json"]].concat())
    };
    let run = p.srk(&[&asked[..], &["--seed", "-1"]].concat());
    run.failed(2, &["--seed random draws one and says which"]);
    let drawn = look("one", "random").worked().event("done")["seed"].as_u64().unwrap();
    look("two", &drawn.to_string()).worked();
    let read = |out: &str| std::fs::read(p.path(&format!("{out}/pairs.json"))).unwrap();
    assert!(read("one") == read("two"));
    let said =
        ["data", "degrade", "in", "three", "--count", "1", "--size", "64", "--seed", "random"];
    p.srk(&said).worked().says_all(&["pairs in three, seed "]);
}

#[test]
fn a_new_run_goes_on_from_another_as_if_it_were_that() {
    let p = Bench::new();
    photos(&p, "in", 3);
    let data =
        ["--set", "data.train.paths=[\"in\"]", "--set", "ckpt.every=2", "--set", "run.steps=4"];
    train(&p, "one", &data).worked();
    let from = [&data[..], &["--resume", "runs/one/ckpt/2"]].concat();
    train(&p, "two", &from)
        .worked()
        .says_all(&["going on from runs/one/ckpt/2 at step 2", "resuming runs/two"]);
    assert_eq!(weights(&p, "one", 4), weights(&p, "two", 4));
    train(&p, "two", &from).failed(2, &["runs/two is there already", "leave --resume out"]);
    train(&p, "two", &[&data[..], &["--resume", "auto"]].concat()).worked().says_all(&["finished"]);
    train(&p, "two", &[&data[..], &["--resume", "never"]].concat()).failed(2, &["there already"]);
    let longer = ["--set", "run.steps=5", "--resume", "runs/one"];
    train(&p, "three", &[&data[..], &longer].concat()).worked().says_all(&["at step 4"]);
    train(&p, "four", &[&data[..], &["--resume", "nowhere"]].concat())
        .failed(3, &["RUN/ckpt/STEP"]);
    let other = ["--set", "model.channels=16", "--resume", "runs/one"];
    train(&p, "five", &[&data[..], &other].concat())
        .failed(3, &["runs/one/ckpt/4/model.safetensors"]);
    assert!(!p.path("runs/four").exists() && !p.path("runs/five").exists());
}

#[test]
fn one_space_is_measured_and_shown() {
    let p = Bench::new();
    p.photo("a/x.png", 40, 40);
    p.another("b/x.png", 40, 40, 1);
    let eval = |more: &[&str]| p.srk(&[&["eval", "a", "b"][..], more].concat());
    let y = eval(&["--space", "y"]).worked().out;
    assert!(y.contains("PSNR-Y") && !y.contains("PSNR-RGB") && !y.contains("bicubic"), "{y}");
    let rgb = eval(&["--space", "rgb", "--border", "auto", "--json"]).worked();
    let summary = rgb.event("summary");
    assert!(summary["psnr_rgb"].is_number() && summary["psnr_y"].is_null(), "{summary}");
    let start = rgb.event("start");
    assert_eq!((&start["border"], &start["better"]["psnr_y"]), (&4.into(), &Value::Null));
    eval(&["--space", "rgb", "--min", "psnr_y=3"]).failed(2, &["psnr_y is not measured"]);
    eval(&["--min", "psnr=3"]).failed(2, &["did you mean psnr_y=3?"]);
    eval(&["--border", "x"]).failed(2, &["auto (the scale)"]);
    let model = ["eval", "--hr", "a", "--degrade", "bicubic", "--steps", "1", "--space", "y"];
    let text = p.srk(&model).worked().out;
    assert!(text.contains("MATLAB bicubic") && text.contains("bicubic  SSIM-Y"), "{text}");
}
