//! Training: configuration, loss, optimizer, checkpoints, and the loop.
pub mod checkpoint;
pub mod config;
pub mod log;
pub mod loss;
pub mod optimizer;
pub mod recipes;
pub mod run;
pub mod sections;
pub mod validate;
