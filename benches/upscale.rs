//! A whole upscale, and its start: what a user waits for.
//!
//! `cargo bench --bench upscale`. The 512x512 case takes minutes; its single runs are what counts.
#![allow(clippy::cast_possible_truncation)] // Sample values are below 256.
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use srk::diffusion::system::System;
use srk::engine::device::{DType, Device};
use srk::imaging::{Color, Image};
use srk::upscale::{Settings, TileSize, Upscaler, plan, upscale};

/// A picture with structure at every scale.
fn picture(side: usize) -> Image {
    let value = |i: usize| {
        let (x, y) = (i / 3 % side, i / 3 / side);
        ((x * x / 7 + y * y / 11 + x * y / 5 + i % 3 * 40) % 256) as u8
    };
    let samples = (0..side * side * 3).map(value).collect();
    Image::from_u8(side, side, Color::Rgb, samples).expect("the size fits")
}

fn whole(c: &mut Criterion) {
    let system = System::open("srk-x4").expect("the binary carries it");
    let system = Upscaler::new(system, &Device::Cpu, DType::F32).expect("the CPU is there");
    let mut group = c.benchmark_group("upscale");
    group.sample_size(10);
    group.bench_function("open the model", |b| {
        b.iter(|| black_box(System::open("srk-x4").expect("the binary carries it")));
    });
    for (side, steps) in [(128, 1), (128, 4), (512, 4)] {
        let image = picture(side);
        let settings =
            Settings { steps: Some(steps), seed: 42, tile: TileSize::Auto, memory: 1 << 30 };
        let plan = plan(&system, side, side, &settings).expect("it fits");
        group.bench_function(format!("{side}x{side} to {0}x{0}, {steps} steps", 4 * side), |b| {
            b.iter(|| upscale(&system, &image, &plan, 42, &mut |_, _| Ok(())).expect("it runs"));
        });
    }
    group.finish();
}

criterion_group!(benches, whole);
criterion_main!(benches);
