//! Changes of element type, forward and backward.
#![allow(clippy::unwrap_used)]
mod common;

use half::{bf16, f16};
use srk::engine::device::{DType, Device};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::Error;

/// Values that every type rounds its own way, as many as leave a tail.
fn values() -> Vec<f32> {
    (0..2061u16).map(|i| (f32::from(i) - 700.0) * 1.237_53).collect()
}

/// What `to` makes of `v`.
fn rounded(v: f32, to: DType) -> f32 {
    match to {
        DType::F16 => f16::from_f32(v).to_f32(),
        DType::BF16 => bf16::from_f32(v).to_f32(),
        DType::F32 | DType::F64 => v,
    }
}

/// `x` of type `from`, cast to `to`; and the gradient of 3 everywhere.
fn through(device: &Device, from: DType, to: DType) -> (Tensor, Tensor) {
    let values = values();
    let shape = [values.len()];
    let x = Tensor::from_slice_on(&Device::Cpu, &values, &shape).unwrap();
    let threes = Tensor::from_slice_on(&Device::Cpu, &vec![3.0; values.len()], &shape).unwrap();
    let mut tape = Tape::training();
    let x = tape.variable(x.to_device(device).unwrap().cast(from).unwrap());
    let y = tape.cast(&x, to).unwrap();
    let dy = threes.to_device(device).unwrap().cast(to).unwrap();
    let grads = tape.backward(&y, dy).unwrap();
    let dx = grads.of(&x).unwrap().try_clone().unwrap();
    (y.into_tensor().unwrap(), dx)
}

fn check(device: &Device, types: &[DType]) {
    for &from in types {
        for &to in types {
            let (y, dx) = through(device, from, to);
            assert_eq!((y.dtype(), dx.dtype()), (to, from));
            let wanted: Vec<f32> =
                values().into_iter().map(|v| rounded(rounded(v, from), to)).collect();
            assert!(y.to_f32_vec().unwrap() == wanted, "{from:?} to {to:?}");
            assert!(dx.to_f32_vec().unwrap().iter().all(|&v| v == 3.0), "{from:?} to {to:?}");
        }
    }
}

#[test]
fn the_cpu_casts_between_its_types() {
    check(&Device::Cpu, &[DType::F32, DType::F64]);
}

#[test]
fn a_gpu_casts_between_its_types() {
    for gpu in common::checked_gpus() {
        check(&Device::Cuda(gpu), &[DType::F32, DType::F16, DType::BF16]);
    }
}

#[test]
fn types_a_device_lacks_are_refused() {
    let mut tape = Tape::training();
    let x = tape.variable(Tensor::from_f64(&[1.0], &[1], DType::F32));
    for to in [DType::F16, DType::BF16] {
        assert!(matches!(tape.cast(&x, to), Err(Error::Unsupported { .. })));
    }
    let gpu = Device::Cuda(common::fast_gpu());
    let x = tape.variable(x.value().to_device(&gpu).unwrap());
    assert!(matches!(tape.cast(&x, DType::F64), Err(Error::Unsupported { .. })));
}
