//! EDSR (Lim et al. 2017), here its baseline: low resolution straight to high.
//!
//! ```text
//! f0 = conv3 (range (x - mean)),   f_i = f_(i-1) + s conv3(relu(conv3 f_(i-1))),   f = f0 + conv3 f_n
//! for each step of the factor f = shuffle(conv3 f);   gives conv3 f / range + mean
//! ```
//!
//! Steps double, but for one that triples. 1,517,571 parameters for a factor of 4 with 64 channels and 16 blocks.
use serde::{Deserialize, Serialize};

use super::direct::{BLOCK, Direct, Upscale};
use super::span::DIV2K_MEAN;
use super::{Assumption, Kind, Network, Shapes};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::nn::{Conv2d, Init};

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdsrConfig {
    /// Channels of the features.
    pub channels: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// The factor between low and high resolution: a power of 2, or 3.
    pub scale: usize,
    /// What the output of a block is multiplied by: 1 in the baseline, 0.1 in wide networks.
    pub residual_scale: f64,
    /// What colours less their mean are multiplied by.
    pub range: f64,
    /// What is taken off colours in [0, 1].
    pub mean: [f64; 3],
}

impl Default for EdsrConfig {
    fn default() -> Self {
        let (range, mean) = (255.0, DIV2K_MEAN);
        Self { channels: 64, blocks: 16, scale: 4, residual_scale: 1.0, range, mean }
    }
}

/// What the sides grow by at each step for a factor.
pub fn steps(scale: usize) -> Vec<usize> {
    if scale.is_power_of_two() { vec![2; scale.ilog2() as usize] } else { vec![scale] }
}

/// The layers: see the [module](self).
#[derive(Debug)]
pub struct Edsr {
    config: EdsrConfig,
    first: Conv2d,
    blocks: Vec<[Conv2d; 2]>,
    after: Conv2d,
    up: Vec<(Conv2d, usize)>,
    last: Conv2d,
}

impl Edsr {
    /// A network whose initial weights are a function of `seed`.
    pub fn network(config: &EdsrConfig, seed: u64) -> Direct<Self> {
        Direct::new(seed, |init| Self::new(init, config))
    }

    fn new(init: &mut Init, config: &EdsrConfig) -> Self {
        let c = config.channels;
        let first = Conv2d::same(init, "conv_first", 3, c, 3);
        let block = |i: usize| {
            init.at(format!("body.{i}"), |init| {
                let conv1 = Conv2d::same(init, "conv1", c, c, 3).relu();
                [conv1, Conv2d::same(init, "conv2", c, c, 3)]
            })
        };
        let blocks = (0..config.blocks).map(block).collect();
        let after = Conv2d::same(init, "conv_after_body", c, c, 3);
        let up = |(i, factor): (usize, usize)| {
            // Numbered with the shuffles between.
            let name = format!("upsample.{}", 2 * i);
            (Conv2d::same(init, &name, c, factor * factor * c, 3), factor)
        };
        let up = steps(config.scale).into_iter().enumerate().map(up).collect();
        let last = Conv2d::same(init, "conv_last", c, 3, 3);
        Self { config: config.clone(), first, blocks, after, up, last }
    }
}

impl Upscale for Edsr {
    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        let EdsrConfig { range, mean, residual_scale, .. } = self.config;
        let centred = tape.affine_channels(low, &mean.map(|m| [range, -range * m]))?;
        let first = self.first.forward(tape, &centred)?;
        let mut f = first.clone();
        for [conv1, conv2] in &self.blocks {
            let y = conv1.forward(tape, &f)?;
            f = conv2.forward_onto(tape, &y, &f, residual_scale)?;
        }
        f = self.after.forward_onto(tape, &f, &first, 1.0)?;
        drop((first, centred));
        for (conv, factor) in &self.up {
            f = conv.forward(tape, &f)?;
            f = tape.pixel_shuffle(&f, *factor)?;
        }
        f = self.last.forward(tape, &f)?;
        tape.affine_channels(&f, &mean.map(|m| [1.0 / range, m]))
    }

    fn reach(&self) -> usize {
        // Behind the first step pixels are finer by two or more.
        let finer = self.up.len().max(2) * BLOCK / 2;
        BLOCK * (2 + 2 * self.config.blocks + usize::from(!self.up.is_empty())) + finer
    }

    fn scale(&self) -> usize {
        self.config.scale
    }

    fn floats_per_pixel(&self) -> usize {
        // The last shuffle, in and out; or a block.
        let (features, pixels) = (self.config.channels, self.config.scale * self.config.scale);
        (2 * features * pixels).max(4 * features)
    }
}

impl Kind for EdsrConfig {
    const KEYS: &'static [&'static str] =
        &["conv_first.weight", "body.0.conv1.weight", "conv_after_body.weight", "conv_last.weight"];
    const DIRECT: bool = true;
    const ASSUMED: &'static [Assumption] = &[
        Assumption {
            keys: &["range"],
            what: "that the network sees 255 times colours less a mean (model.range)",
        },
        Assumption { keys: &["mean"], what: "that this is the mean of DIV2K (model.mean)" },
        Assumption {
            keys: &["residual_scale"],
            what: "blocks damped by 0.1 from 256 channels on (model.residual_scale)",
        },
    ];
    const MEANING: &'static [&'static str] = &["range", "mean", "residual_scale"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Edsr::network(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let steps = (0..).map(|i| s.dim(&format!("upsample.{}.weight", 2 * i), 0));
        let channels = s.dim("conv_first.weight", 0)?;
        let factor = |outputs: usize| (2..=3).find(|n| outputs == n * n * channels);
        let factors: Vec<_> = steps.map_while(|outputs| outputs).map(factor).collect();
        Some(Self {
            channels,
            blocks: s.count(|i| format!("body.{i}.conv1.weight")),
            scale: factors.into_iter().take(6).product::<Option<usize>>()?,
            // As published: wide networks damp their blocks.
            residual_scale: if channels >= 256 { 0.1 } else { 1.0 },
            ..Self::default()
        })
    }

    fn narrow() -> Self {
        Self { channels: 8, blocks: 2, scale: 2, ..Self::default() }
    }
}
