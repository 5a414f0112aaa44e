//! What is done to one sample, drawn before anything is done.
use std::f64::consts::PI;

use serde::Serialize;

use super::config::{DegradeConfig, Stage as Config};
use super::draws::Draws;
use super::kernels::{Blur, KernelKind};
use super::noise::{Noise, NoiseKind};
use super::planes::Mode;

/// All that is done to a sample.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drawn {
    /// Whether nothing is: all else is empty then.
    pub clean: bool,
    /// Stage 1; its resizing is relative to the high-resolution image.
    pub first: Stage,
    /// Stage 2; its resizing is relative to the low-resolution one. It compresses nothing.
    pub second: Stage,
    /// How the size of the result is reached, if it is not there yet.
    pub mode: Mode,
    /// The last sinc filter.
    pub sinc: Option<Blur>,
    /// Whether compression comes after these two.
    pub jpeg_last: bool,
    /// A JPEG before the last one, whose blocks start this many columns and rows further left and up.
    pub shifted: Option<(usize, usize, Jpeg)>,
    /// The last compression, if it is a JPEG.
    pub jpeg: Option<Jpeg>,
    /// The quality of the last compression, 1..=100, if it is a WebP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webp: Option<u8>,
}

/// What a stage does, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stage {
    /// First.
    pub blur: Option<Blur>,
    /// The factor of the sides and the filter.
    pub resize: Option<(f64, Mode)>,
    /// Then.
    pub noise: Option<Noise>,
    /// Last.
    pub jpeg: Option<Jpeg>,
}

/// A compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Jpeg {
    /// 1..=100, as libjpeg has it.
    pub quality: u8,
    /// Whether colours are halved in each direction.
    pub halved: bool,
}

impl DegradeConfig {
    /// Draws what is done to a sample.
    pub fn draw(&self, draws: &mut Draws) -> Drawn {
        let mut drawn = Drawn {
            clean: draws.chance(self.clean_prob),
            first: Stage::default(),
            second: Stage::default(),
            mode: Mode::Bicubic,
            sinc: None,
            jpeg_last: true,
            shifted: None,
            jpeg: None,
            webp: None,
        };
        if drawn.clean {
            return drawn;
        }
        let (first, second) = (self.first(), self.second());
        drawn.first = first.draw(draws);
        drawn.first.jpeg = self.jpeg(draws, first.jpeg_prob, first.jpeg_range);
        if draws.chance(self.second_order_prob) {
            drawn.second = second.draw(draws);
        }
        drawn.mode = second.mode(draws);
        drawn.sinc = draws.chance(self.final_sinc_prob).then(|| {
            let size = second.size(draws);
            Blur::sinc(size, draws.between([PI / 3.0, PI]))
        });
        drawn.jpeg_last = draws.chance(self.jpeg_last_prob);
        drawn.jpeg = self.jpeg(draws, second.jpeg_prob, second.jpeg_range);
        // Draws nothing where there are none, so that older configurations keep their samples.
        if drawn.jpeg.is_some() && self.webp_prob > 0.0 && draws.chance(self.webp_prob) {
            drawn.jpeg = None;
            drawn.webp = Some(quality(draws, self.webp_range));
        }
        if drawn.jpeg.is_some() && draws.chance(self.double_jpeg_prob) {
            // Not by 0 in both directions: that would be the same blocks.
            let shift = 1 + draws.below(63);
            let before = self.jpeg(draws, 1.0, second.jpeg_range);
            drawn.shifted = before.map(|jpeg| (shift % 8, shift / 8, jpeg));
        }
        drawn
    }

    fn jpeg(&self, draws: &mut Draws, probability: f64, range: [f64; 2]) -> Option<Jpeg> {
        if !draws.chance(probability) {
            return None;
        }
        Some(Jpeg { quality: quality(draws, range), halved: draws.chance(self.subsampling_prob) })
    }
}

impl Config<'_> {
    fn draw(&self, draws: &mut Draws) -> Stage {
        let blur = draws.chance(self.blur_prob).then(|| self.blur(draws));
        let factor = match draws.weighted(&self.resize_prob) {
            0 => draws.between([1.0, self.resize_range[1].max(1.0)]),
            1 => draws.between([self.resize_range[0].min(1.0), 1.0]),
            _ => 1.0,
        };
        let resize = Some((factor, self.mode(draws)));
        let noise = draws.chance(self.noise_prob).then(|| self.noise(draws));
        Stage { blur, resize, noise, jpeg: None }
    }

    fn mode(&self, draws: &mut Draws) -> Mode {
        let at = draws.below(self.resize_modes.len());
        self.resize_modes.get(at).copied().unwrap_or(Mode::Bicubic)
    }

    /// 7, 9, ... up to the largest size.
    fn size(&self, draws: &mut Draws) -> usize {
        7 + 2 * draws.below((self.blur_kernel_size - 7) / 2 + 1)
    }

    fn blur(&self, draws: &mut Draws) -> Blur {
        let size = self.size(draws);
        if draws.chance(self.sinc_prob) {
            // A small kernel cannot show a low cut-off.
            let least = if size < 13 { PI / 3.0 } else { PI / 5.0 };
            return Blur::sinc(size, draws.between([least, PI]));
        }
        let at = draws.weighted(self.kernel_prob);
        let kind = self.kernel_list.get(at).copied().unwrap_or(KernelKind::Iso);
        let sigma_x = draws.between(self.blur_sigma);
        let (sigma_y, angle) = match kind {
            KernelKind::Aniso | KernelKind::GeneralizedAniso | KernelKind::PlateauAniso => {
                (draws.between(self.blur_sigma), draws.between([-PI, PI]))
            }
            _ => (sigma_x, 0.0),
        };
        let beta = match kind {
            KernelKind::GeneralizedIso | KernelKind::GeneralizedAniso => {
                beta(draws, self.betag_range)
            }
            KernelKind::PlateauIso | KernelKind::PlateauAniso => beta(draws, self.betap_range),
            _ => 1.0,
        };
        Blur { kind, size, sigma_x, sigma_y, angle, beta, cutoff: 0.0 }
    }

    fn noise(&self, draws: &mut Draws) -> Noise {
        let (kind, range) = match draws.chance(self.gaussian_noise_prob) {
            true => (NoiseKind::Gaussian, self.noise_range),
            false => (NoiseKind::Poisson, self.poisson_scale_range),
        };
        let amount = draws.between(range);
        Noise { kind, amount, gray: draws.chance(self.gray_noise_prob) }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 1..=100
fn quality(draws: &mut Draws, range: [f64; 2]) -> u8 {
    draws.between(range).round() as u8
}

/// Half of the exponents lie below 1, half above, however wide the two parts of the range.
fn beta(draws: &mut Draws, [from, to]: [f64; 2]) -> f64 {
    match draws.chance(0.5) {
        true => draws.between([from, to.min(1.0).max(from)]),
        false => draws.between([from.max(1.0).min(to), to]),
    }
}
