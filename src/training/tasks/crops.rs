//! What one call of a network for super-resolution learns from.
use std::ops::Range;

use crate::data::crops::{CropBatch, Crops};
use crate::data::degrade;
use crate::diffusion::process::{Chain, Prediction};
use crate::diffusion::sampler::Diffusion;
use crate::engine::device::{DType, Device, Real};
use crate::engine::rng::{Purpose, Sequence, Stream};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Network;
use crate::models::damage::{Damage, TOLD};
use crate::ops::noise::{self, Noise, PixelNoise};
use crate::training::batch::Batch;
use crate::training::ranks::Unit;
use crate::training::sections::Config;

use super::clean::Clean;
use super::names::{
    ESTIMATED, FACTORS, FIRST_CALL, JUDGED, LOW, NUMBER, OWN, OWN_NOISE, PLACES, TAUGHT, TIMES,
    TOLD_OF_DAMAGE, TRUE, TURN, X0, Y0,
};
use super::perceptual::Looks;

/// Makes batches: crops and random steps t, functions of the batch's number.
pub(super) struct Source {
    crops: Crops,
    diffusion: Diffusion,
    chain: Chain,
    seed: u64,
    /// Whether all images of a batch start their chains, or none.
    apart: bool,
    /// Whether the network can be told of damage.
    tells: bool,
    /// Whether losses look at the clean images that the network's output stands for.
    cleans: bool,
    /// What perceptual terms look at, where there are some.
    looks: Option<Looks>,
    /// The batch from which on a discriminator judges.
    judged: u64,
}

/// What losses ask of batches.
pub(super) struct Asked {
    /// Clean images.
    pub(super) cleans: bool,
    /// What perceptual terms look at, where there are some.
    pub(super) looks: Option<Looks>,
    /// The number from which on a discriminator judges.
    pub(super) judged: u64,
}

impl Source {
    /// Batches of `crops` for `network`.
    pub(super) fn new(crops: Crops, config: &Config, network: &dyn Network, asked: &Asked) -> Self {
        let diffusion = config.diffusion.clone();
        let &Asked { cleans, looks, judged } = asked;
        Self {
            crops,
            chain: diffusion.process.chain(),
            diffusion,
            seed: config.run.seed,
            apart: network.has_first_call(),
            tells: network.takes_damage(),
            cleans,
            looks,
            judged,
        }
    }

    /// What `unit` is of its batch: all that is drawn is drawn for the whole batch.
    pub(super) fn batch(&self, unit: &Unit) -> Result<Batch> {
        let (number, n) = (unit.batch, self.crops.per_batch());
        let images = unit.range(n);
        let CropBatch { low, y0, x0, taught, damage } = self.crops.some(number, images.clone())?;
        let mut draws = Stream::new(self.seed, Purpose::Timesteps, number).sequence();
        let steps = self.diffusion.draw_steps(n, &mut draws, self.apart);
        let (mut factors, mut times) = (Vec::with_capacity(3 * n), Vec::with_capacity(n));
        for &t in &steps {
            let (m, time) = self.chain.drawn(t, || draws.uniform());
            let scale = self.chain.input_scale(t);
            factors.extend([m.x0, m.y0, m.noise].map(|v| f32::from_f64(v * scale)));
            times.push(time);
        }
        let last = self.chain.steps();
        let mut own = vec![];
        if self.diffusion.own_states > 0.0 {
            let drawn = |&t: &usize| draws.uniform() < self.diffusion.own_states && t < last;
            own = steps.iter().map(drawn).collect();
        }
        let told = self.tells.then(|| told(images.clone(), &damage, &mut draws));
        let estimates = own.contains(&true);
        let way = self.way(number, steps.iter().all(|&t| t == last), estimates);
        #[allow(clippy::cast_possible_truncation)] // Steps of a stream count modulo 2^32.
        let counted = noise::integer(&Device::Cpu, number as u32)?;
        let (factors, times) =
            (factors[3 * images.start..3 * images.end].to_vec(), &times[images.clone()]);
        let n = images.len();
        let mut batch = Batch::new(number, n, way)
            .with(LOW, low)
            .with(Y0, y0)
            .with(X0, x0)
            .with(FACTORS, Tensor::from_vec(factors, &[n, 3]))
            .with(TIMES, Tensor::from_f64(times, &[n], DType::F32))
            .with(NUMBER, counted);
        if let Some(taught) = taught {
            batch = batch.with(TAUGHT, taught);
        }
        if let Some(told) = told {
            batch = batch.with(TOLD_OF_DAMAGE, told);
        }
        if unit.of > 1 {
            let places = images.clone().flat_map(|image| [f32::from_f64(image as f64), 0.0]);
            batch = batch.with(PLACES, Tensor::from_vec::<f32>(places.collect(), &[n, 2]));
        }
        if let Some(looks) = &self.looks {
            batch = looks.tell(batch)?;
        }
        if estimates {
            let noise = own_noise(self.seed, number, batch.get(Y0)?)?;
            let own = &own[images.clone()];
            let share =
                |kept: bool| own.iter().map(|&o| if o == kept { 1.0 } else { 0.0 }).collect();
            batch = batch
                .with(OWN, Tensor::from_vec::<f32>(share(true), &[n]))
                .with(TRUE, Tensor::from_vec::<f32>(share(false), &[n]))
                .with(OWN_NOISE, noise);
        }
        if self.cleans {
            let clean = Clean { chain: &self.chain, prediction: self.diffusion.prediction };
            batch = clean.tell(batch, &steps[images]);
        }
        Ok(batch)
    }

    /// The way of batch `number`, where all chains start or not, and states are estimates or not.
    fn way(&self, number: u64, starts: bool, estimates: bool) -> usize {
        let turn = self.looks.map_or(0, |looks| looks.turn(number));
        let of = |goes: bool, way: usize| if goes { way } else { 0 };
        of(starts && self.apart, FIRST_CALL)
            + of(number >= self.judged, JUDGED)
            + of(estimates, ESTIMATED)
            + turn * TURN
    }
}

/// The noise that the network's estimates of batch `number`, of images like `y0`, start from: `[1, H, W, C]`. It is drawn
/// here, since kernels know of no seed that is another one for each batch.
fn own_noise(seed: u64, number: u64, y0: &Tensor) -> Result<Tensor> {
    let [_, h, w, c] = y0.nhwc("own_states")?;
    let mut z = Tensor::empty_on(&Device::Cpu, DType::F32, &[1, h, w, c])?;
    let stream = Stream::new(seed ^ number << 20, Purpose::Sampling, 0);
    let noise = PixelNoise { stream, origins: None, later: None, period: None };
    noise::pixel_noise(&noise, &mut z)?;
    Ok(z)
}

/// How often the quality of a JPEG, the noise and the blur are told: files say the first, the others are estimates
/// at best.
const TOLD_OF: [f64; 3] = [0.7, 0.4, 0.3];

/// What a network is told of the `damage` of these images of a batch, `[N, 6]`, where it is known: each number only
/// sometimes, so that it learns to do without.
fn told(images: Range<usize>, damage: &[Option<degrade::Damage>], draws: &mut Sequence) -> Tensor {
    let mut values = Vec::with_capacity(damage.len() * TOLD);
    // Those of the images before are drawn and dropped.
    for _ in 0..images.start * TOLD_OF.len() {
        draws.uniform();
    }
    for one in damage {
        let [quality, noise, blur] = TOLD_OF.map(|share| draws.uniform() < share);
        let known = one.map_or_else(Damage::default, |one| Damage {
            jpeg_quality: quality.then(|| one.jpeg_quality.unwrap_or(100.0)),
            noise: noise.then_some(one.noise_sigma),
            blur: blur.then_some(one.blur_sigma),
        });
        values.extend(known.told());
    }
    Tensor::from_vec(values, &[damage.len(), TOLD])
}

/// Where the noise of images of a part of `batch` begins: images of a batch have that of rows below each other. None for
/// a whole batch; `x0` are the images, or their latents.
///
/// # Errors
/// If memory is full.
pub(super) fn origins(batch: &Batch, x0: &Tensor) -> Result<Option<Tensor>> {
    let Some(places) = batch.find(PLACES) else { return Ok(None) };
    let mut tape = Tape::inference();
    let places = tape.input(places.try_clone()?);
    let rows = tape.scale(&places, x0.shape()[1] as f64)?;
    Ok(Some(rows.value().try_clone()?))
}

/// The noise of `batch`, drawn with its number where that lies, of images with these [`origins`].
///
/// # Errors
/// If the batch has no number.
pub(super) fn noise<'a>(
    seed: u64,
    batch: &'a Batch,
    origins: Option<&'a Tensor>,
) -> Result<Noise<'a>> {
    let (stream, later) = (Stream::new(seed, Purpose::TrainingNoise, 0), Some(batch.get(NUMBER)?));
    Ok(Noise::Pixels(PixelNoise { stream, origins, later, period: None }))
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
