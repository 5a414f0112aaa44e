//! Nothing is lost: no command writes over what it reads or was not told to replace, results of srk are known as
//! such, and inputs that ask for too much end with a message.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use crate::common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::command::{Bench, Run};
use common::torch_file as torch;
use common::training::write_image;
use srk::imaging::stamp;

/// A picture in the folder of `b`, different for each seed; its bytes.
fn photo(b: &Bench, name: &str, seed: usize) -> Vec<u8> {
    let path = b.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write_image(&path, 16, 12, seed);
    fs::read(path).unwrap()
}

/// Fails if the file `name` has other bytes.
#[track_caller]
fn assert_is(b: &Bench, name: &str, bytes: &[u8]) {
    assert!(fs::read(b.path(name)).unwrap() == bytes, "{name} was changed");
}

#[test]
fn a_pattern_of_two_pictures_replaces_none() {
    let b = Bench::new();
    photo(&b, "a.png", 1);
    let second = photo(&b, "b.png", 2);
    for more in [&["--overwrite"][..], &["--skip-existing"], &[]] {
        b.upscale(&[&["a.png", "b.png"], more].concat()).failed(2, &["b.png", "-o"]);
        assert_is(&b, "b.png", &second);
    }
    // The same of a folder with pictures, and not of one with results.
    photo(&b, "more/c.png", 3);
    b.upscale(&["a.png", "more"]).failed(2, &["more", "-o"]);
    b.upscale(&["a.png", "new.png"]).worked();
    b.upscale(&["a.png", "-o", "big/"]).worked();
    b.upscale(&["b.png", "big"]).worked();
    // What srk made itself it may make again, and what is no picture is no input.
    fs::write(b.path("old.bmp"), "no picture").unwrap();
    b.upscale(&["a.png", "new.png", "--overwrite"]).worked();
    let run = b.upscale(&["a.png", "new.png", "--skip-existing"]).worked();
    assert!(run.err.contains("1 of 1 left out"), "{}", run.err);
    b.upscale(&["a.png", "old.bmp", "--overwrite"]).worked();
    fs::remove_file(b.path("old.bmp")).unwrap();
    // Said plainly, it is done.
    b.upscale(&["a.png", "-o", "b.png", "--overwrite"]).worked();
    assert_eq!(b.files(), ["a.png", "b.png", "big/a.png", "big/b.png", "more/c.png", "new.png"]);
}

#[cfg(unix)]
#[test]
fn no_output_is_an_input_under_any_name() {
    let b = Bench::new();
    let (a, other) = (photo(&b, "a.png", 1), photo(&b, "b.jpg", 2));
    fs::hard_link(b.path("a.png"), b.path("hard.png")).unwrap();
    std::os::unix::fs::symlink("a.png", b.path("soft.png")).unwrap();
    std::os::unix::fs::symlink(".", b.path("here")).unwrap();
    for output in ["a.png", "hard.png", "soft.png", "here/a.png", "./here/here/a.png"] {
        b.upscale(&["a.png", "-o", output, "--overwrite"]).failed(2, &["a.png", "own result"]);
    }
    // The output of one is the input of another.
    fs::create_dir(b.path("in")).unwrap();
    fs::rename(b.path("b.jpg"), b.path("in/a.jpg")).unwrap();
    b.upscale(&["in/a.jpg", "a.png", "-o", ".", "--overwrite"]).failed(2, &["a.png"]);
    assert_is(&b, "a.png", &a);
    assert_is(&b, "in/a.jpg", &other);
}

#[test]
fn every_collision_is_named() {
    let b = Bench::new();
    for name in ["d/a.jpg", "d/a.png", "d/b.jpg", "d/b.png", "d/c.png"] {
        photo(&b, name, 1);
    }
    let run = b.upscale(&["d", "-o", "o"]).failed(2, &["d/a.jpg", "d/a.png", "d/b.jpg", "d/b.png"]);
    assert!(!run.err.contains("c.png"), "{}", run.err);
    assert!(!b.path("o").exists());
}

#[test]
fn results_are_not_enlarged_again() {
    let b = Bench::new();
    photo(&b, "scans/a.png", 1);
    photo(&b, "scans/sub/b.jpg", 2);
    let again = ["scans", "-r", "-o", "scans/big", "--skip-existing"];
    for _ in 0..2 {
        b.upscale(&again).worked();
    }
    let expected = ["scans/a.png", "scans/big/a.png", "scans/big/sub/b.png", "scans/sub/b.jpg"];
    assert_eq!(b.files(), expected);
    // Beside their inputs, by their name even where the format has no stamp or it was not wanted.
    for (i, more) in [&["-f", "png"][..], &["-f", "bmp"], &["--no-stamp"]].iter().enumerate() {
        let folder = format!("flat{i}");
        photo(&b, &format!("{folder}/a.png"), 1);
        for _ in 0..2 {
            b.upscale(&[&[folder.as_str(), "--skip-existing"], *more].concat()).worked();
        }
        assert_eq!(fs::read_dir(b.path(&folder)).unwrap().count(), 2, "{more:?}");
    }
    // Under another name, by their stamp, and with a note.
    fs::create_dir(b.path("mixed")).unwrap();
    fs::rename(b.path("flat0/a_x4.png"), b.path("mixed/holiday.png")).unwrap();
    b.upscale(&["mixed", "-o", "o"]).failed(1, &["but 1 result of srk\n"]);
    photo(&b, "mixed/new.png", 3);
    let run = b.upscale(&["mixed", "-o", "o", "--json"]).worked();
    assert!(
        run.err.contains("note: 1 result of srk in the inputs is left out")
            && run.err.contains("holiday.png"),
        "{}",
        run.err
    );
    assert!(run.out.contains(r#""left_out":["mixed/holiday.png"]"#), "{}", run.out);
    assert!(!b.path("o/holiday.png").exists());
    // Named, it is enlarged.
    b.upscale(&["mixed/holiday.png", "-o", "o/"]).worked();
    assert!(b.path("o/holiday.png").exists());
}

#[test]
fn an_output_says_what_made_it() {
    let b = Bench::new();
    photo(&b, "a.png", 1);
    for name in ["o.png", "o.jpg", "o.webp", "o.tif"] {
        b.upscale(&["a.png", name, "--seed", "7", "--sampler", "ddim"]).worked();
        let said = stamp::of_file(&b.path(name)).unwrap();
        for word in ["srk ", " model=srk-x4", " seed=7", " steps=1", " scale=4", " sampler=ddim"] {
            assert!(said.contains(word), "{name}: {said}");
        }
        b.upscale(&["a.png", "-o", name, "--no-stamp", "--overwrite"]).worked();
        assert_eq!(stamp::of_file(&b.path(name)), None, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn hidden_files_and_links_upwards_are_passed_over() {
    let b = Bench::new();
    photo(&b, "d/a.png", 1);
    photo(&b, "d/.thumbnails/a.png", 1);
    fs::write(b.path("d/._a.png"), b"\0\x05\x16\x07").unwrap();
    std::os::unix::fs::symlink("..", b.path("d/up")).unwrap();
    b.upscale(&["d", "-r", "-o", "o"]).worked();
    assert_eq!(b.files().iter().filter(|f| f.starts_with("o/")).count(), 1, "{:?}", b.files());
}

#[test]
fn eval_saves_over_nothing() {
    let b = Bench::new();
    let big = |name: &str, seed| {
        fs::create_dir_all(b.path(name).parent().unwrap()).unwrap();
        write_image(&b.path(name), 48, 40, seed);
        fs::read(b.path(name)).unwrap()
    };
    let (one, two) = (big("one/a.png", 1), big("two/a.png", 2));
    let eval = |more: &[&str]| b.srk(&[&["eval", "--steps", "1", "--hr", "one"], more].concat());
    for more in [&["--save", "one"][..], &["--save", "one", "--overwrite"]] {
        eval(more).failed(2, &["one/a.png"]);
    }
    eval(&["two", "--save", "s"]).worked();
    assert_eq!(b.files(), ["one/a.png", "s/one/a.png", "s/two/a.png", "two/a.png"]);
    assert!(fs::read(b.path("s/one/a.png")).unwrap() != fs::read(b.path("s/two/a.png")).unwrap());
    assert!(stamp::of_file(&b.path("s/one/a.png")).unwrap().contains("seed=42"));
    eval(&["two", "--save", "s"]).failed(2, &["s/one/a.png exists", "--overwrite"]);
    eval(&["two", "--save", "s", "--overwrite"]).worked();
    assert_is(&b, "one/a.png", &one);
    assert_is(&b, "two/a.png", &two);
}

#[test]
fn eval_measures_what_can_be_measured() {
    let b = Bench::new();
    fs::create_dir(b.path("hr")).unwrap();
    for (name, w, h) in [("a", 48, 40), ("b_banner", 120, 17), ("c", 44, 48), ("d_dot", 3, 3)] {
        write_image(&b.path(&format!("hr/{name}.png")), w, h, 1);
    }
    let good = fs::read(b.path("hr/a.png")).unwrap();
    fs::write(b.path("hr/e_cut.png"), &good[..good.len() / 2]).unwrap();
    let run = b.srk(&["eval", "--steps", "1", "--hr", "hr"]);
    let run = run.failed(1, &["b_banner.png: 120x17", "d_dot", "e_cut", "3 of 5 pictures"]);
    assert!(run.out.contains("mean of 2"), "{}", run.out);
    let run = b.srk(&["eval", "--steps", "1", "--hr", "hr", "--json"]).failed(1, &[]);
    assert_eq!(run.out.matches(r#""status":"failed""#).count(), 3, "{}", run.out);
    assert!(run.out.contains(r#""images":2"#), "{}", run.out);
    // Finished pictures, one of another size.
    fs::create_dir(b.path("sr")).unwrap();
    ["a", "c"].iter().for_each(|n| write_image(&b.path(&format!("sr/{n}.png")), 48, 40, 2));
    ["b_banner", "d_dot", "e_cut"]
        .iter()
        .for_each(|n| fs::remove_file(b.path(&format!("hr/{n}.png"))).unwrap());
    let run = b.srk(&["eval", "sr", "hr"]).failed(1, &["sr/c.png", "size", "1 of 2"]);
    assert!(run.out.contains("mean of 1"), "{}", run.out);
}

/// A weights file of the binary.
fn weights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/srk-x4.safetensors")
}

#[test]
fn models_are_not_written_over() {
    let b = Bench::new();
    fs::copy(weights(), b.path("m.safetensors")).unwrap();
    let model = fs::read(b.path("m.safetensors")).unwrap();
    fs::write(b.path("thesis.txt"), "years of work").unwrap();
    let export = |more: &[&str]| b.srk(&[&["models", "export", "m.safetensors"], more].concat());
    export(&["thesis.txt"]).failed(2, &["thesis.txt exists", "--overwrite"]);
    assert_is(&b, "thesis.txt", b"years of work");
    fs::hard_link(b.path("m.safetensors"), b.path("hard.safetensors")).unwrap();
    export(&["hard.safetensors", "--overwrite"]).failed(2, &["m.safetensors"]);
    export(&["new.safetensors"]).worked();
    export(&["new.safetensors", "--overwrite"]).worked();
    b.srk(&["models", "import", "m.safetensors", "-o", "m.safetensors", "--overwrite"])
        .failed(2, &["m.safetensors"]);
    assert_is(&b, "m.safetensors", &model);
}

#[test]
fn prepared_pictures_replace_no_input() {
    let b = Bench::new();
    let a = photo(&b, "out/train/a.png", 1);
    let prep = |more: &[&str]| {
        let all = ["data", "prep", "out/train", "-o", "out", "--low", "4", "--high", "8"];
        b.srk(&[&all[..], more].concat())
    };
    prep(&[]).failed(2, &["not empty"]);
    prep(&["--force", "--split", "1"]).failed(2, &["out/train/a.png"]);
    assert_is(&b, "out/train/a.png", &a);
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_ends_nothing_and_a_full_one_is_told() {
    let b = Bench::new();
    photo(&b, "a.png", 1);
    fs::create_dir(b.path("hr")).unwrap();
    write_image(&b.path("hr/a.png"), 48, 40, 1);
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    let commands: [&[&str]; 6] = [
        &["eval", "--steps", "1", "--hr", "hr"],
        &["models", "list"],
        &["models", "info", "srk-x4", "--tensors"],
        &["train", "--list-recipes"],
        &["upscale", "a.png", "-o", "o.png", "--steps", "1", "--json", "--overwrite"],
        &["data", "prep", "hr", "-o", "p", "--low", "8", "--high", "16", "--force"],
    ];
    for arguments in commands {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = b.command(arguments).stdout(writer).stderr(Stdio::piped()).output().unwrap();
        Run::of(output).worked();
        let output = b.command(arguments).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        Run::of(output).failed(1, &["standard output"]);
        // Nothing can be said here, and nothing panics.
        let output = b.command(arguments).stdout(full()).stderr(full()).output().unwrap();
        assert_eq!(Run::of(output).code, 1, "{arguments:?}");
    }
}

#[test]
fn leftovers_of_killed_processes_are_removed_where_srk_writes_again() {
    let b = Bench::new();
    photo(&b, "a.png", 1);
    fs::write(b.path(".srk-Ab12Cd.tmp"), "half a picture").unwrap();
    let living = fs::File::create(b.path(".srk-living.tmp")).unwrap();
    living.lock().unwrap();
    b.upscale(&["a.png", "o.png"]).worked();
    assert_eq!(b.files(), [".srk-living.tmp", "a.png", "o.png"]);
}

/// The header of a weights file, with sizes of its network changed, and no tensors.
fn without_tensors(config: &str, diffusion: &str) -> Vec<u8> {
    let metadata = serde_json::json!({"srk.config": config, "srk.diffusion": diffusion});
    let mut header = serde_json::json!({"__metadata__": metadata}).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes()[..], &header].concat()
}

#[test]
fn sizes_in_a_file_are_not_believed() {
    let b = Bench::new();
    let started = Instant::now();
    let mut tried = 0;
    for recipe in srk::training::recipes::ALL {
        let Ok(config) = srk::training::config::Config::read(recipe.text, recipe.name, &[]) else {
            continue;
        };
        let model = serde_json::to_value(&config.model).unwrap();
        let diffusion = serde_json::to_string(&config.diffusion).unwrap();
        for (key, _) in model.as_object().unwrap().iter().filter(|(_, v)| v.is_u64()) {
            for size in [0u64, 60_000, 1_000_000_000_000, u64::MAX >> 1] {
                let mut changed = model.clone();
                changed[key] = size.into();
                let bytes = without_tensors(&changed.to_string(), &diffusion);
                let file = srk::models::weights::WeightsFile::parse(&bytes, "x").unwrap();
                let error = srk::diffusion::system::System::from_file(&file, "x").err().unwrap();
                assert!(matches!(error.exit_code(), 1 | 3), "{key} = {size}: {error}");
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
    assert!(started.elapsed() < Duration::from_secs(120), "{:?}", started.elapsed());
    // Through the binary.
    photo(&b, "a.png", 1);
    let config = r#"{"kind": "rrdb", "scale": 4, "base": 60000, "blocks": 60000, "growth": 60000}"#;
    let direct = r#"{"process": {"kind": "direct"}}"#;
    fs::write(b.path("m.safetensors"), without_tensors(config, direct)).unwrap();
    b.upscale(&["-m", "m.safetensors", "a.png", "o.png"]).failed(3, &["m.safetensors"]);
}

#[test]
fn pickles_cost_no_more_than_their_bytes() {
    let b = Bench::new();
    let list = |entries: usize| {
        let mut out = vec![0x80, 2, b']', b'('];
        for _ in 0..entries {
            out.extend(b"K\0K\0\x86");
        }
        out.push(b'e');
        out
    };
    // One list, made a dict of many times; a global with a long name, named many times; a dict of one dict.
    let mut again = list(2000);
    again.extend(b"q\0ccollections\nOrderedDict\nq\x010");
    again.extend(b"h\x01h\0\x85R0".repeat(5000));
    again.push(b'.');
    let mut names = vec![0x80, 2];
    torch::text(&mut names, &"n".repeat(50_000));
    names.extend(b"q\0".iter().chain(&b"h\0h\0\x930".repeat(20_000)));
    names.push(b'.');
    let mut nested = vec![0x80, 2, b'}', b'('];
    for i in 0..3000 {
        torch::text(&mut nested, &i.to_string());
        nested.push(b'N');
    }
    nested.extend(b"uq\0}(");
    for i in 0..30_000 {
        torch::text(&mut nested, &i.to_string());
        nested.extend(b"h\0");
    }
    nested.extend(b"u.");
    let mut keys = vec![0x80, 2];
    keys.extend(b"(");
    torch::text(&mut keys, "storage");
    keys.extend(b"ctorch\nFloatStorage\n");
    torch::text(&mut keys, &"k".repeat(50_000));
    torch::text(&mut keys, "cpu");
    keys.extend(b"K\x01tq\0Q0");
    keys.extend(b"h\0Q0".repeat(20_000));
    keys.extend(b"N.");
    let values = [&[0x80, 2][..], &b"]0".repeat(5 << 20), b"N."].concat();
    for (name, pickle) in
        [("again", again), ("names", names), ("nested", nested), ("keys", keys), ("values", values)]
    {
        let file = format!("{name}.pth");
        fs::write(b.path(&file), torch::zip(&[("x/data.pkl".to_owned(), pickle)], 0)).unwrap();
        let started = Instant::now();
        let script =
            format!("ulimit -v 1500000; exec {} models import {file}", env!("CARGO_BIN_EXE_srk"));
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(b.folder());
        Run::of(command.output().unwrap()).failed(3, &[&file]);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(20), "{name}: {took:?}");
    }
}

/// Folders on the way to an output that are made on the way: what they lead back to is known before.
#[test]
fn detours_through_folders_that_are_not_there_lead_to_no_input() {
    let b = Bench::new();
    let photo = photo(&b, "sc/a.png", 1);
    for output in ["ghost/../sc/a.png", "./sc/x/../a.png"] {
        let arguments = ["sc/a.png", "-o", output, "--overwrite", "-m", "srk-x4"];
        b.upscale(&arguments).failed(2, &["overwritten by its own result"]);
        assert_is(&b, "sc/a.png", &photo);
    }
    b.upscale(&["sc", "-o", "ghost/../sc", "--overwrite", "--name", "{stem}"])
        .failed(2, &["a.png"]);
    assert_is(&b, "sc/a.png", &photo);
}

#[test]
fn damaged_pairs_replace_no_photograph() {
    let b = Bench::new();
    let picture = photo(&b, "p/high/000.png", 1);
    let degrade = |input: &str| {
        b.srk(&[
            "data", "degrade", input, "p", "--count", "2", "--size", "8", "--scale", "4", "--force",
        ])
    };
    for input in ["p", "p/high", "p/high/000.png"] {
        degrade(input).failed(2, &["p/high/000.png"]);
        assert_is(&b, "p/high/000.png", &picture);
    }
    photo(&b, "other.png", 2);
    degrade("other.png").worked();
}

/// Views of `--tta` go without alpha and colours are brought back from the input: what lies under it must not be
/// seen in either.
#[test]
fn hidden_colours_stay_hidden_whatever_is_done() {
    let b = Bench::new();
    let sprite = |name: &str, hidden: u8| {
        let inside = |i: usize| (i % 16).abs_diff(8).pow(2) + (i / 16).abs_diff(6).pow(2) < 20;
        let colors = (0..16 * 12).flat_map(|i| if inside(i) { [200, 40, 90] } else { [hidden; 3] });
        let mut image = srk::Image::from_u8(16, 12, srk::Color::Rgb, colors.collect()).unwrap();
        let alpha = (0..16 * 12).map(|i| if inside(i) { 255 } else { 0 }).collect();
        image.alpha = Some(srk::Samples::U8(alpha));
        image.write(b.path(name)).unwrap();
    };
    sprite("black.png", 0);
    sprite("white.png", 255);
    for option in [&["--tta"][..], &["--color-fix", "wavelet"], &[]] {
        let large = |name: &str| {
            let output = b.path("out.png");
            let arguments =
                [&[name, "-o", "out.png", "--overwrite", "-m", "srk-x4"], option].concat();
            b.upscale(&arguments).worked();
            srk::Image::read(output).unwrap()
        };
        assert!(large("black.png").samples == large("white.png").samples, "{option:?}");
    }
}

#[cfg(unix)]
#[test]
fn a_device_is_no_model_and_no_configuration() {
    let b = Bench::new();
    photo(&b, "a.png", 1);
    b.srk(&["models", "info", "/dev/zero"]).failed(3, &["device"]);
    b.upscale(&["a.png", "-m", "/dev/zero"]).failed(3, &["device"]);
    b.srk(&["train", "/dev/zero"]).failed(2, &["/dev/zero"]);
}
