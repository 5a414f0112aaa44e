//! The convolutions of AlexNet (Krizhevsky et al. 2012, as torchvision has it) and of VGG16 (Simonyan and
//! Zisserman 2015), frozen, as stages whose outputs are features of an image.
//!
//! ```text
//! AlexNet  conv11 64, stride 4 | max 3, conv5 192 | max 3, conv3 384 | conv3 256 | conv3 256
//! VGG16    conv3 64 64 | pool, 128 128 | pool, 256 256 256 | pool, 512 512 512 | pool, 512 512 512
//! ```
//!
//! ReLU after each convolution. VGG16's pools are maxima for LPIPS and L2 for DISTS. Parameters have
//! torchvision's names; gradients go to the image alone.
use std::collections::BTreeMap;

use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::models::weights::WeightsFile;
use crate::nn::{Conv2d, Init};
use crate::ops::conv2d;

/// Which network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// AlexNet.
    AlexNet,
    /// VGG16.
    Vgg16,
}

/// One convolution: its number among torchvision's layers, outputs, kernel, stride and padding.
type Layer = (usize, usize, [usize; 3]);

const ALEXNET: [&[Layer]; 5] = [
    &[(0, 64, [11, 4, 2])],
    &[(3, 192, [5, 1, 2])],
    &[(6, 384, [3, 1, 1])],
    &[(8, 256, [3, 1, 1])],
    &[(10, 256, [3, 1, 1])],
];

const SAME: [usize; 3] = [3, 1, 1];

const VGG16: [&[Layer]; 5] = [
    &[(0, 64, SAME), (2, 64, SAME)],
    &[(5, 128, SAME), (7, 128, SAME)],
    &[(10, 256, SAME), (12, 256, SAME), (14, 256, SAME)],
    &[(17, 512, SAME), (19, 512, SAME), (21, 512, SAME)],
    &[(24, 512, SAME), (26, 512, SAME), (28, 512, SAME)],
];

impl Architecture {
    const fn stages(self) -> [&'static [Layer]; 5] {
        match self {
            Self::AlexNet => ALEXNET,
            Self::Vgg16 => VGG16,
        }
    }

    /// Channels of the features of each stage.
    pub fn channels(self) -> [usize; 5] {
        self.stages().map(|stage| stage.last().map_or(0, |layer| layer.1))
    }

    /// The name of each layer, such as `features.0`, and its weight's shape in files, `[Co, Ci, k, k]`.
    pub fn weights(self) -> Vec<(String, [usize; 4])> {
        let mut inputs = 3;
        let layer = |&(number, outputs, [kernel, ..]): &Layer| {
            let shape = [outputs, inputs, kernel, kernel];
            inputs = outputs;
            (format!("features.{number}"), shape)
        };
        self.stages().into_iter().flatten().map(layer).collect()
    }

    /// Names and shapes of all tensors, as files have them.
    pub fn tensors(self) -> BTreeMap<String, Vec<usize>> {
        let both = |(name, shape): (String, [usize; 4])| {
            let bias = (format!("{name}.bias"), vec![shape[0]]);
            [(format!("{name}.weight"), shape.to_vec()), bias]
        };
        self.weights().into_iter().flat_map(both).collect()
    }
}

/// What comes before the convolutions of a stage of VGG16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// 2x2 maxima.
    Max,
    /// Hann-weighted root mean squares.
    L2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    Max2,
    Max3,
    L2,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Backbone {
    stages: Vec<(Before, Vec<Conv2d>)>,
    parameters: Vec<Parameter>,
}

impl Backbone {
    /// A network whose weights `init` draws; `pooling` is that of VGG16.
    pub fn new(mut init: Init, architecture: Architecture, pooling: Pooling) -> Self {
        let mut inputs = 3;
        let mut stages = Vec::with_capacity(5);
        for (i, layers) in architecture.stages().into_iter().enumerate() {
            let mut convs = Vec::with_capacity(layers.len());
            for &(number, outputs, [kernel, stride, pad]) in layers {
                let op = conv2d::Conv2d { stride, pad, relu: true };
                let name = format!("features.{number}");
                convs.push(Conv2d::new(&mut init, &name, [inputs, outputs, kernel], op));
                inputs = outputs;
            }
            let before = match (architecture, pooling, i) {
                (_, _, 0) | (Architecture::AlexNet, _, 3..) => Before::Nothing,
                (Architecture::AlexNet, ..) => Before::Max3,
                (_, Pooling::Max, _) => Before::Max2,
                (_, Pooling::L2, _) => Before::L2,
            };
            stages.push((before, convs));
        }
        Self { stages, parameters: init.finish() }
    }

    /// The network with the weights of a file; what else that holds, such as a classifier, is left out.
    ///
    /// # Errors
    /// If the file does not hold these layers.
    pub fn of(
        file: &WeightsFile,
        name: &str,
        architecture: Architecture,
        pooling: Pooling,
    ) -> Result<Self> {
        let network = Self::new(Init::blank(), architecture, pooling);
        let wanted = |key: &str| key.starts_with("features.");
        let tensors = file.tensors.iter().filter(|(key, _)| wanted(key));
        let tensors = tensors.map(|(key, tensor)| (key.clone(), tensor.clone())).collect();
        WeightsFile { metadata: BTreeMap::new(), tensors }.apply(&network.parameters, name)?;
        Ok(network)
    }

    /// How many stages there are.
    pub fn stages(&self) -> usize {
        self.stages.len()
    }

    /// The features of stage `i` `[N, H', W', C]`, of those of the stage before or, for the first, of an image
    /// in the colours that the network was trained with.
    ///
    /// # Errors
    /// If the map is too small or memory is full.
    pub fn stage(&self, tape: &mut Tape, i: usize, x: &Var) -> Result<Var> {
        let (before, convs) = &self.stages[i];
        tape.frozen(|tape| {
            let mut y = match before {
                Before::Nothing => x.clone(),
                Before::Max2 => tape.max_pool2(x)?,
                Before::Max3 => tape.max_pool3(x)?,
                Before::L2 => tape.l2_pool(x)?,
            };
            for conv in convs {
                y = conv.forward(tape, &y)?;
            }
            Ok(y)
        })
    }

    /// All parameters, in construction order. No optimizer is to have them.
    pub fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    /// Moves the weights to `device`, as `dtype` there.
    ///
    /// # Errors
    /// If the memory of the device is full.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        self.parameters.iter().try_for_each(|p| p.to_device(device, dtype))
    }
}
