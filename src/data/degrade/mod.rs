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
mod kernels;
mod noise;
mod planes;
mod presets;
mod process;

use serde::{Deserialize, Serialize};

pub use config::{DegradeConfig, Preset};
pub use context::Context;
pub use drawn::{Drawn, Jpeg, Stage};
pub use draws::Draws;
pub use kernels::{Blur, Kernel, KernelKind};
pub use noise::{Noise, NoiseKind};
pub use planes::{Mode, Planes};
pub use process::{Damage, Degraded, LossyFile, Process};

use super::folder::Rgb8;
use crate::diffusion::process::Enlarge;
use crate::error::Result;
use crate::imaging::Rect;
use crate::imaging::resample::{self, Filter, Shape};

/// How low-resolution images are made. Results are 8-bit, as files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Degrade {
    /// MATLAB's antialiased bicubic: what papers measure on.
    #[default]
    MatlabBicubic,
    /// Pillow's antialiased bicubic, as version 13 makes it.
    PillowBicubic,
    /// The same as versions up to 12 make it.
    #[serde(rename = "pillow-12-bicubic")]
    Pillow12Bicubic,
    /// Pillow's antialiased bilinear, as version 13 makes it.
    Bilinear,
    /// The same as versions up to 12 make it.
    #[serde(rename = "pillow-12-bilinear")]
    Pillow12Bilinear,
}

/// `high` at `1 / scale` of its size; its sides must be multiples of `scale`.
pub fn shrink(high: &Rgb8, method: Degrade, scale: usize) -> Result<Rgb8> {
    let from = Shape::new(high.height, high.width, 3);
    let (height, width) = (high.height / scale, high.width / scale);
    let pillow = |filter| resample::pillow(&high.pixels, from, height, width, filter);
    let pixels = match method {
        Degrade::MatlabBicubic => resample::matlab_8bit(&high.pixels, from, 1.0 / scale as f64)?.0,
        Degrade::PillowBicubic => pillow(Filter::Bicubic)?,
        Degrade::Pillow12Bicubic => pillow(Filter::Bicubic12)?,
        Degrade::Bilinear => pillow(Filter::Bilinear)?,
        Degrade::Pillow12Bilinear => pillow(Filter::Bilinear12)?,
    };
    Ok(Rgb8 { width, height, pixels })
}

/// The part `wanted` (in enlarged pixels) of `low` enlarged `scale` times, `[H, W, 3]` in `[-1, 1]`
/// (a cubic overshoots; what it overshoots is kept).
pub fn enlarge(low: &Rgb8, method: Enlarge, scale: usize, wanted: Rect) -> Result<Vec<f32>> {
    let size = (low.width, low.height);
    let held = resample::bicubic_footprint(wanted, size, scale);
    let part = low.cut(held.x, held.y, held.width, held.height);
    match method {
        Enlarge::Bicubic => {
            resample::bicubic_up(&to_signed(&part.pixels), held, size, 3, scale, wanted)
        }
        Enlarge::TorchBicubic => {
            resample::torch_bicubic_up(&to_signed(&part.pixels), held, size, 3, scale, wanted)
        }
        Enlarge::Bilinear => {
            resample::bilinear_up(&to_signed(&part.pixels), held, size, 3, scale, wanted)
        }
        Enlarge::Pillow => {
            let from = Shape::new(held.height, held.width, 3);
            let (height, width) = (held.height * scale, held.width * scale);
            let pixels = resample::pillow(&part.pixels, from, height, width, Filter::Bicubic)?;
            let all = Rgb8 { width, height, pixels };
            let (x, y) = (wanted.x - held.x * scale, wanted.y - held.y * scale);
            Ok(to_signed(&all.cut(x, y, wanted.width, wanted.height).pixels))
        }
    }
}

/// From `0..=255` to `[-1, 1]`.
pub fn to_signed(pixels: &[u8]) -> Vec<f32> {
    pixels.iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect()
}
