//! Files of weights: whether they are whole, where they are, names that are not there, and pickles that mean harm.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::path::Path;

use common::command::srk;
use common::torch_file as torch;
use common::training::{Place, finish};
use serde_json::Value;
use srk::engine::cuda::sha256;
use srk::models::ModelConfig;
use srk::models::compact::CompactConfig;
use srk::models::weights::WeightsFile;

#[test]
fn a_file_is_verified_to_its_last_byte() {
    let place = Place::new();
    let out = place.runs("out");
    finish(&place.config(&["run.steps=1"]), &out, None);
    let folder = out.join("tiny/ckpt/1");
    let bytes = fs::read(folder.join("ema.safetensors")).unwrap();
    let sum = sha256::hex(&bytes);
    let ended = srk(&folder, &["models", "verify", "ema.safetensors", "srk-x4"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains(&format!("{sum}  ema.safetensors\n")), "{}", ended.out);
    assert!(ended.err.contains("ema.safetensors: dual-domain-grid x4"), "{}", ended.err);
    assert!(ended.out.contains("in this binary  srk-x4"), "{}", ended.out);
    // Cut, and with a number that is none.
    fs::write(folder.join("cut.safetensors"), &bytes[..bytes.len() - 7]).unwrap();
    let mut nan = bytes.clone();
    let end = nan.len();
    nan[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(folder.join("nan.safetensors"), &nan).unwrap();
    for name in ["cut.safetensors", "nan.safetensors"] {
        let ended = srk(&folder, &["models", "verify", name]);
        assert_eq!(ended.code, 3, "{name}: {}", ended.err);
        assert!(ended.err.contains(name), "{}", ended.err);
    }
    let all = ["models", "verify", "nan.safetensors", "ema.safetensors", "--json"];
    let ended = srk(&folder, &all);
    assert_eq!(ended.code, 3, "{}", ended.err);
    let events: Vec<Value> = ended.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((&events[0]["status"], &events[1]["status"]), (&"failed".into(), &"ok".into()));
    assert_eq!(events[1]["sha256"], sum.as_str());
    assert_eq!(events.last().unwrap()["code"], "some_failed");
    // Where a run's weights are.
    let ended = srk(&out, &["models", "path", "tiny"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(Path::new(ended.out.trim()).ends_with("tiny/ckpt/1/ema.safetensors"), "{}", ended.out);
    assert_eq!(srk(&out, &["models", "path"]).code, 0);
}

/// Of a run the file that stands for it is verified, and said where the newest is damaged.
#[test]
fn a_run_is_verified_with_the_file_that_stands_for_it() {
    let place = Place::new();
    let out = place.runs("out");
    finish(&place.config(&["run.steps=2", "ckpt.every=1"]), &out, None);
    let file = out.join("tiny/ckpt/2/ema.safetensors");
    let bytes = fs::read(&file).unwrap();
    let ended = srk(&out, &["models", "verify", "tiny"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains(&format!("{}  tiny", sha256::hex(&bytes))), "{}", ended.out);
    fs::write(&file, &bytes[..3000]).unwrap();
    let ended = srk(&out, &["models", "verify", "tiny"]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.err.contains("taking the checkpoint of step 1"), "{}", ended.err);
    let ended = srk(&out, &["models", "export", "tiny", "x.safetensors"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("warning") && ended.err.contains("of step 1"), "{}", ended.err);
}

/// A best checkpoint that is gone is not replaced by the newest without a word.
#[test]
fn a_best_checkpoint_that_is_gone_is_missed() {
    let place = Place::new();
    let out = place.runs("out");
    finish(&place.config(&["run.steps=2", "ckpt.every=1"]), &out, None);
    fs::write(out.join("tiny/ckpt/best"), "1\n").unwrap();
    let path = || srk(&out, &["models", "path", "tiny"]);
    let ended = path();
    assert!(ended.out.contains("ckpt/1/") && !ended.err.contains("warning"), "{}", ended.err);
    fs::remove_dir_all(out.join("tiny/ckpt/1")).unwrap();
    let ended = path();
    assert!(ended.code == 0 && ended.out.contains("ckpt/2/"), "{}", ended.out);
    assert!(ended.err.contains("best names step 1, whose checkpoint is gone"), "{}", ended.err);
}

/// SPAN is exported from the folder of its run, folded, with all that the run says of itself; and a file of others of it
/// starts a training, in the form that it was trained in.
#[test]
fn span_is_exported_whole_and_starts_from_files_of_others() {
    let place = Place::new();
    let folder = place.runs("work");
    fs::create_dir_all(&folder).unwrap();
    let paths = format!("data.train.paths=[{:?}]", place.images().display().to_string());
    let train = |more: &[&str]| {
        let mut arguments = vec!["train", "--recipe", "span", "-q"];
        for set in [
            "model.channels=8",
            "model.blocks=2",
            &paths,
            "data.val.paths=[]",
            "data.train.crop=32",
            "data.train.batch=1",
            "run.steps=1",
            "optim.lr=1e-30",
        ] {
            arguments.extend(["--set", set]);
        }
        let ended = srk(&folder, &[&arguments[..], more].concat());
        assert_eq!(ended.code, 0, "{}", ended.err);
        ended
    };
    train(&["--set", "degrade.preset=photo", "--set", "degrade.deblock=0.5"]);
    let ended = srk(&folder, &["models", "export", "runs/span", "out.safetensors"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let of = |path: &str| WeightsFile::read(&folder.join(path)).unwrap();
    let (own, exported) = (of("runs/span/ckpt/1/model.safetensors"), of("out.safetensors"));
    assert_eq!(exported.metadata["srk.deblock"], "0.5");
    assert_eq!(
        (&exported.metadata["srk.degrade"][..], &exported.metadata["srk.recipe"][..]),
        ("photo", "span")
    );
    assert!(exported.tensors.contains_key("conv_1.eval_conv.weight"));

    let named = own.tensors.iter().map(|(n, (s, v))| (format!("module.{n}"), s.clone(), v.clone()));
    let file = torch::checkpoint(&named.collect::<Vec<_>>(), &["params"]);
    fs::write(folder.join("net.pth"), file).unwrap();
    train(&["--from", "net.pth", "--set", "run.name=on"]);
    assert!(of("runs/on/ckpt/1/model.safetensors").tensors == own.tensors);
}

#[test]
fn a_name_that_is_not_there_is_answered_with_one_that_is() {
    let place = Place::new();
    let folder = place.runs("work");
    fs::create_dir_all(folder.join("runs/digits")).unwrap();
    fs::write(folder.join("network.pth"), "").unwrap();
    fs::write(folder.join("run.toml"), place.text()).unwrap();
    for (arguments, words) in [
        (&["models", "import", "netwrok.pth"][..], ["did you mean network.pth?", "no such file"]),
        (
            &["sample", "runs/digit", "-o", "a.png"],
            ["did you mean runs/digits?", "sample from runs/digit"],
        ),
        (&["sample", "nosuch", "-o", "a.png"], ["runs/NAME", "gan, dcgan"]),
        (
            &["train", "run.toml", "--from", "network.pht"],
            ["did you mean network.pth?", "cannot start from"],
        ),
        (&["models", "import", "there/x.pth"], ["the folder there is not there", ".pth"]),
    ] {
        let ended = srk(&folder, arguments);
        assert_eq!(ended.code, 3, "{arguments:?}: {}", ended.err);
        for word in words {
            assert!(ended.err.contains(word), "{word}: {}", ended.err);
        }
    }
    assert!(!folder.join("runs/tiny").exists());
}

#[test]
fn calls_that_a_pickle_asks_for_are_named_and_not_made() {
    let place = Place::new();
    let folder = place.runs("work");
    fs::create_dir_all(&folder).unwrap();
    let mut call = Vec::new();
    torch::text(&mut call, "evil");
    call.extend(b"cposix\nsystem\n(");
    torch::text(&mut call, "touch owned");
    call.extend(b"tRs");
    // Nothing but the call.
    let alone = [&b"\x80\x02}"[..], &call, b"."].concat();
    fs::write(folder.join("alone.pth"), torch::zip(&[("c/data.pkl".to_owned(), alone)], 0))
        .unwrap();
    let ended = srk(&folder, &["models", "import", "alone.pth"]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.err.contains("posix.system") && ended.err.contains("never"), "{}", ended.err);
    // Beside weights that can be used.
    let config = CompactConfig { channels: 8, depth: 2, scale: 4, ..CompactConfig::default() };
    let network = ModelConfig::Compact(config).build(1);
    let file = WeightsFile::of(&network.state(), Default::default()).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> =
        file.tensors.into_iter().map(|(name, (shape, values))| (name, shape, values)).collect();
    let mut pickle = torch::pickle(&tensors, &["params"]);
    pickle.splice(3..3, call);
    let mut files = vec![("c/data.pkl".to_owned(), pickle)];
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect();
    files.extend(tensors.iter().enumerate().map(|(i, t)| (format!("c/data/{i}"), bytes(&t.2))));
    fs::write(folder.join("both.pth"), torch::zip(&files, 0)).unwrap();
    let ended = srk(&folder, &["models", "import", "both.pth"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("asks to call posix.system"), "{}", ended.out);
    let ended = srk(&folder, &["models", "info", "both.pth"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("posix.system"), "{}", ended.err);
    assert!(!folder.join("owned").exists());
}
