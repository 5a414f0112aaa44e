//! Every recipe trains on a GPU: three small steps on the emulated one are those of the CPU. The table in docs/gpu.md
//! is written from what they launch: `SRK_WRITE=1 cargo test --test suite recipes_gpu::`.
#![allow(clippy::unwrap_used)]
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use crate::common;
use crate::common::features::{made_up, made_up_dists};
use crate::common::training::{Heard, Place, write_image};
use crate::launches::{Asked, Counting};
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::error::Result;
use srk::models::Module;
use srk::models::perceptual::backbone::Architecture;
use srk::models::vgg19::Vgg19;
use srk::models::weights::WeightsFile;
use srk::training::config::Config;
use srk::training::job::Job;
use srk::training::log::Reporter;
use srk::training::run::train;
use srk::training::tasks::grid;
use srk::training::{jobs, recipes};

const DOC: &str = "docs/gpu.md";
pub(super) const STEPS: u64 = 3;

/// The side of crops, at least: as few as the networks allow.
const CROP: usize = 32;

/// What makes a recipe small enough for a test; depth stays, and what it does.
fn small(recipe: &str) -> &'static [&'static str] {
    match recipe {
        "wgan-gp" => &["model.critic_steps=2"],
        "ddpm" => &["model.network.base=8", "model.network.groups=4", "model.sample_steps=2"],
        "srgan" => &[
            "model.base=8",
            "model.blocks=2",
            "adversarial.after=1",
            "adversarial.features=0.0",
            "adversarial.discriminator.base=4",
            "adversarial.discriminator.crop=32",
        ],
        "srddpm" => &[
            "model.base=8",
            "adversarial.after=1",
            "adversarial.features=0.0",
            "adversarial.discriminator.base=4",
        ],
        "dual-domain-grid" => &["model.channels=16", "model.frequency_channels=8"],
        "laplacian" => &["model.channels=16"],
        "rrdb" | "realesrgan" => &["model.base=8", "model.growth=4", "model.blocks=2"],
        "span" => &["model.channels=16"],
        "resshift-dual" | "resshift-experiment" | "sr3-div2k" => &["model.base=8"],
        "sr3-miniplaces" | "sr3-mnist" => &["model.widths=[4, 8, 8, 16, 16]", "model.time_dim=8"],
        "sr3" => &["model.base=8", "model.groups=8"],
        "srdiff" => &["model.base=16"],
        "resshift" | "resshift-4" => &[
            "model.base=32",
            "model.window=2",
            "data.train.crop=64",
            "model.autoencoder.channels=32",
            "model.autoencoder.codes=64",
            "optim.accumulate=2",
        ],
        "srk-x4" | "srk-photo-x4" => &[
            "model.channels=16",
            "model.blocks=2",
            "model.time_dim=8",
            "loss.lpips_vgg=0.0",
            "loss.dists=0.0",
            "loss.lpips_alex=0.0",
        ],
        "srk-photo-x4-first" => &["model.channels=16", "model.blocks=2", "model.time_dim=8"],
        _ => &[],
    }
}

/// A file with the weights of the part of `settings`' network that is not trained, if there is such a part.
fn frozen(place: &Place, text: &str, name: &str, settings: &[String]) -> Option<String> {
    let config = Config::read(text, name, settings).ok()?;
    let network = config.model.build(1);
    network.frozen_part()?;
    let path = place.runs("frozen.safetensors");
    let file = WeightsFile::of(network.buffers(), Default::default());
    let written = file.and_then(|file| file.write(&path, DType::F32));
    written.unwrap_or_else(|e| panic!("{name}: what is not trained: {e}"));
    Some(format!("run.frozen={path:?}"))
}

/// The recipe `name`, small, on the images of `place`.
pub(super) fn job(place: &Place, digits: &Path, name: &str, more: &[&str]) -> Box<dyn Job> {
    let text = recipes::find(name).unwrap_or_else(|e| panic!("{name}: {e}")).text;
    let teaches = text.contains("[data]\npaths");
    let mut settings: Vec<String> = match teaches {
        true => vec![
            format!("data.paths=[{digits:?}]"),
            "data.batch=2".to_owned(),
            "sample.count=0".to_owned(),
        ],
        false => {
            let config = Config::read(text, name, &[]);
            let scale = config.unwrap_or_else(|e| panic!("{name}: {e}")).model.scale();
            vec![
                format!("data.train.paths=[{:?}]", place.images()),
                "data.val.paths=[]".to_owned(),
                format!("data.train.crop={}", CROP.next_multiple_of(scale)),
                "data.train.batch=2".to_owned(),
            ]
        }
    };
    for i in 0..2 {
        once(&place.images().join(format!("large-{i}.png")), |path| write_image(path, 64, 64, i));
    }
    settings.extend([format!("run.steps={STEPS}"), "log.every=1".to_owned()]);
    settings.push("ckpt.every=0".to_owned());
    settings.extend(small(name).iter().chain(more).map(|&s| s.to_owned()));
    settings.extend(frozen(place, text, name, &settings));
    jobs::read(text, name, &settings).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Makes the file `path` unless it is there: of ranks in threads the first one makes it, while the others wait.
fn once(path: &Path, make: impl FnOnce(&Path)) {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock();
    if !path.exists() {
        make(path);
    }
}

/// Images of bars in an idx file.
pub(super) fn digits(place: &Place) -> std::path::PathBuf {
    let path = place.runs("bars-idx3-ubyte");
    let mut bytes = vec![0, 0, 8, 3];
    [6u32, 28, 28].into_iter().for_each(|n| bytes.extend(n.to_be_bytes()));
    for i in 0..6usize {
        let inside = |x: usize, y: usize| (6 + i..14 + i).contains(&x) && y / 4 != i;
        bytes.extend((0..28 * 28).map(|p| 255 * u8::from(inside(p % 28, p / 28))));
    }
    once(&path, |path| fs::write(path, bytes).unwrap());
    path
}

fn go(job: &dyn Job, out: &Path, device: &Device) -> Result<Heard> {
    let mut heard = Heard::default();
    let stop = Arc::new(AtomicUsize::new(0));
    train(job, out, None, (device, DType::F32), &stop, &mut heard)?;
    Ok(heard)
}

/// All numbers of the last checkpoint's `file`.
pub(crate) fn numbers(out: &Path, name: &str, file: &str) -> Vec<f32> {
    let path = out.join(name).join(format!("ckpt/{STEPS}/{file}.safetensors"));
    WeightsFile::read(&path).unwrap().tensors.into_values().flat_map(|(_, v)| v).collect()
}

/// The relative L2 difference of two lists.
pub(crate) fn apart(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f32| f64::from(v).powi(2);
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (difference / b.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
}

/// Three steps on the emulated GPU and on the CPU.
fn trains_alike(name: &str, more: &[&str]) {
    trained_alike(name, more);
}

/// The same, and the losses of each step, which see what of a batch was another one: weights hardly move in three steps.
fn sees_alike(name: &str, more: &[&str]) {
    let [cpu, gpu] = trained_alike(name, more);
    assert_eq!((cpu.len(), gpu.len()), (3, 3));
    for (cpu, gpu) in cpu.iter().zip(&gpu) {
        assert!((cpu - gpu).abs() < 1e-4 * cpu, "{name}: loss {gpu}, on the CPU {cpu}");
    }
}

/// The losses of steps on the CPU and on the emulated GPU, after which weights are the same.
fn trained_alike(name: &str, more: &[&str]) -> [Vec<f64>; 2] {
    let place = Place::new();
    let digits = digits(&place);
    let job = job(&place, &digits, name, more);
    let (cpu, gpu) = (place.runs("cpu"), place.runs("gpu"));
    go(&*job, &cpu, &Device::Cpu).unwrap_or_else(|e| panic!("{name} on the CPU: {e}"));
    let device = Device::Cuda(common::fast_gpu());
    go(&*job, &gpu, &device).unwrap_or_else(|e| panic!("{name} on a GPU: {e}"));
    // Adam's first steps have the size of the rate whatever the size of the gradient.
    for (file, most) in [("model", 2e-3), ("ema", 2e-3)] {
        let difference = apart(&numbers(&gpu, name, file), &numbers(&cpu, name, file));
        assert!(difference < most, "{name}: {file} differs by {difference:.1e}");
    }
    [cpu, gpu].map(|out| {
        let lines = fs::read_to_string(out.join(name).join("metrics.jsonl")).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter_map(|line: serde_json::Value| line["loss"].as_f64()).collect()
    })
}

#[test]
fn gans_train_on_a_gpu() {
    ["gan", "dcgan", "wgan-gp"].into_iter().for_each(|name| trains_alike(name, &[]));
}

#[test]
fn an_autoencoder_and_a_diffusion_of_digits_train_on_a_gpu() {
    ["vae", "ddpm"].into_iter().for_each(|name| trains_alike(name, &[]));
}

/// The stage without a discriminator, and the one with it.
#[test]
fn both_stages_against_a_discriminator_train_on_a_gpu() {
    let place = Place::new();
    let vgg = place.runs("vgg.safetensors");
    let features = WeightsFile::of(Vgg19::new(1).parameters(), Default::default()).unwrap();
    features.write(&vgg, DType::F32).unwrap();
    // Few of its layers: those below are the same code.
    let vgg = format!("adversarial.vgg={vgg:?}");
    trains_alike("srgan", &[&vgg, "adversarial.features=1.0", "adversarial.layer=2"]);
    trains_alike("srddpm", &[]);
}

/// What a trained system draws there is what it draws on the CPU.
#[test]
fn systems_draw_on_a_gpu_what_they_draw_on_the_cpu() {
    let place = Place::new();
    let digits = digits(&place);
    for name in ["gan", "dcgan", "wgan-gp", "vae", "ddpm"] {
        let out = place.runs("cpu");
        go(&*job(&place, &digits, name, &["run.steps=1"]), &out, &Device::Cpu).unwrap();
        let drawn = [Device::Cpu, Device::Cuda(common::fast_gpu())].map(|device| {
            let steps = (name == "ddpm").then_some(2);
            let system = grid::open(&out.join(name), steps, &device, &mut vec![]).unwrap().0;
            system.draw(grid::noise(5), 2).unwrap().to_f32_vec().unwrap()
        });
        let difference = apart(&drawn[1], &drawn[0]);
        assert!(difference < 1e-3, "{name}: pictures differ by {difference:.1e}");
    }
}

/// Sums of the gradients of several batches, norms with running statistics, and a network whose first call is one of its own.
#[test]
fn sums_running_statistics_and_first_calls_train_on_a_gpu() {
    trains_alike("srk-photo-x4-first", &[]);
    trains_alike("sr3-miniplaces", &["optim.accumulate=2"]);
}

/// States of the network's own.
#[test]
fn own_states_train_on_a_gpu() {
    sees_alike("srk-x4", &[]);
}

/// A part of each crop, at another place each time, by terms that take turns: the batches of a step go two ways, whose
/// gradients are added up.
#[test]
fn perceptual_terms_train_on_a_gpu() {
    let place = Place::new();
    let folder = place.runs("features");
    fs::create_dir_all(&folder).unwrap();
    made_up(&folder, "alex.safetensors", Architecture::AlexNet, 1);
    made_up(&folder, "vgg.safetensors", Architecture::Vgg16, 2);
    made_up_dists(&folder, "dists.safetensors");
    let features = format!("loss.features={folder:?}");
    let of = ["loss.lpips_alex=0.1", "loss.dists=0.5", "loss.perceptual_crop=31"];
    let more = [&of[..], &[&features, "optim.accumulate=2"]].concat();
    sees_alike("srk-x4", &more);
    // Both ways were met in the first step.
    assert_eq!(steps_of("srk-x4", &more).last().unwrap().launched, 0);
}

/// What makes a system of latents small, beside [`small`].
pub(super) const SHALLOW: [&str; 11] = [
    "data.train.batch=1",
    "model.multipliers=[1, 2]",
    "model.attention=[16, 8]",
    "model.image_size=16",
    "model.low_size=16",
    "model.mlp_ratio=1",
    "model.blocks=[1, 1]",
    "model.swin_channels=32",
    "model.depth=1",
    "model.autoencoder.multipliers=[1, 1, 1]",
    "model.autoencoder.blocks=1",
];

/// Latents are encoded where the network lies.
#[test]
fn latents_train_on_a_gpu() {
    trains_alike("resshift-4", &SHALLOW);
}

/// Asks the device after each step.
struct Asking<'a> {
    device: &'a mut dyn FnMut() -> Asked,
    steps: Vec<Asked>,
}

impl Reporter for Asking<'_> {
    fn line(&mut self, _: &str) {}
    fn warn(&mut self, _: &str) {}

    fn record(&mut self, event: &str, _: &[(&str, serde_json::Value)]) {
        if event == "step" {
            self.steps.push((self.device)());
        }
    }
}

/// As deep as the recipe is, and as many batches of a step: in two steps, of which the second is replayed.
fn deep(recipe: &str) -> &'static [&'static str] {
    match recipe {
        "wgan-gp" => &["run.steps=2", "model.critic_steps=5"],
        "srgan" => &["run.steps=2", "model.blocks=16", "adversarial.after=0"],
        "srddpm" => &["run.steps=2", "adversarial.after=0"],
        "rrdb" => &["run.steps=2", "model.blocks=8"],
        "realesrgan" => &["run.steps=2", "model.blocks=23"],
        "srk-x4" | "srk-photo-x4" | "srk-photo-x4-first" => &["run.steps=2", "model.blocks=6"],
        "resshift" | "resshift-4" => &["run.steps=2", "optim.accumulate=8", "data.train.batch=1"],
        _ => &["run.steps=2"],
    }
}

/// What each step of a recipe asks of a GPU.
pub(crate) fn steps_of(name: &str, more: &[&str]) -> Vec<Asked> {
    let place = Place::new();
    let digits = digits(&place);
    let job = job(&place, &digits, name, &[deep(name), more].concat());
    let driver = Counting::new();
    let mut asked = driver.asked();
    let device = Device::Cuda(Gpu::new(Arc::new(driver)));
    let mut asking = Asking { device: &mut asked, steps: Vec::new() };
    let stop = Arc::new(AtomicUsize::new(0));
    train(&*job, &place.runs("out"), None, (&device, DType::F32), &stop, &mut asking)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    asking.steps
}

/// How often the host waits in a run of `steps` steps for a GPU that has nothing else to do.
fn waits_of(name: &str, steps: u64, more: &[&str]) -> usize {
    let place = Place::new();
    let digits = digits(&place);
    let length = format!("run.steps={steps}");
    let more = [&["log.every=1000", &length], more].concat();
    let job = job(&place, &digits, name, &more);
    let driver = Counting::new();
    let mut asked = driver.asked();
    let device = Device::Cuda(Gpu::new(Arc::new(driver)));
    let stop = Arc::new(AtomicUsize::new(0));
    let silent = &mut Heard::default();
    train(&*job, &place.runs("out"), None, (&device, DType::F32), &stop, silent)
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    asked().waits
}

/// Once all ways are recorded, a step is issued while the one before still runs.
#[test]
fn the_host_waits_for_no_step() {
    for name in ["gan", "wgan-gp", "vae", "srgan", "srddpm", "srk-x4", "sr3-mnist"] {
        let waits = [16, 20].map(|steps| waits_of(name, steps, &[]));
        assert_eq!(waits[0], waits[1], "{name}: in 16 and 20 steps");
    }
    let summed = [16, 20].map(|steps| waits_of("sr3-mnist", steps, &["optim.accumulate=2"]));
    assert_eq!(summed[0], summed[1]);
    // A run that goes back must know at once.
    let back = [16, 20].map(|n| waits_of("sr3-mnist", n, &["optim.on_nan=rollback"]));
    assert_eq!(back[1] - back[0], 4);
}

/// The table of docs/gpu.md.
fn table() -> String {
    let mut lines =
        String::from("| recipe | launches of a step | of them recorded |\n|---|---|---|\n");
    for recipe in recipes::ALL {
        let steps = steps_of(recipe.name, &[]);
        // Of the last step: by then its way has been met.
        let Asked { launched, replayed, .. } = *steps.last().unwrap();
        let all = launched + replayed;
        let share =
            if replayed == 0 { "none".to_owned() } else { format!("{} %", 100 * replayed / all) };
        writeln!(lines, "| {} | {all} | {share} |", recipe.name).unwrap();
    }
    lines
}

#[test]
fn the_page_says_what_each_recipe_launches() {
    let (table, page) = (table(), fs::read_to_string(DOC).unwrap());
    let start = page.find("| recipe | launches of a step").unwrap_or(page.len());
    let end = page[start..].find("\n\n").map_or(page.len(), |at| start + at + 1);
    if std::env::var_os("SRK_WRITE").is_some() {
        fs::write(DOC, format!("{}{table}{}", &page[..start], &page[end..])).unwrap();
        return;
    }
    let help = "SRK_WRITE=1 cargo test --test suite recipes_gpu:: writes it anew";
    assert_eq!(table, page[start..end], "{help}");
}
