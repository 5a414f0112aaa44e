//! Layers: compositions of ops that own their parameters. No kernels, no loops over elements.
pub mod dual_domain;
pub mod init;
pub mod layers;

pub use init::Init;
pub use layers::{BatchNorm, Conv2d, ConvTranspose2d, GroupNorm, Linear};
