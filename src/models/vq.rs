//! The autoencoder of ResShift's latents: VQGAN (Esser et al. 2021) as latent diffusion uses it, with a
//! codebook. Images and latents are NHWC, images in `[-1, 1]`.
//!
//! ```text
//! encode   conv3 -> levels of `blocks` blocks, halved between -> block, attention, block
//!          -> norm, SiLU, conv3 -> conv1
//! decode   (nearest code ->) conv1 -> conv3 -> block, attention, block
//!          -> levels of `blocks + 1` blocks, nearest x2 and conv3 between -> norm, SiLU, conv3
//! ```
//!
//! `encode` gives the latent as it is; codes are looked up on the way back, where gradients pass straight
//! through. 55,322,782 parameters for a factor of 4 and codes of 3 numbers.
use serde::{Deserialize, Serialize};

use super::Module;
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::nn::attention::SelfAttention;
use crate::nn::residual::{ResidualBlock, Stage};
use crate::nn::unet::{Layer, UNet};
use crate::nn::{Conv2d, GroupNorm, Init};
use crate::ops::conv2d;

/// Groups of all norms, and what is added to their variances.
const GROUPS: usize = 32;
const EPS: f64 = 1e-6;

/// The sizes of the autoencoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VqConfig {
    /// Channels of the first level; 128 as published.
    pub channels: usize,
    /// The width of each level in multiples of `channels`; latents are halved once less.
    pub multipliers: Vec<usize>,
    /// Blocks of a level on the way to the latent; one more on the way back.
    pub blocks: usize,
    /// The nominal resolutions whose blocks are followed by attention; the middle always has it.
    pub attention: Vec<usize>,
    /// The side of the images that nominal resolutions are counted from.
    pub resolution: usize,
    /// Channels between the convolutions and those that lead to the codes and back.
    pub inner_channels: usize,
    /// Channels of the latent, numbers of a code.
    pub latent_channels: usize,
    /// Rows of the codebook.
    pub codes: usize,
    /// Channels of images.
    pub image_channels: usize,
}

impl Default for VqConfig {
    /// A factor of 4.
    fn default() -> Self {
        Self {
            channels: 128,
            multipliers: vec![1, 2, 4],
            blocks: 2,
            attention: vec![],
            resolution: 256,
            inner_channels: 3,
            latent_channels: 3,
            codes: 8192,
            image_channels: 3,
        }
    }
}

impl VqConfig {
    /// The factor between an image and its latent.
    pub const fn factor(&self) -> usize {
        1 << self.multipliers.len().saturating_sub(1)
    }

    /// Floats that encoding or decoding keeps alive at its peak, for each pixel of the image.
    pub const fn floats_per_pixel(&self) -> usize {
        // Measured at 256 x 256: 1570 for 128 channels.
        13 * self.channels
    }

    /// The same on a GPU, where what follows convolutions is part of them.
    pub const fn floats_on_gpu(&self) -> usize {
        6 * self.channels
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Vq {
    config: VqConfig,
    encoder: UNet,
    decoder: UNet,
    codes: Parameter,
    quant: Conv2d,
    post_quant: Conv2d,
    parameters: Vec<Parameter>,
}

impl Module for Vq {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Vq {
    /// An autoencoder whose initial weights are a function of `seed`.
    pub fn new(config: &VqConfig, seed: u64) -> Self {
        Self::build(config, Init::new(seed))
    }

    /// As [`new`](Self::new), with names that start with `prefix` and a dot.
    pub fn below(prefix: &str, config: &VqConfig, seed: u64) -> Self {
        Self::build(config, Init::new(seed).below(prefix))
    }

    fn build(config: &VqConfig, mut init: Init) -> Self {
        let encoder = init.at("encoder", |init| encoder(init, config));
        let decoder = init.at("decoder", |init| decoder(init, config));
        let (inner, latent) = (config.inner_channels, config.latent_channels);
        let codes = init.at("quantize.embedding", |init| {
            let bound = 1.0 / config.codes.max(1) as f64;
            init.uniform("weight", Layout::Plain, &[config.codes, latent], bound)
        });
        let quant = Conv2d::same(&mut init, "quant_conv", inner, latent, 1);
        let post_quant = Conv2d::same(&mut init, "post_quant_conv", latent, inner, 1);
        let parameters = init.finish();
        Self { config: config.clone(), encoder, decoder, codes, quant, post_quant, parameters }
    }

    /// Its sizes.
    pub const fn config(&self) -> &VqConfig {
        &self.config
    }

    /// The latent `[N, H / f, W / f, D]` of images `[N, H, W, 3]`, which f divides; not quantised.
    pub fn encode(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let latent = self.encoder.forward(tape, x.clone(), None)?;
        self.quant.forward(tape, &latent)
    }

    /// Latents with every pixel replaced by the nearest code.
    pub fn quantise(&self, tape: &mut Tape, latent: &Var) -> Result<Var> {
        let codes = tape.frozen(|tape| tape.parameter(&self.codes));
        tape.vq_nearest(latent, &codes)
    }

    /// The images `[N, f H, f W, 3]` of latents `[N, H, W, D]`, quantised first.
    pub fn decode(&self, tape: &mut Tape, latent: &Var) -> Result<Var> {
        let quantised = self.quantise(tape, latent)?;
        self.decode_as_is(tape, &quantised)
    }

    /// As [`decode`](Self::decode), of the latents as they are.
    pub fn decode_as_is(&self, tape: &mut Tape, latent: &Var) -> Result<Var> {
        let inner = self.post_quant.forward(tape, latent)?;
        self.decoder.forward(tape, inner, None)
    }
}

/// Appends layers and counts channels along.
struct Builder<'a> {
    init: &'a mut Init,
    layers: UNet,
    channels: usize,
}

impl Builder<'_> {
    fn conv(&mut self, name: &str, outputs: usize) {
        let conv = Conv2d::same(self.init, name, self.channels, outputs, 3);
        self.layers.push(Layer::Conv(conv));
        self.channels = outputs;
    }

    fn middle(&mut self) {
        let c = self.channels;
        let [first, attention, second] = self.init.at("mid", |init| {
            let block = |init: &mut Init, name: &str| {
                Layer::Block(init.at(name, |init| ResidualBlock::timeless(init, [c, c], GROUPS)))
            };
            let first = block(init, "block_1");
            let attention = init.at("attn_1", |init| SelfAttention::separate(init, c, GROUPS));
            [first, Layer::Attention(attention), block(init, "block_2")]
        });
        [first, attention, second].into_iter().for_each(|layer| self.layers.push(layer));
    }

    /// The blocks of a level, each followed by attention if it `attends`.
    fn level(&mut self, name: &str, count: usize, outputs: usize, attends: bool) -> Vec<Layer> {
        let mut channels = self.channels;
        let mut block = |i: usize| {
            let inputs = std::mem::replace(&mut channels, outputs);
            self.init.at(format!("{name}.block.{i}"), |init| {
                Layer::Block(ResidualBlock::timeless(init, [inputs, outputs], GROUPS))
            })
        };
        let blocks: Vec<Layer> = (0..count).map(&mut block).collect();
        let mut layers = Vec::new();
        for (i, block) in blocks.into_iter().enumerate() {
            layers.push(block);
            if attends {
                let attention = self.init.at(format!("{name}.attn.{i}"), |init| {
                    SelfAttention::separate(init, outputs, GROUPS)
                });
                layers.push(Layer::Attention(attention));
            }
        }
        self.channels = outputs;
        layers
    }

    fn last(mut self, outputs: usize) -> UNet {
        let norm = GroupNorm::new(self.init, "norm_out", GROUPS, self.channels).with_eps(EPS);
        let conv = Conv2d::same(self.init, "conv_out", self.channels, outputs, 3);
        self.layers.push(Layer::Stage(Stage::new(norm, conv, None)));
        self.layers
    }
}

fn encoder(init: &mut Init, config: &VqConfig) -> UNet {
    let mut build = Builder { init, layers: UNet::default(), channels: config.image_channels };
    build.conv("conv_in", config.channels);
    let levels = config.multipliers.len();
    for (level, multiplier) in config.multipliers.iter().enumerate() {
        let name = format!("down.{level}");
        let attends = config.attention.contains(&(config.resolution >> level));
        let layers = build.level(&name, config.blocks, multiplier * config.channels, attends);
        layers.into_iter().for_each(|layer| build.layers.push(layer));
        if level + 1 < levels {
            let (c, op) = (build.channels, conv2d::Conv2d { stride: 2, pad: 0, relu: false });
            let conv = Conv2d::new(build.init, &format!("{name}.downsample.conv"), [c, c, 3], op);
            build.layers.push(Layer::Halve(conv));
        }
    }
    build.middle();
    build.last(config.inner_channels)
}

fn decoder(init: &mut Init, config: &VqConfig) -> UNet {
    let width = |level: usize| config.multipliers.get(level).map(|m| m * config.channels);
    let levels = config.multipliers.len();
    let deepest = width(levels.saturating_sub(1)).unwrap_or(config.channels);
    let mut build = Builder { init, layers: UNet::default(), channels: config.inner_channels };
    build.conv("conv_in", deepest);
    build.middle();
    // Named from the image on, run from the latent on.
    let mut rows: Vec<Vec<Layer>> = Vec::new();
    for level in 0..levels {
        let (name, outputs) = (format!("up.{level}"), width(level).unwrap_or(deepest));
        build.channels = width(level + 1).unwrap_or(deepest);
        let attends = config.attention.contains(&(config.resolution >> level));
        let mut layers = build.level(&name, config.blocks + 1, outputs, attends);
        if level > 0 {
            let name = format!("{name}.upsample.conv");
            let conv = Conv2d::same(build.init, &name, outputs, outputs, 3);
            layers.extend([Layer::Nearest, Layer::Conv(conv)]);
        }
        rows.push(layers);
    }
    rows.into_iter().rev().flatten().for_each(|layer| build.layers.push(layer));
    build.channels = width(0).unwrap_or(deepest);
    build.last(config.image_channels)
}
