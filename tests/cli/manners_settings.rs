//! Defaults of options from a file, guesses at commands, models that other programs downloaded, `bench`, `doctor`.
#![allow(clippy::unwrap_used)]

use std::fs;

use crate::common::command::{Bench, size};

#[test]
fn a_file_has_defaults_and_the_command_line_counts_more() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    p.put(
        "settings/srk/config.toml",
        "color = \"never\"\n[upscale]\nscale = 2\nsteps = 1\nno-stamp = true\nquality = 40\n[eval]\nborder = 1\n",
    );
    p.srk(&["upscale", "in.png", "two.png"]).worked();
    assert_eq!(size(&p.path("two.png")), (32, 24));
    let ended = p.srk(&["upscale", "in.png", "three.png", "-s", "3", "--json"]).worked();
    assert_eq!(size(&p.path("three.png")), (48, 36));
    assert_eq!(ended.event("file")["steps"], 1);
    p.srk(&["upscale", "in.png", "four.png", "--no-config"]).worked();
    assert_eq!(size(&p.path("four.png")), (64, 48));
    // What does not go with an option that was given is left out, on either side.
    p.srk(&["upscale", "in.png", "wide.png", "--width", "20"]).worked();
    assert_eq!(size(&p.path("wide.png")), (20, 15));
    p.srk(&["upscale", "in.png", "w.webp", "--lossless"]).worked();
    // Flags, and other files.
    let text = |name: &str| String::from_utf8_lossy(&fs::read(p.path(name)).unwrap()).into_owned();
    assert!(!text("two.png").contains("seed=") && text("four.png").contains("seed="));
    p.put("mine.toml", "[upscale]\nscale = 1\n");
    p.srk(&["--config", "mine.toml", "upscale", "in.png", "a.png"]).worked();
    p.srk(&["upscale", "in.png", "b.png", "--config=mine.toml"]).worked();
    let mut command = p.command(&["upscale", "in.png", "c.png"]);
    command.env("SRK_CONFIG", "mine.toml");
    p.fed_to(command, b"").worked();
    for name in ["a.png", "b.png", "c.png"] {
        assert_eq!(size(&p.path(name)), (16, 12), "{name}");
    }
    p.srk(&["doctor"]).worked().says_all(&["config.toml"]);
}

#[test]
fn a_file_that_is_wrong_is_said_with_what_helps() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    for (text, words) in [
        ("[upscale]\nscael = 2\n", &["no option upscale.scael", "did you mean upscale.scale"][..]),
        ("[upscalee]\nscale = 2\n", &["no option upscalee"]),
        ("[upscale]\noverwrite = 3\n", &["neither true nor false"]),
        ("[upscale]\nscale = true\n", &["neither a text nor a number"]),
        ("[upscale]\nquality = 400\n", &["400", "--no-config"]),
        ("[upscale\n", &["mine.toml", "--no-config"]),
        ("[run]\nname = \"x\"\n[model]\nkind = \"y\"\n", &["training run", "srk train FILE.toml"]),
        ("no-config = true\n", &["no option no-config"]),
    ] {
        p.put("mine.toml", text);
        p.srk(&["upscale", "in.png", "x.png", "--config", "mine.toml"]).failed(2, words);
    }
    p.srk(&["upscale", "in.png", "x.png", "--config", "none.toml"]).failed(2, &["none.toml"]);
    let ended = p.srk(&["upscale", "in.png", "--config", "none.toml", "--json"]);
    assert_eq!((ended.code, ended.event("error")["code"].as_str()), (2, Some("usage")));
    assert!(!p.path("x.png").exists());
}

#[test]
fn the_environment_counts_more_than_the_file() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    p.put("settings/srk/config.toml", "[upscale]\nmodel = \"nosuch\"\nsteps = 1\n");
    p.srk(&["upscale", "in.png", "a.png"]).failed(3, &["nosuch"]);
    let mut command = p.command(&["upscale", "in.png", "b.png"]);
    command.env("SRK_MODEL", "srk-x4");
    p.fed_to(command, b"").worked();
    p.srk(&["upscale", "in.png", "c.png", "-m", "srk-x4"]).worked();
}

#[test]
fn first_guesses_at_a_command_are_answered() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    fs::create_dir(p.path("scans")).unwrap();
    for (arguments, word) in [
        (&["in.png"][..], "srk upscale in.png"),
        (&["missing.jpg"], "srk upscale missing.jpg"),
        (&["scans"], "srk upscale scans"),
        (&["run.toml"], "srk train run.toml"),
        (&["enlarge", "in.png"], "srk upscale PICTURE"),
        (&["test", "a", "b"], "srk eval RESULTS TRUTHS"),
        (&["list"], "srk models COMMAND"),
        (&["check", "scans"], "srk data COMMAND"),
        (&["version"], "srk --version"),
        (&["models", "pull", "x"], "srk models verify"),
        (&["models", "rm", "x"], "rm FILE"),
        (&["benchmark"], "srk bench"),
        (&["data", "crop", "x"], "--crop 480"),
        (&["upscale", "--init-img", "in.png"], "-i PICTURE"),
        (&["upscale", "in.png", "--outdir", "x"], "-o FOLDER"),
        (&["upscale", "--list-devices"], "srk doctor"),
        (&["eval", "a", "b", "--test_y_channel"], "--space y"),
        (&["upscale", "in.png", "-m", "models", "-n", "x"], "name a folder of weights files"),
    ] {
        p.srk(arguments).failed(2, &[word]);
    }
    p.put("x.yml", "name: x");
    p.srk(&["train", "x.yml"]).failed(2, &["those are TOML", "--list-recipes"]);
    // A slip of the hand is still a slip.
    p.srk(&["upscle", "in.png"]).failed(2, &["'upscale'"]);
    let ended = p.srk(&["in.png", "--json"]);
    assert_eq!(ended.event("error")["help"], "srk upscale in.png");
}

#[test]
fn models_that_were_downloaded_elsewhere_are_found_and_none_is_downloaded() {
    let p = Bench::new();
    p.photo("in.png", 16, 12);
    let snapshot = p.path("hub/models--me--net/snapshots/abc");
    fs::create_dir_all(&snapshot).unwrap();
    p.put("hub/models--me--net/refs/main", "abc");
    fs::copy("weights/srk-x4.safetensors", snapshot.join("net.safetensors")).unwrap();
    let with = |arguments: &[&str]| {
        let mut command = p.command(arguments);
        command.env("HF_HUB_CACHE", p.path("hub"));
        p.fed_to(command, b"")
    };
    with(&["models", "info", "hf:me/net"]).worked().says_all(&["attentive-grid"]);
    with(&["upscale", "in.png", "o.png", "--steps", "1", "-m", "hf:me/net@abc:net.safetensors"])
        .worked();
    fs::copy("weights/srk-x4.safetensors", snapshot.join("other.safetensors")).unwrap();
    let several = with(&["models", "info", "hf:me/net"]);
    several.failed(3, &["net.safetensors, other.safetensors", "-m hf:me/net:net.safetensors"]);
    with(&["models", "info", "hf:me/net:other.safetensors"]).worked();
    with(&["models", "info", "hf:me/net:third.pth"]).failed(3, &["hf download me/net third.pth"]);
    with(&["models", "info", "hf:you/net"])
        .failed(3, &["hf download you/net", "downloads nothing"]);
    with(&["models", "info", "hf:me/../net"]).failed(3, &["hf:ORG/REPO"]);
    // A commit that leads elsewhere is none.
    p.put("hub/models--me--net/refs/bad", "../../../..");
    with(&["models", "info", "hf:me/net@bad"]).failed(3, &["hf download"]);
}

#[test]
fn a_list_of_models_has_columns() {
    let p = Bench::new();
    let text = p.srk(&["models", "list"]).worked().out;
    let mut lines = text.lines();
    let head = lines.next().unwrap();
    for column in ["name", "network", "steps", "parameters", "stored", "size", "where", "licence"] {
        assert!(head.contains(column), "{head}");
    }
    let line = lines.find(|line| line.starts_with("srk-x4")).unwrap();
    for word in ["attentive-grid", "2 of 4", "523040", "MiB", "in this binary", "MIT"] {
        assert!(line.contains(word), "{line}");
    }
    let events = p.srk(&["models", "list", "--json"]).worked().events();
    assert!(events.iter().all(|e| e["bytes"].as_u64().unwrap() > 1_000_000));
    assert!(events.iter().all(|e| e["precision"].as_str().unwrap().starts_with('f')), "{events:?}");
    fs::create_dir(p.path("m")).unwrap();
    fs::copy("weights/srk-x4.safetensors", p.path("m/a.safetensors")).unwrap();
    p.put("m/b.pth", "no model");
    let text = p.srk(&["models", "list", "m"]).worked().out;
    assert!(text.contains("this folder") && text.contains("b.pth"), "{text}");
}

#[test]
fn a_bench_measures_what_it_is_asked_to() {
    let p = Bench::new();
    let asked = ["--sizes", "32,48x24", "--steps", "1", "--runs", "2", "--export-json", "b.json"];
    let ended = p.srk(&[&["bench", "--json"][..], &asked].concat()).worked();
    let events: Vec<_> =
        ended.events().into_iter().filter(|event| event["event"] == "bench").collect();
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["input"], serde_json::json!([48, 24]));
    assert_eq!(events[1]["output"], serde_json::json!([192, 96]));
    for event in &events {
        assert_eq!(event["times"].as_array().unwrap().len(), 2);
        let (least, mean) = (event["min"].as_f64().unwrap(), event["mean"].as_f64().unwrap());
        assert!(least > 0.0 && least <= mean, "{event}");
        let each = event["seconds_per_megapixel"].as_f64().unwrap();
        let pixels = event["input"][0].as_f64().unwrap() * event["input"][1].as_f64().unwrap();
        assert!((each - mean / pixels * 1e6).abs() < 1e-6 * each, "{event}");
    }
    let exported: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(p.path("b.json")).unwrap()).unwrap();
    assert_eq!(exported["results"][0]["parameters"]["width"], "32");
    assert!(exported["results"][0]["stddev"].is_number());
    p.srk(&[&["bench"][..], &asked].concat()).failed(2, &["b.json exists"]);
    p.srk(&["bench", "--sizes", "0"]).failed(2, &["1 to 16384"]);
    p.srk(&["bench", "-m", "nosuch"]).failed(3, &["nosuch"]);
    p.srk(&["bench", "--sizes", "16", "--runs", "1", "--steps", "1"])
        .worked()
        .says_all(&["16x16", "s/Mpx"]);
}

#[test]
fn a_doctor_reports_into_a_file_and_can_insist() {
    let p = Bench::new();
    p.srk(&["doctor", "--report", "r.txt", "--device", "cpu"]).worked();
    let quick = p.srk(&["doctor", "--no-self-test", "--json"]).worked();
    assert!(
        quick.out.contains("\"self_test\":null") && quick.out.contains("left out"),
        "{}",
        quick.out
    );
    let report = fs::read_to_string(p.path("r.txt")).unwrap();
    for word in ["srk ", "processor", "gpu", "self-test", "settings", "cache"] {
        assert!(report.contains(word), "{report}");
    }
    p.srk(&["doctor", "--report", "r.txt"]).failed(2, &["r.txt exists"]);
    let ended = p.srk(&["doctor", "--device", "cuda:9", "-q"]);
    assert_eq!(ended.code, 4, "{}", ended.err);
}
