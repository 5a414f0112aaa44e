//! The default models' network: a few narrow 3x3 convolutions at the low resolution with an attention that
//! has no parameters, told how far the chain has come and how damaged its input is.
//!
//! The trunk is that of ERRN2 (NTIRE 2026 challenge on efficient super-resolution) under the names of its state
//! dict, so that its published weights load into it; its blocks are SPAN's (Wan et al. 2024). What makes it a
//! denoiser starts at zero: with the published weights alone, the first call gives what ERRN2 gives.
//!
//! ```text
//! e  = mlp(embed t ++ damage)                                   [N, C]
//! f  = conv3(low) + conv3'(unshuffle s of x_t)                  [N, h, w, C]
//! y  = blocks of  (g + y) (sigmoid(g) - 1/2),  g = conv3 lrelu conv3 lrelu conv3 lrelu (conv3 y + linear e)
//! x0 = shuffle s of conv3(conv3(y) + f)                         [N, H, W, 3]
//! ```
use serde::{Deserialize, Serialize};

use super::{Geometry, Network};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::{Conv2d, Init, Linear};
use crate::ops::time_embedding::TimeEmbedding;

/// What a network is told of the damage to its input, for each image: see [`Damage`](crate::data::degrade).
pub const DAMAGE: usize = 6;

/// Slope of the leaky ReLU left of 0.
const SLOPE: f64 = 0.1;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttentiveGridConfig {
    /// The factor between low and high resolution.
    pub scale: usize,
    /// Channels of the trunk.
    pub channels: usize,
    /// Blocks of four convolutions.
    pub blocks: usize,
    /// Width of the embedding of t and damage.
    pub time_dim: usize,
}

impl Default for AttentiveGridConfig {
    fn default() -> Self {
        Self { scale: 4, channels: 32, blocks: 6, time_dim: 32 }
    }
}

#[derive(Clone, Debug)]
struct Block {
    convs: [Conv2d; 4],
}

impl Block {
    fn new(init: &mut Init, c: usize) -> Self {
        let conv = |i: usize| {
            init.at(format!("rep{i}"), |init| Conv2d::same(init, "rep_conv", c, c, 3))
        };
        Self { convs: [1, 2, 3, 4].map(conv) }
    }

    /// The block's output for `x` `[N, h, w, C]`, its first layer shifted by `shift` `[N, C]`.
    fn forward(&self, tape: &mut Tape, x: &Var, shift: &Var) -> Result<Var> {
        let [first, others @ ..] = &self.convs;
        let mut y = first.forward(tape, x)?;
        y = tape.add_channels(&y, shift)?;
        for conv in others {
            y = tape.leaky_relu(&y, SLOPE)?;
            y = conv.forward(tape, &y)?;
        }
        tape.swift_attention(&y, x)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct AttentiveGrid {
    config: AttentiveGridConfig,
    embedding: [Linear; 2],
    /// Of the low-resolution image, and of the state.
    stem: [Conv2d; 2],
    blocks: Vec<(Block, Linear)>,
    body: Conv2d,
    tail: Conv2d,
    parameters: Vec<Parameter>,
}

impl AttentiveGrid {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &AttentiveGridConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, c, dim) = (&mut all, config.channels, config.time_dim);
        let image = 3 * config.scale * config.scale;
        let low = Conv2d::same(init, "conv_1", 3, c, 3);
        let block = |i: usize| {
            init.at(format!("block_{}", i + 1), |init| {
                // Not told anything at first.
                (Block::new(init, c), Linear::new(init, "told", dim, c).scaled(0.0))
            })
        };
        let blocks = (0..config.blocks).map(block).collect();
        let body = Conv2d::same(init, "conv_2", c, c, 3);
        let tail = Conv2d::same(init, "upsampler.0", c, image, 3);
        let state = Conv2d::unbiased(init, "state", image, c, 3).scaled(0.0);
        let embedding = init.at("told", |init| {
            [Linear::new(init, "0", dim + DAMAGE, dim), Linear::new(init, "2", dim, dim)]
        });
        let parameters = all.finish();
        let (config, stem) = (config.clone(), [low, state]);
        Self { config, embedding, stem, blocks, body, tail, parameters }
    }

    /// What the blocks are told, `[N, time_dim]`, by t `[N]` and `damage` `[N, DAMAGE]`.
    fn told(&self, tape: &mut Tape, t: &Tensor, damage: &Var) -> Result<Var> {
        let (n, dim) = (damage.shape()[0], self.config.time_dim);
        let time = TimeEmbedding::SinCosToEnd.of_tensor(t, dim, damage.value().dtype())?;
        let time = tape.input(time);
        let time = tape.reshape(&time, &[n, 1, 1, dim])?;
        let all = tape.concat(&[&time, damage])?;
        let all = tape.reshape(&all, &[n, dim + DAMAGE])?;
        let told = self.embedding[0].forward(tape, &all)?;
        let told = tape.silu(&told)?;
        let told = self.embedding[1].forward(tape, &told)?;
        tape.silu(&told)
    }
}

impl Network for AttentiveGrid {
    /// `low` and, for every pixel, that nothing is known of its damage.
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        let unknown = Tensor::zeros_as(low, &[low.shape()[0], DAMAGE])?;
        self.condition_on(low, &unknown)
    }

    fn takes_damage(&self) -> bool {
        true
    }

    /// `low` `[N, h, w, 3]` ++ `damage` `[N, 6]` repeated, `[N, h, w, 9]`.
    fn condition_on(&self, low: &Tensor, damage: &Tensor) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let [n, h, w, _] = low.nhwc("attentive_grid")?;
        let zeros = tape.input(Tensor::zeros_as(low, &[n, h, w, DAMAGE])?);
        let damage = tape.input(damage.try_clone()?);
        let maps = tape.add_channels(&zeros, &damage)?;
        let low = tape.input(low.try_clone()?);
        tape.concat(&[&low, &maps])?.into_tensor()
    }

    /// x0 in `[-1, 1]`.
    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let low = tape.slice_channels(condition, 0, 3)?;
        let damage = tape.slice_channels(condition, 3, DAMAGE)?;
        // The same at every pixel.
        let damage = tape.crop(&damage, 1, 1)?;
        let told = self.told(tape, t, &damage)?;
        let low = tape.to_unit(&low)?;
        let low = self.stem[0].forward(tape, &low)?;
        let state = tape.pixel_unshuffle(x, self.config.scale)?;
        let state = self.stem[1].forward(tape, &state)?;
        let stem = tape.add(&low, &state)?;
        drop((low, state));
        let mut features = stem.clone();
        for (block, linear) in &self.blocks {
            let shift = linear.forward(tape, &told)?;
            // A clone shares the weights.
            let block = block.clone();
            let run = move |tape: &mut Tape, v: &[Var]| block.forward(tape, &v[0], &v[1]);
            features = tape.part(&[&features, &shift], run)?;
        }
        features = self.body.forward(tape, &features)?;
        features = tape.add(&features, &stem)?;
        drop(stem);
        let image = self.tail.forward(tape, &features)?;
        drop(features);
        let image = tape.pixel_shuffle(&image, self.config.scale)?;
        tape.to_signed(&image)
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn geometry(&self) -> Geometry {
        // A pixel for each convolution: the stem, four a block, two behind them.
        Geometry { align: 1, receptive_field: Some(4 * self.config.blocks + 3) }
    }

    fn floats_per_pixel(&self) -> usize {
        let (c, image) = (self.config.channels, 3 * self.config.scale * self.config.scale);
        // Stem, a block's input and two of its maps; then the images of the sampler.
        4 * c + 5 * image
    }
}
