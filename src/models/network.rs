//! What every network for super-resolution is.
use std::sync::Arc;

use super::Module;
use super::vq;
use super::weights::WeightsFile;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::nn::rolling::RollingCall;

/// A network for super-resolution: a denoiser, or for the direct process one that enlarges in one call
/// and ignores state and t. Images are NHWC in `[-1, 1]`, with C [`channels`](Self::channels).
pub trait Network: Module {
    /// What the network sees besides the state `x_t`, computed once for all steps of a batch or tile.
    ///
    /// `low` is the low-resolution image `[N, h, w, C]`, `y0` its enlargement `[N, H, W, C]`.
    fn condition(&self, low: &Tensor, y0: &Tensor) -> Result<Tensor>;

    /// Whether the network looks at the low-resolution images alone: at no state, step or enlargement.
    fn sees_low_alone(&self) -> bool {
        false
    }

    /// Whether the network can be told how damaged its input is.
    fn takes_damage(&self) -> bool {
        false
    }

    /// As [`condition`](Self::condition), for images of which `damage` `[N, 6]` is known.
    ///
    /// # Errors
    /// If the network cannot be told.
    fn condition_on(&self, low: &Tensor, damage: &Tensor) -> Result<Tensor> {
        let what = format!("damage of {:?} to images of {:?}", damage.shape(), low.shape());
        Err(Error::Unsupported { op: "network", what })
    }

    /// The prediction `[N, H, W, C]` for the state `x` `[N, H, W, C]` at the steps `t` `[N]`, counted
    /// as the process counts them, in F32 or F64.
    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var>;

    /// Whether the call at t = T, where a chain starts, is one of its own: [`forward_first`](Self::forward_first).
    fn has_first_call(&self) -> bool {
        false
    }

    /// Whether its enlargements are held to what the picture shows: within bounds of the colours around each pixel, and smooth
    /// where an undamaged picture is. What the network would draw there is the grain of photographs.
    fn keeps_to_picture(&self) -> bool {
        false
    }

    /// A call at `t` `[1]` (the `first` of a chain or a later one) that goes over one image from top to bottom, at most
    /// `most` rows at a time, with the bits of [`forward`](Self::forward); none where the network cannot. The first
    /// call is given no state.
    ///
    /// # Errors
    /// If memory is full.
    fn rolling(
        &self,
        first: bool,
        t: &Tensor,
        most: usize,
    ) -> Result<Option<Box<dyn RollingCall + '_>>> {
        let (_, _, _) = (first, t, most);
        Ok(None)
    }

    /// Bytes that a walk of `steps` such calls holds at its peak, for images of `width` columns that come in pieces
    /// of `rows` rows, both of the low resolution; none where the network cannot.
    fn rolling_bytes(&self, width: usize, rows: usize, steps: usize) -> Option<u64> {
        let (_, _, _) = (width, rows, steps);
        None
    }

    /// As [`forward`](Self::forward), where all `t` are T.
    fn forward_first(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        self.forward(tape, x, condition, t)
    }

    /// Whether a training step changes the buffers. Not those of a part that is frozen.
    fn moves_buffers(&self) -> bool {
        !self.buffers().is_empty()
    }

    /// Channels of an image: 3, or 1 for luma.
    fn channels(&self) -> usize {
        3
    }

    /// What the part is called that training leaves alone and that has weights of its own from elsewhere.
    fn frozen_part(&self) -> Option<&'static str> {
        None
    }

    /// Takes the weights of the [`frozen_part`](Self::frozen_part) from `file`, which messages call `name`.
    ///
    /// # Errors
    /// If there is no such part, or the file does not hold it.
    fn load_frozen(&self, file: &WeightsFile, name: &str) -> Result<()> {
        let what = format!("{name} ({} tensors)", file.tensors.len());
        let cause = "all parts of this network are trained";
        Err(Error::Usage(Report::new(format!("nothing takes the weights {what}"), cause)))
    }

    /// The autoencoder whose latents the network's states are; none if they are images.
    fn first_stage(&self) -> Option<&Arc<vq::Vq>> {
        None
    }

    /// What tiling and padding must respect.
    fn geometry(&self) -> Geometry;

    /// What the origins of tiles must be multiples of, so that a tile computes what the whole would; sides
    /// must be multiples of the alignment alone. The fast convolution computes blocks of 4x4 pixels, and rounding
    /// depends on where in a block a pixel stands.
    fn tile_align(&self) -> usize {
        self.geometry().align
    }

    /// How far blended tiles reach beyond their core, in low-resolution pixels.
    fn overlap(&self) -> usize {
        16
    }

    /// Floats that one call keeps alive at its peak, for each low-resolution pixel; tiles are sized
    /// by it.
    fn floats_per_pixel(&self) -> usize;

    /// The same on a GPU, in the type that the network computes in there: without the images around it, which are F32.
    fn floats_on_gpu(&self) -> usize {
        self.floats_per_pixel()
    }

    /// Bytes that one call on the CPU keeps alive at its peak, for an image of `width` x `height`
    /// low-resolution pixels.
    fn bytes_on_cpu(&self, width: usize, height: usize) -> u64 {
        4 * (self.floats_per_pixel() * width * height) as u64
    }
}

/// How often a side doubles for `scale`, which `network` can only take a power of 2 for.
pub(super) fn doublings(network: &'static str, scale: usize) -> Result<u32> {
    match scale.is_power_of_two() {
        true => Ok(scale.ilog2()),
        false => {
            let what = format!("a factor of {scale}; it doubles, so 2, 4, 8 and so on");
            Err(Error::Unsupported { op: network, what })
        }
    }
}

/// What tiling and padding must respect, in low-resolution pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Sides must be multiples of this, and tiles start at multiples of it.
    pub align: usize,
    /// How far an output can see in one call, already rounded up to `align`; none if it sees the
    /// whole map, so that tiles must be blended.
    pub receptive_field: Option<usize>,
}
