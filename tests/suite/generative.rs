//! GANs, VAE and DDPM: a few steps on made-up digits, resuming, sampling, refusals.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::command;
use srk::engine::device::{DType, Device};
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::{Error, Result};
use srk::imaging;
use srk::models::discriminator::Discriminator;
use srk::models::teaching::dcgan::Judge;
use srk::models::weights::WeightsFile;
use srk::training::log::Reporter;
use srk::training::recipes;
use srk::training::run::train;
use srk::training::tasks::grid;
use srk::training::tasks::teaching::Config;
use tempfile::TempDir;

const SIDE: usize = 28;
const CPU: (&Device, DType) = (&Device::Cpu, DType::F32);
const KINDS: [&str; 5] = ["gan", "dcgan", "wgan-gp", "vae", "ddpm"];

/// A folder with an idx file of white bars on black, and room for runs.
struct Place(TempDir);

struct Silent;

impl Reporter for Silent {
    fn line(&mut self, _: &str) {}
    fn warn(&mut self, text: &str) {
        panic!("{text}");
    }
}

impl Place {
    fn new(images: usize) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let size = |n: usize| u32::try_from(n).unwrap().to_be_bytes();
        let mut bytes = vec![0, 0, 8, 3];
        [images, SIDE, SIDE].into_iter().for_each(|n| bytes.extend(size(n)));
        for i in 0..images {
            let inside =
                |x: usize, y: usize| (6 + i % 4..12 + i % 4).contains(&x) && y / 4 != i % 3;
            bytes.extend((0..SIDE * SIDE).map(|p| 255 * u8::from(inside(p % SIDE, p / SIDE))));
        }
        fs::write(place.data(), bytes).unwrap();
        place
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("bars-idx3-ubyte")
    }

    fn out(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The recipe `kind` on this data, small, with `more` settings.
    fn settings(&self, kind: &str, more: &[&str]) -> Vec<String> {
        let mut all = vec![
            format!("data.paths=[{:?}]", self.data()),
            "data.batch=8".to_owned(),
            "sample.count=0".to_owned(),
            "log.every=1".to_owned(),
        ];
        if kind == "ddpm" {
            let small = ["model.network.base=8", "model.network.groups=4", "model.sample_steps=3"];
            all.extend(small.map(str::to_owned));
        }
        all.extend(more.iter().map(|&s| s.to_owned()));
        all
    }

    fn config(&self, kind: &str, more: &[&str]) -> Result<Config> {
        Config::read(recipes::find(kind).unwrap().text, kind, &self.settings(kind, more))
    }

    fn train(&self, out: &str, kind: &str, more: &[&str], until: Option<u64>) -> Result<()> {
        let stop = Arc::new(AtomicUsize::new(0));
        train(&self.config(kind, more)?, &self.out(out), until, CPU, &stop, &mut Silent)
    }
}

/// What was measured under `name`, by step.
fn measured(out: &Path, kind: &str, name: &str) -> Vec<f64> {
    let text = fs::read_to_string(out.join(kind).join("metrics.jsonl")).unwrap();
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()[name].as_f64();
    text.lines().filter_map(read).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_vae_and_a_ddpm_learn_a_few_images_by_heart() {
    let place = Place::new(4);
    for (kind, steps, least) in [("vae", 80, 0.4), ("ddpm", 60, 0.5)] {
        let steps = format!("run.steps={steps}");
        let more = [steps.as_str(), "optim.lr=3e-3", "optim.warmup=0"];
        place.train("heart", kind, &more, None).unwrap();
        let losses = measured(&place.out("heart"), kind, "loss");
        let (first, last) = (mean(&losses[..3]), mean(&losses[losses.len() - 10..]));
        assert!(last < least * first, "{kind}: the loss went from {first} to {last}");
    }
}

/// The mean squared distance of the mean of samples from the mean image, for weights in `file`.
fn distance(place: &Place, run: &Path, count: usize) -> f64 {
    let bytes = fs::read(place.data()).unwrap();
    let images = bytes[16..].chunks_exact(SIDE * SIDE);
    let n = images.len() as f64;
    let mut wanted = vec![0.0; SIDE * SIDE];
    for image in images {
        image.iter().zip(&mut wanted).for_each(|(&v, w)| *w += (f64::from(v) / 127.5 - 1.0) / n);
    }
    let system = grid::open(run, None, &Device::Cpu, &mut vec![]).unwrap().0;
    let drawn = system.draw(grid::noise(1), count).unwrap().to_f64_vec().unwrap();
    let mut found = vec![0.0; SIDE * SIDE];
    for image in drawn.chunks_exact(SIDE * SIDE) {
        image.iter().zip(&mut found).for_each(|(&v, f)| *f += v / count as f64);
    }
    mean(&found.iter().zip(&wanted).map(|(a, b)| (a - b).powi(2)).collect::<Vec<_>>())
}

/// Losses of GANs need not fall: what generators draw comes nearer to the data.
#[test]
fn generators_come_nearer_to_the_data() {
    let place = Place::new(12);
    for (kind, more, least) in [
        ("gan", ["run.steps=400", "data.batch=8", "optim.lr=1e-3"], 0.5),
        ("dcgan", ["run.steps=120", "data.batch=4", "optim.lr=2e-3"], 0.6),
        ("wgan-gp", ["run.steps=10", "data.batch=8", "optim.lr=1e-3"], 0.6),
    ] {
        let more = [&more[..], &["optim.betas=[0.5, 0.999]"]].concat();
        place.train("near", kind, &more, Some(1)).unwrap();
        let run = place.out("near").join(kind);
        let before = distance(&place, &run, 16);
        place.train("near", kind, &more, None).unwrap();
        let after = distance(&place, &run, 16);
        assert!(after < least * before, "{kind}: the distance went from {before} to {after}");
    }
}

/// The published judges miss the last six rows and columns; with padding they see every pixel.
#[test]
fn judges_see_the_whole_image_or_as_published() {
    for (whole, sees) in [(true, SIDE), (false, 22)] {
        let judge = Judge::new("disc", [2, 3], None, whole, 1);
        let mut tape = Tape::training();
        let image = tape.variable(Tensor::from_vec(vec![0.5f32; SIDE * SIDE], &[1, SIDE, SIDE, 1]));
        let scores = judge.forward(&mut tape, &image).unwrap();
        let ones = Tensor::from_vec(vec![1.0f32; scores.value().len()], scores.shape());
        let grads = tape.backward(&scores, ones).unwrap();
        let seen = grads.of(&image).unwrap().to_f32_vec().unwrap();
        for (i, slope) in seen.iter().enumerate() {
            let inside = i / SIDE < sees && i % SIDE < sees;
            assert_eq!(*slope != 0.0, inside, "whole {whole}, pixel {i}");
        }
    }
}

/// The penalty keeps the slopes of a critic near 1; without it they leave. With norms, as published, too.
#[test]
fn the_penalty_keeps_the_slopes_of_a_critic() {
    let place = Place::new(12);
    for norm in ["false", "true"] {
        let slopes = |weight: &str| {
            let more = [
                "run.steps=12",
                "optim.lr=3e-4",
                "optim.betas=[0.0, 0.9]",
                &format!("run.name={norm}{weight}"),
                &format!("model.critic_norm={norm}"),
                &format!("model.penalty={weight}"),
            ];
            place.train("slope", "wgan-gp", &more, None).unwrap();
            let run = format!("{norm}{weight}");
            let distances = measured(&place.out("slope"), &run, "distance");
            assert!(distances.iter().all(|d| d.is_finite()), "{distances:?}");
            let penalties = measured(&place.out("slope"), &run, "penalty");
            mean(&penalties[8..])
        };
        let (kept, free) = (slopes("10.0"), slopes("0.0"));
        assert!(kept < 0.3 && kept < 0.3 * free, "norm {norm}: {kept}, without it {free}");
    }
}

/// All files of the checkpoint of `step`.
fn files(run: &Path, step: u64) -> Vec<Vec<u8>> {
    let folder = run.join("ckpt").join(step.to_string());
    let names = ["model", "ema", "state"];
    names.map(|n| fs::read(folder.join(format!("{n}.safetensors"))).unwrap()).to_vec()
}

#[test]
fn a_resumed_run_is_bit_for_bit_one_that_went_on() {
    let place = Place::new(12);
    for kind in KINDS {
        let more = ["run.steps=4", "sample.count=4", "ema.decay=0.5", "optim.clip=1.0"];
        place.train("straight", kind, &more, None).unwrap();
        place.train("halved", kind, &more, Some(2)).unwrap();
        place.train("halved", kind, &more, None).unwrap();
        let runs = ["straight", "halved"].map(|name| place.out(name).join(kind));
        assert!(files(&runs[0], 4) == files(&runs[1], 4), "{kind}: the checkpoints differ");
        let [straight, halved] =
            runs.each_ref().map(|run| fs::read(run.join("samples/4.png")).unwrap());
        assert!(straight == halved, "{kind}: the grids differ");
        let losses = |out: &str, name: &str| measured(&place.out(out), kind, name);
        let name = if matches!(kind, "vae" | "ddpm") { "loss" } else { "loss_g" };
        assert_eq!(losses("straight", name).len(), 4);
        assert_eq!(losses("straight", name), losses("halved", name), "{kind}");
    }
}

/// In training norms take the batch's statistics; samples take the running ones, which have moved, so
/// that an image does not depend on those beside it.
#[test]
fn samples_take_the_running_statistics_of_norms() {
    let place = Place::new(12);
    for kind in ["dcgan", "wgan-gp"] {
        place.train("norms", kind, &["run.steps=2"], None).unwrap();
        let run = place.out("norms").join(kind);
        let file = WeightsFile::read(&run.join("ckpt/2/model.safetensors")).unwrap();
        let moved = &file.tensors["gen.0.1.running_mean"].1;
        assert!(moved.iter().any(|&v| v != 0.0), "{kind}: running statistics stand still");
        // Of the generator's own step, and of what it draws for each step of its judge.
        let passes = if kind == "dcgan" { 4.0 } else { 12.0 };
        assert_eq!(file.tensors["gen.0.1.num_batches_tracked"].1, [passes], "{kind}");
        let system = grid::open(&run, None, &Device::Cpu, &mut vec![]).unwrap().0;
        let noise = Stream::new(3, Purpose::Sampling, 0);
        let one = system.draw(noise, 1).unwrap().to_f32_vec().unwrap();
        let four = system.draw(noise, 4).unwrap().to_f32_vec().unwrap();
        assert!(one == four[..SIDE * SIDE], "{kind}: an image depends on its neighbours");
        assert!(four[..SIDE * SIDE] != four[SIDE * SIDE..2 * SIDE * SIDE]);
    }
}

/// Exit code, and both outputs.
fn srk(args: &[&str]) -> (i32, String) {
    let run = command::srk(Path::new(env!("CARGO_MANIFEST_DIR")), args);
    (run.code, run.out + &run.err)
}

#[test]
fn the_command_line_trains_and_samples() {
    let place = Place::new(12);
    for kind in KINDS {
        let out = place.out("runs");
        let mut args = vec!["train", "--recipe", kind, "--out", out.to_str().unwrap()];
        let settings = place.settings(kind, &["run.steps=1", "sample.count=5"]);
        settings.iter().for_each(|s| args.extend(["--set", s]));
        let (code, text) = srk(&args);
        assert_eq!(code, 0, "{kind}: {text}");
        let run = out.join(kind);
        let side = if kind == "vae" { 32 } else { SIDE };
        let drawn = imaging::read(&run.join("samples/1.png")).unwrap();
        // Five images: two rows of three, twice enlarged, two pixels between.
        assert_eq!((drawn.width, drawn.height), (3 * (2 * side + 2) + 2, 2 * (2 * side + 2) + 2));
        let draw = |to: &str, seed: &str| {
            let to = place.out(to);
            let (to, run) = (to.to_str().unwrap(), run.to_str().unwrap());
            let args = ["sample", run, "-o", to, "--count", "4", "--seed", seed, "--zoom", "1"];
            let (code, text) = srk(&[&args[..], &["--overwrite"]].concat());
            assert_eq!(code, 0, "{kind}: {text}");
            fs::read(to).unwrap()
        };
        let (a, again, b) = (draw("a.png", "1"), draw("a.png", "1"), draw("b.png", "2"));
        assert!(a == again, "{kind}: a seed draws two pictures");
        assert!(a != b, "{kind}: two seeds draw one picture");
        let drawn = imaging::read(&place.out("a.png")).unwrap();
        assert_eq!((drawn.width, drawn.height), (2 * (side + 2) + 2, 2 * (side + 2) + 2));
    }
}

#[test]
fn a_signal_saves_the_step_and_ends_the_run() {
    let place = Place::new(12);
    let stop = Arc::new(AtomicUsize::new(0));
    stop.store(2, Ordering::Relaxed);
    let config = place.config("gan", &[]).unwrap();
    let error = train(&config, &place.out("stop"), None, CPU, &stop, &mut Silent).unwrap_err();
    assert_eq!(error.exit_code(), 130);
    assert!(place.out("stop/gan/ckpt/1/model.safetensors").is_file(), "{error}");
}

#[test]
fn what_cannot_be_is_refused() {
    let place = Place::new(2);
    let refused = |kind: &str, more: &[&str], words: &str| {
        let error = place.train("refused", kind, more, Some(1)).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    refused("gan", &["model.latnet=3"], "latnet");
    refused("gan", &["optim.rl=3"], "unknown key optim.rl");
    refused("dcgan", &["model.latent=0"], "model.latent must lie in 1..=65536");
    refused("wgan-gp", &["model.critic_steps=0"], "model.critic_steps must be at least 1");
    refused("ddpm", &["model.diffusion.prediction=x0"], "must be epsilon");
    refused("ddpm", &["model.network.groups=5"], "must divide");
    refused("ddpm", &["model.diffusion.process.kind=residual-ddpm"], "must be ddpm");
    refused("ddpm", &["model.network.multipliers=[1, 2, 2, 2]"], "one to three numbers");
    refused("vae", &["optim.accumulate=2"], "optim.accumulate must be 1");
    let large = place.out("large.png");
    imaging::write(
        &large,
        &imaging::Image::from_u8(40, 20, imaging::Color::Gray, vec![0; 800]).unwrap(),
        imaging::EncodeOptions::default(),
    )
    .unwrap();
    let paths = format!("data.paths=[{large:?}]");
    refused("gan", &[&paths], "it has 40 x 20 pixels, the network draws 28 x 28");
    place.train("refused", "gan", &["run.steps=1"], None).unwrap();
    refused("gan", &["run.steps=1", "model.latent=3"], "another configuration");

    let (code, text) = srk(&["sample", "nowhere.safetensors", "-o", "x.png"]);
    assert_eq!(code, 3, "{text}");
    let weights = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/srk-x4.safetensors");
    let (code, text) = srk(&["sample", weights, "-o", "x.png"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("of no such system"), "{text}");
    let run = place.out("refused/gan");
    let run = run.to_str().unwrap();
    let (code, text) = srk(&["sample", run, "-o", "x.png", "--steps", "3"]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("only ddpm draws in steps"), "{text}");
}
