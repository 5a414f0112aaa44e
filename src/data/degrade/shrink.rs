//! Low-resolution images by one filter.
use serde::{Deserialize, Serialize};

use super::super::folder::Rgb8;
use crate::error::Result;
use crate::imaging::resample;
use crate::imaging::resample::{Filter, Shape};

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
