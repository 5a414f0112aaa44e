//! The UNet of a published "SR3" for DIV2K (github.com/oussamakharouiche/image-super-resolution): deep
//! BigGAN blocks, discrete steps t, self-attention at its lowest resolution. It predicts the noise.
//!
//! ```text
//! [y0 3, x_t 3] -> R x3 -> pool -> R x3 -> pool -> R x3 -> pool -> R x6 -> pool -> (R + attention) x6
//!     widths c        c             2c             4c             8c             16c
//! then up by transposed 2x2 convolutions, the skip before the map: R x6, x3, x3, x3, and R x3 with 3
//! channels, the last of which is the output: no first convolution, no last norm.
//! ```
//!
//! The sinusoid of t, 1000 wide, goes straight into a linear layer at each of three places of a block.
//! 281,596,146 parameters as published. The attention layers, 25,184,256 of them, are there with
//! `attention = false` too, as in the published checkpoints; then nothing uses or trains them.
use serde::{Deserialize, Serialize};

use super::{Assumption, Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::attention::SelfAttention;
use crate::nn::residual::{ResidualBlock, groups_of_16};
use crate::nn::unet::{Layer, Side, UNet};
use crate::nn::{ConvTranspose2d, Init};
use crate::ops::conv_transpose2d;
use crate::ops::time_embedding::TimeEmbedding;

/// The heads of the published attention.
const HEADS: usize = 4;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionUNetConfig {
    /// Channels at full resolution; 64 as published.
    pub base: usize,
    /// Whether the attention layers run.
    pub attention: bool,
    /// Width of the sinusoid of t; 1000 as published.
    pub time_dim: usize,
    /// Channels of y0 and the state together.
    pub input_channels: usize,
    /// Channels of the prediction.
    pub output_channels: usize,
    /// The factor between low and high resolution; the network itself works at the high one.
    pub scale: usize,
}

impl Default for AttentionUNetConfig {
    fn default() -> Self {
        Self {
            base: 64,
            attention: false,
            time_dim: 1000,
            input_channels: 6,
            output_channels: 3,
            scale: 4,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct AttentionUNet {
    config: AttentionUNetConfig,
    unet: UNet,
    parameters: Vec<Parameter>,
}

impl AttentionUNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &AttentionUNetConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let c = config.base;
        let mut build = Builder { init: &mut init, config, unet: UNet::default() };
        build.blocks("encoder.enc1", config.input_channels, c);
        build.down();
        build.blocks("encoder.enc2", c, 2 * c);
        build.down();
        build.blocks("encoder.enc3", 2 * c, 4 * c);
        build.down();
        build.blocks("encoder.enc4_1", 4 * c, 8 * c);
        build.blocks("encoder.enc4_2", 8 * c, 8 * c);
        build.down();
        build.attending_blocks("bottleneck.layer1", 8 * c, 16 * c);
        build.attending_blocks("bottleneck.layer2", 16 * c, 16 * c);
        build.up("bottleneck.up4", 8 * c);
        build.blocks("decoder.dec1_1", 16 * c, 8 * c);
        build.blocks("decoder.dec1_2", 8 * c, 8 * c);
        build.up("decoder.up1", 4 * c);
        build.blocks("decoder.dec2", 8 * c, 4 * c);
        build.up("decoder.up2", 2 * c);
        build.blocks("decoder.dec3", 4 * c, 2 * c);
        build.up("decoder.up3", c);
        build.blocks("decoder.dec4", 2 * c, c);
        build.blocks("decoder.last", c, config.output_channels);
        let unet = build.unet;
        Self { config: config.clone(), unet, parameters: init.finish() }
    }
}

/// Appends the layers of a level under their published names.
struct Builder<'a> {
    init: &'a mut Init,
    config: &'a AttentionUNetConfig,
    unet: UNet,
}

impl Builder<'_> {
    /// Three blocks, the first of which changes the channels.
    fn blocks(&mut self, name: &str, inputs: usize, outputs: usize) {
        for i in 0..3 {
            let from = if i == 0 { inputs } else { outputs };
            let block = self.init.at(format!("{name}.models.{i}"), |init| {
                ResidualBlock::biggan_deep(init, [from, outputs], self.config.time_dim)
            });
            self.unet.push(Layer::Block(block));
        }
    }

    /// Three blocks, each followed by attention.
    fn attending_blocks(&mut self, name: &str, inputs: usize, outputs: usize) {
        for i in 0..3 {
            let from = if i == 0 { inputs } else { outputs };
            let (block, attention) = self.init.at(format!("{name}.models.{i}"), |init| {
                let block = init.at("res_block", |init| {
                    ResidualBlock::biggan_deep(init, [from, outputs], self.config.time_dim)
                });
                let groups = groups_of_16(outputs);
                let attention =
                    init.at("attn", |init| SelfAttention::new(init, outputs, HEADS, groups));
                (block, attention)
            });
            self.unet.push(Layer::Block(block));
            // Its parameters stay in the state dict either way.
            if self.config.attention {
                self.unet.push(Layer::Attention(attention));
            }
        }
    }

    /// Keeps the map of the level and halves it.
    fn down(&mut self) {
        self.unet.push(Layer::Keep);
        self.unet.push(Layer::MaxPool);
    }

    /// Doubles a map of `2 outputs` channels and puts the kept map before it.
    fn up(&mut self, name: &str, outputs: usize) {
        let double = conv_transpose2d::ConvTranspose2d::new(2, 0);
        let layer = ConvTranspose2d::new(self.init, name, [2 * outputs, outputs, 2], double);
        self.unet.push(Layer::Transposed(layer));
        self.unet.push(Layer::Join(Side::Before));
    }
}

impl Module for AttentionUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for AttentionUNet {
    fn condition(&self, _low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        y0.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let dtype = x.value().dtype();
        let time = TimeEmbedding::Interleaved.of_tensor(t, self.config.time_dim, dtype)?;
        let time = tape.input(time);
        let input = tape.concat(&[condition, x])?;
        self.unet.forward(tape, input, Some(&time))
    }

    /// Four halvings; the norms, and attention, see the whole map.
    fn geometry(&self) -> Geometry {
        Geometry { align: (16 / self.config.scale).max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        // Its widest point: the first block behind the last skip, 2 base channels in each of its maps.
        (8 * self.config.base + 12) * self.config.scale * self.config.scale
    }

    fn floats_on_gpu(&self) -> usize {
        // As it was counted before: what a GPU holds was not measured anew.
        (9 * self.config.base + 12) * self.config.scale * self.config.scale
    }
}

impl Kind for AttentionUNetConfig {
    const KEYS: &'static [&'static str] = &[
        "encoder.enc1.models.0.model_ultim.models.6.weight",
        "bottleneck.layer1.models.0.res_block.model_ultim.models.10.weight",
        "decoder.last.models.0.model_ultim.models.6.weight",
    ];
    const ASSUMED: &'static [Assumption] = &[Assumption {
        keys: &["attention"],
        what: "whether attention runs (model.attention): by \"attn\" in the file's name",
    }];
    const MEANING: &'static [&'static str] = &["attention"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(AttentionUNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let [first, last] = ["encoder.enc1", "decoder.last"]
            .map(|part| format!("{part}.models.0.model_ultim.models.6.weight"));
        let widest = "bottleneck.layer1.models.0.res_block.model_ultim.models.10.weight";
        Some(Self {
            base: s.dim(widest, 0)? / 16,
            // Both published models have its weights.
            attention: s.file.contains("attn"),
            time_dim: s.dim("encoder.enc1.models.0.model_ultim.models.3.func.weight", 1)?,
            input_channels: s.dim(&first, 1)?,
            output_channels: s.dim(&last, 0)?,
            ..Self::default()
        })
    }

    fn narrow() -> Self {
        Self { base: 4, time_dim: 10, ..Self::default() }
    }
}
