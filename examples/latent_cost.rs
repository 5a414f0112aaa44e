//! Time of one step of ResShift's full-width network at a latent of 64 x 64 pixels, and of its first stage at
//! images of 256 x 256; weights are random. `latent_cost step|encode|decode`, so that each has its own peak of
//! memory: `/usr/bin/time -v` tells it.
#![allow(clippy::print_stdout)]
use std::time::Instant;

use srk::engine::tape::Tape;
use srk::engine::tensor::Tensor;
use srk::error::Result;
use srk::models::Network;
use srk::models::swin_unet::{SwinUNet, SwinUNetConfig};
use srk::models::vq::{Vq, VqConfig};

fn main() -> Result<()> {
    let what = std::env::args().nth(1).unwrap_or_default();
    let map = |side: usize| Tensor::from_vec(vec![0.1f32; side * side * 3], &[1, side, side, 3]);
    let network = (what == "step").then(|| SwinUNet::new(&SwinUNetConfig::default(), 0));
    let first_stage = (what != "step").then(|| Vq::new(&VqConfig::default(), 0));
    for _ in 0..3 {
        let started = Instant::now();
        let mut tape = Tape::inference();
        let x = tape.input(map(if what == "encode" { 256 } else { 64 }));
        match (&network, &first_stage) {
            (Some(network), _) => {
                let t = Tensor::from_vec(vec![7.0f32], &[1]);
                network.forward(&mut tape, &x, &x, &t)?;
            }
            (_, Some(vq)) if what == "encode" => drop(vq.encode(&mut tape, &x)?),
            (_, Some(vq)) => drop(vq.decode(&mut tape, &x)?),
            _ => {}
        }
        println!("{what}: {:.2} s", started.elapsed().as_secs_f64());
    }
    Ok(())
}
