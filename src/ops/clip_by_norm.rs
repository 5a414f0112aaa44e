//! Clipping of all gradients by their common L2 norm (Pascanu et al. 2013), with PyTorch's guard:
//! `factor = min(1, limit / (norm + 1e-6))`.
use super::adam::Scalars;
use super::multi_tensor::MultiTensor;
use super::parallel::sum;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// The L2 norm over all of `gradients`, accumulated in double precision and in a fixed order.
pub fn norm<'a>(gradients: impl Iterator<Item = &'a [f32]>) -> f64 {
    gradients.map(|g| sum(g.len(), |i| f64::from(g[i]).powi(2))).sum::<f64>().sqrt()
}

/// What gradients of `norm` are multiplied by to have at most the norm `limit`; 1 if `limit` is 0.
pub fn factor(norm: f64, limit: f64) -> f64 {
    if limit == 0.0 { 1.0 } else { (limit / (norm + 1e-6)).min(1.0) }
}

/// The same on a GPU, for the gradients that `tables` know: `scalars` get norm and factor, and that the
/// step is skipped if the norm is not finite (single precision ends at 1e19, where squares overflow).
/// Nothing is read by the host.
pub fn clip(tables: &MultiTensor, scalars: &mut Scalars) -> Result<()> {
    let device = Device::from(tables.gpu());
    let mut partial = Tensor::empty_on(&device, DType::F32, &[tables.chunks()])?;
    kernels::clip_by_norm_sums {
        blocks: tables.blocks(),
        lengths: tables.lengths(),
        gradients: tables.gradients(),
        scalars: &scalars.0,
        partial: &mut partial,
    }
    .launch(tables.gpu(), tables.dtype(), tables.grid())?;
    let (partial, scalars, blocks) = (&partial, &mut scalars.0, tables.chunks());
    kernels::clip_by_norm_factor { partial, scalars, blocks }
        .launch(tables.gpu(), Grid::new([1, 1, 1], 256))
}
