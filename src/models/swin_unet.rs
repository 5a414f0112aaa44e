//! The UNet of ResShift (Yue et al. 2023) as its public implementation has it
//! (github.com/zsyOAOA/ResShift): guided diffusion's residual blocks, and Swin layers in place of
//! attention over the whole map. It works on latents and predicts the clean one.
//!
//! ```text
//! t -> cos, sin -> linear 4c -> SiLU -> linear 4c -> SiLU       (scales and shifts in each block)
//! low -> (conv3 -> SiLU -> strided conv3) for every halving down to the latent's size
//! [x_t, low] -> conv3 -> levels of blocks, a Swin layer behind the first, strided conv3 between
//!     -> block, Swin layer, block
//!     -> levels of one block more, a Swin layer behind the first, nearest x2 and conv3 between
//!     -> norm, SiLU, conv3
//! ```
//!
//! The output of every layer on the way down is joined to the input of a block on the way up.
//!
//! 118,593,583 parameters for a factor of 4, where the low-resolution image has the latent's size;
//! 118,640,431 for 2, 118,714,399 for filling in (the image itself and a mask), 118,931,604 for faces (the
//! image itself, and latents of 8 channels).
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::vq::{Vq, VqConfig};
use super::weights::WeightsFile;
use super::{Assumption, FrozenPart, Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::residual::{ResidualBlock, Stage};
use crate::nn::swin::{SwinLayer, SwinSizes};
use crate::nn::unet::{Layer, Side, UNet};
use crate::nn::{Conv2d, GroupNorm, Init, Linear};
use crate::ops::conv2d;
use crate::ops::time_embedding::TimeEmbedding;
use crate::ops::window_attention::Mask;

/// What the names of the first stage start with.
pub const FIRST_STAGE: &str = "first_stage";

/// Groups of all norms.
const GROUPS: usize = 32;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwinUNetConfig {
    /// Channels of the first level; 160 as published.
    pub base: usize,
    /// The width of each level in multiples of `base`.
    pub multipliers: Vec<usize>,
    /// Blocks of each level on the way down; one more on the way up.
    pub blocks: Vec<usize>,
    /// The nominal resolutions whose first blocks are followed by a Swin layer; the middle always has one.
    pub attention: Vec<usize>,
    /// The side of the latents that nominal resolutions are counted from.
    pub image_size: usize,
    /// The side of the low-resolution images that belong to such latents.
    pub low_size: usize,
    /// Channels inside a Swin layer.
    pub swin_channels: usize,
    /// Channels of a head.
    pub head_channels: usize,
    /// Side of a window.
    pub window: usize,
    /// Blocks of a Swin layer.
    pub depth: usize,
    /// Which pixels of a shifted window do not see each other; published weights need
    /// `published`.
    pub mask: Mask,
    /// The width inside the blocks' two last convolutions in multiples of `swin_channels`.
    pub mlp_ratio: usize,
    /// Channels of the low-resolution image, with a mask if there is one.
    pub low_channels: usize,
    /// Channels of the latent.
    pub latent_channels: usize,
    /// The factor between low and high resolution.
    pub scale: usize,
    /// The sizes of the autoencoder that makes the latents, where the network is to come with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<VqConfig>,
}

impl Default for SwinUNetConfig {
    /// A factor of 4.
    fn default() -> Self {
        Self {
            base: 160,
            multipliers: vec![1, 2, 2, 4],
            blocks: vec![2, 2, 2, 2],
            attention: vec![64, 32, 16, 8],
            image_size: 64,
            low_size: 64,
            swin_channels: 192,
            head_channels: 32,
            window: 8,
            depth: 2,
            mask: Mask::default(),
            mlp_ratio: 4,
            low_channels: 3,
            latent_channels: 3,
            scale: 4,
            autoencoder: None,
        }
    }
}

impl SwinUNetConfig {
    /// How often the low-resolution image is halved to the latent's size.
    fn halvings(&self) -> usize {
        let mut halvings = 0;
        while self.image_size << (halvings + 1) <= self.low_size && self.image_size > 0 {
            halvings += 1;
        }
        halvings
    }

    /// Blocks of a level on the way down.
    fn blocks_of(&self, level: usize) -> usize {
        self.blocks.get(level).copied().unwrap_or(0)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct SwinUNet {
    config: SwinUNetConfig,
    time: [Linear; 2],
    /// Two convolutions for every halving of the low-resolution image.
    features: Vec<[Conv2d; 2]>,
    unet: UNet,
    parameters: Vec<Parameter>,
    /// The autoencoder, and its parameters: files hold them, training leaves them alone.
    first_stage: Option<Arc<Vq>>,
    frozen: Vec<Parameter>,
}

impl SwinUNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &SwinUNetConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let c = config.base;
        let time = init.at("time_embed", |init| {
            [Linear::new(init, "0", c, 4 * c), Linear::new(init, "2", 4 * c, 4 * c)]
        });
        let (features, channels) = features(&mut init, config);
        let mut build = Builder {
            init: &mut init,
            config,
            unet: UNet::default(),
            channels: config.latent_channels + channels,
            kept: Vec::new(),
            resolution: config.image_size,
        };
        build.way_down();
        build.middle();
        build.way_up();
        let unet = build.unet;
        let parameters = init.finish();
        let first_stage = config.autoencoder.as_ref();
        let first_stage = first_stage.map(|sizes| Arc::new(Vq::below(FIRST_STAGE, sizes, seed)));
        let frozen = first_stage.as_ref().map_or_else(Vec::new, |vq| vq.parameters().to_vec());
        Self { config: config.clone(), time, features, unet, parameters, first_stage, frozen }
    }
}

/// What brings the low-resolution image to the latent's size, and the channels it then has.
fn features(init: &mut Init, config: &SwinUNetConfig) -> (Vec<[Conv2d; 2]>, usize) {
    let (mut inputs, mut width) = (config.low_channels, 16);
    let layers = init.at("feature_extractor", |init| {
        let halving = |i: usize| {
            let conv = Conv2d::same(init, &(3 * i).to_string(), inputs, width, 3);
            let down = strided(init, &format!("{}.op", 3 * i + 2), width, 2 * width);
            width *= 2;
            inputs = width;
            [conv, down]
        };
        (0..config.halvings()).map(halving).collect()
    });
    (layers, inputs)
}

/// A convolution of three taps that halves height and width.
fn strided(init: &mut Init, name: &str, inputs: usize, outputs: usize) -> Conv2d {
    let op = conv2d::Conv2d { stride: 2, ..conv2d::Conv2d::same(3) };
    Conv2d::new(init, name, [inputs, outputs, 3], op)
}

/// Appends layers under their published names and counts channels and nominal resolution along.
struct Builder<'a> {
    init: &'a mut Init,
    config: &'a SwinUNetConfig,
    unet: UNet,
    channels: usize,
    kept: Vec<usize>,
    resolution: usize,
}

impl Builder<'_> {
    fn way_down(&mut self) {
        let config = self.config;
        let mut names = (0..).map(|i| format!("input_blocks.{i}"));
        let mut name = || names.next().unwrap_or_default();
        let stem = Conv2d::same(self.init, &format!("{}.0", name()), self.channels, config.base, 3);
        self.unet.push(Layer::Conv(stem));
        self.channels = config.base;
        self.keep();
        for (level, multiplier) in config.multipliers.iter().enumerate() {
            for i in 0..config.blocks_of(level) {
                self.level_block(&name(), multiplier * config.base, i == 0);
                self.keep();
            }
            if level + 1 < config.multipliers.len() {
                let c = self.channels;
                let down = strided(self.init, &format!("{}.0.op", name()), c, c);
                self.unet.push(Layer::Conv(down));
                self.keep();
                self.resolution /= 2;
            }
        }
    }

    fn middle(&mut self) {
        self.block("middle_block.0", self.channels);
        self.swin("middle_block.1");
        self.block("middle_block.2", self.channels);
    }

    fn way_up(&mut self) {
        let config = self.config;
        let mut names = (0..).map(|i| format!("output_blocks.{i}"));
        for (level, multiplier) in config.multipliers.iter().enumerate().rev() {
            let blocks = config.blocks_of(level);
            for i in 0..=blocks {
                let name = names.next().unwrap_or_default();
                self.channels += self.kept.pop().unwrap_or(0);
                self.unet.push(Layer::Join(Side::Behind));
                let layers = self.level_block(&name, multiplier * config.base, i == 0);
                if level > 0 && i == blocks {
                    self.unet.push(Layer::Nearest);
                    let (c, name) = (self.channels, format!("{name}.{layers}.conv"));
                    let conv = Conv2d::same(self.init, &name, c, c, 3);
                    self.unet.push(Layer::Conv(conv));
                    self.resolution *= 2;
                }
            }
        }
        let (from, to) = (self.channels, config.latent_channels);
        let last = self.init.at("out", |init| {
            let norm = GroupNorm::new(init, "0", GROUPS, from);
            Stage::new(norm, Conv2d::same(init, "2", from, to, 3), None)
        });
        self.unet.push(Layer::Stage(last));
    }

    /// A block, and a Swin layer if it is the `first` of its level and the nominal resolution asks for it;
    /// returns how many layers that were.
    fn level_block(&mut self, name: &str, outputs: usize, first: bool) -> usize {
        self.block(&format!("{name}.0"), outputs);
        let attends = first && self.config.attention.contains(&self.resolution);
        if attends {
            self.swin(&format!("{name}.1"));
        }
        1 + usize::from(attends)
    }

    fn block(&mut self, name: &str, outputs: usize) {
        let (inputs, time_dim) = (self.channels, 4 * self.config.base);
        let block = self
            .init
            .at(name, |init| ResidualBlock::guided(init, [inputs, outputs], time_dim, GROUPS));
        self.unet.push(Layer::Block(block));
        self.channels = outputs;
    }

    fn swin(&mut self, name: &str) {
        let config = self.config;
        let sizes = SwinSizes {
            channels: config.swin_channels,
            hidden: config.mlp_ratio * config.swin_channels,
            heads: config.swin_channels / config.head_channels.max(1),
            window: config.window,
            depth: config.depth,
            mask: config.mask,
        };
        let (channels, resolution) = (self.channels, self.resolution);
        let layer = self.init.at(name, |init| SwinLayer::new(init, channels, resolution, sizes));
        self.unet.push(Layer::Swin(layer));
    }

    fn keep(&mut self) {
        self.kept.push(self.channels);
        self.unet.push(Layer::Keep);
    }
}

impl Module for SwinUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// The first stage.
    fn buffers(&self) -> &[Parameter] {
        &self.frozen
    }
}

impl Network for SwinUNet {
    /// The low-resolution image itself.
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let dtype = x.value().dtype();
        let embedded = TimeEmbedding::CosSin.of_tensor(t, self.config.base, dtype)?;
        let mut time = tape.input(embedded);
        for linear in &self.time {
            time = linear.forward(tape, &time)?;
            time = tape.silu(&time)?;
        }
        let mut low = condition.clone();
        for [conv, down] in &self.features {
            low = conv.forward(tape, &low)?;
            low = tape.silu(&low)?;
            low = down.forward(tape, &low)?;
        }
        let input = tape.concat(&[x, &low])?;
        self.unet.forward(tape, input, Some(&time))
    }

    fn moves_buffers(&self) -> bool {
        false
    }

    fn frozen_part(&self) -> Option<&'static str> {
        self.first_stage.as_ref().map(|_| "autoencoder")
    }

    /// From the weights of an autoencoder alone, or of a network like this one.
    fn load_frozen(&self, file: &WeightsFile, name: &str) -> Result<()> {
        file.below(FIRST_STAGE).apply(&self.frozen, name)
    }

    fn first_stage(&self) -> Option<&Arc<Vq>> {
        self.first_stage.as_ref()
    }

    /// Halvings between levels down to whole windows, of the latent; the norms see the whole map.
    fn geometry(&self) -> Geometry {
        let config = &self.config;
        let levels: usize = config.multipliers.iter().skip(1).map(|_| 2).product();
        let align = (levels * config.window) << config.halvings();
        Geometry { align: align.max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        self.floats(VqConfig::floats_per_pixel)
    }

    fn floats_on_gpu(&self) -> usize {
        self.floats(VqConfig::floats_on_gpu)
    }
}

impl SwinUNet {
    /// Floats that a call keeps alive where the first stage keeps `of_first` for each pixel of the image.
    fn floats(&self, of_first: fn(&VqConfig) -> usize) -> usize {
        // The kept maps, of which those of the lower levels are half as much again and more; beside them
        // the inside of a Swin block, or of the last level's blocks, whose inputs are joined ones.
        let c = &self.config;
        let kept = 2 * (c.blocks_of(0) + 2) * c.base;
        let inside = ((2 * c.mlp_ratio + 3) * c.swin_channels).max(10 * c.base);
        let per_latent = kept + inside;
        let area = 1 << (2 * c.halvings());
        let network = per_latent.div_ceil(area) + 48 * usize::from(c.halvings() > 0);
        // The first stage computes in F32 whatever the network does.
        let words = 4usize.div_ceil(self.dtype().size());
        let first = c.autoencoder.as_ref().map_or(0, |vq| c.scale * c.scale * of_first(vq) * words);
        network.max(first)
    }
}

/// The side of the latents that nominal resolutions of the published networks are counted from.
const IMAGE: usize = 64;

/// A level of the UNet on the way down.
struct Level {
    width: usize,
    blocks: usize,
    attends: bool,
}

/// Blocks in a row, a strided convolution between two levels.
fn levels(s: &Shapes) -> Vec<Level> {
    let fresh = || Level { width: 0, blocks: 0, attends: false };
    let mut levels = vec![fresh()];
    for i in 1.. {
        let name = format!("input_blocks.{i}");
        let width = s.dim(&format!("{name}.0.out_layers.3.weight"), 0);
        match (width, levels.last_mut()) {
            (Some(width), Some(level)) => {
                level.width = width;
                level.blocks += 1;
                level.attends |= s.dim(&format!("{name}.1.patch_embed.proj.weight"), 0).is_some();
            }
            _ if s.dim(&format!("{name}.0.op.weight"), 0).is_some() => levels.push(fresh()),
            _ => break,
        }
    }
    levels
}

/// The sizes of an autoencoder whose names begin with `prefix`; none if there is none.
fn autoencoder(s: &Shapes, prefix: &str) -> Option<VqConfig> {
    let dim = |name: &str, axis: usize| s.dim(&format!("{prefix}{name}"), axis);
    let channels = dim("encoder.conv_in.weight", 0)?;
    let width = |i: usize| dim(&format!("encoder.down.{i}.block.0.conv2.weight"), 0);
    let widths: Vec<usize> = (0..8).map_while(width).collect();
    let resolution = VqConfig::default().resolution;
    let attends = |i: &usize| dim(&format!("encoder.down.{i}.attn.0.norm.weight"), 0).is_some();
    Some(VqConfig {
        channels,
        blocks: s.count(|i| format!("{prefix}encoder.down.0.block.{i}.norm1.weight")),
        attention: (0..widths.len()).filter(attends).map(|i| resolution >> i).collect(),
        multipliers: widths.iter().map(|w| w / channels).collect(),
        resolution,
        inner_channels: dim("encoder.conv_out.weight", 0)?,
        latent_channels: dim("quant_conv.weight", 0)?,
        codes: dim("quantize.embedding.weight", 0)?,
        image_channels: dim("encoder.conv_in.weight", 1)?,
    })
}

impl Kind for SwinUNetConfig {
    const KEYS: &'static [&'static str] = &[
        "time_embed.0.weight",
        "input_blocks.0.0.weight",
        "middle_block.1.patch_embed.proj.weight",
        "out.2.weight",
    ];
    const ASSUMED: &'static [Assumption] = &[Assumption {
        keys: &["image_size"],
        what: "nominal resolutions counted from latents of 64x64 (model.image_size)",
    }];
    const MEANING: &'static [&'static str] = &["mask"];
    const FROZEN: Option<FrozenPart> =
        Some(FrozenPart { prefix: "first_stage.", key: "encoder.conv_in.weight" });

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(SwinUNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let base = s.dim("input_blocks.0.0.weight", 0)?;
        let levels = levels(s);
        if levels.len() > 6 {
            return None;
        }
        let latent_channels = s.dim("out.2.weight", 0)?;
        let halvings = s.count(|i| format!("feature_extractor.{}.op.weight", 3 * i + 2));
        let low_channels = match s.dim("feature_extractor.0.weight", 1) {
            Some(channels) => channels,
            None => s.dim("input_blocks.0.0.weight", 1)?.checked_sub(latent_channels)?,
        };
        // Every Swin layer has the same sizes.
        let block = "middle_block.1.blocks.0";
        let swin_channels = s.dim("middle_block.1.patch_embed.proj.weight", 0)?;
        let table = format!("{block}.attn.relative_position_bias_table");
        let (offsets, heads) = (s.dim(&table, 0)?, s.dim(&table, 1)?);
        let attending = levels.iter().enumerate().filter(|(_, level)| level.attends);
        let autoencoder = autoencoder(s, &format!("{FIRST_STAGE}."));
        let low_size = IMAGE << halvings;
        let factor = autoencoder.as_ref().map_or(4, VqConfig::factor);
        Some(Self {
            base,
            multipliers: levels.iter().map(|l| l.width.checked_div(base)).collect::<Option<_>>()?,
            blocks: levels.iter().map(|l| l.blocks).collect(),
            attention: attending.map(|(i, _)| IMAGE >> i).collect(),
            image_size: IMAGE,
            low_size,
            swin_channels,
            head_channels: swin_channels.checked_div(heads)?,
            // (2 window - 1)^2 offsets.
            window: offsets.isqrt().div_ceil(2),
            depth: s.count(|i| format!("middle_block.1.blocks.{i}.norm1.weight")),
            mask: Mask::Published,
            mlp_ratio: s.dim(&format!("{block}.mlp.fc1.weight"), 0)?.checked_div(swin_channels)?,
            low_channels,
            latent_channels,
            scale: (IMAGE * factor / low_size).max(1),
            autoencoder,
        })
    }

    /// With its autoencoder.
    fn narrow() -> Self {
        Self {
            base: 32,
            multipliers: vec![1, 2],
            blocks: vec![1, 1],
            attention: vec![IMAGE, IMAGE / 2],
            swin_channels: 32,
            window: 4,
            mlp_ratio: 1,
            mask: Mask::Published,
            autoencoder: Some(VqConfig {
                channels: 32,
                multipliers: vec![1, 1, 1],
                blocks: 1,
                codes: 64,
                ..VqConfig::default()
            }),
            ..Self::default()
        }
    }

    fn is_whole(&self) -> bool {
        self.autoencoder.is_some()
    }
}
