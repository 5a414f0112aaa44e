//! What is said and by what names: settings beside what is typed, advice that can be followed, quiet commands, JSON.
#![allow(clippy::unwrap_used)]
use std::fs;
use std::path::Path;

use crate::common::command::{Bench, SMALL, size};

fn is_png(path: &Path) -> bool {
    fs::read(path).unwrap().starts_with(b"\x89PNG")
}

#[test]
fn an_outputs_own_name_counts_more_than_settings() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    p.put(
        "settings/srk/config.toml",
        "[upscale]\nsteps = 1\nformat = \"jpg\"\nquality = 92\nname = \"{stem}_web\"\n",
    );
    let said = p.srk(&["upscale", "in.png", "out.png"]).worked();
    assert!(is_png(&p.path("out.png")) && !said.err.contains("--quality"), "{}", said.err);
    p.srk(&["upscale", "in.png", "-o", "d/"]).worked();
    p.srk(&["upscale", "in.png", "-o", "d/", "--name", "{stem}_y.webp"]).worked();
    assert_eq!(p.names("d"), ["in_web.jpg", "in_y.webp"]);
    // What is typed is still held against what is typed.
    p.srk(&["upscale", "in.png", "x.png", "-f", "webp"]).failed(2, &["two formats", "x.webp"]);
    p.srk(&["upscale", "in.png", "-o", "d/", "--name", "{stem}.png", "-f", "webp"])
        .failed(2, &["two formats"]);
    p.put("settings/srk/config.toml", "[upscale]\nsteps = 1\nname = \"{stem}_z.webp\"\n");
    p.srk(&["upscale", "in.png", "-o", "d/", "-f", "png"]).worked();
    assert!(is_png(&p.path("d/in_z.png")));
}

#[test]
fn help_is_given_whatever_the_settings_are() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    p.put("settings/srk/config.toml", "[upscale]\nfoo = 3\n");
    p.srk(&["upscale", "in.png"]).failed(2, &["no option upscale.foo"]);
    for arguments in [
        &["--help"][..],
        &["upscale", "--help"],
        &["help", "upscale"],
        &["--version"],
        &["man", "upscale"],
        &["completions", "bash"],
        &["--config", "none.toml", "upscale", "-h"],
    ] {
        let run = p.srk(arguments).worked();
        assert!(!run.out.is_empty() && run.err.is_empty(), "{arguments:?}: {}", run.err);
    }
}

#[test]
fn names_say_the_seed_of_each_sample() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    let named =
        |name: &'static str| ["--name", name, "--samples", "2", "--seed", "9", "-o", "o", "--json"];
    let run = p.upscale(&[&["in.png"][..], &named("{stem}_{seed}")].concat()).worked();
    for event in run.events().iter().filter(|event| event["event"] == "file") {
        let name = format!("o/in_{}.png", event["seed"]);
        assert!(event["output"].as_str().unwrap().ends_with(&name) && p.has(&name), "{event}");
    }
    p.upscale(&[&["in.png"][..], &named("{stem}-b")].concat()).worked();
    assert_eq!(p.names("o"), ["in-b_s0.png", "in-b_s1.png", "in_10.png", "in_9.png"]);
}

#[test]
fn a_format_counts_where_the_name_does_not_tell() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    p.upscale(&["in.png", "-o", "out.xyz"]).failed(2, &["\".xyz\"", "or give --format"]);
    p.upscale(&["in.png", "-o", "out.xyz", "-f", "png"]).worked();
    p.upscale(&["in.png", "-o", "kept.xyz", "-f", "keep"]).worked();
    assert!(is_png(&p.path("out.xyz")) && is_png(&p.path("kept.xyz")));
    #[cfg(unix)]
    p.upscale(&["in.png", "-o", "/dev/null", "-f", "png", "--overwrite"]).worked();
    // Advice that other commands cannot follow is not given there.
    p.put("run/x", "");
    let sample = p.srk(&["sample", "run", "-o", "grid.gif"]);
    assert!(sample.code != 0 && !sample.err.contains("--format"), "{}", sample.err);
    let huge = p.upscale(&["in.png", "o.png", "-s", "1e300"]).failed(1, &["take a smaller scale"]);
    assert!(!huge.err.contains("use .png"), "{}", huge.err);
    p.upscale(&["in.png", "o.webp", "-s", "5000"]).failed(1, &["use .png"]);
}

#[test]
fn a_tile_of_any_size_is_no_larger_than_the_picture() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    for (name, tile, tiles) in [
        ("a.png", "18446744073709551615", "1 tile x"),
        ("b.png", "18446744073709551615x8", "2 tiles x"),
        ("c.png", "none", "1 tile x"),
    ] {
        let run = p.upscale(&["in.png", name, "-t", tile]).worked();
        assert!(run.err.contains(tiles), "{}", run.err);
        assert_eq!(size(&p.path(name)), (64, 48));
    }
    assert_eq!(fs::read(p.path("a.png")).unwrap(), fs::read(p.path("c.png")).unwrap());
}

#[test]
fn quiet_commands_say_nothing_of_what_they_wrote() {
    let p = Bench::new();
    p.another("in/a.png", 64, 64, 0);
    p.another("in/b.png", 64, 64, 1);
    for arguments in [
        &["data", "degrade", "in", "pairs", "--count", "1", "--size", "32"][..],
        &["data", "prep", "in", "-o", "parts", "--crop", "32", "--step", "32"],
        &["data", "prep", "in", "-o", "two", "--low", "8", "--high", "16"],
        &["data", "pack", "in", "in.tar"],
        &["man", "-o", "pages"],
        &["models", "export", "srk-x4", "m.safetensors"],
        &["compare", "in/a.png", "in/b.png", "-o", "c.html"],
    ] {
        let run = p.srk(&[arguments, &["-q", "--log", "all.log"]].concat()).worked();
        assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""), "{arguments:?}");
    }
    // It is in the log, and results that were asked for are printed.
    assert!(fs::read_to_string(p.path("all.log")).unwrap().contains("pairs in pairs"));
    let check = p.srk(&["data", "check", "in", "--fix-list", "good.txt", "-q"]).worked();
    assert!(check.out.contains("2 pictures: 0 broken"), "{}", check.out);
    assert!(!check.out.contains("good.txt"), "{}", check.out);
}

#[test]
fn what_srk_wrote_needs_no_import() {
    let p = Bench::new();
    p.srk(&["models", "export", "srk-x4", "m.safetensors"]).worked();
    let run = p.srk(&["models", "import", "m.safetensors", "-o", "n.safetensors"]);
    let run = run.failed(2, &["needs no import", "srk upscale -m m.safetensors"]);
    assert!(!run.err.contains("--ignore-unexpected") && !p.has("n.safetensors"), "{}", run.err);
    let list = p.srk(&["models", "list"]).worked().out;
    let bytes = fs::metadata("weights/srk-x4.safetensors").unwrap().len();
    assert!(bytes < 10 << 20 && list.contains('.'), "{list}");
}

#[test]
fn folders_that_cannot_be_made_are_failures_of_the_work() {
    let p = Bench::new();
    p.photo("in.png", 64, 64);
    p.put("file", "x");
    for arguments in [
        &["data", "degrade", "in.png", "file", "--count", "1", "--size", "32"][..],
        &["data", "prep", "in.png", "-o", "file", "--crop", "32", "--step", "32"],
        &["data", "prep", "in.png", "-o", "file", "--low", "8", "--high", "16"],
        &["man", "-o", "file"],
    ] {
        p.srk(arguments).failed(1, &["file"]);
    }
}

#[test]
fn a_key_of_damage_that_is_nearly_right_is_named() {
    let p = Bench::new();
    p.photo("in.png", 64, 64);
    let degrade = |set: &str| p.srk(&["data", "degrade", "in.png", "o", "--set", set]);
    degrade("jpeg_probb=1").failed(2, &["unknown key jpeg_probb", "did you mean jpeg_prob?"]);
    let run = degrade("nothing_of_it=1").failed(2, &["unknown key", "docs/configuration.md"]);
    assert!(!run.err.contains("did you mean"), "{}", run.err);
}

#[test]
fn lines_for_programs_are_events_that_the_docs_name() {
    let p = Bench::new();
    p.photo("in.png", 64, 64);
    let eval = p.srk(&["eval", "--hr", "in.png", "--steps", "1", "--json"]).worked();
    let start = eval.event("start");
    assert!(start["model"].is_string() && start["device"] == "cpu", "{start}");
    assert_eq!(start["precision"], "fp32");
    assert_eq!(eval.events().last().unwrap()["event"], "done");
    let bench = p.srk(&["bench", "--sizes", "16", "--runs", "1", "--steps", "1", "--json"]);
    assert!(bench.worked().event("start")["seed"].is_u64());
    let recipes = p.srk(&["train", "--list-recipes", "--json"]).worked();
    assert!(recipes.events().iter().all(|e| e["event"] == "recipe" && e["name"].is_string()));
    let docs = fs::read_to_string("docs/scripting.md").unwrap();
    for event in ["`recipe`", "`start`", "`done`"] {
        assert!(docs.contains(event), "{event}");
    }
}

/// Before anything is written, and with the multiple that is needed; what works without it is not refused.
#[test]
fn crops_that_a_network_cannot_take_are_refused_with_what_it_takes() {
    let p = Bench::new();
    p.photo("in.png", 96, 96);
    let train = |recipe: &str, crop: &str, more: &[&str]| {
        let crop = format!("data.train.crop={crop}");
        let data = [
            "data.train.paths=[\"in.png\"]",
            "data.val.paths=[]",
            "val.every=0",
            "data.train.batch=1",
        ];
        let sets = data.iter().chain(more).copied().chain([crop.as_str()]);
        let sets: Vec<&str> = sets.flat_map(|set| ["--set", set]).collect();
        p.srk(&[&["train", "--recipe", recipe, "--dry-run"][..], &sets].concat())
    };
    let small = &SMALL[..4];
    for (recipe, crop, more, multiple) in [
        ("dual-domain-grid", "40", small, "a multiple of"),
        ("resshift-dual", "36", &["model.base=8"][..], "a multiple of"),
        ("srddpm", "44", &["model.base=8"], "a multiple of 8"),
        ("sr3-div2k", "40", &["model.base=8"], "a multiple of"),
    ] {
        train(recipe, crop, more).failed_once(2, &["data.train.crop", crop, multiple]);
    }
    assert_eq!(p.files(), ["in.png"]);
    train("dual-domain-grid", "32", small).worked();
}
