//! What is measured of a set, and how it is said.
use crate::engine::spelling::counted;
use crate::models::perceptual::Kind;
use crate::training::log::short;
use serde_json::Value;
use std::fmt;
use std::time::Duration;

/// PSNR and SSIM of Y, in dB and 0..1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// PSNR of Y in dB.
    pub psnr: f64,
    /// SSIM of Y.
    pub ssim: f64,
}

/// Means over the validation images.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// The model's output.
    pub output: Quality,
    /// Bicubic enlargement.
    pub bicubic: Quality,
    /// The perceptual distances of the model's output, in the order of [`Kind::ALL`]; none where not measured.
    pub distances: [Option<f64>; 3],
    /// NIQE of the model's output; none where not measured.
    pub niqe: Option<f64>,
    pub(super) images: usize,
    pub(super) took: Duration,
}

impl Scores {
    /// The measures under the names of `metrics.jsonl`.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        let mut values = vec![
            ("val_psnr_y", self.output.psnr.into()),
            ("val_ssim_y", self.output.ssim.into()),
            ("val_bicubic_psnr_y", self.bicubic.psnr.into()),
            ("val_bicubic_ssim_y", self.bicubic.ssim.into()),
            ("val_images", self.images.into()),
            ("val_seconds", self.took.as_secs_f64().into()),
        ];
        let names = ["val_lpips_alex", "val_lpips_vgg", "val_dists"];
        let distances = names.into_iter().zip(self.distances);
        values.extend(distances.filter_map(|(name, value)| Some((name, value?.into()))));
        values.extend(self.niqe.map(|value| ("val_niqe", value.into())));
        values
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PSNR-Y {:.3} dB (bicubic {:.3})  SSIM {:.4} ({:.4})",
            self.output.psnr, self.bicubic.psnr, self.output.ssim, self.bicubic.ssim,
        )?;
        for (kind, distance) in Kind::ALL.iter().zip(self.distances) {
            if let Some(distance) = distance {
                write!(f, "  {kind} {distance:.4}")?;
            }
        }
        if let Some(niqe) = self.niqe {
            write!(f, "  niqe {niqe:.3}")?;
        }
        write!(f, "  {} in {}", counted(self.images, "image"), short(self.took))
    }
}
