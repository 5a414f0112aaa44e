//! Resampling as the original libraries do it.
use srk::engine::device::DType;
use srk::engine::tape::Tape;
use srk::imaging::resample::{self, Filter, Shape};

use super::Outcome;
use super::file::{Array, File, nchw};
use super::network::compare;

const TOL: f64 = 1e-6;

pub fn run(file: &File) -> Outcome {
    if file.text("system") != "resampling" {
        return Outcome::Unknown(format!("images of \"{}\"", file.text("system")));
    }
    let (mut passed, mut failed) = (0, vec![]);
    for name in file.names().collect::<Vec<_>>() {
        let (case, key) = name.split_once('.').unwrap();
        let of = |key: &str| file.array(&format!("{case}.{key}"));
        let stored = file.array(name);
        if let Some(kind) = key.strip_prefix("pillow_") {
            let names = [name, kind, file.text("pillow")];
            pillow(names, of("image_u8"), stored, &mut failed);
        } else if key.ends_with(".grad") {
            gradient(name, key, of, stored, &mut failed);
        } else if let Some(got) = float(key, &of) {
            compare(name, &got, &stored.data, TOL, &mut failed);
        } else {
            continue;
        }
        passed += 1;
    }
    if failed.is_empty() { Outcome::Passed(passed) } else { Outcome::Failed(failed) }
}

/// The 8-bit results: equal, or one grey level off on at most 0.1 % of the values.
fn pillow(
    [name, kind, version]: [&str; 3],
    image: &Array,
    stored: &Array,
    failed: &mut Vec<String>,
) {
    // Files say of which version they are.
    let old = version.split('.').next().and_then(|v| v.parse::<u32>().ok()).is_some_and(|v| v < 13);
    let (name_of, what) = kind.split_once('_').unwrap();
    let filter = match (name_of, old) {
        ("bicubic", false) => Filter::Bicubic,
        ("bicubic", true) => Filter::Bicubic12,
        (_, false) => Filter::Bilinear,
        (_, true) => Filter::Bilinear12,
    };
    let src: Vec<u8> = image.data.iter().map(|&v| v as u8).collect();
    let from = Shape::new(image.shape[0], image.shape[1], 3);
    let (h, w) = (stored.shape[0], stored.shape[1]);
    let got = match what.strip_suffix("_up4") {
        Some("down4") => {
            let small = resample::pillow(&src, from, h / 4, w / 4, filter).unwrap();
            resample::pillow(&small, Shape::new(h / 4, w / 4, 3), h, w, filter).unwrap()
        }
        _ => resample::pillow(&src, from, h, w, filter).unwrap(),
    };
    let off = |(a, b): (&u8, &f64)| (f64::from(*a) - b).abs();
    let worst = got.iter().zip(&stored.data).map(off).fold(0.0, f64::max);
    let count = got.iter().zip(&stored.data).filter(|p| off((p.0, p.1)) > 0.0).count();
    if worst > 1.0 || count * 1000 > got.len() {
        failed.push(format!("{name}: {count} of {} values differ, by up to {worst}", got.len()));
    }
}

/// HWC values of an array in NCHW or CHW order.
fn hwc(a: &Array) -> (Vec<f32>, Shape) {
    let [c, h, w] = a.shape[a.shape.len() - 3..] else { panic!("an image has three axes") };
    let values = (0..h * w * c).map(|i| a.data[(i % c * h + i / (w * c)) * w + i / c % w] as f32);
    (values.collect(), Shape::new(h, w, c))
}

/// The floating point result that `key` names, in the order of the file.
fn float<'a>(key: &str, of: &impl Fn(&str) -> &'a Array) -> Option<Vec<f64>> {
    let (src, from) = match key {
        _ if key.contains("_up") => hwc(of("small")),
        _ => hwc(of("float")),
    };
    let (h, w) = (from.height, from.width);
    // `torch_bicubic_up4`: the last number is the factor.
    let factor = || super::spec::numbers(&key.replace(['_', 'p', 'n'], " ")).first().copied();
    let enlarged = |factor: f64| {
        let factor = factor as usize;
        (factor * h, factor * w, Shape::new(factor * h, factor * w, 3))
    };
    let (values, to) = match key {
        k if k.starts_with("torch_bicubic_up") => {
            let (h, w, to) = enlarged(factor()?);
            (resample::torch_bicubic(&src, from, h, w).unwrap(), to)
        }
        k if k.starts_with("matlab_down") => resample::matlab(&src, from, 1.0 / factor()?).unwrap(),
        k if k.starts_with("matlab_up") => resample::matlab(&src, from, factor()?).unwrap(),
        _ => return None,
    };
    let (h, w, c) = (to.height, to.width, to.channels);
    let chw = (0..h * w * c).map(|i| f64::from(values[(i / w % h * w + i % w) * c + i / (h * w)]));
    Some(chw.collect())
}

/// The ops of the same names, with their gradients.
fn gradient<'a>(
    name: &str,
    key: &str,
    of: impl Fn(&str) -> &'a Array,
    stored: &Array,
    failed: &mut Vec<String>,
) {
    let op = key.trim_end_matches(".grad");
    let mut tape = Tape::training();
    let source = if op.contains("up2") { "small" } else { "float" };
    let x = tape.variable(of(source).tensor(DType::F64));
    let y = match op {
        "torch_bilinear_half" => tape.bilinear_down(&x, 2),
        "torch_bilinear_quarter" => tape.bilinear_down(&x, 4),
        _ => tape.bilinear_up2(&x),
    }
    .unwrap();
    compare(op, &nchw(y.value()), &of(op).data, TOL, failed);
    let w = of(&format!("{op}.w")).tensor(DType::F64);
    let grads = tape.backward(&y, w).unwrap();
    compare(name, &nchw(grads.of(&x).unwrap()), &stored.data, TOL, failed);
}
