//! Validation: whole images through the whole chain, measured as papers do.
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::log::{Reporter, short};
use super::sections::Config;
use crate::data::crops::{self, Pair};
use crate::data::degrade;
use crate::data::folder::{self, OnBroken, Rgb8};
use crate::diffusion::sampler::{PixelNoise, condition, sample};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::imaging::color::{luma_of, with_luma};
use crate::imaging::sheet::{Panel, Sheet};
use crate::imaging::{self, Color, EncodeOptions, Image, Rect, metrics};
use crate::models::Network;

/// The number of the signal that asked to stop, 0 while none has.
pub type Stop = Arc<AtomicUsize>;

/// The validation images, with their low-resolution versions.
#[derive(Debug)]
pub struct Validation {
    pairs: Vec<Pair>,
}

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
    images: usize,
    took: Duration,
}

/// The side of a panel of the comparison sheet, in high-resolution pixels.
const PANEL: usize = 320;

/// One validated image: the middle of each version, and the measures of output and bicubic.
struct Shown {
    name: String,
    low: Image,
    bicubic: Image,
    output: Image,
    truth: Image,
    quality: [Quality; 2],
}

impl Validation {
    /// Reads the images; none if the configuration names none.
    pub fn load(config: &Config, reporter: &mut dyn Reporter) -> Result<Option<Self>> {
        let data = &config.data.val;
        if data.paths.is_empty() {
            return Ok(None);
        }
        let files = spread(folder::find(&data.paths)?, config.val.images);
        let warn = &mut |text: &str| reporter.warn(text);
        let pictures = folder::decode_all(&files, OnBroken::Skip, warn)?;
        let pairs = crops::pairs(pictures, data.degrade, config.model.scale(), config.data.pad)?;
        Ok(Some(Self { pairs }))
    }

    /// Runs every image through `network`; none if `stop` was set meanwhile. Writes the comparison
    /// sheet into `folder`.
    pub fn measure(
        &self,
        network: &dyn Network,
        config: &Config,
        folder: &Path,
        stop: &Stop,
    ) -> Result<Option<Scores>> {
        let started = Instant::now();
        let mut sum = [Quality::default(); 2];
        let mut shown = Vec::new();
        for pair in &self.pairs {
            if stop.load(Ordering::Relaxed) != 0 {
                return Ok(None);
            }
            let result = enlarge(network, config, pair)?;
            for (sum, quality) in sum.iter_mut().zip(result.quality) {
                sum.psnr += quality.psnr;
                sum.ssim += quality.ssim;
            }
            if (shown.len() as u64) < config.val.sheet {
                shown.push(result);
            }
        }
        let n = self.pairs.len() as f64;
        let [output, bicubic] = sum.map(|q| Quality { psnr: q.psnr / n, ssim: q.ssim / n });
        if !shown.is_empty() {
            sheet(shown, folder)?;
        }
        Ok(Some(Scores { output, bicubic, images: self.pairs.len(), took: started.elapsed() }))
    }
}

/// `count` of `files`, evenly spread; all if `count` is 0 or more than there are.
fn spread<T>(files: Vec<T>, count: u64) -> Vec<T> {
    let (all, count) = (files.len(), usize::try_from(count).unwrap_or(usize::MAX));
    if count == 0 || count >= all {
        return files;
    }
    let wanted: Vec<usize> = (0..count).map(|i| i * all / count).collect();
    let is_wanted = |i: usize| wanted.binary_search(&i).is_ok();
    files.into_iter().enumerate().filter(|(i, _)| is_wanted(*i)).map(|(_, f)| f).collect()
}

/// Writes `sheet.png` into `folder`: a row for each image, each column the same part of it.
fn sheet(shown: Vec<Shown>, folder: &Path) -> Result<()> {
    let mut sheet = Sheet::new(&["low resolution", "bicubic", "srk", "ground truth"]);
    for row in shown {
        let caption = |q: Quality| format!("{:.2} dB  {:.4}", q.psnr, q.ssim);
        let [output, bicubic] = row.quality.map(caption);
        sheet = sheet.row(vec![
            Panel::new(row.low, row.name),
            Panel::new(row.bicubic, bicubic),
            Panel::new(row.output, output),
            Panel::new(row.truth, ""),
        ]);
    }
    let path = folder.join("sheet.png");
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::Failed(Report::new(format!("cannot write {}", path.display()), e)))?;
    imaging::write(&path, &sheet.render()?, EncodeOptions::default())
}

/// The middle of `image`, at most as large as a panel.
fn middle(image: &Image) -> Result<Image> {
    let (width, height) = (image.width.min(PANEL), image.height.min(PANEL));
    image.crop(Rect::new((image.width - width) / 2, (image.height - height) / 2, width, height))
}

/// `image` with every pixel repeated `scale` times each way.
fn repeated(image: &Rgb8, scale: usize) -> Result<Image> {
    let mut pixels = Vec::with_capacity(image.pixels.len() * scale * scale);
    for row in image.pixels.chunks_exact(image.width * 3) {
        let row: Vec<u8> = row
            .chunks_exact(3)
            .flat_map(|p| std::iter::repeat_n(p, scale).flatten())
            .copied()
            .collect();
        (0..scale).for_each(|_| pixels.extend_from_slice(&row));
    }
    Image::from_u8(image.width * scale, image.height * scale, Color::Rgb, pixels)
}

/// One image through the whole chain, and its measures.
fn enlarge(network: &dyn Network, config: &Config, pair: &Pair) -> Result<Shown> {
    let scale = config.model.scale();
    let align = network.geometry().align;
    let low = pad(&pair.low, align);
    let (width, height) = (low.width * scale, low.height * scale);
    let wanted = Rect::new(0, 0, width, height);
    let enlarged = degrade::enlarge(&low, config.diffusion.enlarge, scale, wanted)?;
    let (device, channels) = (network.device(), network.channels());
    let tensor = |pixels: &[f32], height: usize, width: usize| {
        let luma = (channels == 1).then(|| luma_of(pixels));
        let values = luma.as_deref().unwrap_or(pixels);
        Tensor::from_slice_on(&device, values, &[1, height, width, channels])
    };
    let y0 = tensor(&enlarged, height, width)?;
    let small = tensor(&degrade::to_signed(&low.pixels), low.height, low.width)?;
    let seen = condition(network, &small, &y0)?;
    let noise = PixelNoise::new(&device, config.run.seed, &[[0, 0]])?;
    let steps = match usize::try_from(config.val.steps).unwrap_or(0) {
        0 => config.diffusion.process.steps(),
        steps => steps,
    };
    let go_on = &mut |_: crate::diffusion::sampler::Progress<'_>| Ok(());
    let output = sample(network, &config.diffusion, seen, &y0, &noise, steps, go_on)?;
    let truth = to_image(&pair.high)?;
    let output = match (channels, output.to_f32_vec()?) {
        (1, luma) => with_luma(&enlarged, &luma),
        (_, pixels) => pixels,
    };
    let output = cut(&output, width, &pair.high)?;
    let bicubic = cut(&enlarged, width, &pair.high)?;
    let quality = [measure(&output, &truth, scale)?, measure(&bicubic, &truth, scale)?];
    Ok(Shown {
        name: pair.name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
        low: middle(&repeated(&pair.low, scale)?)?,
        bicubic: middle(&bicubic)?,
        output: middle(&output)?,
        truth: middle(&truth)?,
        quality,
    })
}

/// The top left part of `values` `[H, width, 3]` in `[-1, 1]`, as large as `like`, in 8 bits.
fn cut(values: &[f32], width: usize, like: &Rgb8) -> Result<Image> {
    let rows = values.chunks_exact(width * 3).take(like.height);
    let unit: Vec<f32> =
        rows.flat_map(|r| r[..like.width * 3].iter().map(|v| (v + 1.0) / 2.0)).collect();
    Image::from_rgb_f32(like.width, like.height, &unit)
}

fn to_image(image: &Rgb8) -> Result<Image> {
    Image::from_u8(image.width, image.height, Color::Rgb, image.pixels.clone())
}

/// Repeats the last column and row until both sides are multiples of `align`.
fn pad(image: &Rgb8, align: usize) -> Rgb8 {
    let (width, height) =
        (image.width.next_multiple_of(align), image.height.next_multiple_of(align));
    let mut pixels = Vec::with_capacity(width * height * 3);
    for y in 0..height {
        for x in 0..width {
            let (x, y) = (x.min(image.width - 1), y.min(image.height - 1));
            pixels.extend_from_slice(&image.pixels[(y * image.width + x) * 3..][..3]);
        }
    }
    Rgb8 { width, height, pixels }
}

fn measure(image: &Image, truth: &Image, border: usize) -> Result<Quality> {
    Ok(Quality {
        psnr: metrics::psnr_y_float(image, truth, border)?,
        ssim: metrics::ssim_y_float(image, truth, border)?,
    })
}

impl Scores {
    /// The measures under the names of `metrics.jsonl`.
    pub fn values(&self) -> Vec<(&'static str, Value)> {
        vec![
            ("val_psnr_y", self.output.psnr.into()),
            ("val_ssim_y", self.output.ssim.into()),
            ("val_bicubic_psnr_y", self.bicubic.psnr.into()),
            ("val_bicubic_ssim_y", self.bicubic.ssim.into()),
            ("val_images", self.images.into()),
            ("val_seconds", self.took.as_secs_f64().into()),
        ]
    }
}

impl fmt::Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PSNR-Y {:.3} dB (bicubic {:.3})  SSIM {:.4} ({:.4})  {} images in {}",
            self.output.psnr,
            self.bicubic.psnr,
            self.output.ssim,
            self.bicubic.ssim,
            self.images,
            short(self.took)
        )
    }
}
