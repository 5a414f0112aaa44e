//! What a program takes of srk to enlarge pictures: open a model, give it an image.
use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use crate::diffusion::system::System;
use crate::engine::cuda;
use crate::engine::device::{DType, Device};
use crate::engine::files;
use crate::engine::pool;
use crate::error::{Error, Report, Result};
use crate::imaging::encode::{Format, Outline};
use crate::imaging::{Image, Metadata, Samples};
use crate::import;
use crate::training::recipes;
use crate::upscale::budget::{self, Budget, Wanted};
use crate::upscale::choice::{AUTO, Denoise, Models, told};
use crate::upscale::{self, Settings, TileSize};

/// How pictures are enlarged. What is not given is as `srk upscale` has it, but for the place: on the processor in f32, also
/// where there is a GPU, unless [`on_gpu`](Self::on_gpu), [`device`](Self::device) or [`precision`](Self::precision) say
/// more.
///
/// ```
/// use srk::{Denoise, Options};
///
/// let options = Options { steps: Some(1), scale: Some(2.0), ..Options::default() };
/// assert_eq!(options.denoise, Denoise::Auto);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Calls of the network, from 1, the most faithful, up to the steps that the model was trained for; the model's
    /// default if absent. More than those count as those.
    pub steps: Option<usize>,
    /// The seed of the noise. The same seed gives the same picture.
    pub seed: u64,
    /// How much of noise and blocks is taken away, by models that are told of the damage.
    pub denoise: Denoise,
    /// How many times as large, above 0; the model's factor if absent. Another factor is resampled to by Lanczos.
    pub scale: Option<f64>,
    /// Bytes that the process may take for it; most of what is free if absent.
    pub ram: Option<u64>,
    /// Where the network runs.
    pub device: Device,
    /// What it computes in: F32, BF16 (on the CPU in products of convolutions alone), or on a GPU also F16.
    pub precision: DType,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps: None,
            seed: upscale::SEED,
            denoise: Denoise::Auto,
            scale: None,
            ram: None,
            device: Device::Cpu,
            precision: DType::F32,
        }
    }
}

impl Options {
    /// On the GPU of this number, in half precision.
    ///
    /// # Errors
    /// [`Error::Device`] if it cannot be used; the message says why.
    ///
    /// ```no_run
    /// let on_gpu = srk::Options::default().on_gpu(0)?;
    /// let upscaler = srk::Upscaler::open_with("auto", on_gpu)?;
    /// # Ok::<(), srk::Error>(())
    /// ```
    pub fn on_gpu(self, ordinal: usize) -> Result<Self> {
        Ok(Self { device: Device::Cuda(cuda::open(ordinal)?), precision: DType::F16, ..self })
    }

    /// Refuses what no picture can be enlarged with.
    fn check(&self) -> Result<()> {
        let refuse = |what, cause: String| Err(Error::Usage(Report::new(what, cause)));
        if self.steps == Some(0) {
            return refuse("wrong steps", "0 calls of the network make no picture".into());
        }
        if let Some(scale) = self.scale.filter(|s| !(s.is_finite() && *s > 0.0)) {
            return refuse("wrong scale", format!("{scale} is not a factor above 0"));
        }
        match self.denoise {
            Denoise::Strength(amount) if !(0.0..=1.0).contains(&amount) => {
                return refuse("wrong denoise", format!("{amount} does not lie in 0..=1"));
            }
            _ => {}
        }
        let cause = match (&self.device, self.precision) {
            (_, DType::F32) | (Device::Cpu, DType::BF16) | (Device::Cuda(_), DType::F16) => {
                return Ok(());
            }
            (Device::Cuda(gpu), DType::BF16) if gpu.compute_capability() >= (8, 0) => return Ok(()),
            (Device::Cuda(_), DType::BF16) => "GPUs before compute capability 8.0 have no bf16",
            (Device::Cuda(_), DType::F64) => "GPUs compute in f32, f16 or bf16",
            (Device::Cpu, DType::F16 | DType::F64) => "the processor computes in f32 or bf16",
        };
        refuse("wrong precision", cause.into())
    }
}

/// A model that is ready to enlarge pictures.
///
/// ```
/// use srk::{Color, Depth, Image, Options, Upscaler};
///
/// let upscaler = Upscaler::open_with("srk-x4", Options { steps: Some(1), ..Options::default() })?;
/// let small = Image::new(12, 9, Color::Rgb, Depth::Eight);
/// let large = upscaler.upscale(&small)?;
/// assert_eq!((large.width, large.height), (48, 36));
/// # Ok::<(), srk::Error>(())
/// ```
pub struct Upscaler {
    models: Models,
    options: Options,
}

impl fmt::Debug for Upscaler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Upscaler");
        shown.field("model", &self.models.name()).field("options", &self.options).finish()
    }
}

impl Upscaler {
    /// Opens a model: `auto` (one of the binary's two for each picture, by what it shows), the name of one of
    /// [those](Self::embedded), a weights file (srk's own, `.pth`, `.pt`, `.safetensors`, `.param`), or the folder of a
    /// training run.
    ///
    /// # Errors
    /// [`Error::Model`] if there is none, or the file is damaged or of no network that srk knows.
    pub fn open(model: &str) -> Result<Self> {
        Self::open_with(model, Options::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`Error::Usage`] if an option cannot be; [`Error::Memory`] if a GPU is full.
    pub fn open_with(model: &str, options: Options) -> Result<Self> {
        options.check()?;
        let place =
            |system: System| upscale::Upscaler::new(system, &options.device, options.precision);
        let models = match model {
            AUTO => Models::auto(place)?,
            name => Models::One(Box::new(place(import::open::open(name)?)?)),
        };
        Ok(Self { models, options })
    }

    /// The names of the models in the binary: for pictures as they are, and for clean ones.
    ///
    /// ```
    /// assert_eq!(srk::Upscaler::embedded(), ["srk-photo-x4", "srk-x4"]);
    /// ```
    pub fn embedded() -> [&'static str; 2] {
        System::embedded()
    }

    /// The factor of the model, which is that of results where [`Options::scale`] gives no other.
    pub fn factor(&self) -> usize {
        self.models.any().system().scale()
    }

    /// The picture enlarged, with its depth, alpha and metadata.
    ///
    /// # Errors
    /// [`Error::Memory`] if it does not fit, before any work; [`Error::Shape`] if the lengths in the image do not fit
    /// together; [`Error::Failed`] if it has no pixels.
    pub fn upscale(&self, image: &Image) -> Result<Image> {
        self.upscale_noting(image, &mut |_, _| Ok(()))
    }

    /// As [`upscale`](Self::upscale); `on_call` hears of every call of the network (how many are done, how many there
    /// are) and ends the work by an error.
    ///
    /// # Errors
    /// As [`upscale`](Self::upscale), and those of `on_call`.
    pub fn upscale_noting(
        &self,
        image: &Image,
        on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
    ) -> Result<Image> {
        image.validate()?;
        if image.rect().area() == 0 {
            let cause = format!("it has no pixels: its size is {}", image.size_text());
            return Err(Error::Failed(Report::new("cannot enlarge the picture", cause)));
        }
        let Options { steps, seed, denoise, scale, ram, .. } = self.options;
        let findings = self.models.findings(image)?;
        let upscaler = self.models.of(&findings, denoise);
        let (system, from) = (upscaler.system(), (image.width, image.height));
        let (width, height) = budget::target(from, scale.unwrap_or(system.scale() as f64));
        let output = Outline { width, height, ..Outline::of(image) };
        let pixel = image.bytes_per_pixel() as u64;
        let bytes = |(width, height): (usize, usize)| {
            (width as u64).saturating_mul(height as u64).saturating_mul(pixel)
        };
        let wanted = Wanted {
            name: "the picture",
            from,
            picture: bytes(from),
            output: &Outline { metadata: Metadata::default(), ..output.clone() },
            // Nothing is encoded; the output is held.
            format: Format::Png,
            collected: bytes((width, height)),
        };
        let memory = upscaler.memory_or(0)?;
        let settings = Settings { steps, seed, tile: TileSize::Auto, memory };
        let mut plan = Budget::new(ram, false).plan(upscaler, &wanted, &settings)?;
        plan.damage = told(system, &findings, denoise);
        pool::budget(Budget::for_tiles(&plan));
        let mut large = Image::new(width, 0, image.color, image.depth());
        large.metadata = image.metadata.clone();
        large.alpha = image.alpha.as_ref().map(|a| Samples::zeros(a.depth(), 0));
        large.samples.reserve(width * height * image.channels());
        let mut resampler = budget::resampler(image, system.scale(), (width, height))?;
        let mut put = |strip: Image| {
            large.append(&strip);
            Ok(())
        };
        upscale::upscale_strips(upscaler, image, &plan, seed, on_call, &mut |strip| {
            match &mut resampler {
                Some(resampler) => resampler.add(&strip, &mut put),
                None => put(strip),
            }
        })?;
        Ok(large)
    }
}

/// The text of a recipe, as `srk train --recipe NAME` takes it.
///
/// # Errors
/// [`Error::Usage`] with the nearest name if there is none of this name.
pub fn recipe(name: &str) -> Result<&'static str> {
    recipes::find(name).map(|recipe| recipe.text)
}

impl Image {
    /// Reads a picture: PNG, JPEG, WebP, TIFF, BMP or GIF, with its profile and other metadata. `-` is a file like others.
    ///
    /// # Errors
    /// [`Error::Failed`] if there is none, or it is damaged.
    ///
    /// ```
    /// let parrots = srk::Image::read("examples/parrots.png")?;
    /// assert_eq!(parrots.color, srk::Color::Rgb);
    /// assert!(srk::Image::read("examples/README.md").is_err());
    /// # Ok::<(), srk::Error>(())
    /// ```
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        crate::imaging::read(&file(path.as_ref()))
    }

    /// Writes the picture whole or not at all, in the format that the end of the name says. Replaces what is there.
    ///
    /// # Errors
    /// [`Error::Usage`] if the name says none, [`Error::Failed`] if the format cannot hold the picture or the file
    /// cannot be written.
    ///
    /// ```
    /// use srk::{Color, Depth, Image};
    ///
    /// let path = std::env::temp_dir().join("srk-doc-black.png");
    /// let black = Image::new(3, 2, Color::Gray, Depth::Sixteen);
    /// black.write(&path)?;
    /// assert_eq!(Image::read(&path)?.samples, black.samples);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), srk::Error>(())
    /// ```
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        crate::imaging::write(&file(path.as_ref()), self, crate::imaging::EncodeOptions::default())
    }
}

/// `path`, not to be taken for standard input or output, which the command line means by `-`.
fn file(path: &Path) -> Cow<'_, Path> {
    match files::is_standard(path) {
        true => Path::new(".").join(path).into(),
        false => path.into(),
    }
}
