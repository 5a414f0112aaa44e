//! The first GAN (Goodfellow et al. 2014) of two fully connected networks.
//!
//! ```text
//! generator      latent -> 256, leaky ReLU 0.01 -> 784, tanh           218,128 parameters with 64 codes
//! discriminator  784 -> 128, leaky ReLU 0.01 -> 1                      100,609
//! ```
//!
//! The published discriminator ends in a sigmoid; here that is part of the loss, which stays exact.
use super::SIDE;
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::models::{Module, discriminator};
use crate::nn::{Init, Linear};

const SLOPE: f64 = 0.01;
const PIXELS: usize = SIDE * SIDE;

/// See the [module](self).
#[derive(Debug)]
pub struct Generator {
    layers: [Linear; 2],
    parameters: Vec<Parameter>,
}

impl Generator {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(latent: usize, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let layers = two_layers(&mut init, "gen", [latent, 256, PIXELS]);
        Self { layers, parameters: init.finish() }
    }
}

impl Module for Generator {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl super::Generator for Generator {
    fn forward(&self, tape: &mut Tape, z: &Var) -> Result<Var> {
        let images = z.shape()[0];
        let z = tape.reshape(z, &[images, z.shape()[1..].iter().product()])?;
        let y = through(tape, &self.layers, &z)?;
        let y = tape.tanh(&y)?;
        tape.reshape(&y, &[images, SIDE, SIDE, 1])
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Discriminator {
    layers: [Linear; 2],
    parameters: Vec<Parameter>,
}

impl Discriminator {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(seed: u64) -> Self {
        let mut init = Init::new(seed);
        let layers = two_layers(&mut init, "disc", [PIXELS, 128, 1]);
        Self { layers, parameters: init.finish() }
    }
}

impl Module for Discriminator {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl discriminator::Discriminator for Discriminator {
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let x = tape.reshape(x, &[x.shape()[0], PIXELS])?;
        through(tape, &self.layers, &x)
    }
}

fn two_layers(init: &mut Init, name: &str, [from, hidden, to]: [usize; 3]) -> [Linear; 2] {
    init.at(name, |init| [Linear::new(init, "0", from, hidden), Linear::new(init, "2", hidden, to)])
}

fn through(tape: &mut Tape, layers: &[Linear; 2], x: &Var) -> Result<Var> {
    let y = layers[0].forward(tape, x)?;
    let y = tape.leaky_relu(&y, SLOPE)?;
    layers[1].forward(tape, &y)
}
