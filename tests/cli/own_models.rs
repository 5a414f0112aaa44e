//! Weights of others where a model is named: files as they come, folders of them, and what is no weights.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::collections::BTreeMap;
use std::fs;

use common::command::{Run, srk};
use common::torch_file as torch;
use common::training::write_image;
use srk::engine::device::DType;
use srk::models::ModelConfig;
use srk::models::compact::CompactConfig;
use srk::models::errn2::Errn2Config;
use srk::models::weights::{WeightsFile, file_shape, to_file_layout};

type Named = (String, Vec<usize>, Vec<f32>);

fn small() -> ModelConfig {
    ModelConfig::Errn2(Errn2Config { channels: 8, blocks: 1, depth: 2, scale: 2 })
}

/// The weights of a network in the layout of files.
fn state(config: &ModelConfig, seed: u64) -> Vec<Named> {
    let entry = |p: &srk::engine::parameter::Parameter| {
        let value = p.value();
        let values = to_file_layout(p.layout(), &value).unwrap();
        (p.name().to_owned(), file_shape(p.layout(), value.shape()), values)
    };
    config.build(seed).state().iter().map(entry).collect()
}

/// A folder with a picture and the same network as .pth, as plain .safetensors and as srk's own file.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_image(&folder.path().join("in.png"), 14, 11, 1);
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.pth"), torch::checkpoint(&state(&small(), 1), &["params_ema"])).unwrap();
    let network = small().build(1);
    let plain = WeightsFile::of(&network.state(), BTreeMap::new()).unwrap();
    fs::write(at("b.safetensors"), plain.to_bytes(DType::F32)).unwrap();
    let Run { code, err, .. } =
        srk(folder.path(), &["models", "import", "a.pth", "-o", "c.safetensors"]);
    assert_eq!(code, 0, "{err}");
    folder
}

#[test]
fn any_weights_file_works_where_a_model_is_named() {
    let folder = folder();
    let mut pictures = Vec::new();
    for (i, model) in [
        &["-m", "a.pth"][..],
        &["-m", "b.safetensors"],
        &["-m", "c.safetensors"],
        &["-n", "a.pth"],
        &["-m", ".", "-n", "a"],
        &["-m", ".", "-n", "b.safetensors"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("{i}.png");
        // Outputs say of which weights they are, not of which file.
        let arguments = [&["upscale", "in.png", &out, "-j", "1"], model].concat();
        let Run { code, err, .. } = srk(folder.path(), &arguments);
        assert_eq!(code, 0, "{model:?}: {err}");
        assert!(err.contains("14x11 -> 28x22"), "{err}");
        pictures.push(fs::read(folder.path().join(out)).unwrap());
    }
    assert!(pictures.iter().all(|p| *p == pictures[0]));
    let Run { code, err, .. } =
        srk(folder.path(), &["upscale", "in.png", "x.png", "-m", ".", "-n", "aa"]);
    assert!(code == 2 && err.contains("did you mean -n a?"), "{err}");
    let Run { code, out, err, .. } = srk(folder.path(), &["models", "info", "a.pth"]);
    assert_eq!(code, 0, "{err}");
    for words in ["network          errn2", "scale            2", "parameters       2852"] {
        assert!(out.contains(words), "{words} is not in {out}");
    }
    let export = ["models", "export", "a.pth", "d.safetensors", "--f32", "--license", "MIT"];
    let Run { code, err, .. } = srk(folder.path(), &export);
    assert_eq!(code, 0, "{err}");
    let Run { out, .. } = srk(folder.path(), &["models", "info", "d.safetensors"]);
    assert!(out.contains("MIT") && out.contains("errn2"), "{out}");
    fs::create_dir(folder.path().join("hr")).unwrap();
    write_image(&folder.path().join("hr/high.png"), 48, 40, 1);
    let Run { code, err, .. } =
        srk(folder.path(), &["eval", "--hr", "hr", "--scale", "2", "-m", "a.pth"]);
    assert!(code == 0, "{err}");
}

#[test]
fn a_folder_of_files_is_listed_with_what_each_is() {
    let folder = folder();
    let page = "<!DOCTYPE html>\n<html><body>Not found</body></html>";
    fs::write(folder.path().join("page.pth"), page).unwrap();
    let compact = ModelConfig::Compact(CompactConfig {
        channels: 8,
        depth: 1,
        scale: 3,
        ..Default::default()
    });
    fs::write(folder.path().join("e.pt"), torch::checkpoint(&state(&compact, 1), &[])).unwrap();
    let Run { code, out, err, .. } = srk(folder.path(), &["models", "list", "."]);
    assert_eq!(code, 0, "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}");
    assert!(lines[0].starts_with("name"), "{out}");
    let has = |line: &str, all: &[&str]| all.iter().all(|w| line.contains(w));
    assert!(has(lines[1], &["a.pth", "errn2", "x2"]), "{out}");
    assert!(has(lines[4], &["e.pt", "compact", "x3"]), "{out}");
    assert!(has(lines[5], &["page.pth", "a web page"]), "{out}");
    let Run { out, .. } = srk(folder.path(), &["models", "list", ".", "--json"]);
    let first: serde_json::Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((&first["file"], &first["scale"]), (&"a.pth".into(), &2.into()));
}

#[test]
fn what_is_no_weights_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    write_image(&folder.path().join("in.png"), 8, 8, 1);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 67040989\n";
    let script = [
        ("m/data.pkl".to_owned(), b"\x80\x02}.".to_vec()),
        ("m/code/__torch__.py".to_owned(), b"class Net(Module):\n".to_vec()),
        ("m/constants.pkl".to_owned(), b"\x80\x02).".to_vec()),
    ];
    let optimizer = |names: &[&str]| {
        let mut pickled = vec![0x80, 2, b'}', b'('];
        for name in names {
            torch::text(&mut pickled, name);
            pickled.extend(b"]");
        }
        pickled.extend(b"u.");
        torch::zip(&[("c/data.pkl".to_owned(), pickled)], 0)
    };
    for (name, bytes, words) in [
        ("lfs.pth", pointer.as_bytes().to_vec(), ["Git LFS pointer", "git lfs pull"]),
        ("page.safetensors", b"\n<html><head>404".to_vec(), ["a web page", "download link"]),
        ("script.pt", torch::zip(&script, 0), ["TorchScript", "torch.jit.load"]),
        // Newer versions compress the program.
        ("packed.pt", torch::zip(&script, 8), ["TorchScript", "torch.jit.load"]),
        (
            "40.state",
            optimizer(&["epoch", "iter", "optimizers", "schedulers"]),
            ["state of a training", "net_g"],
        ),
        (
            "net_opt.pth",
            optimizer(&["epoch", "iter", "scheduler", "optimizer"]),
            ["state of a training", "_gen"],
        ),
        ("empty.pth", vec![], ["is empty", "download the file again"]),
        ("none.pth", optimizer(&[]), ["no dict of tensors", "srk models import"]),
        ("other.safetensors", tensor_of("F16"), ["of no network", "srk models import"]),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
        for command in
            [&["upscale", "in.png", "o.png", "-m"][..], &["models", "info"], &["models", "import"]]
        {
            let Run { code, err, .. } = srk(folder.path(), &[command, &[name]].concat());
            assert!(
                code == 3 && words.iter().all(|w| err.contains(w)),
                "{command:?} {name}: {err}"
            );
        }
    }
}

/// A safetensors file with one tensor of two bytes.
fn tensor_of(dtype: &str) -> Vec<u8> {
    let header =
        format!(r#"{{"conv_1.weight":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,2]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0, 0]].concat()
}

#[test]
fn element_types_that_are_not_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut complex = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((".to_vec();
    torch::text(&mut complex, "storage");
    complex.extend(b"ctorch\nComplexFloatStorage\n");
    torch::text(&mut complex, "0");
    torch::text(&mut complex, "cpu");
    complex.extend(b"J\x01\0\0\0tQJ\0\0\0\0");
    torch::numbers(&mut complex, &[1]);
    torch::numbers(&mut complex, &[1]);
    complex.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    // As PyTorch 2 writes types without a class of storages.
    let mut float8 = b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v3\n((".to_vec();
    torch::text(&mut float8, "storage");
    float8.extend(b"ctorch.storage\nUntypedStorage\n");
    torch::text(&mut float8, "0");
    torch::text(&mut float8, "cpu");
    float8.extend(b"J\x01\0\0\0tQJ\0\0\0\0");
    torch::numbers(&mut float8, &[1]);
    torch::numbers(&mut float8, &[1]);
    float8.extend(b"\x89ccollections\nOrderedDict\n)Rctorch\nfloat8_e4m3fn\ntRs.");
    let zipped = |pickled| {
        let data = ("c/data/0".to_owned(), vec![0; 8]);
        torch::zip(&[("c/data.pkl".to_owned(), pickled), data], 0)
    };
    for (name, bytes, element) in [
        ("a.safetensors", tensor_of("F8_E4M3"), "F8_E4M3"),
        ("b.safetensors", tensor_of("U16"), "U16"),
        ("c.pth", zipped(complex), "ComplexFloat"),
        ("d.pth", zipped(float8), "float8_e4m3fn"),
    ] {
        fs::write(folder.path().join(name), bytes).unwrap();
        let Run { code, err, .. } = srk(folder.path(), &["models", "info", name]);
        let said =
            err.contains(element) && err.contains("does not read") && err.contains(".float()");
        assert!(code == 3 && said, "{name}: {err}");
    }
}

#[test]
fn averages_of_wrappers_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let [old, new] = [1, 2].map(|seed| state(&small(), seed));
    let below = |prefix: &str, all: &[Named]| -> Vec<Named> {
        all.iter().map(|(n, s, v)| (format!("{prefix}{n}"), s.clone(), v.clone())).collect()
    };
    let counted = |name: &str| vec![(name.to_owned(), vec![], vec![3.0])];
    // ema_pytorch keeps both; torch's AveragedModel counts.
    let both = [
        below("online_model.", &old),
        below("ema_model.", &new),
        counted("initted"),
        counted("step"),
    ]
    .concat();
    let averaged = [below("module.", &new), counted("n_averaged")].concat();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("ema.pth"), torch::checkpoint(&both, &[])).unwrap();
    fs::write(path("swa.pth"), torch::checkpoint(&averaged, &["state_dict"])).unwrap();
    fs::write(
        path("compiled.pth"),
        torch::checkpoint(&below("_orig_mod.module.", &new), &["params"]),
    )
    .unwrap();
    let wanted: BTreeMap<_, _> = new.into_iter().map(|(n, s, v)| (n, (s, v))).collect();
    for name in ["ema.pth", "swa.pth", "compiled.pth"] {
        let Run { code, out, err, .. } =
            srk(folder.path(), &["models", "import", name, "-o", "out.safetensors", "--overwrite"]);
        assert_eq!(code, 0, "{name}: {err} {out}");
        let file = WeightsFile::read(&path("out.safetensors")).unwrap();
        assert!(file.tensors == wanted, "{name}");
    }
}
