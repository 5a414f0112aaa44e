//! What both networks of an adversarial pair are.
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::error::Result;

/// The side of an image of MNIST.
pub const SIDE: usize = 28;

/// One of two networks that are trained against each other: what makes images of codes, or what judges them.
pub trait Module: Send + Sync {
    /// Images `[N, 28, 28, 1]` in `[-1, 1]` of codes `[N, 1, 1, latent]`; or scores, as many for each image.
    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var>;

    /// All parameters, in construction order.
    fn parameters(&self) -> &[Parameter];

    /// The running statistics of norms, in construction order.
    fn buffers(&self) -> &[Parameter] {
        &[]
    }
}
