//! Convolutions whose depth groups of threads share, of sizes that are beyond the smallest blocks, on a GPU that grants a
//! block the shared memory of all of them. What the kernels do in small: `kernels/emulation/tests/conv2d.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]
use std::sync::Arc;

use cuda_emulation::{Schedule, Variant};
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::engine::op_case::relative_l2;
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::ops::conv2d::{Conv2d, Then};

use crate::common::emulated::Emulated;

/// Of 24 x 48 pixels with the least depth that is shared: one map, and two that are seen at twice their sides.
const MAPS: [(&[[usize; 4]], bool); 2] =
    [(&[[1, 24, 48, 512]], false), (&[[1, 12, 24, 296], [1, 12, 24, 216]], true)];

fn run(
    device: &Device,
    dtype: DType,
    (maps, doubled): (&[[usize; 4]], bool),
    outputs: usize,
) -> Vec<f64> {
    let mut tape = Tape::inference();
    let mut numbers = |shape: &[usize], by: usize| {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i * by % 29) as f32 / 16.0 - 0.875).collect();
        let tensor = Tensor::from_slice_on(device, &values, shape).unwrap();
        tape.input(tensor.cast(dtype).unwrap())
    };
    let maps: Vec<_> = maps.iter().map(|map| numbers(map, 7)).collect();
    let w = numbers(&[outputs, 1, 1, 512], 11);
    let bias = numbers(&[outputs], 3);
    let then = Then { bias: Some(&bias), ..Then::default() };
    let maps: Vec<&Var> = maps.iter().collect();
    let y = tape.conv2d_of_maps(&maps, doubled, &w, Conv2d::same(1), then).unwrap();
    y.value().to_f64_vec().unwrap()
}

#[test]
fn larger_blocks_share_the_depth_of_larger_products() {
    let emulated = Emulated::new(Variant::Plain, Schedule::ALL[1]).with_shared_memory(227 << 10);
    let device = Device::Cuda(Gpu::new(Arc::new(emulated)));
    // By blocks of 64 x 64, 128 x 64 and 128 x 128.
    for (maps, outputs) in MAPS.into_iter().flat_map(|m| [256, 512, 1024].map(|o| (m, o))) {
        let got = run(&device, DType::F16, maps, outputs);
        let error = relative_l2(&got, &run(&Device::Cpu, DType::F32, maps, outputs));
        assert!(error < 1e-3, "{maps:?}, {outputs} outputs: off by {error:.1e}");
    }
}
