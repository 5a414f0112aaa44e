//! Forward values that were worked out by hand: a gradient check cannot see a wrong convention.
#![allow(clippy::unwrap_used)]
use srk::engine::device::DType;
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::error::Result;
use srk::ops::bilinear::Sampling;

/// The values of `f` of the map 1, 2, 3, .. of `shape`.
fn of(shape: &[usize], f: impl Fn(&mut Tape, &Var) -> Result<Var>) -> Vec<f64> {
    let values: Vec<f64> = (1..=shape.iter().product()).map(|v: usize| v as f64).collect();
    let mut tape = Tape::inference();
    let x = tape.input(Tensor::from_f64(&values, shape, DType::F64));
    f(&mut tape, &x).unwrap().value().to_f64_vec().unwrap()
}

fn assert_close(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len(), "{a:?} against {b:?}");
    let error = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(error < 1e-12, "{a:?} against {b:?}");
}

#[test]
fn activations() {
    let centred = |tape: &mut Tape, x: &Var, f: fn(&mut Tape, &Var) -> Result<Var>| {
        let two = tape.input(Tensor::from_f64(&[2.0; 3], &[3], DType::F64));
        let x = tape.scaled_add(x, 1.0, &two, -1.0)?;
        f(tape, &x)
    };
    assert_eq!(of(&[3], |t, x| centred(t, x, Tape::relu)), [0.0, 0.0, 1.0]);
    let gelu = of(&[3], |t, x| centred(t, x, Tape::gelu));
    assert_close(&gelu, &[-0.158_655_253_931_457_05, 0.0, 0.841_344_746_068_542_9]);
}

#[test]
fn channels() {
    let concat = of(&[1, 1, 2, 2], |t, x| t.concat(&[x, x, x]));
    assert_eq!(concat, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 3.0, 4.0]);
    assert_eq!(of(&[1, 1, 2, 3], |t, x| t.slice_channels(x, 1, 2)), [2.0, 3.0, 5.0, 6.0]);
    let shifted = of(&[2, 1, 1, 2], |t, x| {
        let shift = t.input(Tensor::from_f64(&[10.0, 20.0, 30.0, 40.0], &[2, 2], DType::F64));
        t.add_channels(x, &shift)
    });
    assert_eq!(shifted, [11.0, 22.0, 33.0, 44.0]);
}

#[test]
fn pixels() {
    assert_eq!(of(&[1, 2, 3, 1], |t, x| t.crop(x, 1, 2)), [1.0, 2.0]);
    assert_eq!(of(&[1, 3, 3, 1], |t, x| t.max_pool2(x)), [5.0]);
    let nearest = of(&[1, 1, 2, 1], |t, x| t.nearest2(x));
    assert_eq!(nearest, [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    // Channel c r r + i r + j: colour 0 is 1, 2 over 3, 4 and colour 1 is 5, 6 over 7, 8.
    let shuffled = [1.0, 5.0, 2.0, 6.0, 3.0, 7.0, 4.0, 8.0];
    assert_eq!(of(&[1, 1, 1, 8], |t, x| t.pixel_shuffle(x, 2)), shuffled);
    let both = of(&[2, 3, 5, 18], |t, x| {
        let y = t.pixel_shuffle(x, 3)?;
        t.pixel_unshuffle(&y, 3)
    });
    assert_eq!(both, (1..=540).map(f64::from).collect::<Vec<_>>());
}

#[test]
fn bilinear_weights() {
    let corners = of(&[1, 1, 2, 1], |t, x| t.bilinear(x, 1, 4, Sampling::AlignCorners));
    assert_close(&corners, &[1.0, 4.0 / 3.0, 5.0 / 3.0, 2.0]);
    assert_close(&of(&[1, 2, 4, 1], |t, x| t.bilinear_down(x, 2)), &[3.5, 5.5]);
    // At 1/4 the sample lies halfway between pixels 1 and 2 of each four.
    assert_close(&of(&[1, 4, 4, 1], |t, x| t.bilinear_down(x, 4)), &[8.5]);
}

#[test]
fn ties_of_the_maximum_go_to_the_first() {
    let mut tape = Tape::training();
    let x = tape.variable(Tensor::from_f64(&[1.0, 7.0, 7.0, 7.0], &[1, 2, 2, 1], DType::F32));
    let y = tape.max_pool2(&x).unwrap();
    let grads = tape.backward(&y, Tensor::from_f64(&[3.0], &[1, 1, 1, 1], DType::F32)).unwrap();
    assert_eq!(grads.of(&x).unwrap().to_f64_vec().unwrap(), [0.0, 3.0, 0.0, 0.0]);
}

#[test]
fn a_nan_passes_relu_and_the_maximum() {
    for at in 0..4 {
        let mut values = [1.0, -2.0, 3.0, -4.0];
        values[at] = f64::NAN;
        let mut tape = Tape::inference();
        let x = tape.input(Tensor::from_f64(&values, &[1, 2, 2, 1], DType::F32));
        let y = tape.max_pool2(&x).unwrap();
        assert!(y.value().to_f64_vec().unwrap()[0].is_nan(), "maximum of {values:?}");
        assert!(tape.relu(&x).unwrap().value().to_f64_vec().unwrap()[at].is_nan());
    }
}

#[test]
fn transforms() {
    // [[a, b], [c, d]] = [[1, 2], [3, 4]] has LL 5, vertical detail -2, horizontal detail -1.
    assert_eq!(of(&[1, 2, 2, 1], |t, x| t.haar(x)), [5.0, -2.0, -1.0, 0.0]);
    let back = |t: &mut Tape, x: &Var| {
        let y = t.haar(x)?;
        t.haar_inverse(&y)
    };
    assert_close(&of(&[1, 4, 6, 3], back), &(1..=72).map(f64::from).collect::<Vec<_>>());
    for block in [None, Some(2), Some(8)] {
        let back = of(&[1, 8, 16, 3], |t, x| {
            let y = t.dct2(x, block)?;
            t.dct2_inverse(&y, block)
        });
        assert_close(&back, &(1..=384).map(f64::from).collect::<Vec<_>>());
    }
    assert_close(&of(&[1, 2, 2, 1], |t, x| t.dct2(x, None)), &[5.0, -1.0, -2.0, 0.0]);
}

/// The cosine transform by its definition, block by block.
#[test]
fn cosine_transform_equals_its_definition() {
    let (h, w) = (8, 16);
    for block in [None, Some(8), Some(4)] {
        let (bh, bw) = block.map_or((h, w), |b| (b, b));
        let s = |k: usize, n: usize| (if k == 0 { 1.0 } else { 2.0 } / n as f64).sqrt();
        let cos = |k: usize, i: usize, n: usize| {
            (std::f64::consts::PI * (2 * i + 1) as f64 * k as f64 / (2 * n) as f64).cos()
        };
        let coefficient = |at: usize| {
            let (y, x) = (at / w, at % w);
            let (top, left, k, l) = (y / bh * bh, x / bw * bw, y % bh, x % bw);
            let term = |i: usize, j: usize| {
                ((top + i) * w + left + j + 1) as f64 * cos(k, i, bh) * cos(l, j, bw)
            };
            let sum: f64 =
                (0..bh).flat_map(|i| (0..bw).map(move |j| (i, j))).map(|(i, j)| term(i, j)).sum();
            sum * s(k, bh) * s(l, bw)
        };
        let expected: Vec<f64> = (0..h * w).map(coefficient).collect();
        let got = of(&[1, h, w, 1], |t, x| t.dct2(x, block));
        let error = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(error < 1e-10, "{block:?}: off by {error:e}");
    }
}

#[test]
fn losses_and_linear() {
    let loss = |f: fn(&mut Tape, &Var, &Var) -> Result<Var>| {
        of(&[4], |t, x| {
            let b = t.input(Tensor::from_f64(&[1.0, 1.0, 1.0, 6.0], &[4], DType::F64));
            f(t, x, &b)
        })
    };
    assert_close(&loss(Tape::l1_loss), &[1.25]);
    assert_close(&loss(Tape::mse_loss), &[2.25]);
    // Differences are 0, 1, 2 and -2.
    let charbonnier = (0.5 + 1.25f64.sqrt() + 2.0 * 4.25f64.sqrt()) / 4.0;
    assert_close(&loss(|t, a, b| t.charbonnier_loss(a, b, 0.5)), &[charbonnier]);
    assert_close(&loss(|t, a, b| t.huber_loss(a, b, 1.5)), &[(0.5 + 2.0 * 1.5 * 1.25) / 4.0]);
    let linear = of(&[2, 2], |t, x| {
        let w = t.input(Tensor::from_f64(&[1.0, 0.0, 10.0, 1.0, 0.0, 2.0], &[3, 2], DType::F64));
        let b = t.input(Tensor::from_f64(&[100.0, 200.0, 300.0], &[3], DType::F64));
        t.linear(x, &w, Some(&b))
    });
    assert_close(&linear, &[101.0, 212.0, 304.0, 103.0, 234.0, 308.0]);
}

#[test]
fn reflection_leaves_the_edge_out_and_goes_on() {
    let padded = of(&[1, 1, 3, 1], |t, x| t.pad_reflect(x, 1, 6));
    let row = [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0, 1.0];
    assert_eq!(padded, [row, row].concat());
}

/// Two images in two groups of two channels with FiLM and SiLU, by the formula.
#[test]
fn group_norm_equals_its_formula() {
    let shape = [2, 40, 41, 4];
    let eps = 1e-3;
    let mut tape = Tape::inference();
    let mut input = |n: usize, shape: &[usize], f: &dyn Fn(usize) -> f64| {
        let values: Vec<f64> = (0..n).map(f).collect();
        (tape.input(Tensor::from_f64(&values, shape, DType::F64)), values)
    };
    let (x, xs) =
        input(2 * 40 * 41 * 4, &shape, &|i| (i * i % 1009) as f64 / 100.0 + (i % 4) as f64);
    let (gamma, gammas) = input(4, &[4], &|c| 1.0 + c as f64);
    let (beta, betas) = input(4, &[4], &|c| 0.5 - c as f64);
    let (scale, scales) = input(8, &[2, 4], &|i| i as f64 / 10.0);
    let (shift, shifts) = input(8, &[2, 4], &|i| 1.0 - i as f64 / 5.0);
    let y = tape.group_norm_film_silu(&x, [&gamma, &beta], [&scale, &shift], 2, eps).unwrap();
    let group = |i: usize| (i / (40 * 41 * 4), i % 4 / 2);
    let expected = |i: usize| {
        let same: Vec<f64> =
            (0..xs.len()).filter(|&j| group(j) == group(i)).map(|j| xs[j]).collect();
        let mean = same.iter().sum::<f64>() / same.len() as f64;
        let var = same.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / same.len() as f64;
        let (c, nc) = (i % 4, group(i).0 * 4 + i % 4);
        let v = (xs[i] - mean) / (var + eps).sqrt() * gammas[c] + betas[c];
        let v = v * (1.0 + scales[nc]) + shifts[nc];
        v / (1.0 + (-v).exp())
    };
    let got = y.value().to_f64_vec().unwrap();
    for i in (0..xs.len()).step_by(997) {
        assert!((got[i] - expected(i)).abs() < 1e-9, "{i}: {} instead of {}", got[i], expected(i));
    }
}

/// A map of many tasks: the gradient along random directions, and f32 against f64.
#[test]
fn group_norm_gradient_of_a_large_map() {
    let shape = [1, 70, 61, 16];
    let values = |seed: usize, n: usize| -> Vec<f64> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f64 / 1001.0 - 1.0).collect()
    };
    let len = 70 * 61 * 16;
    let (x, dy, direction) = (values(1, len), values(2, len), values(3, len));
    let run = |x: &[f64], dtype: DType| {
        let mut tape = Tape::training();
        let x = tape.variable(Tensor::from_f64(x, &shape, dtype));
        let [gamma, beta] =
            [4, 5].map(|s| tape.input(Tensor::from_f64(&values(s, 16), &[16], dtype)));
        let y = tape.group_norm_silu(&x, &gamma, &beta, 4, 1e-5).unwrap();
        let objective: f64 =
            y.value().to_f64_vec().unwrap().iter().zip(&dy).map(|(y, d)| y * d).sum();
        let grads = tape.backward(&y, Tensor::from_f64(&dy, &shape, dtype)).unwrap();
        (objective, grads.of(&x).unwrap().to_f64_vec().unwrap())
    };
    let (_, dx) = run(&x, DType::F64);
    let moved = |step: f64| {
        let x: Vec<f64> = x.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
        run(&x, DType::F64).0
    };
    let numeric = (moved(1e-5) - moved(-1e-5)) / 2e-5;
    let analytic: f64 = dx.iter().zip(&direction).map(|(a, b)| a * b).sum();
    assert!((numeric - analytic).abs() < 1e-6 * (1.0 + analytic.abs()), "{numeric} {analytic}");
    let error = srk::engine::op_case::relative_l2(&run(&x, DType::F32).1, &dx);
    assert!(error < 1e-6, "f32 off by {error:e}");
}
