//! The generator of SRGAN (Ledig et al. 2017): no denoiser, but low resolution straight to high.
//!
//! ```text
//! f = prelu(conv9 x),   16 times y += norm(conv3(prelu(norm(conv3 y)))) from y = f,   y = norm(conv3 y) + f
//! for each doubling y = prelu(shuffle2(conv3 y));   gives conv9(y)
//! ```
//!
//! 1,549,462 parameters for a factor of 4. The original works on `[0, 1]` ([`Srgan::upscale`]); as a
//! [`Network`], it takes and gives `[-1, 1]` as all do. What judges it while it is trained is a
//! [discriminator](super::srgan_discriminator).
use serde::{Deserialize, Serialize};

use super::direct::BLOCK;
use super::{Geometry, Kind, Module, Network, Shapes, doublings};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::{BatchNorm, Conv2d, Init, Prelu};

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SrganConfig {
    /// Channels of the features.
    pub base: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// The factor between low and high resolution: 2, 4 or another power of 2.
    pub scale: usize,
}

impl Default for SrganConfig {
    fn default() -> Self {
        Self { base: 64, blocks: 16, scale: 4 }
    }
}

#[derive(Debug)]
struct Block {
    conv: [Conv2d; 2],
    norm: [BatchNorm; 2],
    unit: Prelu,
}

impl Block {
    fn new(init: &mut Init, c: usize) -> Self {
        let conv1 = Conv2d::same(init, "conv1", c, c, 3);
        let first = BatchNorm::new(init, "bn1", c);
        let unit = Prelu::new(init, "prelu");
        let conv2 = Conv2d::same(init, "conv2", c, c, 3);
        let second = BatchNorm::new(init, "bn2", c);
        Self { conv: [conv1, conv2], norm: [first, second], unit }
    }

    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let mut y = self.conv[0].forward(tape, x)?;
        y = self.norm[0].forward(tape, &y)?;
        y = self.unit.forward(tape, &y)?;
        y = self.conv[1].forward(tape, &y)?;
        y = self.norm[1].forward(tape, &y)?;
        tape.add(x, &y)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Srgan {
    config: SrganConfig,
    first: (Conv2d, Prelu),
    blocks: Vec<Block>,
    second: (Conv2d, BatchNorm),
    up: Vec<(Conv2d, Prelu)>,
    last: Conv2d,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl Srgan {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &SrganConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, c) = (&mut all, config.base);
        let first = (Conv2d::same(init, "conv1", 3, c, 9), Prelu::new(init, "prelu1"));
        let block = |i| init.at(format!("residual_blocks.{i}"), |init| Block::new(init, c));
        let blocks = (0..config.blocks).map(block).collect();
        let second = (Conv2d::same(init, "conv2", c, c, 3), BatchNorm::new(init, "bn2", c));
        let up = |i| {
            init.at(format!("upsample.{i}"), |init| {
                (Conv2d::same(init, "conv", c, 4 * c, 3), Prelu::new(init, "prelu"))
            })
        };
        let up = (0..config.scale.max(1).ilog2()).map(up).collect();
        let last = Conv2d::same(init, "conv3", c, 3, 9);
        let (parameters, buffers) = all.finish_with_buffers();
        Self { config: config.clone(), first, blocks, second, up, last, parameters, buffers }
    }

    /// The image `[N, s h, s w, 3]` of `low` `[N, h, w, 3]`, both in `[0, 1]`.
    ///
    /// # Errors
    /// If the factor is no power of 2, `low` has another shape or memory is full.
    pub fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        doublings("srgan", self.config.scale)?;
        let skip = self.first.0.forward(tape, low)?;
        let skip = self.first.1.forward(tape, &skip)?;
        let mut y = skip.clone();
        for block in &self.blocks {
            y = block.forward(tape, &y)?;
        }
        y = self.second.0.forward(tape, &y)?;
        y = self.second.1.forward(tape, &y)?;
        y = tape.add(&skip, &y)?;
        drop(skip);
        for (conv, unit) in &self.up {
            y = conv.forward(tape, &y)?;
            y = tape.pixel_shuffle(&y, 2)?;
            y = unit.forward(tape, &y)?;
        }
        self.last.forward(tape, &y)
    }
}

impl Module for Srgan {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }
}

impl Network for Srgan {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn sees_low_alone(&self) -> bool {
        true
    }

    /// The image of `condition`, the low-resolution one; state and step play no part.
    fn forward(&self, tape: &mut Tape, _x: &Var, condition: &Var, _t: &Tensor) -> Result<Var> {
        let low = tape.to_unit(condition)?;
        let y = self.upscale(tape, &low)?;
        tape.to_signed(&y)
    }

    /// Trained norms are constants, so that an output sees its neighbourhood alone.
    fn geometry(&self) -> Geometry {
        // Four for conv9, which is a plain sum, as at the end; two convolutions a block, one, and the finer ones.
        let reach = 4 + BLOCK * (2 * self.config.blocks + 1 + self.up.len()) + 4;
        Geometry { align: 1, receptive_field: Some(reach) }
    }

    fn tile_align(&self) -> usize {
        BLOCK
    }

    fn floats_per_pixel(&self) -> usize {
        // Its widest point: the last shuffle, in and out, and the unit behind it.
        3 * self.config.base * self.config.scale * self.config.scale
    }
}

impl Kind for SrganConfig {
    const KEYS: &'static [&'static str] = &[
        "prelu1.weight",
        "residual_blocks.0.bn1.weight",
        "upsample.0.conv.weight",
        "conv3.weight",
    ];
    const DIRECT: bool = true;

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Srgan::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let doublings = s.count(|i| format!("upsample.{i}.conv.weight"));
        Some(Self {
            base: s.dim("residual_blocks.0.bn1.weight", 0)?,
            blocks: s.count(|i| format!("residual_blocks.{i}.conv1.weight")),
            scale: (doublings < 7).then(|| 1 << doublings)?,
        })
    }

    fn narrow() -> Self {
        Self { base: 8, blocks: 2, ..Self::default() }
    }
}
