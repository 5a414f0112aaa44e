//! Training on several GPUs that add up gradients themselves: emulated ones, and NVIDIA's driver with NCCL, both stubs.
#![cfg(all(feature = "cuda", target_os = "linux"))]
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::OnceLock;

use common::command::{Run, wait_until};
use common::training::*;

use super::ranks::{FOUR, LONG, apart, as_rank, end, goes_on, on_emulated, port, signal, train};
use super::stub_driver::{compile, stub};

/// What each of `world` ranks issued, in its order, in a run with the overrides `set`; and its weights beside `alone`'s.
fn issued(place: &Place, alone: &Path, world: usize, set: &[&str]) -> Vec<Vec<String>> {
    let joined = place.runs(&format!("joined-{world}-{}", set.len()));
    fs::create_dir(&joined).unwrap();
    let out = on_emulated(place, world, "f32", (set, Some(&joined)));
    let difference = apart(&out, alone, 3);
    assert!(difference < 1e-4, "{world} ranks: the weights differ by {difference:.1e}");
    let read = |rank| {
        let text = fs::read_to_string(joined.join(format!("issued-{rank}"))).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    (0..world).map(read).collect()
}

/// Kernels that were launched between the sums up to the first `join`, and how many sums that were.
fn overlap(issued: &[String]) -> (Vec<&str>, usize) {
    let first = issued.iter().position(|what| what == "reduce").expect("no sum was issued");
    let until = issued.iter().position(|what| what == "join").expect("nobody waits for sums");
    let of = &issued[first..until];
    let sums = of.iter().filter(|what| *what == "reduce").count();
    let last = of.iter().rposition(|what| what == "reduce").unwrap();
    let between = of[..last].iter().filter(|what| *what != "reduce");
    (between.map(String::as_str).collect(), sums)
}

#[test]
fn gpus_add_up_gradients_while_the_way_back_runs() {
    let place = Place::new();
    let alone = on_emulated(&place, 1, "f32", (&[], None));
    for world in [2, 4] {
        let all = issued(&place, &alone, world, &[]);
        for issued in &all {
            let (kernels, sums) = overlap(issued);
            assert!(sums >= 4, "{sums} sums");
            assert!(kernels.len() > sums, "sums wait for the end of the way back: {kernels:?}");
            let updated = issued.iter().position(|what| what.contains("adam")).unwrap();
            let joined = issued.iter().position(|what| what == "join").unwrap();
            assert!(joined < updated, "the update does not wait for sums");
            // Three steps, and what was recorded of the first.
            let sums = issued.iter().filter(|what| *what == "reduce").count();
            assert_eq!(sums, all[0].iter().filter(|what| *what == "reduce").count());
        }
    }
}

/// Two batches of a rank are added up before their sum is that of all.
#[test]
fn gpus_add_up_accumulated_gradients_once() {
    let place = Place::new();
    let set = ["optim.accumulate=4", "data.train.batch=2"];
    let alone = on_emulated(&place, 1, "f32", (&set, None));
    let all = issued(&place, &alone, 2, &set);
    let joins = all[0].iter().filter(|what| *what == "join").count();
    assert_eq!(joins, 3, "once a step");
}

/// Stubs of the driver and of NCCL in one folder.
fn stubs() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = || {
        let folder = stub(&[]);
        let driver = folder.path().join("libcuda.so.1");
        compile("nccl.c", &folder.path().join("libnccl.so.2"), &[driver.to_str().unwrap()]);
        folder
    };
    FOLDER.get_or_init(made).path()
}

/// The folder in which processes on stubs give each other sums.
fn meeting(place: &Place) -> PathBuf {
    let folder = place.runs("sums");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// `srk train` on two GPUs that are stubs.
fn on_stubs(place: &Place, out: &Path, set: &[&str], more: &[&str]) -> Command {
    let mut command = train(place, out, set, &[&["--device", "cuda"], more].concat());
    command.env("LD_LIBRARY_PATH", stubs()).env("SRK_CUDA_LIBRARIES", stubs());
    command.env("STUB_CUDA", "any=1 count=2").env("STUB_NCCL_FOLDER", meeting(place));
    command.env("XDG_CACHE_HOME", place.runs("cache"));
    command
}

#[test]
fn nccl_adds_up_beside_the_way_back() {
    let place = Place::new();
    let (out, log) = (place.runs("out"), place.runs("issued"));
    let mut command = on_stubs(&place, &out, &FOUR, &["--gpus", "2"]);
    command.env("STUB_CUDA_ISSUED", &log);
    let run = Run::of(command.output().unwrap()).worked();
    run.says_all(&["NCCL 2.27.3 adds up gradients while they are found", "step 3/3"]);
    for rank in 0..2 {
        let text = fs::read_to_string(format!("{}.{rank}", log.display())).unwrap();
        let issued: Vec<&str> = text.lines().collect();
        let at = |what: &str| issued.iter().position(|line| line.contains(what)).unwrap();
        let (first, updated) = (at("reduce"), at("adam"));
        let last = issued[..updated].iter().rposition(|line| *line == "reduce").unwrap();
        let between = issued[first..last].iter().filter(|line| **line != "reduce").count();
        assert!(between > 8, "rank {rank}: {between} kernels between the first sum and the last");
    }
}

#[test]
fn without_a_fitting_nccl_sums_go_through_the_host_and_it_is_said() {
    let place = Place::new();
    let train = |name: &str, set: &[&str], version: &str| {
        let mut command = on_stubs(&place, &place.runs(name), set, &["--gpus", "2"]);
        command.env("STUB_NCCL", version);
        Run::of(command.output().unwrap()).worked()
    };
    train("old", &FOUR, "version=2708").says_all(&["memory of the host", "NCCL 2.7.8", "2.10.3"]);
    // A sum with an order of its own needs none.
    let fixed = train("fixed", &[&FOUR[..], &["run.reduce=fixed"]].concat(), "");
    assert!(!fixed.err.contains("NCCL"), "{}", fixed.err);
}

/// Two ranks on stubs, each with a variable of its own.
fn two(place: &Place, out: &Path, variable: &str, values: [&str; 2], more: &[&str]) -> [Child; 2] {
    let port = port();
    [0, 1].map(|rank| {
        let mut command = on_stubs(place, out, &LONG, more);
        command.env(variable, values[rank]);
        as_rank(&mut command, rank, 2, &port).spawn().unwrap()
    })
}

#[test]
fn other_versions_of_nccl_and_other_gpus_are_refused_in_words() {
    let place = Place::new();
    let versions = ["version=22703", "version=21805"];
    for child in two(&place, &place.runs("a"), "STUB_NCCL", versions, &[]) {
        end(child).failed(2, &["do not agree on the version of NCCL", "2.27.3", "2.18.5"]);
    }
    let kinds = ["any=1 count=2 cc=90", "any=1 count=2 cc=80"];
    for child in two(&place, &place.runs("b"), "STUB_CUDA", kinds, &[]) {
        end(child).failed(2, &["do not agree on the device", "capability 9.0", "capability 8.0"]);
    }
}

/// Two ranks of a long run that wait for each other's gradients.
fn under_way(place: &Place, out: &Path, limit: &str) -> [Child; 2] {
    let mut children = two(place, out, "STUB_NCCL", [""; 2], &["--rank-timeout", limit]);
    wait_until(&mut children[0], || out.join("tiny/ckpt/latest").exists());
    children
}

#[test]
fn a_rank_whose_gradients_do_not_come_is_named() {
    let place = Place::new();
    let out = place.runs("dies");
    let [first, mut second] = under_way(&place, &out, "60");
    signal(&second, "-KILL");
    second.wait().unwrap();
    end(first).failed(1, &["rank 1 (", "is gone", "its last step is "]);
    goes_on(&place, &out);
    let out = place.runs("hangs");
    let [first, second] = under_way(&place, &out, "3");
    signal(&second, "-STOP");
    end(first).failed(1, &["rank 1 (", "hangs", "its last step is "]);
    signal(&second, "-CONT");
    end(second).failed(1, &["rank 1 (", "hangs"]);
    goes_on(&place, &out);
}
