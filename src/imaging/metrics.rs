//! PSNR and SSIM in the conventions of the papers; every sum in f64.
//!
//! ```text
//! PSNR     20 log10(255 / sqrt(mse)); infinite for equal images
//! SSIM     mean of (2 ma mb + C1)(2 cab + C2) / ((ma^2 + mb^2 + C1)(caa + cbb + C2)),
//!          C1 = (0.01 L)^2, C2 = (0.03 L)^2, mean over the windows, then over the channels
//!   G11    Gaussian 11 x 11, sigma 1.5, windows wholly inside, population covariance
//! values   RGB in 0..255 · Y float · Y rounded (see `color`); gray images are measured directly
//! border   pixels removed on each side first; 4x papers remove 4
//! ```
//! 16-bit images are measured on the scale of 0..255 without rounding.
use super::{Color, Image, color};
use crate::engine::threads::map;
use crate::error::{Error, Result};

/// What of the images is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// R, G and B (or the one gray channel), 0..255.
    Rgb,
    /// Y in 16..235, not rounded (BasicSR).
    YFloat,
    /// Y rounded to a whole number (ResShift).
    YRounded,
    /// Y in 0..255, not rounded (pyiqa's default).
    YFull,
}

/// PSNR in dB over all RGB values after removing `border` pixels on each side.
pub fn psnr_rgb(a: &Image, b: &Image, border: usize) -> Result<f64> {
    psnr(a, b, Channels::Rgb, border)
}

/// PSNR in dB of Y, not rounded: the convention of BasicSR and most tables.
pub fn psnr_y_float(a: &Image, b: &Image, border: usize) -> Result<f64> {
    psnr(a, b, Channels::YFloat, border)
}

/// The side of the window of SSIM-G11: images are at least as large.
pub const SSIM_WINDOW: usize = 11;

/// SSIM-G11, mean over the RGB channels.
pub fn ssim_rgb(a: &Image, b: &Image, border: usize) -> Result<f64> {
    ssim(a, b, Channels::Rgb, border)
}

/// SSIM-G11 of Y, not rounded.
pub fn ssim_y_float(a: &Image, b: &Image, border: usize) -> Result<f64> {
    ssim(a, b, Channels::YFloat, border)
}

/// PSNR in dB of the chosen channels.
pub fn psnr(a: &Image, b: &Image, channels: Channels, border: usize) -> Result<f64> {
    let (a, b) = pair(a, b, channels, border)?;
    let mut sum = 0.0;
    for (a, b) in a.planes.iter().zip(&b.planes) {
        sum += a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
    }
    let mse = sum / count(a.width * a.height * a.planes.len());
    Ok(20.0 * (255.0 / mse.sqrt()).log10())
}

/// SSIM-G11 of the chosen channels, L = 255.
pub fn ssim(a: &Image, b: &Image, channels: Channels, border: usize) -> Result<f64> {
    let (a, b) = pair(a, b, channels, border)?;
    mean_ssim(&a, &b, &Window::gaussian(SSIM_WINDOW, 1.5), 255.0)
}

/// Y of a whole picture, 16..235 and not rounded, or a gray picture as it is; its width and height.
pub(super) fn luma(image: &Image) -> Result<(Vec<f64>, usize, usize)> {
    image.validate()?;
    let mut planes = Planes::new(image, Channels::YFloat, 0)?;
    Ok((planes.planes.swap_remove(0), planes.width, planes.height))
}

/// Planes `[H, W]` on the scale of 0..255.
#[derive(Debug, Clone)]
struct Planes {
    width: usize,
    height: usize,
    planes: Vec<Vec<f64>>,
}

impl Planes {
    fn new(image: &Image, channels: Channels, border: usize) -> Result<Self> {
        let width = image.width.saturating_sub(border.saturating_mul(2));
        let height = image.height.saturating_sub(border.saturating_mul(2));
        if width == 0 || height == 0 {
            return Err(Error::shape(
                "metrics",
                format!("an image wider and higher than twice the border of {border}"),
                &[image.height, image.width],
            ));
        }
        let value = |i: usize| match &image.samples {
            super::Samples::U8(v) => f64::from(v[i]),
            super::Samples::U16(v) => f64::from(v[i]) / 257.0,
        };
        let pixels = (border..border + height)
            .flat_map(|y| (border..border + width).map(move |x| y * image.width + x));
        let planes = match (image.color, channels) {
            (Color::Gray, _) => vec![pixels.map(value).collect()],
            (Color::Rgb, Channels::Rgb) => {
                (0..3).map(|c| pixels.clone().map(|p| value(3 * p + c)).collect()).collect()
            }
            (Color::Rgb, Channels::YFloat | Channels::YRounded | Channels::YFull) => {
                let y = match channels {
                    Channels::YRounded => color::y_rounded,
                    Channels::YFull => color::y_full,
                    _ => color::y_float,
                };
                let y = |p: usize| y(value(3 * p), value(3 * p + 1), value(3 * p + 2));
                vec![pixels.map(y).collect()]
            }
        };
        Ok(Self { width, height, planes })
    }
}

fn pair(a: &Image, b: &Image, channels: Channels, border: usize) -> Result<(Planes, Planes)> {
    a.validate()?;
    b.validate()?;
    if (a.width, a.height, a.color) != (b.width, b.height, b.color) {
        return Err(Error::shape(
            "metrics",
            format!("two images of {} with {} channels", a.size_text(), a.channels()),
            &[b.height, b.width, b.channels()],
        ));
    }
    Ok((Planes::new(a, channels, border)?, Planes::new(b, channels, border)?))
}

/// A separable window: the weights of one side, which sum to 1.
struct Window {
    weights: Vec<f64>,
}

impl Window {
    fn gaussian(size: usize, sigma: f64) -> Self {
        let middle = count(size / 2);
        let bell = |i| (-(count(i) - middle).powi(2) / (2.0 * sigma * sigma)).exp();
        let sum: f64 = (0..size).map(bell).sum();
        Self { weights: (0..size).map(|i| bell(i) / sum).collect() }
    }

    /// The weighted mean of every window wholly inside `[height, width]`.
    fn means(&self, plane: &[f64], width: usize, height: usize) -> Vec<f64> {
        let size = self.weights.len();
        let (out_width, out_height) = (width + 1 - size, height + 1 - size);
        let mut out = Vec::with_capacity(out_width * out_height);
        let mut column = vec![0.0; width];
        for y in 0..out_height {
            column.fill(0.0);
            for (k, w) in self.weights.iter().enumerate() {
                let row = &plane[(y + k) * width..][..width];
                for (sum, v) in column.iter_mut().zip(row) {
                    *sum += w * v;
                }
            }
            let start = out.len();
            out.resize(start + out_width, 0.0);
            for (k, w) in self.weights.iter().enumerate() {
                for (sum, v) in out[start..].iter_mut().zip(&column[k..]) {
                    *sum += w * v;
                }
            }
        }
        out
    }
}

fn mean_ssim(a: &Planes, b: &Planes, window: &Window, range: f64) -> Result<f64> {
    let size = window.weights.len();
    if a.width < size || a.height < size {
        return Err(Error::shape(
            "ssim",
            format!("at least {size} pixels a side after the border"),
            &[a.height, a.width],
        ));
    }
    let of = |i: usize| ssim_plane(&a.planes[i], &b.planes[i], a.width, a.height, window, range);
    let values = map(a.planes.len().min(b.planes.len()), of);
    Ok(values.iter().sum::<f64>() / count(values.len()))
}

fn ssim_plane(
    a: &[f64],
    b: &[f64],
    width: usize,
    height: usize,
    window: &Window,
    range: f64,
) -> f64 {
    let product = |x: &[f64], y: &[f64]| -> Vec<f64> {
        let xy: Vec<f64> = x.iter().zip(y).map(|(x, y)| x * y).collect();
        window.means(&xy, width, height)
    };
    let (mean_a, mean_b) = (window.means(a, width, height), window.means(b, width, height));
    let (aa, bb, ab) = (product(a, a), product(b, b), product(a, b));
    let (c1, c2) = ((0.01 * range).powi(2), (0.03 * range).powi(2));
    let mut sum = 0.0;
    for i in 0..mean_a.len() {
        let (ma, mb) = (mean_a[i], mean_b[i]);
        let variances = aa[i] - ma * ma + bb[i] - mb * mb;
        let covariance = ab[i] - ma * mb;
        sum += (2.0 * ma * mb + c1) * (2.0 * covariance + c2)
            / ((ma * ma + mb * mb + c1) * (variances + c2));
    }
    sum / count(mean_a.len())
}

#[expect(clippy::cast_precision_loss, reason = "pixel counts are far below 2^53")]
fn count(n: usize) -> f64 {
    n as f64
}
