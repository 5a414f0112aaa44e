//! What the engine itself computes with tensors: casts, and the sums of gradients.
use super::cuda::{Grid, kernels, launch_one_of};
use super::device::{DType, Real};
use super::tensor::Tensor;
use crate::engine::threads::pieces;
use crate::error::{Error, Result};
use crate::on_device;

/// Elements that a thread takes at once, as in `ops/parallel.rs`.
const PIECE: usize = 1 << 14;

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

    /// `factor * self`, elementwise, in new memory.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn times(&self, factor: f64) -> Result<Self> {
        let mut y = Self::empty_as(self, self.shape())?;
        on_device!(self,
            cpu::<T> => {
                let (factor, x) = (T::from_f64(factor), self.cpu::<T>()?);
                in_pieces(y.cpu_mut::<T>()?, |start, y| {
                    y.iter_mut().zip(&x[start..]).for_each(|(y, &x)| *y = factor * x);
                });
            },
            cuda(gpu) => {
                let (factor, n) = (f32::from_f64(factor), self.len());
                let grid = Grid::packs(n, self.dtype());
                kernels::scale { x: self, y: &mut y, factor, n }.launch(&gpu, grid)?;
            }
        );
        Ok(y)
    }

    /// `s * self + t * other`, elementwise, in new memory; both have one shape and element type.
    ///
    /// # Errors
    /// If they do not match, or the memory of a GPU is full.
    pub fn weighted(&self, s: f64, other: &Self, t: f64) -> Result<Self> {
        if self.shape() != other.shape() {
            return Err(Error::shape("scaled_add", format!("{:?}", self.shape()), other.shape()));
        }
        let mut y = Self::empty_as(self, self.shape())?;
        on_device!(self,
            cpu::<T> => {
                let (s, t) = (T::from_f64(s), T::from_f64(t));
                let (a, b) = (self.cpu::<T>()?, other.cpu::<T>()?);
                in_pieces(y.cpu_mut::<T>()?, |start, y| {
                    let pairs = a[start..].iter().zip(&b[start..]);
                    y.iter_mut().zip(pairs).for_each(|(y, (&a, &b))| *y = s * a + t * b);
                });
            },
            cuda(gpu) => {
                let (s, t, n) = (f32::from_f64(s), f32::from_f64(t), self.len());
                let grid = Grid::packs(n, self.dtype());
                kernels::scaled_add { a: self, b: other, y: &mut y, s, t, n }.launch(&gpu, grid)?;
            }
        );
        Ok(y)
    }
}

/// `f(start, piece)` for all pieces of `y`; a single one is not worth a call to other threads.
fn in_pieces<T: Real>(y: &mut [T], f: impl Fn(usize, &mut [T]) + Sync) {
    match y.len() <= PIECE {
        true => f(0, y),
        false => pieces(y, PIECE, |i, y| f(i * PIECE, y)),
    }
}
