//! A simplified SR3 of BigGAN's up and down blocks.
//!
//! ```text
//! Down a -> b:  e = relu(linear t),  x -> + e -> relu -> conv3 -> relu -> conv3 -> pool, + skip / sqrt 2
//!               skip = pool(conv1(x))
//! Up a -> b:    [x, level] -> + e -> norm -> relu -> up2 -> conv3 -> norm -> relu -> conv3, + skip / sqrt 2
//!               skip = conv1(up2(x))
//! ```
//!
//! Input is `[y0, x_t]`, output the predicted noise. What the decoder gets beside `x` are the outputs of
//! the down blocks, as published: the deepest level meets itself, and full resolution nothing.
//! 63,898,017 parameters for MNIST (1 channel, 32 for t), 64,376,707 for MiniPlaces (3, 128).
use serde::{Deserialize, Serialize};

use super::{Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::{BatchNorm, Conv2d, ConvTranspose2d, Init, Linear};
use crate::ops::conv_transpose2d;
use crate::ops::time_embedding::TimeEmbedding;

/// Where a block adds what the step t has to say; the post found the first to be the best.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Injection {
    /// To the input of the main path.
    #[default]
    BeforeConv1,
    /// To the output of its first convolution.
    BetweenConvs,
    /// To the output of its second convolution.
    AfterConv2,
}

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BigGanUNetConfig {
    /// Channels of an image.
    pub channels: usize,
    /// Width of the embedding of t; as published the side of the images, 32 or 128.
    pub time_dim: usize,
    /// Channels at full resolution and at each halving.
    pub widths: Vec<usize>,
    /// Where blocks add the embedding of t.
    pub injection: Injection,
    /// The factor between low and high resolution; the network itself works at the high one.
    pub scale: usize,
}

impl Default for BigGanUNetConfig {
    fn default() -> Self {
        let widths = vec![64, 128, 256, 512, 1024];
        Self { channels: 3, time_dim: 128, widths, injection: Injection::default(), scale: 4 }
    }
}

/// What down and up blocks share: the two convolutions of the main path and the time shift.
#[derive(Debug)]
struct Shift {
    linear: Linear,
    at: Injection,
}

impl Shift {
    /// For a main path of `inputs` channels before its first convolution and `outputs` after it.
    fn new(init: &mut Init, time: usize, inputs: usize, outputs: usize, at: Injection) -> Self {
        let channels = if at == Injection::BeforeConv1 { inputs } else { outputs };
        Self { linear: Linear::new(init, "time_mlp", time, channels), at }
    }

    /// `x`, plus the shift if it belongs here.
    fn add(&self, tape: &mut Tape, x: Var, time: &Var, here: Injection) -> Result<Var> {
        if self.at != here {
            return Ok(x);
        }
        let shift = self.linear.forward(tape, time)?;
        let shift = tape.relu(&shift)?;
        tape.add_channels(&x, &shift)
    }
}

#[derive(Debug)]
struct Down {
    shift: Shift,
    skip: Conv2d,
    conv: [Conv2d; 2],
}

impl Down {
    fn new(init: &mut Init, [a, b]: [usize; 2], time: usize, at: Injection) -> Self {
        Self {
            shift: Shift::new(init, time, a, b, at),
            skip: Conv2d::same(init, "skip_conv", a, b, 1),
            conv: [Conv2d::same(init, "conv1", a, b, 3), Conv2d::same(init, "conv2", b, b, 3)],
        }
    }

    fn forward(&self, tape: &mut Tape, x: &Var, time: &Var) -> Result<Var> {
        let mut y = self.shift.add(tape, x.clone(), time, Injection::BeforeConv1)?;
        y = tape.relu(&y)?;
        y = self.conv[0].forward(tape, &y)?;
        y = self.shift.add(tape, y, time, Injection::BetweenConvs)?;
        y = tape.relu(&y)?;
        y = self.conv[1].forward(tape, &y)?;
        y = self.shift.add(tape, y, time, Injection::AfterConv2)?;
        y = average2(tape, &y)?;
        // Pooled first: it commutes with a 1x1 convolution, and leaves it a quarter of the work.
        let skip = average2(tape, x)?;
        let skip = self.skip.forward(tape, &skip)?;
        joined(tape, &y, &skip)
    }
}

/// 2x2 means at stride 2: halfway between its four pixels a bilinear sample is their mean.
fn average2(tape: &mut Tape, x: &Var) -> Result<Var> {
    tape.bilinear_down(x, 2)
}

/// `y + skip / sqrt 2`.
fn joined(tape: &mut Tape, y: &Var, skip: &Var) -> Result<Var> {
    tape.scaled_add(y, 1.0, skip, std::f64::consts::FRAC_1_SQRT_2)
}

#[derive(Debug)]
struct Up {
    shift: Shift,
    skip_up: ConvTranspose2d,
    skip: Conv2d,
    norm: [BatchNorm; 2],
    up: ConvTranspose2d,
    conv: [Conv2d; 2],
}

impl Up {
    fn new(init: &mut Init, [a, b]: [usize; 2], time: usize, at: Injection) -> Self {
        let double = conv_transpose2d::ConvTranspose2d::new(2, 0);
        let shift = Shift::new(init, time, 2 * a, b, at);
        let skip_up = ConvTranspose2d::new(init, "skip_upsample", [a, a, 2], double);
        let skip = Conv2d::same(init, "skip_conv", a, b, 1);
        let first = BatchNorm::new(init, "bn1", 2 * a);
        let up = ConvTranspose2d::new(init, "upsample", [2 * a, 2 * a, 2], double);
        let conv1 = Conv2d::same(init, "conv1", 2 * a, b, 3);
        let second = BatchNorm::new(init, "bn2", b);
        let conv2 = Conv2d::same(init, "conv2", b, b, 3);
        Self { shift, skip_up, skip, norm: [first, second], up, conv: [conv1, conv2] }
    }

    fn forward(&self, tape: &mut Tape, x: &Var, level: &Var, time: &Var) -> Result<Var> {
        let mut y = tape.concat(&[x, level])?;
        y = self.shift.add(tape, y, time, Injection::BeforeConv1)?;
        y = self.norm[0].forward(tape, &y)?;
        y = tape.relu(&y)?;
        y = self.up.forward(tape, &y)?;
        y = self.conv[0].forward(tape, &y)?;
        y = self.shift.add(tape, y, time, Injection::BetweenConvs)?;
        y = self.norm[1].forward(tape, &y)?;
        y = tape.relu(&y)?;
        y = self.conv[1].forward(tape, &y)?;
        y = self.shift.add(tape, y, time, Injection::AfterConv2)?;
        let skip = self.skip_up.forward(tape, x)?;
        let skip = self.skip.forward(tape, &skip)?;
        joined(tape, &y, &skip)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct BigGanUNet {
    config: BigGanUNetConfig,
    time: Linear,
    stem: Conv2d,
    down: Vec<Down>,
    up: Vec<Up>,
    last: Conv2d,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl BigGanUNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &BigGanUNetConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, d, at) = (&mut all, config.time_dim, config.injection);
        let (widths, channels) = (&config.widths, config.channels);
        let full = widths.first().copied().unwrap_or_default();
        let time = Linear::new(init, "time_mlp.1", d, d);
        let stem = Conv2d::same(init, "conv0", 2 * channels, full, 3);
        let build = |(i, pair): (usize, &[usize])| {
            init.at(format!("down_blocks.{i}"), |init| Down::new(init, [pair[0], pair[1]], d, at))
        };
        let down = widths.windows(2).enumerate().map(build).collect();
        let build = |(i, pair): (usize, &[usize])| {
            init.at(format!("up_blocks.{i}"), |init| Up::new(init, [pair[1], pair[0]], d, at))
        };
        let up = widths.windows(2).rev().enumerate().map(build).collect();
        let last = Conv2d::same(init, "output", full, channels, 1);
        let (parameters, buffers) = all.finish_with_buffers();
        Self { config: config.clone(), time, stem, down, up, last, parameters, buffers }
    }
}

impl Module for BigGanUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }
}

impl Network for BigGanUNet {
    fn condition(&self, _low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        y0.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let dtype = x.value().dtype();
        let embedded = TimeEmbedding::SinCosToEnd.of_tensor(t, self.config.time_dim, dtype)?;
        let embedded = tape.input(embedded);
        let time = self.time.forward(tape, &embedded)?;
        let time = tape.relu(&time)?;
        let mut y = tape.concat(&[condition, x])?;
        y = self.stem.forward(tape, &y)?;
        let mut levels = Vec::with_capacity(self.down.len());
        for block in &self.down {
            y = block.forward(tape, &y, &time)?;
            levels.push(y.clone());
        }
        for (block, level) in self.up.iter().zip(levels.into_iter().rev()) {
            y = block.forward(tape, &y, &level, &time)?;
        }
        self.last.forward(tape, &y)
    }

    fn channels(&self) -> usize {
        self.config.channels
    }

    /// A halving for each width but the first. Trained norms are constants, but the field is wider than
    /// the images the network was made for.
    fn geometry(&self) -> Geometry {
        let sides = 1 << self.down.len();
        Geometry { align: (sides / self.config.scale).max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        // Its widest point: twice the second width at full resolution, in the last up block.
        let widest = self.config.widths.iter().take(2).max().copied().unwrap_or_default();
        (5 * 2 * widest + 12) * self.config.scale * self.config.scale
    }

    fn floats_on_gpu(&self) -> usize {
        // What follows convolutions is part of them there.
        let widest = self.config.widths.iter().take(2).max().copied().unwrap_or_default();
        (4 * widest + 12) * self.config.scale * self.config.scale
    }
}

impl Kind for BigGanUNetConfig {
    const KEYS: &'static [&'static str] = &[
        "conv0.weight",
        "up_blocks.0.upsample.weight",
        "up_blocks.0.bn1.running_mean",
        "output.weight",
    ];

    const MEANING: &'static [&'static str] = &["injection"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(BigGanUNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let down = (0..).map(|i| s.dim(&format!("down_blocks.{i}.skip_conv.weight"), 0));
        let mut widths = vec![s.dim("conv0.weight", 0)?];
        widths.extend(down.map_while(|width| width));
        let first = s.dim("down_blocks.0.time_mlp.weight", 0)? == widths[0];
        let injection = if first { Injection::BeforeConv1 } else { Injection::BetweenConvs };
        Some(Self {
            channels: s.dim("output.weight", 0)?,
            time_dim: s.dim("time_mlp.1.weight", 0)?,
            widths,
            injection,
            ..Self::default()
        })
    }

    fn narrow() -> Self {
        Self { channels: 3, time_dim: 16, widths: vec![4, 8, 12], ..Self::default() }
    }
}
