//! A training so small that a step takes milliseconds, and what it leaves behind.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use srk::engine::device::{DType, Device};
use srk::error::Result;
use srk::imaging::{self, Color, EncodeOptions, Image};
use srk::models::weights::WeightsFile;
use srk::training::config::Config;
use srk::training::log::Reporter;
use srk::training::run::train;
use tempfile::TempDir;

/// A network and crops so small that a step takes milliseconds.
pub(crate) const TINY: &str = r#"
[run]
name = "tiny"
seed = 7
steps = 6
[model]
kind = "dual-domain-grid"
channels = 8
blocks = 1
frequency_channels = 4
wavelet_channels = 4
time_dim = 8
[diffusion]
process = { kind = "resshift", steps = 4, kappa = 0.5, eta = { kind = "official", min_noise_level = 0.2, end = 0.99, power = 0.3 } }
[data.train]
paths = ["IMAGES"]
crop = 32
batch = 2
[optim]
lr = 1e-3
schedule = "cosine"
warmup = 2
[ema]
decay = 0.9
[val]
every = 0
[ckpt]
every = 2
keep = 2
[log]
every = 1
"#;

/// A folder with images of smooth waves and edges, and room for runs.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::write(place.recipe(), place.text()).unwrap();
        fs::create_dir(place.images()).unwrap();
        for i in 0..3 {
            write_image(&place.images().join(format!("{i}.png")), 48, 40 + 8 * i, i);
        }
        place
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.0.path().join("images")
    }

    pub(crate) fn runs(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn recipe(&self) -> PathBuf {
        self.0.path().join("tiny.toml")
    }

    pub(crate) fn text(&self) -> String {
        TINY.replace("IMAGES", &self.images().display().to_string().replace('\\', "/"))
    }

    /// An override that validates on the training images.
    pub(crate) fn val(&self) -> String {
        format!("data.val.paths=[{:?}]", self.images().display().to_string())
    }

    pub(crate) fn config(&self, overrides: &[&str]) -> Config {
        self.try_config(overrides).unwrap()
    }

    pub(crate) fn try_config(&self, overrides: &[&str]) -> Result<Config> {
        let overrides: Vec<String> = overrides.iter().map(|&s| s.to_owned()).collect();
        Config::read(&self.text(), "tiny.toml", &overrides)
    }

    /// `srk train` on this place's configuration.
    pub(crate) fn command(&self, out: &Path, overrides: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
        command.arg("train").arg(self.recipe()).arg("--out").arg(out);
        for set in overrides {
            command.args(["--set", set]);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

pub(crate) fn write_image(path: &Path, width: usize, height: usize, seed: usize) {
    let pixel = |i: usize| {
        let (x, y) = (i % width, i / width);
        let wave = ((x * (seed + 2)) as f32 * 0.2).sin() + ((y * (seed + 1)) as f32 * 0.15).cos();
        let edge = if (x / 7 + y / 9) % 2 == 0 { 0.25 } else { -0.25 };
        let v = 0.5 + 0.2 * wave + 0.5 * edge;
        [v, v * 0.8, 1.0 - v]
    };
    let values: Vec<f32> = (0..width * height).flat_map(pixel).collect();
    let image = Image::from_rgb_f32(width, height, &values).unwrap();
    assert_eq!(image.color, Color::Rgb);
    imaging::write(path, &image, EncodeOptions::default()).unwrap();
}

/// Keeps what a run says.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) lines: Vec<String>,
    pub(crate) warnings: Vec<String>,
}

impl Reporter for Heard {
    fn line(&mut self, text: &str) {
        self.lines.push(text.to_owned());
    }

    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }
}

pub(crate) fn go(config: &Config, out: &Path, until: Option<u64>) -> (Result<()>, Heard) {
    go_on((&Device::Cpu, DType::F32), config, out, until)
}

pub(crate) fn go_on(
    place: (&Device, DType),
    config: &Config,
    out: &Path,
    until: Option<u64>,
) -> (Result<()>, Heard) {
    let mut heard = Heard::default();
    let stop = Arc::new(AtomicUsize::new(0));
    let result = train(config, out, until, place, &stop, &mut heard);
    (result, heard)
}

pub(crate) fn finish(config: &Config, out: &Path, until: Option<u64>) -> Heard {
    let (result, heard) = go(config, out, until);
    result.unwrap();
    heard
}

/// Every number of the three files of a checkpoint, as bits, under its name.
pub(crate) fn checkpoint(out: &Path, step: u64) -> Vec<(String, Vec<u32>)> {
    let folder = out.join("tiny/ckpt").join(step.to_string());
    let read = |name: &str| -> Vec<(String, Vec<u32>)> {
        let file = WeightsFile::read(&folder.join(name)).unwrap();
        assert_eq!(file.metadata["srk.step"], step.to_string());
        let bits = |v: &Vec<f32>| v.iter().map(|v| v.to_bits()).collect();
        file.tensors.iter().map(|(key, (_, v))| (format!("{name} {key}"), bits(v))).collect()
    };
    ["model.safetensors", "ema.safetensors", "state.safetensors"]
        .into_iter()
        .flat_map(read)
        .collect()
}

/// Fails with the names of the tensors that differ.
pub(crate) fn assert_same(a: &Path, b: &Path, step: u64) {
    let (a, b) = (checkpoint(a, step), checkpoint(b, step));
    assert_eq!(a.len(), b.len());
    let differ: Vec<&str> =
        a.iter().zip(&b).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_str()).collect();
    assert!(
        differ.is_empty(),
        "step {step}: {} of {} differ, first {}",
        differ.len(),
        a.len(),
        differ[0]
    );
}

pub(crate) fn losses(out: &Path) -> Vec<(u64, f64)> {
    let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    let read = |line: &str| {
        let v: serde_json::Value = serde_json::from_str(line).unwrap();
        Some((v["step"].as_u64()?, v["loss"].as_f64()?))
    };
    text.lines().filter_map(read).collect()
}
