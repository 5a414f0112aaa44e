//! ERRN2, a small network for efficient super-resolution (NTIRE 2026 challenge): low resolution straight to
//! high.
//!
//! ```text
//! f0 = conv3 x,   f_i = Block f_(i-1),   y = shuffle(conv3(conv3 f_6 + f0))
//! Block x:   o = conv3(leaky(conv3(leaky(conv3(leaky(conv3 x))))));   gives (x + o) (sigmoid(o) - 1/2)
//! ```
//!
//! All at the low resolution; leaky ReLU of slope 0.1. 245,968 parameters for a factor of 4.
use serde::{Deserialize, Serialize};

use super::direct::{BLOCK, Direct, Upscale};
use super::{Kind, Network, Shapes};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::nn::{Conv2d, GatedBlock, Init};

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Errn2Config {
    /// Channels of the features.
    pub channels: usize,
    /// Blocks.
    pub blocks: usize,
    /// Convolutions of a block.
    pub depth: usize,
    /// The factor between low and high resolution.
    pub scale: usize,
}

impl Default for Errn2Config {
    fn default() -> Self {
        Self { channels: 32, blocks: 6, depth: 4, scale: 4 }
    }
}

/// The layers: see the [module](self).
#[derive(Debug)]
pub struct Errn2 {
    config: Errn2Config,
    first: Conv2d,
    blocks: Vec<GatedBlock>,
    second: Conv2d,
    last: Conv2d,
}

impl Errn2 {
    /// A network whose initial weights are a function of `seed`.
    pub fn network(config: &Errn2Config, seed: u64) -> Direct<Self> {
        Direct::new(seed, |init| Self::new(init, config))
    }

    fn new(init: &mut Init, config: &Errn2Config) -> Self {
        let c = config.channels;
        let first = Conv2d::same(init, "conv_1", 3, c, 3);
        let block =
            |i| init.at(format!("block_{}", i + 1), |init| GatedBlock::new(init, c, config.depth));
        let blocks = (0..config.blocks).map(block).collect();
        let second = Conv2d::same(init, "conv_2", c, c, 3);
        let last = Conv2d::same(init, "upsampler.0", c, 3 * config.scale * config.scale, 3);
        Self { config: config.clone(), first, blocks, second, last }
    }
}

impl Upscale for Errn2 {
    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        let first = self.first.forward(tape, low)?;
        let mut y = first.clone();
        for block in &self.blocks {
            y = block.forward(tape, &y)?;
        }
        y = self.second.forward(tape, &y)?;
        y = tape.add(&y, &first)?;
        drop(first);
        y = self.last.forward(tape, &y)?;
        tape.pixel_shuffle(&y, self.config.scale)
    }

    fn reach(&self) -> usize {
        BLOCK * (1 + self.config.depth * self.config.blocks + 2)
    }

    fn scale(&self) -> usize {
        self.config.scale
    }

    fn floats_per_pixel(&self) -> usize {
        // The first features, those of a block and two within it; or the image around the shuffle.
        let (features, image) =
            (4 * self.config.channels, 3 * self.config.scale * self.config.scale);
        features.max(3 * image)
    }
}

impl Kind for Errn2Config {
    const KEYS: &'static [&'static str] =
        &["conv_1.weight", "block_1.rep1.rep_conv.weight", "conv_2.weight", "upsampler.0.weight"];
    const DIRECT: bool = true;

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Errn2::network(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        Some(Self {
            channels: s.dim("conv_1.weight", 0)?,
            blocks: s.count(|i| format!("block_{}.rep1.rep_conv.weight", i + 1)),
            depth: s.count(|i| format!("block_1.rep{}.rep_conv.weight", i + 1)),
            scale: s.shuffle("upsampler.0.weight")?,
        })
    }

    fn narrow() -> Self {
        Self { channels: 8, blocks: 2, depth: 3, scale: 2 }
    }
}
