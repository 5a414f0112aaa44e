//! Damages a high-resolution image into a low-resolution one.
use serde::{Deserialize, Serialize};

use super::config::DegradeConfig;
use super::drawn::{Drawn, Jpeg, Stage};
use super::draws::Draws;
use super::kernels::{Blur, Kernel, KernelKind};
use super::planes::{Mode, Planes};
use super::{Degrade, shrink};
use crate::data::folder::Rgb8;
use crate::error::Result;
use crate::imaging::lossy::{self, Chroma};
use crate::imaging::{Color, Image, deblock};

/// How much a low-resolution image is damaged, in numbers that a network can be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Damage {
    /// The quality of the last JPEG compression, 1..=100; none if there was none, or a WebP came last.
    pub jpeg_quality: Option<f32>,
    /// The root mean square, in levels of 0..=255, of the noise that was added (to green), after all
    /// filters that followed it, as if nothing had been clamped or compressed.
    pub noise_sigma: f32,
    /// The root mean square width of all filters together, in low-resolution pixels: the second
    /// moments of blurs and resizings (mean of both axes) add up. A sinc counts as the Gaussian whose
    /// response is a half at its cut-off. 0 for a clean image, and where negative lobes prevail.
    pub blur_sigma: f32,
}

/// A damaged sample.
#[derive(Clone, Debug)]
pub struct Degraded {
    /// The truth, sharpened if so configured.
    pub high: Rgb8,
    /// At `1 / scale` of its size.
    pub low: Rgb8,
    /// What was done.
    pub drawn: Drawn,
    /// In numbers.
    pub damage: Damage,
    /// The file whose pixels `low` are, where compression came last.
    pub file: Option<LossyFile>,
}

/// A compressed picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LossyFile {
    /// How its name ends: `jpg` or `webp`.
    pub extension: &'static str,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The damage of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    config: DegradeConfig,
    clean: Degrade,
    scale: usize,
}

impl Process {
    /// The process of `config` for a factor of `scale`; `clean` makes what is left clean.
    pub fn new(config: DegradeConfig, clean: Degrade, scale: usize) -> Self {
        Self { config, clean, scale }
    }

    /// Whether no sample is ever damaged or sharpened.
    pub fn is_clean(&self) -> bool {
        self.config.clean_prob >= 1.0 && !self.config.usm
    }

    /// `low`, to which `damage` was done, as the network is to see it.
    ///
    /// # Errors
    /// If the lengths in `low` do not fit together.
    pub fn seen(&self, low: Rgb8, damage: &Damage) -> Result<Rgb8> {
        let Some(quality) = damage.jpeg_quality.filter(|_| self.config.deblock > 0.0) else {
            return Ok(low);
        };
        let Rgb8 { width, height, pixels } = low;
        let image = Image::from_u8(width, height, Color::Rgb, pixels)?;
        #[allow(clippy::cast_possible_truncation)] // A share.
        let seen = deblock::deblocked(&image, image.rect(), quality, self.config.deblock as f32)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Values are in [0, 1].
        let pixels = seen.iter().map(|v| (255.0 * v + 0.5) as u8).collect();
        Ok(Rgb8 { width, height, pixels })
    }

    /// Damages `high`, whose sides are multiples of the scale, by the `draws` of its own.
    pub fn apply(&self, high: Rgb8, mut draws: Draws) -> Result<Degraded> {
        let drawn = self.config.draw(&mut draws);
        let high = if self.config.usm { sharpened(&high) } else { high };
        if drawn.clean {
            let low = shrink(&high, self.clean, self.scale)?;
            return Ok(Degraded { high, low, drawn, damage: Damage::default(), file: None });
        }
        let (low, damage, file) = self.damaged(&high, &drawn, &draws)?;
        Ok(Degraded { high, low, drawn, damage, file })
    }

    fn damaged(
        &self,
        high: &Rgb8,
        drawn: &Drawn,
        draws: &Draws,
    ) -> Result<(Rgb8, Damage, Option<LossyFile>)> {
        let size = (high.width / self.scale, high.height / self.scale);
        let mut state = State::of(high, self.config.antialias);
        let of_high = (high.width as f64, high.height as f64);
        state.stage(&drawn.first, of_high, draws, 1)?;
        state.stage(&drawn.second, (size.0 as f64, size.1 as f64), draws, 2)?;
        let mut file = None;
        if drawn.jpeg_last {
            state.finish(size, drawn.mode, drawn.sinc);
            file = state.last_compressions(drawn)?;
        } else {
            state.last_compressions(drawn)?;
            state.finish(size, drawn.mode, drawn.sinc);
        }
        Ok((state.image.to_rgb(), state.damage(drawn, self.scale), file))
    }
}

/// An image on its way.
struct State {
    /// Three channels, and the noise in the second where there is any.
    image: Planes,
    antialias: bool,
    /// Pixels of the original in one of these.
    pitch: f64,
    width: usize,
    /// The second moment of all filters, in pixels of the original, squared.
    variance: f64,
}

impl State {
    fn of(high: &Rgb8, antialias: bool) -> Self {
        let image = Planes::of(high);
        Self { image, antialias, pitch: 1.0, width: high.width, variance: 0.0 }
    }

    /// Applies a stage; its resizing is relative to `unit`.
    fn stage(&mut self, stage: &Stage, unit: (f64, f64), draws: &Draws, number: u32) -> Result<()> {
        if let Some(blur) = stage.blur {
            self.blur(&blur.kernel());
        }
        if let Some((factor, mode)) = stage.resize {
            self.resize((side(unit.0 * factor), side(unit.1 * factor)), mode);
        }
        if let Some(noise) = stage.noise {
            noise.add(&mut self.image, draws, number);
        }
        match stage.jpeg {
            Some(jpeg) => self.jpeg(jpeg).map(drop),
            None => Ok(()),
        }
    }

    fn blur(&mut self, kernel: &Kernel) {
        self.image.blur(kernel);
        self.variance += kernel.variance * self.pitch.powi(2);
    }

    fn resize(&mut self, size: (usize, usize), mode: Mode) {
        if size == (self.image.width, self.image.height) {
            return;
        }
        let (image, variance) = self.image.resized(size, mode, self.antialias);
        self.variance += variance * self.pitch.powi(2);
        self.image = image;
        self.pitch = self.width as f64 / size.0 as f64;
    }

    /// The last resizing and sinc filter.
    fn finish(&mut self, size: (usize, usize), mode: Mode, sinc: Option<Blur>) {
        self.resize(size, mode);
        if let Some(sinc) = sinc {
            self.blur(&sinc.kernel());
        }
    }

    /// The compressions at the end; the file of the last one.
    fn last_compressions(&mut self, drawn: &Drawn) -> Result<Option<LossyFile>> {
        if let Some((left, top, jpeg)) = drawn.shifted {
            let (width, height) = (self.image.width, self.image.height);
            self.image = self.image.padded(left, top);
            self.jpeg(jpeg)?;
            self.image = self.image.cut(left, top, width, height);
        }
        if let Some(quality) = drawn.webp {
            let Rgb8 { width, height, pixels } = self.image.to_rgb();
            return self.becomes("webp", lossy::webp(&pixels, width, height, quality)?).map(Some);
        }
        drawn.jpeg.map(|jpeg| self.jpeg(jpeg)).transpose()
    }

    /// Makes the image what a JPEG leaves of it.
    fn jpeg(&mut self, Jpeg { quality, halved }: Jpeg) -> Result<LossyFile> {
        let Rgb8 { width, height, pixels } = self.image.to_rgb();
        let chroma = if halved { Chroma::Halved } else { Chroma::Full };
        self.becomes("jpg", lossy::jpeg(&pixels, width, height, quality, chroma)?)
    }

    /// Makes the image what the file holds.
    fn becomes(&mut self, extension: &'static str, bytes: Vec<u8>) -> Result<LossyFile> {
        let (width, height) = (self.image.width, self.image.height);
        let pixels = lossy::pixels(&bytes)?;
        self.image.set_rgb(&Rgb8 { width, height, pixels });
        Ok(LossyFile { extension, bytes })
    }

    #[allow(clippy::cast_possible_truncation)] // Estimates.
    fn damage(&self, drawn: &Drawn, scale: usize) -> Damage {
        let jpeg = match drawn.webp {
            Some(_) => None,
            None => drawn.jpeg.or(drawn.first.jpeg),
        };
        let jpeg_quality = jpeg.map(|jpeg| f32::from(jpeg.quality));
        let square = |noise: &Vec<f32>| {
            noise.iter().map(|&n| f64::from(n).powi(2)).sum::<f64>() / noise.len() as f64
        };
        let noise_sigma = self.image.planes.get(3).map_or(0.0, square).sqrt() as f32;
        let blur_sigma = (self.variance.max(0.0).sqrt() / scale as f64) as f32;
        Damage { jpeg_quality, noise_sigma, blur_sigma }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Far below 2^53.
fn side(v: f64) -> usize {
    (v.round() as usize).max(1)
}

/// Unsharp masking as Real-ESRGAN does it to its truths: where the image differs from a wide blur
/// (51 pixels, sigma 8) by more than 10 levels, half of the difference is added; where, is blurred too.
fn sharpened(image: &Rgb8) -> Rgb8 {
    let mut out = Planes::of(image);
    let (sigma_x, sigma_y, kind) = (8.0, 8.0, KernelKind::Iso);
    let wide = Blur { kind, size: 51, sigma_x, sigma_y, angle: 0.0, beta: 1.0, cutoff: 0.0 };
    let wide = wide.kernel();
    let mut blurred = out.clone();
    blurred.blur(&wide);
    let mut mask = out.clone();
    for (mask, (image, blurred)) in
        mask.planes.iter_mut().zip(out.planes.iter().zip(&blurred.planes))
    {
        let differs = |(v, b): (&f32, &f32)| if (v - b).abs() > 10.0 { 1.0 } else { 0.0 };
        *mask = image.iter().zip(blurred).map(differs).collect();
    }
    mask.blur(&wide);
    let planes = out.planes.iter_mut().zip(blurred.planes.iter().zip(&mask.planes));
    for (image, (blurred, mask)) in planes {
        for (v, (b, m)) in image.iter_mut().zip(blurred.iter().zip(mask)) {
            let sharp = (*v + 0.5 * (*v - b)).clamp(0.0, 255.0);
            *v += m * (sharp - *v);
        }
    }
    out.to_rgb()
}
