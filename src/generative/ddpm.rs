//! Denoising diffusion without a condition (Ho et al. 2020):
//!
//! ```text
//! L = mean of (eps - eps_hat(sqrt(ab_t) x + sqrt(1 - ab_t) eps, t))^2       t and eps drawn for each image
//! ```
//!
//! Schedules, what t is told as, and the rules of sampling are those of [super-resolution](crate::diffusion).
use super::config::DdpmConfig;
use super::digits::{Digits, normal};
use super::system::{Measured, Moved, System, Trainable};
use crate::diffusion::sampler::{Clamp, respaced};
use crate::engine::device::{DType, Real};
use crate::engine::parameter::Parameter;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::teaching::{self, ddpm::DdpmUNet};

/// See the [module](self).
pub(super) struct Ddpm {
    network: DdpmUNet,
    config: DdpmConfig,
}

impl Ddpm {
    pub(super) fn new(config: &DdpmConfig, seed: u64) -> Self {
        Self { network: DdpmUNet::new(&config.network, seed), config: config.clone() }
    }

    /// The noise that the network finds in `x` when every image is at `time`.
    fn found(&self, x: &[f32], shape: &[usize], time: f64) -> Result<Vec<f32>> {
        let mut tape = Tape::inference();
        let times = Tensor::from_f64(&vec![time; shape[0]], &shape[..1], DType::F32);
        let state = tape.input(Tensor::from_vec(x.to_vec(), shape));
        self.network.forward(&mut tape, &state, &times)?.value().to_f32_vec()
    }
}

impl System for Ddpm {
    fn parts(&self) -> Vec<(&[Parameter], &[Parameter])> {
        vec![(self.network.parameters(), &[])]
    }

    fn side(&self) -> usize {
        teaching::SIDE
    }

    fn sample(&self, noise: Stream, count: usize) -> Result<Tensor> {
        let diffusion = &self.config.diffusion;
        let (chain, sampler) = (diffusion.process.chain(), diffusion.sampler);
        let calls = match self.config.sample_steps {
            0 => chain.steps(),
            calls => calls,
        };
        let shape = [count, self.side(), self.side(), 1];
        let mut x = normal(noise, &shape).to_f32_vec()?;
        let steps = respaced(chain.steps(), calls);
        for (k, &t) in (1u32..).zip(&steps) {
            let found = self.found(&x, &shape, chain.time(t))?;
            let [of_found, of_x, _] = chain.x0_hat(diffusion.prediction, t).map(f32::from_f64);
            let next = steps.get(k as usize);
            let clamped = next.is_none() || sampler.clamp == Clamp::X0;
            let clean = |(found, x): (&f32, &f32)| {
                let v = of_found * found + of_x * x;
                if clamped { v.clamp(-1.0, 1.0) } else { v }
            };
            let clean: Vec<f32> = found.iter().zip(&x).map(clean).collect();
            let Some(&s) = next else {
                x = clean;
                break;
            };
            let fresh = normal(noise.later(k), &shape);
            chain.step(sampler.rule, t, s).apply(&mut x, &clean, &clean, fresh.cpu()?);
            if sampler.clamp == Clamp::Xt {
                x.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
            }
        }
        Ok(Tensor::from_vec(x, &shape))
    }
}

impl Trainable for Ddpm {
    fn step(&self, step: u64, data: &Digits, moved: &mut Moved) -> Result<Measured> {
        let (seed, diffusion) = (moved.config.run.seed, &self.config.diffusion);
        let chain = diffusion.process.chain();
        let images = data.batch(step);
        let shape = images.shape().to_vec();
        let noise = normal(Stream::new(seed, Purpose::TrainingNoise, step), &shape);
        let mut draws = Stream::new(seed, Purpose::Timesteps, step).sequence();
        let mut state = noise.to_f32_vec()?;
        let mut times = Vec::with_capacity(shape[0]);
        let area = images.len() / shape[0].max(1);
        for (state, x) in state.chunks_exact_mut(area).zip(images.cpu::<f32>()?.chunks_exact(area))
        {
            let t = diffusion.draw_t(draws.uniform());
            // The condition y0 has no part in DDPM's marginal.
            chain.marginal(t).apply(x, x, state);
            times.push(chain.time(t));
        }
        let mut tape = Tape::training();
        let times = Tensor::from_f64(&times, &shape[..1], DType::F32);
        let state = tape.input(Tensor::from_vec(state, &shape));
        let found = self.network.forward(&mut tape, &state, &times)?;
        let noise = tape.input(noise);
        let loss = tape.mse_loss(&found, &noise)?;
        let loss = moved.descend(0, 1, self.network.parameters(), tape, &loss)?;
        Ok(vec![("loss", loss)])
    }
}
