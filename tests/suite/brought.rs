//! Models that people bring: what their files say beside the network's tensors, the wrappers that these come in, and what
//! is said of a file that does not fit what was asked.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]
use crate::common;

use common::torch_file as torch;
use srk::diffusion::system::System;
use srk::engine::device::DType;
use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::import::{self, Imported, Request};
use srk::models::compact::{Activation, CompactConfig};
use srk::models::edsr::EdsrConfig;
use srk::models::rrdb::RrdbConfig;
use srk::models::span::{DIV2K_MEAN, SpanConfig};
use srk::models::weights::{WeightsFile, file_shape, to_file_layout};
use srk::models::{ModelConfig, Network};

type Named = (String, Vec<usize>, Vec<f32>);

fn state(model: &ModelConfig, seed: u64) -> Vec<Named> {
    let entry = |p: &srk::engine::parameter::Parameter| {
        let value = p.value();
        let values = to_file_layout(p.layout(), &value).unwrap();
        (p.name().to_owned(), file_shape(p.layout(), value.shape()), values)
    };
    model.build(seed).state().iter().map(entry).collect()
}

fn below(prefix: &str, all: &[Named]) -> Vec<Named> {
    all.iter().map(|(n, s, v)| (format!("{prefix}{n}"), s.clone(), v.clone())).collect()
}

fn import(tensors: &[Named], overrides: &[&str]) -> srk::error::Result<Imported> {
    let overrides = overrides.iter().map(|&s| s.to_owned()).collect();
    torch::imported(
        &torch::checkpoint(tensors, &["params"]),
        &Request { overrides, ..Request::default() },
    )
}

/// Why a file with such settings is refused.
fn refused(tensors: &[Named], overrides: &[&str]) -> String {
    import(tensors, overrides).err().unwrap().to_string()
}

fn compact() -> ModelConfig {
    ModelConfig::Compact(CompactConfig { channels: 8, depth: 2, scale: 2, ..Default::default() })
}

fn rrdb(scale: usize) -> ModelConfig {
    ModelConfig::Rrdb(RrdbConfig { base: 8, blocks: 1, growth: 4, scale, unshuffle: 1 })
}

/// EDSR under its authors' names, with their convolutions around it for `range` and `mean`.
fn authors_edsr(range: f32, mean: [f32; 3]) -> Vec<Named> {
    let config = EdsrConfig { channels: 8, blocks: 1, scale: 2, ..Default::default() };
    let renamed = |name: &str| {
        let name = name.replace(".conv1.", ".body.0.").replace(".conv2.", ".body.2.");
        let name = name.replace("conv_first", "head.0").replace("conv_after_body", "body.1");
        name.replace("upsample.", "tail.0.").replace("conv_last", "tail.1")
    };
    let own = state(&ModelConfig::Edsr(config), 5);
    let mut all: Vec<Named> = own.into_iter().map(|(n, s, v)| (renamed(&n), s, v)).collect();
    let eye = (0..9).map(|i| if i % 4 == 0 { 1.0 } else { 0.0 }).collect::<Vec<f32>>();
    for (name, sign) in [("sub_mean", -1.0), ("add_mean", 1.0)] {
        all.push((format!("{name}.weight"), vec![3, 3, 1, 1], eye.clone()));
        let bias = mean.map(|m| sign * range * m).to_vec();
        all.push((format!("{name}.bias"), vec![3], bias));
    }
    all
}

#[test]
fn range_and_mean_of_an_edsr_are_those_of_its_shifts() {
    let div2k = DIV2K_MEAN.map(|m| m as f32);
    let other = ([0.3f32, 0.5, 0.6], [0.3, 0.5, 0.6]);
    for (range, (mean, wanted)) in
        [(255.0, (div2k, DIV2K_MEAN)), (1.0, (div2k, DIV2K_MEAN)), (255.0, other), (1.0, other)]
    {
        let imported = import(&authors_edsr(range, mean), &[]).unwrap();
        let ModelConfig::Edsr(config) = &imported.config.model else { panic!("no EDSR") };
        assert_eq!((config.range, config.mean), (f64::from(range), wanted));
        // Read, so neither left out nor assumed.
        assert!(imported.ignored.is_empty(), "{:?}", imported.ignored);
        assert!(!imported.assumed.contains("model.range"), "{}", imported.assumed);
        assert!(!imported.assumed.contains("model.mean"), "{}", imported.assumed);
        assert!(imported.assumed.contains("model.residual_scale"), "{}", imported.assumed);
    }
    // The user has the last word, and black says nothing of the range.
    let set = import(&authors_edsr(1.0, div2k), &["model.range=2"]).unwrap();
    assert!(matches!(&set.config.model, ModelConfig::Edsr(c) if c.range == 2.0));
    let black = import(&authors_edsr(255.0, [0.0; 3]), &[]).unwrap();
    assert!(matches!(&black.config.model, ModelConfig::Edsr(c) if c.mean == [0.0; 3]));
    assert!(black.assumed.contains("model.range"), "{}", black.assumed);
    let changed = |name: &str, values: &[f32]| {
        let mut all = authors_edsr(255.0, div2k);
        all.iter_mut().find(|t| t.0 == name).unwrap().2 = values.to_vec();
        refused(&all, &[])
    };
    let text = changed("add_mean.bias", &[0.4488, 0.4371, 0.404]);
    assert!(text.contains("takes off [114.4") && text.contains("adds [0.44"), "{text}");
    let text = changed("sub_mean.bias", &[114.0, 111.0, 103.0]);
    assert!(text.contains("sub_mean.bias is [114.0"), "{text}");
    let text = changed("sub_mean.weight", &[2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0]);
    assert!(text.contains("sub_mean.weight") && text.contains("deviations"), "{text}");
    assert!(changed("add_mean.bias", &[f32::NAN; 3]).contains("add_mean.bias is [NaN"));
}

#[test]
fn nothing_is_said_to_be_assumed_that_was_set() {
    let relu = CompactConfig { activation: Activation::Relu, depth: 2, ..Default::default() };
    let relu = state(&ModelConfig::Compact(relu), 1);
    let span = SpanConfig { channels: 8, blocks: 2, ..Default::default() };
    let span = state(&ModelConfig::Span(span), 1);
    let assumed = |tensors: &[Named], set: &[&str]| {
        let imported = import(tensors, set).unwrap();
        let held = imported.file.metadata.get("srk.assumed").cloned();
        assert_eq!(held.unwrap_or_default(), imported.assumed);
        imported.assumed
    };
    assert!(assumed(&relu, &[]).contains("model.activation"));
    assert_eq!(assumed(&relu, &["model.activation=relu"]), "");
    assert_eq!(assumed(&relu, &["model.activation=leaky-relu"]), "");
    let mean = "model.mean=[0.4488,0.4371,0.4040]";
    assert!(assumed(&span, &[]).contains("model.range=1"));
    assert_eq!(assumed(&span, &["model.range=255", mean]), "");
    let left = assumed(&span, &["model.range=1"]);
    assert!(left.contains("model.mean") && !left.contains("model.range"), "{left}");
    let mut edsr = authors_edsr(255.0, [0.5; 3]);
    edsr.truncate(edsr.len() - 4);
    let left = assumed(&edsr, &["model.residual_scale=1", "model.range=255"]);
    assert!(left.contains("model.mean") && !left.contains("residual"), "{left}");
}

/// That `bytes` hold the tensors `wanted`.
fn gives(bytes: &[u8], wanted: &[Named], what: &str) -> Imported {
    let imported = torch::imported(bytes, &Request::default());
    let imported = imported.unwrap_or_else(|e| panic!("{what}: {e}"));
    for (name, _, values) in wanted {
        assert_eq!(&imported.file.tensors[name].1, values, "{what}: {name}");
    }
    imported
}

/// A safetensors file of `tensors`.
fn safetensors(tensors: &[Named]) -> Vec<u8> {
    let tensors = tensors.iter().cloned().map(|(n, s, v)| (n, (s, v))).collect();
    WeightsFile { tensors, ..Default::default() }.to_bytes(DType::F32)
}

#[test]
fn containers_that_became_parts_of_names_are_taken_off() {
    let [new, old] = [1, 2].map(|seed| state(&compact(), seed));
    for prefix in ["params.", "params_ema.", "params-ema.", "params_ema.module."] {
        gives(&safetensors(&below(prefix, &new)), &new, prefix);
    }
    let both = [below("params_ema.", &new), below("params.", &old)].concat();
    let imported = gives(&safetensors(&both), &new, "both");
    assert!(imported.ignored.is_empty(), "{:?}", imported.ignored);
}

#[test]
fn a_generator_is_read_beside_what_judges_it() {
    let own = state(&compact(), 1);
    for [prefix, judge] in [["generator.", "discriminator."], ["netG.", "netD."]] {
        let of_judge = |i: usize| (format!("{judge}body.{i}.weight"), vec![2], vec![0.0; 2]);
        let all = [below(prefix, &own), (0..20).map(of_judge).collect()].concat();
        let imported = gives(&torch::checkpoint(&all, &["state_dict"]), &own, prefix);
        assert_eq!(imported.ignored.len(), 20);
        assert!(imported.ignored[0].starts_with(judge), "{:?}", imported.ignored);
    }
    // Of the network itself nothing is passed over.
    let mut more = below("generator.", &own);
    more.push(("generator.extra.weight".into(), vec![1], vec![0.0]));
    assert!(refused(&more, &[]).contains("extra.weight"));
}

/// The pickle of several dicts of arrays of numpy under their names, see [`array`].
fn dicts(all: &[(&str, &[Named])], as_text: bool) -> Vec<u8> {
    let mut out = vec![0x80, 2, b'}', b'('];
    for (name, tensors) in all {
        torch::text(&mut out, name);
        out.extend(b"}(");
        for (name, shape, values) in *tensors {
            torch::text(&mut out, name);
            array(&mut out, shape, values, as_text);
        }
        out.push(b'u');
    }
    out.extend(b"u.");
    out
}

/// An array of numpy with its bytes in the pickle, or as text, as pickles before protocol 3 have them.
fn array(out: &mut Vec<u8>, shape: &[usize], values: &[f32], as_text: bool) {
    out.extend(b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85C\x01b\x87R(K\x01");
    torch::numbers(out, shape);
    out.extend(b"cnumpy\ndtype\nX\x02\0\0\0f4\x89\x88\x87R(K\x03X\x01\0\0\0<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89");
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    if as_text {
        out.extend(b"c_codecs\nencode\n");
        torch::text(out, &bytes.iter().map(|&b| char::from(b)).collect::<String>());
        torch::text(out, "latin1");
        out.extend(b"\x86R");
    } else {
        out.push(b'B');
        out.extend((bytes.len() as u32).to_le_bytes());
        out.extend(bytes);
    }
    out.extend(b"tb");
}

#[test]
fn arrays_of_numpy_are_read_in_every_container() {
    let own = state(&compact(), 1);
    for as_text in [false, true] {
        let pickled = dicts(&[("params", &own)], as_text);
        let zip = torch::zip(
            &[
                ("c/version".to_owned(), b"3\n".to_vec()),
                ("c/data.pkl".to_owned(), pickled.clone()),
            ],
            0,
        );
        let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.";
        let legacy = [&magic[..], b"\x80\x02}.", &pickled, b"\x80\x02]."].concat();
        for (what, bytes) in [("zip", zip), ("legacy", legacy), ("pickle", pickled)] {
            gives(&bytes, &own, &format!("{what}, as text: {as_text}"));
        }
    }
}

#[test]
fn averages_are_preferred_however_they_are_spelled() {
    let [new, old] = [1, 2].map(|seed| state(&compact(), seed));
    for name in ["params-ema", "params_ema"] {
        gives(&dicts(&[("params", &old), (name, &new)], false), &new, name);
    }
}

#[test]
fn a_tensor_that_repeats_its_numbers_is_called_that() {
    let mut body = vec![0x80, 2, b'}'];
    torch::text(&mut body, "a.bias");
    torch::view(&mut body, 0, 1, 0, &[16], &[0]);
    body.extend(b"s.");
    let files = [("c/data.pkl".to_owned(), body), ("c/data/0".to_owned(), vec![0; 4])];
    let bytes = torch::zip(&files, 0);
    let error = torch::imported(&bytes, &Request::default()).err().unwrap().to_string();
    assert!(error.contains("[16] repeats its 1 numbers"), "{error}");
    assert!(error.contains(".contiguous()") && !error.contains("damaged"), "{error}");
}

/// The enlargement of a picture of 6x5 pixels, rows of rows of colours.
fn enlarged(network: &dyn Network) -> Tensor {
    let value = |i: usize| (i as f32 * 0.37).sin();
    let low = Tensor::from_vec((0..90).map(value).collect(), &[1, 6, 5, 3]);
    let mut tape = Tape::inference();
    let low = tape.input(low);
    let t = Tensor::from_vec(vec![1.0f32], &[1]);
    network.forward(&mut tape, &low.clone(), &low, &t).unwrap().value().try_clone().unwrap()
}

/// One step of 2 has the tensors of one of 3: that is said, and can be set.
#[test]
fn a_factor_of_3_is_one_step_of_rrdb() {
    let mut tensors = state(&rrdb(3), 1);
    let imported = import(&tensors, &[]).unwrap();
    assert_eq!(imported.config.model, rrdb(2));
    assert!(imported.assumed.contains("model.scale=3"), "{}", imported.assumed);
    assert_eq!(import(&state(&rrdb(4), 1), &[]).unwrap().assumed, "");
    // Without the convolution behind it that looks around, each pixel becomes nine: layers of one tap.
    for (name, shape, values) in &mut tensors {
        if shape.len() == 4 && !name.starts_with("conv_first") && !name.contains("trunk") {
            values.iter_mut().enumerate().filter(|(i, _)| i % 9 != 4).for_each(|(_, v)| *v = 0.0);
        }
    }
    let imported = import(&tensors, &["model.scale=3"]).unwrap();
    assert_eq!((&imported.config.model, &imported.assumed[..]), (&rrdb(3), ""));
    let [two, three] = [import(&tensors, &[]).unwrap(), imported]
        .map(|imported| enlarged(&*System::from_file(&imported.file, "rrdb").unwrap().network));
    assert_eq!((two.shape(), three.shape()), (&[1, 12, 10, 3][..], &[1, 18, 15, 3][..]));
    let (two, three) = (two.to_f32_vec().unwrap(), three.to_f32_vec().unwrap());
    for (i, &got) in three.iter().enumerate() {
        let (row, column, colour) = (i / 45, i / 3 % 15, i % 3);
        let wanted = two[(row / 3 * 2 * 10 + column / 3 * 2) * 3 + colour];
        assert!((got - wanted).abs() < 1e-5, "{row}, {column}: {got} for {wanted}");
    }
}

#[test]
fn what_does_not_fit_what_was_asked_is_said_with_what_would() {
    let four = state(&rrdb(4), 1);
    let text = refused(&four, &["model.scale=2"]);
    assert!(text.contains("is of factor 4, not 2") && text.contains("--scale"), "{text}");
    assert!(!text.contains("--ignore-unexpected"), "{text}");
    let text = refused(&four, &["model.growht=4"]);
    assert!(text.contains("did you mean model.growth?"), "{text}");
    let weights = |bytes: &[u8]| {
        let request = Request { weights: Some("nosuch".into()), ..Request::default() };
        torch::imported(bytes, &request).err().unwrap().to_string()
    };
    let text = weights(&torch::checkpoint(&four, &["params"]));
    assert!(text.contains("but params") && text.contains("names one of these"), "{text}");
    let text = weights(&torch::checkpoint(&four, &[]));
    assert!(text.contains("leave --weights out") && !text.contains("download"), "{text}");
    assert!(import::tensors(torch::checkpoint(&four, &[]), None).is_ok());
}
