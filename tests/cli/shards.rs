//! `srk upscale --shard`: a folder shared by runs that do not know of each other.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::command::Bench;

fn pictures(b: &Bench) {
    for name in ["a", "b", "c", "sub/d", "sub/e"] {
        b.photo(&format!("in/{name}.png"), 12, 8);
    }
}

fn bytes_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(bytes_below(&path));
        } else {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn parts_are_all_pictures_once_and_the_same_bytes() {
    let b = Bench::new();
    pictures(&b);
    b.upscale(&["in", "-r", "-o", "whole"]).worked();
    // The last part is empty, and one is cut short and started again.
    for (part, count) in [("1/6", 1), ("2/6", 1), ("3/6", 1), ("4/6", 1), ("5/6", 1), ("6/6", 0)] {
        let run = b.upscale(&["in", "-r", "-o", "parts", "--shard", part, "--json"]).worked();
        let started = &run.events()[0];
        assert_eq!(started["files"], count, "{part}");
        assert_eq!(started["other_shards"], 5 - count, "{part}");
        run.says(&format!("{count} of 5 pictures belong to this part"));
    }
    assert_eq!(bytes_below(&b.path("parts")), bytes_below(&b.path("whole")));
    fs::remove_file(b.path("parts/b.png")).unwrap();
    b.upscale(&["in", "-r", "-o", "parts", "--shard", "2/6"]).worked();
    b.upscale(&["in", "-r", "-o", "parts", "--shard", "2/6"]).failed(2, &["b.png exists"]);
    b.upscale(&["in", "-r", "-o", "parts", "--shard", "2/6", "--skip-existing"]).worked();
    assert_eq!(bytes_below(&b.path("parts")), bytes_below(&b.path("whole")));
}

#[test]
fn wrong_parts_are_refused_in_words() {
    let b = Bench::new();
    pictures(&b);
    for (part, words) in [
        ("7/6", "part 7 of 6"),
        ("1", "such as 2/8"),
        ("1/0", "at least 1"),
        ("x/2", "such as 2/8"),
    ] {
        b.upscale(&["in", "-r", "-o", "o", "--shard", part]).failed(2, &[words]);
    }
    b.upscale(&["in", "-r", "-o", "o", "--shard", "auto"]).failed(2, &["SLURM_ARRAY_TASK_ID"]);
    assert!(!b.has("o"));
}

/// The job script of docs/cluster.md, its array played by a loop.
#[test]
fn the_script_of_the_documentation_shares_a_folder() {
    let b = Bench::new();
    pictures(&b);
    let page = include_str!("../../docs/cluster.md");
    let script = page.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    assert!(script.starts_with("#!/bin/bash\n"));
    b.put("upscale.sh", script);
    let binary = Path::new(env!("CARGO_BIN_EXE_srk")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    for task in 1..=2 {
        let mut job = Command::new("bash");
        job.arg("upscale.sh").current_dir(b.path("")).env("PATH", &path);
        job.env("PICTURES", "in").env("RESULTS", "big").env("SLURM_MEM_PER_NODE", "1024");
        job.env("SLURM_ARRAY_TASK_ID", task.to_string()).env("SLURM_ARRAY_TASK_COUNT", "2");
        job.env("SLURM_ARRAY_TASK_MIN", "1").env("SLURM_ARRAY_TASK_STEP", "1");
        let output = job.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(b.has(&format!("log-{task}.jsonl")));
    }
    assert_eq!(bytes_below(&b.path("big")).len(), 5);
}
