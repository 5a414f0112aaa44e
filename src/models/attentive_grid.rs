//! The default models' network: a few narrow 3x3 convolutions at the low resolution with an attention that
//! has no parameters, told how far the chain has come and how damaged its input is.
//!
//! The trunk is that of ERRN2 (NTIRE 2026 challenge on efficient super-resolution) under the names of its state
//! dict, so that its published weights load into it; its blocks are SPAN's (Wan et al. 2024). What makes it a
//! denoiser starts at zero: with the published weights alone, a call gives what ERRN2 gives.
//!
//! There are two trunks, experts as in eDiff-I (Balaji et al. 2022): one for the call that starts the chain, which
//! a single step consists of and which is trained to be faithful, one for the calls after it, which draw texture.
//!
//! ```text
//! e  = mlp(embed t ++ damage)                                   [N, D]
//! f  = conv3(low) + conv3'(unshuffle s of x_t)                  [N, h, w, C]; without the state at t = T
//! y  = blocks of  (g + y) (sigmoid(g) - 1/2),  g = conv3 lrelu conv3 lrelu conv3 lrelu conv3 (y + linear e)
//! x0 = shuffle s of conv3(conv3(y) + f)                         [N, H, W, 3]
//! ```
mod rolling;

use serde::{Deserialize, Serialize};

use super::damage::TOLD;
use super::direct::BLOCK;
use super::{Geometry, Network};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::rolling::RollingCall;
use crate::nn::{Conv2d, GatedBlock, Init, Linear};
use crate::ops::time_embedding::TimeEmbedding;

/// Convolutions of a block.
const DEPTH: usize = 4;

/// What the names of the parameters of later calls start with.
pub const LATER: &str = "later";

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

/// All layers of an expert.
#[derive(Debug)]
struct Trunk {
    time_dim: usize,
    embedding: [Linear; 2],
    low: Conv2d,
    state: Option<Conv2d>,
    blocks: Vec<(GatedBlock, Linear)>,
    body: Conv2d,
    tail: Conv2d,
}

impl Trunk {
    fn new(init: &mut Init, config: &AttentiveGridConfig, sees_state: bool) -> Self {
        let (c, image, dim) = (config.channels, 3 * config.scale * config.scale, config.time_dim);
        let embedding = init.at("told", |init| {
            [Linear::new(init, "0", dim + TOLD, dim), Linear::new(init, "2", dim, dim)]
        });
        let low = Conv2d::same(init, "conv_1", 3, c, 3);
        let block = |i: usize| {
            init.at(format!("block_{}", i + 1), |init| {
                // Not told anything at first.
                let told = Linear::new(init, "told", dim, c).scaled(0.0);
                (GatedBlock::new(init, c, DEPTH), told)
            })
        };
        let blocks = (0..config.blocks).map(block).collect();
        let body = Conv2d::same(init, "conv_2", c, c, 3);
        let tail = Conv2d::same(init, "upsampler.0", c, image, 3);
        let state = |init: &mut Init| Conv2d::unbiased(init, "state", image, c, 3).scaled(0.0);
        let state = sees_state.then(|| state(init));
        Self { time_dim: dim, embedding, low, state, blocks, body, tail }
    }

    /// What the blocks are told, `[N, time_dim]`, by t `[N]` and `damage` `[N, 1, 1, TOLD]`.
    fn told(&self, tape: &mut Tape, t: &Tensor, damage: &Var) -> Result<Var> {
        let (n, dim) = (damage.shape()[0], self.time_dim);
        let time = TimeEmbedding::SinCosToEnd.of_tensor(t, dim, damage.value().dtype())?;
        let time = tape.input(time);
        let time = tape.reshape(&time, &[n, 1, 1, dim])?;
        let all = tape.concat(&[&time, damage])?;
        let all = tape.reshape(&all, &[n, dim + TOLD])?;
        let told = self.embedding[0].forward(tape, &all)?;
        let told = tape.silu(&told)?;
        let told = self.embedding[1].forward(tape, &told)?;
        tape.silu(&told)
    }

    /// x0 `[N, H, W, 3]` in `[0, 1]` for `low` `[N, h, w, 3]` in `[0, 1]` and the state `x`.
    fn forward(&self, tape: &mut Tape, scale: usize, [x, low, told]: [&Var; 3]) -> Result<Var> {
        let mut stem = self.low.forward(tape, low)?;
        if let Some(state) = &self.state {
            let x = tape.pixel_unshuffle(x, scale)?;
            let x = state.forward(tape, &x)?;
            stem = tape.add(&stem, &x)?;
        }
        let mut features = stem.clone();
        for (block, linear) in &self.blocks {
            let shift = linear.forward(tape, told)?;
            // A clone shares the weights.
            let block = block.clone();
            let run = move |tape: &mut Tape, v: &[Var]| block.forward_told(tape, &v[0], &v[1]);
            features = tape.part(&[&features, &shift], run)?;
        }
        features = self.body.forward(tape, &features)?;
        features = tape.add(&features, &stem)?;
        drop(stem);
        let image = self.tail.forward(tape, &features)?;
        drop(features);
        tape.pixel_shuffle(&image, scale)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct AttentiveGrid {
    config: AttentiveGridConfig,
    /// Of the call that starts the chain, whose state holds nothing that the low resolution does not.
    first: Trunk,
    /// Of all others.
    later: Trunk,
    parameters: Vec<Parameter>,
}

impl AttentiveGrid {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &AttentiveGridConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let first = Trunk::new(&mut init, config, false);
        let later = init.at(LATER, |init| Trunk::new(init, config, true));
        let parameters = init.finish();
        Self { config: config.clone(), first, later, parameters }
    }

    /// What the blocks of `trunk` are told, `[N, time_dim]`.
    fn told_of(&self, tape: &mut Tape, trunk: &Trunk, condition: &Var, t: &Tensor) -> Result<Var> {
        let damage = tape.slice_channels(condition, 3, TOLD)?;
        // The same at every pixel.
        let damage = tape.crop(&damage, 1, 1)?;
        trunk.told(tape, t, &damage)
    }

    fn run(&self, tape: &mut Tape, trunk: &Trunk, seen: [&Var; 2], t: &Tensor) -> Result<Var> {
        let [x, condition] = seen;
        let low = tape.slice_channels(condition, 0, 3)?;
        let low = tape.to_unit(&low)?;
        let told = self.told_of(tape, trunk, condition, t)?;
        let image = trunk.forward(tape, self.config.scale, [x, &low, &told])?;
        tape.to_signed(&image)
    }
}

impl Network for AttentiveGrid {
    /// `low` and, for every pixel, that nothing is known of its damage.
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        let unknown = Tensor::zeros_as(low, &[low.shape()[0], TOLD])?;
        self.condition_on(low, &unknown)
    }

    fn takes_damage(&self) -> bool {
        true
    }

    /// `low` `[N, h, w, 3]` ++ `damage` `[N, TOLD]` repeated, `[N, h, w, 3 + TOLD]`.
    fn condition_on(&self, low: &Tensor, damage: &Tensor) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let [n, h, w, _] = low.nhwc("attentive_grid")?;
        let zeros = tape.input(Tensor::zeros_as(low, &[n, h, w, TOLD])?);
        let damage = tape.input(damage.try_clone()?);
        let maps = tape.add_channels(&zeros, &damage)?;
        let low = tape.input(low.try_clone()?);
        tape.concat(&[&low, &maps])?.into_tensor()
    }

    /// x0 in `[-1, 1]`, at t < T.
    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        self.run(tape, &self.later, [x, condition], t)
    }

    fn has_first_call(&self) -> bool {
        true
    }

    fn rolling(
        &self,
        first: bool,
        t: &Tensor,
        most: usize,
    ) -> Result<Option<Box<dyn RollingCall + '_>>> {
        let trunk = if first { &self.first } else { &self.later };
        Ok(Some(Box::new(rolling::Rolling::new(self, trunk, t.try_clone()?, most))))
    }

    fn forward_first(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        self.run(tape, &self.first, [x, condition], t)
    }

    fn rolling_bytes(&self, width: usize, rows: usize, steps: usize) -> Option<u64> {
        let (c, blocks) = (self.config.channels, self.config.blocks);
        let image = 3 * self.config.scale * self.config.scale;
        // Layers are given a block above a piece and one below; queues let go of whole pieces.
        let (kept, piece) = (BLOCK + 1, rows + 2 * BLOCK);
        let convolutions = DEPTH * blocks + 3;
        let windows = kept * (c * (convolutions - 1) + image);
        let block_inputs = blocks * c * (BLOCK * DEPTH + 2 * rows);
        let skip = c * (BLOCK * (convolutions - 2) + 2 * rows);
        let state = image * (BLOCK * convolutions + 2 * rows);
        // A layer's input and output beside the tail's three images, or the step's four.
        let passing = piece * (2 * c + 4 * image);
        let floats = steps * (windows + block_inputs + skip + state) - state + passing;
        Some(4 * (floats * width) as u64)
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn geometry(&self) -> Geometry {
        // A block of the fast convolution for each: the stem, those of the blocks, two behind them.
        let reach = BLOCK * (DEPTH * self.config.blocks + 3);
        Geometry { align: 1, receptive_field: Some(reach) }
    }

    fn tile_align(&self) -> usize {
        BLOCK
    }

    fn overlap(&self) -> usize {
        // What two calls see beside how they round.
        2 * (DEPTH * self.config.blocks + 3)
    }

    fn floats_per_pixel(&self) -> usize {
        let (c, image) = (self.config.channels, 3 * self.config.scale * self.config.scale);
        // Stem, a block's input and two of its maps; then the images of the sampler.
        4 * c + 5 * image
    }
}
