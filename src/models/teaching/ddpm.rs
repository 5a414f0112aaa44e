//! A small UNet that predicts the noise of DDPM (Ho et al. 2020), without a condition: the residual blocks and
//! the attention of [SR3's](crate::models::sr3_unet), with attention on every level.
//!
//! ```text
//! t -> sin, cos (the last frequency 1/10000) -> linear 4c -> SiLU -> linear c       (added once in each block)
//! x_t -> conv3 -> levels: block, attention; strided conv3 between
//!     -> block, attention, block -> levels: [x, kept] block, attention; nearest x2 and conv3 between
//!     -> norm, SiLU, conv3
//! ```
//!
//! One map is kept a level. Sides must be divisible by 2 for each level but the first: 28 for three.
use serde::{Deserialize, Serialize};

use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::{Geometry, Module, Network};
use crate::nn::attention::SelfAttention;
use crate::nn::residual::{ResidualBlock, Stage};
use crate::nn::unet::{Layer, Side, UNet};
use crate::nn::{Conv2d, GroupNorm, Init, Linear};
use crate::ops::conv2d;
use crate::ops::time_embedding::TimeEmbedding;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DdpmUNetConfig {
    /// Channels at full resolution, and width of the embedding of t.
    pub base: usize,
    /// The width of each level in multiples of `base`.
    pub multipliers: Vec<usize>,
    /// Groups of the norms.
    pub groups: usize,
}

impl Default for DdpmUNetConfig {
    fn default() -> Self {
        Self { base: 32, multipliers: vec![1, 2, 2], groups: 8 }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct DdpmUNet {
    base: usize,
    levels: usize,
    time: [Linear; 2],
    unet: UNet,
    parameters: Vec<Parameter>,
}

impl DdpmUNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &DdpmUNetConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let c = config.base;
        let time = init.at("time", |init| {
            [Linear::new(init, "0", c, 4 * c), Linear::new(init, "2", 4 * c, c)]
        });
        let mut build = Builder { init: &mut init, config, unet: UNet::default(), channels: 1 };
        build.all();
        let unet = build.unet;
        Self {
            base: c,
            levels: config.multipliers.len().max(1),
            time,
            unet,
            parameters: init.finish(),
        }
    }
}

impl Module for DdpmUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

/// A network of the same chains as those of super-resolution, for which there is no condition.
impl Network for DdpmUNet {
    /// Nothing.
    fn condition(&self, _low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        Tensor::zeros_as(y0, &[1])
    }

    /// The noise in `x` `[N, H, W, 1]` at the steps `t` `[N]`.
    fn forward(&self, tape: &mut Tape, x: &Var, _condition: &Var, t: &Tensor) -> Result<Var> {
        let embedded = TimeEmbedding::SinCosToEnd.of_tensor(t, self.base, x.value().dtype())?;
        let mut time = tape.input(embedded);
        time = self.time[0].forward(tape, &time)?;
        time = tape.silu(&time)?;
        time = self.time[1].forward(tape, &time)?;
        self.unet.forward(tape, x.clone(), Some(&time))
    }

    fn channels(&self) -> usize {
        1
    }

    fn geometry(&self) -> Geometry {
        Geometry { align: 1 << (self.levels - 1), receptive_field: None }
    }

    /// Attention over the whole map on every level, and some maps of each block.
    fn floats_per_pixel(&self) -> usize {
        16 * self.base
    }
}

/// Appends layers and counts channels along.
struct Builder<'a> {
    init: &'a mut Init,
    config: &'a DdpmUNetConfig,
    unet: UNet,
    channels: usize,
}

impl Builder<'_> {
    fn all(&mut self) {
        let widths: Vec<usize> =
            self.config.multipliers.iter().map(|m| m * self.config.base).collect();
        let levels = widths.len();
        self.conv("stem", self.config.base, 1);
        for (level, &width) in widths.iter().enumerate() {
            self.block(&format!("down.{level}"), width, true);
            self.unet.push(Layer::Keep);
            if level + 1 < levels {
                self.conv(&format!("down.{level}.conv"), width, 2);
            }
        }
        self.block("mid.0", self.channels, true);
        self.block("mid.1", self.channels, false);
        for (level, &width) in widths.iter().enumerate().rev() {
            self.unet.push(Layer::Join(Side::Behind));
            self.channels += width;
            self.block(&format!("up.{level}"), width, true);
            if level > 0 {
                self.unet.push(Layer::Nearest);
                self.conv(&format!("up.{level}.conv"), width, 1);
            }
        }
        let (from, groups) = (self.channels, self.config.groups);
        let last = self.init.at("last", |init| {
            let norm = GroupNorm::new(init, "0", groups, from);
            Stage::new(norm, Conv2d::same(init, "2", from, 1, 3), None)
        });
        self.unet.push(Layer::Stage(last));
    }

    fn conv(&mut self, name: &str, outputs: usize, stride: usize) {
        let op = conv2d::Conv2d { stride, ..conv2d::Conv2d::same(3) };
        let conv = Conv2d::new(self.init, name, [self.channels, outputs, 3], op);
        self.unet.push(Layer::Conv(conv));
        self.channels = outputs;
    }

    fn block(&mut self, name: &str, outputs: usize, attends: bool) {
        let (inputs, base, groups) = (self.channels, self.config.base, self.config.groups);
        let (block, attention) = self.init.at(name, |init| {
            let block =
                init.at("block", |init| ResidualBlock::ddpm(init, [inputs, outputs], base, groups));
            let attention = attends
                .then(|| init.at("attn", |init| SelfAttention::new(init, outputs, 1, groups)));
            (block, attention)
        });
        self.unet.push(Layer::Block(block));
        if let Some(attention) = attention {
            self.unet.push(Layer::Attention(attention));
        }
        self.channels = outputs;
    }
}
