//! The layers of a network.
use serde::{Deserialize, Serialize};

use super::layer::Layer;
use super::plan::Plan;

/// The layers of a network, and how images go in and come out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Fields")]
pub struct GraphConfig {
    /// The factor between low and high resolution, as it follows from the layers.
    pub scale: usize,
    /// Channels of an image: 3, or 1 for luma.
    pub channels: usize,
    /// What the network takes for black and for white, and gives for them.
    pub range: [f64; 2],
    /// Whether the result is added to the image enlarged by repeating pixels.
    pub residual: bool,
    /// In the order they run.
    pub layers: Vec<Layer>,
}

/// The same, not yet checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    scale: usize,
    #[serde(default = "colours")]
    channels: usize,
    #[serde(default = "unit")]
    range: [f64; 2],
    #[serde(default)]
    residual: bool,
    layers: Vec<Layer>,
}

const fn colours() -> usize {
    3
}

pub(super) const fn unit() -> [f64; 2] {
    [0.0, 1.0]
}

impl TryFrom<Fields> for GraphConfig {
    type Error = String;

    fn try_from(fields: Fields) -> std::result::Result<Self, String> {
        let Fields { scale, channels, range, residual, layers } = fields;
        let config = Self { range, residual, ..Self::new(channels, layers)? };
        match config.scale == scale {
            true => config.checked(),
            false => Err(format!("its layers enlarge by {}, not by {scale}", config.scale)),
        }
    }
}

impl GraphConfig {
    /// The network of `layers` for images from 0 to 1 of `channels` channels.
    ///
    /// # Errors
    /// In words, with the layer, if the layers do not fit together or their result is no enlarged image.
    pub fn new(channels: usize, layers: Vec<Layer>) -> std::result::Result<Self, String> {
        let scale = Plan::of(&layers, channels)?.scale;
        let config = Self { scale, channels, range: unit(), residual: false, layers };
        config.checked()
    }

    fn checked(self) -> std::result::Result<Self, String> {
        let [black, white] = self.range;
        if ![1, 3].contains(&self.channels) {
            return Err(format!("images of {} channels; srk has 3, or 1 for luma", self.channels));
        }
        match white - black > 1e-3 && black.abs() < 1e3 && white.abs() < 1e3 {
            true => Ok(self),
            false => Err(format!("the range of images is {:?}", self.range)),
        }
    }
}
