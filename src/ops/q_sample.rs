//! The state of a forward process at random steps, and what a network should predict of it. Not
//! differentiated.
//!
//! ```text
//! state  = k_x0 x0 + k_y0 y0 + k_noise z        factors of each image
//! target = l_x0 x0 + l_y0 y0 + l_noise z        factors of all
//! ```
//!
//! x0, y0 and z are F32; state and target are what the network computes in.
use super::noise::{Drawn, Noise, pixel_noise};
use super::sampler_step::combine;
use super::{parallel, same_shape};
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::{Device, Real};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// Fills `state`, and `target` with what `factors` of x0, y0 and noise make of them. All tensors are
/// `[N, H, W, C]` with at most 3 channels, but `factors` of the states, `[N, 3]`, F32.
///
/// # Errors
/// If shapes or element types do not match.
pub fn q_sample(
    factors: &Tensor,
    [x0, y0]: [&Tensor; 2],
    noise: &Noise,
    state: &mut Tensor,
    target: Option<(&mut Tensor, [f64; 3])>,
) -> Result<()> {
    const OP: &str = "q_sample";
    let [n, h, w, c] = state.nhwc(OP)?;
    [x0, y0].into_iter().try_for_each(|other| same_shape(OP, state, other))?;
    if let Some((target, _)) = &target {
        same_shape(OP, state, target)?;
    }
    if factors.shape() != [n, 3] {
        return Err(Error::shape(OP, format!("factors of [{n}, 3]"), factors.shape()));
    }
    noise.check(OP, state)?;
    let Device::Cuda(gpu) = state.device() else {
        return on_cpu(factors.cpu()?, [x0, y0], noise, state, target);
    };
    let repeated = noise.repeated(state, 0)?;
    let noise = &repeated.as_ref().map_or(*noise, Noise::Given);
    let Drawn { given, origins, later, seed, purpose, step } = noise.drawn();
    let (target, of) = target.unzip();
    let [target_x0, target_y0, target_noise] = of.unwrap_or_default().map(f32::from_f64);
    kernels::q_sample {
        factors,
        x0,
        y0,
        noise: given,
        origins,
        later,
        state,
        target,
        target_x0,
        target_y0,
        target_noise,
        seed,
        purpose,
        step,
        count: n * h * w,
        height: h,
        width: w,
        channels: c,
    }
    .launch(&gpu, Grid::elements(n * h * w))
}

fn on_cpu(
    factors: &[f32],
    [x0, y0]: [&Tensor; 2],
    noise: &Noise,
    state: &mut Tensor,
    target: Option<(&mut Tensor, [f64; 3])>,
) -> Result<()> {
    // The noise is drawn where the state will be.
    match noise {
        Noise::Given(z) => parallel::copy(state.cpu_mut::<f32>()?, z.cpu()?),
        Noise::Pixels(noise) => pixel_noise(noise, state)?,
    }
    let (x0, y0, z) = (x0.cpu::<f32>()?, y0.cpu::<f32>()?, state.cpu::<f32>()?);
    if let Some((target, [of_x0, of_y0, of_noise])) = target {
        let target = target.cpu_mut::<f32>()?;
        parallel::copy(target, z);
        combine(target, [of_noise, of_x0, of_y0, 0.0], x0, y0, y0);
    }
    let image = (state.len() / (factors.len() / 3).max(1)).max(1);
    let state = state.cpu_mut::<f32>()?;
    for (i, (state, k)) in state.chunks_exact_mut(image).zip(factors.chunks_exact(3)).enumerate() {
        let at = i * image..(i + 1) * image;
        let [of_x0, of_y0, of_noise] = [0, 1, 2].map(|j| f64::from(k[j]));
        combine(state, [of_noise, of_x0, of_y0, 0.0], &x0[at.clone()], &y0[at.clone()], &y0[at]);
    }
    Ok(())
}
