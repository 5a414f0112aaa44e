//! Building blocks of the DualDomainUNet system: transforms, the network's extra inputs, its loss.
use srk::engine::device::DType;
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::error::Result;
use srk::models::ModelConfig;
use srk::models::dual_domain_unet::DualDomainUNetConfig;
use srk::training::sections::{LossConfig, LossKind};
use srk::training::tasks::loss;

use super::Outcome;
use super::file::{Array, File, nchw};
use super::network::compare;

/// Stored as f32 of f64 results.
const TOL: f64 = 1e-6;

pub fn run(file: &File) -> Outcome {
    if file.text("system") != "seed001 building blocks" {
        return Outcome::Unknown(format!("blocks of \"{}\"", file.text("system")));
    }
    let (mut passed, mut failed) = (0, vec![]);
    for case in file.cases() {
        let get = |name: &str| file.get(&format!("{case}.{name}"));
        for (key, inverse) in [("dct2", false), ("idct2", true)] {
            if let (Some(stored), Some(x)) = (get(key), get("x")) {
                let transform = |tape: &mut Tape, x: &Var| match inverse {
                    true => tape.dct2_inverse(x, None),
                    false => tape.dct2(x, None),
                };
                compare(
                    &format!("{case}.{key}"),
                    &apply(x, transform),
                    &stored.data,
                    TOL,
                    &mut failed,
                );
                passed += 1;
            }
        }
        if let (Some(low), Some(x)) = (get("dwt_ll"), get("x")) {
            let bands = apply(x, |tape, x| tape.haar(x));
            let stored = [low, get("dwt_0").unwrap(), get("dwt_1").unwrap(), get("dwt_2").unwrap()];
            compare(&format!("{case}.dwt"), &bands, &interleave(&stored), TOL, &mut failed);
            passed += 1;
        }
        if let (Some(low), Some(stored)) = (get("idwt_in_ll"), get("idwt")) {
            let bands = with_details(low, get("idwt_in_high").unwrap());
            let got = apply(&bands, |tape, x| tape.haar_inverse(x));
            compare(&format!("{case}.idwt"), &got, &stored.data, TOL, &mut failed);
            passed += 1;
        }
        if let (Some(y0), Some(stored)) = (get("y0"), get("out")) {
            let network =
                ModelConfig::DualDomainUNet(DualDomainUNetConfig { base: 8, ..Default::default() })
                    .build(0);
            let y0 = y0.tensor(DType::F64);
            let got = nchw(&network.condition(&y0, &y0).unwrap());
            compare(&format!("{case}.out"), &got, &stored.data, TOL, &mut failed);
            passed += 1;
        }
        if let (Some(pred), Some(target)) = (get("pred"), get("target")) {
            check_loss(&case, [pred, target], [get("loss"), get("grad_pred")], &mut failed);
            passed += 1;
        }
    }
    if failed.is_empty() { Outcome::Passed(passed) } else { Outcome::Failed(failed) }
}

/// `f` of an NCHW array, in NCHW order.
fn apply(x: &Array, f: impl Fn(&mut Tape, &Var) -> Result<Var>) -> Vec<f64> {
    let mut tape = Tape::inference();
    let x = tape.input(x.tensor(DType::F64));
    nchw(f(&mut tape, &x).unwrap().value())
}

/// Four NCHW arrays as one with the channels of all, band after band.
fn interleave(bands: &[&Array]) -> Vec<f64> {
    let [n, c, h, w] = bands[0].shape[..] else { panic!("bands are NCHW") };
    let mut out = vec![];
    for i in 0..n {
        for band in bands {
            out.extend_from_slice(&band.data[i * c * h * w..(i + 1) * c * h * w]);
        }
    }
    out
}

/// LL `[N, C, H, W]` and details `[N, C, 3, H, W]` as `[N, 4 C, H, W]`.
fn with_details(low: &Array, high: &Array) -> Array {
    let [n, c, h, w] = low.shape[..] else { panic!("LL is NCHW") };
    let detail = |k: usize| {
        let mut data = vec![];
        for i in 0..n * c {
            let at = (i * 3 + k) * h * w;
            data.extend_from_slice(&high.data[at..at + h * w]);
        }
        Array { shape: low.shape.clone(), data }
    };
    let details = [detail(0), detail(1), detail(2)];
    let bands = [low, &details[0], &details[1], &details[2]];
    Array { shape: vec![n, 4 * c, h, w], data: interleave(&bands) }
}

fn check_loss(
    case: &str,
    [pred, target]: [&Array; 2],
    [value, gradient]: [Option<&Array>; 2],
    failed: &mut Vec<String>,
) {
    let mut tape = Tape::training();
    let pred = tape.variable(pred.tensor(DType::F64));
    let target = tape.input(target.tensor(DType::F64));
    let config = LossConfig { kind: LossKind::MultiscaleDct, dct: 2.0, ..LossConfig::default() };
    let got = loss::loss(&mut tape, &config, &pred, &target).unwrap();
    compare(
        &format!("{case}.loss"),
        &got.value().to_f64_vec().unwrap(),
        &value.unwrap().data,
        TOL,
        failed,
    );
    let grads = tape.backward(&got, Tensor::from_vec(vec![1.0f64], &[1])).unwrap();
    let got = nchw(grads.of(&pred).unwrap());
    compare(&format!("{case}.grad_pred"), &got, &gradient.unwrap().data, TOL, failed);
}
