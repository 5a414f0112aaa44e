//! The discriminator of SRDDPM, which judges patches.
//!
//! ```text
//! conv3 3 -> b, then norm after each of conv4/2 b, conv3 2b, conv4/2 2b, conv3 4b, conv4/2 4b,
//! all with leaky ReLU of slope 0.2;  gives conv3 4b -> 1
//! ```
//!
//! A verdict for every 8 x 8 pixels. 1,751,489 parameters at b = 64.
use serde::{Deserialize, Serialize};

use super::Module;
use super::discriminator::Discriminator;
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::nn::discriminator::{Stage, Step};
use crate::nn::{Conv2d, Init};

/// Pixels of a side that a verdict is for, without which there is none.
pub const PATCH: usize = 8;

/// The sizes of the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PatchDiscriminatorConfig {
    /// Channels at full resolution; doubled at each of two halvings.
    pub base: usize,
}

impl Default for PatchDiscriminatorConfig {
    fn default() -> Self {
        Self { base: 64 }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct PatchDiscriminator {
    stages: Vec<Stage>,
    last: Conv2d,
    parameters: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl PatchDiscriminator {
    /// A network whose initial weights are a function of `seed`.
    pub fn new(config: &PatchDiscriminatorConfig, seed: u64) -> Self {
        let mut init = Init::new(seed);
        let b = config.base;
        let step = |inputs, outputs, kernel, stride| Step { inputs, outputs, kernel, stride };
        let steps = [
            step(3, b, 3, 1),
            step(b, b, 4, 2),
            step(b, 2 * b, 3, 1),
            step(2 * b, 2 * b, 4, 2),
            step(2 * b, 4 * b, 3, 1),
            step(4 * b, 4 * b, 4, 2),
        ];
        let stages = Stage::sequence(&mut init, &steps);
        let last = Conv2d::same(&mut init, "net.17", 4 * b, 1, 3);
        let (parameters, buffers) = init.finish_with_buffers();
        Self { stages, last, parameters, buffers }
    }
}

impl Module for PatchDiscriminator {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }
}

impl Discriminator for PatchDiscriminator {
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let mut y = x.clone();
        for stage in &self.stages {
            y = stage.forward(tape, &y)?;
        }
        self.last.forward(tape, &y)
    }
}
