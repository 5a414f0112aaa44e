//! Maps that are split into many tasks: bits at any number of threads, and tiles against the whole.
#![allow(clippy::unwrap_used)]
use srk::engine::device::DType;
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::engine::threads::with_count;
use srk::error::Result;

/// More than this takes a test too long; products are compared in small by `tests/suite/ops.rs`.
const FLOPS: u64 = 1_000_000_000;
const BYTES: u64 = 20_000_000;

#[test]
fn large_maps_give_the_same_bits_at_any_number_of_threads() {
    for case in srk::ops::all().into_iter().filter(|c| c.timed_only && c.flops() < FLOPS) {
        if case.bytes().unwrap() > BYTES {
            continue;
        }
        let run = |threads| with_count(threads, || case.f32_bits().unwrap());
        assert!(run(1) == run(3), "{case:?}: bits depend on the threads");
    }
}

/// `f` of the top left `height` x `width` pixels of a fixed map of 40 x 48 x 12.
fn of(height: usize, width: usize, f: impl Fn(&mut Tape, &Var) -> Result<Var>) -> Tensor {
    let values: Vec<f64> = (0..40 * 48 * 12).map(|i| f64::from(i * 7919 % 2003) / 1000.0).collect();
    let mut tape = Tape::inference();
    let x = tape.input(Tensor::from_f64(&values, &[1, 40, 48, 12], DType::F32));
    let x = tape.crop(&x, height, width).unwrap();
    f(&mut tape, &x).unwrap().into_tensor().unwrap()
}

/// The output of a tile has the bits that the whole map has there.
#[test]
fn a_value_does_not_depend_on_the_size_of_the_map() {
    type Local = (&'static str, fn(&mut Tape, &Var) -> Result<Var>);
    let ops: [Local; 10] = [
        ("silu", |t, x| t.silu(x)),
        ("max_pool2", |t, x| t.max_pool2(x)),
        ("nearest2", |t, x| t.nearest2(x)),
        ("bilinear", |t, x| t.bilinear_down(x, 4)),
        ("pixel_shuffle", |t, x| t.pixel_shuffle(x, 2)),
        ("pixel_unshuffle", |t, x| t.pixel_unshuffle(x, 2)),
        ("dct2", |t, x| t.dct2(x, Some(8))),
        ("dct2 inverse", |t, x| t.dct2_inverse(x, Some(8))),
        ("haar", |t, x| t.haar(x)),
        ("haar inverse", |t, x| t.haar_inverse(x)),
    ];
    for (name, f) in ops {
        let (tile, whole) = (of(16, 24, f), of(40, 48, f));
        let (height, width) = (tile.shape()[1], tile.shape()[2]);
        let mut tape = Tape::inference();
        let whole = tape.input(whole);
        let part = tape.crop(&whole, height, width).unwrap();
        assert!(
            part.value().to_f64_vec().unwrap() == tile.to_f64_vec().unwrap(),
            "{name}: a tile differs"
        );
    }
}
