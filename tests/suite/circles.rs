//! Floors between files: no file of `src/` uses, over whatever others, itself.
//!
//! File A uses file B if code in A writes a path or an import whose item B defines. Re-exports are followed to the
//! definition, so that a `mod.rs` which declares and re-exports is used by nobody; `mod x;` alone is no use, and
//! methods are called without a path. Code under `#[cfg(test)]` does not count.
#![allow(clippy::unwrap_used)]
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::source::Source;

/// The files that each file uses.
type Graph = BTreeMap<PathBuf, BTreeSet<PathBuf>>;

fn graph(source: &Source) -> Graph {
    let mut graph = Graph::new();
    for (names, module) in &source.modules {
        let imports = module.uses.iter().map(|u| &u.names);
        let files = imports.chain(&module.paths).filter_map(|path| source.file_of(names, path));
        let used = graph.entry(module.file.clone()).or_default();
        used.extend(files.filter(|file| *file != module.file).map(Path::to_owned));
    }
    graph
}

/// Files that use each other, as sets.
fn circles(graph: &Graph) -> Vec<BTreeSet<PathBuf>> {
    let reached = |from: &PathBuf| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            next.extend(graph[file].iter().filter(|used| seen.insert((*used).clone())));
        }
        seen
    };
    let all: BTreeMap<&PathBuf, BTreeSet<PathBuf>> =
        graph.keys().map(|file| (file, reached(file))).collect();
    let together = |file: &PathBuf| {
        all[file].iter().filter(|other| all[other].contains(file)).cloned().collect()
    };
    let sets: BTreeSet<BTreeSet<PathBuf>> = graph.keys().map(together).collect();
    sets.into_iter().filter(|set| !set.is_empty()).collect()
}

/// The uses within a set, one a line.
fn ties(graph: &Graph, set: &BTreeSet<PathBuf>) -> String {
    let of = |file: &PathBuf| {
        let used: Vec<String> =
            graph[file].intersection(set).map(|f| f.display().to_string()).collect();
        format!("\n  {} uses {}", file.display(), used.join(", "))
    };
    set.iter().map(of).collect()
}

#[test]
fn no_file_uses_itself_over_others() {
    let graph = graph(&Source::read());
    let edges: usize = graph.values().map(BTreeSet::len).sum();
    assert!(graph.len() > 250 && edges > 1000, "{} files, {edges} uses", graph.len());
    let circles = circles(&graph);
    let told: Vec<String> = circles.iter().map(|set| ties(&graph, set)).collect();
    assert!(told.is_empty(), "{} circles of files:{}", told.len(), told.join("\n"));
}

#[test]
fn a_mod_file_declares_and_re_exports_and_nothing_more() {
    let found = Source::read();
    let full = found.modules.values().filter(|m| m.file.ends_with("mod.rs") && m.items > m.lists);
    let full: BTreeSet<String> = full.map(|m| m.file.display().to_string()).collect();
    assert!(full.is_empty(), "code in {full:?}");
}

/// What is found is what was planted.
#[test]
fn circles_are_found_through_imports_paths_globs_and_re_exports() {
    let found = |files: &[(&str, &str)]| {
        let mut source = Source::default();
        source.add(vec![], "lib.rs".into(), "pub mod a; pub mod b; pub mod c;");
        for (name, text) in files {
            source.add(vec![(*name).into()], format!("{name}.rs").into(), text);
        }
        circles(&graph(&source)).iter().map(BTreeSet::len).collect::<Vec<_>>()
    };
    let b = ("b", "pub fn call() { super::a::f(); }");
    assert_eq!(found(&[("a", "use crate::b::call; pub fn f() {}"), b]), [2]);
    assert_eq!(found(&[("a", "pub fn f() { crate::b::call() }"), b]), [2]);
    assert_eq!(found(&[("a", "use super::b; pub fn f() { b::call() }"), b]), [2]);
    assert_eq!(found(&[("a", "use super::b; pub fn f() { vec![b::call()]; }"), b]), [2]);
    assert_eq!(found(&[("a", "use super::b::*; pub fn f() { call() }"), b]), [2]);
    let c = ("c", "pub use super::b::call;");
    assert_eq!(found(&[("a", "pub fn f() { crate::c::call() }"), b, c]), [2], "c is not in it");
    let c = ("c", "pub mod d { pub fn g() { super::super::a::f() } }");
    assert_eq!(found(&[("a", "pub fn f() { crate::c::d::g() }"), b, c]), [2]);
    assert_eq!(
        found(&[("a", "pub fn f() {} #[cfg(test)] mod tests { use crate::b::call; }"), b]),
        [0usize; 0]
    );
    assert_eq!(found(&[("a", "#[cfg(test)] use crate::b::call; pub fn f() {}"), b]), [0usize; 0]);
}
