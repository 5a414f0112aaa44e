//! The published `DualDomainUNet`: a UNet of dual-domain blocks at the high resolution.
//!
//! Input is `[x_t 3, y0 3, Fourier position 24, local amplitude 1]`, output the predicted `x0 - y0`.
use serde::{Deserialize, Serialize};

use super::{Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::dual_domain::{ConvBlock, DualDomainBlock};
use crate::nn::{Conv2d, Init, Linear};
use crate::ops::fourier_position::{Window, fourier_position_on};
use crate::ops::local_amplitude::local_amplitude;
use crate::ops::time_embedding::TimeEmbedding;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DualDomainUNetConfig {
    /// Channels at full resolution; 64 as published.
    pub base: usize,
    /// Width of the embedding of t; 128 as published.
    pub time_dim: usize,
    /// The factor between low and high resolution; the network itself works at the high one.
    pub scale: usize,
}

impl Default for DualDomainUNetConfig {
    fn default() -> Self {
        Self { base: 64, time_dim: 128, scale: 4 }
    }
}

/// See the [module](self). 1,387,075 parameters as published.
#[derive(Debug)]
pub struct DualDomainUNet {
    base: usize,
    time_dim: usize,
    scale: usize,
    time: [Linear; 2],
    inc: ConvBlock,
    down1: DualDomainBlock,
    down2: DualDomainBlock,
    bottom: DualDomainBlock,
    up1: Conv2d,
    dec1: DualDomainBlock,
    up2: Conv2d,
    dec2: DualDomainBlock,
    outc: Conv2d,
    parameters: Vec<Parameter>,
}

impl DualDomainUNet {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &DualDomainUNetConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, c, time_dim) = (&mut all, config.base, config.time_dim);
        let time = init.at("time_mlp", |init| {
            [
                Linear::new(init, "1", time_dim, 4 * time_dim),
                Linear::new(init, "3", 4 * time_dim, c),
            ]
        });
        let inc = init.at("inc", |init| ConvBlock::new(init, 31, c));
        let down1 = init.at("down1.1", |init| DualDomainBlock::new(init, c));
        let down2 = init.at("down2.1", |init| DualDomainBlock::new(init, c));
        let bottom = init.at("bot", |init| DualDomainBlock::new(init, c));
        let up1 = Conv2d::same(init, "up1.1", c, c, 1);
        let dec1 = init.at("dec1", |init| DualDomainBlock::new(init, 2 * c));
        let up2 = Conv2d::same(init, "up2.1", 2 * c, c, 1);
        let dec2 = init.at("dec2", |init| DualDomainBlock::new(init, 2 * c));
        let outc = Conv2d::same(init, "outc", 2 * c, 3, 1);
        let scale = config.scale;
        let parameters = all.finish();
        Self {
            base: c,
            time_dim,
            scale,
            time,
            inc,
            down1,
            down2,
            bottom,
            up1,
            dec1,
            up2,
            dec2,
            outc,
            parameters,
        }
    }

    fn time_shift(&self, tape: &mut Tape, x: &Var, t: &Tensor) -> Result<Var> {
        let dtype = x.value().dtype();
        let embedded = TimeEmbedding::SinCosToEnd.of_tensor(t, self.time_dim, dtype)?;
        let embedded = tape.input(embedded);
        let hidden = self.time[0].forward(tape, &embedded)?;
        let hidden = tape.gelu(&hidden)?;
        self.time[1].forward(tape, &hidden)
    }
}

/// Doubles height and width (bilinear, aligned corners), maps the channels, puts `skip` behind.
fn up(tape: &mut Tape, x: &Var, layer: &Conv2d, skip: &Var) -> Result<Var> {
    let x = tape.bilinear_up2(x)?;
    let x = layer.forward(tape, &x)?;
    tape.concat(&[&x, skip])
}

impl Module for DualDomainUNet {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for DualDomainUNet {
    /// `[y0 3, Fourier position 24, local amplitude 1]` at the high resolution.
    fn condition(&self, _low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        let [batch, height, width, _] = y0.nhwc("dual_domain_unet")?;
        let whole = Window { top: 0, left: 0, height, width };
        let position = fourier_position_on(&y0.device(), [height, width], whole, y0.dtype())?
            .stacked(batch)?;
        let amplitude = local_amplitude(y0)?;
        let mut tape = Tape::inference();
        let parts = [y0.try_clone()?, position, amplitude].map(|part| tape.input(part));
        tape.concat(&parts.iter().collect::<Vec<_>>())?.into_tensor()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let shift = self.time_shift(tape, x, t)?;
        let input = tape.concat(&[x, condition])?;
        let x1 = self.inc.forward(tape, &input)?;
        drop(input);
        let x1 = tape.add_channels(&x1, &shift)?;
        let x2 = tape.max_pool2(&x1)?;
        let x2 = self.down1.forward(tape, &x2)?;
        let x3 = tape.max_pool2(&x2)?;
        let x3 = self.down2.forward(tape, &x3)?;
        let bottom = self.bottom.forward(tape, &x3)?;
        let y = up(tape, &bottom, &self.up1, &x2)?;
        drop((x2, x3, bottom));
        let y = self.dec1.forward(tape, &y)?;
        let y = up(tape, &y, &self.up2, &x1)?;
        drop(x1);
        let y = self.dec2.forward(tape, &y)?;
        self.outc.forward(tape, &y)
    }

    /// Two poolings and even sizes for the wavelets below: high-resolution sides are multiples of 8.
    /// The DCT sees the whole map.
    fn geometry(&self) -> Geometry {
        Geometry { align: (8 / self.scale).max(1), receptive_field: None }
    }

    fn floats_per_pixel(&self) -> usize {
        // Its widest point: the last block, 128 channels at full resolution, three streams and their
        // concatenation beside the input.
        10 * 2 * self.base * self.scale * self.scale
    }

    fn floats_on_gpu(&self) -> usize {
        // The DCT's products are maps of their own there.
        23 * self.base * self.scale * self.scale
    }
}

impl Kind for DualDomainUNetConfig {
    const KEYS: &'static [&'static str] =
        &["inc.conv.0.weight", "down1.1.dct_branch.process.0.weight", "dec2.fusion.weight"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(DualDomainUNet::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        Some(Self {
            base: s.dim("dec2.fusion.weight", 0)? / 2,
            time_dim: s.dim("time_mlp.1.weight", 1)?,
            ..Self::default()
        })
    }

    fn narrow() -> Self {
        Self { base: 8, time_dim: 12, ..Self::default() }
    }
}
