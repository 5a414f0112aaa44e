//! Every published system, small: it trains from its recipe, learns one picture, and enlarges one.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::path::Path;

use common::training::*;
use srk::diffusion::system::System;
use srk::engine::device::{DType, Device};
use srk::engine::parameter::Parameter;
use srk::imaging;
use srk::models::weights::WeightsFile;
use srk::training::config::Config;
use srk::training::recipes;
use srk::upscale::{self, Settings, TileSize, Upscaler};

/// A recipe, what makes it small, and the share of its first loss that it must come down to.
const SYSTEMS: [(&str, &[&str], f64); 12] = [
    (
        "sr3",
        &[
            "model.base=8",
            "model.multipliers=[1, 2]",
            "model.groups=4",
            "model.blocks=1",
            "model.attention=[16]",
            "model.image_size=32",
            "model.scale=4",
        ],
        0.7,
    ),
    ("sr3-div2k", &["model.base=8", "model.time_dim=32", "model.attention=true"], 0.7),
    ("sr3-mnist", &["model.widths=[8, 16, 16]", "data.pad=0"], 0.7),
    (
        "sr3-miniplaces",
        &["model.widths=[8, 16, 16]", "model.injection=between-convs", "run.steps=200"],
        0.7,
    ),
    ("resshift-dual", &["model.base=8"], 0.7),
    ("resshift-experiment", &["model.base=8"], 0.8),
    ("srddpm", &["model.base=8", "adversarial.after=1000"], 0.7),
    ("srgan", &["model.base=8", "model.blocks=2", "adversarial.after=1000"], 0.3),
    ("rrdb", &["model.base=8", "model.blocks=3", "model.growth=4"], 0.5),
    (
        "realesrgan",
        &[
            "model.base=8",
            "model.blocks=3",
            "model.growth=4",
            "adversarial.after=1000",
            // A picture that is damaged otherwise at every step is not learnt in a hundred.
            "degrade.preset=bicubic",
        ],
        0.5,
    ),
    ("span", &["model.channels=8", "model.blocks=2"], 0.5),
    ("laplacian", &["model.channels=8", "data.val.split=0.0"], 0.7),
];

/// What all have in common: one picture, a step in milliseconds.
const SMALL: [&str; 10] = [
    "run.steps=100",
    "data.train.crop=32",
    "data.train.batch=2",
    "data.val.paths=[]",
    "optim.lr=3e-3",
    "optim.warmup=0",
    "optim.schedule=constant",
    "val.every=0",
    "ckpt.every=0",
    "log.every=1",
];

/// The recipe `name` on `images`, with `more` set.
fn config(name: &str, images: &Path, more: &[&str]) -> Config {
    let paths = format!("data.train.paths=['{}']", images.display());
    let overrides = [paths.as_str()].into_iter().chain(SMALL).chain(more.iter().copied());
    let overrides: Vec<String> = overrides.map(str::to_owned).collect();
    Config::read(recipes::find(name).unwrap().text, name, &overrides).unwrap()
}

/// The losses of a run, in order.
fn losses_of(run: &Path) -> Vec<f64> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let read =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64();
    text.lines().filter_map(read).collect()
}

/// A folder with the one picture that is learned.
fn picture(place: &Place) -> std::path::PathBuf {
    let folder = place.runs("picture");
    std::fs::create_dir_all(&folder).unwrap();
    write_image(&folder.join("one.png"), 32, 32, 1);
    folder
}

/// Mean losses at the start and at the end.
fn ends(losses: &[f64]) -> [f64; 2] {
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    [mean(&losses[..5]), mean(&losses[losses.len() - 20..])]
}

fn learns(name: &str, more: &[&str], share: f64) {
    let place = Place::new();
    let config = config(name, &picture(&place), more);
    let out = place.runs("runs");
    finish(&config, &out, None);
    let [first, last] = ends(&losses_of(&out.join(name)));
    assert!(last < share * first, "{name}: the loss went from {first} to {last}");
    enlarges(&out.join(name), &place);
}

/// A run's folder enlarges a picture.
fn enlarges(run: &Path, place: &Place) {
    let system = System::open(run.to_str().unwrap()).unwrap();
    let scale = system.scale();
    let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
    let file = place.runs("small.png");
    write_image(&file, 19, 14, 2);
    let image = imaging::read(&file).unwrap();
    let settings = Settings { steps: Some(2), seed: 1, tile: TileSize::Auto, memory: 1 << 30 };
    let plan = upscale::plan(&upscaler, image.width, image.height, &settings).unwrap();
    let (large, _) = upscale::upscale(&upscaler, &image, &plan, 1, &mut |_, _| Ok(())).unwrap();
    assert_eq!((large.width, large.height), (19 * scale, 14 * scale));
}

#[test]
fn every_system_learns_a_picture_and_enlarges_another() {
    for (name, more, share) in SYSTEMS {
        learns(name, more, share);
    }
}

const SRDIFF: [&str; 5] = [
    "model.base=8",
    "model.multipliers=[1, 2]",
    "model.encoder_base=8",
    "model.encoder_blocks=3",
    "model.encoder_growth=4",
];

#[test]
fn srdiff_needs_its_encoder_and_leaves_it_alone() {
    let place = Place::new();
    let (images, out) = (picture(&place), place.runs("runs"));
    let error = go(&config("srdiff", &images, &SRDIFF), &out, None).0.unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let message = error.to_string();
    assert!(!out.exists(), "a refused run left a folder");
    assert!(message.contains("encoder") && message.contains("run.frozen"), "{message}");
    let sizes = ["model.base=8", "model.blocks=3", "model.growth=4", "run.steps=3"];
    finish(&config("rrdb", &images, &sizes), &out, None);
    let frozen = format!("run.frozen='{}'", out.join("rrdb").display());
    let more = [frozen.as_str(), "run.steps=200"];
    let settings: Vec<&str> = SRDIFF.into_iter().chain(more).collect();
    finish(&config("srdiff", &images, &settings), &out, None);
    let [first, last] = ends(&losses_of(&out.join("srdiff")));
    assert!(last < 0.7 * first, "the loss went from {first} to {last}");
    enlarges(&out.join("srdiff"), &place);
    let read = |path: &str| WeightsFile::read(&out.join(path)).unwrap().tensors;
    let (before, after) =
        (read("rrdb/ckpt/3/ema.safetensors"), read("srdiff/ckpt/200/ema.safetensors"));
    for (name, value) in before {
        assert!(after[&format!("rrdb.{name}")] == value, "{name} was changed");
    }
}

/// A stage against a discriminator, from step 3 of 6.
fn adversarial(name: &str, images: &Path) -> Config {
    let more: &[&str] = match name {
        "srddpm" => &["adversarial.discriminator={ kind = 'patch', base = 4 }"],
        _ => {
            &["model.blocks=2", "adversarial.discriminator={ kind = 'srgan', base = 4, crop = 32 }"]
        }
    };
    let all = ["run.steps=6", "ckpt.every=1", "ckpt.keep=0", "model.base=8", "adversarial.after=3"];
    config(name, images, &all.iter().chain(more).copied().collect::<Vec<_>>())
}

#[test]
fn a_discriminator_joins_in_and_a_resumed_run_equals_an_unbroken_one() {
    for name in ["srddpm", "srgan"] {
        let place = Place::new();
        let config = adversarial(name, &picture(&place));
        let (whole, parts) = (place.runs("whole"), place.runs("parts"));
        let heard = finish(&config, &whole, None);
        assert!(heard.warnings.iter().any(|w| w.contains("VGG19")), "{:?}", heard.warnings);
        let critics = heard.lines.iter().filter(|l| l.contains("critic")).count();
        assert_eq!(critics, 3, "{:?}", heard.lines);
        for until in [2, 3, 5, 6] {
            finish(&config, &parts, Some(until));
        }
        for step in 1..=6 {
            for file in ["model", "ema", "state"] {
                let read = |out: &Path| {
                    let path = out.join(format!("{name}/ckpt/{step}/{file}.safetensors"));
                    std::fs::read(path).unwrap()
                };
                assert!(read(&whole) == read(&parts), "{name}: {file} of step {step} differs");
            }
        }
        let critic = |step: u64| {
            let path = whole.join(format!("{name}/ckpt/{step}/state.safetensors"));
            let mut tensors = WeightsFile::read(&path).unwrap().tensors;
            tensors.retain(|key, _| key.starts_with("aside."));
            tensors
        };
        assert!(!critic(3).is_empty() && critic(2) == critic(3) && critic(3) != critic(4));
        enlarges(&whole.join(name), &place);
    }
}

#[test]
fn training_ends_when_validation_gets_no_better_and_keeps_the_best() {
    let place = Place::new();
    let images = place.images();
    let validation = format!("data.val.paths=['{}']", images.display());
    let more = [
        "model.channels=8",
        "run.steps=50",
        "optim.lr=1e-12",
        "ckpt.every=1",
        "ckpt.keep=1",
        "val.every=2",
        "val.patience=3",
        "val.images=1",
        validation.as_str(),
    ];
    let config = config("laplacian", &images, &more);
    let out = place.runs("runs");
    let heard = finish(&config, &out, None);
    assert!(heard.lines.iter().any(|l| l.contains("no better SSIM in 3 validations")));
    let run = out.join("laplacian");
    let number = |file: &str| -> u64 {
        std::fs::read_to_string(run.join("ckpt").join(file)).unwrap().trim().parse().unwrap()
    };
    let (best, latest) = (number("best"), number("latest"));
    assert!(latest == best + 6 && run.join(format!("ckpt/{best}")).exists(), "{best} {latest}");
    // It does not go on, either, and says why.
    let heard = finish(&config, &out, None);
    assert!(heard.lines.iter().any(|l| l.contains("no better SSIM in 3 validations")));
    assert_eq!(number("latest"), latest);
}

#[test]
fn a_split_keeps_validation_out_of_training() {
    let place = Place::new();
    let config = config(
        "laplacian",
        &place.images(),
        &["model.channels=8", "run.steps=1", "data.val.split=0.34"],
    );
    let heard = finish(&config, &place.runs("runs"), None);
    assert!(heard.lines.iter().any(|l| l.starts_with("2 training images")), "{:?}", heard.lines);
    assert!(heard.lines.iter().any(|l| l.contains("1 image in")), "{:?}", heard.lines);
}

#[test]
fn the_sheet_shows_the_states_of_the_chain() {
    let place = Place::new();
    let images = picture(&place);
    let validation = format!("data.val.paths=['{}']", images.display());
    let more = ["model.widths=[8, 16, 16]", "data.pad=0", "run.steps=1", validation.as_str()];
    let out = place.runs("runs");
    finish(&config("sr3-mnist", &images, &more), &out, None);
    let sheet = imaging::read(&out.join("sr3-mnist/val/1/sheet.png")).unwrap();
    // Truth, enlarged, low, result, and ten states, each 32 pixels shown in threes.
    assert_eq!(sheet.width, 8 + 14 * (96 + 8));
}

#[test]
fn what_enlarges_nothing_says_so() {
    let pairs = [("srk.config", "{\"kind\":\"gan\"}"), ("srk.arch", "gan")];
    let metadata = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let file = WeightsFile { metadata, ..WeightsFile::default() };
    let refused = |result: srk::error::Result<System>| match result {
        Ok(_) => panic!("was opened"),
        Err(error) => (error.exit_code(), error.to_string()),
    };
    let (code, text) = refused(System::from_file(&file, "digits.safetensors"));
    assert!(code == 3 && text.contains("digits.safetensors enlarges nothing"), "{text}");
    assert!(text.contains("srk sample"), "{text}");
    let place = Place::new();
    let (code, text) = refused(System::open(place.images().to_str().unwrap()));
    assert!(code == 3 && text.contains("is not a training run"), "{text}");
}

#[test]
fn plans_need_no_weights() {
    for name in System::embedded() {
        let (system, outline) = (System::open(name).unwrap(), System::outline(name).unwrap());
        assert_eq!((&outline.config, &outline.label), (&system.config, &system.label));
        let shapes = |system: &System| {
            let of = |p: &Parameter| (p.name().to_owned(), p.value().shape().to_vec());
            system.network.state().iter().map(of).collect::<Vec<_>>()
        };
        assert_eq!(shapes(&outline), shapes(&system));
        let planned = |system: System| {
            let system = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
            let settings =
                Settings { steps: None, seed: 0, tile: TileSize::Auto, memory: 500 << 20 };
            let plan = upscale::plan(&system, 4000, 3000, &settings).unwrap();
            (plan.memory, plan.tiles.len(), plan.steps, plan.rolled)
        };
        assert_eq!(planned(outline), planned(system));
    }
    assert!(System::outline("srk-x5").is_err());
}

#[test]
fn models_say_how_they_saw_jpegs_in_training() {
    let place = Place::new();
    let config = place.config(&["run.steps=1", "degrade.preset=photo", "degrade.deblock=0.25"]);
    finish(&config, &place.runs("runs"), None);
    let trained = System::open(place.runs("runs/tiny").to_str().unwrap()).unwrap();
    assert!((trained.config.deblock - 0.25).abs() < 1e-6, "{}", trained.config.deblock);
    assert!(System::open("srk-photo-x4").unwrap().config.deblock > 0.0);
    assert!(System::open("srk-x4").unwrap().config.deblock == 0.0);
}
