//! What a training does where its surroundings change: images that go, come or are still being read, a folder that was
//! renamed, signals at bad moments.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::common::command::{Bench, Run, wait_until};
use crate::common::training::*;

/// `srk train` to its end.
#[track_caller]
fn train(place: &Place, out: &Path, sets: &[&str], more: &[&str]) -> Run {
    Run::of(place.command(out, sets).args(more).output().unwrap())
}

fn interrupt(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
}

fn validated(out: &Path) -> usize {
    let text = fs::read_to_string(out.join("tiny/metrics.jsonl")).unwrap();
    text.lines().filter(|line| line.contains("val_psnr_y")).count()
}

#[test]
fn a_later_start_says_that_the_images_are_others() {
    let place = Place::new();
    let out = place.runs("out");
    finish(&place.config(&[]), &out, Some(2));
    let others = |heard: &Heard| heard.lines.iter().any(|l| l.contains("images are others"));
    assert!(!others(&finish(&place.config(&[]), &out, Some(3))));
    write_image(&place.images().join("new.png"), 48, 48, 5);
    let heard = finish(&place.config(&[]), &out, Some(4));
    let line = heard.lines.iter().find(|l| l.contains("images are others"));
    let line = line.unwrap_or_else(|| panic!("{:?}", heard.lines));
    assert!(line.contains("up to step 3: 4 images") && line.contains("were 3 images"), "{line}");
    // Said once; and moved they are the same.
    assert!(!others(&finish(&place.config(&[]), &out, Some(5))));
    fs::rename(place.images(), place.runs("moved")).unwrap();
    let moved = format!("data.train.paths=[{:?}]", place.runs("moved").display().to_string());
    assert!(!others(&finish(&place.config(&[&moved]), &out, Some(6))));
}

#[test]
fn a_folder_that_was_renamed_goes_on_under_its_name() {
    let place = Place::new();
    let [whole, out] = ["whole", "out"].map(|name| place.runs(name));
    finish(&place.config(&[]), &whole, None);
    finish(&place.config(&[]), &out, Some(4));
    fs::rename(out.join("tiny"), out.join("other")).unwrap();
    let run = train(&place, &out, &["run.name=other"], &[]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("changed: run.name") && run.out.contains("at step 4"), "{}", run.out);
    fs::rename(out.join("other"), out.join("tiny")).unwrap();
    assert_same(&whole, &out, 6);
    // What is advised for other keys keeps the steps.
    let other = ["optim.weight_decay=0.1", "run.steps=7"];
    let run = train(&place, &out, &other, &[]);
    run.failed(2, &["--set run.name=OTHER --resume RUN", "--from RUN"]);
    let from = out.join("tiny").display().to_string();
    let next = [&other[..], &["run.name=next"]].concat();
    let run = train(&place, &out, &next, &["--resume", &from]);
    assert!(run.code == 0 && run.out.contains("step 7/7"), "{} {}", run.out, run.err);
}
