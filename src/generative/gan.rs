//! GANs: a generator against a discriminator (Goodfellow et al. 2014), or against a critic whose slope is kept
//! near 1 (Gulrajani et al. 2017).
//!
//! ```text
//! cross entropy   L_D = (bce(D(x), 1) + bce(D(G(z)), 0)) / 2                 L_G = bce(D(G(z)), 1)
//! wasserstein     L_D = mean D(G(z)) - mean D(x) + w mean (|dD/dx (x~)| - 1)^2    L_G = -mean D(G(z))
//! ```
//!
//! `x~ = u x + (1 - u) G(z)`, u uniform for each image. In training all norms take the statistics of their own
//! batch, of real images, generated ones and mixtures each, and running ones follow: those draw samples.
use super::config::{Config, ModelConfig};
use super::digits::{Digits, normal, uniform};
use super::system::{Measured, Moved, System, Trainable, number};
use crate::engine::parameter::Parameter;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::teaching::{self, Module, dcgan, gan};

/// How the two networks are measured.
#[derive(Clone, Copy, Debug)]
enum Rule {
    CrossEntropy,
    Wasserstein { critic_steps: u64, penalty: f64 },
}

/// See the [module](self).
pub(super) struct Gan {
    generator: Box<dyn Module>,
    judge: Box<dyn Module>,
    latent: usize,
    rule: Rule,
}

/// Numbers of the networks among the parts.
const GENERATOR: usize = 0;
const JUDGE: usize = 1;

impl Gan {
    /// The networks of `model`, one of the three GANs.
    pub(super) fn new(model: &ModelConfig, seed: u64) -> Self {
        // Two networks, two streams of initial weights.
        let other = seed ^ 0x9e37_79b9_7f4a_7c15;
        let rule = Rule::CrossEntropy;
        match model {
            ModelConfig::Dcgan(c) => Self {
                generator: Box::new(dcgan::Generator::new(c.latent, c.gamma, seed)),
                judge: Box::new(dcgan::Judge::new(
                    "disc",
                    [16, 32],
                    Some(c.gamma),
                    c.whole_image,
                    other,
                )),
                latent: c.latent,
                rule,
            },
            ModelConfig::WganGp(c) => {
                let gamma = c.critic_norm.then_some(c.gamma);
                Self {
                    generator: Box::new(dcgan::Generator::new(c.latent, c.gamma, seed)),
                    judge: Box::new(dcgan::Judge::new(
                        "critic",
                        [64, 128],
                        gamma,
                        c.whole_image,
                        other,
                    )),
                    latent: c.latent,
                    rule: Rule::Wasserstein {
                        critic_steps: c.critic_steps as u64,
                        penalty: c.penalty,
                    },
                }
            }
            ModelConfig::Gan(_) | ModelConfig::Vae(_) | ModelConfig::Ddpm(_) => {
                let latent = if let ModelConfig::Gan(c) = model { c.latent } else { 1 };
                let generator = Box::new(gan::Generator::new(latent, seed));
                Self { generator, judge: Box::new(gan::Discriminator::new(other)), latent, rule }
            }
        }
    }

    fn codes(&self, noise: Stream, count: usize) -> Tensor {
        normal(noise, &[count, 1, 1, self.latent])
    }

    /// Generated images as data for the judge.
    fn fakes(&self, tape: &mut Tape, noise: Stream, count: usize) -> Result<Var> {
        let codes = tape.input(self.codes(noise, count));
        let fakes = tape.frozen(|tape| self.generator.forward(tape, &codes))?;
        Ok(tape.detach(&fakes))
    }

    /// A step of the judge on batch `number`.
    fn move_judge(
        &self,
        number_of_batch: u64,
        data: &Digits,
        moved: &mut Moved,
    ) -> Result<Measured> {
        let seed = moved.config.run.seed;
        let mut tape = Tape::training();
        let real = tape.input(data.batch(number_of_batch));
        let noise = Stream::new(seed, Purpose::TrainingNoise, number_of_batch);
        let fake = self.fakes(&mut tape, noise, real.shape()[0])?;
        let of_real = self.judge.forward(&mut tape, &real)?;
        let of_fake = self.judge.forward(&mut tape, &fake)?;
        let (loss, mut measured) = match self.rule {
            Rule::CrossEntropy => {
                let real = tape.bce_with_logits(&of_real, 1.0)?;
                let fake = tape.bce_with_logits(&of_fake, 0.0)?;
                (tape.scaled_add(&real, 0.5, &fake, 0.5)?, vec![])
            }
            Rule::Wasserstein { penalty: weight, .. } => {
                let (real_score, fake_score) = (tape.mean(&of_real)?, tape.mean(&of_fake)?);
                let distance = tape.scaled_add(&real_score, 1.0, &fake_score, -1.0)?;
                let mixing = Stream::new(seed, Purpose::Timesteps, number_of_batch);
                let mixed = mixture(real.value(), fake.value(), mixing)?;
                let penalty = self.penalty(&mut tape, mixed)?;
                let loss = tape.scaled_add(&distance, -1.0, &penalty, weight)?;
                let measured =
                    vec![("distance", number(&distance)?), ("penalty", number(&penalty)?)];
                (loss, measured)
            }
        };
        let each = self.steps_of(JUDGE);
        let loss = moved.descend(JUDGE, each, self.judge.parameters(), tape, &loss)?;
        measured.insert(0, ("loss_d", loss));
        Ok(measured)
    }

    /// The mean of `(|slope| - 1)^2` of the judge at `images`.
    fn penalty(&self, tape: &mut Tape, images: Tensor) -> Result<Var> {
        let images = tape.variable(images);
        let scores = self.judge.forward(tape, &images)?;
        // The score of an image is the mean of its scores.
        let share = scores.shape()[0] as f64 / scores.value().len().max(1) as f64;
        let scores = tape.scale(&scores, share)?;
        let slope = tape.gradient(&scores, &images)?;
        tape.gradient_penalty(&slope)
    }

    fn move_generator(&self, number: u64, count: usize, moved: &mut Moved) -> Result<f64> {
        let mut tape = Tape::training();
        let noise = Stream::new(moved.config.run.seed, Purpose::TrainingNoise, number);
        let codes = tape.input(self.codes(noise, count));
        let fakes = self.generator.forward(&mut tape, &codes)?;
        let scores = tape.frozen(|tape| self.judge.forward(tape, &fakes))?;
        let loss = match self.rule {
            Rule::CrossEntropy => tape.bce_with_logits(&scores, 1.0)?,
            Rule::Wasserstein { .. } => {
                let mean = tape.mean(&scores)?;
                tape.scale(&mean, -1.0)?
            }
        };
        moved.descend(GENERATOR, 1, self.generator.parameters(), tape, &loss)
    }
}

/// `u real + (1 - u) fake`, u uniform for each image.
fn mixture(real: &Tensor, fake: &Tensor, stream: Stream) -> Result<Tensor> {
    let images = real.shape()[0];
    let shares = uniform(stream, images);
    let (a, b) = (real.cpu::<f32>()?, fake.cpu::<f32>()?);
    let area = a.len() / images.max(1);
    let mix = |i: usize| shares[i / area] * a[i] + (1.0 - shares[i / area]) * b[i];
    Ok(Tensor::from_vec((0..a.len()).map(mix).collect(), real.shape()))
}

impl System for Gan {
    fn parts(&self) -> Vec<(&[Parameter], &[Parameter])> {
        [&self.generator, &self.judge].map(|part| (part.parameters(), part.buffers())).to_vec()
    }

    fn side(&self) -> usize {
        teaching::SIDE
    }

    fn sample(&self, noise: Stream, count: usize) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let codes = tape.input(self.codes(noise, count));
        self.generator.forward(&mut tape, &codes)?.into_tensor()
    }

    fn steps_of(&self, part: usize) -> u64 {
        match self.rule {
            Rule::Wasserstein { critic_steps, .. } if part == JUDGE => critic_steps,
            _ => 1,
        }
    }
}

impl Trainable for Gan {
    fn step(&self, step: u64, data: &Digits, moved: &mut Moved) -> Result<Measured> {
        let Config { data: sizes, .. } = moved.config;
        // Batches of a step, each with its own noise: those of the judge, and the generator's.
        let judged = self.steps_of(JUDGE);
        let first = (step - 1) * (judged + 1);
        let mut measured = vec![];
        for k in 0..judged {
            measured = self.move_judge(first + k, data, moved)?;
        }
        measured.push(("loss_g", self.move_generator(first + judged, sizes.batch, moved)?));
        Ok(measured)
    }
}
