//! `srk upscale --dry-run` says what the run then says: of memory, of pictures that are not read, of outputs.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
use std::fs;

use crate::common::command::{Bench, Run};

/// What helps, of an error.
fn help(run: &Run) -> &str {
    run.err.lines().find_map(|line| line.strip_prefix("help:")).unwrap_or_default().trim()
}

/// The MiB that `--ram 89M is enough` advises.
fn advised(run: &Run) -> u64 {
    let words = help(run).strip_prefix("--ram ").and_then(|rest| rest.split('M').next());
    words.and_then(|mib| mib.parse().ok()).unwrap_or_else(|| panic!("{}", run.err))
}

/// The process itself does not take the same every time: some MiB more or less decide nothing.
#[test]
fn memory_is_that_of_the_run() {
    let b = Bench::new();
    b.photo("in.png", 48, 32);
    let upscale = |ram: &str, more: &[&str]| {
        b.upscale(&[&["in.png", "out.png", "-j", "1", "--overwrite", "--ram", ram], more].concat())
    };
    let (dry, run) = (upscale("1M", &["-d"]).failed(5, &[]), upscale("1M", &[]).failed(5, &[]));
    let (dry, run) = (advised(&dry), advised(&run));
    assert!(dry.abs_diff(run) <= 3, "{dry} {run}");
    let less = format!("{}M", run - 10);
    upscale(&less, &["-d"]).failed(5, &["srk itself", "for the picture", "for tiles"]);
    upscale(&less, &[]).failed(5, &["srk itself", "for the picture", "for tiles"]);
    let enough = format!("{}M", run + 2);
    upscale(&enough, &["-d"]).worked();
    upscale(&enough, &[]).worked();
}

/// What is advised is about the least that works, where a picture goes through from top to bottom, too.
#[test]
fn advice_on_memory_is_not_far_above_what_is_needed() {
    let b = Bench::new();
    b.photo("in.png", 200, 200);
    let upscale = |ram: u64| {
        b.srk(&["upscale", "in.png", "out.png", "-j", "1", "-d", "--ram", &format!("{ram}M")])
    };
    let advised = advised(&upscale(1).failed(5, &[]));
    upscale(advised + 2).worked();
    upscale(advised * 85 / 100).failed(5, &["--ram is"]);
}

/// A gray TIFF of 3 x 2 pixels, so many times.
fn tiff(pages: u32) -> Vec<u8> {
    let mut bytes = b"II*\0\x10\0\0\0\x01\x02\x03\x04\x05\x06\0\0".to_vec();
    for page in 1..=pages {
        let entries =
            [(256, 3), (257, 2), (258, 8), (259, 1), (262, 1), (273, 8), (278, 2), (279, 6)];
        bytes.extend((entries.len() as u16).to_le_bytes());
        for (tag, value) in entries {
            bytes.extend([u16::to_le_bytes(tag), [4, 0]].concat());
            bytes.extend([u32::to_le_bytes(1), u32::to_le_bytes(value)].concat());
        }
        let next = if page < pages { bytes.len() as u32 + 4 } else { 0 };
        bytes.extend(next.to_le_bytes());
    }
    bytes
}

/// An inked TIFF of one pixel, without a profile.
fn inks() -> Vec<u8> {
    let mut bytes = b"II*\0\x10\0\0\0\x01\x02\x03\x04\x08\0\x08\0".to_vec();
    let entries = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 4, 134),
        (259, 3, 1, 1),
        (262, 3, 1, 5),
        (273, 4, 1, 8),
        (277, 3, 1, 4),
        (278, 3, 1, 1),
        (279, 4, 1, 4),
    ];
    bytes.extend((entries.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in entries {
        bytes.extend([u16::to_le_bytes(tag), u16::to_le_bytes(kind)].concat());
        bytes.extend([u32::to_le_bytes(count), u32::to_le_bytes(value)].concat());
    }
    bytes.extend([0; 8]);
    bytes.resize(134, 0);
    bytes.extend([8, 0, 8, 0, 8, 0, 8, 0]);
    bytes
}

#[test]
fn pictures_that_are_not_read_are_refused_as_they_are_later() {
    let b = Bench::new();
    let file = fs::File::create(b.path("moving.gif")).unwrap();
    let mut encoder = image::codecs::gif::GifEncoder::new(file);
    for shade in [0, 128] {
        let frame = image::RgbaImage::from_pixel(8, 8, image::Rgba([shade, shade, shade, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    let mut moving = Vec::new();
    let mut encoder = png::Encoder::new(&mut moving, 4, 4);
    encoder.set_animated(2, 0).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0; 16]).unwrap();
    writer.write_image_data(&[9; 16]).unwrap();
    writer.finish().unwrap();
    fs::write(b.path("moving.png"), moving).unwrap();
    let chunk = |name: &[u8], body: &[u8]| {
        let length = (body.len() as u32).to_le_bytes();
        [name, &length[..], body].concat()
    };
    let mut still = Vec::new();
    let encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut still);
    encoder.encode(&[7; 8 * 8 * 3], 8, 8, image::ExtendedColorType::Rgb8).unwrap();
    let head = [0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0, 100, 0, 0, 0];
    let frame = chunk(b"ANMF", &[&head[..], &still[12..]].concat());
    let body = [
        b"WEBP".to_vec(),
        chunk(b"VP8X", &[2, 0, 0, 0, 7, 0, 0, 7, 0, 0]),
        chunk(b"ANIM", &[0; 6]),
        frame.clone(),
        frame,
    ];
    fs::write(b.path("moving.webp"), chunk(b"RIFF", &body.concat())).unwrap();
    let mut bytes = fs::read(b.photo("rgb.jpg", 16, 16)).unwrap();
    let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bytes[frame + 9] = 4;
    fs::write(b.path("inks.jpg"), bytes).unwrap();
    fs::write(b.path("inks.tif"), inks()).unwrap();
    fs::write(b.path("three.tif"), tiff(3)).unwrap();
    fs::write(b.path("one.tif"), tiff(1)).unwrap();
    for (name, words) in [
        ("moving.gif", ["animated GIF", "several frames"]),
        ("moving.png", ["animated PNG", "2 frames"]),
        ("moving.webp", ["animated WebP", "several frames"]),
        ("inks.jpg", ["JPEG is CMYK", "without a profile"]),
        ("inks.tif", ["TIFF is CMYK", "without a profile"]),
        ("three.tif", ["holds 3 pages", "tiffsplit"]),
    ] {
        let dry = b.upscale(&[name, "out.png", "-d"]).failed_once(1, &words);
        let run = b.upscale(&[name, "out.png"]).failed_once(1, &words);
        assert_eq!(help(&dry), help(&run), "{name}");
    }
    b.upscale(&["one.tif", "out.png", "-d"]).worked();
    b.upscale(&["rgb.jpg", "out.png", "-d"]).worked();
    assert!(!b.has("out.png"));
}

#[test]
fn outputs_below_a_file_are_refused_before_any_work() {
    let b = Bench::new();
    b.photo("in.png", 16, 12);
    b.photo("f.jpg", 16, 12);
    for output in ["f.jpg/x.png", "f.jpg/sub/x.png"] {
        for more in [&["-d"][..], &[], &["--overwrite"]] {
            let words = [output, "f.jpg is a file, not a folder"];
            b.upscale(&[&["in.png", "-o", output], more].concat()).failed_once(1, &words);
        }
    }
    b.srk(&["models", "export", "srk-x4", "f.jpg/x.safetensors"]).failed(1, &["not a folder"]);
    b.upscale(&["in.png", "-o", "new/deep/x.png", "-d"]).worked();
}
