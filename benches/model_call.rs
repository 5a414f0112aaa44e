//! srk's side of `benches/peers/own_models.py`: opens a model once, upscales a square picture of noise once for each
//! line that comes in, and answers with the seconds it took and the peak memory so far.
//!
//! ```text
//! cargo bench --bench model_call -- MODEL SIDE [--bf16] [OUTPUT.png]
//! ```
//!
//! What is timed is what a user waits for apart from files: planning, 8 bits to floats, the network in whole or in
//! tiles, and back to 8 bits.
#![allow(clippy::print_stdout, clippy::unwrap_used, missing_docs)]
use std::io::BufRead as _;
use std::time::Instant;

use srk::engine::device::DType;
use srk::imaging::Color;
use srk::{Image, Options, Upscaler};

fn main() -> srk::Result<()> {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let given = arguments.len();
    arguments.retain(|a| a != "--bf16");
    let precision = if arguments.len() < given { DType::BF16 } else { DType::F32 };
    let [model, side, output @ ..] = &arguments[..] else {
        // As `cargo bench` starts it among the others.
        println!("model_call: give MODEL SIDE, or run benches/peers/own_models.py");
        return Ok(());
    };
    // One call of a network, of those that could make more.
    let options = Options { precision, steps: Some(1), ..Options::default() };
    let upscaler = Upscaler::open_with(model, options)?;
    let side: usize = side.parse().unwrap();
    let image = picture(side)?;
    for line in std::io::stdin().lock().lines() {
        line.unwrap();
        let begin = Instant::now();
        let large = upscaler.upscale(&image)?;
        println!("{} {}", begin.elapsed().as_secs_f64(), peak_kib());
        if let Some(path) = output.first() {
            large.write(path)?;
        }
    }
    Ok(())
}

/// The picture that own_models.py makes by the same rule.
fn picture(side: usize) -> srk::Result<Image> {
    let pixels = (0..side * side * 3).scan(1u32, |state, _| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*state >> 24) as u8)
    });
    Image::from_u8(side, side, Color::Rgb, pixels.collect())
}

/// The most memory that this process had, KiB; 0 where Linux does not tell.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|v| v.parse().ok()).unwrap_or(0)
}
