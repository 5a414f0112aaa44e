//! A network of one's own, from low resolution straight to high, and what makes it one of srk's:
//! `cargo run --release --example new_network`.
//!
//! In the repository it would be `src/models/tiny.rs`, with a line in `src/models/mod.rs` and a recipe.
#![allow(clippy::print_stdout, clippy::print_stderr)]
use srk::models::Module as _;
use srk::models::direct::{BLOCK, Direct, Upscale};
use srk::nn::{Conv2d, Init};
use srk::{Tape, Tensor, Var};

/// Two convolutions and a shuffle: `shuffle(conv3(relu(conv3 x)))`, added to the nearest pixel.
#[derive(Debug)]
struct Tiny {
    first: Conv2d,
    last: Conv2d,
    scale: usize,
}

impl Tiny {
    fn new(init: &mut Init, channels: usize, scale: usize) -> Self {
        let first = Conv2d::same(init, "first", 3, channels, 3).relu();
        let last = Conv2d::same(init, "last", channels, 3 * scale * scale, 3);
        Self { first, last, scale }
    }
}

impl Upscale for Tiny {
    fn upscale(&self, tape: &mut Tape, low: &Var) -> srk::Result<Var> {
        let features = self.first.forward(tape, low)?;
        let details = self.last.forward(tape, &features)?;
        tape.pixel_shuffle(&details, self.scale)
    }

    fn reach(&self) -> usize {
        2 * BLOCK
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn floats_per_pixel(&self) -> usize {
        2 * 3 * self.scale * self.scale
    }
}

fn main() -> srk::Result<()> {
    let network = Direct::new(1, |init| Tiny::new(init, 16, 2));
    for parameter in network.parameters() {
        println!("{:14} {:?}", parameter.name(), parameter.value().shape());
    }
    let mut tape = Tape::inference();
    let low = tape.input(Tensor::from_vec(vec![0.5f32; 8 * 6 * 3], &[1, 6, 8, 3]));
    let high = network.layers().upscale(&mut tape, &low)?;
    println!("{:?} -> {:?}", low.shape(), high.shape());
    Ok(())
}
