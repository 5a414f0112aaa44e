//! Checkpoints of the original implementations, turned into weights files of srk.
//!
//! ```text
//! file -> archive (zip, legacy or safetensors) -> tree of values (pickle executes nothing)
//!      -> state dict -> which network, by names and shapes (detect) -> recipe of its process -> weights file
//! ```
mod archive;
mod checkpoint;
pub mod detect;
pub mod features;
mod folding;
mod foreign;
mod frozen;
pub mod hub;
mod imported;
pub mod listing;
mod mat;
mod mistaken;
mod naming;
pub mod ncnn;
mod numpy;
pub mod open;
mod pickle;
mod schedule;
mod shifts;
mod state_dict;
mod storage;
mod tree;
mod zip;

use checkpoint::refuse;
pub use checkpoint::{first, import, tensors};
use imported::overridden;
pub use imported::{Array, Imported, Request};
