//! States of training that are made of the network's own estimate of x0 (`diffusion.own_states`).
//!
//! Where a chain is walked, the state at t < T does not hold the true image but the blurred one that the first call
//! believed in. A network that has only met true ones takes what it is given for details that are not there.
use super::crops::{noise, origins};
use super::names::{FACTORS, LOW, OWN, TOLD_OF_DAMAGE, TRUE, X0, Y0};
use crate::diffusion::pixel_noise::PixelNoise;
use crate::diffusion::walk::{condition, sample};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Network;
use crate::ops::q_sample::q_sample;
use crate::training::batch::Batch;
use crate::training::sections::Config;

/// The states of `batch` `[N, H, W, C]`: those of [`OWN`] made of what one call from the end of the chain gives.
///
/// # Errors
/// If the batch does not fit the network.
pub(super) fn state(network: &dyn Network, config: &Config, batch: &Batch) -> Result<Tensor> {
    let mut tape = Tape::inference();
    let estimate = tape.input(estimate(network, config, batch)?);
    let x0 = batch.get(X0)?;
    let truth = tape.input(x0.try_clone()?);
    let own = tape.scale_images_by(&estimate, batch.get(OWN)?)?;
    let rest = tape.scale_images_by(&truth, batch.get(TRUE)?)?;
    let mixed = tape.add(&own, &rest)?;
    let mut state = Tensor::empty_as(x0, x0.shape())?;
    let images = [mixed.value(), batch.get(Y0)?];
    let origins = origins(batch, x0)?;
    let noise = noise(config.run.seed, batch, origins.as_ref())?;
    q_sample(batch.get(FACTORS)?, images, &noise, &mut state, None)?;
    Ok(state)
}

/// What the network makes of every image of `batch` in one call, `[N, H, W, C]` in `[-1, 1]`.
fn estimate(network: &dyn Network, config: &Config, batch: &Batch) -> Result<Tensor> {
    let (low, y0) = (batch.get(LOW)?, batch.get(Y0)?);
    let places = vec![[0, 0]; y0.shape()[0]];
    let noise = PixelNoise::new(&y0.device(), config.run.seed ^ batch.number << 20, &places)?;
    let seen = condition(network, low, y0, batch.find(TOLD_OF_DAMAGE))?;
    sample(network, &config.diffusion, seen, y0, &noise, 1, &mut |_| Ok(()))
}
