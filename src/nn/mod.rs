//! Layers: compositions of ops that own their parameters. No kernels, no loops over elements.
pub mod attention;
pub mod discriminator;
pub mod dual_domain;
pub mod gated;
pub mod init;
pub mod layers;
pub mod residual;
pub mod rolling;
pub mod strips;
pub mod swin;
pub mod unet;

pub use gated::GatedBlock;
pub use init::Init;
pub use layers::{BatchNorm, Conv2d, ConvTranspose2d, DepthwiseConv2d, GroupNorm, Linear, Prelu};
