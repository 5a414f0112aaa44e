//! Values on a tape.
use std::sync::Arc;

use super::tensor::Tensor;
use crate::error::Result;

/// A value on a tape: what flows through a model's `forward`. Dropping the last clone on an
/// inference tape frees the memory.
#[derive(Clone, Debug)]
pub struct Var {
    /// Its number on the tape.
    pub(super) id: usize,
    /// The number of the tape.
    pub(super) tape: u64,
    pub(super) value: Arc<Tensor>,
    pub(super) wants_grad: bool,
}

impl Var {
    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The tensor itself, copied only if something else still holds it.
    ///
    /// # Errors
    /// If it must be copied and the memory of a GPU is full.
    pub fn into_tensor(self) -> Result<Tensor> {
        Arc::try_unwrap(self.value).or_else(|shared| shared.try_clone())
    }
}
