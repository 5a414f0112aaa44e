//! Small networks that draw digits: those of the teaching notebooks on generative models, under the names of
//! their state dicts. Images are `[N, H, W, 1]`.
pub mod dcgan;
pub mod ddpm;
pub mod gan;
mod generator;
pub mod vae;

pub use generator::{Generator, SIDE};
