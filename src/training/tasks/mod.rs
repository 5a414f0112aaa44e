//! What is trained: networks for super-resolution, and systems that draw digits, to learn from.
mod adversarial;
mod clean;
mod crops;
pub mod ddpm;
pub mod digits;
mod draws;
mod game;
pub mod gan;
pub mod grid;
mod lesson;
pub mod loss;
mod names;
mod own;
mod perceptual;
mod super_resolution;
pub mod teaching;
pub mod vae;

pub use draws::Draws;
pub(super) use draws::{Source, Teaching};
pub(super) use lesson::Lesson;
pub(super) use super_resolution::SuperResolution;
