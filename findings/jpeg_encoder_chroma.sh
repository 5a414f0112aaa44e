#!/usr/bin/env bash
# The Rust package jpeg-encoder halves colours (4:2:0, its default below quality 90) by taking one pixel of four, not
# their mean as libjpeg does. Fine colour that alternates from pixel to pixel comes out as one of the two colours, and
# all colours move by half a pixel. `set_chroma_subsampling_method(Average)` is what others do.
#
# Seen with jpeg-encoder 0.7.1, decoded by image 0.25.10: columns that alternate between (200, 60, 60) and (60, 60, 200)
# come out with a mean red of 187 and a mean blue of 46 by default, and of about 130 each by Average.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat > "$folder/Cargo.toml" <<'TOML'
[package]
name = "chroma"
version = "0.0.0"
edition = "2021"
[dependencies]
jpeg-encoder = "=0.7.1"
image = { version = "=0.25.10", default-features = false, features = ["jpeg"] }
TOML
cat > "$folder/src/main.rs" <<'RS'
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType, Encoder, SamplingFactor};

fn mean(method: Option<ChromaSubsamplingMethod>) -> [f64; 3] {
    let side = 64u16;
    let column = |x: usize| if x % 2 == 0 { [200u8, 60, 60] } else { [60, 60, 200] };
    let pixels: Vec<u8> = (0..64 * 64).flat_map(|i| column(i % 64)).collect();
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 80);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    if let Some(method) = method {
        encoder.set_chroma_subsampling_method(method);
    }
    encoder.encode(&pixels, side, side, ColorType::Rgb).unwrap();
    let picture = image::load_from_memory(&bytes).unwrap().to_rgb8();
    let mut sum = [0.0; 3];
    picture.pixels().for_each(|p| (0..3).for_each(|c| sum[c] += f64::from(p[c])));
    sum.map(|v| (v / (64.0 * 64.0)).round())
}

fn main() {
    let ([r, _, b], [ar, _, ab]) = (mean(None), mean(Some(ChromaSubsamplingMethod::Average)));
    println!("default: red {r}, blue {b}; Average: red {ar}, blue {ab}");
    let as_described = (r - b).abs() > 80.0 && (ar - ab).abs() < 30.0;
    std::process::exit(i32::from(!as_described));
}
RS
cargo run -q --release --manifest-path "$folder/Cargo.toml" || { echo "changed"; exit 1; }
echo "as described"
