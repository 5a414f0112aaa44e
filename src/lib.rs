//! Super-resolution with diffusion models on an engine of its own.
//!
//! ```text
//! upscale    file -> Image -> tiles -> Tensor -> sampler(model, process) -> Tensor -> Image -> file
//! train      folder -> Image pairs -> batch -> tape(model, process, loss) -> gradients -> checkpoint
//! ```
//!
//! Modules stand in the order of their dependencies: each uses only those above it.
pub mod error;

pub mod engine;
pub mod ops;

pub mod nn;

pub mod models;

pub mod diffusion;

pub mod imaging;

pub mod upscale;

pub mod evaluate;

pub mod data;
pub mod training;

pub mod generative;

pub mod cli;
