//! The prebuilt kernels are those of the sources, whole, and load on the drivers they should.
#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use srk::engine::cuda::{images, sha256};

const RUN: &str = "run `python3 kernels/prebuild.py`";

/// File names and hashes that the manifest lists as `kind`.
fn listed(kind: &str) -> BTreeMap<String, String> {
    let manifest = fs::read_to_string("kernels/prebuilt/manifest.txt").unwrap();
    let lines = manifest.lines().filter_map(|line| line.strip_prefix(kind)?.trim().split_once(' '));
    lines.map(|(hash, name)| (name.to_owned(), hash.to_owned())).collect()
}

/// Hashes of the files in `folder` with one of these extensions.
fn found(folder: &str, extensions: &[&str]) -> BTreeMap<String, String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted = files.filter(|path| {
        path.extension().is_some_and(|e| extensions.contains(&e.to_str().unwrap_or_default()))
    });
    let name = |path: &std::path::Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    wanted.map(|path| (name(&path), sha256::hex(&fs::read(&path).unwrap()))).collect()
}

/// The names under which there is not the same on both sides.
fn differing(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> BTreeSet<String> {
    let names = a.keys().chain(b.keys());
    names.filter(|name| a.get(*name) != b.get(*name)).cloned().collect()
}

#[test]
fn they_are_of_these_sources() {
    let changed = differing(&listed("source"), &found("kernels", &["cu", "cuh"]));
    assert!(changed.is_empty(), "kernels changed: {changed:?}: {RUN}");
}

#[test]
fn they_are_whole() {
    let damaged = differing(&listed("pack"), &found("kernels/prebuilt", &["bin"]));
    assert!(damaged.is_empty(), "damaged: {damaged:?}: {RUN}");
}

#[test]
fn what_differs_is_named() {
    let of = |all: &[(&str, &str)]| {
        all.iter().map(|&(name, hash)| (name.to_owned(), hash.to_owned())).collect()
    };
    let differ = differing(
        &of(&[("a", "1"), ("b", "2"), ("c", "3")]),
        &of(&[("b", "2"), ("c", "4"), ("d", "5")]),
    );
    assert_eq!(differ.into_iter().collect::<Vec<_>>(), ["a", "c", "d"]);
}

#[cfg(feature = "cuda")]
#[test]
fn old_drivers_load_them() {
    let stems: Vec<String> =
        listed("source").into_keys().filter_map(|n| Some(n.strip_suffix(".cu")?.into())).collect();
    let packs: Vec<String> =
        listed("pack").into_keys().filter_map(|n| Some(n.strip_suffix(".bin")?.into())).collect();
    assert_eq!(packs, stems);
    let manifest = fs::read_to_string("kernels/prebuilt/manifest.txt").unwrap();
    let archs: Vec<&str> =
        manifest.lines().filter_map(|line| line.strip_prefix("architecture ")).collect();
    assert_eq!(archs, ["75", "80", "86", "89", "90a", "100", "120", "ptx80"]);
    for stem in stems {
        let pack = fs::read(format!("kernels/prebuilt/{stem}.bin")).unwrap();
        for arch in &archs {
            let code = images::code(&pack, arch).unwrap_or_else(|e| panic!("{stem}: {e}"));
            if arch.starts_with("ptx") {
                let text = std::str::from_utf8(code.strip_suffix(b"\0").unwrap()).unwrap();
                assert!(text.contains("\n.version 7.0\n.target sm_80\n"), "{stem}: {text:.300}");
            } else {
                // ABI 7 loads on drivers from 525 on, 8 (all there is for sm_100 and sm_120) from 570 on.
                let abi = if ["100", "120"].contains(arch) { 8 } else { 7 };
                assert_eq!((&code[..4], code[8]), (&b"\x7fELF"[..], abi), "{stem} for {arch}");
            }
        }
    }
}
