//! Memory of the process: flat in the size of the output, within `--ram`, and an error where neither can
//! be; and that what is done for it changes no byte.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
use crate::common;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::training::{Place, assert_same, finish};
use image::{DynamicImage, ImageBuffer, Rgb};
use tempfile::TempDir;

/// A model so small that megapixels take seconds, and pictures.
struct Bench {
    place: Place,
    folder: TempDir,
}

/// What a run of the binary came to.
struct Run {
    code: i32,
    /// Largest resident size, in MiB.
    peak: f64,
    out: String,
    err: String,
}

impl Bench {
    fn new() -> Self {
        let place = Place::new();
        finish(&place.config(&["run.steps=1"]), &place.runs("runs"), None);
        Self { place, folder: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn photo(&self, name: &str, width: u32, height: u32) -> PathBuf {
        let pixel = |x: u32, y: u32| {
            let v = 128.0
                + 60.0 * (x as f32 / 9.0).sin()
                + 50.0 * (y as f32 / 7.0 + x as f32 / 31.0).cos();
            Rgb([v as u8, (x * y % 251) as u8 / 8 + 90, (x + y) as u8])
        };
        let path = self.path(name);
        ImageBuffer::from_fn(width, height, pixel).save(&path).unwrap();
        path
    }

    /// `srk upscale` with the small model and one step.
    fn upscale(&self, arguments: &[&str]) -> Run {
        self.upscale_under(None, arguments)
    }

    /// The same with so many steps: each widens what a tile sees.
    fn upscale_as(&self, arguments: &[&str], steps: &str) -> Run {
        measured(self.command(arguments, steps))
    }

    fn command(&self, arguments: &[&str], steps: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_srk"));
        command.arg("upscale").args(arguments).args(["--steps", steps, "-m"]);
        command.arg(self.place.runs("runs/tiny")).current_dir(self.folder.path());
        command
    }

    /// The same with at most so many bytes of address space.
    fn upscale_under(&self, space: Option<u64>, arguments: &[&str]) -> Run {
        let mut command = self.command(arguments, "1");
        if let Some(bytes) = space {
            // SAFETY: setrlimit is a system call, and nothing else is done between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
                    match libc::setrlimit(libc::RLIMIT_AS, &limit) {
                        0 => Ok(()),
                        _ => Err(std::io::Error::last_os_error()),
                    }
                });
            }
        }
        measured(command)
    }
}

/// Runs `command` to its end and watches how much it takes. What the system says of it then counts the process that
/// started it, too: its size is that of a program that was replaced.
#[allow(clippy::zombie_processes)] // wait4 reaps it.
fn measured(mut command: Command) -> Run {
    let folder = TempDir::new().unwrap();
    let files = ["out", "err"].map(|name| folder.path().join(name));
    let [out, err] = files.each_ref().map(|path| Stdio::from(fs::File::create(path).unwrap()));
    let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let (id, mut seen) = (child.id().cast_signed(), None);
    let usage = loop {
        seen = largest(id).or(seen);
        // SAFETY: both pointers are valid for writes.
        let reaped = unsafe { libc::wait4(id, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        match reaped {
            0 => std::thread::sleep(std::time::Duration::from_millis(4)),
            _ => {
                assert_eq!(reaped, id);
                // SAFETY: zeroes are a valid rusage, and so is what the system wrote.
                break unsafe { usage.assume_init() };
            }
        }
    };
    assert!(libc::WIFEXITED(status), "srk was killed by signal {}", libc::WTERMSIG(status));
    let [out, err] = files.map(|path| fs::read_to_string(path).unwrap());
    assert!(!err.contains("panicked"), "{err}");
    // Kibibytes.
    let peak = seen.unwrap_or(usage.ru_maxrss as f64) / 1024.0;
    Run { code: libc::WEXITSTATUS(status), peak, out, err }
}

/// The largest resident size so far of process `id`, in kibibytes, where the system says it.
fn largest(id: i32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

impl Run {
    fn worked(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }

    fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.err);
        // It ended before any work.
        assert!(self.peak < 150.0, "{} MiB", self.peak);
        for word in words {
            assert!(self.err.contains(word), "\"{word}\" is not in: {}", self.err);
        }
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

fn pixels(path: &Path) -> DynamicImage {
    let mut reader = image::ImageReader::open(path).unwrap();
    reader.no_limits();
    reader.with_guessed_format().unwrap().decode().unwrap()
}

#[test]
fn memory_grows_by_the_picture_and_not_by_its_output() {
    let bench = Bench::new();
    // Higher than what the calls of the network are behind each other.
    bench.photo("small.png", 320, 640);
    bench.photo("large.png", 320, 1920);
    let peak = |name: &str, output: &str, ram: &str| {
        bench.upscale(&[name, output, "--overwrite", "--ram", ram, "-q"]).worked().peak
    };
    // An output of 320x1280 more pixels has 19 MiB more, the picture itself 1.2. The budget is so small that it bounds
    // the tiles of both.
    for output in ["a.png", "a.tiff", "a.jpg"] {
        let [small, large] = ["small.png", "large.png"].map(|name| peak(name, output, "80M"));
        assert!(large - small < 10.0, "{output}: {small} MiB, {large} MiB");
        assert!(large < 80.0, "{output}: {large} MiB");
        let more = peak("large.png", output, "120M");
        assert!(more < 120.0, "{output}: {more} MiB");
    }
    // A texture, which is held a second time with what continues it.
    let all = ["large.png", "w.png", "--wrap", "both", "--ram", "120M", "-q"];
    let wrapped = bench.upscale(&all).worked().peak;
    assert!(wrapped < 120.0, "--wrap both: {wrapped} MiB");
}

#[test]
fn the_process_stays_within_what_it_may_take() {
    let bench = Bench::new();
    bench.photo("p.png", 700, 500);
    for ram in [90, 110, 150, 220] {
        for arguments in [&["-s", "4"][..], &["-s", "2.5"], &["-j", "3"]] {
            let all = [&["p.png", "o.png", "--overwrite", "--ram", &format!("{ram}M")], arguments];
            let run = bench.upscale(&all.concat()).worked();
            assert!(run.peak < f64::from(ram), "{arguments:?}: {} MiB of {ram}", run.peak);
        }
    }
}

#[test]
fn tiles_that_are_mostly_surroundings_are_said_with_what_would_do() {
    let bench = Bench::new();
    bench.photo("p.png", 200, 200);
    let with = |ram: &str| {
        bench.upscale_as(&["p.png", "o.png", "--overwrite", "--ram", ram], "2").worked().err
    };
    let least = bench.upscale_as(&["p.png", "o.png", "--ram", "1"], "2").err;
    let least = least.split("--ram ").find_map(|t| t.strip_suffix(" is enough\n")).unwrap();
    let said = with(least);
    assert!(said.contains("times the work"), "{said}");
    let enough = said.split("--ram ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let said = with(&enough);
    assert!(!said.contains("times the work"), "{enough}: {said}");
}

#[test]
fn bytes_do_not_depend_on_memory_tiles_or_threads() {
    let bench = Bench::new();
    bench.photo("p.png", 173, 149);
    let ways: [&[&str]; 4] =
        [&["--ram", "1G"], &["--ram", "70M"], &["-t", "32", "-j", "1"], &["-t", "none", "-j", "3"]];
    for (name, scale) in [
        ("a.png", "4"),
        ("b.png", "2"),
        ("c.png", "2.5"),
        ("d.tiff", "4"),
        ("e.jpg", "4"),
        ("f.tiff", "9"),
    ] {
        let mut first: Option<Vec<u8>> = None;
        for way in ways {
            let all = [&["p.png", name, "-s", scale, "--overwrite", "-q"], way].concat();
            bench.upscale(&all).worked();
            let got = bytes(&bench.path(name));
            assert!(first.get_or_insert_with(|| got.clone()) == &got, "{name} {way:?}");
        }
    }
}

#[test]
fn every_format_holds_the_same_pixels() {
    let bench = Bench::new();
    let photo = pixels(&bench.photo("p.png", 90, 70)).to_rgba8();
    let alpha = ImageBuffer::from_fn(90, 70, |x, y| {
        let mut pixel = *photo.get_pixel(x, y);
        pixel[3] = (x * 2 + y) as u8;
        pixel
    });
    alpha.save(bench.path("alpha.png")).unwrap();
    let deep = DynamicImage::ImageRgba8(alpha).to_rgba16();
    deep.save(bench.path("deep.png")).unwrap();
    for input in ["p.png", "alpha.png", "deep.png"] {
        for scale in ["4", "3"] {
            let write = |format: &str| {
                let output = format!("{input}-{scale}.{format}");
                bench.upscale(&[input, &output, "-s", scale, "-q"]).worked();
                pixels(&bench.path(&output))
            };
            let png = write("png");
            assert!(write("tiff") == png, "{input} {scale}");
            for format in ["webp", "bmp"] {
                let eight = match png.color().has_alpha() {
                    true => png.to_rgba8() == write(format).to_rgba8(),
                    false => png.to_rgb8() == write(format).to_rgb8(),
                };
                assert!(eight || input == "deep.png", "{input} {scale} {format}");
            }
        }
    }
}

#[test]
fn what_cannot_fit_is_refused_before_any_work_with_what_would() {
    let bench = Bench::new();
    bench.photo("p.png", 64, 64);
    bench.upscale(&["p.png", "o.png", "--ram", "1"]).failed(5, &["--ram", "MiB", "picture"]);
    bench.upscale(&["p.png", "o.png", "-s", "1e4"]).failed(5, &["640000x640000", "-s 4096"]);
    bench.upscale(&["p.png", "o.bmp", "-s", "200", "--ram", "200M"]).failed(5, &[".png"]);
    bench.upscale(&["p.png", "o.webp", "-s", "100", "--ram", "200M"]).failed(5, &[".png"]);
    bench.photo("wide.png", 2000, 500);
    bench
        .upscale(&["wide.png", "o.png", "-t", "none", "--ram", "150M"])
        .failed(5, &["leave -t out"]);
    let mut left: Vec<_> =
        fs::read_dir(bench.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["p.png", "wide.png"]);
    // What was named is enough.
    let named = bench.upscale(&["p.png", "o.png", "--ram", "1"]).err;
    let enough =
        named.split("--ram ").find_map(|t| t.strip_suffix(" is enough\n")).unwrap().to_owned();
    bench.upscale(&["p.png", "o.png", "--ram", &enough, "-q"]).worked();
}

#[test]
fn a_limit_of_the_address_space_is_an_error_and_no_abort() {
    let bench = Bench::new();
    // The head of a PNG of 16384x16384 pixels: nothing of it is decoded.
    let small = bytes(&bench.photo("p.png", 64, 64));
    let mut head = small.clone();
    head[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]);
    let sum = crc32(&head[12..29]);
    head[29..33].copy_from_slice(&sum.to_be_bytes());
    fs::write(bench.path("huge.png"), head).unwrap();
    let run = bench.upscale_under(Some(700 << 20), &["huge.png", "o.png", "-j", "1"]);
    run.failed(5, &["huge.png", "16384x16384", "free memory"]);
    bench.upscale_under(Some(700 << 20), &["p.png", "o.png", "-q", "-j", "1"]).worked();
}

/// The checksum of PNG chunks.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |c, _| if c & 1 == 1 { c >> 1 ^ 0xEDB8_8320 } else { c >> 1 },
        )
    })
}

#[test]
fn events_keep_the_order_of_the_pictures_whatever_is_done_first() {
    let bench = Bench::new();
    fs::create_dir(bench.path("in")).unwrap();
    for (name, side) in [("a", 150), ("b", 20), ("d", 90), ("e", 16)] {
        bench.photo(&format!("in/{name}.png"), side, side);
    }
    fs::write(bench.path("in/c.png"), "no picture").unwrap();
    let run = bench.upscale(&["in", "-o", "out/", "--json", "-q"]);
    assert_eq!(run.code, 1, "{}", run.err);
    let files: Vec<(String, String)> = run
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|event| event["event"] == "file")
        .map(|e| [&e["input"], &e["status"]].map(|v| v.as_str().unwrap().to_owned()))
        .map(|[input, status]| (input, status))
        .collect();
    let expected = ["a", "b", "c", "d", "e"].map(|name| {
        (format!("in/{name}.png"), if name == "c" { "failed" } else { "ok" }.to_owned())
    });
    assert_eq!(files, expected);
    assert_eq!(fs::read_dir(bench.path("out")).unwrap().count(), 4);
}

#[test]
fn effort_changes_the_size_of_a_png_alone_and_what_does_nothing_is_said() {
    let bench = Bench::new();
    bench.photo("p.png", 96, 64);
    let mut sizes = Vec::new();
    let mut first = None;
    for level in ["0", "1", "4", "9"] {
        bench.upscale(&["p.png", "o.png", "--png-level", level, "--overwrite", "-q"]).worked();
        sizes.push(bytes(&bench.path("o.png")).len());
        let got = pixels(&bench.path("o.png"));
        assert!(first.get_or_insert_with(|| got.clone()) == &got, "{level}");
    }
    assert!(sizes[0] > sizes[1] && sizes[1] > sizes[2] && sizes[1] > sizes[3], "{sizes:?}");
    let run = bench.upscale(&["p.png", "q.png", "--quality", "80"]).worked();
    assert!(run.err.contains("--quality does nothing in a PNG"), "{}", run.err);
    let run = bench.upscale(&["p.png", "q.jpg", "--png-level", "3", "--quality", "80"]).worked();
    assert!(run.err.contains("--png-level does nothing in a JPEG"), "{}", run.err);
}

#[test]
fn training_is_the_same_whatever_the_cache_holds() {
    let place = Place::new();
    let all = place.runs("all");
    let heard = finish(&place.config(&[]), &all, None);
    assert!(heard.lines.iter().any(|l| l.ends_with("Mpx")), "{:?}", heard.lines);
    for (cache, held) in [("0", "0 of them"), ("9000", "1 of them")] {
        let some = place.runs(held);
        let heard = finish(&place.config(&[&format!("data.cache={cache}")]), &some, None);
        assert!(heard.lines.iter().any(|l| l.contains(held)), "{:?}", heard.lines);
        assert_same(&all, &some, 6);
    }
    // Another cache goes on with the same run.
    let resumed = place.runs("resumed");
    finish(&place.config(&["data.cache=0"]), &resumed, Some(3));
    finish(&place.config(&["data.cache=1G"]), &resumed, None);
    assert_same(&all, &resumed, 6);
}

#[test]
fn training_holds_no_more_images_than_the_cache() {
    let place = Place::new();
    for i in 0..16u8 {
        let color = Rgb([i * 3, 80, 200 - i]);
        let path = place.images().join(format!("large{i}.bmp"));
        ImageBuffer::from_pixel(1000, 800, color).save(path).unwrap();
    }
    let peak = |cache: &str, out: &str| {
        let sets = ["run.steps=2", &format!("data.cache={cache}")];
        let run = measured(place.command(&place.runs(out), &sets)).worked();
        run.peak
    };
    // 16 images of 2.3 MiB and their sixteenths.
    let [all, none] = [peak("1G", "all"), peak("0", "none")];
    assert!(all - none > 20.0, "{all} MiB with all images, {none} MiB with none");
}
