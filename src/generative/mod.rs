//! Small systems that draw digits from noise, for teaching: GANs, a VAE and a DDPM, trained on MNIST with the
//! same configuration, log and checkpoints as the models of super-resolution.
pub mod config;
mod ddpm;
mod digits;
mod gan;
pub mod grid;
pub mod registry;
pub mod run;
pub mod system;
mod vae;
