//! What the engine itself computes with tensors: casts, and the sums of gradients.
use super::cuda::{Grid, kernels, launch_one_of};
use super::device::{DType, Real};
use super::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tensor {
    /// The same values as `dtype`, in new memory of the same device.
    ///
    /// # Errors
    /// If the device has no such elements or its memory is full.
    pub fn cast(&self, dtype: DType) -> Result<Self> {
        if self.dtype() == dtype {
            return self.try_clone();
        }
        let mut copy = Self::empty_on(&self.device(), dtype, self.shape())?;
        match (self.gpu(), dtype) {
            (Some(gpu), _) => {
                // 8 elements a thread, whichever the types.
                let (n, grid) = (self.len(), Grid::packs(self.len(), DType::F16));
                launch_one_of!(gpu, grid, match dtype {
                    DType::F16 => cast_to_f16,
                    DType::BF16 => cast_to_bf16,
                    _ => cast_to_f32,
                } { x: self, y: &mut copy, n })?;
            }
            (None, DType::F64) => {
                let from = self.cpu::<f32>()?;
                copy.cpu_mut()?.iter_mut().zip(from).for_each(|(to, &v)| *to = f64::from(v));
            }
            (None, _) => {
                let from = self.cpu::<f64>()?;
                copy.cpu_mut()?.iter_mut().zip(from).for_each(|(to, &v)| *to = f32::from_f64(v));
            }
        }
        Ok(copy)
    }

    /// Adds `other`, elementwise; both have one shape and element type.
    ///
    /// # Errors
    /// If they do not match.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        if self.shape() != other.shape() {
            return Err(Error::shape("add_assign", format!("{:?}", self.shape()), other.shape()));
        }
        on_device!(self,
            cpu::<T> => for (a, &b) in self.cpu_mut::<T>()?.iter_mut().zip(other.cpu::<T>()?) {
                *a += b;
            },
            cuda(gpu) => {
                let (n, grid) = (self.len(), Grid::packs(self.len(), self.dtype()));
                kernels::add_assign { a: self, b: other, n }.launch(&gpu, grid)?;
            }
        );
        Ok(())
    }
}
