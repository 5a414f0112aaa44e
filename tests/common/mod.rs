//! What several test programs share: a GPU to test on.
//!
//! Tests of kernels run on the emulated GPU, or with `SRK_TEST_DEVICE=cuda` on a real one.
#![allow(dead_code, clippy::unwrap_used)]
pub(crate) mod beside;
pub(crate) mod command;
pub(crate) mod emulated;
pub(crate) mod features;
pub(crate) mod joined;
pub(crate) mod torch_file;
pub(crate) mod training;

use cuda_emulation::{Schedule, Variant};
use srk::engine::cuda::Gpu;

/// The GPUs that a test of a kernel runs on: one for each way in which blocks, warps and copies may
/// be ordered, with every access checked; or the real one.
pub(crate) fn checked_gpus() -> Vec<Gpu> {
    match real() {
        Some(gpu) => vec![gpu],
        None => Schedule::ALL.iter().map(|&s| emulated::gpu(Variant::Checked, s)).collect(),
    }
}

/// The GPU for work that the checks would make too slow.
pub(crate) fn fast_gpu() -> Gpu {
    real().unwrap_or_else(|| emulated::gpu(Variant::Plain, Schedule::ALL[0]))
}

fn real() -> Option<Gpu> {
    match std::env::var("SRK_TEST_DEVICE").as_deref() {
        Ok("cuda") => Some(srk::engine::cuda::open(0).unwrap_or_else(|e| panic!("{e}"))),
        _ => None,
    }
}
