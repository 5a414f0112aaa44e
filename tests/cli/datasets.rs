//! Data sets for training: lists of files, squares and low resolutions of whole sets, and what is wrong in a folder.
#![allow(clippy::unwrap_used)]
use crate::common;

use std::fs;
use std::path::{Path, PathBuf};

use common::command::srk;
use common::training::*;
use serde_json::Value;
use srk::data::degrade::{Degrade, shrink};
use srk::data::folder::Rgb8;
use srk::imaging::{self, Color, EncodeOptions, Image, Samples};

fn pixels(path: &Path) -> Rgb8 {
    let image = imaging::read(path).unwrap().to_rgb();
    let Samples::U8(pixels) = image.samples else { panic!("{} has 16 bits", path.display()) };
    Rgb8 { width: image.width, height: image.height, pixels }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|n| n.into_string().unwrap()).collect();
    names.sort();
    names
}

/// A folder with a configuration of a tiny run, beside the images.
fn work(place: &Place) -> PathBuf {
    let folder = place.runs("work");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("run.toml"), place.text()).unwrap();
    folder
}

#[test]
fn lists_name_images_and_what_is_missing_is_told_by_its_line() {
    let place = Place::new();
    let folder = work(&place);
    let images = "# three\n../images/0.png\n\n../images/1.png\r\n  ../images/2.png \n";
    fs::write(folder.join("all.txt"), images).unwrap();
    fs::write(folder.join("folder.txt"), "../images\n").unwrap();
    let set =
        |key: &str, name: &str| format!("{key}=[{:?}]", folder.join(name).display().to_string());
    let all = set("data.train.paths", "all.txt");
    let val = set("data.val.paths", "folder.txt");
    let few = ["--set", "run.steps=2", "--set", "val.steps=1", "--set", "val.sheet=0"];
    let run = |out: &str, sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|s| ["--set", s]).collect();
        srk(&folder, &[&["train", "run.toml", "--out", out][..], &few[..], &sets[..]].concat())
    };
    let listed = run("listed", &[&all, &val]);
    assert_eq!(listed.code, 0, "{}", listed.err);
    assert!(listed.out.contains("3 training images"), "{}", listed.out);
    assert!(listed.out.contains(" 3 images in "), "{}", listed.out);
    assert_eq!(run("plain", &[]).code, 0);
    assert_same(&folder.join("listed"), &folder.join("plain"), 2);
    // Given low resolutions, too.
    let lows = place.runs("lows");
    fs::create_dir_all(&lows).unwrap();
    for i in 0..3 {
        let high = pixels(&place.images().join(format!("{i}.png"))).cut_to_multiple(4);
        let low = shrink(&high, Degrade::MatlabBicubic, 4).unwrap();
        write(&lows.join(format!("{i}x4.png")), low);
    }
    fs::write(folder.join("lows.txt"), "../lows\n").unwrap();
    let given = run("given", &[&all, &set("data.train.low", "lows.txt")]);
    assert_eq!(given.code, 0, "{}", given.err);
    assert_same(&folder.join("given"), &folder.join("plain"), 2);

    for (text, line, word) in [
        ("../images/0.png\n\n../images/9.png\n", "line 3", "9.png"),
        ("../images\nall.txt\n", "line 2", "another list"),
        ("# nothing\n", "names nothing", "wrong.txt"),
    ] {
        fs::write(folder.join("wrong.txt"), text).unwrap();
        let refused = run("refused", &[&set("data.train.paths", "wrong.txt")]);
        assert_eq!(refused.code, 2, "{text}: {}", refused.err);
        for part in [line, word, "wrong.txt"] {
            assert!(refused.err.contains(part), "{part}: {}", refused.err);
        }
        assert!(!folder.join("refused").exists());
    }
}

fn write(path: &Path, image: Rgb8) {
    let image = Image::from_u8(image.width, image.height, Color::Rgb, image.pixels).unwrap();
    imaging::write(path, &image, EncodeOptions::default()).unwrap();
}

#[test]
fn squares_are_those_of_basicsr() {
    let place = Place::new();
    let folder = place.runs("work");
    fs::create_dir_all(folder.join("in")).unwrap();
    write_image(&folder.join("in/a.png"), 100, 70, 1);
    write_image(&folder.join("in/tiny.png"), 31, 70, 1);
    let ended = srk(&folder, &["data", "prep", "in", "-o", "out", "--crop", "32", "--step", "24"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.err.contains("tiny.png (31x70, smaller than 32x32)"), "{}", ended.err);
    let all = names(&folder.join("out"));
    assert_eq!(all.len(), 12, "{all:?}");
    let whole = pixels(&folder.join("in/a.png"));
    let part = |i: usize| pixels(&folder.join(format!("out/a_s{i:03}.png")));
    // Columns 0, 24, 48 and the last at 68; rows 0, 24 and the last at 38.
    for (i, x, y) in [(1, 0, 0), (2, 24, 0), (4, 68, 0), (5, 0, 24), (12, 68, 38)] {
        assert_eq!(part(i), whole.cut(x, y, 32, 32), "{i}");
    }
    let thresh = ["data", "prep", "in/a.png", "-o", "less", "--crop", "32", "--step", "24"];
    let ended = srk(&folder, &[&thresh[..], &["--thresh", "20"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(names(&folder.join("less")).len(), 6);
    for (arguments, word) in [
        (&thresh[..], "not empty"),
        (&["data", "prep", "in", "-o", "x", "--crop", "32"], "--step"),
        (&["data", "prep", "in", "-o", "x"], "--low"),
        (&["data", "prep", "in", "-o", "x", "--crop", "0", "--step", "1"], "0 pixels"),
        (&["data", "prep", "in", "-o", "in", "--crop", "9", "--step", "9", "--force"], "lies in"),
        (
            &[
                "data",
                "prep",
                "in",
                "-o",
                "x",
                "--crop",
                "9",
                "--step",
                "9",
                "--resample",
                "bicubic",
            ],
            "--scale",
        ),
        (
            &[
                "data",
                "prep",
                "in",
                "-o",
                "x",
                "--low",
                "4",
                "--high",
                "8",
                "--resample",
                "matlab-bicubic",
            ],
            "Pillow",
        ),
    ] {
        let mut arguments = arguments.to_vec();
        if word == "not empty" {
            arguments[4] = "out";
        }
        let ended = srk(&folder, &arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.err);
        assert!(ended.err.contains(word), "{arguments:?}: {}", ended.err);
        assert!(!folder.join("x").exists(), "{arguments:?}");
    }
}

#[test]
fn low_resolutions_of_a_set_are_written_and_cut_together() {
    let place = Place::new();
    let folder = place.runs("work");
    fs::create_dir_all(folder.join("in")).unwrap();
    write_image(&folder.join("in/a.png"), 101, 70, 1);
    let whole = pixels(&folder.join("in/a.png"));
    for (name, method) in [
        ("matlab-bicubic", Degrade::MatlabBicubic),
        ("bicubic", Degrade::PillowBicubic),
        ("bilinear", Degrade::Bilinear),
        ("pillow-12-bicubic", Degrade::Pillow12Bicubic),
        ("pillow-12-bilinear", Degrade::Pillow12Bilinear),
    ] {
        let arguments = ["data", "prep", "in", "-o", name, "--scale", "4", "--resample", name];
        let ended = srk(&folder, &arguments);
        assert_eq!(ended.code, 0, "{name}: {}", ended.err);
        let high = whole.cut(0, 0, 100, 68);
        assert_eq!(pixels(&folder.join(name).join("high/a.png")), high);
        let low = shrink(&high, method, 4).unwrap();
        assert_eq!(pixels(&folder.join(name).join("low/ax4.png")), low, "{name}");
    }
    // MATLAB's is what is taken if nothing is said; a low resolution is cut out of that of the whole.
    let cut = ["data", "prep", "in", "-o", "cut", "--scale", "4", "--crop", "32", "--step", "24"];
    assert_eq!(srk(&folder, &cut).code, 0);
    let low = pixels(&folder.join("matlab-bicubic/low/ax4.png"));
    assert_eq!(pixels(&folder.join("cut/low/a_s002x4.png")), low.cut(6, 0, 8, 8));
    assert_eq!(pixels(&folder.join("cut/high/a_s002.png")), whole.cut(24, 0, 32, 32));
    // Given ones are taken as they are.
    let given = ["--lr", "bilinear/low"];
    let arguments: Vec<&str> = cut.iter().map(|a| if *a == "cut" { "given" } else { a }).collect();
    let ended = srk(&folder, &[&arguments[..], &given[..]].concat());
    assert_eq!(ended.code, 0, "{}", ended.err);
    let low = pixels(&folder.join("bilinear/low/ax4.png"));
    assert_eq!(pixels(&folder.join("given/low/a_s002x4.png")), low.cut(6, 0, 8, 8));
    let odd = ["data", "prep", "in", "-o", "odd", "--scale", "4", "--crop", "30", "--step", "24"];
    assert_eq!(srk(&folder, &odd).code, 2);
    // What was written trains.
    fs::write(folder.join("run.toml"), place.text()).unwrap();
    let set = |key: &str, at: &str| format!("{key}=[{:?}]", folder.join(at).display().to_string());
    let (high, low) = (set("data.train.paths", "given/high"), set("data.train.low", "given/low"));
    let train = ["train", "run.toml", "--set", &high, "--set", &low, "--set", "run.steps=1"];
    let ended = srk(&folder, &train);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("12 training images"), "{}", ended.out);
}

fn findings(out: &str) -> Vec<(String, String)> {
    let events = out.lines().map(|l| serde_json::from_str::<Value>(l).unwrap());
    let text = |v: &Value| v.as_str().unwrap().rsplit(['/', '\\']).next().unwrap().to_owned();
    events
        .filter(|e| e["event"] == "finding")
        .map(|e| (e["kind"].as_str().unwrap().to_owned(), text(&e["file"])))
        .collect()
}

#[test]
fn a_check_names_what_training_had_better_not_see() {
    let place = Place::new();
    let folder = place.runs("work");
    fs::create_dir_all(folder.join("in")).unwrap();
    let at = |name: &str| folder.join("in").join(name);
    write_image(&at("a.png"), 80, 70, 1);
    // The same pixels in another file.
    imaging::write(&at("b.bmp"), &imaging::read(&at("a.png")).unwrap(), EncodeOptions::default())
        .unwrap();
    write_image(&at("small.png"), 80, 20, 2);
    let gray: Vec<u8> = (0..80u32 * 80).map(|i| (i % 251) as u8).collect();
    let gray = Image::from_u8(80, 80, Color::Gray, gray).unwrap();
    imaging::write(&at("gray.png"), &gray, EncodeOptions::default()).unwrap();
    fs::copy("tests/jpeg/cmyk.jpg", at("inks.jpg")).unwrap();
    let ended = srk(&folder, &["data", "check", "in", "--least", "30", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let found = findings(&ended.out);
    for (kind, name) in
        [("duplicate", "b.bmp"), ("small", "small.png"), ("gray", "gray.png"), ("CMYK", "inks.jpg")]
    {
        assert!(found.contains(&(kind.into(), name.into())), "{kind}: {found:?}");
    }
    let last: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["pictures"]), (&"done".into(), &5.into()));
    assert_eq!((&last["duplicates"], &last["broken"]), (&1.into(), &0.into()));
    // One that cannot be read is a failure.
    let good = fs::read(at("a.png")).unwrap();
    fs::write(at("cut.png"), &good[..good.len() / 2]).unwrap();
    let ended = srk(&folder, &["data", "check", "in"]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.out.contains("broken") && ended.out.contains("cut.png"), "{}", ended.out);
    assert!(ended.err.contains("1 of 6 pictures is broken"), "{}", ended.err);
    assert_eq!(srk(&folder, &["data", "check", "nowhere"]).code, 2);
}

#[test]
fn statistics_are_those_of_all_pixels() {
    let place = Place::new();
    let folder = place.runs("work");
    fs::create_dir_all(folder.join("in")).unwrap();
    for (name, width, color) in [("a", 10, [51, 102, 0]), ("b", 30, [51, 102, 204])] {
        let pixels = std::iter::repeat_n(color, width * 8).flatten().collect();
        write(&folder.join(format!("in/{name}.png")), Rgb8 { width, height: 8, pixels });
    }
    let ended = srk(&folder, &["data", "stats", "in", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let stats: Value = serde_json::from_str(ended.out.lines().last().unwrap()).unwrap();
    assert_eq!((&stats["pictures"], &stats["pixels"]), (&2.into(), &320.into()));
    assert_eq!((&stats["width"]["min"], &stats["width"]["max"]), (&10.into(), &30.into()));
    let near = |key: &str, i: usize, wanted: f64| {
        let got = stats[key][i].as_f64().unwrap();
        assert!((got - wanted).abs() < 1e-9, "{key} {i}: {got}");
    };
    // A quarter of the pixels has no blue: mean 0.75 * 0.8, deviation 0.8 * sqrt(0.75 * 0.25).
    for (i, mean, deviation) in [(0, 0.2, 0.0), (1, 0.4, 0.0), (2, 0.6, 0.8 * 0.1875f64.sqrt())] {
        near("mean", i, mean);
        near("deviation", i, deviation);
    }
    let ended = srk(&folder, &["data", "stats", "in"]);
    assert!(ended.out.contains("0.2000 0.4000 0.6000"), "{}", ended.out);
}
