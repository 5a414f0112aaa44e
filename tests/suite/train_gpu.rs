//! Training on a GPU: the CPU's numbers, resuming, overflow, and a device that is full.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::path::Path;

use common::training::{Place, assert_same, finish, go_on, losses};
use cuda_emulation::{Schedule, Variant};
use srk::engine::device::{DType, Device};
use srk::models::weights::WeightsFile;
use srk::training::config::Config;

/// Runs the tiny training on a GPU.
fn finish_on_gpu(dtype: DType, config: &Config, out: &Path, until: Option<u64>) {
    let device = Device::Cuda(common::fast_gpu());
    go_on((&device, dtype), config, out, until).0.unwrap();
}

/// The relative L2 difference between the weights of two runs at `step`.
fn weights_differ_by(a: &Path, b: &Path, step: u64) -> f64 {
    let read = |out: &Path| {
        let path = out.join(format!("tiny/ckpt/{step}/model.safetensors"));
        WeightsFile::read(&path).unwrap().tensors.into_values().flat_map(|(_, v)| v)
    };
    let (mut difference, mut size) = (0.0, 0.0);
    for (a, b) in read(a).zip(read(b)) {
        difference += f64::from(a - b).powi(2);
        size += f64::from(b).powi(2);
    }
    (difference / size).sqrt()
}

/// The first step as written, the others replayed from a recording.
#[test]
fn a_gpu_trains_as_the_cpu_does() {
    let place = Place::new();
    let (cpu, gpu) = (place.runs("cpu"), place.runs("gpu"));
    let config = place.config(&[]);
    finish(&config, &cpu, None);
    finish_on_gpu(DType::F32, &config, &gpu, None);
    for ((step, cpu), (_, gpu)) in losses(&cpu).into_iter().zip(losses(&gpu)) {
        assert!((cpu - gpu).abs() < 1e-4 * cpu, "step {step}: loss {gpu}, on the CPU {cpu}");
    }
    // Adam's first steps have the size of the rate whatever the size of the gradient.
    let difference = weights_differ_by(&gpu, &cpu, 6);
    assert!(difference < 1e-3, "the weights differ by {difference:.1e}");
}

/// Memory that is used again holds no number that anybody may know: the same bits with it, of weights and of what validation
/// says.
#[test]
fn memory_that_is_used_again_changes_nothing() {
    let place = Place::new();
    let val = place.val();
    let config = place.config(&["optim.accumulate=2", &val, "val.every=2"]);
    let outs = [place.runs("fresh"), place.runs("again")];
    let gpus = [common::fast_gpu(), common::emulated::gpu_that_recycles()];
    for (out, gpu) in outs.iter().zip(gpus) {
        go_on((&Device::Cuda(gpu), DType::BF16), &config, out, None).0.unwrap();
    }
    assert_same(&outs[0], &outs[1], 6);
    let said = outs.each_ref().map(|out| validated(out));
    assert_eq!((said[0].len(), &said[0]), (3, &said[1]));
}

/// What validations of a run said, with their steps.
fn validated(out: &Path) -> Vec<(u64, f64)> {
    let text = std::fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    let number = |line: &str| {
        let values: serde_json::Value = serde_json::from_str(line).unwrap();
        Some((values["step"].as_u64()?, values["val_psnr_y"].as_f64()?))
    };
    text.lines().filter_map(number).collect()
}

/// Where the stream does not wait for the batch that was uploaded ahead, there is no number: so batches are, and tests
/// would see a wait that is missing.
#[test]
fn batches_are_uploaded_ahead_and_waited_for() {
    let place = Place::new();
    let device = Device::Cuda(common::emulated::gpu_that_does_not_wait());
    let went = go_on((&device, DType::F32), &place.config(&[]), &place.runs("gpu"), None).0;
    assert_eq!(went.unwrap_err().exit_code(), 6);
}

/// What the emulated GPU makes of uploads beside its stream.
#[test]
fn uploads_beside_the_stream_come_when_it_waits_for_them() {
    let gpu = common::emulated::gpu(Variant::Plain, Schedule::ALL[0]);
    let (driver, uploads) = (gpu.driver(), gpu.driver().uploads().unwrap().unwrap());
    let (buffer, other) = (gpu.allocate(16).unwrap(), gpu.allocate(16).unwrap());
    let at = buffer.pointer();
    // SAFETY: both buffers have 16 bytes and are alive.
    unsafe {
        let bytes = || {
            let mut bytes = [0u8; 16];
            driver.download(at, &mut bytes).unwrap();
            bytes
        };
        driver.fill(at, 0, 16).unwrap();
        uploads.follow().unwrap();
        uploads.upload(at, &[1; 16]).unwrap();
        assert_eq!(bytes(), [0xff; 16]);
        uploads.join().unwrap();
        assert_eq!(bytes(), [1; 16]);
        driver.copy(other.pointer(), at, 16).unwrap();
        let race = uploads.upload(at, &[2; 16]).unwrap_err().to_string();
        assert!(race.contains("race"), "{race}");
        uploads.follow().unwrap();
        uploads.upload(at, &[2; 16]).unwrap();
    }
}

#[test]
fn half_precision_learns_the_same_within_its_precision() {
    let place = Place::new();
    let cpu = place.runs("cpu");
    let config = place.config(&[]);
    finish(&config, &cpu, None);
    for (name, dtype, tol) in [("bf16", DType::BF16, 0.05), ("f16", DType::F16, 0.01)] {
        let gpu = place.runs(name);
        finish_on_gpu(dtype, &config, &gpu, None);
        for ((step, cpu), (_, gpu)) in losses(&cpu).into_iter().zip(losses(&gpu)) {
            assert!((cpu - gpu).abs() < tol * cpu, "{name} step {step}: {gpu}, on the CPU {cpu}");
        }
    }
}

#[test]
fn a_run_resumed_on_a_gpu_repeats_the_bits() {
    let place = Place::new();
    let config = place.config(&[]);
    for (name, dtype) in [("f32", DType::F32), ("bf16", DType::BF16), ("f16", DType::F16)] {
        let straight = place.runs(&format!("straight-{name}"));
        let resumed = place.runs(&format!("resumed-{name}"));
        finish_on_gpu(dtype, &config, &straight, None);
        finish_on_gpu(dtype, &config, &resumed, Some(4));
        finish_on_gpu(dtype, &config, &resumed, None);
        assert_same(&straight, &resumed, 6);
    }
}

#[test]
fn parts_on_a_gpu_learn_as_on_the_cpu() {
    let place = Place::new();
    let (cpu, gpu) = (place.runs("cpu"), place.runs("gpu"));
    let config = place.config(&["optim.accumulate=2", "run.steps=2"]);
    finish(&config, &cpu, None);
    finish_on_gpu(DType::F32, &config, &gpu, None);
    let difference = weights_differ_by(&gpu, &cpu, 2);
    assert!(difference < 1e-3, "the weights differ by {difference:.1e}");
}

/// Norms whose running statistics every step moves: launched, not recorded.
#[test]
fn running_statistics_move_on_a_gpu_as_on_the_cpu() {
    let place = Place::new();
    let text = place.text();
    let (before, rest) = text.split_once("kind = \"dual-domain-grid\"").unwrap();
    let rest = &rest[rest.find("[diffusion]").unwrap()..];
    let model = "kind = \"biggan-unet\"\ntime_dim = 8\nwidths = [8, 16, 16]\n";
    let config = Config::read(&format!("{before}{model}{rest}"), "norms", &[]).unwrap();
    let (cpu, gpu, resumed) = (place.runs("cpu"), place.runs("gpu"), place.runs("resumed"));
    finish(&config, &cpu, None);
    finish_on_gpu(DType::F32, &config, &gpu, None);
    let difference = weights_differ_by(&gpu, &cpu, 6);
    assert!(difference < 1e-3, "weights and statistics differ by {difference:.1e}");
    for until in [Some(3), None] {
        finish_on_gpu(DType::F32, &config, &resumed, until);
    }
    assert_same(&gpu, &resumed, 6);
}

/// A batch that does not fit: the message names one that does, and that one trains.
#[test]
fn a_full_gpu_says_which_batch_would_fit() {
    let place = Place::new();
    let fits = |bytes: usize, batch: usize, out: &str| {
        let gpu = common::emulated::gpu_of(bytes);
        let config = place.config(&[&format!("data.train.batch={batch}"), "run.steps=1"]);
        go_on((&Device::Cuda(gpu), DType::F32), &config, &place.runs(out), None).0
    };
    let error = fits(1 << 20, 16, "full").unwrap_err();
    assert_eq!(error.exit_code(), 5, "{error}");
    let text = error.to_string();
    let named = text.split("data.train.batch=").nth(1).unwrap().split(' ').next().unwrap();
    fits(1 << 20, named.parse().unwrap(), "smaller").unwrap();
}

/// Blocks that run again on the way back learn the same: gradients are the same sums in another order.
#[test]
fn recomputing_learns_the_same() {
    let place = Place::new();
    let (kept, again, gpu) = (place.runs("kept"), place.runs("again"), place.runs("gpu"));
    finish(&place.config(&[]), &kept, None);
    let config = place.config(&["optim.recompute=true"]);
    finish(&config, &again, None);
    finish_on_gpu(DType::F32, &config, &gpu, None);
    for (name, run) in [("the CPU", &again), ("a GPU", &gpu)] {
        let difference = weights_differ_by(run, &kept, 6);
        assert!(difference < 1e-3, "the weights differ by {difference:.1e} on {name}");
    }
}

/// A scale far too large: steps overflow, are repeated with smaller ones, and learn the same.
#[test]
fn gradients_that_overflow_halve_the_scale_of_the_loss() {
    let place = Place::new();
    let (plain, steep) = (place.runs("plain"), place.runs("steep"));
    let config = place.config(&["run.steps=4"]);
    finish_on_gpu(DType::F16, &config, &plain, Some(2));
    finish_on_gpu(DType::F16, &config, &steep, Some(2));
    let state = steep.join("tiny/ckpt/2/state.safetensors");
    let mut file = WeightsFile::read(&state).unwrap();
    assert_eq!(file.metadata["srk.loss_scale"], "65536 2");
    file.metadata.insert("srk.loss_scale".into(), "1e12 0".into());
    file.write(&state, DType::F32).unwrap();
    finish_on_gpu(DType::F16, &config, &plain, None);
    finish_on_gpu(DType::F16, &config, &steep, None);
    let file = WeightsFile::read(&steep.join("tiny/ckpt/4/state.safetensors")).unwrap();
    let scale: f64 = file.metadata["srk.loss_scale"].split(' ').next().unwrap().parse().unwrap();
    assert!(scale < 1e9, "the scale is still {scale:e}");
    assert!(weights_differ_by(&steep, &plain, 4) < 1e-3);
}

/// Weights that overflow: steps left out, or the checkpoint's weights taken again, as on the CPU.
#[test]
fn steps_that_are_not_finite_are_left_out_or_taken_back_on_a_gpu() {
    let place = Place::new();
    let go_wild = |policy: &str| {
        let out = place.runs(&policy[13..]);
        finish_on_gpu(DType::F32, &place.config(&[]), &out, Some(4));
        let config = place.config(&["optim.lr=1e38", "run.steps=12", policy]);
        let device = Device::Cuda(common::fast_gpu());
        go_on((&device, DType::F32), &config, &out, None)
    };
    let (result, _) = go_wild("optim.on_nan=stop");
    assert_eq!(
        (result.as_ref().unwrap_err().exit_code(), result.unwrap_err().code()),
        (6, "not_finite")
    );
    let (result, _) = go_wild("optim.on_nan=skip");
    assert!(result.unwrap_err().to_string().contains("in a row"));
    let (result, heard) = go_wild("optim.on_nan=rollback");
    result.unwrap();
    let warned = |w: &String| w.contains("weights are those of step 4");
    assert!(heard.warnings.iter().any(warned), "{:?}", heard.warnings);
}

/// A GAN and a stage against a discriminator, stopped and gone on with: the moments of both networks go on.
#[test]
fn two_networks_resumed_on_a_gpu_repeat_the_bits() {
    let place = Place::new();
    let text = format!(
        "{}[adversarial]\ndiscriminator = {{ kind = \"patch\", base = 4 }}\nafter = 2\nlr = 1e-4\nweight = 1e-3\nfeatures = 0.0\n",
        place.text()
    );
    let sets = ["diffusion.prediction=x0".to_owned()];
    let config = Config::read(&text, "adversarial", &sets).unwrap();
    for dtype in [DType::F32, DType::F16] {
        let [straight, resumed] =
            ["straight", "resumed"].map(|n| place.runs(&format!("{n}-{dtype:?}")));
        finish_on_gpu(dtype, &config, &straight, None);
        for until in [Some(4), None] {
            finish_on_gpu(dtype, &config, &resumed, until);
        }
        assert_same(&straight, &resumed, 6);
    }
}
