//! Training: configuration, loss, optimizer, checkpoints, and the loop.
mod adversary;
mod batch;
pub mod checkpoint;
mod clean;
pub mod config;
mod gpu;
mod init;
pub mod log;
pub mod loss;
pub mod optimizer;
mod own;
mod perceptual;
pub mod recipes;
pub mod run;
pub mod sections;
pub mod settings;
mod sheet;
pub mod validate;
