//! What a training refuses before it leaves anything behind, and from what it goes on.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::process::Command;

use crate::common::command::{Bench, Run};
use crate::common::training::*;
use srk::engine::device::DType;
use srk::models::weights::WeightsFile;

/// Trains a recipe of small RRDB networks as `name`.
fn train(p: &Bench, recipe: &str, name: &str, more: &[&str]) -> Run {
    let name = format!("run.name={name}");
    let small = ["model.base=8", "model.blocks=1", "model.growth=4", "data.train.crop=32"];
    let data = ["data.train.paths=[\"in\"]", "data.val.paths=[]", "data.train.batch=1"];
    let run = ["run.steps=4", "ckpt.every=2", &name];
    let sets = small.iter().chain(&data).chain(&run).chain(more);
    let sets = sets.flat_map(|setting| match setting.starts_with('-') {
        true => setting.split(' ').collect::<Vec<_>>(),
        false => vec!["--set", setting],
    });
    p.srk(&["train", "--recipe", recipe].into_iter().chain(sets).collect::<Vec<_>>())
}

fn bench() -> Bench {
    let p = Bench::new();
    for i in 0..2 {
        p.another(&format!("in/p{i}.png"), 64, 48, i);
    }
    p
}

#[test]
fn a_validation_that_is_not_finite_heeds_on_nan_and_a_later_start_goes_on() {
    let place = Place::new();
    let (out, val) = (place.runs("out"), place.val());
    let with = |more: &[&str]| {
        let all = ["run.steps=8", "val.every=5", "ckpt.every=1", "ckpt.keep=0", &val];
        place.config(&[&all[..], more].concat())
    };
    let copy = |name: &str| {
        let to = place.runs(name);
        assert!(Command::new("cp").arg("-r").arg(&out).arg(&to).status().unwrap().success());
        to
    };
    finish(&with(&[]), &out, Some(4));
    // Goes on from weights that validate.
    let back = copy("back");
    let heard = finish(&with(&["optim.lr=1e30", "optim.on_nan=rollback"]), &back, None);
    let says = |heard: &Heard, text: &str| heard.warnings.iter().any(|w| w.contains(text));
    assert!(says(&heard, "the weights are those of step 4 again"), "{:?}", heard.warnings);
    // Ends, and says where.
    let error = go(&with(&["optim.lr=1e30"]), &out, None).0.unwrap_err();
    assert_eq!((error.exit_code(), error.code()), (6, "not_finite"), "{error}");
    let text = error.to_string();
    assert!(text.contains("at step 5") && text.contains("ckpt/5"), "{text}");
    assert!(text.contains("optim.on_nan=rollback"), "{text}");
    // A later start takes steps again, and is mended by what it is told.
    let (ended, heard) = go(&with(&["optim.lr=1e-4"]), &copy("on"), None);
    assert!(says(&heard, "going on without it"), "{:?}", heard.warnings);
    assert_eq!(ended.unwrap_err().exit_code(), 6, "such weights are lost");
    let heard = finish(&with(&["optim.lr=1e-4", "optim.on_nan=rollback"]), &out, None);
    assert!(says(&heard, "the weights are those of step 4 again"), "{:?}", heard.warnings);
    assert!(out.join("tiny/ckpt/damaged-5").is_dir() && out.join("tiny/ckpt/5").is_dir());
}

#[test]
fn sizes_that_make_no_network_are_refused_with_the_key_and_leave_nothing() {
    let p = bench();
    let scale = ["model.scale=5", "data.train.crop=40"];
    train(&p, "rrdb", "a", &scale).failed(2, &["model.scale = 5"]);
    let sr3 = ["train", "--recipe", "sr3", "--set", "data.train.paths=[\"in\"]", "--set"];
    for (set, key) in [("model.groups=0", "model.groups = 0"), ("model.base=1", "model.base = 1")] {
        let small = ["--set", "model.multipliers=[1,2]", "--set", "data.train.crop=32"];
        let data =
            ["--set", "data.val.paths=[]", "--set", "model.base=8", "--set", "model.groups=1"];
        let last = ["--set", set];
        p.srk(&[&sr3[..], &["run.steps=1"], &small, &data, &last].concat()).failed(2, &[key]);
    }
    assert!(!p.path("runs").exists(), "nothing is left");
}

#[test]
fn a_run_without_a_saved_step_blocks_no_other_configuration() {
    let p = bench();
    train(&p, "rrdb", "a", &[]).worked();
    train(&p, "rrdb", "a", &["model.growth=8"]).failed(2, &["another configuration"]);
    fs::remove_dir_all(p.path("runs/a/ckpt")).unwrap();
    train(&p, "rrdb", "a", &["model.growth=8"]).worked();
}

#[test]
fn a_checkpoint_is_looked_at_before_a_run_goes_on_from_it() {
    let p = bench();
    train(&p, "rrdb", "a", &[]).worked();
    let stage = ["adversarial.after=3", "adversarial.discriminator.base=8", "--resume runs/a"];
    train(&p, "realesrgan", "b", &stage).failed(3, &["no discriminator", "--from RUN"]);
    let damage = |step: u32| {
        fs::write(p.path(&format!("runs/a/ckpt/{step}/state.safetensors")), b"cut").unwrap();
    };
    damage(4);
    train(&p, "rrdb", "c", &["--resume runs/a"])
        .worked()
        .says_all(&["taking the checkpoint of step 2", "going on from runs/a at step 2"]);
    damage(2);
    train(&p, "rrdb", "d", &["--resume runs/a"]).failed(3, &["runs/a/ckpt/4/state.safetensors"]);
    assert!(!p.path("runs/b").exists() && !p.path("runs/d").exists(), "nothing is left");
}

#[test]
fn numbers_of_an_adversarial_stage_are_checked() {
    let p = bench();
    for key in ["pixels", "features", "weight"] {
        for value in ["nan", "-1", "inf"] {
            let set = format!("adversarial.{key}={value}");
            train(&p, "realesrgan", "a", &[&set]).failed(2, &[&format!("adversarial.{key} = ")]);
        }
    }
    let rises = ["adversarial.schedule=cosine", "adversarial.lr=1e-5", "optim.min_lr=1e-4"];
    train(&p, "realesrgan", "a", &rises).failed(2, &["optim.min_lr", "adversarial.lr"]);
    train(&p, "rrdb", "a", &["optim.weight_decay=inf"]).failed(2, &["optim.weight_decay"]);
    // Of crops that the discriminator does not take nothing was heard before the stage began.
    let of = |recipe, sets: &[&str]| {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        p.srk(
            &["train", "--recipe", recipe, "--dry-run"].into_iter().chain(sets).collect::<Vec<_>>(),
        )
    };
    let keys = ["adversarial.discriminator.crop = 96", "data.train.crop = 64"];
    of("srgan", &["data.train.paths=[\"in\"]", "data.train.crop=64"]).failed(2, &keys);
    let keys = ["data.train.crop = 4", "adversarial.discriminator"];
    of("srddpm", &["data.train.paths=[\"in\"]", "data.train.crop=4"]).failed(2, &keys);
    let none = "adversarial.discriminator.base=0";
    of("srgan", &["data.train.paths=[\"in\"]", none])
        .failed(2, &["adversarial.discriminator.base"]);
}

#[test]
fn noise_alone_tells_no_image() {
    let place = Place::new();
    for beta in ["{kind=\"jsd\"}", "{kind=\"linear\",start=1e-4,end=1.0}"] {
        let process =
            format!("diffusion.process={{kind=\"ddpm\",steps=4,beta={beta},time=\"step\"}}");
        let of = |prediction: &str| place.try_config(&[&process, prediction]);
        let error = of("diffusion.prediction=epsilon").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("diffusion.prediction"), "{error}");
        assert!(of("diffusion.prediction=x0").is_ok());
    }
}

#[test]
fn a_split_leaves_pictures_on_both_sides() {
    let place = Place::new();
    let error =
        go(&place.config(&["data.val.split=0.99"]), &place.runs("a"), Some(1)).0.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("data.val.split") && text.contains("3 of 3"), "{text}");
    let heard = finish(&place.config(&["data.val.split=0.01"]), &place.runs("b"), Some(1));
    assert!(heard.lines.iter().any(|l| l.contains("2 training images")), "{:?}", heard.lines);
}

#[test]
fn systems_that_draw_name_their_keys_and_their_runs() {
    let p = bench();
    p.another("digits/a.png", 28, 28, 1);
    let vae =
        ["train", "--recipe", "vae", "--set", "data.batch=2", "--set", "run.steps=1", "--set"];
    let missing = p.srk(&[&vae[..], &["data.paths=[\"nowhere\"]"]].concat());
    assert!(!missing.err.contains("data.train.paths"), "{}", missing.err);
    missing.failed(2, &["data.paths="]);
    let data = ["data.paths=[\"digits\"]", "--set", "run.name=mine", "--set", "sample.count=0"];
    p.srk(&[&vae[..], &data].concat()).worked();
    p.srk(&["sample", "runs/mine", "-o", "a.png"]).worked();
    p.srk(&["sample", "runs/mine/ckpt/1/ema.safetensors", "-o", "b.png"]).worked();
    let [run, file] = ["a.png", "b.png"].map(|name| fs::read(p.path(name)).unwrap());
    assert!(run == file, "the stamp is not the same");
    assert!(String::from_utf8_lossy(&run).contains("model=mine"));
}

/// Weights that meant something else where they come from fit by their shapes alone.
#[test]
fn weights_that_meant_something_else_are_told_by_the_keys() {
    let p = bench();
    let train = |recipe: &str, sizes: &[&str], name: &str, more: &[&str]| {
        let name = format!("run.name={name}");
        let data = ["data.train.paths=[\"in\"]", "data.val.paths=[]", "data.train.batch=1"];
        let run = ["data.train.crop=32", "run.steps=1", &name];
        let sets = sizes.iter().chain(&data).chain(&run).flat_map(|set| ["--set", set]);
        let all: Vec<&str> = ["train", "--recipe", recipe].into_iter().chain(sets).collect();
        p.srk(&[&all[..], more].concat()).worked()
    };
    let span = ["model.channels=8", "model.blocks=2"];
    train("span", &span, "a", &[]);
    let from = ["--from", "runs/a"];
    let same = train("span", &span, "b", &from);
    assert!(!same.err.contains("meant something else"), "{}", same.err);
    let other = [&span[..], &["model.range=1", "model.mean=[0,0.5,0]"]].concat();
    train("span", &other, "c", &from)
        .says("warning: the weights in runs/a meant something else there")
        .says("model.range = 255 in the file, 1 here")
        .says("model.mean = [0.4488, 0.4371, 0.404] in the file, [0, 0.5, 0] here");
    // Of a file of others what is assumed is called that.
    let own = WeightsFile::read(&p.path("runs/a/ckpt/1/ema.safetensors")).unwrap();
    let plain = WeightsFile { metadata: Default::default(), ..own };
    plain.write(&p.path("net.safetensors"), DType::F32).unwrap();
    train("span", &other, "d", &["--from", "net.safetensors"])
        .says("model.range = 255 in the file, as is assumed, 1 here");
}

/// What `-m` takes where a training starts, too.
#[test]
fn a_training_starts_from_models_by_their_names() {
    let p = bench();
    let snapshot = p.path("hub/models--me--net/snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    p.put("hub/models--me--net/refs/main", "abc");
    fs::copy("weights/srk-x4.safetensors", snapshot.join("net.safetensors")).unwrap();
    let start = |from: &str, name: &str| {
        let name = format!("run.name={name}");
        let sets = [
            "data.train.paths=[\"in\"]",
            "data.val.paths=[]",
            "data.train.batch=1",
            "data.train.crop=32",
            "run.steps=1",
            "val.every=0",
            &name,
        ];
        let sets = sets.into_iter().flat_map(|set| ["--set", set]);
        let mut all = vec!["train", "--recipe", "srk-x4", "--from", from];
        all.extend(sets);
        let mut command = p.command(&all);
        command.env("HF_HUB_CACHE", p.path("hub"));
        p.fed_to(command, b"")
    };
    start("srk-x4", "a").worked().says_all(&["starting from srk-x4: "]);
    start("hf:me/net", "b").worked().says_all(&["starting from hf:me/net: "]);
    start("hf:you/net", "c").failed(3, &["hf download you/net"]);
    start("srk-x5", "d").failed(3, &["cannot start from srk-x5", "srk models list", "hf:ORG/REPO"]);
}
