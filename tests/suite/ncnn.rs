//! Networks of ncnn: the two files, the layers they hold, and what becomes of pictures.
//!
//! Files made here need nothing. Published ones are compared with what ncnn makes of them, where the packages
//! lie unpacked in `$SRK_CACHE/models/PACKAGE-VERSION` (`~/.cache/srk` unless set), and the golden files are there.
#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::unwrap_used,
    clippy::print_stdout
)]
use crate::common;
mod ncnn_files;
mod tiles;

use std::path::Path;

use common::command::Run;
use ncnn_files::{Files, Golden, packages, random, raw, relative};
use srk::diffusion::system::{System, SystemConfig};
use srk::engine::device::{DType, Device};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::Error;
use srk::imaging::{Color, Image, Samples};
use srk::import::ncnn;
use srk::models::ModelConfig;
use srk::models::Module as _;
use srk::models::graph::{Graph, GraphConfig, Kind};
use srk::models::weights::WeightsFile;
use srk::upscale::{Settings, TileSize, Upscaler, plan, upscale};

/// What the network of `files` makes of `x` `[1, h, w, 3]`, and its factor.
fn run(files: &Files, x: &[f32], size: [usize; 2]) -> (Vec<f32>, Vec<usize>) {
    let (config, tensors) = ncnn::read(&files.text(), &files.bin).unwrap();
    let network = Graph::new(&config);
    WeightsFile { tensors, ..Default::default() }.apply(network.parameters(), "made here").unwrap();
    raw(&network, x, size)
}

fn refused(files: &Files) -> String {
    ncnn::read(&files.text(), &files.bin).unwrap_err()
}

/// A convolution with one tap that keeps three channels, then `line`, which reads `c` and makes `out`.
fn one(line: &str) -> Files {
    let mut files = Files::default();
    files.line("Input in 0 1 data");
    files
        .line("Convolution c 1 1 data c 0=3 1=1 5=1 6=9")
        .f16(&[1., 0., 0., 0., 1., 0., 0., 0., 1.]);
    files.plain(&[0.0, 0.25, -0.5]);
    files.line(line);
    files
}

/// The system of such a file, with its picture enlarged on `device`.
pub(crate) fn enlarge_by(line: &str, device: &Device) {
    let folder = tempfile::tempdir().unwrap();
    let system = written(&one(line), folder.path(), "net.param");
    let upscaler = Upscaler::new(system, device, DType::F32).unwrap();
    enlarged(&upscaler, &picture(24, 16), TileSize::None);
}

/// One pixel of three channels through `files`.
fn pixel(files: &Files) -> Vec<f32> {
    run(files, &[0.5, -0.5, 1.0], [1, 1]).0
}

#[test]
fn layers_of_every_kind_compute_what_ncnn_does() {
    // Behind the convolution: 0.5, -0.25, 0.5.
    let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
    let swish = |v: f32| v * sigmoid(v);
    let cases: &[(&str, [f32; 3])] = &[
        ("Sigmoid s 1 1 c out", [0.5, -0.25, 0.5].map(sigmoid)),
        ("Swish s 1 1 c out", [0.5, -0.25, 0.5].map(swish)),
        ("ReLU s 1 1 c out", [0.5, 0.0, 0.5]),
        ("ReLU s 1 1 c out 0=0.5", [0.5, -0.125, 0.5]),
        ("BinaryOp s 1 1 c out 0=0 1=1 2=2.5e-1", [0.75, 0.0, 0.75]),
        ("BinaryOp s 1 1 c out 0=1 1=1 2=0.25", [0.25, -0.5, 0.25]),
        ("BinaryOp s 1 1 c out 0=2 1=1 2=-2", [-1.0, 0.5, -1.0]),
        ("BinaryOp s 1 1 c out 0=3 1=1 2=4", [0.125, -0.0625, 0.125]),
        ("BinaryOp s 2 1 c data out", [1.0, -0.75, 1.5]),
        ("BinaryOp s 2 1 c data out 0=1", [0.0, 0.25, -0.5]),
        ("BinaryOp s 2 1 c data out 0=2", [0.25, 0.125, 0.5]),
        ("Eltwise s 2 1 c data out 0=0", [0.25, 0.125, 0.5]),
        ("Eltwise s 2 1 c data out 0=1", [1.0, -0.75, 1.5]),
        ("Eltwise s 2 1 c data out 0=1 -23301=2,2.0,-1.0", [0.5, 0.0, 0.0]),
        ("Interp s 1 1 c out 0=1 1=1.0 2=1.0", [0.5, -0.25, 0.5]),
        ("Noop s 1 1 c out", [0.5, -0.25, 0.5]),
    ];
    for (line, wanted) in cases {
        let got = pixel(&one(line));
        assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{line}: {got:?}");
    }
    let mut files = one("PReLU s 1 1 c out 0=3");
    files.plain(&[0.5, -2.0, 0.5]);
    assert_eq!(pixel(&files), [0.5, 0.5, 0.5]);
    let mut files = one("MemoryData m 0 1 m 0=1 1=1 2=3");
    files.plain(&[1.0, 2.0, 4.0]).line("BinaryOp s 2 1 c m out 0=1");
    assert_eq!(pixel(&files), [-0.5, -2.25, -3.5]);
    let mut files = one("MemoryData m 0 1 m 0=3");
    files.plain(&[1.0, 2.0, 4.0]).line("BinaryOp s 2 1 m c out 0=2");
    assert_eq!(pixel(&files), [0.5, -0.5, 2.0]);
}

/// The mean of each channel through a linear map, for all pixels.
#[test]
fn a_squeeze_excites_all_pixels() {
    let gate = |act: &str, scale: &str| {
        let mut files = Files::default();
        files.line("Input in 0 1 data").line("Split s 1 2 data a b");
        files.line("Pooling p 1 1 b p 0=1 4=1");
        files.line(&format!("InnerProduct l 1 1 p l 0=3 1=1 2=9 {act}"));
        files.f32(&[1., 0., 0., 0., 2., 0., 0., 0., 4.]).plain(&[0.0, 0.0, 0.5]);
        files.line(scale);
        files
    };
    let x = [1.0, 2.0, 3.0, 3.0, 0.0, 5.0];
    let linear = [2.0, 2.0, 16.5];
    let y = run(&gate("", "BinaryOp m 2 1 a l out 0=2"), &x, [1, 2]).0;
    assert_eq!(y, [2.0, 4.0, 49.5, 6.0, 0.0, 82.5]);
    for scale in ["Scale m 2 1 a l out 0=-233", "BinaryOp m 2 1 l a out 0=2"] {
        let files = gate("9=4", scale);
        let (config, _) = ncnn::read(&files.text(), &files.bin).unwrap();
        assert!(config.layers.iter().any(|layer| layer.kind == Kind::Gate), "{scale}");
        let y = run(&files, &x, [1, 2]).0;
        let wanted = (0..6).map(|i| x[i] / (1.0 + (-linear[i % 3] as f32).exp()));
        assert!(y.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{y:?}");
        // Convolutions of one tap are such maps, too.
        let text = String::from_utf8(files.text()).unwrap();
        let text = text.replace(
            "InnerProduct l 1 1 p l 0=3 1=1 2=9 ",
            "Convolution l 1 1 p l 0=3 1=1 5=1 6=9 ",
        );
        let (same, _) = ncnn::read(text.as_bytes(), &files.bin).unwrap();
        assert_eq!(same, config);
    }
}

/// Shapes that tools write into lines are nobody's business, on lines of any kind.
#[test]
fn hints_of_shapes_are_left_out() {
    for line in
        ["ReLU s 1 1 c out", "PixelShuffle s 1 1 c out 0=1", "BinaryOp s 1 1 c out 0=2 1=1 2=0.5"]
    {
        let plain = one(line);
        let hinted = one(&format!("{line} -23330=4,3,20,16,3 31=1"));
        assert_eq!(pixel(&hinted), pixel(&plain), "{line}");
    }
}

/// Deconvolutions, crops both ways, pixels from channels, and resampling move pixels to where ncnn does.
#[test]
fn sizes_and_places_follow_the_layers() {
    let mut files = Files::default();
    files.line("Input in 0 1 data 0=9 1=9 2=3");
    // Every input pixel becomes a block: 1 2 / 3 4 in the first channel, counted by rows.
    files.line("Deconvolution d 1 1 data d 0=3 1=2 3=2 5=0 6=36");
    let kernel: Vec<f32> =
        (0..9).flat_map(|i| [1., 2., 3., 4.].map(|v| if i % 4 == 0 { v } else { 0.0 })).collect();
    files.f16(&kernel);
    let (y, shape) = run(&files, &[1.0, 10.0, 100.0], [1, 1]);
    assert_eq!(shape, [1, 2, 2, 3]);
    assert_eq!(y, [1., 10., 100., 2., 20., 200., 3., 30., 300., 4., 40., 400.]);

    let mut files = Files::default();
    files.line("Input in 0 1 data").line("Split s 1 2 data a b");
    files.line("Crop c 1 1 a c -23309=2,1,1 -23310=2,-1,-1 -23311=2,1,2");
    files.line("Crop k 2 1 b c k 0=1 1=1").line("BinaryOp m 2 1 k c out 0=1");
    files.line("Interp u 1 1 out u 0=1 1=2.0 2=2.0");
    let (y, shape) = run(&files, &random(3 * 30, 1), [5, 6]);
    assert_eq!((shape, y.iter().all(|&v| v == 0.0)), (vec![1, 6, 8, 3], true));

    for (line, factor) in [("0=1 1=3.0 2=3.0", 3), ("0=2 1=2.0 2=2.0", 2), ("0=3 1=4.0 2=4.0", 4)] {
        let mut files = Files::default();
        files.line("Input in 0 1 data").line(&format!("Interp u 1 1 data u {line}"));
        let (y, shape) = run(&files, &[0.25; 36], [3, 4]);
        assert_eq!(shape, [1, 3 * factor, 4 * factor, 3]);
        assert!(y.iter().all(|&v| (v - 0.25).abs() < 1e-6), "{line}: a flat image stays flat");
    }
}

#[test]
fn both_ways_to_store_weights_are_read_alike() {
    let conv = |tag: u8| {
        let mut files = Files::default();
        files.line("Input in 0 1 data").line("Convolution c 1 1 data c 0=3 1=3 4=1 5=1 6=81 9=1");
        let weights: Vec<f32> = (0..81).map(|i| (i % 9) as f32 / 8.0 - 0.5).collect();
        match tag {
            0 => files.f32(&weights),
            1 => files.tagged(0x0002_C056, &weights),
            _ => files.f16(&weights),
        };
        files.plain(&[0.5, 0.0, -0.5]);
        run(&files, &random(3 * 20, 2), [4, 5])
    };
    assert_eq!(conv(0), conv(1));
    assert_eq!(conv(0), conv(2));
}

#[test]
fn what_is_not_supported_is_named_with_its_line() {
    let cases = [
        (
            "Convolutoin c 1 1 c out",
            "line 5: Convolutoin c: srk knows no layers of this kind; nearest is Convolution",
        ),
        ("Interp s 1 1 c out 0=4", "line 5: Interp s: its parameter 0=4 is not supported"),
        ("Pooling s 1 1 c out 0=0 1=2", "line 5: Pooling s"),
        ("BinaryOp s 2 1 c data out 0=3", "its parameter 0=3 is not supported"),
        ("Eltwise s 2 1 c data out 0=2", "its parameter 0=2 is not supported"),
        ("Crop s 1 1 c out -23309=1,1 -23310=1,-1 -23311=1,0", "line 5: Crop s"),
        ("ReLU s 1 1 x out", "line 5: ReLU s: it reads x, which no line above makes"),
        ("ReLU s 1 1 c c", "line 5: ReLU s: c is made a second time"),
        ("ReLU s 1 1 c", "line 5: 1 inputs and 1 outputs are not all there"),
        ("ReLU s 1 1 c out 0:1", "line 5: 0:1 is no parameter"),
        ("PixelShuffle s 1 1 c out 0=2", "line 5: layer 2 (s): 3 channels are no multiple of 4"),
        (
            "Convolution s 1 1 c out 0=3 1=1 6=7",
            "line 5: Convolution s: 7 weights (6) are not those",
        ),
        ("Convolution s 1 1 c out 0=3 1=1 2=2 6=9", "its parameter 2=2 is not supported"),
        ("Convolution s 1 1 c out 0=3 1=3 11=1 6=27", "its parameter 11=1 is not supported"),
        ("Convolution s 1 1 c out 0=3 1=1 6=9 8=1", "its parameter 8=1 is not supported"),
        ("Dropout s 1 1 c out 0=0.5", "line 5: Dropout s: its parameter 0=0.5 is not supported"),
        ("Concat s 2 1 c data out 0=1", "line 5: Concat s: its parameter 0=1 is not supported"),
    ];
    for (line, wanted) in cases {
        let message = refused(&one(line));
        assert!(message.contains(wanted), "{line}: {message}");
    }
    let mut files = one("ReLU r 1 1 c r");
    files
        .line("Crop k 1 1 r k -23309=2,1,1 -23310=2,-1,-1 -23311=2,1,2")
        .line("BinaryOp s 2 1 k r out");
    let message = refused(&files);
    assert!(message.contains("line 7: ") && message.contains("different sizes"), "{message}");
}

#[test]
fn damaged_files_are_refused_in_words() {
    let good = one("ReLU s 1 1 c out");
    assert!(ncnn::read(&good.text(), &good.bin).is_ok());
    let with = |bin: Vec<u8>| ncnn::read(&good.text(), &bin).unwrap_err();
    let short = with(good.bin[..good.bin.len() - 3].to_vec());
    assert!(
        short.contains("too short: 12 bytes are wanted at byte 24, and it has 33 in all"),
        "{short}"
    );
    let long = with([&good.bin[..], &[0; 5]].concat());
    assert!(long.contains("too long: the layers take 36 of its 41 bytes"), "{long}");
    for (tag, words) in [(0x000D_4B38_u32, "8 bits"), (0x0101_0101, "a table of 256 numbers")] {
        let message = with([&tag.to_le_bytes()[..], &good.bin[4..]].concat());
        assert!(message.contains("line 4: Convolution c") && message.contains(words), "{message}");
    }
    let mut broken = good.bin.clone();
    broken[24..28].copy_from_slice(&f32::NAN.to_le_bytes());
    assert!(with(broken).contains("bias[0] is NaN"));

    let text = |text: &str| ncnn::read(text.as_bytes(), &good.bin).unwrap_err();
    assert!(text("").contains("7767517") && text("7767517\n1").contains("line 2"));
    assert!(text("7767517\n2 1\nInput in 0 1 data").contains("promises 2 layers; there are 1"));
    assert!(text("7767517\n1 0\nInput in 0 1 data").contains("promises 0 blobs; there are 1"));
    let binary = ncnn::read(&7_767_517_u32.to_le_bytes(), &[]).unwrap_err();
    assert!(binary.contains("binary .param.bin"), "{binary}");
    // Sizes that no file holds take no memory.
    for line in [
        "Convolution s 1 1 c out 0=2147483647 1=1 6=2147483647",
        "Convolution s 1 1 c out 0=1 1=2147483647 6=2147483647",
        "InnerProduct s 1 1 c out 0=1 2=2147483647",
        "PReLU s 1 1 c out 0=2147483647",
        "MemoryData s 0 1 out 0=2147483647",
        "Deconvolution s 1 1 c out 0=3 1=1 3=2147483647 6=9",
        "Interp s 1 1 c out 0=1 1=1e9 2=1e9",
        "PixelShuffle s 1 1 c out 0=2147483647",
        "Crop s 1 1 c out -23309=2,900000,900000 -23310=2,-900000,-900000 -23311=2,1,2",
    ] {
        assert!(!refused(&one(line)).is_empty(), "{line}");
    }
}

/// Every way to cut a file short or to change a byte of its text ends in a message or in a network.
#[test]
fn no_damage_is_a_panic() {
    let files = ncnn_files::eating_borders(false);
    let text = files.text();
    for end in (0..text.len()).step_by(7) {
        drop(ncnn::read(&text[..end], &files.bin));
    }
    for at in (0..text.len()).step_by(3) {
        for byte in [b'9', b' ', b'-', b'=', 0xff] {
            let mut changed = text.clone();
            changed[at] = byte;
            drop(ncnn::read(&changed, &files.bin));
        }
    }
    for end in (0..files.bin.len()).step_by(501) {
        assert!(ncnn::read(&text, &files.bin[..end]).is_err());
    }
}

#[test]
fn missing_and_mismatched_files_are_said_with_what_helps() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.param");
    let files = one("ReLU s 1 1 c out");
    std::fs::write(&path, files.text()).unwrap();
    let Err(error) = ncnn::open(&path) else { panic!("there is no .bin") };
    let message = error.to_string();
    assert!(matches!(error, Error::Model(_)), "{message}");
    assert!(message.contains("net.bin") && message.contains("beside the .param"), "{message}");
    for (bytes, words) in [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            ["LFS pointer", "lfs pull"],
        ),
        ("<!DOCTYPE html>\n<html>", ["a web page", "download"]),
    ] {
        std::fs::write(folder.path().join("net.bin"), bytes).unwrap();
        let Err(error) = ncnn::open(&path) else { panic!("{bytes} is no .bin") };
        let message = error.to_string();
        assert!(
            message.contains("net.bin") && words.iter().all(|w| message.contains(w)),
            "{message}"
        );
    }
    std::fs::write(folder.path().join("net.bin"), &files.bin).unwrap();
    assert_eq!(ncnn::open(&path).map_err(|e| e.to_string()).unwrap().scale(), 1);
}

fn written(files: &Files, folder: &Path, name: &str) -> System {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, files.text()).unwrap();
    std::fs::write(path.with_extension("bin"), &files.bin).unwrap();
    ncnn::open(&path).map_err(|e| e.to_string()).unwrap()
}

fn picture(width: usize, height: usize) -> Image {
    let samples = random(width * height * 3, 7);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let samples = samples
        .iter()
        .enumerate()
        .map(|(i, v)| ((i as f32 / 50.0).sin() * 60.0 + 128.0 + 40.0 * v).clamp(0.0, 255.0) as u8);
    Image::from_u8(width, height, Color::Rgb, samples.collect()).unwrap()
}

fn enlarged(upscaler: &Upscaler, image: &Image, tile: TileSize) -> (Vec<u8>, [usize; 2], usize) {
    let settings = Settings { steps: None, seed: 9, tile, memory: 1 << 30 };
    let plan = plan(upscaler, image.width, image.height, &settings).unwrap();
    let (output, _) = upscale(upscaler, image, &plan, 9, &mut |_, _| Ok(())).unwrap();
    let Samples::U8(samples) = output.samples else { panic!("8 bits stay 8 bits") };
    (samples, [output.width, output.height], plan.tiles.len())
}

/// Black at 0.15 and white at 0.85 for PRO, by its name; the difference to the image where grey becomes black.
#[test]
fn conventions_that_are_not_in_the_files_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let image = picture(9, 6);
    let plain = ncnn_files::repeating(1.0);
    let config = |system: &System| match &system.config.model {
        ModelConfig::Graph(config) => config.clone(),
        other => panic!("{other:?}"),
    };
    let identity = written(&plain, folder.path(), "models-se/a.param");
    let pro = written(&plain, folder.path(), "models-pro/a.param");
    let difference = written(&ncnn_files::repeating(0.0), folder.path(), "a.param");
    assert_eq!((config(&identity).range, config(&identity).residual), ([0.0, 1.0], false));
    assert_eq!((config(&pro).range, config(&pro).residual), ([0.15, 0.85], false));
    assert!(config(&difference).residual);
    let results = [identity, pro, difference].map(|system| {
        let upscaler = Upscaler::new(system, &Device::Cpu, DType::F32).unwrap();
        enlarged(&upscaler, &image, TileSize::None).0
    });
    assert!(results.iter().all(|r| *r == results[0]), "all three repeat pixels");
}

/// What `srk models import` writes is the same network.
#[test]
fn an_imported_file_is_the_same_network() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("net.param");
    let first = written(&ncnn_files::eating_borders(true), folder.path(), "net.param");
    let request = srk::import::Request {
        overrides: vec!["model.range=[0.1,0.9]".to_owned()],
        ..Default::default()
    };
    let imported = srk::import::import(&path, &request).unwrap();
    assert_eq!(imported.parameters, first.network.parameter_count());
    let output = folder.path().join("net.safetensors");
    imported.file.write(&output, DType::F32).unwrap();
    let second = System::open(output.to_str().unwrap()).unwrap();
    let ModelConfig::Graph(GraphConfig { range, layers, .. }) = &second.config.model else {
        panic!("{:?}", second.config.model)
    };
    assert_eq!((range, layers.is_empty()), (&[0.1, 0.9], false));
    for (a, b) in first.network.parameters().iter().zip(second.network.parameters()) {
        assert_eq!(
            a.value().to_f64_vec().unwrap(),
            b.value().to_f64_vec().unwrap(),
            "{}",
            a.name()
        );
    }
}

/// Layers that do not fit together are refused when a weights file is opened, not when it runs.
#[test]
fn a_weights_file_with_wrong_layers_is_refused() {
    let files = one("ReLU s 1 1 c out");
    let (config, tensors) = ncnn::read(&files.text(), &files.bin).unwrap();
    let mut json = serde_json::to_value(ModelConfig::Graph(config)).unwrap();
    json["layers"][1]["from"] = serde_json::json!([7]);
    let metadata = [
        ("srk.config".to_owned(), json.to_string()),
        ("srk.diffusion".to_owned(), r#"{"process":{"kind":"direct"}}"#.to_owned()),
    ];
    let file = WeightsFile { metadata: metadata.into(), tensors };
    let message = SystemConfig::of(&file, "net").unwrap_err().to_string();
    assert!(message.contains("layer 2 (s): it reads the values [7]"), "{message}");
}

/// The binary takes a `.param` for a model, says what it holds, and turns it into a file of its own.
#[test]
fn the_binary_takes_a_param_for_a_model() {
    let folder = tempfile::tempdir().unwrap();
    drop(written(&ncnn_files::eating_borders(true), folder.path(), "net.param"));
    srk::imaging::write(&folder.path().join("in.png"), &picture(31, 17), Default::default())
        .unwrap();
    let srk = |arguments: &[&str]| common::command::srk(folder.path(), arguments);
    let Run { code, out: info, err: error, .. } = srk(&["models", "info", "net.param"]);
    assert_eq!(code, 0, "{error}");
    assert!(info.contains("ncnn-graph") && info.contains("squeeze and excitation"), "{info}");
    assert!(info.lines().all(|line| line.len() < 1500), "{info}");
    let Run { code, err: error, .. } = srk(&["models", "import", "net.param"]);
    assert_eq!(code, 0, "{error}");
    for (model, output) in [("net.param", "a.png"), ("net.safetensors", "b.png")] {
        let Run { code, err: error, .. } =
            srk(&["upscale", "--no-stamp", "--device", "cpu", "-m", model, "in.png", output]);
        assert_eq!(code, 0, "{error}");
    }
    let [a, b] =
        ["a.png", "b.png"].map(|name| srk::imaging::read(&folder.path().join(name)).unwrap());
    assert_eq!([a.width, a.height], [62, 34]);
    assert!(a.samples == b.samples, "the imported file gives another picture");
    std::fs::remove_file(folder.path().join("net.bin")).unwrap();
    let Run { code, err: error, .. } = srk(&["upscale", "-m", "net.param", "in.png", "c.png"]);
    assert_eq!(code, 3, "{error}");
    assert!(error.contains("net.bin"), "{error}");
}

/// On a GPU: the same picture, and the memory that was promised.
#[test]
fn a_gpu_runs_the_layers_in_the_memory_that_was_promised() {
    let folder = tempfile::tempdir().unwrap();
    for squeezed in [false, true] {
        let gpu = common::fast_gpu();
        let system = written(&ncnn_files::eating_borders(squeezed), folder.path(), "net.param");
        let image = picture(64, 48);
        let on_cpu =
            Upscaler::new(system.on(&Device::Cpu, DType::F32).unwrap(), &Device::Cpu, DType::F32);
        let (wanted, ..) = enlarged(&on_cpu.unwrap(), &image, TileSize::None);
        let system = system.on(&Device::Cuda(gpu.clone()), DType::F32).unwrap();
        let pixels = 64 * 48;
        let low = Tensor::from_slice_on(
            &Device::Cuda(gpu.clone()),
            &random(pixels * 3, 3),
            &[1, 48, 64, 3],
        )
        .unwrap();
        let before = gpu.usage().used;
        let mut tape = Tape::inference();
        let seen = tape.input(low);
        let t = Tensor::from_vec(vec![1.0f32], &[1]);
        drop(system.network.forward(&mut tape, &seen.clone(), &seen, &t).unwrap());
        let peak = (gpu.usage().peak - before) as f64 / (4 * pixels) as f64;
        let promised = system.network.floats_per_pixel() as f64;
        // The border of 10 pixels weighs more in so small a picture than in a tile of 256.
        let border = (64.0 + 10.0) * (48.0 + 10.0) / pixels as f64;
        println!("{peak:.0} floats a pixel, {promised} promised, the border makes {border:.2}");
        let of_large_tile = peak / border;
        assert!(of_large_tile < 1.2 * promised && promised < 2.0 * of_large_tile);
        let upscaler = Upscaler::new(system, &Device::Cuda(gpu.clone()), DType::F32).unwrap();
        let (got, ..) = enlarged(&upscaler, &image, TileSize::None);
        assert!(wanted.iter().zip(&got).all(|(a, b)| a.abs_diff(*b) <= 1), "squeezed: {squeezed}");
    }
}

/// Published networks against what ncnn makes of the same picture.
#[test]
fn published_networks_agree_with_ncnn() {
    let mut compared = 0;
    for golden in Golden::all() {
        let Some(path) = golden.param() else { continue };
        let system = ncnn::open(&path).map_err(|e| e.to_string()).unwrap();
        let network = graph_of(&system);
        let (y, shape) = raw(&network, &golden.input, golden.size);
        assert_eq!(shape[1..], golden.shape, "{}", golden.name);
        let error = relative(&y, &golden.output);
        println!("{error:.1e}  {}", golden.name);
        assert!(error <= 1e-4, "{} is off by {error:.1e}", golden.name);
        compared += 1;
    }
    if compared == 0 {
        println!("skipped: no package");
    }
}

/// The network of `system` as a graph, to run it without border or range.
fn graph_of(system: &System) -> Graph {
    let ModelConfig::Graph(config) = &system.config.model else {
        panic!("{:?}", system.config.model)
    };
    let network = Graph::new(config);
    for (to, from) in network.parameters().iter().zip(system.network.parameters()) {
        to.set(from.value());
    }
    network
}

/// Every file of the packages opens, at the factor of its name.
#[test]
fn every_published_file_opens() {
    let all = packages();
    for path in &all {
        let system = ncnn::open(path).map_err(|e| format!("{}: {e}", path.display())).unwrap();
        let (scale, name) =
            (system.scale(), path.file_stem().unwrap().to_string_lossy().to_lowercase());
        println!("x{scale}, {} floats, {}", system.network.floats_per_pixel(), path.display());
        // Names such as up2x, spanx4_ch48, 4xSPANkendata, scale2.0x_model.
        let name = (0..4).fold(name, |name, i| name.replace(&format!("noise{i}x"), ""));
        let told = (1..=4).find(|n| {
            [format!("{n}x"), format!("x{n}"), format!("{n}.0x")]
                .iter()
                .any(|word| name.contains(word))
        });
        assert_eq!(scale, told.unwrap_or(1), "{}", path.display());
    }
    if all.is_empty() {
        println!("skipped: no package");
    }
}
