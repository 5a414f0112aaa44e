//! Nothing dead: what only tests call is no part of the program.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use crate::source::Source;

/// Functions that only tests call, and why they stay.
const ALLOWED: &[(&str, &str)] = &[
    ("src/engine/cuda/launch.rs like_or_null", LAUNCHERS),
    ("src/engine/cuda/launch.rs tensor_or_null", LAUNCHERS),
    ("src/engine/cuda/launch.rs untyped", LAUNCHERS),
    ("src/engine/op_case.rs kernel_tol", CASES),
    ("src/engine/op_case.rs gradient_error", CASES),
    ("src/engine/op_case.rs f32_bits", CASES),
    ("src/engine/op_case.rs reference", CASES),
    (
        "src/engine/workers.rs with_count",
        "tests compare results at several numbers of threads in one process",
    ),
    ("src/engine/tape.rs with_running_statistics", "for those who train a part of a network"),
    (
        "src/engine/grads.rs of_parameter",
        "the way to a gradient for those who have an optimizer of their own",
    ),
    (
        "src/imaging/resample/originals.rs torch_bicubic",
        "what `torch_bicubic_up` is compared with, and PyTorch with it",
    ),
];

const LAUNCHERS: &str = "called by the launchers that build.rs writes";
const CASES: &str = "what tests and benches do with an op is written beside its cases";

/// A function that other files may call, but whose name no code below `src/` writes.
///
/// By names alone: of two functions with one name, one that is called hides one that is not. Methods of traits are
/// called by their trait, and what a package's user calls (`src/lib.rs`, `src/library.rs`) by others.
#[test]
fn every_visible_function_is_called_by_the_program() {
    let source = Source::read();
    let main = std::fs::read_to_string("src/main.rs").unwrap();
    let called: BTreeSet<&str> =
        source.modules.values().flat_map(|m| m.words.iter().map(String::as_str)).collect();
    let (mut checked, mut dead) = (0, Vec::new());
    for module in source.modules.values().filter(|m| !m.file.ends_with("library.rs")) {
        for function in &module.functions {
            checked += 1;
            let name = function.name.as_str();
            let place = format!("{}:{} {name}", module.file.display(), function.line);
            let allowed = ALLOWED
                .iter()
                .any(|(path, _)| *path == format!("{} {name}", module.file.display()));
            if !called.contains(name) && !main.contains(name) && !allowed {
                dead.push(place);
            }
        }
    }
    assert!(checked > 1000, "only {checked} functions were found");
    for (path, why) in ALLOWED {
        let (file, name) = path.split_once(' ').unwrap();
        let mut functions =
            source.modules.values().filter(|m| m.file.ends_with(file)).flat_map(|m| &m.functions);
        let is_there = functions.any(|f| f.name == name);
        assert!(is_there && !called.contains(name), "{path} ({why}): leave it out of the list");
    }
    assert!(dead.is_empty(), "{} functions that only tests call:\n{}", dead.len(), dead.join("\n"));
}
