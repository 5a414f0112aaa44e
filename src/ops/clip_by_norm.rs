//! Clipping of all gradients by their common L2 norm (Pascanu et al. 2013), with PyTorch's guard:
//! `factor = min(1, limit / (norm + 1e-6))`.
use super::adam::Scalars;
use super::multi_tensor::MultiTensor;
use super::parallel::sum;
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::{Later, Tensor};
use crate::error::{Error, Result};

/// The L2 norm over all of `gradients`, accumulated in double precision and in a fixed order.
pub fn norm<'a>(gradients: impl Iterator<Item = &'a [f32]>) -> f64 {
    gradients.map(|g| sum(g.len(), |i| f64::from(g[i]).powi(2))).sum::<f64>().sqrt()
}

/// What gradients of `norm` are multiplied by to have at most the norm `limit`; 1 if `limit` is 0.
pub fn factor(norm: f64, limit: f64) -> f64 {
    if limit == 0.0 { 1.0 } else { (limit / (norm + 1e-6)).min(1.0) }
}

/// What a step measures on a GPU, and whether that holds it: then nothing moves.
///
/// A step begins with [`release`](Self::release). Each descent in it clears the sums, adds what batches say, and clips; what
/// comes after a loss or a norm that is not finite is held. Nothing is read by the host meanwhile.
#[derive(Debug)]
pub struct Measured {
    gpu: Gpu,
    /// `[MOST]`
    sums: Tensor,
    /// `[1]`: 0, or 1.
    held: Tensor,
}

impl Measured {
    /// Numbers of a batch.
    pub const MOST: usize = 8;

    /// Memory for them.
    ///
    /// # Errors
    /// If the memory of the GPU is full.
    pub fn new(gpu: &Gpu) -> Result<Self> {
        let zeros = |len| Tensor::zeros_on(&Device::from(gpu), DType::F32, &[len]);
        Ok(Self { gpu: gpu.clone(), sums: zeros(Self::MOST)?, held: zeros(1)? })
    }

    /// Nothing holds the step that begins.
    ///
    /// # Errors
    /// If the copy cannot begin.
    pub fn release(&self) -> Result<()> {
        self.held.alias_on(&self.gpu)?.write(&[0.0])
    }

    /// Nothing is measured yet.
    ///
    /// # Errors
    /// If the copy cannot begin.
    pub fn clear(&self) -> Result<()> {
        self.sums.alias_on(&self.gpu)?.write(&[0.0; Self::MOST])
    }

    /// Adds `numbers`, `[1]` each, of a batch, the loss first. Only launches.
    ///
    /// # Errors
    /// If there are more than [`MOST`](Self::MOST).
    pub fn add(&self, numbers: &[Tensor]) -> Result<()> {
        if numbers.len() > Self::MOST {
            return Err(Error::shape("clip_by_norm", "at most 8 numbers", &[numbers.len()]));
        }
        let (sums, held) =
            (&mut self.sums.alias_on(&self.gpu)?, &mut self.held.alias_on(&self.gpu)?);
        for (at, number) in numbers.iter().enumerate() {
            kernels::clip_by_norm_measure { number, sums, held, at }
                .launch(&self.gpu, Grid::new([1, 1, 1], 32))?;
        }
        Ok(())
    }

    /// The sums, [`MOST`](Self::MOST), without a wait.
    ///
    /// # Errors
    /// If the copy cannot begin.
    pub fn read_later(&self) -> Result<Later> {
        self.sums.to_f32_later()
    }
}

/// As [`factor`] on a GPU, for the gradients that `tables` know: `scalars` get norm and factor, and that the
/// step is skipped if the norm is not finite (single precision ends at 1e19, where squares overflow) or it is held.
/// Nothing is read by the host.
///
/// # Errors
/// If the memory of the GPU is full.
pub fn clip(tables: &MultiTensor, scalars: &mut Scalars, measured: &Measured) -> Result<()> {
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
    let held = &mut measured.held.alias_on(tables.gpu())?;
    kernels::clip_by_norm_factor { partial, scalars, held, blocks }
        .launch(tables.gpu(), Grid::new([1, 1, 1], 256))
}
