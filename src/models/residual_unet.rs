//! The published `ResidualDiffusionUNet`: a plain UNet that predicts the
//! noise in the residual `x0 - y0`. 2,032,835 parameters as published.
use serde::{Deserialize, Serialize};

use super::{Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::{Conv2d, ConvTranspose2d, GroupNorm, Init, Linear};
use crate::ops::conv_transpose2d;
use crate::ops::conv2d;
use crate::ops::time_embedding::TimeEmbedding;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ResidualUNetConfig {
    /// Channels at full resolution; 64 as published. The embedding of t is four times as wide.
    pub base: usize,
    /// The factor between low and high resolution; the network itself works at the high one.
    pub scale: usize,
}

impl Default for ResidualUNetConfig {
    fn default() -> Self {
        Self { base: 64, scale: 4 }
    }
}

/// conv3, norm, ReLU, plus time; conv3, norm, ReLU.
#[derive(Debug)]
struct Stage {
    conv: [Conv2d; 2],
    norm: [GroupNorm; 2],
    time: Linear,
}

impl Stage {
    /// Stage `i` of the published names `conv{i}_1`, `norm{i}_1`, `time_lin{i}`.
    fn new(init: &mut Init, i: usize, [inputs, outputs, time]: [usize; 3]) -> Self {
        Self {
            conv: [
                Conv2d::same(init, &format!("conv{i}_1"), inputs, outputs, 3),
                Conv2d::same(init, &format!("conv{i}_2"), outputs, outputs, 3),
            ],
            norm: [
                GroupNorm::new(init, &format!("norm{i}_1"), 8, outputs),
                GroupNorm::new(init, &format!("norm{i}_2"), 8, outputs),
            ],
            time: Linear::new(init, &format!("time_lin{i}"), time, outputs),
        }
    }

    fn forward(&self, tape: &mut Tape, x: &Var, time: &Var) -> Result<Var> {
        let h = self.conv[0].forward(tape, x)?;
        let h = self.norm[0].forward(tape, &h)?;
        let h = tape.relu(&h)?;
        let shift = self.time.forward(tape, time)?;
        let h = tape.add_channels(&h, &shift)?;
        let h = self.conv[1].forward(tape, &h)?;
        let h = self.norm[1].forward(tape, &h)?;
        tape.relu(&h)
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct ResidualUNet {
    time_dim: usize,
    time: Linear,
    stages: [Stage; 5],
    down: [Conv2d; 2],
    up: [ConvTranspose2d; 2],
    last: Conv2d,
    scale: usize,
    parameters: Vec<Parameter>,
}

impl ResidualUNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &ResidualUNetConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, c, d) = (&mut all, config.base, 4 * config.base);
        let half = conv2d::Conv2d { stride: 2, pad: 1, relu: false };
        let double = conv_transpose2d::ConvTranspose2d::new(2, 1);
        let time = Linear::new(init, "time_emb", d, d);
        let stages = [
            Stage::new(init, 1, [6, c, d]),
            Stage::new(init, 2, [c, 2 * c, d]),
            Stage::new(init, 3, [2 * c, 2 * c, d]),
            Stage::new(init, 4, [4 * c, 2 * c, d]),
            Stage::new(init, 5, [2 * c, c, d]),
        ];
        let down = [
            Conv2d::new(init, "down1", [c, c, 4], half),
            Conv2d::new(init, "down2", [2 * c, 2 * c, 4], half),
        ];
        let up = [
            ConvTranspose2d::new(init, "up1", [2 * c, 2 * c, 4], double),
            ConvTranspose2d::new(init, "up2", [2 * c, c, 4], double),
        ];
        let last = Conv2d::same(init, "final_conv", c, 3, 3);
        let scale = config.scale;
        let parameters = all.finish();
        Self { time_dim: d, time, stages, down, up, last, scale, parameters }
    }
}

/// Doubles height and width and puts `skip` behind, cut to the same size where it was odd.
fn up(tape: &mut Tape, x: &Var, layer: &ConvTranspose2d, skip: &Var) -> Result<Var> {
    let x = layer.forward(tape, x)?;
    let skip = tape.crop(skip, x.shape()[1], x.shape()[2])?;
    tape.concat(&[&x, &skip])
}

impl Module for ResidualUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for ResidualUNet {
    fn condition(&self, _low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        y0.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let dtype = x.value().dtype();
        let embedded = TimeEmbedding::SinCosToEnd.of_tensor(t, self.time_dim, dtype)?;
        let embedded = tape.input(embedded);
        let time = self.time.forward(tape, &embedded)?;
        let time = tape.relu(&time)?;
        let [s1, s2, s3, s4, s5] = &self.stages;
        let input = tape.concat(&[x, condition])?;
        let x1 = s1.forward(tape, &input, &time)?;
        drop(input);
        let x2 = self.down[0].forward(tape, &x1)?;
        let x2 = s2.forward(tape, &x2, &time)?;
        let x3 = self.down[1].forward(tape, &x2)?;
        let x3 = s3.forward(tape, &x3, &time)?;
        let y = up(tape, &x3, &self.up[0], &x2)?;
        drop((x2, x3));
        let y = s4.forward(tape, &y, &time)?;
        let y = up(tape, &y, &self.up[1], &x1)?;
        drop(x1);
        let y = s5.forward(tape, &y, &time)?;
        self.last.forward(tape, &y)
    }

    /// Two halvings; the norms see the whole map.
    fn geometry(&self) -> Geometry {
        Geometry { align: (4 / self.scale).max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        10 * self.time_dim / 4 * self.scale * self.scale
    }

    fn floats_on_gpu(&self) -> usize {
        12 * self.time_dim / 4 * self.scale * self.scale
    }
}

impl Kind for ResidualUNetConfig {
    const KEYS: &'static [&'static str] =
        &["time_emb.weight", "time_lin1.weight", "conv3_2.weight", "conv5_1.weight"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(ResidualUNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        Some(Self { base: s.dim("conv3_2.weight", 0)? / 2, ..Self::default() })
    }

    fn narrow() -> Self {
        Self { base: 8, ..Self::default() }
    }
}
