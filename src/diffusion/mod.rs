//! Diffusion for super-resolution: noise schedules, processes, and the samplers that reverse them.
pub mod latent;
pub mod pixel_noise;
pub mod process;
pub mod rolling;
pub mod sampler;
pub mod schedule;
pub mod system;
pub mod walk;
