//! Residual in residual dense blocks (Wang et al. 2018): RRDBNet of ESRGAN and Real-ESRGAN, and the encoder of
//! SRDiff. No denoiser, but low resolution straight to high.
//!
//! ```text
//! Dense x:   x1 = leaky(conv3 x), x2 = leaky(conv3 [x, x1]), .. x4;   gives x + conv3 [x, x1, .. x4] / 5
//! Block x:   x + Dense(Dense(Dense x)) / 5
//! f0 = conv3 x,   f_i = Block f_(i-1),   f = f0 + conv3 f_8
//! for each doubling f = leaky(conv3(nearest2 f)), for a factor of 3 once nearest3;   gives conv3(leaky(conv3 f))
//! ```
//!
//! Leaky ReLU of slope 0.2. 1,478,755 parameters as SRDiff has it, 16,697,987 as Real-ESRGAN has it for a factor
//! of 4. For smaller factors Real-ESRGAN first makes pixels channels (`unshuffle`). It works on `[0, 1]` inside and takes and gives
//! `[-1, 1]`. The published one cuts its output to that range, which stops the gradients of what lies
//! outside; this one leaves that to whatever makes an image of it.
use serde::{Deserialize, Serialize};

use super::direct::{BLOCK, nearest};
use super::{Assumption, Geometry, Kind, Module, Network, Shapes, doublings};
use crate::engine::device::Device;
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::{Conv2d, Init};
use crate::ops::conv2d::{self, Then};

/// What the outputs of blocks are multiplied by.
const DAMPING: f64 = 0.2;

/// Slope left of 0.
const SLOPE: f64 = 0.2;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RrdbConfig {
    /// Channels of the features.
    pub base: usize,
    /// Blocks of three dense blocks.
    pub blocks: usize,
    /// Channels that each convolution of a dense block adds.
    pub growth: usize,
    /// The factor between low and high resolution: a power of 2, or 3.
    pub scale: usize,
    /// What the sides are divided by, pixels becoming channels, before the first convolution; a power of 2.
    pub unshuffle: usize,
}

impl RrdbConfig {
    /// What sides grow by at each step behind the blocks: one of 3, or doublings.
    fn steps(&self) -> Vec<usize> {
        match self.scale * self.unshuffle {
            3 => vec![3],
            all => vec![2; all.max(1).ilog2() as usize],
        }
    }
}

impl Default for RrdbConfig {
    fn default() -> Self {
        Self { base: 32, blocks: 8, growth: 16, scale: 4, unshuffle: 1 }
    }
}

#[derive(Debug)]
struct Dense {
    conv: [Conv2d; 5],
}

impl Dense {
    fn new(init: &mut Init, base: usize, growth: usize) -> Self {
        let conv = std::array::from_fn(|i| {
            let outputs = if i == 4 { base } else { growth };
            Conv2d::same(init, &format!("conv{}", i + 1), base + i * growth, outputs, 3)
        });
        Self { conv }
    }

    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let [inner @ .., last] = &self.conv;
        if !tape.is_training() && x.value().device() == Device::Cpu {
            let mut maps = vec![x.clone()];
            for conv in inner {
                maps.push(conv.forward_joined(tape, &maps, SLOPE)?);
            }
            let y = last.forward_joined(tape, &maps, 1.0)?;
            return tape.scaled_add(x, 1.0, &y, DAMPING);
        }
        if tape.fuses(x) {
            return self.fused(tape, x, None);
        }
        let mut all = x.clone();
        for conv in inner {
            let y = conv.forward_leaky(tape, &all, SLOPE)?;
            all = tape.concat(&[&all, &y])?;
        }
        let y = last.forward(tape, &all)?;
        tape.scaled_add(x, 1.0, &y, DAMPING)
    }
}

impl Dense {
    /// As [`forward`](Self::forward), each convolution with what follows it in one pass, which reads the maps where they
    /// lie; with `around`, the input of the block whose last part this is, what the whole block gives.
    fn fused(&self, tape: &mut Tape, x: &Var, around: Option<&Var>) -> Result<Var> {
        let [inner @ .., last] = &self.conv;
        let mut maps = vec![x.clone()];
        let leaky = Then { activation: conv2d::Activation::Leaky, slope: SLOPE, ..Then::default() };
        for conv in inner {
            let y = conv.forward_maps(tape, &maps.iter().collect::<Vec<_>>(), false, leaky)?;
            maps.push(y);
        }
        let factor = if around.is_some() { DAMPING } else { 1.0 };
        let then = Then {
            scale: factor * DAMPING,
            residual: Some((x, factor)),
            second: around.map(|f| (f, 1.0)),
            ..Then::default()
        };
        last.forward_maps(tape, &maps.iter().collect::<Vec<_>>(), false, then)
    }
}

/// The layers, whosever parameters they are.
#[derive(Debug)]
pub(super) struct Layers {
    config: RrdbConfig,
    first: Conv2d,
    blocks: Vec<[Dense; 3]>,
    trunk: Conv2d,
    up: Vec<Conv2d>,
    last: [Conv2d; 2],
}

impl Layers {
    pub(super) fn new(init: &mut Init, config: &RrdbConfig) -> Self {
        let (base, growth) = (config.base, config.growth);
        let inputs = 3 * config.unshuffle * config.unshuffle;
        let first = Conv2d::same(init, "conv_first", inputs, base, 3);
        let mut dense = |i: usize, k: usize| {
            let name = format!("RRDB_trunk.{i}.RDB{}", k + 1);
            init.at(name, |init| Dense::new(init, base, growth))
        };
        let blocks = (0..config.blocks).map(|i| std::array::from_fn(|k| dense(i, k))).collect();
        let trunk = Conv2d::same(init, "trunk_conv", base, base, 3);
        let conv = |i: usize| Conv2d::same(init, &format!("upconv{}", i + 1), base, base, 3);
        let up = (0..config.steps().len()).map(conv).collect();
        let last = [
            Conv2d::same(init, "HRconv", base, base, 3),
            Conv2d::same(init, "conv_last", base, 3, 3),
        ];
        Self { config: config.clone(), first, blocks, trunk, up, last }
    }

    /// The features `[N, h, w, base]` behind each block, and behind all of them, of `low` `[N, h, w, 3]` in
    /// `[-1, 1]`.
    pub(super) fn features(&self, tape: &mut Tape, low: &Var) -> Result<Vec<Var>> {
        let mut all = Vec::with_capacity(self.blocks.len() + 1);
        let last = self.run(tape, low, &mut |features| all.push(features.clone()))?;
        all.push(last);
        Ok(all)
    }

    /// The features behind all blocks; `each` is shown those behind each.
    fn run(&self, tape: &mut Tape, low: &Var, each: &mut dyn FnMut(&Var)) -> Result<Var> {
        let mut x = tape.to_unit(low)?;
        if self.config.unshuffle > 1 {
            x = tape.pixel_unshuffle(&x, self.config.unshuffle)?;
        }
        let first = self.first.forward(tape, &x)?;
        let mut f = first.clone();
        for block in &self.blocks {
            let [before @ .., last] = block;
            let mut y = f.clone();
            for dense in before {
                y = dense.forward(tape, &y)?;
            }
            if tape.fuses(&f) {
                f = last.fused(tape, &y, Some(&f))?;
            } else {
                y = last.forward(tape, &y)?;
                f = tape.scaled_add(&f, 1.0, &y, DAMPING)?;
            }
            each(&f);
        }
        self.trunk.forward_onto(tape, &f, &first, 1.0)
    }

    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        let steps = self.config.steps();
        if steps != [3] {
            doublings("rrdb", self.config.scale * self.config.unshuffle)?;
        }
        let mut f = self.run(tape, low, &mut |_| ())?;
        for (conv, factor) in self.up.iter().zip(steps) {
            if factor == 2 && tape.fuses(&f) {
                let activation = conv2d::Activation::Leaky;
                let then = Then { activation, slope: SLOPE, ..Then::default() };
                f = conv.forward_maps(tape, &[&f], true, then)?;
                continue;
            }
            f = if factor == 2 { tape.nearest2(&f)? } else { nearest(tape, &f, factor)? };
            f = conv.forward_leaky(tape, &f, SLOPE)?;
        }
        f = self.last[0].forward_leaky(tape, &f, SLOPE)?;
        f = self.last[1].forward(tape, &f)?;
        tape.to_signed(&f)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Rrdb {
    config: RrdbConfig,
    layers: Layers,
    parameters: Vec<Parameter>,
}

impl Rrdb {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &RrdbConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let layers = Layers::new(&mut init, config);
        Self { config: config.clone(), layers, parameters: init.finish() }
    }
}

impl Module for Rrdb {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for Rrdb {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn sees_low_alone(&self) -> bool {
        true
    }

    /// The image of `condition`, the low-resolution one; state and step play no part.
    fn forward(&self, tape: &mut Tape, _x: &Var, condition: &Var, _t: &Tensor) -> Result<Var> {
        self.layers.upscale(tape, condition)
    }

    /// Fifteen convolutions a block; those behind a doubling are finer.
    fn geometry(&self) -> Geometry {
        let (c, align) = (&self.config, self.config.unshuffle);
        let reach = BLOCK * (2 + 15 * c.blocks) + BLOCK / 2 * (self.layers.up.len() + 2);
        Geometry { align, receptive_field: Some(reach * align) }
    }

    /// Where exact tiles would be nearly all halo: what lies further away hardly counts.
    fn overlap(&self) -> usize {
        32
    }

    fn tile_align(&self) -> usize {
        BLOCK * self.config.unshuffle
    }

    fn floats_per_pixel(&self) -> usize {
        // Either a dense block with its parts and all of them, or full resolution.
        let (c, pixels) = (&self.config, self.config.scale * self.config.scale);
        let block = (4 * c.base + 2 * (c.base + 4 * c.growth)).div_ceil(c.unshuffle * c.unshuffle);
        block.max(2 * c.base * pixels) + 9 * pixels
    }
}

impl RrdbConfig {
    /// The sizes of an encoder of dense blocks whose names start with `prefix`.
    pub(super) fn of_encoder(s: &Shapes, prefix: &str) -> Option<Self> {
        Some(Self {
            base: s.dim(&format!("{prefix}conv_first.weight"), 0)?,
            blocks: s.count(|i| format!("{prefix}RRDB_trunk.{i}.RDB1.conv1.weight")),
            growth: s.dim(&format!("{prefix}RRDB_trunk.0.RDB1.conv1.weight"), 0)?,
            ..Self::default()
        })
    }
}

impl Kind for RrdbConfig {
    const KEYS: &'static [&'static str] = &[
        "conv_first.weight",
        "RRDB_trunk.0.RDB1.conv5.weight",
        "HRconv.weight",
        "conv_last.weight",
    ];
    const DIRECT: bool = true;
    const ASSUMED: &'static [Assumption] = &[Assumption {
        keys: &["scale"],
        what: "a factor of 2, whose tensors are those of a factor of 3, too (--set model.scale=3)",
    }];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Rrdb::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let encoder = Self::of_encoder(s, "")?;
        let doublings = s.count(|i| format!("upconv{}.weight", i + 1));
        let finer = (doublings < 7).then(|| 1usize << doublings)?;
        let inputs = s.dim("conv_first.weight", 1);
        let unshuffle = [1, 2, 4].into_iter().find(|n| inputs == Some(3 * n * n))?;
        Some(Self { scale: finer / unshuffle, unshuffle, ..encoder })
    }

    fn narrow() -> Self {
        Self { base: 8, blocks: 3, growth: 4, ..Self::default() }
    }

    /// One step of two is as large as one of three.
    fn is_settled(&self) -> bool {
        self.steps() != [2]
    }
}
