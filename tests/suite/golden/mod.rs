//! Outputs, gradients and tables of the original implementations.
//!
//! Reads every .safetensors file in the folders named by `SRK_GOLDEN` (colon-separated; default
//! `../shared/golden`). What a file holds and how it was made stands in its metadata, so that a new
//! file of a known kind needs no code. Prints how many cases of each kind ran and which kinds are
//! not known yet.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
#![allow(clippy::print_stdout, unreachable_pub)]
mod blocks;
mod file;
mod images;
mod layers;
mod network;
mod parameters;
mod perceptual;
mod spec;
mod tables;
mod teaching;
mod training;
mod trajectories;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use file::File;

/// What became of one file.
pub enum Outcome {
    /// This many cases were compared and agree.
    Passed(usize),
    /// These disagree, and by how much.
    Failed(Vec<String>),
    /// The system is not implemented yet.
    Unknown(String),
}

fn folders() -> Vec<PathBuf> {
    match std::env::var("SRK_GOLDEN") {
        Ok(list) => list.split(':').map(PathBuf::from).collect(),
        Err(_) => vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden")],
    }
}

fn run(file: &File) -> Outcome {
    match file.text("kind") {
        "network forward and backward" => network::run(file),
        "three training steps" => training::run(file),
        "blocks" => blocks::run(file),
        "tables" => tables::run(file),
        "trajectories" => trajectories::run(file),
        "images" => images::run(file),
        "values" => values::run(file),
        "perceptual metrics" => perceptual::run(file),
        other => Outcome::Unknown(format!("kind \"{other}\"")),
    }
}

#[test]
fn golden_files_agree() {
    let mut files: Vec<PathBuf> = folders()
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.map(|e| e.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    if files.is_empty() {
        assert!(std::env::var_os("SRK_GOLDEN").is_none(), "SRK_GOLDEN names no .safetensors file");
        println!("skipped: no ../shared");
        return;
    }
    let (mut passed, mut unknown, mut failed) = (BTreeMap::new(), vec![], vec![]);
    for path in files {
        let file = File::read(&path);
        let label = format!("{} / {}", file.text("kind"), file.text("system"));
        match run(&file) {
            Outcome::Passed(cases) => *passed.entry(label).or_insert(0) += cases,
            Outcome::Unknown(what) => unknown.push(format!("{}: {what}", file.name)),
            Outcome::Failed(rows) => {
                failed.extend(rows.into_iter().map(|row| format!("{}: {row}", file.name)));
            }
        }
    }
    for (kind, cases) in &passed {
        println!("{cases:4} cases agree   {kind}");
    }
    for what in &unknown {
        println!("not known yet: {what}");
    }
    assert!(failed.is_empty(), "{} golden values disagree:\n{}", failed.len(), failed.join("\n"));
    assert!(!passed.is_empty(), "no golden file was of a known kind");
}
