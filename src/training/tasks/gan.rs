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
use serde::{Deserialize, Serialize};

use super::digits::{Digits, normal, uniform};
use super::draws::{Draws, Rules, Sizes, Teaching, Whole, latent, rule};
use super::game::Game;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::discriminator::Discriminator;
use crate::models::teaching::{self, Generator, dcgan, gan};
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::stepper::{Learned, Pass, Stepper};
use crate::training::task::{Taken, Words};

/// `kind = "gan"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GanConfig {
    /// Numbers that an image is made of.
    pub latent: usize,
}

impl Default for GanConfig {
    fn default() -> Self {
        Self { latent: 64 }
    }
}

/// `kind = "dcgan"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DcganConfig {
    /// Numbers that an image is made of.
    pub latent: usize,
    /// Where the weights of norms start around; 0 as published.
    pub gamma: f64,
    /// Whether the discriminator sees every pixel; as published it misses the last six rows and columns.
    pub whole_image: bool,
}

impl Default for DcganConfig {
    fn default() -> Self {
        Self { latent: 64, gamma: 1.0, whole_image: true }
    }
}

/// `kind = "wgan-gp"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WganConfig {
    /// Numbers that an image is made of.
    pub latent: usize,
    /// Where the weights of norms start around; 0 as published.
    pub gamma: f64,
    /// Whether the critic has norms over the batch, as published: then the score of an image depends on the
    /// others, and the penalty is on the slope of the sum of all.
    pub critic_norm: bool,
    /// Whether the critic sees every pixel; as published it misses the last six rows and columns.
    pub whole_image: bool,
    /// Steps of the critic for one of the generator.
    pub critic_steps: usize,
    /// The weight of the penalty.
    pub penalty: f64,
}

impl Default for WganConfig {
    fn default() -> Self {
        Self {
            latent: 64,
            gamma: 1.0,
            critic_norm: false,
            whole_image: true,
            critic_steps: 5,
            penalty: 10.0,
        }
    }
}

/// See the [module](self).
struct Gan {
    generator: Box<dyn Generator>,
    judge: Box<dyn Discriminator>,
    latent: usize,
    game: Game,
    /// Steps of the judge for one of the generator.
    judged: u64,
    /// The weight of the penalty.
    penalty: f64,
}

/// Numbers of the networks among the parts, and ways of their batches.
const GENERATOR: usize = 0;
const JUDGE: usize = 1;

/// Two networks, two streams of initial weights.
const fn other(seed: u64) -> u64 {
    seed ^ 0x9e37_79b9_7f4a_7c15
}

impl Sizes for GanConfig {
    fn check(&self) -> Result<()> {
        rule(&[latent(self.latent)])
    }

    fn build(&self, seed: u64) -> Box<dyn Teaching> {
        Box::new(Gan {
            generator: Box::new(gan::Generator::new(self.latent, seed)),
            judge: Box::new(gan::Discriminator::new(other(seed))),
            latent: self.latent,
            game: Game::CrossEntropy,
            judged: 1,
            penalty: 0.0,
        })
    }
}

impl Sizes for DcganConfig {
    fn check(&self) -> Result<()> {
        rule(&[latent(self.latent), (self.gamma.is_finite(), "model.gamma must be a number")])
    }

    fn build(&self, seed: u64) -> Box<dyn Teaching> {
        let (gamma, whole) = (self.gamma, self.whole_image);
        let judge = dcgan::Judge::new("disc", [16, 32], Some(gamma), whole, other(seed));
        Box::new(Gan {
            generator: Box::new(dcgan::Generator::new(self.latent, gamma, seed)),
            judge: Box::new(judge),
            latent: self.latent,
            game: Game::CrossEntropy,
            judged: 1,
            penalty: 0.0,
        })
    }
}

impl Sizes for WganConfig {
    fn check(&self) -> Result<()> {
        rule(&[
            latent(self.latent),
            (self.gamma.is_finite(), "model.gamma must be a number"),
            (self.critic_steps > 0, "model.critic_steps must be at least 1"),
            (self.penalty >= 0.0 && self.penalty.is_finite(), "model.penalty must not be negative"),
        ])
    }

    fn build(&self, seed: u64) -> Box<dyn Teaching> {
        let (gamma, whole) = (self.critic_norm.then_some(self.gamma), self.whole_image);
        let critic = dcgan::Judge::new("critic", [64, 128], gamma, whole, other(seed));
        Box::new(Gan {
            generator: Box::new(dcgan::Generator::new(self.latent, self.gamma, seed)),
            judge: Box::new(critic),
            latent: self.latent,
            game: Game::Wasserstein,
            judged: self.critic_steps as u64,
            penalty: self.penalty,
        })
    }
}

impl Gan {
    /// What a batch says of the judge.
    fn of_judge(&self, pass: &Pass<'_>, batch: &Batch) -> Result<Learned> {
        let mut tape = Tape::training();
        let real = tape.input(batch.get("real")?.try_clone()?);
        let codes = tape.input(batch.get("codes")?.try_clone()?);
        // Generated images are data for the judge.
        let fake = tape.frozen(|tape| self.generator.forward(tape, &codes))?;
        let fake = tape.detach(&fake);
        let of_real = self.judge.forward(&mut tape, &real)?;
        let of_fake = self.judge.forward(&mut tape, &fake)?;
        let [of_real, of_fake] = self.game.of_judge(&mut tape, [&of_real, &of_fake])?;
        let mut numbers = vec![];
        let loss = match self.game {
            Game::Wasserstein => {
                let apart = tape.add(&of_real, &of_fake)?;
                let penalty = self.penalty(&mut tape, [&real, &fake], batch)?;
                let distance = tape.scale(&apart, -1.0)?;
                numbers.push(distance.value().try_clone()?);
                numbers.push(penalty.value().try_clone()?);
                tape.scaled_add(&apart, 1.0, &penalty, self.penalty)?
            }
            Game::Hinge | Game::CrossEntropy => tape.scaled_add(&of_real, 0.5, &of_fake, 0.5)?,
        };
        numbers.insert(0, loss.value().try_clone()?);
        Ok(Learned { numbers, gradients: vec![pass.gradients(tape, &loss, JUDGE)?] })
    }

    /// The mean of `(|slope| - 1)^2` of the judge at mixtures `u real + (1 - u) fake`, u uniform for each image.
    fn penalty(&self, tape: &mut Tape, [real, fake]: [&Var; 2], batch: &Batch) -> Result<Var> {
        let mut mixing = Tape::inference();
        let [real, fake] = [("share", real), ("rest", fake)].map(|(name, images)| {
            let images = mixing.input(images.value().try_clone()?);
            mixing.scale_images_by(&images, batch.get(name)?)
        });
        let images = mixing.add(&real?, &fake?)?.value().try_clone()?;
        let images = tape.variable(images);
        let scores = self.judge.forward(tape, &images)?;
        // The score of an image is the mean of its scores.
        let share = scores.shape()[0] as f64 / scores.value().len().max(1) as f64;
        let scores = tape.scale(&scores, share)?;
        let slope = tape.gradient(&scores, &images)?;
        tape.gradient_penalty(&slope)
    }

    /// What a batch says of the generator.
    fn of_generator(&self, pass: &Pass<'_>, batch: &Batch) -> Result<Learned> {
        let mut tape = Tape::training();
        let codes = tape.input(batch.get("codes")?.try_clone()?);
        let fakes = self.generator.forward(&mut tape, &codes)?;
        let scores = tape.frozen(|tape| self.judge.forward(tape, &fakes))?;
        let loss = self.game.of_generator(&mut tape, &scores)?;
        let numbers = vec![loss.value().try_clone()?];
        Ok(Learned { numbers, gradients: vec![pass.gradients(tape, &loss, GENERATOR)?] })
    }

    /// What the numbers of the judge's steps are called.
    const fn measured(&self) -> &'static [&'static str] {
        match self.game {
            Game::Wasserstein => &["loss_d", "distance", "penalty"],
            Game::Hinge | Game::CrossEntropy => &["loss_d"],
        }
    }
}

/// What is said of a descent that measures `numbers`.
const fn words(numbers: &'static [&'static str]) -> Words {
    const GRADIENTS: [&str; 2] =
        ["the norm of the generator's gradients", "the norm of the discriminator's gradients"];
    Words { numbers, gradients: &GRADIENTS }
}

impl Draws for Gan {
    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part::of(&*self.generator), Part { pace: self.judged, ..Part::of(&*self.judge) }]
    }

    fn side(&self) -> usize {
        teaching::SIDE
    }

    fn draw(&self, noise: Stream, count: usize) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let codes = normal(noise, &[count, 1, 1, self.latent]);
        let codes = tape.input(codes.to_device(&self.generator.device())?);
        self.generator.forward(&mut tape, &codes)?.into_tensor()
    }
}

impl Teaching for Gan {
    /// Batches of a step, each with its own noise: those of the judge, and the generator's.
    fn batches(&self) -> u64 {
        self.judged + 1
    }

    fn source(&self, digits: Digits, seed: u64) -> Whole {
        let (latent, judged, game) = (self.latent, self.judged, self.game);
        Box::new(move |number| {
            let n = digits.per_batch();
            let noise = Stream::new(seed, Purpose::TrainingNoise, number);
            let codes = normal(noise, &[n, 1, 1, latent]);
            if number % (judged + 1) == judged {
                return Ok(Batch::new(number, n, GENERATOR).with("codes", codes));
            }
            let real = digits.batch(number);
            let batch = Batch::new(number, n, JUDGE).with("codes", codes).with("real", real);
            if game != Game::Wasserstein {
                return Ok(batch);
            }
            let shares = uniform(Stream::new(seed, Purpose::Timesteps, number), n);
            let rest = shares.iter().map(|share| 1.0 - share).collect();
            Ok(batch
                .with("share", Tensor::from_vec(shares, &[n]))
                .with("rest", Tensor::from_vec::<f32>(rest, &[n])))
        })
    }

    fn step(&self, on: &mut dyn Stepper, rules: &Rules<'_>, batches: &[Batch]) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut descents: Vec<&[Batch]> = batches.chunk_by(|a, b| a.number == b.number).collect();
        let Some(last) = descents.pop() else { unreachable!("a step has batches") };
        for batch in descents {
            let moves = [rules.of(JUDGE, self.judged)];
            let of_judge = &mut |pass: &Pass<'_>, batch: &Batch| self.of_judge(pass, batch);
            taken.then(on.descend(&moves, batch, of_judge)?, words(self.measured()));
            if taken.is_known_bad() {
                return Ok(taken);
            }
        }
        let moves = [rules.of(GENERATOR, 1)];
        let of_generator = &mut |pass: &Pass<'_>, batch: &Batch| self.of_generator(pass, batch);
        taken.then(on.descend(&moves, last, of_generator)?, words(&["loss_g"]));
        Ok(taken)
    }
}
