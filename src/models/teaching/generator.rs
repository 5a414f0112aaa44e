//! What draws images of codes.
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::models::Module;

/// The side of an image of MNIST.
pub const SIDE: usize = 28;

/// A network that makes images of codes. What judges them is a
/// [`Discriminator`](crate::models::discriminator::Discriminator).
pub trait Generator: Module {
    /// Images `[N, 28, 28, 1]` in `[-1, 1]` of codes `[N, 1, 1, latent]`.
    ///
    /// # Errors
    /// If memory is full.
    fn forward(&self, tape: &mut Tape, z: &Var) -> Result<Var>;
}
