//! Imaging against the originals: golden resampling and metrics, the published LR images of Set5 and
//! Set14, and files of every format through decode and encode.
//!
//! The golden data and the images lie outside the repository: `SRK_GOLDEN` and `SRK_DATA`, by default
//! `../shared/golden` and `../shared/data`. Where they are absent, the check says "skipped".
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation)]
use std::path::{Path, PathBuf};

use safetensors::{SafeTensors, tensor::TensorView};
use srk::imaging::resample::{self, Filter, Shape};
use srk::imaging::{Color, Image, metrics};

fn folder(variable: &str, default: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(default), PathBuf::from);
    if !path.is_dir() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

fn golden(name: &str) -> Option<Vec<u8>> {
    Some(std::fs::read(folder("SRK_GOLDEN", "../shared/golden")?.join(name)).unwrap())
}

fn floats(view: &TensorView<'_>) -> Vec<f32> {
    view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn hwc(view: &TensorView<'_>) -> Shape {
    let s = view.shape();
    Shape::new(s[0], s[1], s[2])
}

/// A tensor `[.., C, H, W]` as `[H, W, C]`.
fn interleaved(view: &TensorView<'_>) -> (Vec<f32>, Shape) {
    let shape = view.shape();
    let [c, h, w] = shape[shape.len() - 3..].try_into().unwrap();
    let values = floats(view);
    let mut out = vec![0.0; values.len()];
    for (i, v) in values.into_iter().enumerate() {
        let (channel, pixel) = (i / (h * w), i % (h * w));
        out[pixel * c + channel] = v;
    }
    (out, Shape::new(h, w, c))
}

fn relative_l2(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let square = |v: f64| v * v;
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = b.iter().map(|b| square(f64::from(*b))).sum();
    (error / norm).sqrt()
}

#[test]
fn pillow_is_reproduced_bit_for_bit() {
    let Some(bytes) = golden("resampling.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for set in ["a", "b"] {
        let source = file.tensor(&format!("{set}.image_u8")).unwrap();
        for (name, filter) in [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic)] {
            for case in ["down4", "down4_up4", "squash", "up_odd"] {
                let want = file.tensor(&format!("{set}.pillow_{name}_{case}")).unwrap();
                let source = match case {
                    "down4_up4" => file.tensor(&format!("{set}.pillow_{name}_down4")).unwrap(),
                    _ => source.clone(),
                };
                let to = hwc(&want);
                let got =
                    resample::pillow(source.data(), hwc(&source), to.height, to.width, filter);
                assert_eq!(got.unwrap(), want.data(), "{set} {name} {case}");
            }
        }
    }
}

#[test]
fn float_resamplers_match_torch_and_matlab() {
    let Some(bytes) = golden("resampling.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for set in ["a", "b"] {
        let get = |name: &str| interleaved(&file.tensor(&format!("{set}.{name}")).unwrap());
        let (image, shape) = get("float");
        let (small, small_shape) = get("small");
        let check = |name: &str, got: &[f32], got_shape: Shape| {
            let (want, want_shape) = get(name);
            assert_eq!(got_shape, want_shape, "{set}.{name}");
            let error = relative_l2(got, &want);
            assert!(error <= 1e-6, "{set}.{name}: {error:e}");
        };
        for (name, scale) in [("up2", 2), ("up4", 4)] {
            let (h, w) = (small_shape.height * scale, small_shape.width * scale);
            let got = resample::torch_bicubic(&small, small_shape, h, w).unwrap();
            check(&format!("torch_bicubic_{name}"), &got, Shape::new(h, w, 3));
        }
        for (name, factor) in [("half", 0.5), ("quarter", 0.25)] {
            let (got, to) = resample::torch_bilinear(&image, shape, factor).unwrap();
            check(&format!("torch_bilinear_{name}"), &got, to);
        }
        let (h, w) = (small_shape.height * 2, small_shape.width * 2);
        let got = resample::torch_bilinear_aligned(&small, small_shape, h, w).unwrap();
        check("torch_bilinear_up2_ac", &got, Shape::new(h, w, 3));
        for (name, scale) in [("down2", 0.5), ("down4", 0.25)] {
            let (got, to) = resample::matlab(&image, shape, scale).unwrap();
            check(&format!("matlab_{name}"), &got, to);
        }
        let (got, to) = resample::matlab(&small, small_shape, 4.0).unwrap();
        check("matlab_up4", &got, to);
    }
}

#[test]
fn metrics_match_the_originals() {
    let Some(bytes) = golden("metrics.safetensors") else { return };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for set in ["a", "b"] {
        let image = |name: &str| {
            let view = file.tensor(&format!("{set}.{name}")).unwrap();
            let shape = hwc(&view);
            Image::from_u8(shape.width, shape.height, Color::Rgb, view.data().to_vec()).unwrap()
        };
        let (one, two) = (image("image1_u8"), image("image2_u8"));
        let check = |name: &str, got: srk::error::Result<f64>| {
            let view = file.tensor(&format!("{set}.{name}")).unwrap();
            let want = f64::from_le_bytes(view.data().try_into().unwrap());
            let got = got.unwrap();
            assert!((got - want).abs() <= 1e-9 * want.abs(), "{set}.{name}: {got} {want}");
        };
        for border in [0, 4] {
            let name = |metric: &str| format!("{metric}_crop{border}");
            check(&name("psnr_rgb8"), metrics::psnr_rgb(&one, &two, border));
            check(&name("psnr_y_float"), metrics::psnr_y_float(&one, &two, border));
            check(&name("psnr_y_rounded"), metrics::psnr_y_rounded(&one, &two, border));
            check(&name("ssim_g11_rgb"), metrics::ssim_rgb(&one, &two, border));
            check(&name("ssim_g11_y_float"), metrics::ssim_y_float(&one, &two, border));
            check(&name("ssim_g11_y_rounded"), metrics::ssim_y_rounded(&one, &two, border));
        }
        check("psnr_rgb_float", metrics::psnr_rgb(&one, &two, 0));
        check("ssim_u7_rgb_float", metrics::ssim_uniform7(&one, &two));
        check("dssim_full", metrics::dssim_full(&one, &two));
        check("dssim_valid", metrics::dssim_valid(&one, &two));
    }
}

/// The ground truth, cropped to multiples of 4, and the published LR image of every file of a set.
fn benchmark(set: &str) -> Option<Vec<(String, Image, Image)>> {
    let root = folder("SRK_DATA", "../shared/data")?.join("bench").join(set);
    let mut names: Vec<_> = std::fs::read_dir(root.join("GT"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let read = |part: &str, name: &str| srk::imaging::read(&root.join(part).join(name)).unwrap();
    let load = |name: String| {
        let truth = read("GT", &name).crop_to_multiple(4).unwrap();
        let low = read("LRx4", &name);
        (name, truth, low)
    };
    Some(names.into_iter().map(load).collect())
}

#[test]
fn own_lr_images_equal_the_published_ones() {
    for set in ["Set5", "Set14"] {
        let Some(images) = benchmark(set) else { return };
        for (name, truth, low) in images {
            let got = resample::matlab_8bit_image(&truth, 0.25).unwrap();
            let got = if low.color == Color::Rgb { got.to_rgb() } else { got };
            assert_eq!(got.samples, low.samples, "{set} {name}");
        }
    }
}

#[test]
fn bicubic_scores_on_set5_are_those_of_the_literature() {
    let Some(images) = benchmark("Set5") else { return };
    let (mut psnr, mut ssim, mut number) = (0.0, 0.0, 0.0);
    for (_, truth, low) in images {
        let up = resample::matlab_8bit_image(&low, 4.0).unwrap();
        psnr += metrics::psnr_y_float(&up, &truth, 4).unwrap();
        ssim += metrics::ssim_y_float(&up, &truth, 4).unwrap();
        number += 1.0;
    }
    let (psnr, ssim) = (psnr / number, ssim / number);
    println!("Set5 bicubic x4: {psnr:.3} dB, {ssim:.4}");
    assert!((28.415..28.435).contains(&psnr), "{psnr}");
    assert!((0.810..0.8115).contains(&ssim), "{ssim}");
}
