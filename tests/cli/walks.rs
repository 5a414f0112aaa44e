//! Folders with more in them than pictures: pipes are never opened, folders that cannot be listed are named and cost
//! nothing else. What is read there is not written.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::command::{Bench, Run, SMALL};

fn pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The command to its end, which must come: a pipe that is opened is waited for without end.
#[track_caller]
fn ends(mut command: Command) -> Run {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("it hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Run::of(child.wait_with_output().unwrap())
}

#[test]
fn a_pipe_among_pictures_is_named_and_never_opened() {
    let p = Bench::new();
    p.another("in/a.png", 64, 64, 0);
    p.another("in/c.png", 64, 64, 1);
    pipe(&p.path("in/b.png"));
    let srk = |arguments: &[&str]| ends(p.command(arguments));
    let words = ["b.png", "a device or a pipe, not a file"];
    let one = |arguments: &[&str]| srk(&[arguments, &["--steps", "1"]].concat());
    one(&["upscale", "in", "-o", "out/", "--dry-run"]).worked().says_all(&words);
    one(&["upscale", "in", "-o", "out/"]).worked().says_all(&words);
    assert_eq!(p.names("out"), ["a.png", "c.png"]);
    srk(&["data", "check", "in"]).failed(1, &["1 of 3 pictures is broken"]).says_all(&words);
    srk(&["data", "stats", "in"]).worked().says_all(&words);
    srk(&["data", "prep", "in", "-o", "parts", "--crop", "32", "--step", "32"])
        .worked()
        .says_all(&words);
    srk(&["data", "pack", "in", "in.tar"]).failed(1, &words);
    assert!(!p.has("in.tar"));
    one(&["eval", "--hr", "in"]).failed(1, &words);
    srk(&["eval", "in", "in"]).failed(1, &words);
    let sets = SMALL.iter().flat_map(|set| ["--set", set]);
    for paths in ["data.train.paths=[\"in\"]", "data.train.paths=[\"in/b.png\", \"in/a.png\"]"] {
        let train = ["train", "--recipe", "dual-domain-grid", "--dry-run", "--set", paths];
        srk(&train.into_iter().chain(sets.clone()).collect::<Vec<_>>()).worked().says_all(&words);
    }
}

#[test]
fn a_link_to_nothing_among_pictures_and_models_is_named() {
    let p = Bench::new();
    p.another("in/a.png", 64, 64, 0);
    p.another("in/c.png", 64, 64, 1);
    let link = |name: &str| std::os::unix::fs::symlink("gone", p.path(name)).unwrap();
    link("in/b.png");
    let words = ["b.png", "it is a link to gone, which is not there"];
    let srk = |arguments: &[&str]| p.srk(arguments);
    let upscale = ["upscale", "in", "-o", "out/", "--steps", "1"];
    srk(&upscale).worked().says_all(&words);
    assert_eq!(p.names("out"), ["a.png", "c.png"]);
    srk(&["data", "check", "in"]).failed(1, &["1 of 3 pictures is broken"]).says_all(&words);
    srk(&["data", "stats", "in"]).worked().says_all(&words);
    srk(&["eval", "--hr", "in", "--steps", "1"]).failed(1, &words);
    let sets = SMALL.iter().flat_map(|set| ["--set", set]);
    let paths = "data.train.paths=[\"in\"]";
    let train = ["train", "--recipe", "dual-domain-grid", "--dry-run", "--set", paths];
    srk(&train.into_iter().chain(sets).collect::<Vec<_>>()).worked().says_all(&words);
    fs::create_dir(p.path("alone")).unwrap();
    link("alone/b.png");
    srk(&["upscale", "alone", "-o", "out2/"]).failed(1, &words);
    link("models.pth");
    srk(&["models", "list", "."]).worked().says_all(&["models.pth", words[1]]);
    srk(&["models", "verify", "models.pth"]).failed(3, &words[1..]);
}

/// The command as a user who may not read everything.
fn as_anybody(p: &Bench, arguments: &[&str]) -> Run {
    let mut command = p.command(arguments);
    // SAFETY: it asks, and changes nothing.
    if unsafe { libc::getuid() } == 0 {
        fs::set_permissions(p.folder(), fs::Permissions::from_mode(0o777)).unwrap();
        let own = p.path("srk");
        if !own.exists() {
            fs::copy(env!("CARGO_BIN_EXE_srk"), &own).unwrap();
        }
        command = Command::new(own);
        command.args(arguments).current_dir(p.folder()).env("HOME", p.folder()).uid(65_534);
    }
    ends(command)
}

#[test]
fn a_folder_that_cannot_be_listed_is_named_and_the_others_are_taken() {
    let p = Bench::new();
    for name in ["in/a.png", "in/no/b.png", "in/yes/c.png"] {
        p.photo(name, 64, 64);
    }
    let mode = |mode| fs::set_permissions(p.path("in/no"), fs::Permissions::from_mode(mode));
    mode(0).unwrap();
    let words = ["in/no", "Permission denied"];
    let upscale = ["upscale", "in", "-r", "-o", "out", "--steps", "1", "--json"];
    let dry = as_anybody(&p, &[&upscale[..], &["--dry-run"]].concat()).failed(1, &["1 of 3"]);
    let done = as_anybody(&p, &upscale).failed(1, &words);
    assert_eq!(
        (p.names("out"), p.names("out/yes")),
        (vec!["a.png".to_owned(), "yes".to_owned()], vec!["c.png".to_owned()])
    );
    for (run, event) in [(dry, "plan"), (done, "file")] {
        let failed =
            run.events().into_iter().find(|e| e["event"] == event && e["status"] == "failed");
        let failed = failed.unwrap();
        assert_eq!((&failed["input"], &failed["code"]), (&"in/no".into(), &"unreadable".into()));
        assert_eq!(run.event("done")["failed"], 1);
    }
    as_anybody(&p, &["data", "check", "in"]).failed(1, &["in/no"]).says_all(&words);
    let stats = as_anybody(&p, &["data", "stats", "in"]).worked().says_all(&words);
    assert!(stats.out.contains("pictures     2"), "{}", stats.out);
    // By itself it is no slip of the hand.
    let alone = as_anybody(&p, &["data", "stats", "in/no"]).failed(1, &words);
    assert!(!alone.err.contains("did you mean"), "{}", alone.err);
    mode(0o755).unwrap();
}

#[test]
fn a_list_of_good_pictures_replaces_none_of_them() {
    let p = Bench::new();
    for (i, name) in ["hr/sub/a.png", "lr/ax4.png", "val/v.png"].iter().enumerate() {
        p.another(name, 64, 64, u32::try_from(i).unwrap());
    }
    p.put("all.txt", "hr\n");
    let check = |input: &str, list: &str| {
        let sets = ["--low", "lr", "--val", "val", "--overwrite", "--json"];
        let run = p.srk(&[&["data", "check", input, "--fix-list", list][..], &sets].concat());
        assert_eq!((run.code, run.event("error")["code"].as_str()), (2, Some("overwrites_input")));
    };
    let before = p.files().into_iter().map(|name| (fs::read(p.path(&name)).unwrap(), name));
    let before: Vec<_> = before.collect();
    for list in ["hr/sub/a.png", "lr/ax4.png", "val/v.png"] {
        check("hr", list);
        check("all.txt", list);
    }
    check("all.txt", "all.txt");
    // Nor do squares replace the low resolutions that they are cut out of.
    let prep = ["data", "prep", "hr", "-o", ".", "--scale", "4", "--lr", "lr", "--force"];
    let other = p.folder().join("lr").display().to_string();
    p.srk(&[&prep[..], &["--crop", "32", "--step", "32"]].concat()).failed(2, &["lies in"]);
    p.srk(&["data", "prep", "hr", "-o", &other, "--scale", "4", "--lr", "lr", "--force"])
        .failed(2, &["lies in the folder to write"]);
    for (bytes, name) in before {
        assert!(fs::read(p.path(&name)).unwrap() == bytes, "{name} was changed");
    }
}

#[test]
fn a_log_goes_into_nothing_that_is_read() {
    let p = Bench::new();
    p.photo("in/a.png", 64, 64);
    p.put("list.txt", "in\n");
    let recipe = p.srk(&["train", "--init", "dual-domain-grid"]).worked().out;
    p.put("run.toml", &recipe.replace("\"data/train\"", "\"list.txt\""));
    p.put("mine.toml", "color = \"never\"\n");
    for (log, arguments) in [
        ("run.toml", &["train", "run.toml"][..]),
        ("list.txt", &["train", "run.toml"]),
        (
            "list.txt",
            &["train", "--recipe", "laplacian", "--set", "data.train.paths=[\"list.txt\"]"],
        ),
        ("./list.txt", &["data", "check", "list.txt"]),
        ("mine.toml", &["data", "stats", "in", "--config", "mine.toml"]),
        ("mine.toml", &["data", "stats", "in", "--config=mine.toml"]),
    ] {
        let text = fs::read(p.path(log)).unwrap();
        let run = p.srk(&[arguments, &["--log", log, "--json"]].concat());
        assert_eq!((run.code, run.event("error")["code"].as_str()), (2, Some("overwrites_input")));
        assert!(fs::read(p.path(log)).unwrap() == text, "{log} was changed");
    }
    assert!(!p.has("runs"));
    // Nor does what is wrong with the arguments.
    let text = fs::read(p.path("run.toml")).unwrap();
    assert_eq!(p.srk(&["train", "run.toml", "--nonsense", "--log", "run.toml"]).code, 2);
    assert!(fs::read(p.path("run.toml")).unwrap() == text);
    // One that was a log before goes on.
    p.srk(&["data", "stats", "in", "--log", "out.log"]).worked();
    p.srk(&["data", "stats", "in", "--log=out.log"]).worked();
    assert_eq!(fs::read_to_string(p.path("out.log")).unwrap().matches("data stats").count(), 2);
}
