//! Limits that a shell sets on a process: what does not fit them is an error in words.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]
use std::fs;
use std::process::Command;

use crate::common::command::{Bench, Run};
use crate::common::training::Place;

/// `command` under `ulimit -f`, in blocks of 512 or 1024 bytes.
#[track_caller]
fn limited(command: &Command, blocks: u32) -> Run {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$@\""), "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        shell.current_dir(folder);
    }
    Run::of(shell.output().unwrap())
}

#[test]
fn a_file_that_may_not_grow_is_an_error_and_leaves_nothing() {
    let p = Bench::new();
    p.photo("in.png", 48, 40);
    let before = p.files();
    let upscale = p.command(&["upscale", "in.png", "out.ppm", "--steps", "1"]);
    limited(&upscale, 8).failed(1, &["cannot write out.ppm", "ulimit -f"]);
    assert_eq!(p.files(), before, "something is left");
    limited(&upscale, 100_000).worked();
    // A checkpoint: the run ends, and goes on with more.
    let place = Place::new();
    let out = place.runs("out");
    let train = place.command(&out, &["log.tensorboard=false"]);
    limited(&train, 16).failed(1, &["cannot write"]);
    let left = fs::read_dir(out.join("tiny/ckpt")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    limited(&train, 100_000).worked();
}
