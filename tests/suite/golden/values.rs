//! Quality measures.
use srk::engine::device::DType;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::imaging::metrics::{self, Channels};
use srk::imaging::{Color, Image};
use srk::ops::dssim::Centres;

use super::Outcome;
use super::file::{Array, File, nchw};
use super::network::compare;

/// The README's bound in double precision; DSSIM is given for float32 values.
const TOL: f64 = 1e-9;

pub fn run(file: &File) -> Outcome {
    if file.text("system") != "metrics" {
        return Outcome::Unknown(format!("values of \"{}\"", file.text("system")));
    }
    let (mut passed, mut failed) = (0, vec![]);
    for name in file.names().collect::<Vec<_>>() {
        let (case, key) = name.split_once('.').unwrap();
        if let Some(measure) = key.strip_suffix("_grad") {
            gradient(file, case, measure, &mut failed);
            passed += 1;
            continue;
        }
        let image = |k: &str| to_image(file.array(&format!("{case}.{k}_u8")));
        let Some(got) = measure(key, &image("image1"), &image("image2")) else { continue };
        let stored = file.array(name).data[0];
        let error = (got - stored).abs() / stored.abs().max(1.0);
        if error > TOL || error.is_nan() {
            failed.push(format!("{name}: {got} is not {stored}"));
        }
        passed += 1;
    }
    if failed.is_empty() { Outcome::Passed(passed) } else { Outcome::Failed(failed) }
}

/// The gradient of the loss `measure` by the prediction; the loss itself on the way.
fn gradient(file: &File, case: &str, measure: &str, failed: &mut Vec<String>) {
    let centres = match measure {
        "dssim_full" => Centres::Reflected,
        "dssim_valid" => Centres::Inside,
        _ => return failed.push(format!("{case}.{measure}: its gradient is not known")),
    };
    let get = |key: &str| file.array(&format!("{case}.{key}"));
    let mut tape = Tape::training();
    let pred = tape.variable(get("dssim_pred").tensor(DType::F64));
    let target = tape.input(get("dssim_target").tensor(DType::F64));
    let loss = tape.dssim(&pred, &target, centres).unwrap();
    let value = loss.value().to_f64_vec().unwrap();
    compare(&format!("{case}.{measure}"), &value, &get(measure).data, TOL, failed);
    let grads = tape.backward(&loss, Tensor::from_vec(vec![1.0f64], &[1])).unwrap();
    let (what, stored) = (format!("{case}.{measure}_grad"), get(&format!("{measure}_grad")));
    // Stored as f32.
    compare(&what, &nchw(grads.of(&pred).unwrap()), &stored.data, 1e-6, failed);
}

fn to_image(a: &Array) -> Image {
    let samples = a.data.iter().map(|&v| v as u8).collect();
    Image::from_u8(a.shape[1], a.shape[0], Color::Rgb, samples).unwrap()
}

/// The measure that `key` names; none for tensors that are no measure.
fn measure(key: &str, a: &Image, b: &Image) -> Option<f64> {
    let (kind, border) = match key.split_once("_crop") {
        Some((kind, border)) => (kind, border.parse().unwrap()),
        None => (key, 0),
    };
    let value = match kind {
        "psnr_rgb8" | "psnr_rgb_float" => metrics::psnr(a, b, Channels::Rgb, border),
        "psnr_y_float" => metrics::psnr(a, b, Channels::YFloat, border),
        "psnr_y_rounded" => metrics::psnr(a, b, Channels::YRounded, border),
        "ssim_g11_rgb" => metrics::ssim(a, b, Channels::Rgb, border),
        "ssim_g11_y_float" => metrics::ssim(a, b, Channels::YFloat, border),
        "ssim_g11_y_rounded" => metrics::ssim(a, b, Channels::YRounded, border),
        _ => return None,
    };
    Some(value.unwrap())
}
