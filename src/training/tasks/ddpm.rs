//! Denoising diffusion without a condition (Ho et al. 2020):
//!
//! ```text
//! L = mean of (eps - eps_hat(sqrt(ab_t) x + sqrt(1 - ab_t) eps, t))^2       t and eps drawn for each image
//! ```
//!
//! Schedules, what t is told as, and the rules of sampling are those of [super-resolution](crate::diffusion).
use serde::{Deserialize, Serialize};

use super::digits::{Digits, normal};
use super::draws::{Draws, Rules, Sizes, Teaching, Whole, rule};
use crate::diffusion::pixel_noise::PixelNoise;
use crate::diffusion::process::{Prediction, Process};
use crate::diffusion::sampler::Diffusion;
use crate::diffusion::walk::{condition, sample};
use crate::engine::device::DType;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::teaching::{self, ddpm::DdpmUNet, ddpm::DdpmUNetConfig};
use crate::models::{Module, Network};
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::stepper::{Learned, Pass, Stepper};
use crate::training::task::{Taken, Words};

/// `kind = "ddpm"`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DdpmConfig {
    /// The network.
    #[serde(default)]
    pub network: DdpmUNetConfig,
    /// The process and how it is reversed; the network predicts the noise.
    pub diffusion: Diffusion,
    /// Calls of the network for a sample; 0 takes all T.
    #[serde(default)]
    pub sample_steps: usize,
}

/// See the [module](self).
struct Ddpm {
    network: DdpmUNet,
    config: DdpmConfig,
}

impl Ddpm {
    /// What the batch says.
    fn learn(&self, pass: &Pass<'_>, batch: &Batch) -> Result<Learned> {
        let mut tape = Tape::training();
        let state = tape.input(batch.get("state")?.try_clone()?);
        let nothing = tape.input(Tensor::zeros_as(state.value(), &[1])?);
        let found = self.network.forward(&mut tape, &state, &nothing, batch.get("times")?)?;
        let noise = tape.input(batch.get("noise")?.try_clone()?);
        let loss = tape.mse_loss(&found, &noise)?;
        let numbers = vec![loss.value().try_clone()?];
        Ok(Learned { numbers, gradients: vec![pass.gradients(tape, &loss, 0)?] })
    }
}

impl Draws for Ddpm {
    fn parts(&self) -> Vec<Part<'_>> {
        vec![Part::of(&self.network)]
    }

    fn side(&self) -> usize {
        teaching::SIDE
    }

    /// The walk of super-resolution from black images, of which the process takes nothing.
    fn draw(&self, noise: Stream, count: usize) -> Result<Tensor> {
        let (diffusion, device) = (&self.config.diffusion, self.network.device());
        let calls = match self.config.sample_steps {
            0 => diffusion.process.steps(),
            calls => calls,
        };
        let side = self.side();
        let black = Tensor::zeros_on(&device, DType::F32, &[count, side, side, 1])?;
        // One below the other, so that each has noise of its own.
        let places: Vec<[usize; 2]> = (0..count).map(|i| [i * side, 0]).collect();
        let noise = PixelNoise::new(&device, noise.parts().0, &places)?;
        let nothing = condition(&self.network, &black, &black, None)?;
        sample(&self.network, diffusion, nothing, &black, &noise, calls, &mut |_| Ok(()))
    }
}

impl Teaching for Ddpm {
    fn source(&self, digits: Digits, seed: u64) -> Whole {
        let diffusion = self.config.diffusion.clone();
        let chain = diffusion.process.chain();
        Box::new(move |number| {
            // Counted from 1, as steps are.
            let step = number + 1;
            let images = digits.batch(step);
            let shape = images.shape().to_vec();
            let noise = normal(Stream::new(seed, Purpose::TrainingNoise, step), &shape);
            let mut draws = Stream::new(seed, Purpose::Timesteps, step).sequence();
            let mut state = noise.to_f32_vec()?;
            let mut times = Vec::with_capacity(shape[0]);
            let area = images.len() / shape[0].max(1);
            let pairs = state.chunks_exact_mut(area).zip(images.cpu::<f32>()?.chunks_exact(area));
            for (state, x) in pairs {
                let t = diffusion.draw_t(draws.uniform());
                // The condition y0 has no part in DDPM's marginal.
                chain.marginal(t).apply(x, x, state);
                times.push(chain.time(t));
            }
            Ok(Batch::new(number, shape[0], 0)
                .with("state", Tensor::from_vec(state, &shape))
                .with("noise", noise)
                .with("times", Tensor::from_f64(&times, &shape[..1], DType::F32)))
        })
    }

    fn step(&self, on: &mut dyn Stepper, rules: &Rules<'_>, batches: &[Batch]) -> Result<Taken> {
        let moves = [rules.of(0, 1)];
        let coming = on.descend(&moves, batches, &mut |pass, batch| self.learn(pass, batch))?;
        Ok(Taken::of(coming, Words { numbers: &["loss"], gradients: &[] }))
    }
}

impl Sizes for DdpmConfig {
    fn check(&self) -> Result<()> {
        self.diffusion.check()?;
        let n = &self.network;
        let grouped = n.groups > 0 && n.base.is_multiple_of(n.groups);
        let levels = (1..=3).contains(&n.multipliers.len());
        rule(&[
            (
                self.diffusion.prediction == Prediction::Epsilon,
                "model.diffusion.prediction must be epsilon",
            ),
            (
                matches!(self.diffusion.process, Process::Ddpm { .. }),
                "model.diffusion.process must be ddpm: there is no image to start from",
            ),
            (
                (4..=1024).contains(&n.base) && n.base.is_multiple_of(2),
                "model.network.base must be even, from 4 to 1024",
            ),
            (grouped, "model.network.groups must divide model.network.base"),
            (
                levels && n.multipliers.iter().all(|m| (1..=64).contains(m)),
                "model.network.multipliers must be one to three numbers from 1 to 64",
            ),
        ])
    }

    fn build(&self, seed: u64) -> Box<dyn Teaching> {
        Box::new(Ddpm { network: DdpmUNet::new(&self.network, seed), config: self.clone() })
    }
}
