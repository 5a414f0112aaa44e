//! What the comparison of the registry's cases with the CPU cannot see: conventions at ties and NaN,
//! pairs of element types, and statistics that live beside the tape.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]
use crate::common;

use half::{bf16, f16};
use srk::engine::device::{DType, Device};
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::error::{Error, Result};

const ALL: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

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

fn check_casts(device: &Device, types: &[DType]) {
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
    check_casts(&Device::Cpu, &[DType::F32, DType::F64]);
}

#[test]
fn a_gpu_casts_between_its_types() {
    for gpu in common::checked_gpus() {
        check_casts(&Device::Cuda(gpu), &ALL);
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

/// Output of `op` and gradient of ones in every type of every GPU.
fn on_gpus(
    values: &[f64],
    shape: &[usize],
    op: impl Fn(&mut Tape, &Var) -> Result<Var>,
    check: impl Fn(&[f64], &[f64]),
) {
    for gpu in common::checked_gpus().iter().map(Device::from) {
        for dtype in ALL {
            let on_gpu = |values: &[f64], shape: &[usize]| {
                let t = Tensor::from_f64(values, shape, DType::F32);
                t.to_device(&gpu).unwrap().cast(dtype).unwrap()
            };
            let mut tape = Tape::training();
            let x = tape.variable(on_gpu(values, shape));
            let y = op(&mut tape, &x).unwrap();
            let ones = on_gpu(&vec![1.0; y.value().len()], y.shape());
            let grads = tape.backward(&y, ones).unwrap();
            let dx = grads.of(&x).unwrap().to_f64_vec().unwrap();
            check(&y.value().to_f64_vec().unwrap(), &dx);
        }
    }
}

#[test]
fn ties_of_the_maximum_go_to_the_first() {
    // Eight windows side by side as channels: all patterns of the largest value but none.
    let tied = |at: usize, pattern: usize| pattern >> at & 1 == 1;
    for patterns in [1..9, 8..16] {
        let patterns: Vec<usize> = patterns.collect();
        let value = |at: usize, p: usize| if tied(at, p) { 2.0 } else { -1.0 };
        let values: Vec<f64> =
            (0..4).flat_map(|at| patterns.iter().map(move |&p| value(at, p))).collect();
        on_gpus(&values, &[1, 2, 2, 8], Tape::max_pool2, |y, dx| {
            assert!(y.iter().all(|&v| v == 2.0));
            for (k, &pattern) in patterns.iter().enumerate() {
                let winner = (0..4).find(|&at| tied(at, pattern)).unwrap();
                for at in 0..4 {
                    assert_eq!(dx[at * 8 + k], if at == winner { 1.0 } else { 0.0 }, "{pattern:b}");
                }
            }
        });
    }
}

#[test]
fn a_nan_passes_the_maximum_and_takes_its_gradient() {
    for at in 0..4 {
        let mut values = [1.0, -2.0, 3.0, -4.0];
        values[at] = f64::NAN;
        on_gpus(&values, &[1, 2, 2, 1], Tape::max_pool2, |y, dx| {
            assert!(y[0].is_nan());
            assert!((0..4).all(|i| dx[i] == if i == at { 1.0 } else { 0.0 }), "{dx:?}");
        });
    }
}

#[test]
fn a_nan_passes_the_activations() {
    let mut values = [1.0, -2.0, 0.0, -0.0, 4.0, -5.0, 6.0, -7.0, 8.0];
    for at in [3, 8] {
        values[at] = f64::NAN;
        on_gpus(&values, &[9], Tape::relu, |y, dx| {
            assert!(y[at].is_nan() && dx[at] == 0.0);
            assert_eq!((y[1], y[2], dx[1], dx[2]), (0.0, 0.0, 0.0, 0.0));
        });
        let leaky = |tape: &mut Tape, x: &Var| tape.leaky_relu(x, 0.25);
        on_gpus(&values, &[9], leaky, |y, dx| {
            assert!(y[at].is_nan());
            assert_eq!((y[1], y[2], dx[0], dx[1], dx[2]), (-0.5, 0.0, 1.0, 0.25, 0.25));
        });
        on_gpus(&values, &[9], Tape::gelu, |y, _| assert!(y[at].is_nan()));
        on_gpus(&values, &[9], Tape::silu, |y, _| assert!(y[at].is_nan()));
    }
}

/// Queries of one number, keys of its negative: all scores are near -144, so that zeros in place of a key would weigh
/// e^144 times as much as one that is there.
#[test]
fn attention_does_not_see_keys_beyond_the_last() {
    // Tensor cores or tiles of f32, twice; rows.
    for width in [16, 72, 6] {
        let [length, size] = [3, 3 * width];
        let q = ((144.0 * f64::sqrt(width as f64) / width as f64).sqrt() * 8.0).round() / 8.0;
        let v: Vec<f64> = (0..size).map(|i| f64::from(i as u8 % 16) / 8.0 - 1.0).collect();
        let run = |device: &Device, dtype: DType| {
            let place = |values: &[f64]| {
                let t = Tensor::from_f64(values, &[1, length, width], DType::F32);
                t.to_device(device).unwrap().cast(dtype).unwrap()
            };
            let mut tape = Tape::training();
            let inputs = [vec![q; size], vec![-q; size], v.clone()];
            let [q, k, v] = inputs.map(|values| tape.variable(place(&values)));
            let y = tape.attention(&q, &k, &v, 1).unwrap();
            let dy: Vec<f64> = (0..size).map(|i| f64::from(i as u8 % 7) / 4.0 - 0.5).collect();
            let grads = tape.backward(&y, place(&dy)).unwrap();
            let dx = [&q, &k, &v].map(|x| grads.of(x).unwrap().to_f64_vec().unwrap());
            [vec![y.value().to_f64_vec().unwrap()], dx.to_vec()].concat()
        };
        let wanted = run(&Device::Cpu, DType::F32);
        for gpu in common::checked_gpus().iter().map(Device::from) {
            // The exponent has an error of 1e-5, and gradients of queries are sums that cancel.
            for (dtype, tolerance) in ALL.into_iter().zip([1e-3, 2e-2, 0.2]) {
                let got = run(&gpu, dtype);
                got.iter().zip(&wanted).for_each(|(got, wanted)| close(got, wanted, tolerance));
            }
        }
    }
}

/// Two channels, 1 2 3 4 and 10 10 10 30: means 2.5 and 15, variances 5/4 and 75.
const PIXELS: [f64; 8] = [1.0, 10.0, 2.0, 10.0, 3.0, 10.0, 4.0, 30.0];

fn close(a: &[f64], b: &[f64], tolerance: f64) {
    let error = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(a.len() == b.len() && error < tolerance, "{a:?} against {b:?}");
}

#[test]
fn batch_norm_follows_the_statistics_of_its_batches() {
    let mut devices = vec![Device::Cpu];
    devices.extend(common::checked_gpus().iter().map(Device::from));
    for device in &devices {
        for dtype in if *device == Device::Cpu { &ALL[..1] } else { &ALL[..] } {
            let place = |values: &[f64], shape: &[usize]| {
                Tensor::from_f64(values, shape, DType::F32).to_device(device).unwrap()
            };
            let mut running = place(&[0.0, 1.0, 1.0, 2.0], &[2, 2]);
            let mut tape = Tape::training();
            let x = tape.input(place(&PIXELS, &[2, 2, 1, 2]).cast(*dtype).unwrap());
            let gamma = tape.input(place(&[2.0, 1.0], &[2]).cast(*dtype).unwrap());
            let beta = tape.input(place(&[0.0, 5.0], &[2]).cast(*dtype).unwrap());
            let y = tape.batch_norm(&x, [&gamma, &beta], &mut running, 0.25, 0.0).unwrap();
            // Variances of a sample: 5/3 and 100.
            let moved = [0.625, 4.5, 0.75 + 5.0 / 12.0, 26.5];
            close(&running.to_f64_vec().unwrap(), &moved, 1e-5);
            let (a, b) = (1.0 / 1.25f64.sqrt(), 1.0 / 75f64.sqrt());
            let low = 5.0 - 5.0 * b;
            let wanted = [-3.0 * a, low, -a, low, a, low, 3.0 * a, 5.0 + 15.0 * b];
            let rounding = if *dtype == DType::F32 { 1e-5 } else { 0.02 };
            close(&y.value().to_f64_vec().unwrap(), &wanted, rounding);

            let given = tape.input(place(&[1.0, 10.0, 4.0, 25.0], &[2, 2]));
            let y = tape.batch_norm_with(&x, [&gamma, &beta], &given, 0.0).unwrap();
            let wanted = [0.0, 5.0, 1.0, 5.0, 2.0, 5.0, 3.0, 9.0];
            close(&y.value().to_f64_vec().unwrap(), &wanted, 1e-5);
        }
    }
}

#[test]
fn batch_norm_refuses_statistics_of_other_channels() {
    let mut tape = Tape::inference();
    let x = tape.input(Tensor::from_f64(&PIXELS, &[2, 2, 1, 2], DType::F32));
    let two = tape.input(Tensor::from_f64(&[1.0, 1.0], &[2], DType::F32));
    let three = tape.input(Tensor::from_f64(&[1.0; 3], &[3], DType::F32));
    let six = tape.input(Tensor::from_f64(&[1.0; 6], &[2, 3], DType::F32));
    let mut running = Tensor::from_f64(&[1.0; 6], &[2, 3], DType::F32);
    let refused = |y: Result<Var>| assert!(matches!(y, Err(Error::Shape { .. })));
    refused(tape.batch_norm(&x, [&two, &two], &mut running, 0.1, 1e-5));
    refused(tape.batch_norm_with(&x, [&two, &two], &six, 1e-5));
    let four = tape.input(Tensor::from_f64(&[1.0; 4], &[2, 2], DType::F32));
    refused(tape.batch_norm_with(&x, [&two, &three], &four, 1e-5));
}
