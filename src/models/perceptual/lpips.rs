//! LPIPS (Zhang et al. 2018), version 0.1: how far the features of two images point in different directions.
//!
//! ```text
//! d(a, b) = sum over stages of the mean over pixels of sum over c of head[c] (u - v)^2
//! ```
//!
//! u and v are the features of a and b, of length 1 at each pixel ([`crate::ops::unit_distance`]); the heads
//! were learnt from people's judgements. Images are taken whole, as they are, from `[0, 1]` to the colours of
//! the published code.
use super::backbone::{Architecture, Backbone, Pooling};
use crate::engine::device::{DType, Device};
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::models::weights::WeightsFile;
use crate::nn::Init;

/// Factor and shift that take a colour in `[0, 1]` to `((2 c - 1) - shift) / scale`.
const COLOURS: [[f64; 2]; 3] =
    [colour(-0.030, 0.458), colour(-0.088, 0.448), colour(-0.188, 0.450)];

const fn colour(shift: f64, scale: f64) -> [f64; 2] {
    [2.0 / scale, (-1.0 - shift) / scale]
}

/// See the [module](self).
#[derive(Debug)]
pub struct Lpips {
    backbone: Backbone,
    /// `[C]` for each stage.
    heads: Vec<Parameter>,
}

/// The name of a head in files.
pub fn head_name(stage: usize) -> String {
    format!("lin{stage}.weight")
}

impl Lpips {
    /// A distance whose weights are a function of `seed`, heads of one number: of use for tests.
    pub fn new(seed: u64, architecture: Architecture) -> Self {
        Self::with(Init::new(seed), architecture, 0.1)
    }

    fn with(init: Init, architecture: Architecture, head: f64) -> Self {
        let backbone = Backbone::new(init, architecture, Pooling::Max);
        let heads = architecture.channels().into_iter().enumerate().map(|(stage, channels)| {
            let value = Tensor::from_f64(&vec![head; channels], &[channels], DType::F32);
            Parameter::new(head_name(stage), Layout::Plain, value)
        });
        Self { backbone, heads: heads.collect() }
    }

    /// The distance with the weights of two files, which may be one.
    ///
    /// # Errors
    /// If they do not hold them.
    pub fn of(
        architecture: Architecture,
        [trunk, heads]: [(&WeightsFile, &str); 2],
    ) -> Result<Self> {
        let backbone = Backbone::of(trunk.0, trunk.1, architecture, Pooling::Max)?;
        let this = Self { backbone, ..Self::with(Init::blank(), architecture, 0.0) };
        let named = |key: &str| this.heads.iter().any(|head| head.name() == key);
        let tensors = heads.0.tensors.iter().filter(|(key, _)| named(key));
        let tensors = tensors.map(|(key, tensor)| (key.clone(), tensor.clone())).collect();
        WeightsFile { tensors, ..WeightsFile::default() }.apply(&this.heads, heads.1)?;
        Ok(this)
    }

    /// The distances `[N, 1, 1, 1]` of the images `a` and `b`, both `[N, H, W, 3]` in `[0, 1]`.
    ///
    /// # Errors
    /// If the images differ in shape or are too small.
    pub fn forward(&self, tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
        let mut a = tape.affine_channels(a, &COLOURS)?;
        let mut b = tape.affine_channels(b, &COLOURS)?;
        let mut total: Option<Var> = None;
        // Stage by stage, so that an inference tape holds the features of one alone.
        for (stage, head) in self.heads.iter().enumerate() {
            a = self.backbone.stage(tape, stage, &a)?;
            b = self.backbone.stage(tape, stage, &b)?;
            let head = tape.frozen(|tape| tape.parameter(head));
            let distance = tape.unit_distance(&a, &b, &head)?;
            total = Some(match total {
                None => distance,
                Some(sum) => tape.add(&sum, &distance)?,
            });
        }
        total.ok_or_else(|| unreachable!("there are five stages"))
    }

    /// Moves the weights to `device`, as `dtype` there.
    ///
    /// # Errors
    /// If the memory of the device is full.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        self.backbone.to_device(device, dtype)?;
        self.heads.iter().try_for_each(|p| p.to_device(device, dtype))
    }
}
