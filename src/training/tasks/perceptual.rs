//! Perceptual terms of the loss: LPIPS and DISTS of x0_hat and x0, by frozen networks.
//!
//! ```text
//! loss + sum over terms of weight * mean over images of w d(x0_hat, x0)
//! ```
//!
//! Images are taken to `[0, 1]` and kept within it, luma alone as gray. w, for a network that predicts noise,
//! is alpha_bar_t, else 1. With `loss.perceptual_crop` a random part of all crops is compared, another one for
//! each batch, which bounds the cost. With `loss.perceptual_turns` a batch has one of the terms, weighted by their
//! number, so that the loss is the same in the mean.
use super::clean::{self, WEIGHTS};
use super::names::{PART, TURN, X0};
use crate::diffusion::process::{Process, TimeInput};
use crate::diffusion::sampler::Space;
use crate::engine::device::{DType, Device, Real};
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::perceptual::folder::Folder;
use crate::models::perceptual::{Distance, Kind};
use crate::training::batch::Batch;
use crate::training::sections::{Config, LossConfig};

/// The terms of a run.
pub(super) struct Perceptual {
    terms: Vec<(f64, Distance)>,
    looks: Looks,
}

/// What the terms look at, batch by batch.
#[derive(Clone, Copy)]
pub(super) struct Looks {
    /// The side of what is compared; 0 compares all.
    side: usize,
    /// Terms that take turns; 0 where a batch has all of them.
    turns: usize,
    seed: u64,
}

impl Looks {
    /// The number of the term that batch `number` has; 0 where it has all.
    #[allow(clippy::cast_possible_truncation)] // Below the number of terms.
    pub(super) const fn turn(&self, number: u64) -> usize {
        if self.turns == 0 { 0 } else { (number % self.turns as u64) as usize }
    }

    /// `batch`, which lies on the CPU, with the place of the part that is compared, if it is not all.
    ///
    /// # Errors
    /// If the batch has no images.
    pub(super) fn tell(&self, batch: Batch) -> Result<Batch> {
        let [_, height, width, _] = batch.get(X0)?.nhwc("perceptual_crop")?;
        if self.side == 0 || self.side >= height.min(width) {
            return Ok(batch);
        }
        let [y, x, ..] = Stream::new(self.seed, Purpose::PerceptualCrop, batch.number).bits(0, 0);
        let below = |bits: u32, n: usize| (u64::from(bits) * n as u64) >> 32;
        let at = [below(y, height - self.side + 1), below(x, width - self.side + 1)];
        let at = at.map(|v| f32::from_f64(v as f64)).to_vec();
        Ok(batch.with(PART, Tensor::from_vec(at, &[1, 2])))
    }
}

/// The terms that have a weight.
fn weighted(config: &LossConfig) -> Vec<(f64, Kind)> {
    let all = [
        (config.lpips_alex, Kind::LpipsAlex),
        (config.lpips_vgg, Kind::LpipsVgg),
        (config.dists, Kind::Dists),
    ];
    all.into_iter().filter(|(weight, _)| *weight > 0.0).collect()
}

impl Perceptual {
    /// The terms that `config` asks for; none if it asks for none.
    ///
    /// # Errors
    /// If their features are not there (exit code 3), or the run compares no images (2).
    pub(super) fn open(config: &Config) -> Result<Option<Self>> {
        let kinds = weighted(&config.loss);
        if kinds.is_empty() {
            return Ok(None);
        }
        check(config, &kinds)?;
        let folder = Folder::open(config.loss.features.as_deref());
        let looks = Looks {
            side: config.loss.perceptual_crop,
            turns: if config.loss.perceptual_turns { kinds.len() } else { 0 },
            seed: config.run.seed,
        };
        let open = |(weight, kind)| Ok((weight, Distance::open(kind, &folder)?));
        Ok(Some(Self { terms: kinds.into_iter().map(open).collect::<Result<_>>()?, looks }))
    }

    /// Moves the networks to where they are used. In single precision: what they compare differs little.
    pub(super) fn settle(&self, device: &Device) -> Result<()> {
        self.terms.iter().try_for_each(|(_, distance)| distance.to_device(device, DType::F32))
    }

    /// What they look at.
    pub(super) const fn looks(&self) -> Looks {
        self.looks
    }

    /// What is added to the loss, `[1]`, of what the network predicted of a state.
    pub(super) fn loss(
        &self,
        tape: &mut Tape,
        [predicted, state]: [&Var; 2],
        batch: &Batch,
    ) -> Result<Var> {
        let x0_hat = clean::x0_hat(tape, [predicted, state], batch)?;
        let x0 = tape.input(batch.get(X0)?.try_clone()?);
        let part = batch.find(PART).map(|origin| (origin, self.looks.side));
        let x0_hat = seen(tape, &x0_hat, part)?;
        let x0 = seen(tape, &x0, part)?;
        let weights = batch.get(WEIGHTS)?;
        let mut total: Option<Var> = None;
        let turn = batch.way / TURN;
        let (terms, times) = match self.looks.turns {
            0 => (&self.terms[..], 1.0),
            turns => (&self.terms[turn..=turn], turns as f64),
        };
        for (weight, distance) in terms {
            let weight = weight * times;
            let distances = distance.forward(tape, &x0_hat, &x0)?;
            let distances = tape.scale_images_by(&distances, weights)?;
            let mean = tape.mean(&distances)?;
            total = Some(match total {
                None => tape.scale(&mean, weight)?,
                Some(sum) => tape.scaled_add(&sum, 1.0, &mean, weight)?,
            });
        }
        total.ok_or_else(|| unreachable!("there is at least one term"))
    }
}

/// The part of an image `[N, H, W, C]` in `[-1, 1]` that is compared, as colours in `[0, 1]`: where it begins, and its
/// side.
fn seen(tape: &mut Tape, image: &Var, part: Option<(&Tensor, usize)>) -> Result<Var> {
    let image = match part {
        Some((origin, side)) => tape.crop_at(image, origin, [side; 2])?,
        None => image.clone(),
    };
    let image = tape.clamp(&image, -1.0, 1.0)?;
    let image = tape.to_unit(&image)?;
    match image.shape()[3] {
        1 => tape.concat(&[&image, &image, &image]),
        _ => Ok(image),
    }
}

/// Refuses what does not fit together; exit code 2.
fn check(config: &Config, kinds: &[(f64, Kind)]) -> Result<()> {
    let levels =
        matches!(config.diffusion.process, Process::Ddpm { time: TimeInput::NoiseLevel, .. });
    let least = kinds.iter().map(|(_, kind)| kind.least_side()).max().unwrap_or(0);
    let side = match config.loss.perceptual_crop {
        0 => config.data.train.crop,
        side => side.min(config.data.train.crop),
    };
    let small = format!("its terms need crops of {least} x {least}; they are {side} x {side}");
    let rules = [
        (
            config.diffusion.space == Space::Pixel,
            "its terms compare images; diffusion.space is latent",
        ),
        (!levels, "x0_hat is computed at whole steps; diffusion.process.time is noise-level"),
        (side >= least, small.as_str()),
    ];
    match rules.into_iter().find(|(holds, _)| !holds) {
        Some((_, cause)) => Err(Error::Usage(Report::new("wrong [loss]", cause))),
        None => Ok(()),
    }
}
