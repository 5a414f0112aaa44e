//! What every such network is.
use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::models::network::of_buffers;

/// A network that judges images. On a training tape its norms use the batch and move their running
/// statistics; when only the generator is to learn, run it in [`Tape::frozen`].
pub trait Discriminator: Send + Sync {
    /// Logits of `x` `[N, H, W, 3]` being real: above 0 if so. One for each image or patch, `[N, h, w, 1]`.
    ///
    /// # Errors
    /// If `x` has a size that does not fit, or memory is full.
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var>;

    /// All parameters, in construction order.
    fn parameters(&self) -> &[Parameter];

    /// The running statistics of its norms, in construction order.
    fn buffers(&self) -> &[Parameter];

    /// Everything a file holds: parameters, then buffers.
    fn state(&self) -> Vec<Parameter> {
        [self.parameters(), self.buffers()].concat()
    }

    /// How many numbers training changes.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|p| p.value().len()).sum()
    }

    /// Moves the weights to `device`, as `dtype` there; statistics are not kept in half precision.
    ///
    /// # Errors
    /// If the memory of the device is full.
    fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        self.parameters().iter().try_for_each(|p| p.to_device(device, dtype))?;
        self.buffers().iter().try_for_each(|b| b.to_device(device, of_buffers(dtype)))
    }
}
