//! The layers of both experts.
use serde::{Deserialize, Serialize};

use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::damage::TOLD;
use crate::nn::{Conv2d, GatedBlock, Init, Linear};
use crate::ops::time_embedding::TimeEmbedding;

/// Convolutions of a block.
pub(super) const DEPTH: usize = 4;

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
    /// Channels of the trunk of later calls; as many as the first one's if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub later_channels: Option<usize>,
    /// Blocks of four convolutions.
    pub blocks: usize,
    /// Width of the embedding of t and damage.
    pub time_dim: usize,
    /// Whether the maps of the blocks stay within limits that the file holds.
    pub limited: bool,
}

impl Default for AttentiveGridConfig {
    fn default() -> Self {
        let (scale, channels, blocks, time_dim) = (4, 32, 6, 32);
        Self { scale, channels, later_channels: None, blocks, time_dim, limited: false }
    }
}

impl AttentiveGridConfig {
    pub(super) fn later_channels(&self) -> usize {
        self.later_channels.unwrap_or(self.channels)
    }
}

/// All layers of an expert.
#[derive(Debug)]
pub(super) struct Trunk {
    pub(super) time_dim: usize,
    pub(super) embedding: [Linear; 2],
    pub(super) low: Conv2d,
    pub(super) state: Option<Conv2d>,
    pub(super) blocks: Vec<(GatedBlock, Linear)>,
    pub(super) body: Conv2d,
    pub(super) tail: Conv2d,
}

impl Trunk {
    fn new(init: &mut Init, config: &AttentiveGridConfig, sees_state: bool) -> Self {
        let (image, dim) = (3 * config.scale * config.scale, config.time_dim);
        let c = if sees_state { config.later_channels() } else { config.channels };
        let embedding = init.at("told", |init| {
            [Linear::new(init, "0", dim + TOLD, dim), Linear::new(init, "2", dim, dim)]
        });
        let low = Conv2d::same(init, "conv_1", 3, c, 3);
        let block = |i: usize| {
            init.at(format!("block_{}", i + 1), |init| {
                // Not told anything at first.
                let told = Linear::new(init, "told", dim, c).scaled(0.0);
                let block = match config.limited {
                    true => GatedBlock::limited(init, c, DEPTH),
                    false => GatedBlock::new(init, c, DEPTH),
                };
                (block, told)
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
        let told = self.embedding[0].forward_silu(tape, &all)?;
        self.embedding[1].forward_silu(tape, &told)
    }

    /// x0 `[N, H, W, 3]` in `[0, 1]` for `low` `[N, h, w, 3]` in `[0, 1]` and the state `x`.
    fn forward(&self, tape: &mut Tape, scale: usize, [x, low, told]: [&Var; 3]) -> Result<Var> {
        let mut stem = self.low.forward(tape, low)?;
        if let Some(state) = &self.state {
            let x = tape.pixel_unshuffle(x, scale)?;
            stem = state.forward_onto(tape, &x, &stem, 1.0)?;
        }
        let mut features = stem.clone();
        for (block, linear) in &self.blocks {
            let shift = linear.forward(tape, told)?;
            // A clone shares the weights.
            let block = block.clone();
            let run = move |tape: &mut Tape, v: &[Var]| block.forward_told(tape, &v[0], &v[1]);
            features = tape.part(&[&features, &shift], run)?;
        }
        features = self.body.forward_onto(tape, &features, &stem, 1.0)?;
        drop(stem);
        let image = self.tail.forward(tape, &features)?;
        drop(features);
        tape.pixel_shuffle(&image, scale)
    }
}

/// See the [module](super).
#[derive(Debug)]
pub struct AttentiveGrid {
    pub(super) config: AttentiveGridConfig,
    /// Of the call that starts the chain, whose state holds nothing that the low resolution does not.
    pub(super) first: Trunk,
    /// Of all others.
    pub(super) later: Trunk,
    pub(super) parameters: Vec<Parameter>,
    /// The limits of the blocks.
    pub(super) limits: Vec<Parameter>,
}

impl AttentiveGrid {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &AttentiveGridConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let first = Trunk::new(&mut init, config, false);
        let later = init.at(LATER, |init| Trunk::new(init, config, true));
        let (parameters, limits) = init.finish_with_buffers();
        Self { config: config.clone(), first, later, parameters, limits }
    }

    /// What the blocks of `trunk` are told, `[N, time_dim]`.
    pub(super) fn told_of(
        &self,
        tape: &mut Tape,
        trunk: &Trunk,
        condition: &Var,
        t: &Tensor,
    ) -> Result<Var> {
        let damage = tape.slice_channels(condition, 3, TOLD)?;
        // The same at every pixel.
        let damage = tape.crop(&damage, 1, 1)?;
        trunk.told(tape, t, &damage)
    }

    pub(super) fn run(
        &self,
        tape: &mut Tape,
        trunk: &Trunk,
        seen: [&Var; 2],
        t: &Tensor,
    ) -> Result<Var> {
        let [x, condition] = seen;
        let low = tape.slice_channels(condition, 0, 3)?;
        let low = tape.to_unit(&low)?;
        let told = self.told_of(tape, trunk, condition, t)?;
        let image = trunk.forward(tape, self.config.scale, [x, &low, &told])?;
        tape.to_signed(&image)
    }
}
