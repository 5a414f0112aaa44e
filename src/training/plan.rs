//! What a run will take, known before it takes it.
use serde::Serialize;

use super::sections::Config;
use crate::diffusion::latent;
use crate::diffusion::pixel_noise::PixelNoise;
use crate::diffusion::walk::{Walk, condition};
use crate::engine::device::{DType, Device};
use crate::engine::document;
use crate::engine::memory;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::damage::TOLD;
use crate::models::discriminator::{Discriminator, DiscriminatorConfig};
use crate::models::{Network, build_within};

/// Copies of every parameter on the CPU while a network is built and trained: weights, gradients, two moments and
/// the average, in f32.
const COPIES: u64 = 5;
const F32: u64 = 4;

/// Images in a batch; what is above is a slip of the pen.
pub(crate) const MOST_CROPS: usize = 1 << 16;
/// The same of the side of a crop.
pub(super) const LARGEST_CROP: usize = 1 << 14;

/// How many parameters fit in what is free.
pub(crate) fn most_parameters() -> usize {
    usize::try_from(memory::available() / (COPIES * F32)).unwrap_or(usize::MAX)
}

/// The network of `config`, its initial weights a function of the seed.
///
/// # Errors
/// Exit code 2 if its sizes make no network, 5 if there is no memory to train it.
pub(super) fn build(config: &Config) -> Result<Box<dyn Network>> {
    let most = most_parameters();
    config.model.build_within(config.run.seed, most).map_err(|unbuilt| unbuilt.of_config(most))
}

/// The discriminator of `config`, its initial weights a function of `seed`.
///
/// # Errors
/// As [`build`].
pub(super) fn build_critic(
    config: &DiscriminatorConfig,
    seed: u64,
) -> Result<Box<dyn Discriminator>> {
    let most = most_parameters();
    build_within(config, most, || config.build(seed)).map_err(|unbuilt| unbuilt.of_config(most))
}

/// Refuses sizes and crops with which the network takes no picture, exit code 2: whether it does is tried.
pub(super) fn check_crop(config: &Config, network: &dyn Network) -> Result<()> {
    let (crop, scale) = (config.data.train.crop, config.model.scale());
    let align = network.geometry().align.max(1);
    let side = crop / scale;
    if side.is_multiple_of(align) {
        // What fits windows and halves of one side fits those of the other, and takes less time.
        let period = SMALL.max(PERIOD / scale).next_multiple_of(align);
        let small = if side > 2 * period { period + side % period } else { side };
        let tried = enlarges(config, network, small);
        let tried =
            if small == side { tried } else { tried.or_else(|_| enlarges(config, network, side)) };
        return match tried {
            Err(error) => fits(error, &config.model, &[("data.train.crop", crop)]),
            Ok(()) => Ok(()),
        };
    }
    if enlarges(config, network, side).is_ok() {
        return Ok(());
    }
    let whole = align * scale;
    let cause = format!("data.train.crop = {crop} must be a multiple of {whole} for this network");
    let below = crop / whole * whole;
    let near = if below > 0 { below } else { whole };
    let help = format!("--set data.train.crop={near}    is one");
    Err(Error::Usage(Report::new("wrong configuration", cause).help(help)))
}

/// Pixels of a side, low and high, that a trial takes at least where crops are larger.
const SMALL: usize = 16;
const PERIOD: usize = 64;

/// Keys, below `[model]` but for those with a section, that decide what an op of a network is given.
const SUSPECTS: [(&str, &[&str]); 7] = [
    (
        "group_norm",
        &["base", "channels", "groups", "multipliers", "input_channels", "output_channels"],
    ),
    ("conv2d", &["input_channels", "output_channels", "low_channels", "base", "channels", "scale"]),
    ("concat", &["scale", "image_size", "low_size", "data.train.crop"]),
    ("window_attention", &["window", "data.train.crop"]),
    ("time_embedding", &["time_dim", "base"]),
    ("attention", &["head_channels", "heads", "base"]),
    ("rrdb", &["scale"]),
];

/// What a trial of the network of `model` failed with, as the configuration's fault with the keys that may be meant, of
/// which `more` are elsewhere; nothing if that is no fault of sizes.
pub(super) fn fits(error: Error, model: &impl Serialize, more: &[(&str, usize)]) -> Result<()> {
    let (Error::Shape { op, .. } | Error::Unsupported { op, .. } | Error::Argument { op, .. }) =
        &error
    else {
        return Ok(());
    };
    let keys = SUSPECTS.iter().find(|(of, _)| of == op).map_or(&[][..], |(_, keys)| *keys);
    let sizes = document::to_json(model);
    let mut values = Vec::new();
    for key in keys {
        let elsewhere = more.iter().find(|(name, _)| name == key);
        // Systems that draw digits have their network one section below.
        let network = sizes.get("network").and_then(|n| n.get(key).map(|v| ("network.", v)));
        match (elsewhere, sizes.get(key).map(|v| ("", v)).or(network)) {
            (Some((name, value)), _) => values.push(format!("{name} = {value}")),
            (None, Some((below, value))) => values.push(format!("model.{below}{key} = {value}")),
            (None, None) => {}
        }
    }
    let of = match values.is_empty() {
        true => "the sizes in [model] do not go together".to_owned(),
        false => format!("the sizes do not go together, see {}", values.join(", ")),
    };
    let report = Report::new("wrong configuration", format!("{of}: {error}"));
    Err(Error::Usage(report.help("srk train --list-recipes    shows configurations that work")))
}

/// Takes a blank image of `side` x `side` pixels through the network in one step.
fn enlarges(config: &Config, network: &dyn Network, side: usize) -> Result<()> {
    let (scale, channels) = (config.model.scale(), network.channels());
    let zeros = |shape: &[usize]| Tensor::zeros_on(&Device::Cpu, DType::F32, shape);
    let blank = |side: usize| zeros(&[1, side, side, channels]);
    let (low, y0, told) = (blank(side)?, blank(side * scale)?, zeros(&[1, TOLD])?);
    let seen = condition(network, &low, &y0, Some(&told))?;
    let states = latent::encode(network.first_stage().map(|vq| &**vq), &y0)?;
    let noise = PixelNoise::new(&Device::Cpu, 0, &[[0, 0]])?;
    let mut walk = Walk::new(network, &config.diffusion, 1, 1, &Device::Cpu)?;
    walk.run_unseen(seen, &states, &noise, &mut |_| Ok(())).map(drop)
}

/// Bytes that `numbers` weights take on the CPU beside their gradients.
pub(super) const fn of_weights(numbers: usize) -> u64 {
    numbers as u64 * F32 * (COPIES - 1)
}

/// Refuses batches that certainly do not fit in what is free, exit code 5. The estimate is what one call of the
/// network keeps at its peak `on_cpu`, of which training takes several times as much. The bytes that a step takes at least.
pub(super) fn check_memory(config: &Config, network: &dyn Network, on_cpu: bool) -> Result<u64> {
    let data = &config.data.train;
    let scale = config.model.scale().max(1) as u64;
    let high =
        (data.batch as u64).saturating_mul(data.crop as u64).saturating_mul(data.crop as u64);
    // Low, y0, x0, state and target; batches are prepared two ahead.
    let crops = high.saturating_mul(network.channels() as u64 * F32 * 4).saturating_mul(3);
    let held = match on_cpu {
        true => (high / (scale * scale)).saturating_mul(network.floats_per_pixel() as u64 * F32),
        false => 0,
    };
    let weights = of_weights(network.parameter_count());
    let (needed, free) = (crops.saturating_add(held).saturating_add(weights), memory::available());
    if needed <= free {
        return Ok(needed);
    }
    let what = format!(
        "{} crops of {} x {} do not fit in memory with this network",
        data.batch, data.crop, data.crop
    );
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let cause = format!("a step takes at least {} MiB, {} MiB are free", mib(needed), mib(free));
    let help =
        "--set data.train.batch=N    makes it smaller; optim.accumulate sums several batches";
    Err(Error::Memory(Report::new(what, cause).help(help)))
}
