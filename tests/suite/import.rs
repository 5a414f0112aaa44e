//! Importing checkpoints: what PyTorch wrote, every known network, and files that lie.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]
use crate::common;

use std::fs;
use std::path::{Path, PathBuf};

use common::command::{Run, srk};
use common::torch_file as torch;
use srk::diffusion::system::System;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::Error;
use srk::import::detect;
use srk::import::{self, Imported, Request};
use srk::models::weights::{WeightsFile, file_shape, to_file_layout};
use srk::models::{Network, Shapes};

/// What PyTorch wrote with `tests/pickle/make.py`.
fn written(name: &str) -> Vec<u8> {
    fs::read(Path::new("tests/pickle").join(name)).unwrap()
}

#[test]
fn tensors_that_pytorch_wrote_are_read() {
    for kind in ["zip", "legacy"] {
        let all = import::tensors(written(&format!("types.{kind}.pth")), None).unwrap();
        let n = |range: &[usize]| range.iter().map(|&i| i as f32 / 8.0).collect::<Vec<f32>>();
        let turned: Vec<usize> = (0..24).map(|i| i % 4 * 6 + i / 4).collect();
        let expected = [
            ("plain", vec![4, 6], n(&(0..24).collect::<Vec<_>>())),
            ("turned", vec![6, 4], n(&turned)),
            ("part", vec![3, 4], n(&(5..17).collect::<Vec<_>>())),
            ("strided", vec![5], n(&[1, 6, 11, 16, 21])),
            ("half", vec![3, 2], n(&[0, 1, 2, 3, 4, 5])),
            ("bf", vec![5], n(&[0, 1, 2, 3, 4])),
            ("f64", vec![2, 2], n(&[0, 1, 2, 3])),
            ("count", vec![], vec![7.0]),
            ("i8", vec![2], vec![1.0, -2.0]),
            ("i16", vec![2], vec![300.0, -4.0]),
            ("i32", vec![2], vec![3.0, -4.0]),
            ("u8", vec![2], vec![3.0, 250.0]),
            ("flag", vec![2], vec![1.0, 0.0]),
            ("parameter", vec![3], n(&[0, 1, 2])),
            ("empty", vec![0, 3], vec![]),
        ];
        assert_eq!(all.len(), expected.len(), "{kind}");
        for (name, shape, values) in expected {
            assert_eq!(all[name], (shape, values), "{kind}: {name}");
        }
    }
}

#[test]
fn the_state_dict_is_found_among_optimizers_and_schedules() {
    for kind in ["zip", "legacy"] {
        let bytes = written(&format!("whole.{kind}.pth"));
        for key in [None, Some("model_state")] {
            let all = import::tensors(bytes.clone(), key).unwrap();
            assert_eq!(all.len(), 7, "{kind}: {:?}", all.keys());
            assert_eq!(all["0.bias"], (vec![2], vec![100.0, 101.0]), "{kind}");
            assert_eq!(all["0.weight"].1[17], 17.0, "{kind}");
            assert_eq!(all["1.num_batches_tracked"], (vec![], vec![1.0]), "{kind}");
        }
        let error = import::tensors(bytes, Some("none")).unwrap_err().to_string();
        assert!(error.contains("no entry none, but epoch, model_state"), "{error}");
    }
}

/// The network's weights in the layout of files.
fn state(network: &dyn Network) -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let entry = |p: &srk::engine::parameter::Parameter| {
        let value = p.value();
        let values = to_file_layout(p.layout(), &value).unwrap();
        (p.name().to_owned(), file_shape(p.layout(), value.shape()), values)
    };
    network.state().iter().map(entry).collect()
}

/// The output for a small image, as bits.
fn output(network: &dyn Network, scale: usize) -> Vec<u32> {
    let (low, channels) = (16, network.channels());
    let image = |side: usize, step: f32| {
        let len = side * side * channels;
        let values: Vec<f32> = (0..len).map(|i| (i as f32 * step).sin()).collect();
        Tensor::from_vec(values, &[1, side, side, channels])
    };
    let mut tape = Tape::inference();
    let condition = network.condition(&image(low, 0.1), &image(low * scale, 0.03)).unwrap();
    // Of a network of latents the state is smaller than the image.
    let factor = network.first_stage().map_or(1, |vq| vq.config().factor());
    let [condition, x] = [condition, image(low * scale / factor, 0.07)].map(|v| tape.input(v));
    let t = Tensor::from_vec(vec![0.5], &[1]);
    let y = network.forward(&mut tape, &x, &condition, &t).unwrap();
    y.value().to_f32_vec().unwrap().iter().map(|v| v.to_bits()).collect()
}

fn import(bytes: Vec<u8>, request: &Request) -> Result<Imported, Error> {
    common::torch_file::imported(&bytes, request)
}

#[test]
fn every_known_network_comes_back_bit_for_bit() {
    for known in detect::known() {
        let config = (known.narrow)();
        let network = config.build(3);
        let expected = output(&*network, config.scale());
        let plain = state(&*network);
        let prefixed = |prefix: &str| -> Vec<_> {
            plain.iter().map(|(n, s, v)| (format!("{prefix}{n}"), s.clone(), v.clone())).collect()
        };
        let metadata = Default::default();
        let safetensors = WeightsFile::of(&network.state(), metadata).unwrap();
        let files = [
            safetensors.to_bytes(srk::engine::device::DType::F32),
            torch::checkpoint(&plain, &[]),
            torch::checkpoint(&prefixed("module."), &["model_state_dict"]),
            torch::checkpoint(&prefixed("module.denoise_fn."), &["model", "state_dict"]),
        ];
        for (i, bytes) in files.into_iter().enumerate() {
            let imported = import(bytes, &Request::default())
                .unwrap_or_else(|e| panic!("{}, file {i}: {e}", known.name));
            assert_eq!(imported.config.model, config, "{}, file {i}", known.name);
            assert!(imported.ignored.is_empty(), "{:?}", imported.ignored);
            let system = System::from_file(&imported.file, known.name).unwrap();
            let got = output(&*system.network, config.scale());
            assert!(got == expected, "{}, file {i}: another output", known.name);
        }
    }
}

#[test]
fn parts_that_are_not_trained_come_from_files_of_their_own() {
    let place = tempfile::tempdir().unwrap();
    let config = (detect::by_name("swin-unet").unwrap().narrow)();
    let network = config.build(3);
    let (part, rest): (Vec<_>, Vec<_>) =
        state(&*network).into_iter().partition(|t| t.0.starts_with("first_stage."));
    let error = import(torch::checkpoint(&rest, &[]), &Request::default()).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("--frozen"), "{error}");
    let named = |(name, shape, values): &(String, Vec<usize>, Vec<f32>)| {
        (name.replace("first_stage.", "module."), shape.clone(), values.clone())
    };
    let part: Vec<_> = part.iter().map(named).collect();
    let file = place.path().join("autoencoder.pth");
    fs::write(&file, torch::checkpoint(&part, &["state_dict"])).unwrap();
    let request = Request { frozen: Some(file.clone()), ..Request::default() };
    let imported = import(torch::checkpoint(&rest, &[]), &request).unwrap();
    assert_eq!(imported.config.model, config);
    let system = System::from_file(&imported.file, "both").unwrap();
    assert!(output(&*system.network, 4) == output(&*network, 4), "another output");
    // The other way round, and a network without such a part.
    fs::write(&file, torch::checkpoint(&rest, &[])).unwrap();
    let text = import(torch::checkpoint(&rest, &[]), &request).unwrap_err().to_string();
    assert!(text.contains("encoder.conv_in.weight"), "{text}");
    let other = (detect::by_name("residual-unet").unwrap().narrow)().build(3);
    let text = import(torch::checkpoint(&state(&*other), &[]), &request).unwrap_err().to_string();
    assert!(text.contains("no part with a checkpoint of its own"), "{text}");
}

#[test]
fn schedules_and_buffers_beside_the_network_are_understood() {
    let known = detect::by_name("sr3-unet").unwrap();
    let network = (known.narrow)().build(3);
    let mut tensors: Vec<_> =
        state(&*network).into_iter().map(|(n, s, v)| (format!("denoise_fn.{n}"), s, v)).collect();
    let betas = |i: usize| 1e-4 + (0.02 - 1e-4) * i as f32 / 499.0;
    tensors.push(("betas".into(), vec![500], (0..500).map(betas).collect()));
    tensors.push(("posterior_mean_coef1".into(), vec![500], vec![0.0; 500]));
    let imported = import(torch::checkpoint(&tensors, &[]), &Request::default()).unwrap();
    assert_eq!(imported.config.diffusion.process.steps(), 500);
    assert_eq!(imported.ignored, ["betas", "posterior_mean_coef1"]);
    let text = &imported.file.metadata["srk.diffusion"];
    assert!(text.contains("\"start\":0.0001}") && text.contains("\"end\":0.02,"), "{text}");
    assert!(imported.notes[0].contains("500 steps"), "{:?}", imported.notes);
}

#[test]
fn averaged_weights_are_preferred_and_others_can_be_named() {
    let known = detect::by_name("residual-unet").unwrap();
    let [old, new] = [1, 2].map(|seed| state(&*(known.narrow)().build(seed)));
    let mut pickled = vec![0x80, 2, b'}', b'('];
    let mut files = Vec::new();
    for (name, tensors, first) in [("params", &old, 0), ("params_ema", &new, old.len())] {
        torch::text(&mut pickled, name);
        pickled.extend(b"}(");
        for (i, (name, shape, values)) in tensors.iter().enumerate() {
            torch::text(&mut pickled, name);
            let mut strides = vec![1; shape.len()];
            (1..shape.len()).rev().for_each(|i| strides[i - 1] = strides[i] * shape[i]);
            torch::view(&mut pickled, first + i, values.len(), 0, shape, &strides);
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            files.push((format!("c/data/{}", first + i), bytes));
        }
        pickled.push(b'u');
    }
    pickled.extend(b"u.");
    files.push(("c/data.pkl".to_owned(), pickled));
    let bytes = torch::zip(&files, 0);
    for (weights, expected) in [(None, &new), (Some("params"), &old)] {
        let request = Request { weights: weights.map(str::to_owned), ..Request::default() };
        let imported = import(bytes.clone(), &request).unwrap();
        let (name, _, values) = &expected[0];
        assert_eq!(&imported.file.tensors[name].1, values, "{weights:?}");
    }
}

#[test]
fn what_does_not_fit_is_counted_and_named() {
    let network = (detect::by_name("residual-unet").unwrap().narrow)().build(3);
    let all = state(&*network);
    let explain = |tensors: &[(String, Vec<usize>, Vec<f32>)], request: &Request| {
        let error = import(torch::checkpoint(tensors, &[]), request).unwrap_err();
        (error.exit_code(), error.to_string())
    };
    let request = Request::default();
    let fewer: Vec<_> = all.iter().filter(|t| !t.0.starts_with("norm")).cloned().collect();
    let (code, text) = explain(&fewer, &request);
    assert!(code == 3 && text.contains("20 are missing (norm1_1.weight, norm1_1.bias,"), "{text}");
    let mut more = all.clone();
    more.push(("extra.weight".into(), vec![1], vec![0.0]));
    let (_, text) = explain(&more, &request);
    assert!(text.contains("1 are unexpected (extra.weight)"), "{text}");
    let lax = Request { ignore_unexpected: true, ..Request::default() };
    assert_eq!(import(torch::checkpoint(&more, &[]), &lax).unwrap().ignored, ["extra.weight"]);
    let mut nan = all.clone();
    nan[3].2[0] = f32::NAN;
    assert!(explain(&nan, &request).1.contains("is NaN"));
    let others: Vec<_> = fewer.iter().filter(|t| !t.0.starts_with("time")).cloned().collect();
    let (code, text) = explain(&others, &request);
    assert!(code == 3 && text.contains("nearest is residual-unet"), "{text}");
    let forced = Request { arch: Some("sr3-unet".into()), ..Request::default() };
    assert!(explain(&all, &forced).1.contains("tensors of sr3-unet are there"));
    let wrong = Request { arch: Some("sr3unet".into()), ..Request::default() };
    let (code, text) = explain(&all, &wrong);
    assert!(code == 2 && text.contains("did you mean --arch sr3-unet"), "{text}");
    let set = Request { overrides: vec!["model.scale=2".into()], ..Request::default() };
    let imported = import(torch::checkpoint(&all, &[]), &set).unwrap();
    assert_eq!(imported.config.model.scale(), 2);
    let bad = Request { overrides: vec!["model.no=2".into()], ..Request::default() };
    assert!(explain(&all, &bad).1.contains("there is no model.no"));
}

#[test]
fn damaged_files_are_errors() {
    let network = (detect::by_name("residual-unet").unwrap().narrow)().build(3);
    let safetensors = WeightsFile::of(&network.state()[..4], Default::default()).unwrap();
    let files = [
        written("types.zip.pth"),
        written("types.legacy.pth"),
        written("whole.zip.pth"),
        written("whole.legacy.pth"),
        safetensors.to_bytes(srk::engine::device::DType::F16),
    ];
    let mut refused = 0;
    for bytes in files {
        assert!(import::tensors(bytes.clone(), None).is_ok());
        for end in 0..bytes.len() {
            refused += usize::from(import::tensors(bytes[..end].to_vec(), None).is_err());
        }
        for at in 0..bytes.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                refused += usize::from(import::tensors(changed, None).is_err());
            }
        }
    }
    assert!(refused > 10_000, "only {refused}");
}

/// Tensors with attributes of their own, a dict with a default, a counter of a type that is not read, and the oldest container
/// with later protocols, whose numbers are framed.
#[test]
fn what_people_save_beside_plain_dicts_is_read() {
    let mut view = Vec::new();
    torch::view(&mut view, 0, 4, 0, &[4], &[1]);
    let function = b"ctorch._utils\n_rebuild_tensor_v2\n";
    let arguments = &view[function.len()..view.len() - 1];
    let typed = b"ctorch._tensor\n_rebuild_from_type_v2\n";
    let tensor = [b"ctorch\nTensor\n", arguments, b"}tR"].concat();
    assert!(why(&[&typed[..], b"(", function, &tensor].concat()).contains("\"a\": ([4]"));
    assert!(why(&[&typed[..], b"(", typed, &tensor].concat()).contains("none of its entries"));

    let mut dict = b"\x80\x02ccollections\ndefaultdict\n(c__builtin__\nint\ntR(".to_vec();
    torch::text(&mut dict, "w");
    let files = [
        ("c/data.pkl".to_owned(), [&dict[..], &view, b"u."].concat()),
        ("c/data/0".to_owned(), vec![0; 16]),
    ];
    assert_eq!(import::tensors(torch::zip(&files, 0), None).unwrap()["w"].0, [4]);

    let counted = |counter: &str| {
        let header = format!(
            r#"{{"w":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}},"{counter}":{{"dtype":"U64","shape":[1],"data_offsets":[4,12]}}}}"#
        );
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 12]];
        import::tensors(bytes.concat(), None).map_err(|e| e.to_string())
    };
    assert_eq!(counted("module.n_averaged").unwrap().len(), 1);
    assert!(counted("v").unwrap_err().contains("v is of type U64"));

    let legacy = written("whole.legacy.pth");
    let (magic, rest) = legacy.split_at(15);
    assert_eq!((magic[..2].to_vec(), magic[14]), (vec![0x80, 2], b'.'));
    for head in [&[0x80, 3][..], &[0x80, 4, 0x95, 13, 0, 0, 0, 0, 0, 0, 0]] {
        let all = import::tensors([head, &magic[2..], rest].concat(), None).unwrap();
        assert_eq!(all["0.bias"], (vec![2], vec![100.0, 101.0]));
    }
}

/// Of a checkpoint with the pickle `body`, whose one storage has 4 numbers: why it is refused.
fn why(body: &[u8]) -> String {
    let files = [
        ("c/data.pkl".to_owned(), [b"\x80\x02}X\x01\0\0\0a", body, b"s."].concat()),
        ("c/data/0".to_owned(), vec![0; 16]),
    ];
    match import::tensors(torch::zip(&files, 0), None) {
        Ok(all) => format!("{all:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn hostile_pickles_neither_run_nor_take_memory() {
    let view = |len, offset, shape: &[usize], strides: &[usize]| {
        let mut body = Vec::new();
        torch::view(&mut body, 0, len, offset, shape, strides);
        why(&body)
    };
    assert!(view(4, 0, &[2, 2], &[2, 1]).contains("[2, 2]"));
    for (len, offset, shape, strides) in [
        (4, 1, &[2, 2][..], &[2, 1][..]),
        (4, 0, &[1 << 30, 1 << 30, 1 << 30], &[1 << 30, 1 << 30, 1]),
    ] {
        assert!(view(len, offset, shape, strides).contains("leaves its storage"), "{shape:?}");
    }
    for (shape, strides) in [(&[1 << 30, 1 << 30][..], &[0, 0][..]), (&[5], &[0])] {
        assert!(view(4, 0, shape, strides).contains("repeats its 4 numbers"), "{shape:?}");
    }
    assert!(view(1 << 30, 0, &[1 << 30], &[1]).contains("has 16 bytes for 1073741824 numbers"));
    assert!(view(4, 0, &[4], &[1, 1]).contains("strides"));
    // A call of another function is not made; what it would give is not looked into.
    let system = b"cposix\nsystem\n(X\x0b\0\0\0touch ownedtR";
    assert!(why(system).contains("none of its entries holds tensors"));
    assert!(!Path::new("owned").exists());
    // What another class would hold is not found either.
    let mut object = b"cevil\nDict\n)R(".to_vec();
    torch::text(&mut object, "w");
    torch::view(&mut object, 0, 4, 0, &[4], &[1]);
    object.push(b'u');
    assert!(why(&object).contains("none of its entries holds tensors"));
    assert!(why(b"\x80\x02(((").contains("opcode") || why(b"(((").contains("damaged"));
    assert!(why(b"h\x07").contains("there is no value 7"));
    assert!(why(b"X\xff\xff\xff\x7f").contains("ends too early"));
    assert!(why(b"i").contains("opcode 0x69"));
    // A list within itself, and many within each other.
    assert!(why(b"]q\0h\0a").contains("none of its entries"));
    let nested = [vec![b']'; 100_000], vec![b'a'; 99_999]].concat();
    assert!(why(&nested).contains("none of its entries"));
    // A dict that is its own entry.
    assert!(why(b"}q\0X\x05\0\0\0modelh\0s").contains("none of its entries"));

    let files = [("c/data.pkl".to_owned(), b"\x80\x02}.".to_vec())];
    let error = import::tensors(torch::zip(&files, 8), None).unwrap_err().to_string();
    assert!(error.contains("compressed"), "{error}");
    let files = [files[0].clone(), ("c/byteorder".to_owned(), b"big".to_vec())];
    let error = import::tensors(torch::zip(&files, 0), None).unwrap_err().to_string();
    assert!(error.contains("big-endian"), "{error}");
}

/// Names and shapes of the original implementations' state dicts, where they are at hand: beside the
/// folder of golden files.
fn published(name: &str) -> Option<Shapes> {
    let golden = std::env::var_os("SRK_GOLDEN").unwrap_or_else(|| "../shared/golden".into());
    let golden = PathBuf::from(golden);
    let path = golden.parent()?.join(format!("reference/layers/{name}.params.tsv"));
    let text = fs::read_to_string(path).ok()?;
    let mut shapes = Shapes { file: name.to_owned(), ..Shapes::default() };
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut fields = line.split('\t');
        let (key, shape) = (fields.next()?, fields.next()?);
        let axes = shape.split('x').filter_map(|n| n.parse().ok()).collect();
        shapes.shapes.insert(key.to_owned(), axes);
    }
    Some(shapes)
}

#[test]
fn published_networks_are_recognised_with_their_sizes() {
    use srk::models::*;
    let sr3 = sr3_unet::Sr3UNetConfig::default();
    let large = sr3_unet::Sr3UNetConfig {
        multipliers: vec![1, 2, 4, 8, 16],
        blocks: 1,
        groups: 16,
        attention: vec![],
        ..sr3.clone()
    };
    let deep = attention_unet::AttentionUNetConfig::default();
    let attending = attention_unet::AttentionUNetConfig { attention: true, ..deep.clone() };
    let places = biggan_unet::BigGanUNetConfig::default();
    let mnist = biggan_unet::BigGanUNetConfig { channels: 1, time_dim: 32, ..places.clone() };
    let srddpm =
        srddpm_unet::SrddpmUNetConfig { time: srddpm_unet::TimeInput::Raw, ..Default::default() };
    let cases = [
        ("seed003_srddpm_unet", ModelConfig::SrddpmUNet(srddpm)),
        ("seed003_srgan_generator", ModelConfig::Srgan(Default::default())),
        ("seed003_srdiff_official_rrdb", ModelConfig::Rrdb(Default::default())),
        ("seed000_sr3", ModelConfig::AttentionUNet(deep)),
        ("seed000_sr3_attn", ModelConfig::AttentionUNet(attending)),
        ("seed001_dualdomain", ModelConfig::DualDomainUNet(Default::default())),
        ("seed001_experiment_resdiff", ModelConfig::ResidualUNet(Default::default())),
        ("seed002_sr3_mnist", ModelConfig::BigGanUNet(mnist)),
        ("seed002_sr3_miniplaces", ModelConfig::BigGanUNet(places)),
        ("seed004_lapcnn", ModelConfig::Laplacian(laplacian::LaplacianConfig::published())),
        ("ref_sr3_janspiry_16_128", ModelConfig::Sr3UNet(sr3)),
        ("ref_sr3_janspiry_64_512", ModelConfig::Sr3UNet(large)),
    ];
    for (name, expected) in cases {
        let Some(shapes) = published(name) else { continue };
        let known = detect::identify(&shapes).unwrap_or_else(|| panic!("{name} is not known"));
        assert_eq!(known.config(&shapes), Some(expected), "{name}");
        let (found, all) = detect::matches(known, &shapes);
        // Narrow networks have fewer levels.
        assert!(found * 2 >= all, "{name}: {found} of {all}");
    }
    // SRDiff's checkpoint: its parts under prefixes of their own, of which one is cut off.
    let both =
        published("seed003_srdiff_official_unet").zip(published("seed003_srdiff_official_rrdb"));
    if let Some((mut unet, encoder)) = both {
        let named = encoder.shapes.into_iter().map(|(key, shape)| (format!("rrdb.{key}"), shape));
        unet.shapes.extend(named);
        let config = detect::identify(&unet).and_then(|known| known.config(&unet));
        assert_eq!(config, Some(ModelConfig::SrdiffUNet(Default::default())));
    }
    let both = published("ref_resshift_unet_swin").zip(published("ref_resshift_vq_f4"));
    if let Some((mut unet, autoencoder)) = both {
        let alone = swin_unet::SwinUNetConfig::default();
        let known = detect::identify(&unet).unwrap();
        assert_eq!(known.config(&unet), Some(ModelConfig::SwinUNet(alone.clone())));
        let below = |(key, shape)| (format!("first_stage.{key}"), shape);
        unet.shapes.extend(autoencoder.shapes.into_iter().map(below));
        let autoencoder = Some(vq::VqConfig::default());
        let whole = swin_unet::SwinUNetConfig { autoencoder, ..alone };
        assert_eq!(known.config(&unet), Some(ModelConfig::SwinUNet(whole)));
    }
    // No two entries take the same file.
    for known in detect::known() {
        let network = (known.narrow)().build(0);
        let shapes = state(&*network).into_iter().map(|(n, s, _)| (n, s)).collect();
        let shapes = Shapes { shapes, file: String::new() };
        let taken = detect::known().filter(|k| k.config(&shapes).is_some()).count();
        assert_eq!(taken, 1, "{}", known.name);
    }
}

#[test]
fn the_command_imports_and_the_file_upscales() {
    let folder = tempfile::tempdir().unwrap();
    let network = (detect::by_name("residual-unet").unwrap().narrow)().build(3);
    let bytes = torch::checkpoint(&state(&*network), &["model_state"]);
    fs::write(folder.path().join("old.pt"), bytes).unwrap();
    common::training::write_image(&folder.path().join("in.png"), 12, 9, 1);
    let srk = |arguments: &[&str]| srk(folder.path(), arguments);
    let Run { code, out, err, .. } = srk(&["models", "import", "old.pt"]);
    assert_eq!(code, 0, "{err}");
    for words in ["residual-unet, x4", "under model_state", "the recipe resshift-experiment"] {
        assert!(out.contains(words), "{words} is not in {out}");
    }
    let Run { code, err, .. } = srk(&["models", "import", "old.pt"]);
    assert!(code == 2 && err.contains("--overwrite"), "{err}");
    let Run { code, err, .. } =
        srk(&["upscale", "-m", "old.safetensors", "in.png", "out.png", "--steps", "2"]);
    assert_eq!(code, 0, "{err}");
    let Run { code, err, .. } = srk(&["models", "import", "in.png"]);
    assert!(code == 3 && err.contains("in.png"), "{err}");
}
