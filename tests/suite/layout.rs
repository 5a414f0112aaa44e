//! Promises of ARCHITECTURE.md that a test can keep: dependencies point one way, an op is in the
//! file of its name, files stay readable.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::{Path, PathBuf};

use srk::training::config::Config;
use srk::training::log::grouped;
use srk::training::recipes;

/// Modules from the bottom up: a module may use only those before it.
const ORDER: &[&str] = &[
    "error",
    "engine",
    "ops",
    "nn",
    "models",
    "diffusion",
    "imaging",
    "upscale",
    "evaluate",
    "data",
    "training",
    "import",
    "library",
    "cli",
];

/// No source file is longer.
const MOST_LINES: usize = 600;

#[test]
fn every_op_is_in_the_file_of_its_name() {
    for case in srk::ops::all() {
        let name = case.name();
        let found = [format!("src/ops/{name}.rs"), format!("src/ops/{name}/mod.rs")];
        assert!(found.iter().any(|f| Path::new(f).is_file()), "op `{name}` has no file {found:?}");
    }
}

/// An op that is in no list is checked by no test.
#[test]
fn every_op_file_is_in_the_registry() {
    let listed: Vec<&str> = srk::ops::all().iter().map(|case| case.name()).collect();
    let mut checked = 0;
    for (path, text) in sources(Path::new("src/ops")) {
        if !text.contains("impl Op for") && !text.contains("\nunary! {") {
            continue;
        }
        checked += 1;
        let name = path.components().nth(2).unwrap().as_os_str().to_string_lossy().into_owned();
        let name = name.trim_end_matches(".rs");
        assert!(
            listed.contains(&name),
            "{}: no {name}::cases() in src/ops/registry.rs",
            path.display()
        );
    }
    assert!(checked > 50, "only {checked} files of ops were found");
}

/// What each recipe of super-resolution says of itself, and how many numbers its network learns.
fn table_of_recipes() -> String {
    let mut table = String::from("| recipe | what | parameters |\n|---|---|---|\n");
    for recipe in recipes::ALL {
        // Systems that draw digits have sections of their own, and no row.
        if recipe.text.contains("[data]\npaths") {
            continue;
        }
        let config = Config::read(recipe.text, recipe.name, &[]);
        let config = config.unwrap_or_else(|e| panic!("recipes/{}.toml: {e}", recipe.name));
        let first = recipe.text.lines().next().unwrap_or_default();
        let what = first.strip_prefix("# ").and_then(|line| line.strip_suffix('.'));
        let what = what.unwrap_or_else(|| panic!("{} does not say what it is", recipe.name));
        let count = grouped(config.model.build(1).parameter_count() as u64);
        table += &format!("| `{}` | {what} | {count} |\n", recipe.name);
    }
    table
}

#[test]
fn the_readme_lists_every_recipe() {
    let readme = fs::read_to_string("README.md").unwrap();
    let table = table_of_recipes();
    let start = readme.find("| recipe |").unwrap();
    let end = readme[start..].find("\n\n").map_or(readme.len(), |at| start + at + 1);
    if std::env::var_os("SRK_WRITE").is_some() {
        let written = format!("{}{table}{}", &readme[..start], &readme[end..]);
        fs::write("README.md", written).unwrap();
        return;
    }
    assert_eq!(table, readme[start..end], "SRK_WRITE=1 cargo test --test suite layout:: writes it");
    for recipe in recipes::ALL {
        let name = recipe.name;
        assert!(readme.contains(&format!("`{name}`")), "README.md says nothing of {name}");
    }
}

#[test]
fn modules_use_only_modules_below_them() {
    let rank = |module: &str| ORDER.iter().position(|&m| m == module);
    let mut checked = 0;
    for (path, text) in sources(Path::new("src")) {
        let Some(mine) = rank(&module_of(&path)) else { continue };
        checked += 1;
        let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        for used in code.join("\n").split("crate::").skip(1) {
            let used: String =
                used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(theirs) = rank(&used) {
                assert!(theirs <= mine, "{} uses `{used}`, which is above it", path.display());
            }
        }
    }
    assert!(checked > 30, "only {checked} source files were found");
}

#[test]
fn no_source_file_is_too_long() {
    for folder in ["src", "tests", "benches"] {
        for (path, text) in sources(Path::new(folder)) {
            let lines = text.lines().count();
            assert!(lines <= MOST_LINES, "{} has {lines} lines", path.display());
        }
    }
    for entry in fs::read_dir("kernels").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "cu" || e == "cuh") {
            let lines = fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= MOST_LINES, "{} has {lines} lines", path.display());
        }
    }
}

/// Each program is linked with all of srk: a new file is a module of one of them.
#[test]
fn tests_are_four_programs() {
    let mut programs: Vec<String> = Vec::new();
    for entry in fs::read_dir("tests").unwrap() {
        let path = entry.unwrap().path();
        let program = path.extension().is_some_and(|e| e == "rs") || path.join("main.rs").is_file();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        programs.extend(program.then_some(name));
    }
    programs.sort();
    assert_eq!(programs, ["cli", "memory_estimates", "process", "suite"], "move new files there");
}

/// A file that its program does not name is compiled by nobody.
#[test]
fn every_file_of_tests_belongs_to_a_program() {
    for program in ["cli", "process", "suite"] {
        let folder = Path::new("tests").join(program);
        let main = fs::read_to_string(folder.join("main.rs")).unwrap();
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let inside = !path.is_dir() || path.join("mod.rs").is_file();
            let listed = main.contains(&format!("\nmod {name};\n"));
            assert!(name == "main" || !inside || listed, "{} is not in main.rs", path.display());
        }
    }
}

fn module_of(path: &Path) -> String {
    let top = path.components().nth(1).unwrap().as_os_str().to_string_lossy();
    top.trim_end_matches(".rs").to_owned()
}

/// Every Rust file below `folder`, with its text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}
