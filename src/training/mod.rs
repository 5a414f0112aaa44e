//! Training: configuration, loss, optimizer, checkpoints, and the loop.
mod adversary;
mod batch;
pub mod checkpoint;
pub mod config;
mod gpu;
pub mod log;
pub mod loss;
pub mod optimizer;
pub(crate) mod plan;
pub mod recipes;
pub mod run;
pub mod sections;
pub mod settings;
mod sheet;
pub mod validate;
