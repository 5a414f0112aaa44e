//! What networks share that go from low resolution straight to high: no state, no step, and colours from 0
//! to 1 inside, as published ones have them.
use std::fmt::Debug;

use super::{Geometry, Network};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::Init;

/// The layers of such a network.
pub trait Upscale: Debug + Send + Sync {
    /// The image `[N, s h, s w, 3]` of `low` `[N, h, w, 3]`, both in `[0, 1]`; not clamped.
    ///
    /// # Errors
    /// If `low` has another shape or memory is full.
    fn upscale(&self, tape: &mut Tape, low: &Var) -> Result<Var>;

    /// How far an output sees in each direction, in low-resolution pixels: the sum of the paddings of the
    /// convolutions on the longest way, those at a higher resolution rounded up.
    fn reach(&self) -> usize;

    /// What the sides of `low` must be multiples of.
    fn align(&self) -> usize {
        1
    }

    /// Floats that one call keeps alive at its peak, for each low-resolution pixel.
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

impl<L: Upscale> Network for Direct<L> {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    /// The image of `condition`, the low-resolution one; state and step play no part.
    fn forward(&self, tape: &mut Tape, _x: &Var, condition: &Var, _t: &Tensor) -> Result<Var> {
        let low = tape.to_unit(condition)?;
        let y = self.layers.upscale(tape, &low)?;
        drop(low);
        tape.to_signed(&y)
    }

    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn geometry(&self) -> Geometry {
        let align = self.layers.align();
        let reach = self.layers.reach().next_multiple_of(align);
        Geometry { align, receptive_field: Some(reach) }
    }

    fn floats_per_pixel(&self) -> usize {
        self.layers.floats_per_pixel()
    }
}
