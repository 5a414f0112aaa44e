//! `--precision bf16` on the CPU: the same bytes whatever computes them, near those of f32, and training that resumes.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::path::Path;

use common::command::{Bench, Run};
use common::training::Place;
use srk::imaging;
use srk::imaging::metrics::psnr_rgb;

/// The enlargement of a small picture.
#[track_caller]
fn enlarged(bench: &Bench, name: &str, variables: &[(&str, &str)], more: &[&str]) -> Vec<u8> {
    let fixed = ["in.png", name, "-m", "srk-x4", "--device", "cpu"];
    bench.with(variables, &[&fixed[..], more].concat()).worked();
    fs::read(bench.path(name)).unwrap()
}

#[test]
fn bf16_gives_the_same_bytes_whatever_computes_it_and_is_near_f32() {
    let bench = Bench::new();
    bench.photo("in.png", 37, 29);
    let bf16 = ["--precision", "bf16"];
    let tiles = enlarged(&bench, "tiles.ppm", &[], &bf16);
    for level in ["avx512", "avx2"] {
        let name = format!("{level}.ppm");
        assert!(enlarged(&bench, &name, &[("SRK_SIMD", level)], &bf16) == tiles, "{level}");
    }
    let cut = [&bf16[..], &["--tile", "16", "--threads", "1"]].concat();
    assert!(enlarged(&bench, "cut.ppm", &[], &cut) == tiles, "tiles and threads");
    assert!(enlarged(&bench, "f32.ppm", &[], &["--precision", "f32"]) != tiles, "f32 came out");
    assert_eq!(enlarged(&bench, "auto.ppm", &[], &[]), fs::read(bench.path("f32.ppm")).unwrap());
    let [a, b] = ["tiles.ppm", "f32.ppm"].map(|name| imaging::read(&bench.path(name)).unwrap());
    let near = psnr_rgb(&a, &b, 0).unwrap();
    assert!(near > 45.0, "{near} dB");
}

#[test]
fn what_is_computed_in_is_said_and_f16_is_refused() {
    let bench = Bench::new();
    bench.photo("in.png", 9, 8);
    let arguments = ["in.png", "out.png", "--device", "cpu", "--precision"];
    let with = |precision: &'static str| [&arguments[..], &[precision, "--json"]].concat();
    let start = bench.upscale(&with("bf16")).worked().event("start");
    assert_eq!(start["precision"], "bf16");
    bench.upscale(&with("f16")).failed(2, &["the CPU computes in f32 or bf16"]);
    // Without the tiles, the exact way round is slow.
    let said = |variables: &[(&str, &str)], name, precision| {
        let fixed = ["in.png", name, "--device", "cpu", "--precision", precision];
        bench.with(variables, &fixed).worked().err.contains("bf16 takes longer than f32")
    };
    assert!(said(&[("SRK_SIMD", "avx512")], "slow.png", "bf16"));
    assert!(!said(&[("SRK_SIMD", "avx512")], "fast.png", "f32"));
}

fn run(place: &Place, out: &Path, more: &[&str]) -> Run {
    let wide = ["model.channels=16", "optim.lr=1e-4"];
    let mut command = place.command(out, &wide);
    Run::of(command.args(["--device", "cpu"]).args(more).output().unwrap()).worked()
}

/// The checkpoint of the last step.
fn weights(out: &Path) -> Vec<u8> {
    fs::read(out.join("tiny/ckpt/6/ema.safetensors")).unwrap()
}

#[test]
fn a_training_in_bf16_resumes_to_the_same_bits_and_learns_what_f32_does() {
    let place = Place::new();
    let [whole, parts, single] = ["whole", "parts", "single"].map(|name| place.runs(name));
    let bf16 = ["--precision", "bf16"];
    let said = run(&place, &whole, &bf16);
    assert!(said.out.contains("on the CPU, products in bf16"), "{}", said.out);
    run(&place, &parts, &[&bf16[..], &["--until", "2"]].concat());
    run(&place, &parts, &bf16);
    assert!(weights(&whole) == weights(&parts), "a resumed run is another");
    run(&place, &single, &[]);
    assert!(weights(&whole) != weights(&single), "f32 came out");
    let loss = |out: &Path| -> f64 {
        let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        last["loss"].as_f64().unwrap()
    };
    let (narrow, wide) = (loss(&whole), loss(&single));
    assert!((narrow / wide - 1.0).abs() < 0.02, "{narrow} against {wide}");
}
