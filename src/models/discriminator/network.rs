//! What every such network is.
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::models::Module;

/// A network that judges images. On a training tape its norms use the batch and move their running
/// statistics; when only the generator is to learn, run it in [`Tape::frozen`].
pub trait Discriminator: Module {
    /// Logits of `x` `[N, H, W, C]` being real: above 0 if so. One for each image or patch, `[N, h, w, 1]`.
    ///
    /// # Errors
    /// If `x` has a size that does not fit, or memory is full.
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var>;
}
