//! A variational autoencoder (Kingma and Welling 2014) of the layers of a convolutional autoencoder for images
//! of 32 x 32 pixels.
//!
//! ```text
//! encoder  conv3 s2, ReLU: 1 -> 32 -> 64 -> 128, 4 x 4 -> flat 2048 -> mean, log variance: linear, `latent` each
//! decoder  linear latent -> 2048 -> 128, 4 x 4 -> convT3 s2, ReLU: 128 -> 64 -> 32, 32 x 32 -> conv3 1, logits
//! ```
//!
//! With `latent` 2: 96,770 parameters in the encoder and 4,098 in its second head `encoder.linear2`, which the
//! published autoencoder lacks; 246,273 in the decoder. The published decoder ends in a sigmoid; here that is
//! part of the loss. What is flattened lies in the order height, width, channels: columns of `linear1` in files
//! of the original would have to be reordered.
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::models::Module;
use crate::nn::{Conv2d, ConvTranspose2d, Init, Linear};
use crate::ops::conv_transpose2d;
use crate::ops::conv2d;

/// The side of the images.
pub const SIDE: usize = 32;

/// The side and channels of the innermost map.
const INNER: [usize; 2] = [4, 128];
const FLAT: usize = INNER[0] * INNER[0] * INNER[1];

/// See the [module](self).
#[derive(Debug)]
pub struct Vae {
    down: Vec<Conv2d>,
    heads: [Linear; 2],
    open: Linear,
    up: Vec<ConvTranspose2d>,
    last: Conv2d,
    parameters: Vec<Parameter>,
}

impl Vae {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(latent: usize, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (down, heads) = all.at("encoder", |init| {
            let op = conv2d::Conv2d { stride: 2, pad: 1, relu: true };
            let conv = |(i, [from, to]): (usize, [usize; 2])| {
                Conv2d::new(init, &format!("conv{}", i + 1), [from, to, 3], op)
            };
            let down = [[1, 32], [32, 64], [64, INNER[1]]].into_iter().enumerate().map(conv);
            let down = down.collect();
            (down, ["linear1", "linear2"].map(|name| Linear::new(init, name, FLAT, latent)))
        });
        let (open, up, last) = all.at("decoder", |init| {
            let open = Linear::new(init, "linear1", latent, FLAT);
            let op = conv_transpose2d::ConvTranspose2d::new(2, 1).extra(1, 1);
            let conv = |(i, [from, to]): (usize, [usize; 2])| {
                ConvTranspose2d::new(init, &format!("convt{}", i + 1), [from, to, 3], op)
            };
            let up = [[INNER[1], 128], [128, 64], [64, 32]].into_iter().enumerate().map(conv);
            let up = up.collect();
            (open, up, Conv2d::same(init, "conv1", 32, 1, 3))
        });
        Self { down, heads, open, up, last, parameters: all.finish() }
    }

    /// Means and logarithms of variances, `[N, latent]` each, of images `[N, 32, 32, 1]` in `[0, 1]`.
    pub fn encode(&self, tape: &mut Tape, x: &Var) -> Result<[Var; 2]> {
        let mut y = x.clone();
        for layer in &self.down {
            y = layer.forward(tape, &y)?;
        }
        y = tape.reshape(&y, &[x.shape()[0], FLAT])?;
        Ok([self.heads[0].forward(tape, &y)?, self.heads[1].forward(tape, &y)?])
    }

    /// Logits of pixels `[N, 32, 32, 1]` of codes `[N, latent]`.
    pub fn decode(&self, tape: &mut Tape, z: &Var) -> Result<Var> {
        let mut y = self.open.forward(tape, z)?;
        y = tape.reshape(&y, &[z.shape()[0], INNER[0], INNER[0], INNER[1]])?;
        for layer in &self.up {
            y = layer.forward(tape, &y)?;
            y = tape.relu(&y)?;
        }
        self.last.forward(tape, &y)
    }
}

impl Module for Vae {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}
