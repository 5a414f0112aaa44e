//! Blur kernels of "Real-ESRGAN" (Wang et al. 2021, section 3.1): Gaussians and their relatives, and the sinc
//! filter that makes ringing.
//!
//! With `q = x^T S^-1 x`, `S = R diag(sigma_x^2, sigma_y^2) R^T`, `R` the turn by `angle` from the x axis
//! (columns) to the y axis (rows, downwards), up to a factor that makes the sum 1:
//!
//! ```text
//! gaussian     exp(-q / 2)
//! generalized  exp(-q^beta / 2)
//! plateau      1 / (1 + q^beta)
//! sinc         c J1(c r) / (2 pi r),  c^2 / (4 pi) at r = 0;  c the cut-off in radians a pixel
//! ```
//! Kernels have odd sides and are symmetric about their middle, so they move nothing.
use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// Kinds of kernels, by the names that Real-ESRGAN's options have; `iso` ones are round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelKind {
    /// A round Gaussian.
    Iso,
    /// A Gaussian with two widths.
    Aniso,
    /// A round Gaussian with another exponent.
    GeneralizedIso,
    /// The same with two widths.
    GeneralizedAniso,
    /// A round plateau.
    PlateauIso,
    /// The same with two widths.
    PlateauAniso,
    /// A low-pass filter with a sharp cut-off.
    Sinc,
}

/// The parameters of a blur.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Blur {
    /// Its kind.
    pub kind: KernelKind,
    /// Side in pixels, odd.
    pub size: usize,
    /// Width along the first axis in pixels (0 for sinc).
    pub sigma_x: f64,
    /// Width along the second axis.
    pub sigma_y: f64,
    /// From the x axis to the first, in radians.
    pub angle: f64,
    /// The exponent (1 for Gaussians).
    pub beta: f64,
    /// The cut-off of a sinc in radians a pixel (0 for others).
    pub cutoff: f64,
}

/// The weights of a blur, which sum to 1.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Side in pixels, odd.
    pub size: usize,
    /// `[size, size]`, or `[size]` where rows and columns may be filtered one after the other.
    pub weights: Vec<f32>,
    /// The mean of its second moments along x and along y, in pixels squared.
    pub variance: f64,
}

/// Outer rings that together weigh less are left out: on 255 levels, a 50th of one.
const NEGLIGIBLE: f64 = 1e-4;

impl Blur {
    /// The low-pass filter of `size` pixels with a cut-off in radians a pixel.
    pub const fn sinc(size: usize, cutoff: f64) -> Self {
        let kind = KernelKind::Sinc;
        Self { kind, size, sigma_x: 0.0, sigma_y: 0.0, angle: 0.0, beta: 1.0, cutoff }
    }

    /// Its weights.
    pub fn kernel(&self) -> Kernel {
        let radius = self.size / 2;
        let offset = |i: usize| i as f64 - radius as f64;
        let line = 2 * radius + 1;
        if self.kind == KernelKind::Iso {
            let weights = normalised((0..line).map(|i| self.at(offset(i), 0.0)).collect());
            let weights = trimmed_line(weights);
            let variance = second_moment(&weights);
            return Kernel { size: weights.len(), weights: narrow(&weights), variance };
        }
        let at = |i: usize| self.at(offset(i % line), offset(i / line));
        let weights = trimmed(normalised((0..line * line).map(at).collect()), line);
        let size = weights.len().isqrt();
        let variance = match self.kind {
            // The Gaussian whose response has fallen to a half at the cut-off: a sinc's own second
            // moment is a matter of where it is cut off.
            KernelKind::Sinc => 2.0 * std::f64::consts::LN_2 / self.cutoff.powi(2),
            _ => mean_second_moment(&weights, size),
        };
        Kernel { size, weights: narrow(&weights), variance }
    }

    /// The density at `(x, y)` pixels from the middle, up to a factor.
    fn at(&self, x: f64, y: f64) -> f64 {
        let (sin, cos) = self.angle.sin_cos();
        let (u, v) = ((cos * x + sin * y) / self.sigma_x, (cos * y - sin * x) / self.sigma_y);
        let q = u * u + v * v;
        match self.kind {
            KernelKind::Iso | KernelKind::Aniso => (-0.5 * q).exp(),
            KernelKind::GeneralizedIso | KernelKind::GeneralizedAniso => {
                (-0.5 * q.powf(self.beta)).exp()
            }
            KernelKind::PlateauIso | KernelKind::PlateauAniso => 1.0 / (1.0 + q.powf(self.beta)),
            KernelKind::Sinc => low_pass(self.cutoff, x.hypot(y)),
        }
    }
}

/// The impulse response of the ideal low-pass filter of the plane, at distance `r`.
fn low_pass(cutoff: f64, r: f64) -> f64 {
    match r {
        0.0 => cutoff * cutoff / (4.0 * PI),
        r => cutoff * libm::j1(cutoff * r) / (2.0 * PI * r),
    }
}

fn normalised(mut weights: Vec<f64>) -> Vec<f64> {
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

/// Without the outer ends that weigh next to nothing.
fn trimmed_line(weights: Vec<f64>) -> Vec<f64> {
    let (mut cut, mut lost) = (0, 0.0);
    while 2 * cut + 1 < weights.len() {
        lost += 2.0 * weights[cut].abs();
        if lost > NEGLIGIBLE {
            break;
        }
        cut += 1;
    }
    normalised(weights[cut..weights.len() - cut].to_vec())
}

/// Without the outer rings that weigh next to nothing.
fn trimmed(weights: Vec<f64>, side: usize) -> Vec<f64> {
    let (mut cut, mut lost) = (0, 0.0);
    while 2 * cut + 1 < side {
        let on_ring = |i: usize| {
            let (x, y) = (i % side, i / side);
            x.min(y).min(side - 1 - x).min(side - 1 - y) == cut
        };
        let ring = weights.iter().enumerate().filter(|&(i, _)| on_ring(i));
        lost += ring.map(|(_, w)| w.abs()).sum::<f64>();
        if lost > NEGLIGIBLE {
            break;
        }
        cut += 1;
    }
    let kept = cut..side - cut;
    normalised(kept.clone().flat_map(|y| &weights[y * side..][kept.clone()]).copied().collect())
}

fn second_moment(line: &[f64]) -> f64 {
    let middle = (line.len() / 2) as f64;
    line.iter().enumerate().map(|(i, w)| w * (i as f64 - middle).powi(2)).sum()
}

fn mean_second_moment(weights: &[f64], side: usize) -> f64 {
    let middle = (side / 2) as f64;
    let square =
        |i: usize| ((i % side) as f64 - middle).powi(2) + ((i / side) as f64 - middle).powi(2);
    weights.iter().enumerate().map(|(i, w)| w * square(i)).sum::<f64>() / 2.0
}

#[allow(clippy::cast_possible_truncation)] // Weights are stored in f32.
fn narrow(weights: &[f64]) -> Vec<f32> {
    weights.iter().map(|&w| w as f32).collect()
}
