//! SPAN, the swift parameter-free attention network (Wan et al. 2023): low resolution straight to high.
//!
//! ```text
//! f0 = conv3 (range (x - mean)),   f_i = Block f_(i-1) for six blocks
//! Block x:   a = silu(conv3 x),  o = conv3(silu(conv3 a));   gives (x + o) (sigmoid(o) - 1/2)
//! y = shuffle(conv3(conv1 [f0, conv3 f_6, f_1, a of block 6]))
//! ```
//!
//! All at the low resolution. 426,291 parameters with 48 channels for a factor of 4.
//!
//! While it is trained, a 3x3 convolution may be two ways side by side (`branches`): 1x1 (`sk`), and 1x1, 3x3,
//! 1x1 through twice the channels (`conv.0`, `conv.1`, `conv.2`) on a map with a border of zeros, so that both
//! are linear and fold into one 3x3 (`eval_conv`): done when a file is imported.
//!
//! Files of equal size differ in the first line: most networks see `255 (x - mean)` with the mean colour of
//! DIV2K, some see `x - mean` with another mean, some x as it is. Nothing tells, but for a tensor `no_norm` in
//! some files of the last kind.
use serde::{Deserialize, Serialize};

use super::direct::{BLOCK, Direct, Upscale};
use super::{Assumption, Kind, Network, Shapes};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::nn::{Conv2d, Init};
use crate::ops::conv2d;

/// Mean colour of DIV2K, red, green, blue.
pub const DIV2K_MEAN: [f64; 3] = [0.4488, 0.4371, 0.4040];

/// How much wider the middle of a convolution is while it is trained.
const GAIN: usize = 2;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpanConfig {
    /// Channels of the features.
    pub channels: usize,
    /// Blocks.
    pub blocks: usize,
    /// The factor between low and high resolution.
    pub scale: usize,
    /// What colours less their mean are multiplied by.
    pub range: f64,
    /// What is taken off colours in [0, 1].
    pub mean: [f64; 3],
    /// Whether convolutions are two ways side by side, as while it is trained.
    pub branches: bool,
}

impl Default for SpanConfig {
    fn default() -> Self {
        let (range, mean) = (255.0, DIV2K_MEAN);
        Self { channels: 48, blocks: 6, scale: 4, range, mean, branches: false }
    }
}

/// A 3x3 convolution that may be two ways side by side.
#[derive(Debug)]
enum Conv3 {
    Folded(Conv2d),
    Branches(Box<[Conv2d; 4]>),
}

impl Conv3 {
    fn new(init: &mut Init, name: &str, inputs: usize, outputs: usize, branches: bool) -> Self {
        init.at(name, |init| {
            if !branches {
                return Self::Folded(Conv2d::same(init, "eval_conv", inputs, outputs, 3));
            }
            let skip = Conv2d::same(init, "sk", inputs, outputs, 1);
            let (wide, last) = (GAIN * inputs, GAIN * outputs);
            // The padding comes first, so that it goes through the 1x1 as well.
            let op = |pad| conv2d::Conv2d { stride: 1, pad, relu: false };
            let ways = [
                skip,
                Conv2d::new(init, "conv.0", [inputs, wide, 1], op(1)),
                Conv2d::new(init, "conv.1", [wide, last, 3], op(0)),
                Conv2d::new(init, "conv.2", [last, outputs, 1], op(0)),
            ];
            Self::Branches(Box::new(ways))
        })
    }

    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        match self {
            Self::Folded(conv) => conv.forward(tape, x),
            Self::Branches(ways) => {
                let [skip, way @ ..] = &**ways;
                let mut y = x.clone();
                for conv in way {
                    y = conv.forward(tape, &y)?;
                }
                skip.forward_onto(tape, x, &y, 1.0)
            }
        }
    }

    fn forward_silu(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        if let Self::Folded(conv) = self {
            return conv.forward_silu(tape, x);
        }
        let y = self.forward(tape, x)?;
        tape.silu(&y)
    }
}

/// The layers: see the [module](self).
#[derive(Debug)]
pub struct Span {
    config: SpanConfig,
    first: Conv3,
    blocks: Vec<[Conv3; 3]>,
    second: Conv3,
    joined: Conv2d,
    last: Conv2d,
}

impl Span {
    /// A network whose initial weights are a function of `seed`.
    pub fn network(config: &SpanConfig, seed: u64) -> Direct<Self> {
        Direct::new(seed, |init| Self::new(init, config))
    }

    fn new(init: &mut Init, config: &SpanConfig) -> Self {
        let (c, branches) = (config.channels, config.branches);
        let first = Conv3::new(init, "conv_1", 3, c, branches);
        let block = |i| {
            let conv = |init: &mut Init, k| Conv3::new(init, &format!("c{k}_r"), c, c, branches);
            init.at(format!("block_{}", i + 1), |init| {
                [conv(init, 1), conv(init, 2), conv(init, 3)]
            })
        };
        let blocks = (0..config.blocks).map(block).collect();
        let joined = Conv2d::same(init, "conv_cat", 4 * c, c, 1);
        let second = Conv3::new(init, "conv_2", c, c, branches);
        let last = Conv2d::same(init, "upsampler.0", c, 3 * config.scale * config.scale, 3);
        Self { config: config.clone(), first, blocks, second, joined, last }
    }
}

impl Upscale for Span {
    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        let (range, mean) = (self.config.range, self.config.mean);
        let centred = tape.affine_channels(low, &mean.map(|m| [range, -range * m]))?;
        let first = self.first.forward(tape, &centred)?;
        drop(centred);
        // Behind the first block, and the first activation of the last one: the published code activates in place.
        let (mut early, mut inner) = (first.clone(), first.clone());
        let mut y = first.clone();
        for (i, [a, b, c]) in self.blocks.iter().enumerate() {
            inner = a.forward_silu(tape, &y)?;
            let mut o = b.forward_silu(tape, &inner)?;
            o = c.forward(tape, &o)?;
            y = tape.parameter_free_attention(&y, &o)?;
            if i == 0 {
                early = y.clone();
            }
        }
        y = self.second.forward(tape, &y)?;
        y = tape.concat(&[&first, &y, &early, &inner])?;
        drop((first, early, inner));
        y = self.joined.forward(tape, &y)?;
        y = self.last.forward(tape, &y)?;
        tape.pixel_shuffle(&y, self.config.scale)
    }

    fn reach(&self) -> usize {
        BLOCK * (1 + 3 * self.config.blocks + 2)
    }

    fn scale(&self) -> usize {
        self.config.scale
    }

    fn floats_per_pixel(&self) -> usize {
        // Four maps and their row; or the image before, in and behind the shuffle.
        let (features, image) = (self.config.channels, 3 * self.config.scale * self.config.scale);
        (8 * features).max(3 * image)
    }
}

impl Kind for SpanConfig {
    const KEYS: &'static [&'static str] = &[
        "conv_1.eval_conv.weight",
        "block_1.c1_r.eval_conv.weight",
        "conv_cat.weight",
        "conv_2.eval_conv.weight",
        "upsampler.0.weight",
    ];
    const DIRECT: bool = true;
    const ASSUMED: &'static [Assumption] = &[
        Assumption {
            keys: &["range"],
            what: "that the network sees 255 times colours less a mean unless there is a tensor no_norm \
                (--set model.range=1 where it sees them once)",
        },
        Assumption {
            keys: &["mean"],
            what: "that this is the mean of DIV2K (--set model.mean=[0,0,0] where nothing is taken off)",
        },
    ];
    const MEANING: &'static [&'static str] = &["range", "mean"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Span::network(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let plain = s.shapes.contains_key("no_norm");
        let seen = if plain { (1.0, [0.0; 3]) } else { (255.0, DIV2K_MEAN) };
        Some(Self {
            channels: s.dim("conv_1.eval_conv.weight", 0)?,
            blocks: s.count(|i| format!("block_{}.c1_r.eval_conv.weight", i + 1)),
            scale: s.shuffle("upsampler.0.weight")?,
            range: seen.0,
            mean: seen.1,
            branches: false,
        })
    }

    fn narrow() -> Self {
        Self { channels: 8, blocks: 3, ..Self::default() }
    }

    /// As told by `no_norm`.
    fn is_settled(&self) -> bool {
        (self.range, self.mean) != (255.0, DIV2K_MEAN)
    }
}
