//! A walk that goes over its image from top to bottom, all calls of the network close behind each other, so that
//! what is held does not grow with the height; the same bits as [`Walk`](super::walk::Walk).
use std::ops::Range;

use super::pixel_noise::PixelNoise;
use super::sampler::{Diffusion, factors, respaced, start};
use crate::engine::device::{Device, Real};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Network;
use crate::nn::rolling::{Queue, RollingCall, Rows};
use crate::ops::noise::Period;
use crate::ops::q_sample::q_sample;
use crate::ops::sampler_step::{StepFactors, sampler_step};

/// Gives rows of the enlarged image, `[1, s rows, W, C]` in `[-1, 1]`, for low-resolution rows.
pub type Enlarged<'a> = dyn FnMut(Range<usize>) -> Result<Tensor> + 'a;

/// See the [module](self).
pub struct RollingWalk<'a> {
    calls: Vec<Call<'a>>,
    /// Of x0, y0 and noise in the state at T, `[1, 3]`.
    start: Tensor,
    noise: Noise,
    scale: usize,
}

/// The noise of an image.
#[derive(Clone, Copy, Debug)]
pub struct Noise {
    /// What it follows from.
    pub seed: u64,
    /// Row and column of the image's first pixel in the whole output.
    pub place: [usize; 2],
    /// Where it begins again, if it does.
    pub period: Option<Period>,
}

struct Call<'a> {
    network: Box<dyn RollingCall + 'a>,
    factors: StepFactors,
    /// Whether the step looks at the enlarged image.
    needs_y0: bool,
    /// Whether it looks at the state.
    needs_x: bool,
    /// The state that the network has seen and that its output has not come to yet.
    state: Queue,
}

impl<'a> RollingWalk<'a> {
    /// Whether images can go through `network` so: states that are not its input are none.
    pub fn is_possible(network: &dyn Network, diffusion: &Diffusion) -> bool {
        let chain = diffusion.process.chain();
        let plain = (1..=chain.steps()).all(|t| chain.input_scale(t) == 1.0);
        plain && network.has_first_call() && network.first_stage().is_none()
    }

    /// A walk of `steps` calls over an image that is enlarged `scale` times, at most `most` rows at a time; none if
    /// `network` cannot do it.
    ///
    /// # Errors
    /// If memory is full.
    pub fn new(
        network: &'a dyn Network,
        diffusion: &Diffusion,
        steps: usize,
        noise: Noise,
        (scale, most): (usize, usize),
    ) -> Result<Option<Self>> {
        let chain = diffusion.process.chain();
        let t = respaced(chain.steps(), steps);
        if !Self::is_possible(network, diffusion) {
            return Ok(None);
        }
        let mut calls = Vec::with_capacity(t.len());
        for (k, &at) in t.iter().enumerate() {
            let told = Tensor::from_vec(vec![f32::from_f64(chain.time(at))], &[1]);
            let Some(network) = network.rolling(k == 0, &told, most)? else { return Ok(None) };
            let factors = factors(diffusion, &chain, (k, at), t.get(k + 1));
            let (needs_y0, needs_x) = (factors.looks_at_y0(), factors.looks_at_x());
            let factors = StepFactors::new(&Device::Cpu, factors)?;
            calls.push(Call { network, factors, needs_y0, needs_x, state: Queue::default() });
        }
        let start = start(diffusion, &chain);
        let start = [start.x0, start.y0, start.noise].map(f32::from_f64).to_vec();
        Ok(Some(Self { calls, start: Tensor::from_vec(start, &[1, 3]), noise, scale }))
    }

    /// Whether the whole image was given.
    pub fn is_done(&self) -> bool {
        self.calls.last().is_none_or(|call| call.network.is_done())
    }

    /// Takes the next rows of the condition, the `last` ones or not, and gives rows of the clean image, in `[-1, 1]`,
    /// that they suffice for; after the last ones again and again, until it is done.
    ///
    /// # Errors
    /// If shapes do not fit, or those of `enlarged`.
    pub fn pass(
        &mut self,
        condition: Option<&Rows>,
        last: bool,
        enlarged: &mut Enlarged<'_>,
    ) -> Result<Option<Rows>> {
        let (mut rows, mut last) = (None, last);
        for k in 0..self.calls.len() {
            let call = &mut self.calls[k];
            let output = call.network.pass(condition.cloned(), rows.take(), last)?;
            last = call.network.is_done();
            let Some(output) = output else {
                // Later calls must not miss their condition.
                continue;
            };
            rows = Some(self.step(k, &output, enlarged)?);
            if let (Some(rows), Some(next)) = (&rows, self.calls.get_mut(k + 1)) {
                next.state.push(rows);
            }
        }
        Ok(rows)
    }

    /// The state that call `k` and its `output` lead to.
    fn step(&mut self, k: usize, output: &Rows, enlarged: &mut Enlarged<'_>) -> Result<Rows> {
        let at = output.at.clone();
        let Noise { seed, place: [row, column], period } = self.noise;
        let place = [row + at.start * self.scale, column];
        let noise = PixelNoise::new(&Device::Cpu, seed, &[place])?.repeating(period);
        let call = &mut self.calls[k];
        let output = output.tensor()?;
        let mut x = match k {
            // Neither seen by the network, whose first call has no state, nor by the step: not worth drawing.
            0 if !call.needs_x => Tensor::zeros_as(&output, output.shape())?,
            0 => {
                // Nobody has seen it yet.
                let y0 = enlarged(at.clone())?;
                let mut x = Tensor::empty_as(&y0, y0.shape())?;
                q_sample(&self.start, [&y0, &y0], &noise.numbers(), &mut x, None)?;
                x
            }
            _ => call.state.get(&output, at.clone())?,
        };
        call.state.forget(at.end);
        let y0 = if call.needs_y0 { Some(enlarged(at.clone())?) } else { None };
        let y0 = y0.as_ref().unwrap_or(&output);
        sampler_step(&call.factors, [&output, y0], &noise.numbers(), &mut x, None, None)?;
        Rows::new(at.start, x, self.scale)
    }
}
