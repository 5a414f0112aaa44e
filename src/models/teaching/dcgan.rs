//! A small DCGAN (Radford et al. 2016) for MNIST, and the critic of a Wasserstein GAN.
//!
//! ```text
//! generator   latent, 1 x 1 -> convT3 s2 256, 3 x 3 -> convT4 s1 128, 6 x 6 -> convT3 s2 64, 13 x 13
//!                 -> convT4 s2 1, 28 x 28, tanh;   norm and ReLU between          747,841 parameters with 64 codes
//! judge       28 x 28 -> conv4 s2 p1 a, 14 x 14 -> conv4 s2 b, 6 x 6 -> conv4 s2 1, 2 x 2;   [norm] and leaky
//!                 ReLU 0.2 between              discriminator a, b = 16, 32: 9,105; critic 64, 128: 134,721
//! ```
//!
//! As published the first convolution of a judge has no padding: 13 x 13, 5 x 5, one score. Then windows are
//! left over at every layer, and the score depends on the first 22 rows and columns alone: a generator may draw
//! what it likes on the last six. With padding every pixel is seen, by four scores an image.
//!
//! A norm is over the batch. Weights start from N(0, 0.02), those of norms from N(1, 0.02) (as published from
//! N(0, 0.02), which starts with features switched off), biases of convolutions as PyTorch's defaults. The
//! published discriminator ends in a sigmoid; here that is part of the loss.
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::models::{Module, discriminator};
use crate::nn::{BatchNorm, Conv2d, ConvTranspose2d, Init};
use crate::ops::conv_transpose2d;
use crate::ops::conv2d;

const SLOPE: f64 = 0.2;
const DEVIATION: f64 = 0.02;

/// See the [module](self).
#[derive(Debug)]
pub struct Generator {
    layers: Vec<ConvTranspose2d>,
    norms: Vec<BatchNorm>,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl Generator {
    /// A network whose initial weights are a function of `seed`; the weights of its norms start around
    /// `gamma`.
    pub fn new(latent: usize, gamma: f64, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let (mut layers, mut norms) = (Vec::new(), Vec::new());
        let sizes = [[latent, 256, 3, 2], [256, 128, 4, 1], [128, 64, 3, 2], [64, 1, 4, 2]];
        for (i, [from, to, kernel, stride]) in sizes.into_iter().enumerate() {
            init.at(format!("gen.{i}"), |init| {
                let op = conv_transpose2d::ConvTranspose2d::new(stride, 0);
                layers.push(ConvTranspose2d::new(init, "0", [from, to, kernel], op));
                if i < 3 {
                    norms.push(BatchNorm::new(init, "1", to));
                }
            });
        }
        redraw(&mut init, gamma);
        let (parameters, buffers) = init.finish_with_buffers();
        Self { layers, norms, parameters, buffers }
    }
}

impl Module for Generator {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }
}

impl super::Generator for Generator {
    fn forward(&self, tape: &mut Tape, z: &Var) -> Result<Var> {
        let mut y = z.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = layer.forward(tape, &y)?;
            if let Some(norm) = self.norms.get(i) {
                y = norm.forward(tape, &y)?;
                y = tape.relu(&y)?;
            }
        }
        tape.tanh(&y)
    }
}

/// A discriminator or critic, see the [module](self).
#[derive(Debug)]
pub struct Judge {
    layers: Vec<Conv2d>,
    norms: Vec<BatchNorm>,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl Judge {
    /// A network of two `widths` whose parameters start with `name`; norms, if there are any, have weights
    /// that start around `gamma`; `whole` if it sees every pixel. Initial weights are a function of `seed`.
    pub fn new(name: &str, widths: [usize; 2], gamma: Option<f64>, whole: bool, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let (mut layers, mut norms) = (Vec::new(), Vec::new());
        let channels = [1, widths[0], widths[1], 1];
        for (i, pair) in channels.windows(2).enumerate() {
            init.at(format!("{name}.{i}"), |init| {
                let pad = usize::from(whole && i == 0);
                let op = conv2d::Conv2d { stride: 2, pad, relu: false };
                layers.push(Conv2d::new(init, "0", [pair[0], pair[1], 4], op));
                if i < 2 && gamma.is_some() {
                    norms.push(BatchNorm::new(init, "1", pair[1]));
                }
            });
        }
        redraw(&mut init, gamma.unwrap_or(1.0));
        let (parameters, buffers) = init.finish_with_buffers();
        Self { layers, norms, parameters, buffers }
    }
}

impl Module for Judge {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }
}

impl discriminator::Discriminator for Judge {
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let mut y = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            y = layer.forward(tape, &y)?;
            if let Some(norm) = self.norms.get(i) {
                y = norm.forward(tape, &y)?;
            }
            if i + 1 < self.layers.len() {
                y = tape.leaky_relu(&y, SLOPE)?;
            }
        }
        Ok(y)
    }
}

/// Draws weights of convolutions from N(0, 0.02) and those of norms from N(gamma, 0.02).
fn redraw(init: &mut Init, gamma: f64) {
    init.redraw(DEVIATION, |parameter| match parameter.layout() {
        Layout::Conv | Layout::ConvTranspose | Layout::Flattened { .. } => Some(0.0),
        Layout::Plain => parameter.name().ends_with(".weight").then_some(gamma),
    });
}
