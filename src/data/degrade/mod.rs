//! How a low-resolution image is made of a high-resolution one, and y0 of a low-resolution one.
//!
//! Without `[degrade]` by one filter, [`Degrade`]; with it by [`Process`], which draws what it does to
//! each sample from the seed, the step and the sample's number:
//!
//! ```text
//! stage 1   blur, resize, noise, JPEG                      relative to the high resolution
//! stage 2   blur, resize, noise                            relative to the low resolution
//! end       [resize to the low resolution, sinc], JPEG     in one order or the other
//! ```
mod config;
mod context;
mod drawn;
mod draws;
mod enlarge;
mod kernels;
mod noise;
mod planes;
mod presets;
mod process;
mod shrink;

pub use config::DegradeConfig;
pub use config::Preset;
pub use context::Context;
pub use drawn::Drawn;
pub use drawn::Jpeg;
pub use drawn::Stage;
pub use draws::Draws;
pub use enlarge::{enlarge, to_signed};
pub use kernels::Blur;
pub use kernels::Kernel;
pub use kernels::KernelKind;
pub use noise::Noise;
pub use noise::NoiseKind;
pub use planes::Mode;
pub use planes::Planes;
pub use process::Damage;
pub use process::Degraded;
pub use process::LossyFile;
pub use process::Process;
pub use shrink::{Degrade, shrink};
