//! LPIPS and DISTS of pairs of images, as the published code computes them.
//!
//! Needs the weights that `tests/fetch_features.py` fetches; without them the pairs are skipped, and said so.
use super::Outcome;
use super::file::{Array, File};
use crate::common::features;
use srk::engine::device::DType;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::models::perceptual::folder::Folder;
use srk::models::perceptual::{Distance, Kind};

/// Of a value; the reference is in f32.
const TOL: f64 = 1e-4;

pub fn run(file: &File) -> Outcome {
    let Some(folder) = features::folder() else {
        println!("skipped: no features for {}", file.name);
        return Outcome::Passed(0);
    };
    let folder = Folder::open(Some(folder.path()));
    let distances = Kind::ALL.map(|kind| (kind, Distance::open(kind, &folder).unwrap()));
    let (mut passed, mut failed) = (0, vec![]);
    for (name, values) in file.json("values").as_object().unwrap() {
        let [a, b] = ["a", "b"].map(|part| image(file.array(&format!("{name}.{part}"))));
        for (kind, distance) in &distances {
            let Some(wanted) = values[kind.name()].as_f64() else { continue };
            let mut tape = Tape::inference();
            let [a, b] = [&a, &b].map(|t| tape.input(t.try_clone().unwrap()));
            let got = distance.forward(&mut tape, &a, &b).unwrap().value().to_f64_vec().unwrap()[0];
            let error = (got - wanted).abs() / wanted.abs().max(1e-3);
            println!("{error:.1e}  {name} {kind}: {got:.6}, {wanted:.6}");
            if error.is_nan() || error > TOL {
                failed.push(format!("{name} {kind} is {got}, not {wanted}"));
            }
            passed += 1;
        }
    }
    if failed.is_empty() { Outcome::Passed(passed) } else { Outcome::Failed(failed) }
}

/// `[1, H, W, 3]` in `[0, 1]` of bytes `[H, W, 3]`.
fn image(array: &Array) -> Tensor {
    let values: Vec<f64> = array.data.iter().map(|v| v / 255.0).collect();
    let [h, w, c] = array.shape[..] else { panic!("an image has three axes") };
    Tensor::from_f64(&values, &[1, h, w, c], DType::F32)
}
