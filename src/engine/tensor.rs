//! A dense, contiguous, row-major tensor on one device.
//!
//! Images and feature maps are `[N, H, W, C]`, convolution weights `[Cout, kh, kw, Cin]`. Files keep
//! the layout of the original state dicts; [`crate::models`] converts at load and save.
use std::any::Any;

use super::device::{DType, Device, Real};
use super::pool::Buffer;
use crate::error::{Error, Result};

/// A value. Gradients live on the [tape](super::tape), never here.
#[derive(Debug)]
pub struct Tensor {
    shape: Vec<usize>,
    storage: Storage,
}

#[derive(Debug)]
enum Storage {
    CpuF32(Buffer<f32>),
    CpuF64(Buffer<f64>),
}

impl Tensor {
    /// A CPU tensor of `data`, whose length must be the product of `shape`.
    ///
    /// # Panics
    /// If the lengths differ: that is a fault of the caller, not of any input.
    pub fn from_vec<T: Real>(data: Vec<T>, shape: &[usize]) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "data does not fill {shape:?}");
        Self { shape: shape.to_vec(), storage: Storage::of(Buffer::from(data)) }
    }

    /// A CPU tensor of `values`, narrowed to `dtype` (`F32` or `F64`).
    pub fn from_f64(values: &[f64], shape: &[usize], dtype: DType) -> Self {
        match dtype {
            DType::F64 => Self::from_vec(values.to_vec(), shape),
            _ => Self::from_vec(values.iter().map(|&v| f32::from_f64(v)).collect(), shape),
        }
    }

    /// A tensor of zeros with `x`'s device and element type.
    pub fn zeros_as(x: &Self, shape: &[usize]) -> Self {
        let len = shape.iter().product();
        let storage = match &x.storage {
            Storage::CpuF32(_) => Storage::CpuF32(Buffer::zeros(len)),
            Storage::CpuF64(_) => Storage::CpuF64(Buffer::zeros(len)),
        };
        Self { shape: shape.to_vec(), storage }
    }

    /// A tensor with `x`'s device and element type whose elements the caller writes, every one.
    pub fn empty_as(x: &Self, shape: &[usize]) -> Self {
        let len = shape.iter().product();
        let storage = match &x.storage {
            Storage::CpuF32(_) => Storage::CpuF32(Buffer::new(len)),
            Storage::CpuF64(_) => Storage::CpuF64(Buffer::new(len)),
        };
        Self { shape: shape.to_vec(), storage }
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    pub const fn dtype(&self) -> DType {
        match self.storage {
            Storage::CpuF32(_) => DType::F32,
            Storage::CpuF64(_) => DType::F64,
        }
    }

    /// Where the elements are.
    pub const fn device(&self) -> Device {
        Device::Cpu
    }

    /// The sizes of a `[N, H, W, C]` tensor; an error in the name of `op` for any other rank.
    pub fn nhwc(&self, op: &'static str) -> Result<[usize; 4]> {
        <[usize; 4]>::try_from(self.shape())
            .map_err(|_| Error::shape(op, "[N, H, W, C]", &self.shape))
    }

    /// The elements, when this tensor is on the CPU with element type `T`.
    pub fn cpu<T: Real>(&self) -> Result<&[T]> {
        let any: &dyn Any = match &self.storage {
            Storage::CpuF32(v) => v,
            Storage::CpuF64(v) => v,
        };
        any.downcast_ref::<Buffer<T>>().map(|b| b.as_slice()).ok_or_else(|| self.mixed(T::DTYPE))
    }

    /// As [`cpu`](Self::cpu), to write.
    pub fn cpu_mut<T: Real>(&mut self) -> Result<&mut [T]> {
        let mixed = self.mixed(T::DTYPE);
        let any: &mut dyn Any = match &mut self.storage {
            Storage::CpuF32(v) => v,
            Storage::CpuF64(v) => v,
        };
        any.downcast_mut::<Buffer<T>>().map(|b| b.as_mut_slice()).ok_or(mixed)
    }

    /// All elements in double precision.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        match &self.storage {
            Storage::CpuF32(v) => v.iter().map(|&v| f64::from(v)).collect(),
            Storage::CpuF64(v) => v.to_vec(),
        }
    }

    /// The same values as `dtype` (`F32` or `F64`), in new memory.
    pub fn cast(&self, dtype: DType) -> Self {
        match (&self.storage, dtype) {
            (Storage::CpuF32(v), DType::F64) => {
                Self::from_vec(v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>(), &self.shape)
            }
            (Storage::CpuF64(v), DType::F32) => {
                Self::from_vec(v.iter().map(|&v| f32::from_f64(v)).collect(), &self.shape)
            }
            _ => self.clone(),
        }
    }

    /// The same elements under another shape of equal length.
    pub fn reshape(mut self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape("reshape", format!("{} elements", self.len()), shape));
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    /// Adds `other`, elementwise; both have one shape and element type.
    pub fn add_assign(&mut self, other: &Self) -> Result<()> {
        if self.shape != other.shape {
            return Err(Error::shape("add_assign", format!("{:?}", self.shape), &other.shape));
        }
        crate::on_device!(self, cpu::<T> => {
            for (a, &b) in self.cpu_mut::<T>()?.iter_mut().zip(other.cpu::<T>()?) {
                *a += b;
            }
        });
        Ok(())
    }

    fn mixed(&self, wanted: DType) -> Error {
        let what = format!("{wanted:?} beside a tensor of {:?}", self.dtype());
        Error::Unsupported { op: "tensor", what }
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        let mut copy = Self::empty_as(self, &self.shape);
        match (&mut copy.storage, &self.storage) {
            (Storage::CpuF32(to), Storage::CpuF32(from)) => to.copy_from_slice(from),
            (Storage::CpuF64(to), Storage::CpuF64(from)) => to.copy_from_slice(from),
            _ => unreachable!("empty_as keeps the element type"),
        }
        copy
    }
}

impl Storage {
    fn of<T: Real>(buffer: Buffer<T>) -> Self {
        let any: Box<dyn Any> = Box::new(buffer);
        match any.downcast::<Buffer<f32>>() {
            Ok(b) => Self::CpuF32(*b),
            Err(any) => match any.downcast::<Buffer<f64>>() {
                Ok(b) => Self::CpuF64(*b),
                Err(_) => unreachable!("Real is implemented for f32 and f64"),
            },
        }
    }
}
