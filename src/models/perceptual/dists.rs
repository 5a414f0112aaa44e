//! DISTS (Ding et al. 2020): how much two images differ in texture and structure, in their colours and in the
//! features of VGG16 whose pools are L2.
//!
//! ```text
//! d(a, b) = sum over stages and channels of alpha (1 - l) + beta (1 - s),    sum of all alpha and beta is 1
//! ```
//!
//! l and s compare means and variances ([`crate::ops::texture_structure`]); alpha and beta were learnt. The
//! image itself, in `[0, 1]`, is the first of six stages. Images are taken whole, as they are.
use super::backbone::{Architecture, Backbone, Pooling};
use crate::engine::device::{DType, Device};
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::weights::WeightsFile;
use crate::nn::Init;

/// Factor and shift that take a colour in `[0, 1]` to ImageNet's means and deviations.
const COLOURS: [[f64; 2]; 3] = [colour(0.485, 0.229), colour(0.456, 0.224), colour(0.406, 0.225)];

const fn colour(mean: f64, deviation: f64) -> [f64; 2] {
    [1.0 / deviation, -mean / deviation]
}

/// Channels of all stages together: 3 colours, and the features.
pub const CHANNELS: usize = 3 + 64 + 128 + 256 + 512 + 512;

/// See the [module](self).
#[derive(Debug)]
pub struct Dists {
    backbone: Backbone,
    /// Alpha and beta of each stage, `[2, C]`.
    weights: Vec<Parameter>,
}

impl Dists {
    /// A distance whose weights are a function of `seed`, all channels alike: of use for tests.
    pub fn new(seed: u64) -> Self {
        let backbone = Backbone::new(Init::new(seed), Architecture::Vgg16, Pooling::L2);
        Self { backbone, weights: weights([&[0.1; CHANNELS], &[0.2; CHANNELS]]) }
    }

    /// The distance with the weights of two files: VGG16, and `alpha` and `beta` of 1475 numbers.
    ///
    /// # Errors
    /// If they do not hold them.
    pub fn of([trunk, heads]: [(&WeightsFile, &str); 2]) -> Result<Self> {
        let backbone = Backbone::of(trunk.0, trunk.1, Architecture::Vgg16, Pooling::L2)?;
        let find = |key: &str| {
            let found = heads.0.tensors.get(key).map(|t| t.1.as_slice());
            found.filter(|values| values.len() == CHANNELS).ok_or_else(|| {
                let what = format!("the weights {} are not those of DISTS", heads.1);
                Error::Model(Report::new(what, format!("{key} of {CHANNELS} numbers is missing")))
            })
        };
        Ok(Self { backbone, weights: weights([find("alpha")?, find("beta")?]) })
    }

    /// The distances `[N, 1, 1, 1]` of the images `a` and `b`, both `[N, H, W, 3]` in `[0, 1]`.
    ///
    /// # Errors
    /// If the images differ in shape.
    pub fn forward(&self, tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
        let mut total = self.stage(tape, 0, [a, b])?;
        let mut a = tape.affine_channels(a, &COLOURS)?;
        let mut b = tape.affine_channels(b, &COLOURS)?;
        for stage in 0..self.backbone.stages() {
            a = self.backbone.stage(tape, stage, &a)?;
            b = self.backbone.stage(tape, stage, &b)?;
            let more = self.stage(tape, stage + 1, [&a, &b])?;
            total = tape.add(&total, &more)?;
        }
        Ok(total)
    }

    fn stage(&self, tape: &mut Tape, i: usize, [a, b]: [&Var; 2]) -> Result<Var> {
        let weight = tape.frozen(|tape| tape.parameter(&self.weights[i]));
        tape.texture_structure(a, b, &weight)
    }

    /// Moves the weights to `device`, as `dtype` there.
    ///
    /// # Errors
    /// If the memory of the device is full.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        self.backbone.to_device(device, dtype)?;
        self.weights.iter().try_for_each(|p| p.to_device(device, dtype))
    }
}

/// Alpha and beta of each stage, divided by the sum of all.
fn weights([alpha, beta]: [&[f32]; 2]) -> Vec<Parameter> {
    let sum: f64 = alpha.iter().chain(beta).map(|&v| f64::from(v)).sum();
    let mut first = 0;
    let stage = |(i, channels): (usize, usize)| {
        let part = first..first + channels;
        first += channels;
        let both = alpha[part.clone()].iter().chain(&beta[part]);
        let both: Vec<f64> = both.map(|&v| f64::from(v) / sum).collect();
        let value = Tensor::from_f64(&both, &[2, channels], DType::F32);
        Parameter::new(format!("stages.{i}"), Layout::Plain, value)
    };
    [3].into_iter().chain(Architecture::Vgg16.channels()).enumerate().map(stage).collect()
}
