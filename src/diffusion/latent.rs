//! Between images and the space that states live in, for networks that work on latents
//! (Rombach et al. 2022). For others both are the same.
//!
//! ```text
//! images [N, H, W, 3] in [-1, 1]  --encode-->  states [N, H / f, W / f, D]  --decode-->  images
//! ```
use super::sampler::{Diffusion, Space};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::Network;
use crate::models::vq::Vq;

/// Refuses a process in a space that the network has no way to; exit code 2.
pub fn check(network: &dyn Network, diffusion: &Diffusion) -> Result<()> {
    let cause = match (diffusion.space, network.first_stage()) {
        (Space::Latent, None) => "diffusion.space is latent, but the model has no autoencoder",
        (Space::Pixel, Some(_)) => "the model has an autoencoder, but diffusion.space is pixel",
        _ => return Ok(()),
    };
    let report = Report::new("the model does not fit the process", cause);
    Err(Error::Usage(
        report.help("a [model.autoencoder] section and space = \"latent\" belong together"),
    ))
}

/// The states that `images` are, without gradients.
///
/// # Errors
/// If the factor of the first stage does not divide the images, or the memory of a GPU is full.
pub fn encode(first_stage: Option<&Vq>, images: &Tensor) -> Result<Tensor> {
    let Some(first_stage) = first_stage else { return images.try_clone() };
    let mut tape = Tape::inference();
    let images = tape.input(images.try_clone()?);
    first_stage.encode(&mut tape, &images)?.into_tensor()
}

/// The images that `states` are, in `[-1, 1]` where they come from latents.
///
/// # Errors
/// If the memory of a GPU is full.
pub fn decode(first_stage: Option<&Vq>, states: Tensor) -> Result<Tensor> {
    let Some(first_stage) = first_stage else { return Ok(states) };
    let mut tape = Tape::inference();
    let states = tape.input(states);
    let images = first_stage.decode(&mut tape, &states)?;
    drop(states);
    tape.clamp_finite(&images, -1.0, 1.0)?.into_tensor()
}
