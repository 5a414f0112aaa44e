//! The default model of srk 0.1: dual-domain blocks on a pixel-unshuffled grid at the low resolution.
//!
//! In the spirit of the published `DualDomainUNet`, freed of its faults: block-wise DCT,
//! no statistics over the map, the step t seen by every block, all work at the low resolution. With
//! the state unshuffled by the scale s (EDSR, Lim et al. 2017, and ESPCN, Shi et al. 2016, run the
//! same way), a call costs 1/s^2 of a network at the high resolution.
//!
//! ```text
//! x_t [H, W, 3] -> unshuffle s -> [h, w, 3 s^2] ++ low [h, w, 3] -> conv3 -> blocks -> + -> conv3
//!              -> shuffle s -> predicted x0 - y0 [H, W, 3]
//! ```
use serde::{Deserialize, Serialize};

use super::{Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::dual_domain::{DCT_BLOCK, GridBlock};
use crate::nn::{Conv2d, Init, Linear, strips};
use crate::ops::time_embedding::TimeEmbedding;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DualDomainGridConfig {
    /// The factor between low and high resolution.
    pub scale: usize,
    /// Channels of the trunk.
    pub channels: usize,
    /// Dual-domain blocks.
    pub blocks: usize,
    /// Channels of the DCT stream.
    pub frequency_channels: usize,
    /// Channels of the wavelet stream.
    pub wavelet_channels: usize,
    /// Width of the embedding of t.
    pub time_dim: usize,
}

impl Default for DualDomainGridConfig {
    fn default() -> Self {
        Self {
            scale: 4,
            channels: 64,
            blocks: 8,
            frequency_channels: 32,
            wavelet_channels: 16,
            time_dim: 64,
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct DualDomainGrid {
    config: DualDomainGridConfig,
    time: [Linear; 2],
    stem: Conv2d,
    blocks: Vec<(GridBlock, Linear)>,
    body: Conv2d,
    tail: Conv2d,
    parameters: Vec<Parameter>,
}

impl DualDomainGrid {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &DualDomainGridConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let c = config.channels;
        let image = 3 * config.scale * config.scale;
        let init_ = &mut init;
        let time = init_.at("time", |init| {
            [Linear::new(init, "0", config.time_dim, c), Linear::new(init, "2", c, c)]
        });
        let stem = Conv2d::same(init_, "stem", image + 3, c, 3);
        let blocks = (0..config.blocks)
            .map(|i| {
                init_.at(format!("blocks.{i}"), |init| {
                    let (f, w) = (config.frequency_channels, config.wavelet_channels);
                    (GridBlock::new(init, c, f, w), Linear::new(init, "time", c, c))
                })
            })
            .collect();
        let body = Conv2d::same(init_, "body", c, c, 3);
        let tail = Conv2d::same(init_, "tail", c, image, 3).scaled(0.1);
        let parameters = init.finish();
        Self { config: config.clone(), time, stem, blocks, body, tail, parameters }
    }

    /// What t has to say, `[N, channels]`, before each block's own linear map.
    fn time_features(&self, tape: &mut Tape, x: &Var, t: &Tensor) -> Result<Var> {
        let embedded =
            TimeEmbedding::SinCosToEnd.of_tensor(t, self.config.time_dim, x.value().dtype())?;
        let embedded = tape.input(embedded);
        let features = self.time[0].forward_silu(tape, &embedded)?;
        self.time[1].forward_silu(tape, &features)
    }
}

impl DualDomainGrid {
    /// All behind the stem, on a tape that [fuses](Tape::fuses).
    fn fused(&self, tape: &mut Tape, stem: &Var, time: &Var) -> Result<Var> {
        let layers: Vec<&Linear> = self.blocks.iter().map(|(_, linear)| linear).collect();
        let (shifts, firsts) = Linear::forward_all(tape, &layers, time)?;
        let mut features = stem.clone();
        for ((block, _), first) in self.blocks.iter().zip(firsts) {
            features = block.fused(tape, &features, (&shifts, first))?;
        }
        features = self.body.forward_onto(tape, &features, stem, 1.0)?;
        let image = self.tail.forward(tape, &features)?;
        tape.pixel_shuffle(&image, self.config.scale)
    }
}

impl Module for DualDomainGrid {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for DualDomainGrid {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        let time = self.time_features(tape, x, t)?;
        let state = tape.pixel_unshuffle(x, self.config.scale)?;
        let input = tape.concat(&[&state, condition])?;
        drop(state);
        let stem = self.stem.forward(tape, &input)?;
        drop(input);
        if tape.fuses(x) {
            return self.fused(tape, &stem, &time);
        }
        let mut features = stem.clone();
        for (block, linear) in &self.blocks {
            let shift = linear.forward(tape, &time)?;
            if tape.is_inference() {
                features = strips::in_strips(tape, features, |tape, x, strip| {
                    block.rows(tape, x, strip.rows, &shift)
                })?;
                continue;
            }
            // A clone shares the weights.
            let block = block.clone();
            let run = move |tape: &mut Tape, v: &[Var]| block.forward(tape, &v[0], &v[1]);
            features = tape.part(&[&features, &shift], run)?;
        }
        features = match tape.is_inference() {
            false => self.body.forward_onto(tape, &features, &stem, 1.0)?,
            true => strips::in_strips(tape, features, |tape, x, strip| {
                let y = self.body.forward(tape, x)?;
                let (y, stem) =
                    (strips::part(tape, &y, strip.rows)?, strips::part(tape, &stem, strip.of_map)?);
                tape.add(&y, &stem)
            })?,
        };
        drop(stem);
        let image = self.tail.forward(tape, &features)?;
        drop(features);
        tape.pixel_shuffle(&image, self.config.scale)
    }

    fn geometry(&self) -> Geometry {
        let align = DCT_BLOCK;
        // From the last convolution back: 2 pixels a block for its spatial stream, and whole DCT
        // blocks for its frequency stream.
        let mut reach: usize = 2;
        for _ in 0..self.config.blocks {
            reach = (reach + 2).max(reach.next_multiple_of(align));
        }
        Geometry { align, receptive_field: Some((reach + 1).next_multiple_of(align)) }
    }

    fn bytes_on_cpu(&self, width: usize, height: usize) -> u64 {
        let c = &self.config;
        let streams = c.frequency_channels + c.wavelet_channels;
        // Two maps and two images of the sampler; at the end of a step more images and one map. Beside
        // them a strip at its concatenation.
        let image = 3 * c.scale * c.scale;
        let per_pixel = (2 * image + 2 * c.channels + 6).max(3 * image + c.channels + 6);
        let in_strip = width * strips::tallest(width, height) * (4 * c.channels + 2 * streams);
        4 * (width * height * per_pixel + in_strip) as u64
    }

    fn floats_per_pixel(&self) -> usize {
        let c = &self.config;
        let (streams, image) = (c.frequency_channels + c.wavelet_channels, 3 * c.scale * c.scale);
        // Inside a block, at the concatenation; then the images of the sampler.
        5 * c.channels + 3 * streams + 5 * image
    }

    fn floats_on_gpu(&self) -> usize {
        self.floats_per_pixel() - 3 * 3 * self.config.scale * self.config.scale
    }
}

impl Kind for DualDomainGridConfig {
    const KEYS: &'static [&'static str] =
        &["stem.weight", "blocks.0.time.weight", "blocks.0.spatial.conv.0.weight", "tail.weight"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(DualDomainGrid::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let (reduced, trunk) = (s.dim("blocks.0.reduce.weight", 0)?, s.dim("stem.weight", 0)?);
        let frequency = s.dim("blocks.0.dct.weight", 0)?;
        Some(Self {
            scale: s.shuffle("tail.weight")?,
            channels: trunk,
            blocks: s.count(|i| format!("blocks.{i}.time.weight")),
            frequency_channels: frequency,
            wavelet_channels: reduced.checked_sub(frequency)?,
            time_dim: s.dim("time.0.weight", 1)?,
        })
    }

    fn narrow() -> Self {
        Self {
            scale: 4,
            channels: 8,
            blocks: 2,
            frequency_channels: 4,
            wavelet_channels: 6,
            time_dim: 12,
        }
    }
}
