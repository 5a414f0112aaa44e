//! Blocks of convolutions whose sum with their input is weighed by parameter-free attention.
use std::sync::Arc;

use super::init::Init;
use super::layers::Conv2d;
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Slope left of 0 of the leaky ReLUs between the convolutions.
const SLOPE: f64 = 0.1;

/// ERRN2's block: 3x3 convolutions with leaky ReLU between two, then `(x + o) (sigmoid(o) - 1/2)` of input x
/// and the last one's output o, within limits if it has some.
#[derive(Clone, Debug)]
pub struct GatedBlock {
    convs: Vec<Conv2d>,
    limits: Option<Parameter>,
}

/// Limits that no map comes near; half precision holds them.
const WIDEST: f32 = 6e4;

impl GatedBlock {
    /// A block of `depth` convolutions of `channels` channels, `rep1.rep_conv` and so on.
    pub fn new(init: &mut Init, channels: usize, depth: usize) -> Self {
        let conv = |i| Conv2d::same(init, &format!("rep{i}.rep_conv"), channels, channels, 3);
        Self { convs: (1..=depth).map(conv).collect(), limits: None }
    }

    /// The same whose output stays within `limits` `[2, channels]`: a buffer, wide open at first. Blocks that learnt
    /// from photographs alone answer edges harder than any in those with numbers that grow from block to block.
    pub fn limited(init: &mut Init, channels: usize, depth: usize) -> Self {
        let limits = init.buffer("limits", &[2, channels], 0.0);
        let widest = [vec![-WIDEST; channels], vec![WIDEST; channels]].concat();
        limits.set(Tensor::from_vec(widest, &[2, channels]));
        Self { limits: Some(limits), ..Self::new(init, channels, depth) }
    }

    /// The least and the largest number of each channel of the output, `[2, channels]`, if it has limits.
    pub fn limits(&self) -> Option<Arc<Tensor>> {
        self.limits.as_ref().map(Parameter::value)
    }

    /// The block's output, of the shape of `x` `[N, H, W, C]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        self.layers(tape, x, x.clone())
    }

    /// As [`forward`](Self::forward), with `shift` `[N, C]` added to what the first convolution sees.
    pub fn forward_told(&self, tape: &mut Tape, x: &Var, shift: &Var) -> Result<Var> {
        let seen = tape.add_channels(x, shift)?;
        self.layers(tape, x, seen)
    }

    /// How many convolutions it has.
    pub fn depth(&self) -> usize {
        self.convs.len()
    }

    /// Convolution `i` of `y`, with the leaky ReLU behind it unless it is the last.
    pub fn convolve(&self, tape: &mut Tape, i: usize, y: &Var) -> Result<Var> {
        match i + 1 == self.convs.len() {
            false => self.convs[i].forward_leaky(tape, y, SLOPE),
            true => self.convs[i].forward(tape, y),
        }
    }

    fn layers(&self, tape: &mut Tape, x: &Var, mut y: Var) -> Result<Var> {
        for i in 0..self.convs.len() {
            y = self.convolve(tape, i, &y)?;
        }
        let Some(limits) = self.limits() else { return tape.parameter_free_attention(x, &y) };
        let limits = tape.input(limits);
        tape.parameter_free_attention_within([x, &y], &limits)
    }
}
