//! A Laplacian-pyramid CNN with squeeze and excitation. It is no denoiser but maps a low-resolution image
//! in `[0, 1]` straight to a larger one: the network of a direct process.
//!
//! ```text
//! f = relu(conv3(relu(conv2(relu(conv1 x)))))
//! Block_s(x):      u = up_s(x),  r = x - down_s(u),  z = (relu conv)^3 (r),  gives u and r + SE(z)
//! level_s(n, x):   n calls of Block_s; gives relu(compress(all u)) and the last residual
//! m8, r8 = level_8(2, f),   m8 += up8(f)
//! m4, r4 = level_4(4, r8),  m4 += half(m8)
//! m2, r2 = level_2(6, r4),  m2 += half(m4) + up2(r2)
//! image at s = reconstruction(relu(conv3(m_s)))
//! ```
//!
//! Published is the image at 2, the calls of a level all see its input, and share one block: 3
//! computations, 7,956,379 parameters. As the text describes it, each call sees the residual of the one
//! before ([`LaplacianConfig::chained`]), perhaps with a block of its own ([`LaplacianConfig::distinct`],
//! 15,352,291 parameters). Images at 4 and 8 use no further parameters.
use serde::{Deserialize, Serialize};

use super::{Assumption, Geometry, Kind, Module, Network, Shapes};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::nn::{Conv2d, ConvTranspose2d, Init};
use crate::ops::conv_transpose2d;
use crate::ops::conv2d;

/// The factors of the levels, and how often each calls its block.
const LEVELS: [(usize, usize); 3] = [(8, 2), (4, 4), (2, 6)];

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LaplacianConfig {
    /// Channels of the features; 128 as published. The first convolution makes four times as many.
    pub channels: usize,
    /// Whether each call of a block sees the residual of the one before; as published all calls of a
    /// level see the same.
    pub chained: bool,
    /// Whether each call has a block of its own; as published those of a level share one.
    pub distinct: bool,
    /// The factor between low and high resolution: 2 as published, 4 or 8.
    pub scale: usize,
}

impl Default for LaplacianConfig {
    fn default() -> Self {
        Self { channels: 128, chained: true, distinct: false, scale: 2 }
    }
}

impl LaplacianConfig {
    /// The network as its source computes it.
    pub const fn published() -> Self {
        Self { channels: 128, chained: false, distinct: false, scale: 2 }
    }
}

/// A convolution of three taps that divides height and width by `stride`.
fn shrink(init: &mut Init, name: &str, channels: usize, stride: usize) -> Conv2d {
    let op = conv2d::Conv2d { stride, pad: 1, relu: false };
    Conv2d::new(init, name, [channels, channels, 3], op)
}

/// A transposed convolution that multiplies height and width by `stride`.
fn grow(init: &mut Init, name: &str, channels: usize, stride: usize) -> ConvTranspose2d {
    let op = conv_transpose2d::ConvTranspose2d::new(stride, 1);
    ConvTranspose2d::new(init, name, [channels, channels, stride + 2], op)
}

#[derive(Debug)]
struct Block {
    up: ConvTranspose2d,
    down: Conv2d,
    conv: Conv2d,
    squeeze: Conv2d,
    excite: Conv2d,
}

impl Block {
    fn new(init: &mut Init, channels: usize, factor: usize) -> Self {
        let few = (channels / 16).max(1);
        let up = grow(init, "upsample", channels, factor);
        let down = shrink(init, "downsample", channels, factor);
        let conv = Conv2d::same(init, "conv", channels, channels, 3).relu();
        let (squeeze, excite) = init.at("squeeze_excitation", |init| {
            let squeeze = Conv2d::same(init, "fc1", channels, few, 1).relu();
            (squeeze, Conv2d::same(init, "fc2", few, channels, 1))
        });
        Self { up, down, conv, squeeze, excite }
    }

    /// The enlarged features, and what they leave unexplained of `x`, refined.
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<[Var; 2]> {
        let large = self.up.forward(tape, x)?;
        let small = self.down.forward(tape, &large)?;
        let residual = tape.scaled_add(x, 1.0, &small, -1.0)?;
        let mut z = residual.clone();
        for _ in 0..3 {
            z = self.conv.forward(tape, &z)?;
        }
        let mut gate = tape.mean_pixels(&z)?;
        gate = self.squeeze.forward(tape, &gate)?;
        gate = self.excite.forward(tape, &gate)?;
        let z = tape.channel_gate(&z, &gate)?;
        Ok([large, tape.add(&residual, &z)?])
    }
}

/// The blocks of one factor, and what compresses their maps.
#[derive(Debug)]
struct Level {
    /// One for each call, or one for all.
    blocks: Vec<Block>,
    calls: usize,
    chained: bool,
    compress: Conv2d,
}

impl Level {
    /// The map at the level's factor, and the last residual.
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<[Var; 2]> {
        let mut maps: Vec<Var> = Vec::with_capacity(self.calls);
        let mut residual = x.clone();
        for call in 0..self.calls {
            // Equal calls are computed once.
            let equal = call > 0 && !self.chained && self.blocks.len() == 1;
            if let (true, Some(map)) = (equal, maps.last().cloned()) {
                maps.push(map);
                continue;
            }
            let seen = if self.chained { &residual } else { x };
            let [map, left] = self.blocks[call % self.blocks.len()].forward(tape, seen)?;
            maps.push(map);
            residual = left;
        }
        let all = tape.concat(&maps.iter().collect::<Vec<_>>())?;
        Ok([self.compress.forward(tape, &all)?, residual])
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Laplacian {
    config: LaplacianConfig,
    features: [Conv2d; 3],
    half: Conv2d,
    up8: ConvTranspose2d,
    up2: ConvTranspose2d,
    levels: [Level; 3],
    reconstruction: Conv2d,
    parameters: Vec<Parameter>,
}

impl Laplacian {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &LaplacianConfig, seed: u64) -> Self {
        let mut all = Init::new(seed);
        let (init, c) = (&mut all, config.channels);
        let features = [
            Conv2d::same(init, "conv1", 3, 4 * c, 3).relu(),
            Conv2d::same(init, "conv2", 4 * c, c, 3).relu(),
            Conv2d::same(init, "conv3", c, c, 3).relu(),
        ];
        let half = shrink(init, "downsample_2x", c, 2);
        let up8 = grow(init, "upsample_8x", c, 8);
        let up2 = grow(init, "upsample_2x", c, 2);
        let levels = LEVELS.map(|(factor, calls)| {
            let name = format!("channels_compression_{factor}x");
            let compress = Conv2d::same(init, &name, calls * c, c, 3).relu();
            let name = format!("residual_block_{factor}x");
            let mut block = |name: String| init.at(name, |init| Block::new(init, c, factor));
            let blocks = match config.distinct {
                true => (0..calls).map(|call| block(format!("{name}.{call}"))).collect(),
                false => vec![block(name)],
            };
            Level { blocks, calls, chained: config.chained, compress }
        });
        let reconstruction = Conv2d::same(init, "reconstruction_layer", c, 3, 3);
        let parameters = all.finish();
        let config = config.clone();
        Self { config, features, half, up8, up2, levels, reconstruction, parameters }
    }

    /// The image at `factor` times the size, 2, 4 or 8, of `x` `[N, h, w, 3]`; both in `[0, 1]`.
    ///
    /// # Errors
    /// If there is no level of that factor, `x` has another shape or memory is full.
    pub fn enlarge(&self, tape: &mut Tape, x: &Var, factor: usize) -> Result<Var> {
        let wanted = LEVELS.iter().position(|level| level.0 == factor);
        let last = wanted.ok_or_else(|| Error::Unsupported {
            op: "laplacian",
            what: format!("a factor of {factor}; its levels are 2, 4 and 8"),
        })?;
        let maps = self.maps(tape, x, last)?;
        match maps.last() {
            Some(map) => self.image(tape, map),
            None => unreachable!("there is a first level"),
        }
    }

    /// The features of all levels up to number `last`.
    fn maps(&self, tape: &mut Tape, x: &Var, last: usize) -> Result<Vec<Var>> {
        let mut features = x.clone();
        for layer in &self.features {
            features = layer.forward(tape, &features)?;
        }
        let mut above = self.up8.forward(tape, &features)?;
        let mut maps: Vec<Var> = Vec::with_capacity(last + 1);
        for (i, level) in self.levels.iter().enumerate().take(last + 1) {
            if let Some(map) = maps.last() {
                above = self.half.forward(tape, map)?;
            }
            let [mut map, residual] = level.forward(tape, &features)?;
            map = tape.add(&map, &above)?;
            if i + 1 == LEVELS.len() {
                let own = self.up2.forward(tape, &residual)?;
                map = tape.add(&map, &own)?;
            }
            features = residual;
            maps.push(map);
        }
        Ok(maps)
    }

    fn image(&self, tape: &mut Tape, map: &Var) -> Result<Var> {
        let y = self.features[2].forward(tape, map)?;
        self.reconstruction.forward(tape, &y)
    }
}

impl Module for Laplacian {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Network for Laplacian {
    /// The low-resolution image in `[0, 1]`.
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let low = tape.input(low.try_clone()?);
        tape.to_unit(&low)?.into_tensor()
    }

    fn forward(&self, tape: &mut Tape, _x: &Var, condition: &Var, _t: &Tensor) -> Result<Var> {
        let image = self.enlarge(tape, condition, self.config.scale)?;
        tape.to_signed(&image)
    }

    /// Any size will do; squeeze and excitation see the whole map.
    fn geometry(&self) -> Geometry {
        Geometry { align: 1, receptive_field: None }
    }

    /// The maps of the level of 8 and what compresses them.
    fn floats_per_pixel(&self) -> usize {
        6 * 64 * self.config.channels
    }

    fn floats_on_gpu(&self) -> usize {
        self.floats_per_pixel() + 16 * self.config.channels
    }
}

impl Kind for LaplacianConfig {
    const KEYS: &'static [&'static str] = &[
        "conv1.weight",
        "upsample_8x.weight",
        "channels_compression_2x.weight",
        "reconstruction_layer.weight",
    ];
    const DIRECT: bool = true;
    const ASSUMED: &'static [Assumption] =
        &[Assumption { keys: &["chained"], what: "whether blocks are chained (model.chained)" }];
    const MEANING: &'static [&'static str] = &["chained"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Laplacian::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let channels = s.dim("channels_compression_2x.weight", 0)?;
        let distinct = s.dim("residual_block_8x.0.conv.weight", 0).is_some();
        // Published weights are of calls that all see the same.
        Some(Self { channels, distinct, chained: distinct, ..Self::published() })
    }

    fn narrow() -> Self {
        Self { channels: 16, ..Self::published() }
    }
}
