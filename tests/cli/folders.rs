//! `srk upscale` with folders and many files: which are taken, what they become, and what a run leaves behind.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::print_stdout)]
use std::fs;
use std::process::Command;

use crate::common::command::{Bench, size};

use image::{DynamicImage, ImageBuffer, Luma, Rgba};

#[test]
fn no_picture_of_a_folder_is_passed_over_in_silence() {
    let b = Bench::new();
    b.photo("mix/a.png", 10, 8);
    b.photo("c.tiff", 10, 8);
    b.photo("b.jpg", 10, 8);
    b.photo("p.ppm", 10, 8);
    for (from, to) in [
        ("c.tiff", "mix/c.tif"),
        ("b.jpg", "mix/b.jfif"),
        ("b.jpg", "mix/b2.jpe"),
        ("p.ppm", "mix/p.pnm"),
    ] {
        fs::copy(b.path(from), b.path(to)).unwrap();
    }
    fs::copy(b.path("mix/a.png"), b.path("mix/noext")).unwrap();
    for name in ["d.avif", "e.HEIC", "f.jxl", "g.psd", "README", "notes.txt"] {
        b.put(&format!("mix/{name}"), "no picture");
    }
    let run = b.upscale(&["mix", "-o", "out", "--json"]).worked();
    for name in ["a", "b", "b2", "c", "p", "noext"] {
        assert_eq!(size(&b.path(&format!("out/{name}.png"))), (40, 32), "{name}");
    }
    assert_eq!(fs::read_dir(b.path("out")).unwrap().count(), 6);
    let run = run.says("4 pictures in formats that srk does not read").says("d.avif");
    assert!(!run.err.contains("notes.txt") && !run.err.contains("README"), "{}", run.err);
    assert_eq!(run.events()[0]["unread"].as_array().unwrap().len(), 4);
    b.put("foreign/a.avif", "no picture");
    b.upscale(&["foreign", "-o", "out2"]).failed(1, &["holds no image", "a.avif"]);
}

#[test]
fn one_file_takes_one_picture() {
    let b = Bench::new();
    b.photo("in/a.png", 10, 8);
    b.photo("in/b.png", 10, 8);
    b.upscale(&["in/a.png", "in/b.png", "-o", "k/one.png"])
        .failed(2, &["k/one.png is one file", "-o k/"]);
    b.upscale(&["in", "-o", "one.jpg"]).failed(2, &["folder of pictures", "-o one/"]);
    b.upscale(&["in", "one.jpg"]).failed(2, &["one.jpg is one file"]);
    b.put("plain", "a file");
    b.upscale(&["in", "-o", "plain"]).failed(2, &["plain is one file"]);
    assert!(!b.has("k") && !b.has("one.jpg"));
    // What ends with a stroke, or is there, is a folder whatever it is called.
    b.upscale(&["in", "-o", "odd.png/"]).worked();
    b.upscale(&["in", "-o", "odd.png", "--overwrite"]).worked();
    assert!(b.has("odd.png/a.png") && b.has("odd.png/b.png"));
}

#[test]
fn patterns_choose_files_of_folders() {
    let b = Bench::new();
    for name in ["in/a.png", "in/b.jpg", "in/raw/c.png", "in/raw/deep/d.png"] {
        b.photo(name, 10, 8);
    }
    let outputs = |folder: &str| {
        let mut names = Vec::new();
        let mut folders = vec![b.path(folder)];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => names.push(path.file_stem().unwrap().to_string_lossy().into_owned()),
                }
            }
        }
        names.sort();
        names.concat()
    };
    for (folder, arguments, wanted) in [
        ("1", &["--include", "*.png"][..], "acd"),
        ("2", &["--exclude", "*.png"], "b"),
        ("3", &["--include", "raw/**"], "cd"),
        ("4", &["--exclude", "raw/"], "ab"),
        ("5", &["--include", "?.jpg", "--include", "d*", "--exclude", "b.*"], "d"),
    ] {
        b.upscale(&[&["in", "-r", "-o", folder][..], arguments].concat()).worked();
        assert_eq!(outputs(folder), wanted, "{arguments:?}");
    }
    b.upscale(&["in", "-o", "6", "--include", "*.gif"]).failed(1, &["2 pictures", "--include"]);
    b.upscale(&["in", "-o", "6", "--include", ""]).failed(2, &["a pattern"]);
    // What is named is wanted.
    b.upscale(&["in/a.png", "named.png", "--exclude", "*"]).worked();
}

#[test]
fn the_first_failure_ends_a_run_if_asked() {
    let b = Bench::new();
    b.put("in/a.png", "no picture");
    b.photo("in/b.png", 10, 8);
    b.photo("in/c.png", 10, 8);
    let run = b.upscale(&["in", "-o", "out", "--fail-fast", "--json"]);
    let run = run.failed(1, &["a.png", "2 pictures not tried"]);
    let done = run.events().into_iter().find(|e| e["event"] == "done").unwrap();
    assert_eq!((&done["failed"], &done["not_tried"]), (&1.into(), &2.into()));
    assert!(!b.has("out/b.png"));
    b.upscale(&["in", "-o", "out"]).failed(1, &["1 of 3"]);
    assert!(b.has("out/b.png") && b.has("out/c.png"));
}

#[cfg(unix)]
#[test]
fn outputs_keep_times_and_permissions_if_asked() {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};
    let b = Bench::new();
    let input = b.photo("in.png", 10, 8);
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::File::options().write(true).open(&input).unwrap().set_modified(then).unwrap();
    fs::set_permissions(&input, fs::Permissions::from_mode(0o440)).unwrap();
    b.upscale(&["in.png", "new.png"]).worked();
    b.upscale(&["in.png", "kept.png", "-p"]).worked();
    let of = |name: &str| fs::metadata(b.path(name)).unwrap();
    assert_ne!(of("new.png").modified().unwrap(), then);
    assert_eq!(of("kept.png").modified().unwrap(), then);
    assert_eq!(of("kept.png").permissions().mode() & 0o777, 0o440);
}

#[test]
fn pnm_holds_colours_gray_and_sixteen_bits() {
    let b = Bench::new();
    b.photo("in.png", 23, 17);
    b.upscale(&["in.png", "plain.png"]).worked();
    for name in ["out.ppm", "out.pnm"] {
        b.upscale(&["in.png", name]).worked();
        assert!(fs::read(b.path(name)).unwrap().starts_with(b"P6\n92 68\n255\n"), "{name}");
        let (a, c) =
            (image::open(b.path(name)).unwrap(), image::open(b.path("plain.png")).unwrap());
        assert!(a.into_rgb8() == c.into_rgb8(), "{name}");
    }
    b.upscale(&["in.png", "deep.ppm", "--depth", "16"]).worked();
    b.upscale(&["in.png", "deep.png", "--depth", "16"]).worked();
    assert!(fs::read(b.path("deep.ppm")).unwrap().starts_with(b"P6\n92 68\n65535\n"));
    let open = |name: &str| image::open(b.path(name)).unwrap();
    assert!(open("deep.ppm").into_rgb16() == open("deep.png").into_rgb16());
    let gray = ImageBuffer::from_fn(12, 9, |x, y| Luma([(x * 20 + y) as u8]));
    gray.save(b.path("gray.png")).unwrap();
    b.upscale(&["gray.png", "gray.pgm"]).worked();
    assert!(fs::read(b.path("gray.pgm")).unwrap().starts_with(b"P5\n48 36\n255\n"));
    assert!(matches!(open("gray.pgm"), DynamicImage::ImageLuma8(_)));
    b.upscale(&["gray.png", "wide.ppm"]).worked();
    assert!(open("wide.ppm").into_luma8() == open("gray.pgm").into_luma8());
    b.upscale(&["in.png", "gray2.pgm"]).failed(1, &["gray alone", ".ppm"]);
    let alpha = ImageBuffer::from_fn(8, 8, |x, y| Rgba([90u8, 80, 70, (x * y * 4) as u8]));
    alpha.save(b.path("alpha.png")).unwrap();
    b.upscale(&["alpha.png", "alpha.ppm"]).failed(1, &["transparency", "--alpha drop"]);
    b.upscale(&["alpha.png", "alpha.ppm", "--alpha", "drop"]).worked();
    b.upscale(&["in.png", "-o", "made", "-f", "ppm"]).worked();
    assert!(b.has("made/in.ppm"));
    b.upscale(&["made/in.ppm", "-o", "again", "-f", "keep"]).worked();
    assert_eq!(size(&b.path("again/in.pnm")), (368, 272));
    b.upscale(&["in.png", "q.ppm", "--quality", "9"]).worked().says("--quality does nothing");
}

#[test]
fn the_environment_stands_in_for_options() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    let run = b.with(&[("SRK_MODEL", "srk-x4")], &["in.png", "a.png"]).worked();
    assert!(run.err.starts_with("srk-x4 on"), "{}", run.err);
    let run = b.with(&[("SRK_MODEL", "srk-x4")], &["in.png", "b.png", "-m", "auto"]).worked();
    assert!(run.err.starts_with("auto on"), "{}", run.err);
    b.with(&[("SRK_MODEL", "nix")], &["in.png", "x.png"]).failed(3, &["nix"]);
    b.with(&[("SRK_DEVICE", "cuda:99")], &["in.png", "x.png"]).failed(4, &["GPU"]);
    b.with(&[("SRK_DEVICE", "cuda:99")], &["in.png", "c.png", "--device", "cpu"]).worked();
    b.with(&[("SRK_DEVICE", "gpu")], &["in.png", "x.png"]).failed(2, &["SRK_DEVICE=gpu"]);
    b.with(&[("SRK_RAM", "1M")], &["in.png", "x.png"]).failed(5, &["memory"]);
    b.with(&[("SRK_RAM", "1M")], &["in.png", "d.png", "--ram", "1G"]).worked();
    b.with(&[("SRK_RAM", "lots")], &["in.png", "x.png"]).failed(2, &["SRK_RAM=lots"]);
    for wrong in ["many", "0", "-1", "1.5", "99999999999"] {
        let named = format!("SRK_THREADS={wrong}");
        b.with(&[("SRK_THREADS", wrong)], &["in.png", "x.png"]).failed(2, &[&named]);
    }
    let run = b.with(&[("SRK_THREADS", "3")], &["in.png", "e.png"]).worked();
    assert!(run.err.contains("3 threads"), "{}", run.err);
    let run = b.with(&[("SRK_THREADS", "many")], &["in.png", "f.png", "--threads", "1"]).worked();
    assert!(run.err.contains("1 threads"), "{}", run.err);
    assert!(!b.has("x.png"));
}

#[test]
fn a_log_has_what_was_said() {
    let b = Bench::new();
    let picture = b.photo("in.png", 16, 12);
    let before = fs::read(&picture).unwrap();
    let run = b.upscale(&["in.png", "out.png", "-q", "--log", "run.log"]).worked();
    assert!(run.err.is_empty(), "{}", run.err);
    b.upscale(&["none.png", "x.png", "--log", "run.log"]).failed(1, &["none.png"]);
    let log = fs::read_to_string(b.path("run.log")).unwrap();
    assert!(log.contains("in.png -> out.png  16x12 -> 64x48"), "{log}");
    assert!(log.contains("error: cannot read none.png"), "{log}");
    let begins = |line: &&str| line.starts_with("srk 0.") && line.contains("upscale --steps 1");
    assert_eq!(log.lines().filter(begins).count(), 2, "{log}");
    b.upscale(&["in.png", "y.png", "--log", "in.png"]).failed(2, &["in.png", "reads it"]);
    fs::copy(b.path("in.png"), b.path("other.png")).unwrap();
    b.upscale(&["in.png", "y.png", "--log", "other.png"]).failed(2, &["other.png", "no text"]);
    b.upscale(&["in.png", "y.png", "--log", "no/run.log"]).failed(2, &["no/run.log"]);
    assert!(fs::read(&picture).unwrap() == before && !b.has("y.png"));
}

#[test]
fn colours_and_progress_are_as_asked() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    let red = "\x1b[1;31merror:\x1b[0m";
    b.upscale(&["none.png", "x.png", "--color", "always"]).failed(1, &[red]);
    for arguments in [&["none.png", "x.png", "--color", "never"][..], &["none.png", "x.png"]] {
        let run = b.upscale(arguments).failed(1, &["error:"]);
        assert!(!run.err.contains('\x1b'), "{}", run.err);
    }
    let run = b.upscale(&["in.png", "--nix", "--color", "always"]).failed(2, &[]);
    assert!(run.err.contains('\x1b'), "{}", run.err);
    for how in ["auto", "bar", "plain", "none"] {
        b.upscale(&["in.png", "out.png", "--overwrite", "--progress", how]).worked();
    }
    b.upscale(&["in.png", "x.png", "--progress", "fast"]).failed(2, &["fast"]);
}

#[cfg(unix)]
#[test]
fn outputs_that_no_disk_holds_are_refused_before_any_work() {
    let b = Bench::new();
    b.photo("in.png", 20, 15);
    let df = Command::new("df").args(["-Pk", "."]).current_dir(b.folder()).output();
    let text = String::from_utf8(df.map(|o| o.stdout).unwrap_or_default()).unwrap();
    let free: Option<u64> =
        text.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)?.parse().ok());
    // 260000x195000 pixels of three bytes.
    let needed = 260_000u64 * 195_000 * 3;
    match free {
        Some(free) if free * 1024 < needed => {
            b.upscale(&["in.png", "out.ppm", "-s", "13000"])
                .failed(1, &["do not fit on the disk", "are free", "another disk"]);
            assert!(!b.has("out.ppm"));
        }
        _ => println!("not tested: more than 150 GB are free here"),
    }
}
