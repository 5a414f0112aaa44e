//! `srk compare` with models: the pixels of `srk upscale`.
#![allow(clippy::unwrap_used)]
use std::fs;

use image::DynamicImage;
use serde_json::Value;

use crate::common::command::Bench;

/// The bytes that 64 letters stand for (RFC 4648).
fn bytes_of(text: &str) -> Vec<u8> {
    let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut held, mut bits) = (Vec::new(), 0u32, 0);
    for letter in text.trim_end_matches('=').chars() {
        held = held << 6 | u32::try_from(letters.find(letter).unwrap()).unwrap();
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits & 255) as u8);
        }
    }
    bytes
}

/// What a page calls its pictures, and their pixels.
fn shown(page: &str) -> Vec<(String, DynamicImage)> {
    let begin = page.find("[{\"label\"").unwrap_or_else(|| page.find("[{").unwrap());
    let data = serde_json::Deserializer::from_str(&page[begin..]).into_iter::<Value>();
    let data = { data }.next().unwrap().unwrap();
    let picture = |entry: &Value| {
        let source = entry["src"].as_str().unwrap().strip_prefix("data:image/png;base64,").unwrap();
        let image = image::load_from_memory(&bytes_of(source)).unwrap();
        (entry["label"].as_str().unwrap().to_owned(), image)
    };
    data.as_array().unwrap().iter().map(picture).collect()
}

#[test]
fn a_model_shows_the_pixels_of_an_upscale() {
    let p = Bench::new();
    // A JPEG says its quality, which models are told; of a PNG nothing is found.
    p.photo("in.jpg", 40, 32);
    p.photo("in.png", 40, 32);
    for (input, model, label) in [
        ("in.jpg", "srk-photo-x4", "srk-photo-x4"),
        ("in.jpg", "auto", "auto: srk-photo-x4"),
        ("in.png", "auto", "auto: srk-x4"),
        ("in.png", "srk-x4", "srk-x4"),
    ] {
        p.srk(&["upscale", input, "-o", "up.png", "-m", model, "--overwrite"]).worked();
        p.srk(&["compare", input, "-m", model, "-o", "look.html", "--overwrite"]).worked();
        let shown = shown(&fs::read_to_string(p.path("look.html")).unwrap());
        assert_eq!(shown[1].0, label);
        let wanted = image::open(p.path("up.png")).unwrap().to_rgb8();
        assert!(shown[1].1.to_rgb8() == wanted, "{input} {model}");
    }
}
