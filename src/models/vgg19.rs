//! The features of VGG19 (Simonyan and Zisserman 2015), frozen: how far two images are from each other as
//! seen by a network trained to name what they show.
//!
//! ```text
//! conv3 64 64 | 128 128 | 256 256 256 256 | 512 512 512 512 | 512 512 512 512
//! ReLU after each, 2x2 maxima after each group
//! ```
//!
//! Layers are numbered as torchvision does, ReLU and maxima included: 34 is the last convolution before its
//! ReLU (SRGAN's), 35 behind it (SRDDPM's), 36 its maxima. Parameters are constants: gradients go to the
//! image alone. 20,024,384 numbers, of which no file is part of this program.
use std::collections::BTreeMap;
use std::path::Path;

use super::Module;
use super::weights::WeightsFile;
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::{Error, Result};
use crate::nn::{Conv2d, Init};

/// Channels and number of convolutions of each group.
const GROUPS: [(usize, usize); 5] = [(64, 2), (128, 2), (256, 4), (512, 4), (512, 4)];

/// The number of the last layer.
const LAST: usize = 36;

/// Factor and shift that take a colour in `[-1, 1]` to what the network was trained on: by ImageNet's means
/// and deviations of colours in `[0, 1]`.
const COLOURS: [[f64; 2]; 3] = [colour(0.485, 0.229), colour(0.456, 0.224), colour(0.406, 0.225)];

const fn colour(mean: f64, deviation: f64) -> [f64; 2] {
    [0.5 / deviation, (0.5 - mean) / deviation]
}

/// See the [module](self).
#[derive(Debug)]
pub struct Vgg19 {
    groups: Vec<Vec<Conv2d>>,
    parameters: Vec<Parameter>,
}

impl Module for Vgg19 {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl Vgg19 {
    /// A network whose weights are a function of `seed`: of use for tests, and to be loaded into.
    pub fn new(seed: u64) -> Self {
        Self::of(Init::new(seed))
    }

    /// A network of zeros, to be loaded into.
    pub fn blank() -> Self {
        Self::of(Init::blank())
    }

    fn of(mut init: Init) -> Self {
        let (mut layer, mut inputs) = (0, 3);
        let mut groups = Vec::with_capacity(GROUPS.len());
        for (channels, count) in GROUPS {
            let mut group = Vec::with_capacity(count);
            for _ in 0..count {
                let name = format!("features.{layer}");
                group.push(Conv2d::same(&mut init, &name, inputs, channels, 3));
                inputs = channels;
                layer += 2;
            }
            layer += 1;
            groups.push(group);
        }
        Self { groups, parameters: init.finish() }
    }

    /// The trained network of a weights file under torchvision's names; what else the file holds, such as
    /// the classifier, is left out.
    ///
    /// # Errors
    /// If the file cannot be read or does not hold these layers.
    pub fn read(path: &Path) -> Result<Self> {
        let network = Self::blank();
        network.load(WeightsFile::read(path)?, &path.display().to_string())?;
        Ok(network)
    }

    fn load(&self, file: WeightsFile, name: &str) -> Result<()> {
        let wanted = |key: &str| key.starts_with("features.");
        let tensors = file.tensors.into_iter().filter(|(key, _)| wanted(key)).collect();
        WeightsFile { metadata: BTreeMap::new(), tensors }.apply(&self.parameters, name)
    }

    /// The output of layer `last` (0 to 36) for `image` `[N, H, W, 3]` in `[-1, 1]`.
    ///
    /// # Errors
    /// If there is no such layer, the image has another shape or is too small for its maxima, or memory is
    /// full.
    pub fn forward(&self, tape: &mut Tape, image: &Var, last: usize) -> Result<Var> {
        if last > LAST {
            let what = format!("layer {last}; its layers are 0 to {LAST}");
            return Err(Error::Unsupported { op: "vgg19", what });
        }
        tape.frozen(|tape| {
            let mut y = tape.affine_channels(image, &COLOURS)?;
            let mut layer = 0;
            for group in &self.groups {
                for conv in group {
                    if layer == last {
                        return conv.forward(tape, &y);
                    }
                    y = conv.clone().relu().forward(tape, &y)?;
                    if layer + 1 == last {
                        return Ok(y);
                    }
                    layer += 2;
                }
                y = tape.max_pool2(&y)?;
                if layer == last {
                    return Ok(y);
                }
                layer += 1;
            }
            Ok(y)
        })
    }

    /// The mean squared distance of the outputs of layer `last` for two images, as `[1]`.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn distance(&self, tape: &mut Tape, a: &Var, b: &Var, last: usize) -> Result<Var> {
        let a = self.forward(tape, a, last)?;
        let b = self.forward(tape, b, last)?;
        tape.mse_loss(&a, &b)
    }
}
