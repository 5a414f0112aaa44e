//! SRDiff (Li et al. 2022): a UNet that sees the low-resolution image through the features of a trained,
//! frozen [encoder](super::rrdb).
//!
//! ```text
//! c = up_s [f_3, f_6, f],     e = linear(mish(linear t))
//! R a -> b:   h = mish(conv3 x) + linear(mish e),   h = mish(conv3 h),   gives h + conv1(x) (x where a = b)
//! down: R, R, (+ c on the first level), conv3/2     between: R, R     up: [x, skip], R, R, conv4 up2
//! gives conv1(mish(conv3 x))
//! ```
//!
//! `f_i` are the encoder's features behind its block i of 8, f those behind all. Convolutions pad by reflection; no norms. What is
//! diffused is for the process to say, in the paper `2 (HR - up(LR))`. 11,755,267 parameters; those of the
//! encoder are buffers: files hold them, as `rrdb.` and their own names, and training leaves them alone.

use serde::{Deserialize, Serialize};

use super::rrdb::{Layers, RrdbConfig};
use super::weights::WeightsFile;
use super::{FrozenPart, Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::{Conv2d, ConvTranspose2d, Init, Linear};
use crate::ops::conv_transpose2d;
use crate::ops::conv2d::{self, Then};
use crate::ops::time_embedding::TimeEmbedding;

/// What the names of the encoder's parameters start with.
const ENCODER: &str = "rrdb";

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SrdiffUNetConfig {
    /// Channels of the first level, and width of the embedding of t.
    pub base: usize,
    /// Times `base`: the channels at full resolution and at each halving.
    pub multipliers: Vec<usize>,
    /// Channels of the encoder's features.
    pub encoder_base: usize,
    /// Blocks of the encoder. Of their features and those behind all of them every third is used, so 8 give
    /// three of nine.
    pub encoder_blocks: usize,
    /// Channels that each convolution of the encoder's dense blocks adds.
    pub encoder_growth: usize,
    /// The factor between low and high resolution, a power of 2; the network itself works at the high one.
    pub scale: usize,
}

impl Default for SrdiffUNetConfig {
    fn default() -> Self {
        let encoder = RrdbConfig::default();
        Self {
            base: 64,
            multipliers: vec![1, 2, 3, 4],
            encoder_base: encoder.base,
            encoder_blocks: encoder.blocks,
            encoder_growth: encoder.growth,
            scale: encoder.scale,
        }
    }
}

impl SrdiffUNetConfig {
    /// The encoder's sizes: those with which it is trained alone.
    pub const fn encoder(&self) -> RrdbConfig {
        RrdbConfig {
            base: self.encoder_base,
            blocks: self.encoder_blocks,
            growth: self.encoder_growth,
            scale: self.scale,
            unshuffle: 1,
        }
    }
}

/// A convolution of three taps, padded by reflection.
#[derive(Debug)]
struct Reflecting(Conv2d);

impl Reflecting {
    fn new(init: &mut Init, name: &str, [a, b]: [usize; 2], stride: usize) -> Self {
        let op = conv2d::Conv2d { stride, pad: 0, relu: false };
        Self(Conv2d::new(init, name, [a, b, 3], op))
    }

    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let padded = tape.pad_reflect_around(x, 1)?;
        self.0.forward(tape, &padded)
    }

    fn forward_mish(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        if tape.fuses(x) {
            return self.fused(tape, x, Then::default());
        }
        let y = self.forward(tape, x)?;
        tape.mish(&y)
    }

    /// Mish, and then what `then` says, in one pass.
    fn fused(&self, tape: &mut Tape, x: &Var, then: Then<'_>) -> Result<Var> {
        let padded = tape.pad_reflect_around(x, 1)?;
        let then = Then { activation: conv2d::Activation::Mish, late: true, ..then };
        self.0.forward_then(tape, &padded, then)
    }
}

#[derive(Debug)]
struct Block {
    time: Linear,
    conv: [Reflecting; 2],
    skip: Option<Conv2d>,
}

impl Block {
    fn new(init: &mut Init, name: &str, [a, b]: [usize; 2], time: usize) -> Self {
        init.at(name, |init| Self {
            time: Linear::new(init, "mlp.1", time, b),
            conv: [
                Reflecting::new(init, "block1.block.1", [a, b], 1),
                Reflecting::new(init, "block2.block.1", [b, b], 1),
            ],
            skip: (a != b).then(|| Conv2d::same(init, "res_conv", a, b, 1)),
        })
    }

    /// `time` is `mish e`, the same for all blocks.
    fn forward(&self, tape: &mut Tape, x: &Var, time: &Var) -> Result<Var> {
        let shift = self.time.forward(tape, time)?;
        if tape.fuses(x) {
            let then = Then { shift: Some((&shift, 0)), ..Then::default() };
            let y = self.conv[0].fused(tape, x, then)?;
            let skip = match &self.skip {
                Some(skip) => skip.forward(tape, x)?,
                None => x.clone(),
            };
            let then = Then { residual: Some((&skip, 1.0)), ..Then::default() };
            return self.conv[1].fused(tape, &y, then);
        }
        let mut y = self.conv[0].forward_mish(tape, x)?;
        y = tape.add_channels(&y, &shift)?;
        y = self.conv[1].forward_mish(tape, &y)?;
        match &self.skip {
            Some(skip) => {
                let skip = skip.forward(tape, x)?;
                tape.add(&y, &skip)
            }
            None => tape.add(&y, x),
        }
    }
}

/// Two blocks in a row.
#[derive(Debug)]
struct Pair([Block; 2]);

impl Pair {
    fn new(init: &mut Init, names: [String; 2], [a, b]: [usize; 2], time: usize) -> Self {
        let [first, second] = names;
        Self([Block::new(init, &first, [a, b], time), Block::new(init, &second, [b, b], time)])
    }

    fn forward(&self, tape: &mut Tape, x: &Var, time: &Var) -> Result<Var> {
        let y = self.0[0].forward(tape, x, time)?;
        self.0[1].forward(tape, &y, time)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct SrdiffUNet {
    config: SrdiffUNetConfig,
    project: ConvTranspose2d,
    time: [Linear; 2],
    /// Each level, and what halves its map for the next.
    down: Vec<(Pair, Option<Reflecting>)>,
    between: Pair,
    up: Vec<(Pair, ConvTranspose2d)>,
    last: (Reflecting, Conv2d),
    parameters: Vec<Parameter>,
    encoder: Layers,
    buffers: Vec<Parameter>,
}

impl SrdiffUNet {
    /// A network whose initial weights are a function of `seed`; so are those of the encoder, until
    /// [`load_frozen`](Network::load_frozen).
    pub fn new(config: &SrdiffUNetConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, d, s) = (&mut all, config.base, config.scale);
        let seen = config.encoder_base * ((config.encoder_blocks + 1) / 3);
        let enlarge = conv_transpose2d::ConvTranspose2d { stride: s, pad: s / 2, extra: [0; 2] };
        let project = ConvTranspose2d::new(init, "cond_proj", [seen, d, 2 * s], enlarge);
        let time = [Linear::new(init, "mlp.0", d, 4 * d), Linear::new(init, "mlp.2", 4 * d, d)];
        let widths: Vec<usize> =
            std::iter::once(3).chain(config.multipliers.iter().map(|m| m * d)).collect();
        let levels = widths.len() - 1;
        let down = (0..levels).map(|i| {
            let names = [0, 1].map(|k| format!("downs.{i}.{k}"));
            let (a, b) = (widths[i], widths[i + 1]);
            let name = format!("downs.{i}.2.conv.1");
            let pair = Pair::new(init, names, [a, b], d);
            (pair, (i + 1 < levels).then(|| Reflecting::new(init, &name, [b, b], 2)))
        });
        let down = down.collect();
        let double = conv_transpose2d::ConvTranspose2d { stride: 2, pad: 1, extra: [0; 2] };
        let up = (1..levels).rev().enumerate().map(|(i, level)| {
            let names = [0, 1].map(|k| format!("ups.{i}.{k}"));
            let (a, b) = (2 * widths[level + 1], widths[level]);
            let pair = Pair::new(init, names, [a, b], d);
            (pair, ConvTranspose2d::new(init, &format!("ups.{i}.2.conv.0"), [b, b, 4], double))
        });
        let up = up.collect();
        let deepest = [widths[levels]; 2];
        let names = ["mid_block1", "mid_block2"].map(str::to_owned);
        let between = Pair::new(init, names, deepest, d);
        let last = (
            Reflecting::new(init, "final_conv.0.block.1", [d, d], 1),
            Conv2d::same(init, "final_conv.1", d, 3, 1),
        );
        let parameters = all.finish();
        let mut frozen = Init::new(seed);
        let encoder = frozen.at(ENCODER, |init| Layers::new(init, &config.encoder()));
        let (config, buffers) = (config.clone(), frozen.finish());
        Self { config, project, time, down, between, up, last, parameters, encoder, buffers }
    }

    fn embed(&self, tape: &mut Tape, x: &Var, t: &Tensor) -> Result<Var> {
        let form = TimeEmbedding::SinCosToEnd;
        let embedded = form.of_tensor(t, self.config.base, x.value().dtype())?;
        let embedded = tape.input(embedded);
        let time = self.time[0].forward(tape, &embedded)?;
        let time = tape.mish(&time)?;
        let time = self.time[1].forward(tape, &time)?;
        tape.mish(&time)
    }
}

impl Module for SrdiffUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }
}

impl Network for SrdiffUNet {
    fn frozen_part(&self) -> Option<&'static str> {
        Some("encoder")
    }

    /// From the weights of an [encoder](super::rrdb) by itself, or of a network like this one.
    fn load_frozen(&self, file: &WeightsFile, name: &str) -> Result<()> {
        file.below(ENCODER).apply(&self.buffers, name)
    }

    /// The encoder's features `[N, h, w, ..]` of `low`.
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        // The encoder keeps full precision in a network that computes in half of it.
        let dtype = self.buffers.first().map_or(low.dtype(), |b| b.value().dtype());
        let mut tape = Tape::inference();
        let low = match low.dtype() {
            same if same == dtype => tape.input(low.try_clone()?),
            _ => tape.input(low.cast(dtype)?),
        };
        let all = self.encoder.features(&mut tape, &low)?;
        let third: Vec<&Var> = all.iter().skip(2).step_by(3).collect();
        tape.concat(&third)?.into_tensor()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let time = self.embed(tape, x, t)?;
        let mut y = x.clone();
        let mut skips = Vec::with_capacity(self.down.len());
        for (i, (pair, half)) in self.down.iter().enumerate() {
            y = pair.forward(tape, &y, &time)?;
            if i == 0 {
                let seen = self.project.forward(tape, condition)?;
                y = tape.add(&y, &seen)?;
            }
            skips.push(y.clone());
            if let Some(half) = half {
                y = half.forward(tape, &y)?;
            }
        }
        y = self.between.forward(tape, &y, &time)?;
        for (pair, double) in &self.up {
            let Some(skip) = skips.pop() else { unreachable!("fewer levels up than down") };
            y = tape.concat(&[&y, &skip])?;
            drop(skip);
            y = pair.forward(tape, &y, &time)?;
            y = double.forward(tape, &y)?;
        }
        y = self.last.0.forward_mish(tape, &y)?;
        self.last.1.forward(tape, &y)
    }

    fn moves_buffers(&self) -> bool {
        false
    }

    /// A halving for each level but the first. Without norms an output sees a bounded part, but over all
    /// steps of its sampler that is more than an image.
    fn geometry(&self) -> Geometry {
        let sides = 1 << self.config.multipliers.len().saturating_sub(1);
        Geometry { align: (sides / self.config.scale).max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        // At full resolution the skip, a map, and it padded, convolved and added to.
        6 * self.config.base * self.config.scale * self.config.scale
    }
}

impl Kind for SrdiffUNetConfig {
    const KEYS: &'static [&'static str] = &[
        "cond_proj.weight",
        "mlp.0.weight",
        "downs.0.0.block1.block.1.weight",
        "mid_block1.block1.block.1.weight",
        "rrdb.conv_first.weight",
    ];
    const FROZEN: Option<FrozenPart> =
        Some(FrozenPart { prefix: "rrdb.", key: "conv_first.weight" });

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(SrdiffUNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let encoder = RrdbConfig::of_encoder(s, "rrdb.")?;
        let base = s.dim("mlp.0.weight", 1)?;
        let widths = (0..).map(|i| s.dim(&format!("downs.{i}.0.block1.block.1.weight"), 0));
        let widths = widths.map_while(|width| width);
        Some(Self {
            base,
            multipliers: widths.map(|width| width / base).collect(),
            encoder_base: encoder.base,
            encoder_blocks: encoder.blocks,
            encoder_growth: encoder.growth,
            scale: s.dim("cond_proj.weight", 2)? / 2,
        })
    }

    fn narrow() -> Self {
        Self {
            base: 8,
            multipliers: vec![1, 2],
            encoder_base: 8,
            encoder_blocks: 8,
            encoder_growth: 4,
            scale: 4,
        }
    }
}
