//! A batch of tiles through the sampler, on one device.
use std::sync::Arc;

use crate::diffusion::latent;
use crate::diffusion::pixel_noise::PixelNoise;
use crate::diffusion::system::System;
use crate::diffusion::walk::{Progress, Walk, condition};
use crate::engine::device::{DType, Device};
use crate::engine::pool::Beside;
use crate::engine::recording::{Recording, places};
use crate::engine::tensor::Tensor;
use crate::error;
use crate::error::{Error, Result};
use crate::imaging::color::{luma_of, with_luma};
use crate::imaging::tiles::Tile;
use crate::imaging::{Image, Rect, deblock, resample};
use crate::models::damage::{Damage, TOLD};
use crate::ops::noise::Period;
use crate::ops::parallel;

use super::Plan;
use super::enlarge::{crop, enlarge};

/// What the network is to see of some tiles of one size.
pub(super) struct Inputs {
    pub(super) tiles: Vec<Tile>,
    /// `[N, h, w, C]` and its enlargement `[N, H, W, C]`, in [-1, 1]; no enlargement where nothing looks at it.
    low: Vec<f32>,
    y0: Vec<f32>,
    /// The enlargement `[N, H, W, 3]` in [0, 1], where the network computes luma alone.
    colors: Option<Vec<f32>>,
    channels: usize,
    /// Row and column of each tile in the output, or in its latent.
    places: Vec<[usize; 2]>,
    /// Low-resolution height and width of a tile.
    size: [usize; 2],
    scale: usize,
    damage: Damage,
    /// What all these take.
    beside: Beside,
}

impl Inputs {
    /// Cuts `tiles`, which are of one size, out of `image`.
    pub(super) fn of(
        image: &Image,
        plan: &Plan,
        system: &System,
        tiles: Vec<Tile>,
    ) -> Result<Self> {
        let (scale, channels) = (system.scale(), system.network.channels());
        // Noise is drawn by the pixel of the state.
        let factor = system.network.first_stage().map_or(1, |vq| vq.config().factor());
        let first = tiles.first().map_or(Rect::new(0, 0, 0, 0), |t| t.padded);
        let beside =
            Beside::new(tiles.len() * Self::floats(first, scale, channels) * size_of::<f32>());
        let (mut low, mut y0, mut places) = (vec![], vec![], vec![]);
        let direct = system.config.diffusion.is_direct() && system.network.sees_low_alone();
        let alone = direct && channels == 3;
        for tile in &tiles {
            let high = tile.padded.scaled(scale);
            if alone {
                join(&mut low, padded_region(image, plan, system, tile.padded)?);
            } else {
                let (enlarged, lows) = enlarged(image, plan, system, tile.padded)?;
                join(&mut y0, enlarged);
                join(&mut low, lows);
            }
            places.push([high.y / factor, high.x / factor]);
        }
        let mut colors = None;
        if channels == 1 {
            colors = Some(y0.iter().map(|v| (v + 1.0) / 2.0).collect());
            (low, y0) = (luma_of(&low), luma_of(&y0));
        }
        let size = [first.height, first.width];
        let damage = plan.damage;
        Ok(Self { tiles, low, y0, colors, channels, places, size, scale, damage, beside })
    }

    /// Floats that are held at a time while a tile `padded` is cut: what is seen and its enlargement in colour;
    /// beside them the part of the image that was read, or luma.
    fn floats(padded: Rect, scale: usize, channels: usize) -> usize {
        let high = scale * scale;
        padded.area() * (6 + 3 * high + if channels == 1 { 4 * high } else { 0 })
    }

    /// What the pixels of the tiles take while they are stored.
    pub(super) fn beside_pixels(&self) -> Beside {
        let [_, high] = self.shapes();
        let luma = if self.colors.is_some() { 3 } else { 0 };
        Beside::new(high[..3].iter().product::<usize>() * (self.channels + luma) * size_of::<f32>())
    }

    /// Gives up what is on the device now.
    fn taken(&mut self) {
        (self.low, self.y0) = (Vec::new(), Vec::new());
        let kept = self.colors.as_ref().map_or(0, Vec::len);
        // Both at a time would cost buffers that are asked for next.
        self.beside = Beside::default();
        self.beside = Beside::new(kept * size_of::<f32>());
    }

    /// `state` of the walk, or of latents, in colour, `[N, H, W, 3]` in [0, 1], halo and padding included.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    fn shown(&self, system: &System, state: &Tensor) -> Result<Vec<f32>> {
        let first_stage = system.network.first_stage().map(|vq| &**vq);
        let mut pixels = match first_stage {
            None => state.to_f32_vec()?,
            Some(_) => latent::decode(first_stage, state.try_clone()?)?.to_f32_vec()?,
        };
        pixels.iter_mut().for_each(|v| *v = (*v + 1.0) / 2.0);
        Ok(self.colored(pixels))
    }

    /// The network's `pixels` `[N, H, W, C]` in colour, `[N, H, W, 3]`, both in [0, 1]: luma takes the
    /// chroma of the enlarged image.
    pub(super) fn colored(&self, pixels: Vec<f32>) -> Vec<f32> {
        match &self.colors {
            Some(colors) => with_luma(colors, &pixels),
            None => pixels,
        }
    }

    /// What the network is told of the damage to each tile, `[N, TOLD]`.
    fn told(&self, device: &Device) -> Result<Tensor> {
        let values = self.damage.told().repeat(self.tiles.len());
        Tensor::from_slice_on(device, &values, &[self.tiles.len(), TOLD])
    }

    fn shapes(&self) -> [[usize; 4]; 2] {
        let ([h, w], n, c) = (self.size, self.tiles.len(), self.channels);
        [[n, h, w, c], [n, h * self.scale, w * self.scale, c]]
    }
}

/// Runs batches. What comes again is recorded on a GPU, within the first of a size and in later ones.
pub(super) struct Runner<'a> {
    system: &'a System,
    steps: usize,
    seed: u64,
    period: Option<Period>,
    batch: Option<Batch<'a>>,
    output: Option<Tensor>,
}

/// What batches of one shape share.
struct Batch<'a> {
    walk: Walk<'a>,
    low: Tensor,
    y0: Tensor,
    told: Tensor,
    noise: PixelNoise,
    /// The first stage's work.
    encode: Recording,
    decode: Recording,
}

impl<'a> Runner<'a> {
    pub(super) fn new(system: &'a System, plan: &Plan, seed: u64) -> Self {
        Self { system, steps: plan.steps, seed, period: plan.period, batch: None, output: None }
    }

    /// Starts the work on `inputs`; a GPU is then busy. `on_step` is told how many calls of the network
    /// were made or issued.
    pub(super) fn start(
        &mut self,
        inputs: &mut Inputs,
        on_step: &mut dyn FnMut(usize) -> Result<()>,
        watch: Option<&mut Watch<'_>>,
    ) -> Result<()> {
        let device = self.system.network.device();
        let [low, high] = inputs.shapes();
        let before = self.batch.take();
        let mut batch = match before.filter(|b| b.low.shape() == low) {
            Some(mut batch) => {
                batch.low.write(&inputs.low)?;
                if !inputs.y0.is_empty() {
                    batch.y0.write(&inputs.y0)?;
                }
                batch.noise.move_to(&inputs.places)?;
                batch
            }
            None => Batch {
                walk: {
                    let System { network, config, .. } = self.system;
                    Walk::new(&**network, &config.diffusion, low[0], self.steps, &device)?
                },
                low: Tensor::from_slice_on(&device, &inputs.low, &low)?,
                y0: match &inputs.y0[..] {
                    [] => Tensor::zeros_on(&device, DType::F32, &[0])?,
                    y0 => Tensor::from_slice_on(&device, y0, &high)?,
                },
                told: inputs.told(&device)?,
                noise: PixelNoise::new(&device, self.seed, &inputs.places)?.repeating(self.period),
                encode: Recording::New,
                decode: Recording::New,
            },
        };
        inputs.taken();
        self.output = Some(match watch {
            Some(watch) => batch.watched(self.system, inputs, on_step, watch)?,
            None => batch.run(self.system, on_step)?,
        });
        self.batch = Some(batch);
        Ok(())
    }

    /// Waits for the work and gives the pixels of all tiles, `[N, H, W, C]` in [0, 1].
    pub(super) fn finish(&mut self) -> Result<Vec<f32>> {
        let mut pixels = self.output.take().map_or(Ok(vec![]), |x0| x0.to_f32_vec())?;
        pixels.iter_mut().for_each(|v| *v = (*v + 1.0) / 2.0);
        Ok(pixels)
    }
}

impl Batch<'_> {
    /// The clean images of the batch, in [-1, 1].
    fn run(
        &mut self,
        system: &System,
        on_step: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Tensor> {
        let (seen, y0) = (self.seen(system)?, self.states(system)?);
        let y0 = y0.as_ref().unwrap_or(&self.y0);
        let x0 = self.walk.run_unseen(seen, y0, &self.noise, on_step)?;
        self.images(system, x0)
    }

    /// The same; `watch` sees the states of the walk.
    fn watched(
        &mut self,
        system: &System,
        inputs: &Inputs,
        on_step: &mut dyn FnMut(usize) -> Result<()>,
        watch: &mut Watch<'_>,
    ) -> Result<Tensor> {
        let (seen, y0) = (self.seen(system)?, self.states(system)?);
        let y0 = y0.as_ref().unwrap_or(&self.y0);
        let watch = &mut |p: Progress<'_>| {
            watch(&Seen { progress: p, inputs, system })?;
            on_step(p.done)
        };
        let x0 = self.walk.run(seen, y0, &self.noise, watch)?;
        self.images(system, x0)
    }

    fn seen(&self, system: &System) -> Result<Arc<Tensor>> {
        condition(&*system.network, &self.low, &self.y0, Some(&self.told))
    }

    /// The latents of y0, where the chain is one of latents.
    fn states(&mut self, system: &System) -> Result<Option<Tensor>> {
        let Some(first_stage) = system.network.first_stage() else { return Ok(None) };
        let Device::Cuda(gpu) = self.y0.device() else {
            return latent::encode(Some(first_stage), &self.y0).map(Some);
        };
        let work = &mut || latent::encode(Some(first_stage), &self.y0).map(Some);
        // SAFETY: encoding reads y0 and the weights, which outlive the batch.
        unsafe { self.encode.play(&gpu, places([&self.y0]), work) }
    }

    /// The images that `x0` are, where the chain is one of latents.
    fn images(&mut self, system: &System, x0: Tensor) -> Result<Tensor> {
        let Some(first_stage) = system.network.first_stage() else { return Ok(x0) };
        let Device::Cuda(gpu) = x0.device() else { return latent::decode(Some(first_stage), x0) };
        let work = &mut || latent::decode(Some(first_stage), x0.alias_on(&gpu)?).map(Some);
        // SAFETY: decoding reads the latents and the weights, which outlive the batch.
        let images = unsafe { self.decode.play(&gpu, places([&x0]), work)? };
        images.map_or(Ok(x0), Ok)
    }
}

/// Sees the states of a walk.
pub type Watch<'a> = dyn FnMut(&Seen<'_>) -> Result<()> + 'a;

/// A state of a walk through one batch of tiles.
pub struct Seen<'a> {
    /// Where the walk is.
    pub progress: Progress<'a>,
    inputs: &'a Inputs,
    system: &'a System,
}

impl Seen<'_> {
    /// The state as images `[N, H, W, 3]` in [0, 1], with what tiles and the alignment add to them.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn pixels(&self) -> Result<Vec<f32>> {
        self.inputs.shown(self.system, self.progress.state)
    }

    /// The width of these images.
    pub const fn width(&self) -> usize {
        self.inputs.size[1] * self.inputs.scale
    }
}

/// A low-resolution region of the padded image enlarged, `[H, W, 3]`, and as it is, `[h, w, 3]`, in [-1, 1].
pub(super) fn enlarged(
    image: &Image,
    plan: &Plan,
    system: &System,
    region: Rect,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let scale = system.scale();
    let high = region.scaled(scale);
    let held = resample::bicubic_footprint(high, plan.padded, scale);
    let wider = padded_region(image, plan, system, held)?;
    let method = (system.config.diffusion.enlarge, scale);
    let y0 = enlarge(&wider, (held, plan.padded), method, high)?;
    Ok((y0, crop(&wider, held, region)))
}

/// The region `[H, W, 3]` of the image padded by reflection on the right and below, in [-1, 1], as the network is to see
/// it: without blocks of JPEG, if it was trained so.
pub(super) fn padded_region(
    image: &Image,
    plan: &Plan,
    system: &System,
    region: Rect,
) -> Result<Vec<f32>> {
    let quality = plan.damage.jpeg_quality.unwrap_or(100.0);
    let seen = |part: Rect| deblock::deblocked(image, part, quality, system.config.deblock);
    let inside = Rect::new(
        region.x,
        region.y,
        region.right().min(image.width).saturating_sub(region.x),
        region.bottom().min(image.height).saturating_sub(region.y),
    );
    if inside == region {
        return Ok(seen(region)?.into_iter().map(|v| 2.0 * v - 1.0).collect());
    }
    let (rows, columns) = (
        reflected(region.y, region.height, image.height),
        reflected(region.x, region.width, image.width),
    );
    let bounds = |all: &[usize]| {
        let first = all.iter().min().copied().unwrap_or_default();
        (first, all.iter().max().map_or(0, |last| last + 1 - first))
    };
    let ((left, width), (top, height)) = (bounds(&columns), bounds(&rows));
    let pixels = seen(Rect::new(left, top, width, height))?;
    let mut out = Vec::with_capacity(region.area() * 3);
    for &y in &rows {
        for &x in &columns {
            let at = 3 * ((y - top) * width + x - left);
            out.extend(pixels[at..at + 3].iter().map(|v| 2.0 * v - 1.0));
        }
    }
    Ok(out)
}

/// Where the positions `start..start + len` lie in a side of `size`, reflected at its end without
/// repeating the last pixel; a side too short for that bounces to and fro.
fn reflected(start: usize, len: usize, size: usize) -> Vec<usize> {
    let period = (2 * size.saturating_sub(1)).max(1);
    let fold = |i: usize| {
        let i = i % period;
        if i < size { i } else { period - i }
    };
    (start..start + len).map(fold).collect()
}

/// Adds `more` to the end; the first is not copied.
fn join(all: &mut Vec<f32>, more: Vec<f32>) {
    match all.is_empty() {
        true => *all = more,
        false => all.extend(more),
    }
}

/// Refuses pixels of a tile that are no numbers.
pub(super) fn check_finite(system: &System, tile: &Tile, pixels: &[f32]) -> Result<()> {
    let Some(bad) = parallel::not_finite(pixels) else { return Ok(()) };
    let (name, at) = (&system.name, tile.padded.scaled(system.scale()));
    let what = format!("the model {name} gave {bad} in place of a pixel");
    let cause = format!("in the tile at {}, {}", at.x, at.y);
    let help = "the weights are damaged or the model diverged";
    Err(Error::Check(error::Report::new(what, cause).help(help)))
}
