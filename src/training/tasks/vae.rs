//! A variational autoencoder (Kingma and Welling 2014), in nats for each image:
//!
//! ```text
//! bce   L = sum over pixels of -(x ln p + (1 - x) ln(1 - p))      + w KL(N(mean, sigma^2), N(0, 1))
//! mse   L = sum over pixels of (p - x)^2 / 2                      + w KL
//! ```
//!
//! of pixels x in `[0, 1]`, reconstructed as `p = sigmoid(decoder(mean + sigma n))`.
use serde::{Deserialize, Serialize};

use super::digits::{Digits, normal};
use super::draws::{Draws, Rules, Sizes, Teaching, Whole, latent, rule};
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Module;
use crate::models::teaching::vae;
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::stepper::{Learned, Pass, Stepper};
use crate::training::task::{Taken, Words};

/// `kind = "vae"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VaeConfig {
    /// Numbers that an image is made of; 2 in the published autoencoder.
    pub latent: usize,
    /// How far a reconstruction is from its image.
    pub reconstruction: Reconstruction,
    /// The weight of the divergence of codes from the standard normal distribution.
    pub kl: f64,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self { latent: 16, reconstruction: Reconstruction::Bce, kl: 1.0 }
    }
}

/// Likelihoods of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconstruction {
    /// Cross entropy: a pixel is the probability of white.
    Bce,
    /// Half the squared error: a normal distribution of variance 1.
    Mse,
}

/// See the [module](self).
struct Vae {
    network: vae::Vae,
    config: VaeConfig,
}

impl Vae {
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

impl Draws for Vae {
    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part::of(&self.network)]
    }

    fn side(&self) -> usize {
        vae::SIDE
    }

    fn draw(&self, noise: Stream, count: usize) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let codes = normal(noise, &[count, self.config.latent]);
        let codes = tape.input(codes.to_device(&self.network.device())?);
        let logits = self.network.decode(&mut tape, &codes)?;
        // 2 sigmoid(v) - 1
        let half = tape.scale(&logits, 0.5)?;
        tape.tanh(&half)?.into_tensor()
    }
}

impl Vae {
    /// What the batch says.
    fn learn(&self, pass: &Pass<'_>, batch: &Batch) -> Result<Learned> {
        let mut tape = Tape::training();
        let x = tape.input(batch.get("unit")?.try_clone()?);
        let [mean, log_variance] = self.network.encode(&mut tape, &x)?;
        let noise = tape.input(batch.get("noise")?.try_clone()?);
        let z = tape.reparameterise(&mean, &log_variance, &noise)?;
        let logits = self.network.decode(&mut tape, &z)?;
        let distance = self.distance(&mut tape, &logits, &x)?;
        let kl = tape.kl_normal(&mean, &log_variance)?;
        let loss = tape.scaled_add(&distance, 1.0, &kl, self.config.kl)?;
        let numbers = [&loss, &distance, &kl].map(|v| v.value().try_clone());
        let numbers = numbers.into_iter().collect::<Result<_>>()?;
        Ok(Learned { numbers, gradients: vec![pass.gradients(tape, &loss, 0)?] })
    }
}

impl Teaching for Vae {
    fn source(&self, digits: Digits, seed: u64) -> Whole {
        let latent = self.config.latent;
        Box::new(move |number| {
            // Counted from 1, as steps are.
            let images = digits.batch(number + 1);
            let unit: Vec<f32> = images.cpu::<f32>()?.iter().map(|v| 0.5 * v + 0.5).collect();
            let noise = Stream::new(seed, Purpose::TrainingNoise, number + 1);
            let n = digits.per_batch();
            Ok(Batch::new(number, n, 0)
                .with("unit", Tensor::from_vec(unit, images.shape()))
                .with("noise", normal(noise, &[n, latent])))
        })
    }

    fn step(&self, on: &mut dyn Stepper, rules: &Rules<'_>, batches: &[Batch]) -> Result<Taken> {
        let moves = [rules.of(0, 1)];
        let coming = on.descend(&moves, batches, &mut |pass, batch| self.learn(pass, batch))?;
        Ok(Taken::of(coming, Words { numbers: &["loss", "reconstruction", "kl"], gradients: &[] }))
    }
}

impl Sizes for VaeConfig {
    fn check(&self) -> Result<()> {
        let kl = self.kl >= 0.0 && self.kl.is_finite();
        rule(&[latent(self.latent), (kl, "model.kl must not be negative")])
    }

    fn build(&self, seed: u64) -> Box<dyn Teaching> {
        Box::new(Vae { network: vae::Vae::new(self.latent, seed), config: self.clone() })
    }
}
