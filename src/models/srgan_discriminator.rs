//! The discriminator of SRGAN (Ledig et al. 2017).
//!
//! ```text
//! conv3 3 -> 64, then norm after each of conv3/2 64, conv3 128, conv3/2 128, .. conv3 512, conv3/2 512,
//! all with leaky ReLU of slope 0.2;  gives linear(leaky(linear(all of it)))
//! ```
//!
//! The published one ends with a sigmoid; here the logit comes out, as
//! [`bce_with_logits`](crate::ops::bce_with_logits) wants it. The first linear map fixes the size of the
//! images: 18432 inputs for 96 pixels, 23,565,505 parameters.
use serde::{Deserialize, Serialize};

use super::Module;
use super::discriminator::Discriminator;
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::{Error, Result};
use crate::nn::discriminator::{Stage, Step, leaky};
use crate::nn::{Conv2d, Init};

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SrganDiscriminatorConfig {
    /// Channels of the first convolution; doubled with each but the first halving.
    pub base: usize,
    /// Height and width of the images.
    pub crop: usize,
}

impl Default for SrganDiscriminatorConfig {
    fn default() -> Self {
        Self { base: 64, crop: 96 }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct SrganDiscriminator {
    crop: usize,
    stages: Vec<Stage>,
    classifier: [Conv2d; 2],
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl SrganDiscriminator {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &SrganDiscriminatorConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let b = config.base;
        let widths = [3, b, b, 2 * b, 2 * b, 4 * b, 4 * b, 8 * b, 8 * b];
        let step = |(i, pair): (usize, &[usize])| Step {
            inputs: pair[0],
            outputs: pair[1],
            kernel: 3,
            stride: 1 + i % 2,
        };
        let steps: Vec<Step> = widths.windows(2).enumerate().map(step).collect();
        let stages = Stage::sequence(&mut init, &steps);
        // What four halvings leave, the odd row or column included.
        let side = config.crop.div_ceil(16);
        let classifier = [
            Conv2d::flattened(&mut init, "classifier.0", [8 * b, 16 * b, side]),
            Conv2d::flattened(&mut init, "classifier.2", [16 * b, 1, 1]),
        ];
        let (parameters, buffers) = init.finish_with_buffers();
        Self { crop: config.crop, stages, classifier, parameters, buffers }
    }
}

impl Module for SrganDiscriminator {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }
}

impl Discriminator for SrganDiscriminator {
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        if x.shape().len() != 4 || x.shape()[1..3] != [self.crop; 2] {
            let wanted = format!("images of {0} x {0} pixels", self.crop);
            return Err(Error::shape("srgan discriminator", wanted, x.shape()));
        }
        let mut y = x.clone();
        for stage in &self.stages {
            y = stage.forward(tape, &y)?;
        }
        y = self.classifier[0].forward(tape, &y)?;
        y = leaky(tape, &y)?;
        self.classifier[1].forward(tape, &y)
    }
}
