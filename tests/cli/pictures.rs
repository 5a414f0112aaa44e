//! Pictures through the binary: transparency, textures that tile, inputs without end.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::command::{Bench, Run};

use srk::imaging::{Color, EncodeOptions, Image, Samples, read, write};

/// `srk` with words between blanks.
fn command(bench: &Bench, arguments: &str) -> Command {
    bench.command(&arguments.split(' ').collect::<Vec<_>>())
}

fn run(bench: &Bench, arguments: &str) -> Output {
    command(bench, arguments).output().unwrap()
}

fn upscaled(bench: &Bench, image: &Image, arguments: &str) -> Image {
    write(&bench.path("in.png"), image, EncodeOptions::default()).unwrap();
    let arguments = format!("upscale in.png out.png --overwrite --steps 1 {arguments}");
    Run::of(run(bench, &arguments)).worked();
    read(&bench.path("out.png")).unwrap()
}

fn bytes(samples: &Samples) -> &[u8] {
    samples.as_u8().unwrap()
}

/// A disc of one colour, with `hidden` where nothing is to be seen.
fn sprite(hidden: [u8; 3]) -> Image {
    let inside = |i: usize| (i % 32).abs_diff(16).pow(2) + (i / 32).abs_diff(12).pow(2) < 81;
    let pixel = |i| if inside(i) { [240, 60, 60] } else { hidden };
    let samples = (0..32 * 24).flat_map(pixel).collect();
    let mut image = Image::from_u8(32, 24, Color::Rgb, samples).unwrap();
    image.alpha = Some(Samples::U8((0..32 * 24).map(|i| u8::from(inside(i)) * 255).collect()));
    image
}

/// Colours over mid gray.
fn seen(image: &Image) -> Vec<f64> {
    let alpha = bytes(image.alpha.as_ref().unwrap());
    let pixel = |(c, a): (&[u8], &u8)| {
        let a = f64::from(*a) / 255.0;
        [c[0], c[1], c[2]].map(|c| f64::from(c) * a + 128.0 * (1.0 - a))
    };
    bytes(&image.samples).chunks(3).zip(alpha).flat_map(pixel).collect()
}

#[test]
fn hidden_colours_never_show_at_any_factor() {
    let bench = Bench::new();
    for factor in ["4", "3", "2.5", "1", "6"] {
        let large = |hidden| upscaled(&bench, &sprite(hidden), &format!("-s {factor}"));
        let [black, white, green] = [[0; 3], [255; 3], [0, 255, 0]].map(large);
        for other in [&white, &green] {
            let (black, other) = (seen(&black), seen(other));
            let apart = black.iter().zip(other).map(|(a, b)| (a - b).abs());
            let most = apart.fold(0.0, f64::max);
            assert!(most <= 1.0, "-s {factor}: what is hidden moves what is seen by {most}");
        }
        let alpha = bytes(black.alpha.as_ref().unwrap());
        let colour = [240.0, 60.0, 60.0];
        for (i, value) in seen(&black).into_iter().enumerate() {
            let a = f64::from(alpha[i / 3]) / 255.0;
            let ideal = colour[i % 3] * a + 128.0 * (1.0 - a);
            assert!((value - ideal).abs() <= 24.0, "-s {factor}: {value} for {ideal}");
        }
        // Away from the edge nothing is faint and nothing is nearly opaque.
        let (width, height) = (black.width as f64, black.height as f64);
        for (i, &a) in alpha.iter().enumerate() {
            let x = ((i % black.width) as f64 + 0.5) / width * 32.0 - 16.5;
            let y = ((i / black.width) as f64 + 0.5) / height * 24.0 - 12.5;
            let reach = if factor == "1" { 3.0 } else { 2.2 };
            assert!(x.hypot(y) < 9.0 + reach || a == 0, "-s {factor}: {a} at {x}, {y}");
            assert!(x.hypot(y) > 9.0 - reach || a == 255, "-s {factor}: {a} at {x}, {y}");
        }
    }
}

/// A texture whose period is its size, rich in detail at its border.
fn texture() -> Image {
    let turn = |v: usize, k: f64| (v as f64 / 24.0 * std::f64::consts::TAU * k).sin();
    let value = |x: usize, y: usize, c: f64| {
        let wave = turn(x, 3.0) * turn(y, 2.0) + turn(x + 2 * y, 1.0) + 0.5 * turn(3 * x, 1.0 + c);
        (128.0 + 40.0 * wave).clamp(0.0, 255.0) as u8
    };
    let pixel = |i: usize| [0.0, 1.0, 2.0].map(|c| value(i % 24, i / 24, c));
    Image::from_u8(24, 24, Color::Rgb, (0..24 * 24).flat_map(pixel).collect()).unwrap()
}

/// The mean step between neighbouring columns: across the border, and the greatest inside.
fn steps(image: &Image, across_rows: bool) -> (f64, f64) {
    let (width, height) = (image.width, image.height);
    let samples = bytes(&image.samples);
    let (sides, along) = if across_rows { (height, width) } else { (width, height) };
    let at = |s: usize, a: usize, c: usize| {
        let (x, y) = if across_rows { (a, s) } else { (s, a) };
        f64::from(samples[(y * width + x) * 3 + c])
    };
    let step = |a: usize, b: usize| {
        let each = (0..along * 3).map(|i| (at(a, i / 3, i % 3) - at(b, i / 3, i % 3)).abs());
        each.sum::<f64>() / (along * 3) as f64
    };
    let inside = (1..sides).map(|s| step(s - 1, s)).fold(0.0, f64::max);
    (step(sides - 1, 0), inside)
}

#[test]
fn a_texture_tiles_after_as_before() {
    let bench = Bench::new();
    let image = texture();
    for factor in ["4", "3"] {
        let both = upscaled(&bench, &image, &format!("-s {factor} --wrap both"));
        for rows in [false, true] {
            let (border, inside) = steps(&both, rows);
            assert!(border <= 1.1 * inside, "-s {factor}: {border} at the border, {inside} inside");
        }
        let x = upscaled(&bench, &image, &format!("-s {factor} --wrap x"));
        let (border, inside) = steps(&x, false);
        assert!(border <= 1.1 * inside, "-s {factor} x: {border}, {inside}");
    }
    let whole = upscaled(&bench, &image, "--wrap both -t none");
    let tiled = upscaled(&bench, &image, "--wrap both -t 16");
    assert!(whole == tiled, "tiles differ from the whole");
    let output = run(&bench, "upscale in.png out.png --wrap z");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
#[cfg(unix)]
fn endless_inputs_are_refused_at_their_head() {
    let bench = Bench::new();
    let start = Instant::now();
    let output = run(&bench, "upscale /dev/zero out.png");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no known image format"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(60));
}

#[test]
#[cfg(unix)]
fn a_pipe_is_read_and_waiting_for_one_can_be_interrupted() {
    let bench = Bench::new();
    let fifo = bench.path("pipe");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut child =
            command(&bench, "upscale pipe out.png").stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(20);
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "still waiting for a writer after {signal}");
            std::thread::sleep(Duration::from_millis(50));
        };
        assert_eq!(status.code(), Some(code), "{signal}");
    }
    write(&bench.path("in.png"), &texture(), EncodeOptions::default()).unwrap();
    let picture = std::fs::read(bench.path("in.png")).unwrap();
    let writer = std::thread::spawn(move || std::fs::write(fifo, picture).unwrap());
    let output = run(&bench, "upscale pipe out.png --steps 1");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    writer.join().unwrap();
    assert_eq!(read(&bench.path("out.png")).unwrap().width, 96);
}

#[test]
#[cfg(unix)]
fn waiting_for_a_reader_can_be_interrupted_and_one_gets_the_picture() {
    let bench = Bench::new();
    let fifo = bench.path("pipe.png");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    write(&bench.path("in.png"), &texture(), EncodeOptions::default()).unwrap();
    let arguments = "upscale in.png -o pipe.png --overwrite --steps 1";
    let mut child = command(&bench, arguments).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    let sent = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let deadline = Instant::now() + Duration::from_secs(20);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "still waiting for a reader");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(143));
    let from = fifo.clone();
    let reader = std::thread::spawn(move || std::fs::read(from).unwrap());
    assert!(run(&bench, arguments).status.success());
    std::fs::write(bench.path("got.png"), reader.join().unwrap()).unwrap();
    assert_eq!(read(&bench.path("got.png")).unwrap().width, 96);
}
