//! A variational autoencoder (Kingma and Welling 2014), in nats for each image:
//!
//! ```text
//! bce   L = sum over pixels of -(x ln p + (1 - x) ln(1 - p))      + w KL(N(mean, sigma^2), N(0, 1))
//! mse   L = sum over pixels of (p - x)^2 / 2                      + w KL
//! ```
//!
//! of pixels x in `[0, 1]`, reconstructed as `p = sigmoid(decoder(mean + sigma n))`.
use super::config::{Reconstruction, VaeConfig};
use super::digits::{Digits, normal};
use super::system::{Measured, Moved, System, Trainable, number};
use crate::engine::parameter::Parameter;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::teaching::vae;

/// See the [module](self).
pub(super) struct Vae {
    network: vae::Vae,
    config: VaeConfig,
}

impl Vae {
    pub(super) fn new(config: &VaeConfig, seed: u64) -> Self {
        Self { network: vae::Vae::new(config.latent, seed), config: config.clone() }
    }

    /// The distance of reconstructions, as logits, from the images `x` in `[0, 1]`: summed over pixels, mean over
    /// images.
    fn distance(&self, tape: &mut Tape, logits: &Var, x: &Var) -> Result<Var> {
        let pixels = (x.value().len() / x.shape()[0]) as f64;
        match self.config.reconstruction {
            Reconstruction::Mse => {
                let p = tape.sigmoid(logits)?;
                let error = tape.mse_loss(&p, x)?;
                tape.scale(&error, 0.5 * pixels)
            }
            // Cross entropy against black for all pixels, less the logits of those that are white.
            Reconstruction::Bce => {
                let black = tape.bce_with_logits(logits, 0.0)?;
                let (all, images) = (x.value().len(), x.shape()[0] as f64);
                let (row, white) = (tape.reshape(logits, &[1, all])?, tape.reshape(x, &[1, all])?);
                let white = tape.linear(&row, &white, None)?;
                let white = tape.reshape(&white, &[1])?;
                tape.scaled_add(&black, pixels, &white, -1.0 / images)
            }
        }
    }
}

impl System for Vae {
    fn parts(&self) -> Vec<(&[Parameter], &[Parameter])> {
        vec![(self.network.parameters(), &[])]
    }

    fn side(&self) -> usize {
        vae::SIDE
    }

    fn sample(&self, noise: Stream, count: usize) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let codes = tape.input(normal(noise, &[count, self.config.latent]));
        let logits = self.network.decode(&mut tape, &codes)?;
        // 2 sigmoid(v) - 1
        let half = tape.scale(&logits, 0.5)?;
        tape.tanh(&half)?.into_tensor()
    }
}

impl Trainable for Vae {
    fn step(&self, step: u64, data: &Digits, moved: &mut Moved) -> Result<Measured> {
        let mut tape = Tape::training();
        let images = data.batch(step);
        let unit: Vec<f32> = images.cpu::<f32>()?.iter().map(|v| 0.5 * v + 0.5).collect();
        let x = tape.input(Tensor::from_vec(unit, images.shape()));
        let [mean, log_variance] = self.network.encode(&mut tape, &x)?;
        let noise = Stream::new(moved.config.run.seed, Purpose::TrainingNoise, step);
        let noise = tape.input(normal(noise, mean.shape()));
        let z = tape.reparameterise(&mean, &log_variance, &noise)?;
        let logits = self.network.decode(&mut tape, &z)?;
        let distance = self.distance(&mut tape, &logits, &x)?;
        let kl = tape.kl_normal(&mean, &log_variance)?;
        let loss = tape.scaled_add(&distance, 1.0, &kl, self.config.kl)?;
        let of_parts = [("reconstruction", number(&distance)?), ("kl", number(&kl)?)];
        let loss = moved.descend(0, 1, self.network.parameters(), tape, &loss)?;
        Ok([&[("loss", loss)], &of_parts[..]].concat())
    }
}
