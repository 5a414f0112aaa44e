//! Every kernel of the registry against the CPU, in f32, f16 and bf16, forward and backward.
//!
//! Without a GPU the kernels run on the emulated one: every access checked, in four orders of blocks,
//! warps and asynchronous copies, which must agree bit for bit. `SRK_OP=conv2d` picks one op.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use crate::common;

use srk::engine::device::{DType, Device};
use srk::engine::op_case::OpCase;

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

fn cases() -> Vec<OpCase> {
    let wanted = std::env::var("SRK_OP").ok();
    let chosen = |case: &OpCase| wanted.as_ref().is_none_or(|name| name == case.name());
    let cases = srk::ops::all().into_iter().filter(|case| !case.timed_only && chosen(case));
    let cases: Vec<_> = cases.collect();
    assert!(!cases.is_empty(), "no case of SRK_OP={wanted:?}");
    cases
}

/// Compares all cases at `dtype`; names every one that fails.
fn check(dtype: DType) {
    let gpus = common::checked_gpus();
    let mut failed = vec![];
    for case in cases() {
        let wanted = case.reference(dtype).unwrap();
        let first = match case.outcome(&Device::Cuda(gpus[0].clone()), dtype) {
            Ok(got) => got,
            Err(e) => {
                failed.push(format!("{case:?}: {e}"));
                continue;
            }
        };
        let error = first.error_against(&wanted);
        println!("{error:.1e}  {dtype:?}  {case:?}");
        if error.is_nan() || error > case.kernel_tol(dtype) {
            failed.push(format!("{case:?}: off by {error:.1e} of {:.1e}", case.kernel_tol(dtype)));
        }
        for gpu in &gpus[1..] {
            match case.outcome(&Device::Cuda(gpu.clone()), dtype) {
                Ok(other) if other.bits() == first.bits() => {}
                Ok(_) => failed.push(format!("{case:?}: bits depend on the order")),
                Err(e) => failed.push(format!("{case:?}: {e}")),
            }
        }
    }
    assert!(failed.is_empty(), "{dtype:?}: {} cases fail:\n{}", failed.len(), failed.join("\n"));
}

#[test]
fn f32_kernels_agree_with_the_cpu() {
    check(DTYPES[0]);
}

#[test]
fn f16_kernels_agree_with_the_cpu() {
    check(DTYPES[1]);
}

#[test]
fn bf16_kernels_agree_with_the_cpu() {
    check(DTYPES[2]);
}
