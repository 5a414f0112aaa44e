//! The UNet of SR3 (Saharia et al. 2021) as its public implementation has it
//! (github.com/Janspiry/Image-Super-Resolution-via-Iterative-Refinement): DDPM's residual blocks, told
//! the noise level `sqrt(alpha_bar_t)` instead of t. It predicts the noise.
//!
//! ```text
//! noise level -> sin, cos -> linear 4c -> SiLU -> linear c         (added once in each block)
//! [y0 3, x_t 3] -> conv3 -> levels of `blocks` blocks, strided conv3 between
//!     -> block, attention, block -> levels of `blocks + 1` blocks, nearest x2 and conv3 between
//!     -> norm, SiLU, conv3
//! ```
//!
//! The output of every layer on the way down is joined to the input of a block on the way up. Attention,
//! of one head, follows the blocks whose nominal resolution is in `attention`: that of a
//! map if images had `image_size` pixels a side, whatever size they have.
//!
//! 97,807,491 parameters for 16 to 128 pixels, 155,334,339 for 64 to 512. The paper's own networks,
//! with BigGAN blocks and 550 to 625 million parameters, were not published.
use serde::{Deserialize, Serialize};

use super::{Assumption, Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::attention::SelfAttention;
use crate::nn::residual::{ResidualBlock, Stage};
use crate::nn::unet::{Layer, Side, UNet};
use crate::nn::{Conv2d, GroupNorm, Init, Linear};
use crate::ops::conv2d;
use crate::ops::time_embedding::TimeEmbedding;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sr3UNetConfig {
    /// Channels at full resolution, and width of the noise level's embedding; 64 as published.
    pub base: usize,
    /// The width of each level in multiples of `base`.
    pub multipliers: Vec<usize>,
    /// Blocks of a level on the way down; one more on the way up.
    pub blocks: usize,
    /// Groups of the norms.
    pub groups: usize,
    /// The nominal resolutions whose blocks are followed by attention; the middle always has it.
    pub attention: Vec<usize>,
    /// The side of the images that nominal resolutions are counted from.
    pub image_size: usize,
    /// Channels of y0 and the state together.
    pub input_channels: usize,
    /// Channels of the prediction.
    pub output_channels: usize,
    /// The factor between low and high resolution; the network itself works at the high one.
    pub scale: usize,
}

impl Default for Sr3UNetConfig {
    /// 16 to 128 pixels.
    fn default() -> Self {
        Self {
            base: 64,
            multipliers: vec![1, 2, 4, 8, 8],
            blocks: 2,
            groups: 32,
            attention: vec![16],
            image_size: 128,
            input_channels: 6,
            output_channels: 3,
            scale: 8,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Sr3UNet {
    config: Sr3UNetConfig,
    noise_level: [Linear; 2],
    unet: UNet,
    parameters: Vec<Parameter>,
}

impl Sr3UNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &Sr3UNetConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let c = config.base;
        let noise_level = init.at("noise_level_mlp", |init| {
            [Linear::new(init, "1", c, 4 * c), Linear::new(init, "3", 4 * c, c)]
        });
        let mut build = Builder {
            init: &mut init,
            config,
            unet: UNet::default(),
            channels: config.input_channels,
            kept: Vec::new(),
            resolution: config.image_size,
        };
        build.way_down();
        build.middle();
        build.way_up();
        let unet = build.unet;
        Self { config: config.clone(), noise_level, unet, parameters: init.finish() }
    }
}

/// Appends layers under their published names and counts channels and nominal resolution along.
struct Builder<'a> {
    init: &'a mut Init,
    config: &'a Sr3UNetConfig,
    unet: UNet,
    channels: usize,
    kept: Vec<usize>,
    resolution: usize,
}

impl Builder<'_> {
    fn way_down(&mut self) {
        let config = self.config;
        let mut names = (0..).map(|i| format!("downs.{i}"));
        let mut name = || names.next().unwrap_or_default();
        self.conv(&name(), config.base, 1);
        self.keep();
        for (level, multiplier) in config.multipliers.iter().enumerate() {
            for _ in 0..config.blocks {
                self.level_block(&name(), multiplier * config.base);
                self.keep();
            }
            if level + 1 < config.multipliers.len() {
                self.conv(&format!("{}.conv", name()), self.channels, 2);
                self.keep();
                self.resolution /= 2;
            }
        }
    }

    fn middle(&mut self) {
        self.block("mid.0", self.channels, true);
        self.block("mid.1", self.channels, false);
    }

    fn way_up(&mut self) {
        let config = self.config;
        let mut names = (0..).map(|i| format!("ups.{i}"));
        let mut name = || names.next().unwrap_or_default();
        for (level, multiplier) in config.multipliers.iter().enumerate().rev() {
            for _ in 0..=config.blocks {
                self.channels += self.kept.pop().unwrap_or(0);
                self.unet.push(Layer::Join(Side::Behind));
                self.level_block(&name(), multiplier * config.base);
            }
            if level > 0 {
                self.unet.push(Layer::Nearest);
                self.conv(&format!("{}.conv", name()), self.channels, 1);
                self.resolution *= 2;
            }
        }
        let (from, to, groups) = (self.channels, config.output_channels, config.groups);
        let last = self.init.at("final_conv.block", |init| {
            let norm = GroupNorm::new(init, "0", groups, from);
            Stage::new(norm, Conv2d::same(init, "3", from, to, 3), None)
        });
        self.unet.push(Layer::Stage(last));
    }

    fn conv(&mut self, name: &str, outputs: usize, stride: usize) {
        let op = conv2d::Conv2d { stride, ..conv2d::Conv2d::same(3) };
        let conv = Conv2d::new(self.init, name, [self.channels, outputs, 3], op);
        self.unet.push(Layer::Conv(conv));
        self.channels = outputs;
    }

    /// A block with attention if the nominal resolution asks for it.
    fn level_block(&mut self, name: &str, outputs: usize) {
        self.block(name, outputs, self.config.attention.contains(&self.resolution));
    }

    fn block(&mut self, name: &str, outputs: usize, attends: bool) {
        let (inputs, base, groups) = (self.channels, self.config.base, self.config.groups);
        let (block, attention) = self.init.at(name, |init| {
            let block = init
                .at("res_block", |init| ResidualBlock::ddpm(init, [inputs, outputs], base, groups));
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

    fn keep(&mut self) {
        self.kept.push(self.channels);
        self.unet.push(Layer::Keep);
    }
}

impl Module for Sr3UNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for Sr3UNet {
    fn condition(&self, _low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        y0.try_clone()
    }

    /// `t` are noise levels, not steps.
    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let dtype = x.value().dtype();
        let embedded = TimeEmbedding::SinCos.of_tensor(t, self.config.base, dtype)?;
        let mut level = tape.input(embedded);
        level = self.noise_level[0].forward_silu(tape, &level)?;
        level = self.noise_level[1].forward(tape, &level)?;
        let input = tape.concat(&[condition, x])?;
        self.unet.forward(tape, input, Some(&level))
    }

    /// A halving between any two levels; the norms, and attention, see the whole map.
    fn geometry(&self) -> Geometry {
        let whole: usize = self.config.multipliers.iter().skip(1).map(|_| 2).product();
        Geometry { align: (whole / self.config.scale).max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        // The kept maps, of which those of the lower levels are half as much again and more, beside
        // the inside of a block.
        let c = &self.config;
        (2 * (c.blocks + 1) + 8) * c.base * c.scale * c.scale
    }
}

impl Kind for Sr3UNetConfig {
    const KEYS: &'static [&'static str] = &[
        "noise_level_mlp.1.weight",
        "downs.0.weight",
        "mid.0.attn.qkv.weight",
        "final_conv.block.3.weight",
    ];
    const ASSUMED: &'static [Assumption] =
        &[Assumption { keys: &["groups"], what: "groups of the norms (model.groups)" }];
    const MEANING: &'static [&'static str] = &["groups"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Sr3UNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    /// Levels of blocks, a strided convolution between two; attention by which blocks have it.
    fn of_shapes(s: &Shapes) -> Option<Self> {
        let base = s.dim("downs.0.weight", 0)?;
        let mut levels = vec![(0, 0, false)];
        for i in 1.. {
            let width = s.dim(&format!("downs.{i}.res_block.block1.block.3.weight"), 0);
            match (width, levels.last_mut()) {
                (Some(width), Some(level)) => {
                    let attends = s.dim(&format!("downs.{i}.attn.qkv.weight"), 0).is_some();
                    *level = (width, level.1 + 1, attends);
                }
                _ if s.dim(&format!("downs.{i}.conv.weight"), 0).is_some() => {
                    levels.push((0, 0, false))
                }
                _ => break,
            }
        }
        let multipliers: Vec<usize> =
            levels.iter().map(|l| l.0.checked_div(base)).collect::<Option<_>>()?;
        let blocks = levels[0].1;
        if levels.len() > 16 {
            return None;
        }
        // As published: 16 groups for one block a level and 16 times the width, 32 for the others.
        let usual = if blocks == 1 && multipliers.last() == Some(&16) { 16 } else { 32 };
        let groups = [usual, 16, 8, 4, 2, 1].into_iter().find(|g| base.is_multiple_of(*g))?;
        // Nominal resolutions only say which levels attend.
        let image_size = if levels.len() > 8 { 1 << levels.len() } else { 128 };
        let attending = levels.iter().enumerate().filter(|(_, level)| level.2);
        Some(Self {
            base,
            multipliers,
            blocks,
            groups,
            attention: attending.map(|(i, _)| image_size >> i).collect(),
            image_size,
            input_channels: s.dim("downs.0.weight", 1)?,
            output_channels: s.dim("final_conv.block.3.weight", 0)?,
            ..Self::default()
        })
    }

    fn narrow() -> Self {
        Self {
            base: 8,
            multipliers: vec![1, 2, 4],
            blocks: 1,
            groups: 8,
            attention: vec![64],
            ..Self::default()
        }
    }
}
