//! States of training that are made of the network's own estimate of x0 (`diffusion.own_states`).
//!
//! Where a chain is walked, the state at t < T does not hold the true image but the blurred one that the first call
//! believed in. A network that has only met true ones takes what it is given for details that are not there.
use super::batch::{self, Batch};
use super::sections::Config;
use crate::diffusion::sampler::{PixelNoise, condition, sample};
use crate::engine::device::Device;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::Network;
use crate::ops::q_sample::q_sample;

/// The states of `batch` `[N, H, W, C]`, on the CPU: those of `batch.own` made of what one call from the end of the
/// chain gives.
///
/// # Errors
/// If the batch does not fit the network.
pub(super) fn state(network: &dyn Network, config: &Config, batch: &Batch) -> Result<Tensor> {
    let crops = &batch.crops;
    let estimate = estimate(network, config, batch)?;
    let mut mixed = crops.x0.cpu::<f32>()?.to_vec();
    let image = mixed.len() / batch.own.len().max(1);
    let pairs = mixed.chunks_exact_mut(image).zip(estimate.cpu::<f32>()?.chunks_exact(image));
    for ((x0, own), _) in pairs.zip(&batch.own).filter(|(_, own)| **own) {
        x0.copy_from_slice(own);
    }
    let mixed = Tensor::from_vec(mixed, crops.x0.shape());
    let mut state = Tensor::empty_as(&mixed, mixed.shape())?;
    let noise = batch::noise(config.run.seed, batch.number, None);
    q_sample(&batch.factors, [&mixed, &crops.y0], &noise, &mut state, None)?;
    Ok(state)
}

/// What the network makes of every image of `batch` in one call, `[N, H, W, C]` in `[-1, 1]`.
fn estimate(network: &dyn Network, config: &Config, batch: &Batch) -> Result<Tensor> {
    let crops = &batch.crops;
    let places = vec![[0, 0]; crops.y0.shape()[0]];
    let noise = PixelNoise::new(&Device::Cpu, config.run.seed ^ batch.number << 20, &places)?;
    let seen = condition(network, &crops.low, &crops.y0, batch.told.as_ref())?;
    sample(network, &config.diffusion, seen, &crops.y0, &noise, 1, &mut |_| Ok(()))
}
