//! Tensors as arguments of kernels, and constants that are tensors.
use super::cuda::{Arg, Argument, Gpu};
use super::dtype::DType;
use super::tensor::Tensor;
use crate::error::Result;

impl Gpu {
    /// A tensor that is computed once on the host, f32, and stays on the device under `key`.
    pub fn constant(
        &self,
        key: &str,
        shape: &[usize],
        values: impl FnOnce() -> Vec<f32>,
    ) -> Result<Tensor> {
        let (buffer, shape) = self.constant_buffer(key, shape, values)?;
        Ok(Tensor::on_gpu(self, buffer, DType::F32, &shape))
    }
}

impl Arg {
    /// The pointer of `tensor`, or null.
    pub fn optional(tensor: Option<&Tensor>) -> Self {
        tensor.map_or(Self::NULL, Self::from)
    }
}

impl From<&Tensor> for Arg {
    fn from(tensor: &Tensor) -> Self {
        Self(tensor.device_pointer().map(|at| Argument { bits: at.0, size: 8 }))
    }
}

impl From<&&Tensor> for Arg {
    fn from(tensor: &&Tensor) -> Self {
        Self::from(*tensor)
    }
}

impl From<&mut Tensor> for Arg {
    fn from(tensor: &mut Tensor) -> Self {
        Self::from(&*tensor)
    }
}
