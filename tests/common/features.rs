//! The weights of perceptual distances that `tests/fetch_features.py` fetches, imported once for a test, and made-up ones.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use srk::engine::device::DType;
use srk::import::features::features;
use srk::models::perceptual::backbone::{Architecture, Backbone, Pooling};
use srk::models::perceptual::dists::CHANNELS;
use srk::models::perceptual::lpips::head_name;
use srk::models::weights::WeightsFile;
use srk::nn::Init;
use tempfile::TempDir;

/// A network whose weights `seed` makes up, with the heads of LPIPS, as the file `name` in `folder`.
pub(crate) fn made_up(folder: &Path, name: &str, architecture: Architecture, seed: u64) {
    let trunk = Backbone::new(Init::new(seed), architecture, Pooling::Max);
    let mut file = WeightsFile::of(trunk.parameters(), BTreeMap::new()).unwrap();
    for (i, c) in architecture.channels().into_iter().enumerate() {
        file.tensors.insert(head_name(i), (vec![c], vec![0.5; c]));
    }
    file.write(&folder.join(name), DType::F32).unwrap();
}

/// Weights of the channels of DISTS, all alike, as the file `name` in `folder`.
pub(crate) fn made_up_dists(folder: &Path, name: &str) {
    let both = ["alpha", "beta"]
        .map(|key| (key.to_owned(), (vec![1, CHANNELS, 1, 1], vec![0.1f32; CHANNELS])));
    let file = WeightsFile { tensors: both.into(), ..WeightsFile::default() };
    file.write(&folder.join(name), DType::F32).unwrap();
}

/// Where the fetched files are.
pub(crate) fn fetched() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/srk"));
    let cache = std::env::var_os("SRK_CACHE").filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = cache.or_else(home)?.join("perceptual");
    let names = ["alexnet.ckpt", "vgg16.ckpt", "dists.pt", "niqe.mat"];
    names.iter().all(|name| folder.join(name).is_file()).then_some(folder)
}

/// A folder of features; none where they were not fetched.
pub(crate) fn folder() -> Option<TempDir> {
    let (from, to) = (fetched()?, tempfile::tempdir().unwrap());
    for name in ["alexnet.ckpt", "vgg16.ckpt", "dists.pt", "niqe.mat"] {
        let found = features(&from.join(name), None).unwrap().expect("they are features");
        let path = to.path().join(name).with_extension("safetensors");
        found.file.write(&path, DType::F32).unwrap();
    }
    Some(to)
}
