//! Quality measures of whole images, alone or against the bicubic baseline.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::engine::files;
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::imaging::metrics::{self, Channels};
use crate::imaging::resample::{self, Shape};
use crate::imaging::{self, folder};
use crate::imaging::{Color, Depth, Image, Samples};
use crate::models::perceptual::{Distance, Kind};

/// PSNR in dB and SSIM, in RGB and Y. The conventions: 8-bit values, Y of BT.601 (16..235) not
/// rounded, SSIM with a Gaussian window of 11 and sigma 1.5 over the valid region.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scores {
    /// PSNR over all RGB values.
    pub psnr_rgb: f64,
    /// SSIM, the mean over R, G and B.
    pub ssim_rgb: f64,
    /// PSNR of Y.
    pub psnr_y: f64,
    /// SSIM of Y.
    pub ssim_y: f64,
}

impl Scores {
    /// Compares two images of one size, `border` pixels left out on every side. Gray images are
    /// compared as they are.
    pub fn of(image: &Image, truth: &Image, border: usize) -> Result<Self> {
        Self::with_y(image, truth, border, Channels::YFloat)
    }

    /// As [`of`](Self::of), with another Y.
    pub fn with_y(image: &Image, truth: &Image, border: usize, y: Channels) -> Result<Self> {
        Ok(Self {
            psnr_rgb: metrics::psnr(image, truth, Channels::Rgb, border)?,
            ssim_rgb: metrics::ssim(image, truth, Channels::Rgb, border)?,
            psnr_y: metrics::psnr(image, truth, y, border)?,
            ssim_y: metrics::ssim(image, truth, y, border)?,
        })
    }

    /// The mean of each measure; zeros if there are none.
    pub fn mean(all: &[Self]) -> Self {
        let n = all.len().max(1) as f64;
        let mean = |f: fn(&Self) -> f64| all.iter().map(f).sum::<f64>() / n;
        Self {
            psnr_rgb: mean(|s| s.psnr_rgb),
            ssim_rgb: mean(|s| s.ssim_rgb),
            psnr_y: mean(|s| s.psnr_y),
            ssim_y: mean(|s| s.ssim_y),
        }
    }
}

/// Refuses pictures that are too small to be measured: of what is left when both sides are cut to multiples of
/// `scale` and `border` pixels are taken off each side, one window of SSIM must fit in.
///
/// # Errors
/// [`Error::Failed`] with the size that is needed.
pub fn check_size(width: usize, height: usize, scale: usize, border: usize) -> Result<()> {
    let needed = border.saturating_mul(2).saturating_add(metrics::SSIM_WINDOW);
    let left = |side: usize| side / scale.max(1) * scale.max(1);
    if left(width).min(left(height)) >= needed {
        return Ok(());
    }
    let what = format!("{width}x{height} is too small to be measured");
    let cause = format!(
        "SSIM needs {} pixels a side inside a border of {border}, so {needed} in multiples of {scale}",
        metrics::SSIM_WINDOW
    );
    Err(Error::Failed(Report::new(what, cause)))
}

/// A ground truth with what a model starts from and what it is compared to.
#[derive(Debug)]
pub struct Degraded {
    /// The image, cut at the right and below to a multiple of the factor.
    pub truth: Image,
    /// Its low-resolution version, 8 bits.
    pub low: Image,
    /// `low` enlarged by MATLAB's bicubic, 8 bits.
    pub bicubic: Image,
}

/// Degrades `image` by MATLAB's bicubic in 8 bits, as the published `LRx4` sets are made.
pub fn degrade_matlab(image: &Image, scale: usize) -> Result<Degraded> {
    let mut truth = image.clone().to_depth(Depth::Eight).crop_to_multiple(scale)?;
    truth.alpha = None;
    let low = resample::matlab_8bit_image(&truth, 1.0 / scale as f64)?;
    let bicubic = enlarge_matlab(&low, scale)?;
    Ok(Degraded { truth, low, bicubic })
}

/// MATLAB's bicubic enlargement, rounded to 8 bits.
pub fn enlarge_matlab(low: &Image, scale: usize) -> Result<Image> {
    let shape = Shape::new(low.height, low.width, low.channels());
    let Samples::U8(samples) = &low.samples else {
        return Err(Error::Failed(Report::new("cannot enlarge", "the image has 16 bits")));
    };
    let values: Vec<f32> = samples.iter().map(|&v| f32::from(v) / 255.0).collect();
    let (values, to) = resample::matlab(&values, shape, scale as f64)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 0..=255.
    let round = |v: &f32| (v * 255.0 + 0.5).floor().clamp(0.0, 255.0) as u8;
    Image::from_u8(to.width, to.height, low.color, values.iter().map(round).collect())
}

/// A pair that is given: `low` as it is, in 8 bits, and `image` cut to a multiple of the factor.
///
/// # Errors
/// [`Error::Failed`] if the sizes do not belong together.
pub fn paired(image: &Image, low: Image, scale: usize) -> Result<Degraded> {
    let mut truth = image.clone().to_depth(Depth::Eight).crop_to_multiple(scale)?;
    truth.alpha = None;
    let mut low = low.to_depth(Depth::Eight);
    low.alpha = None;
    let (low, truth) = same_color(low, truth);
    if (low.width * scale, low.height * scale) != (truth.width, truth.height) {
        let what = format!("{} is no low resolution of {}", low.size_text(), image.size_text());
        let wanted = format!("{}x{}", truth.width / scale, truth.height / scale);
        let cause = format!("at a factor of {scale} it would be {wanted}");
        return Err(Error::Failed(Report::new(what, cause).code("size").help("--scale N")));
    }
    let bicubic = enlarge_matlab(&low, scale)?;
    Ok(Degraded { truth, low, bicubic })
}

/// Makes two images comparable: one gray and one RGB image are compared as RGB.
pub fn same_color(a: Image, b: Image) -> (Image, Image) {
    match (a.color, b.color) {
        (Color::Gray, Color::Rgb) => (a.to_rgb(), b),
        (Color::Rgb, Color::Gray) => (a, b.to_rgb()),
        _ => (a, b),
    }
}

/// Pairs the images of two folders by their names without extension, with or without an ending
/// such as `x4`, `_x4` or `_out`.
///
/// # Errors
/// [`Error::Usage`] if a file has no partner or two, or nothing was found.
pub fn pairs(results: &Path, truths: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let (pairs, alone) = pairs_and_others(results, truths)?;
    match alone.first() {
        None => Ok(pairs),
        Some(first) => {
            let cause =
                format!("{} files have no partner (first: {})", alone.len(), first.display());
            let report = Report::new("the two folders do not match", cause);
            let help = "pairs are found by equal file names; --allow-missing leaves the others out";
            Err(Error::Usage(report.help(help)))
        }
    }
}

/// Pairs of a result and its truth.
pub type Pairs = Vec<(PathBuf, PathBuf)>;

/// As [`pairs`], with the files that have no partner.
///
/// # Errors
/// [`Error::Usage`] if a file has two partners, or there is no pair.
pub fn pairs_and_others(results: &Path, truths: &Path) -> Result<(Pairs, Vec<PathBuf>)> {
    let (folders, mut truths) = ([results, truths], stems(truths)?);
    let (mut pairs, mut alone) = (Vec::new(), Vec::new());
    for (stem, result) in stems(results)? {
        match truths.remove(&stem) {
            Some(truth) => pairs.push((result, truth)),
            None => alone.push(result),
        }
    }
    alone.extend(truths.into_values());
    if pairs.is_empty() {
        let [results, truths] = folders.map(Path::display);
        let what = format!("{results} and {truths} have no pictures in common");
        let cause = match alone.len() {
            0 => "they hold none".to_owned(),
            n => format!("{n} files have no partner (first: {})", alone[0].display()),
        };
        return Err(Error::Usage(
            Report::new(what, cause).help("pairs are found by equal file names"),
        ));
    }
    Ok((pairs, alone))
}

fn stems(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in images_of(folder)? {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let short = ["_x4", "x4", "_out", "_x2", "x2", "_x8", "x8"]
            .iter()
            .find_map(|end| stem.strip_suffix(end))
            .unwrap_or(&stem)
            .to_owned();
        if let Some(other) = found.insert(short, path.clone()) {
            let cause = format!("{} and {}", other.display(), path.display());
            let report = Report::new("two files have the same name", cause);
            return Err(Error::Usage(report.help("move one of them away")));
        }
    }
    Ok(found)
}

/// The image files in the folder `path`, sorted by name; a file stands for itself. What is called like one and is none,
/// such as a pipe, is among them: [`read`] refuses it.
pub fn images_of(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let listing = folder::listing(path, false).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound { "not_found" } else { "" };
        Error::Failed(Report::new(format!("cannot list {}", path.display()), e).code(code))
    })?;
    let mut found = [listing.pictures, listing.no_files].concat();
    found.sort();
    Ok(found)
}

/// Reads a picture that [`images_of`] found.
///
/// # Errors
/// [`Error::Failed`] if it is no file, or cannot be decoded.
pub fn read(path: &Path) -> Result<Image> {
    files::refuse_endless(path).map_err(|e| {
        let report = Report::new(format!("cannot read {}", path.display()), e);
        Error::Failed(report.code("unreadable"))
    })?;
    imaging::read(path)
}

/// The perceptual distance of two images of one size; none if they are too small for it. It is computed over
/// the whole images, gray ones as colours.
pub fn distance(
    distance: &Distance,
    kind: Kind,
    [image, truth]: [&Image; 2],
) -> Result<Option<f64>> {
    if image.width.min(image.height) < kind.least_side() {
        return Ok(None);
    }
    let mut tape = Tape::inference();
    let [a, b] = [image, truth].map(|image| {
        let rgb = image.to_rgb();
        let values: Vec<f32> =
            (0..rgb.width * rgb.height * 3).map(|i| rgb.samples.unit(i)).collect();
        tape.input(Tensor::from_vec(values, &[1, rgb.height, rgb.width, 3]))
    });
    let value = distance.forward(&mut tape, &a, &b)?.value().to_f64_vec()?[0];
    Ok(Some(value))
}
