//! Convolutions whose depth groups of threads share, of sizes that are beyond the smallest blocks, on a GPU that grants a
//! block the shared memory of all of them. What the kernels do in small: `kernels/emulation/tests/conv2d.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]
use std::sync::Arc;

use cuda_emulation::{Schedule, Variant};
use srk::engine::cuda::Gpu;
use srk::engine::device::{DType, Device};
use srk::engine::op_case::relative_l2;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::ops::conv2d::{Conv2d, Then};

use crate::common::emulated::Emulated;

/// Pixels, and the least depth that is shared.
const MAP: [usize; 4] = [1, 24, 48, 512];

fn run(device: &Device, dtype: DType, outputs: usize) -> Vec<f64> {
    let mut tape = Tape::inference();
    let mut numbers = |shape: &[usize], by: usize| {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|i| (i * by % 29) as f32 / 16.0 - 0.875).collect();
        let tensor = Tensor::from_slice_on(device, &values, shape).unwrap();
        tape.input(tensor.cast(dtype).unwrap())
    };
    let (x, w) = (numbers(&MAP, 7), numbers(&[outputs, 1, 1, MAP[3]], 11));
    let bias = numbers(&[outputs], 3);
    let then = Then { bias: Some(&bias), ..Then::default() };
    let y = tape.conv2d_fused(&x, &w, Conv2d::same(1), then).unwrap();
    y.value().to_f64_vec().unwrap()
}

#[test]
fn larger_blocks_share_the_depth_of_larger_products() {
    let emulated = Emulated::new(Variant::Plain, Schedule::ALL[1]).with_shared_memory(227 << 10);
    let device = Device::Cuda(Gpu::new(Arc::new(emulated)));
    // By blocks of 64 x 64, 128 x 64 and 128 x 128.
    for outputs in [256, 512, 1024] {
        let got = run(&device, DType::F16, outputs);
        let error = relative_l2(&got, &run(&Device::Cpu, DType::F32, outputs));
        assert!(error < 1e-3, "{outputs} outputs: off by {error:.1e}");
    }
}
