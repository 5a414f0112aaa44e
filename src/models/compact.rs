//! SRVGGNetCompact, the small network of Real-ESRGAN (Wang et al. 2021): low resolution straight to high.
//!
//! ```text
//! y = shuffle(conv3(f_n)) + nearest x,   f_0 = act(conv3 x),   f_i = act(conv3 f_(i-1))
//! ```
//!
//! Everything but the end at the low resolution, in one row of layers `body.0`, `body.1` and so on, of which
//! only parametric ReLU (a slope for each channel) has weights among the activations. 621,424 parameters for
//! a factor of 4 with 64 channels and 16 convolutions.
use serde::{Deserialize, Serialize};

use super::direct::{BLOCK, Direct, Upscale, repeated};
use super::{Assumption, Kind, Network, Shapes};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::nn::{Conv2d, Init, Prelu};

/// What follows a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Parametric ReLU, a slope for each channel.
    #[default]
    Prelu,
    /// ReLU.
    Relu,
    /// Leaky ReLU of slope 0.1.
    LeakyRelu,
}

/// Slope left of 0 of leaky ReLU.
const SLOPE: f64 = 0.1;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompactConfig {
    /// Channels of the features.
    pub channels: usize,
    /// Convolutions between the first and the last.
    pub depth: usize,
    /// The factor between low and high resolution.
    pub scale: usize,
    /// What follows all convolutions but the last.
    pub activation: Activation,
}

impl Default for CompactConfig {
    fn default() -> Self {
        Self { channels: 64, depth: 16, scale: 4, activation: Activation::Prelu }
    }
}

/// The layers: see the [module](self).
#[derive(Debug)]
pub struct Compact {
    config: CompactConfig,
    body: Vec<(Conv2d, Option<Prelu>)>,
    last: Conv2d,
}

impl Compact {
    /// A network whose initial weights are a function of `seed`.
    pub fn network(config: &CompactConfig, seed: u64) -> Direct<Self> {
        Direct::new(seed, |init| init.at("body", |init| Self::new(init, config)))
    }

    fn new(init: &mut Init, config: &CompactConfig) -> Self {
        let c = config.channels;
        let layer = |i: usize| {
            let inputs = if i == 0 { 3 } else { c };
            let conv = Conv2d::same(init, &(2 * i).to_string(), inputs, c, 3);
            let unit = match config.activation {
                Activation::Prelu => Some(Prelu::of(init, &(2 * i + 1).to_string(), c)),
                Activation::Relu | Activation::LeakyRelu => None,
            };
            (conv, unit)
        };
        let body: Vec<_> = (0..=config.depth).map(layer).collect();
        let name = (2 * body.len()).to_string();
        let last = Conv2d::same(init, &name, c, 3 * config.scale * config.scale, 3);
        Self { config: config.clone(), body, last }
    }
}

impl Upscale for Compact {
    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var> {
        let mut y = low.clone();
        for (conv, unit) in &self.body {
            y = match (unit, self.config.activation) {
                (Some(unit), _) => conv.forward_prelu(tape, &y, unit)?,
                (None, Activation::LeakyRelu) => conv.forward_leaky(tape, &y, SLOPE)?,
                (None, _) => conv.forward_leaky(tape, &y, 0.0)?,
            };
        }
        y = self.last.forward(tape, &y)?;
        let repeated = repeated(tape, low, self.config.scale * self.config.scale)?;
        y = tape.add(&y, &repeated)?;
        drop(repeated);
        tape.pixel_shuffle(&y, self.config.scale)
    }

    fn reach(&self) -> usize {
        BLOCK * (self.config.depth + 2)
    }

    fn scale(&self) -> usize {
        self.config.scale
    }

    fn floats_per_pixel(&self) -> usize {
        // Before and behind a convolution and its activation; or the images around the shuffle.
        let (features, image) = (self.config.channels, 3 * self.config.scale * self.config.scale);
        (3 * features).max(3 * image)
    }
}

impl Kind for CompactConfig {
    const KEYS: &'static [&'static str] =
        &["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"];
    const DIRECT: bool = true;
    const ASSUMED: &'static [Assumption] = &[Assumption {
        keys: &["activation"],
        what: "ReLU behind convolutions where there are no slopes (model.activation, such as leaky-relu)",
    }];
    const MEANING: &'static [&'static str] = &["activation"];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(Compact::network(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(s: &Shapes) -> Option<Self> {
        let convs = s.count(|i| format!("body.{}.weight", 2 * i));
        let slopes = s.dim("body.1.weight", 0).is_some();
        let activation = if slopes { Activation::Prelu } else { Activation::Relu };
        let colours = s.dim("body.0.weight", 1) == Some(3);
        Some(Self {
            channels: s.dim("body.0.weight", 0)?,
            depth: convs.checked_sub(2).filter(|_| colours)?,
            scale: s.shuffle(&format!("body.{}.weight", 2 * (convs - 1)))?,
            activation,
        })
    }

    fn narrow() -> Self {
        Self { channels: 8, depth: 2, scale: 3, ..Self::default() }
    }

    fn is_settled(&self) -> bool {
        self.activation == Activation::Prelu
    }
}
