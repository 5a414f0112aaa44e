//! SPANV2, fastest of the NTIRE 2026 challenge on efficient super-resolution: low resolution straight to high.
//!
//! ```text
//! near = depthwise3 x, 3 s s channels of which each colour has s s
//! Block x:   o = conv3(relu(conv3(relu(conv3 x))));   the first gives relu(o), others (x + o) (conv1 o)
//! y = shuffle(conv1(depthwise3 [near, f_5]))
//! ```
//!
//! All at the low resolution, and without biases but for those of the gates `conv1 o`. 139,104 parameters for
//! a factor of 4.
use serde::{Deserialize, Serialize};

use super::direct::{BLOCK, Direct, Upscale};
use super::{Kind, Network, Shapes};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::nn::{Conv2d, DepthwiseConv2d, Init};

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanV2Config {
    /// Channels of the features.
    pub channels: usize,
    /// Blocks, the first among them.
    pub blocks: usize,
    /// The factor between low and high resolution.
    pub scale: usize,
}

impl Default for SpanV2Config {
    fn default() -> Self {
        Self { channels: 32, blocks: 5, scale: 4 }
    }
}

#[derive(Debug)]
struct Block {
    convs: [Conv2d; 3],
    /// Not of the first block.
    gate: Option<Conv2d>,
}

impl Block {
    fn new(init: &mut Init, inputs: usize, c: usize, gated: bool) -> Self {
        let conv = |init: &mut Init, k: usize, inputs| {
            Conv2d::unbiased(init, &format!("c{k}.conv"), inputs, c, 3)
        };
        let convs = [conv(init, 1, inputs).relu(), conv(init, 2, c).relu(), conv(init, 3, c)];
        let gate = gated.then(|| Conv2d::same(init, "guidance_map_conv", c, c, 1));
        Self { convs, gate }
    }

    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let mut o = x.clone();
        for conv in &self.convs {
            o = conv.forward(tape, &o)?;
        }
        match &self.gate {
            None => tape.relu(&o),
            Some(gate) => {
                let gate = gate.forward(tape, &o)?;
                o = tape.add(x, &o)?;
                tape.multiply(&o, &gate)
            }
        }
    }
}

/// The layers: see the [module](self).
#[derive(Debug)]
pub struct SpanV2 {
    config: SpanV2Config,
    near: DepthwiseConv2d,
    blocks: Vec<Block>,
    depthwise: DepthwiseConv2d,
    pointwise: Conv2d,
}

impl SpanV2 {
    /// A network whose initial weights are a function of `seed`.
    pub fn network(config: &SpanV2Config, seed: u64) -> Direct<Self> {
        Direct::new(seed, |init| Self::new(init, config))
    }

    fn new(init: &mut Init, config: &SpanV2Config) -> Self {
        let (c, image) = (config.channels, 3 * config.scale * config.scale);
        let block = |i: usize| {
            let inputs = if i == 0 { 3 } else { c };
            init.at(format!("block_{}", i + 1), |init| Block::new(init, inputs, c, i > 0))
        };
        let blocks = (0..config.blocks).map(block).collect();
        let near = DepthwiseConv2d::same(init, "conv_near", image, 3);
        let depthwise = DepthwiseConv2d::same(init, "depthwise_conv", image + c, 3);
        let pointwise = Conv2d::unbiased(init, "pointwise_conv", image + c, image, 1);
        Self { config: config.clone(), near, blocks, depthwise, pointwise }
    }
}

impl Upscale for SpanV2 {
    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        let mut y = low.clone();
        for block in &self.blocks {
            y = block.forward(tape, &y)?;
        }
        let near = self.near.forward(tape, low)?;
        y = tape.concat(&[&near, &y])?;
        drop(near);
        y = self.depthwise.forward(tape, &y)?;
        y = self.pointwise.forward(tape, &y)?;
        tape.pixel_shuffle(&y, self.config.scale)
    }

    fn reach(&self) -> usize {
        // Depthwise convolutions are plain sums.
        BLOCK * 3 * self.config.blocks + 1
    }

    fn scale(&self) -> usize {
        self.config.scale
    }

    fn floats_per_pixel(&self) -> usize {
        // The row of both and its convolution.
        let (features, image) = (self.config.channels, 3 * self.config.scale * self.config.scale);
        (2 * (features + image)).max(3 * image)
    }
}

impl Kind for SpanV2Config {
    const KEYS: &'static [&'static str] = &[
        "conv_near.weight",
        "block_1.c1.conv.weight",
        "block_2.guidance_map_conv.weight",
        "depthwise_conv.weight",
        "pointwise_conv.weight",
    ];
    const DIRECT: bool = true;

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(SpanV2::network(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        Some(Self {
            channels: s.dim("block_2.guidance_map_conv.weight", 0)?,
            blocks: s.count(|i| format!("block_{}.c1.conv.weight", i + 1)),
            scale: s.shuffle("conv_near.weight")?,
        })
    }

    fn narrow() -> Self {
        Self { channels: 8, blocks: 2, scale: 3 }
    }
}
