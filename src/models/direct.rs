//! What networks share that go from low resolution straight to high: no state, no step, and colours from 0
//! to 1 inside, as published ones have them.
use std::fmt::Debug;

use super::{Geometry, Module, Network};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::Init;

/// How far the bits behind a 3x3 convolution depend on what is before it. It sees one pixel each way, but the
/// fast path computes blocks of 4x4 pixels from windows that overlap by one, and what cancels in exact arithmetic
/// leaves its rounding.
pub const BLOCK: usize = 4;

/// The nearest pixels of the enlarged image, as they lie before the shuffle: each channel of `x` `[N, h, w, C]`
/// `times` times. A depthwise convolution with one tap of 1.
pub(super) fn repeated(tape: &mut Tape, x: &Var, times: usize) -> Result<Var> {
    let channels = x.value().shape().last().copied().unwrap_or(0);
    let zeros = tape.input(Tensor::zeros_as(x.value(), &[channels * times, 1, 1, 1])?);
    let ones = tape.affine(&zeros, 0.0, 1.0)?;
    tape.depthwise_conv2d(x, &ones, None)
}

/// Each pixel of `x` `[N, h, w, C]` in `factor` rows and columns.
pub(super) fn nearest(tape: &mut Tape, x: &Var, factor: usize) -> Result<Var> {
    let repeated = repeated(tape, x, factor * factor)?;
    tape.pixel_shuffle(&repeated, factor)
}

/// The layers of such a network.
pub trait Upscale: Debug + Send + Sync {
    /// The image `[N, s h, s w, 3]` of `low` `[N, h, w, 3]`, both in `[0, 1]`; not clamped.
    ///
    /// # Errors
    /// If `low` has another shape or memory is full.
    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var>;

    /// How far the bits of an output depend on its surroundings in each direction, in low-resolution pixels: the
    /// sum of [`BLOCK`] for each 3x3 convolution on the longest way, less for those at a higher resolution.
    fn reach(&self) -> usize;

    /// What the sides of `low` must be multiples of.
    fn align(&self) -> usize {
        1
    }

    /// The factor between low and high resolution.
    fn scale(&self) -> usize;

    /// Floats that the layers keep alive at their peak, for each low-resolution pixel.
    fn floats_per_pixel(&self) -> usize;
}

/// Such a network with its parameters: as a [`Network`] it takes and gives `[-1, 1]`, as all do.
#[derive(Debug)]
pub struct Direct<L> {
    layers: L,
    parameters: Vec<Parameter>,
}

impl<L: Upscale> Direct<L> {
    /// The network of the layers that `build` makes, initial weights a function of `seed`.
    pub fn new(seed: u64, build: impl FnOnce(&mut Init) -> L) -> Self {
        let mut init = Init::new(seed);
        let layers = build(&mut init);
        Self { layers, parameters: init.finish() }
    }

    /// Its layers.
    pub const fn layers(&self) -> &L {
        &self.layers
    }
}

impl<L: Upscale> Module for Direct<L> {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }
}

impl<L: Upscale> Network for Direct<L> {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn sees_low_alone(&self) -> bool {
        true
    }

    /// The image of `condition`, the low-resolution one; state and step play no part.
    fn forward(&self, tape: &mut Tape, _x: &Var, condition: &Var, _t: &Tensor) -> Result<Var> {
        let low = tape.to_unit(condition)?;
        let y = self.layers.upscale(tape, &low)?;
        drop(low);
        tape.to_signed(&y)
    }

    fn geometry(&self) -> Geometry {
        let align = self.layers.align();
        let reach = self.layers.reach().next_multiple_of(align);
        Geometry { align, receptive_field: Some(reach) }
    }

    fn tile_align(&self) -> usize {
        BLOCK * self.layers.align()
    }

    fn floats_per_pixel(&self) -> usize {
        // Around them: the image as it is made, in its range and clamped, and the low resolution twice.
        self.layers.floats_per_pixel() + 9 * self.layers.scale().pow(2) + 6
    }

    fn floats_on_gpu(&self) -> usize {
        self.layers.floats_per_pixel() + 12
    }
}
