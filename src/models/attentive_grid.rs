//! The default models' network: a few narrow 3x3 convolutions at the low resolution with an attention that
//! has no parameters, told how far the chain has come and how damaged its input is.
//!
//! The trunk is that of ERRN2 (NTIRE 2026 challenge on efficient super-resolution) under the names of its state
//! dict, so that its published weights load into it; its blocks are SPAN's (Wan et al. 2024). What makes it a
//! denoiser starts at zero: with the published weights alone, a call gives what ERRN2 gives.
//!
//! There are two trunks, experts as in eDiff-I (Balaji et al. 2022): one for the call that starts the chain, which
//! a single step consists of and which is trained to be faithful, one for the calls after it, which draw texture.
//!
//! ```text
//! e  = mlp(embed t ++ damage)                                   [N, D]
//! f  = conv3(low) + conv3'(unshuffle s of x_t)                  [N, h, w, C]; without the state at t = T
//! y  = blocks of  (g + y) (sigmoid(g) - 1/2),  g = conv3 lrelu conv3 lrelu conv3 lrelu conv3 (y + linear e);
//!      within limits of each channel in a limited network
//! x0 = shuffle s of conv3(conv3(y) + f)                         [N, H, W, 3]
//! ```
mod layers;
mod rolling;

use layers::DEPTH;
pub use layers::{AttentiveGrid, AttentiveGridConfig, LATER};

use super::damage::TOLD;
use super::direct::BLOCK;
use super::{Geometry, Kind, Module, Network, Shapes};
use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::nn::rolling::RollingCall;
use crate::ops::conv2d;

impl Module for AttentiveGrid {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn buffers(&self) -> &[Parameter] {
        &self.limits
    }

    /// Limits are numbers of maps, so they have the type of these.
    fn cast(&self, dtype: DType) -> Result<()> {
        self.state().iter().try_for_each(|p| p.cast(dtype))
    }

    fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        self.state().iter().try_for_each(|p| p.to_device(device, dtype))
    }
}

impl Network for AttentiveGrid {
    /// `low` and, for every pixel, that nothing is known of its damage.
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        let unknown = Tensor::zeros_as(low, &[low.shape()[0], TOLD])?;
        self.condition_on(low, &unknown)
    }

    fn takes_damage(&self) -> bool {
        true
    }

    /// `low` `[N, h, w, 3]` ++ `damage` `[N, TOLD]` repeated, `[N, h, w, 3 + TOLD]`.
    fn condition_on(&self, low: &Tensor, damage: &Tensor) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let [n, h, w, _] = low.nhwc("attentive_grid")?;
        let zeros = tape.input(Tensor::zeros_as(low, &[n, h, w, TOLD])?);
        let damage = tape.input(damage.try_clone()?);
        let maps = tape.add_channels(&zeros, &damage)?;
        let low = tape.input(low.try_clone()?);
        tape.concat(&[&low, &maps])?.into_tensor()
    }

    /// x0 in `[-1, 1]`, at t < T.
    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        self.run(tape, &self.later, [x, condition], t)
    }

    fn has_first_call(&self) -> bool {
        true
    }

    fn keeps_to_picture(&self) -> bool {
        true
    }

    fn moves_buffers(&self) -> bool {
        false
    }

    fn rolling(
        &self,
        first: bool,
        t: &Tensor,
        most: usize,
    ) -> Result<Option<Box<dyn RollingCall + '_>>> {
        let trunk = if first { &self.first } else { &self.later };
        Ok(Some(Box::new(rolling::Rolling::new(self, trunk, t.try_clone()?, most))))
    }

    fn forward_first(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        self.run(tape, &self.first, [x, condition], t)
    }

    fn rolling_bytes(&self, width: usize, rows: usize, steps: usize) -> Option<u64> {
        let (first, later) = (self.config.channels, self.config.later_channels());
        let blocks = self.config.blocks;
        let image = 3 * self.config.scale * self.config.scale;
        // Layers are given a block above a piece and one below; queues let go of whole pieces.
        let (kept, piece) = (BLOCK + 1, rows + 2 * BLOCK);
        let convolutions = DEPTH * blocks + 3;
        let state = image * (BLOCK * convolutions + 2 * rows);
        let call = |c: usize| {
            let windows = kept * (c * (convolutions - 1) + image);
            let block_inputs = blocks * c * (BLOCK * DEPTH + 2 * rows);
            let skip = c * (BLOCK * (convolutions - 2) + 2 * rows);
            windows + block_inputs + skip + state
        };
        let later_calls = steps.saturating_sub(1);
        let widest = if later_calls == 0 { first } else { first.max(later) };
        // A layer's input and output beside the tail's three images, or the step's four.
        let passing = piece * (2 * widest + 4 * image);
        let floats = call(first) + later_calls * call(later) - state + passing;
        let weights = |c: usize, inputs: usize| {
            let features = (DEPTH * blocks + 1) * conv2d::kept_bytes(c, c);
            conv2d::kept_bytes(inputs, c) + features + conv2d::kept_bytes(c, image)
        };
        let of_later = if later_calls == 0 { 0 } else { weights(later, 3 + image) };
        Some((4 * floats * width + weights(first, 3) + of_later) as u64)
    }

    fn geometry(&self) -> Geometry {
        // A block of the fast convolution for each: the stem, those of the blocks, two behind them.
        let reach = BLOCK * (DEPTH * self.config.blocks + 3);
        Geometry { align: 1, receptive_field: Some(reach) }
    }

    fn tile_align(&self) -> usize {
        BLOCK
    }

    fn overlap(&self) -> usize {
        // What two calls see beside how they round.
        2 * (DEPTH * self.config.blocks + 3)
    }

    fn floats_per_pixel(&self) -> usize {
        let c = self.config.channels.max(self.config.later_channels());
        let image = 3 * self.config.scale * self.config.scale;
        // Stem, a block's input and two of its maps; then the images of the sampler.
        4 * c + 5 * image
    }

    fn floats_on_gpu(&self) -> usize {
        self.floats_per_pixel() - 3 * 3 * self.config.scale * self.config.scale
    }
}

impl Kind for AttentiveGridConfig {
    const KEYS: &'static [&'static str] = &[];

    fn build(&self, seed: u64) -> Box<dyn Network> {
        Box::new(AttentiveGrid::new(self, seed))
    }

    fn scale(&self) -> usize {
        self.scale
    }

    fn of_shapes(_: &Shapes) -> Option<Self> {
        None
    }

    fn narrow() -> Self {
        let later_channels = Some(12);
        Self {
            channels: 8,
            later_channels,
            blocks: 2,
            time_dim: 8,
            limited: true,
            ..Self::default()
        }
    }
}
