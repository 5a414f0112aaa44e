//! What discriminators for images share: convolutions with leaky ReLU, normalised over the batch.
use super::init::Init;
use super::layers::{BatchNorm, Conv2d};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::ops::conv2d;

/// Slope left of 0.
const SLOPE: f64 = 0.2;

/// One convolution of a discriminator.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Channels that come in.
    pub inputs: usize,
    /// Channels that go out.
    pub outputs: usize,
    /// Taps each way.
    pub kernel: usize,
    /// What height and width are divided by.
    pub stride: usize,
}

/// Convolution, norm (but for the first), leaky ReLU.
#[derive(Debug)]
pub struct Stage {
    conv: Conv2d,
    norm: Option<BatchNorm>,
}

impl Stage {
    /// The stages of `net`, numbered there as a sequence of layers is.
    pub fn sequence(init: &mut Init, steps: &[Step]) -> Vec<Self> {
        init.at("net", |init| {
            let build = |(i, step): (usize, &Step)| {
                // The first lacks a norm: 0 1, 2 3 4, 5 6 7, ...
                let first = (3 * i).saturating_sub(1);
                let op = conv2d::Conv2d { stride: step.stride, pad: 1, relu: false };
                let sizes = [step.inputs, step.outputs, step.kernel];
                let conv = Conv2d::new(init, &first.to_string(), sizes, op);
                let name = (first + 1).to_string();
                let norm = (i > 0).then(|| BatchNorm::new(init, &name, step.outputs));
                Self { conv, norm }
            };
            steps.iter().enumerate().map(build).collect()
        })
    }

    /// The stage's output.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let mut y = self.conv.forward(tape, x)?;
        if let Some(norm) = &self.norm {
            y = norm.forward(tape, &y)?;
        }
        leaky(tape, &y)
    }
}

/// The leaky ReLU of discriminators.
pub fn leaky(tape: &mut Tape, x: &Var) -> Result<Var> {
    tape.leaky_relu(x, SLOPE)
}
