//! The weights of perceptual distances that `tests/fetch_features.py` fetches, imported once for a test.
use std::path::PathBuf;

use srk::engine::device::DType;
use srk::import::features::features;
use tempfile::TempDir;

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
