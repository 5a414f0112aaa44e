//! Constants of a GPU that are tensors.
use super::cuda::Gpu;
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
