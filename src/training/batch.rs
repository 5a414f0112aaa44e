//! What one call of the network learns from.
use std::sync::Arc;

use crate::data::crops::{CropBatch, Crops};
use crate::data::degrade;
use crate::diffusion::latent;
use crate::diffusion::process::{Chain, Prediction};
use crate::diffusion::sampler::Diffusion;
use crate::engine::device::{DType, Real};
use crate::engine::rng::{Purpose, Sequence, Stream};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Network;
use crate::models::damage::{Damage, TOLD};
use crate::models::vq::Vq;
use crate::ops::noise::{Noise, PixelNoise};
use crate::ops::q_sample::q_sample;

use super::sections::Config;

/// Crops with their random steps t, on the CPU.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) crops: CropBatch,
    /// Of x0, y0 and noise in the state, scaled as the network expects it, `[N, 3]`.
    pub(super) factors: Tensor,
    /// What the network is told about t, `[N]`.
    pub(super) times: Tensor,
    /// The random steps t of the chain, one for each crop.
    pub(super) steps: Vec<usize>,
    /// Which states are made of the network's own estimate in place of x0; none if empty.
    pub(super) own: Vec<bool>,
    /// What the network is told of the damage to the crops, `[N, 6]`, where it can be.
    pub(super) told: Option<Tensor>,
    /// The batch's number in the run: the step of its noise.
    pub(super) number: u64,
    /// State and target, where the CPU trains; a GPU makes its own.
    pub(super) noised: Option<[Arc<Tensor>; 2]>,
}

/// Makes batches: crops, random steps t, and noise, all functions of the batch's number.
pub(super) struct Source {
    crops: Crops,
    diffusion: Diffusion,
    chain: Chain,
    seed: u64,
    noise_here: bool,
    /// Whether all images of a batch start their chains, or none.
    apart: bool,
    /// Whether the network can be told of damage.
    tells: bool,
    first_stage: Option<Arc<Vq>>,
}

impl Source {
    /// Batches of `crops` for `network`; with `noise_here` their state and target are made, too.
    pub(super) fn new(
        crops: Crops,
        config: &Config,
        network: &dyn Network,
        noise_here: bool,
    ) -> Self {
        let diffusion = config.diffusion.clone();
        let chain = diffusion.process.chain();
        let seed = config.run.seed;
        let (apart, first_stage) = (network.has_first_call(), network.first_stage().cloned());
        let tells = network.takes_damage();
        Self { crops, chain, diffusion, seed, noise_here, apart, tells, first_stage }
    }

    /// The batch `number` of the run.
    pub(super) fn batch(&self, number: u64) -> Result<Batch> {
        let mut crops = self.crops.batch(number)?;
        if let Some(first_stage) = &self.first_stage {
            crops.x0 = latent::encode(Some(first_stage), &crops.x0)?;
            crops.y0 = latent::encode(Some(first_stage), &crops.y0)?;
        }
        let n = crops.x0.shape()[0];
        let mut draws = Stream::new(self.seed, Purpose::Timesteps, number).sequence();
        let steps = self.diffusion.draw_steps(n, &mut draws, self.apart);
        let (mut factors, mut times) = (Vec::with_capacity(3 * n), Vec::with_capacity(n));
        for &t in &steps {
            let (m, time) = self.chain.drawn(t, || draws.uniform());
            let scale = self.chain.input_scale(t);
            factors.extend([m.x0, m.y0, m.noise].map(|v| f32::from_f64(v * scale)));
            times.push(time);
        }
        let factors = Tensor::from_vec(factors, &[n, 3]);
        let times = Tensor::from_f64(&times, &[n], DType::F32);
        let mut own = vec![];
        if self.diffusion.own_states > 0.0 {
            let last = self.chain.steps();
            let drawn = |&t: &usize| draws.uniform() < self.diffusion.own_states && t < last;
            own = steps.iter().map(drawn).collect();
        }
        let told = self.tells.then(|| told(&crops.damage, &mut draws));
        let mut batch = Batch { crops, factors, times, steps, own, told, number, noised: None };
        if self.noise_here {
            batch.noised = Some(self.noised(&batch)?.map(Arc::new));
        }
        Ok(batch)
    }

    fn noised(&self, batch: &Batch) -> Result<[Tensor; 2]> {
        let (x0, y0) = (&batch.crops.x0, &batch.crops.y0);
        let mut state = Tensor::empty_as(x0, x0.shape())?;
        let mut target = Tensor::empty_as(x0, x0.shape())?;
        let noise = noise(self.seed, batch.number, None);
        let of = target_factors(self.diffusion.prediction);
        q_sample(&batch.factors, [x0, y0], &noise, &mut state, Some((&mut target, of)))?;
        Ok([state, target])
    }
}

/// How often the quality of a JPEG, the noise and the blur are told: files say the first, the others are estimates
/// at best.
const TOLD_OF: [f64; 3] = [0.7, 0.4, 0.3];

/// What a network is told of `damage`, `[N, 6]`: each number only sometimes, so that it learns to do without.
fn told(damage: &[degrade::Damage], draws: &mut Sequence) -> Tensor {
    let mut values = Vec::with_capacity(damage.len() * TOLD);
    for one in damage {
        let [quality, noise, blur] = TOLD_OF.map(|share| draws.uniform() < share);
        let known = Damage {
            jpeg_quality: quality.then(|| one.jpeg_quality.unwrap_or(100.0)),
            noise: noise.then_some(one.noise_sigma),
            blur: blur.then_some(one.blur_sigma),
        };
        values.extend(known.told());
    }
    Tensor::from_vec(values, &[damage.len(), TOLD])
}

/// The noise of batch `number`; `later` is added to that when a kernel runs.
pub(super) const fn noise(seed: u64, number: u64, later: Option<&Tensor>) -> Noise<'_> {
    let stream = Stream::new(seed, Purpose::TrainingNoise, number);
    Noise::Pixels(PixelNoise { stream, origins: None, later, period: None })
}

/// Of x0, y0 and noise in what a network should predict.
pub(super) const fn target_factors(prediction: Prediction) -> [f64; 3] {
    match prediction {
        Prediction::Residual => [1.0, -1.0, 0.0],
        Prediction::NegativeResidual => [-1.0, 1.0, 0.0],
        Prediction::X0 => [1.0, 0.0, 0.0],
        Prediction::Epsilon => [0.0, 0.0, 1.0],
    }
}
