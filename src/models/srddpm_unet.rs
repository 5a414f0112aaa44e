//! `ConditionalUNet`, the generator of SRDDPM.
//!
//! ```text
//! z = [x_t, relu(conv3(relu(conv3 y0)))],   e = linear(relu(linear t))
//! P a -> b:   o = relu(conv3 x),  o += relu(linear e),  o = relu(conv3 o),  gives o + conv1(x)
//! P, pool, P, pool, P, pool, P, then three times: up2, [x, skip], P;  gives conv1(x)
//! ```
//!
//! No norms. Input is the enlarged image y0 and the state, output the predicted noise. As published the
//! bare number t, up to 999, goes into the first linear map, from 1 to 128 ([`TimeInput::Raw`]): 8,321,219
//! parameters. The default gives it sines and cosines of t, which its source has and does not use; that
//! map is from 128 to 128: 8,337,475 parameters.
use serde::{Deserialize, Serialize};

use super::{Assumption, Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::{Conv2d, ConvTranspose2d, Init, Linear};
use crate::ops::conv_transpose2d;
use crate::ops::conv2d::Then;
use crate::ops::time_embedding::TimeEmbedding;

/// What the network is told of the step t.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeInput {
    /// Its sines and cosines.
    #[default]
    Sinusoids,
    /// The number itself, as published.
    Raw,
}

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SrddpmUNetConfig {
    /// Channels at full resolution; doubled at each of three halvings.
    pub base: usize,
    /// Width of the embedding of t.
    pub time_dim: usize,
    /// What is embedded.
    pub time: TimeInput,
    /// The factor between low and high resolution; the network itself works at the high one.
    pub scale: usize,
}

impl Default for SrddpmUNetConfig {
    fn default() -> Self {
        Self { base: 64, time_dim: 128, time: TimeInput::default(), scale: 4 }
    }
}

/// Two convolutions with a skip and the time shift between them.
#[derive(Debug)]
struct Block {
    conv: [Conv2d; 2],
    time: Linear,
    skip: Conv2d,
}

impl Block {
    fn new(init: &mut Init, name: &str, [a, b]: [usize; 2], time: usize) -> Self {
        init.at(name, |init| Self {
            conv: [
                Conv2d::same(init, "conv1", a, b, 3).relu(),
                Conv2d::same(init, "conv2", b, b, 3).relu(),
            ],
            time: Linear::new(init, "time_mlp", time, b),
            skip: Conv2d::same(init, "residual_conv", a, b, 1),
        })
    }

    fn forward(&self, tape: &mut Tape, x: &Var, time: &Var) -> Result<Var> {
        let shift = self.time.forward(tape, time)?;
        let shift = tape.relu(&shift)?;
        if tape.fuses(x) {
            let moved = Then { shift: Some((&shift, 0)), late: true, ..Then::default() };
            let y = self.conv[0].forward_then(tape, x, moved)?;
            let skip = self.skip.forward(tape, x)?;
            return self.conv[1].forward_onto(tape, &y, &skip, 1.0);
        }
        let mut y = self.conv[0].forward(tape, x)?;
        y = tape.add_channels(&y, &shift)?;
        let skip = self.skip.forward(tape, x)?;
        self.conv[1].forward_onto(tape, &y, &skip, 1.0)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct SrddpmUNet {
    config: SrddpmUNetConfig,
    condition: [Conv2d; 2],
    time: [Linear; 2],
    down: [Block; 3],
    bottleneck: Block,
    up: [(ConvTranspose2d, Block); 3],
    last: Conv2d,
    parameters: Vec<Parameter>,
}

impl SrddpmUNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &SrddpmUNetConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, b, d) = (&mut all, config.base, config.time_dim);
        let condition = [
            Conv2d::same(init, "lr_processor.0", 3, b, 3).relu(),
            Conv2d::same(init, "lr_processor.2", b, b, 3).relu(),
        ];
        let inputs = time_inputs(config);
        let time =
            [Linear::new(init, "time_mlp.0", inputs, d), Linear::new(init, "time_mlp.2", d, d)];
        let down = [
            Block::new(init, "enc1", [3 + b, b], d),
            Block::new(init, "enc2", [b, 2 * b], d),
            Block::new(init, "enc3", [2 * b, 4 * b], d),
        ];
        let bottleneck = Block::new(init, "bottleneck", [4 * b, 8 * b], d);
        let double = conv_transpose2d::ConvTranspose2d { stride: 2, pad: 0, extra: [0; 2] };
        let up = [(3, 8 * b), (2, 4 * b), (1, 2 * b)].map(|(level, c)| {
            let sizes = [c, c / 2, 2];
            let up = ConvTranspose2d::new(init, &format!("up{level}"), sizes, double);
            (up, Block::new(init, &format!("dec{level}"), [c, c / 2], d))
        });
        let last = Conv2d::same(init, "out_conv", b, 3, 1);
        let parameters = all.finish();
        let config = config.clone();
        Self { config, condition, time, down, bottleneck, up, last, parameters }
    }

    fn embed(&self, tape: &mut Tape, x: &Var, t: &Tensor) -> Result<Var> {
        let form = match self.config.time {
            TimeInput::Sinusoids => TimeEmbedding::SinCosToEnd,
            TimeInput::Raw => TimeEmbedding::Raw,
        };
        let embedded = form.of_tensor(t, time_inputs(&self.config), x.value().dtype())?;
        let embedded = tape.input(embedded);
        let time = self.time[0].forward(tape, &embedded)?;
        let time = tape.relu(&time)?;
        self.time[1].forward(tape, &time)
    }
}

/// How many numbers the first linear map of t takes.
const fn time_inputs(config: &SrddpmUNetConfig) -> usize {
    match config.time {
        TimeInput::Sinusoids => config.time_dim,
        TimeInput::Raw => 1,
    }
}

impl Module for SrddpmUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for SrddpmUNet {
    fn condition(&self, _low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        y0.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let time = self.embed(tape, x, t)?;
        let features = self.condition[0].forward(tape, condition)?;
        let features = self.condition[1].forward(tape, &features)?;
        let mut y = tape.concat(&[x, &features])?;
        drop(features);
        let mut skips = Vec::with_capacity(self.down.len());
        for block in &self.down {
            let level = block.forward(tape, &y, &time)?;
            y = tape.max_pool2(&level)?;
            skips.push(level);
        }
        y = self.bottleneck.forward(tape, &y, &time)?;
        for ((up, block), skip) in self.up.iter().zip(skips.into_iter().rev()) {
            y = up.forward(tape, &y)?;
            y = tape.concat(&[&y, &skip])?;
            drop(skip);
            y = block.forward(tape, &y, &time)?;
        }
        self.last.forward(tape, &y)
    }

    /// Three halvings. Without norms an output sees some 53 pixels each way, but over the many steps of its
    /// sampler that is more than an image.
    fn geometry(&self) -> Geometry {
        Geometry { align: (8 / self.config.scale).max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        // Its widest point: the last block, whose input has twice as many channels as the first level, with its skip and
        // their sum; and the images around it.
        (6 * self.config.base + 12) * self.config.scale * self.config.scale
    }
}

impl Kind for SrddpmUNetConfig {
    const KEYS: &'static [&'static str] = &[
        "lr_processor.0.weight",
        "time_mlp.0.weight",
        "bottleneck.conv2.weight",
        "out_conv.weight",
    ];
    const ASSUMED: &'static [Assumption] = &[Assumption {
        keys: &[],
        what: "that images were in -1..1, where the published training has 0..1",
    }];
    const MEANING: &'static [&'static str] = &["time"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(SrddpmUNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let inputs = s.dim("time_mlp.0.weight", 1)?;
        let time = if inputs == 1 { TimeInput::Raw } else { TimeInput::Sinusoids };
        Some(Self {
            base: s.dim("bottleneck.conv2.weight", 0)? / 8,
            time_dim: s.dim("time_mlp.0.weight", 0)?,
            time,
            ..Self::default()
        })
    }

    fn narrow() -> Self {
        Self { base: 4, time_dim: 12, time: TimeInput::Raw, ..Self::default() }
    }
}
