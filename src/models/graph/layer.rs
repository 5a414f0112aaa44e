//! What a layer of a graph is, as a file tells it.
use serde::{Deserialize, Serialize};

use crate::ops::resample::Filter;

/// A layer: what it does, and which values it reads. Value 0 is the image, value i + 1 what layer i makes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its name where it came from; messages use it.
    pub name: String,
    /// The values it reads, all of them made before.
    pub from: Vec<usize>,
    /// What it does.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What a layer does. A value is a map `[N, H, W, C]` or a vector `[N, C]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Kind {
    /// A convolution, then an activation.
    Convolution(Window),
    /// A transposed convolution, then an activation.
    Deconvolution(Window),
    /// A linear map of a vector, then an activation.
    Linear {
        /// Channels read and made.
        channels: [usize; 2],
        /// Whether a bias is added.
        bias: bool,
        /// What follows.
        activation: Activation,
    },
    /// An activation by itself.
    Activation {
        /// Which.
        activation: Activation,
    },
    /// A parametric ReLU with one slope, or one for each channel.
    Prelu {
        /// How many slopes there are.
        slopes: usize,
    },
    /// A vector that no image changes.
    Constant {
        /// How many numbers.
        channels: usize,
    },
    /// Maps side by side along the channels.
    Concat,
    /// The sum of values, each times its factor; a vector counts for all pixels.
    Sum {
        /// One for each value.
        factors: Vec<f64>,
    },
    /// The product of two values; a vector counts for all pixels.
    Product,
    /// A map times the sigmoid of a vector.
    Gate,
    /// `factor x + shift`.
    Affine {
        /// What x is multiplied by.
        factor: f64,
        /// What is added then.
        shift: f64,
    },
    /// The mean of a map over its pixels: a vector.
    GlobalMean,
    /// Channels to pixels, in PyTorch's order.
    PixelShuffle {
        /// How many times larger each side becomes.
        factor: usize,
    },
    /// A map enlarged or shrunk by `over / under`.
    Interpolate {
        /// How positions between pixels are filled.
        filter: Filter,
        /// Pixels made ...
        over: usize,
        /// ... of as many.
        under: usize,
    },
    /// Rows and columns cut off.
    Crop {
        /// At the top and the left.
        before: usize,
        /// At the bottom and the right.
        after: usize,
    },
    /// As much of the first map as the second has, from `before` on.
    CropLike {
        /// Rows and columns cut off at the top and the left.
        before: usize,
    },
}

/// The sizes of a convolution or of a transposed one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Channels read and made.
    pub channels: [usize; 2],
    /// Its height and width.
    pub kernel: usize,
    /// The distance between neighbours.
    pub stride: usize,
    /// Zeros added on each side, or pixels cut off the result of a transposed one.
    pub pad: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// What follows.
    pub activation: Activation,
}

/// What follows a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// x, times the slope where it is not positive.
    LeakyRelu(f64),
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x sigmoid(x)`.
    Silu,
    /// `x tanh(log(1 + exp(x)))`.
    Mish,
    /// The hyperbolic tangent.
    Tanh,
}

impl Kind {
    /// How many values it reads: at least and at most.
    pub(super) const fn arity(&self) -> [usize; 2] {
        match self {
            Self::Constant { .. } => [0, 0],
            Self::Concat | Self::Sum { .. } => [1, usize::MAX],
            Self::Product | Self::Gate | Self::CropLike { .. } => [2, 2],
            _ => [1, 1],
        }
    }
}
