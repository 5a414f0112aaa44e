//! A dense, contiguous, row-major tensor on one device.
//!
//! Images and feature maps are `[N, H, W, C]`, convolution weights `[Cout, kh, kw, Cin]`. Files keep
//! the layout of the original state dicts; [`crate::models`] converts at load and save.
use std::any::Any;
use std::sync::Arc;

use half::{bf16, f16};

use super::cuda::{Arriving, DevicePointer, Gpu};
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
    Cuda { gpu: Gpu, buffer: Arc<super::cuda::Buffer>, dtype: DType },
}

/// Numbers of [`Tensor::to_f32_later`].
#[derive(Debug)]
pub enum Later {
    /// They are on their way from a GPU.
    Arriving(Box<dyn Arriving>),
    /// They are there.
    There(Vec<f32>),
}

impl Later {
    /// Waits for them.
    ///
    /// # Errors
    /// If the GPU failed.
    pub fn wait(self) -> Result<Vec<f32>> {
        match self {
            Self::There(values) => Ok(values),
            Self::Arriving(arriving) => Ok(bytemuck::pod_collect_to_vec(&arriving.wait()?)),
        }
    }
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
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn zeros_as(x: &Self, shape: &[usize]) -> Result<Self> {
        Self::zeros_on(&x.device(), x.dtype(), shape)
    }

    /// A tensor with `x`'s device and element type whose elements the caller writes, every one.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn empty_as(x: &Self, shape: &[usize]) -> Result<Self> {
        Self::empty_on(&x.device(), x.dtype(), shape)
    }

    /// A tensor of zeros on `device`.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn zeros_on(device: &Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        let mut zeros = Self::empty_on(device, dtype, shape)?;
        zeros.clear()?;
        Ok(zeros)
    }

    /// Makes all elements zero, where they lie.
    ///
    /// # Errors
    /// If the driver of a GPU cannot.
    pub fn clear(&mut self) -> Result<()> {
        let bytes = self.bytes();
        match &mut self.storage {
            Storage::CpuF32(v) => v.fill(0.0),
            Storage::CpuF64(v) => v.fill(0.0),
            Storage::Cuda { gpu, buffer, .. } => {
                // SAFETY: the buffer holds the tensor's bytes and is alive.
                unsafe { gpu.driver().fill(buffer.pointer(), 0, bytes)? };
            }
        }
        Ok(())
    }

    /// A tensor on `device` whose elements the caller writes, every one.
    ///
    /// # Errors
    /// If the memory of a GPU is full, or the device has no such elements (F16 and BF16 on the CPU,
    /// F64 on a GPU).
    pub fn empty_on(device: &Device, dtype: DType, shape: &[usize]) -> Result<Self> {
        let len: usize = shape.iter().product();
        let storage = match (device, dtype) {
            (Device::Cpu, DType::F32) => Storage::CpuF32(Buffer::new(len)),
            (Device::Cpu, DType::F64) => Storage::CpuF64(Buffer::new(len)),
            (Device::Cuda(gpu), DType::F16 | DType::BF16 | DType::F32) => {
                let buffer = Arc::new(gpu.allocate(len * dtype.size())?);
                Storage::Cuda { gpu: gpu.clone(), buffer, dtype }
            }
            _ => {
                let what = format!("{dtype:?} on {device:?}");
                return Err(Error::Unsupported { op: "tensor", what });
            }
        };
        Ok(Self { shape: shape.to_vec(), storage })
    }

    /// `values` as an `F32` tensor on `device`.
    ///
    /// # Errors
    /// If the memory of a GPU is full or the copy fails.
    pub fn from_slice_on(device: &Device, values: &[f32], shape: &[usize]) -> Result<Self> {
        let mut tensor = Self::empty_on(device, DType::F32, shape)?;
        tensor.write(values)?;
        Ok(tensor)
    }

    /// Replaces all elements of this `F32` tensor by `values`, whose number must fit.
    ///
    /// # Errors
    /// If the tensor has another element type or the copy to a GPU fails.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        assert_eq!(values.len(), self.len(), "values do not fill {:?}", self.shape);
        match &mut self.storage {
            Storage::CpuF32(v) => v.copy_from_slice(values),
            Storage::Cuda { gpu, buffer, dtype: DType::F32 } => {
                // SAFETY: the buffer holds as many f32, as was seen above, and is alive.
                unsafe { gpu.driver().upload(buffer.pointer(), bytemuck::cast_slice(values))? };
            }
            _ => return Err(self.mixed(DType::F32)),
        }
        Ok(())
    }

    /// A tensor over memory of `gpu` that others may read too.
    pub(super) fn on_gpu(
        gpu: &Gpu,
        buffer: Arc<super::cuda::Buffer>,
        dtype: DType,
        shape: &[usize],
    ) -> Self {
        Self { shape: shape.to_vec(), storage: Storage::Cuda { gpu: gpu.clone(), buffer, dtype } }
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
            Storage::Cuda { dtype, .. } => dtype,
        }
    }

    /// Where the elements are.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::CpuF32(_) | Storage::CpuF64(_) => Device::Cpu,
            Storage::Cuda { gpu, .. } => Device::Cuda(gpu.clone()),
        }
    }

    /// The same memory under a second name: for kernels that work in place.
    ///
    /// # Errors
    /// If it is not on `gpu`.
    pub(crate) fn alias_on(&self, gpu: &Gpu) -> Result<Self> {
        match &self.storage {
            Storage::Cuda { gpu: mine, buffer, dtype } if mine == gpu => {
                Ok(Self::on_gpu(gpu, Arc::clone(buffer), *dtype, &self.shape))
            }
            _ => Err(self.mixed(self.dtype())),
        }
    }

    /// The GPU that it is on; none on the CPU.
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        match &self.storage {
            Storage::Cuda { gpu, .. } => Some(gpu),
            _ => None,
        }
    }

    /// The address on the GPU; none on the CPU.
    pub(crate) fn device_pointer(&self) -> Option<DevicePointer> {
        match &self.storage {
            Storage::Cuda { buffer, .. } => Some(buffer.pointer()),
            _ => None,
        }
    }

    /// The size in memory.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().size()
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
            Storage::Cuda { .. } => return Err(self.mixed(T::DTYPE)),
        };
        any.downcast_ref::<Buffer<T>>().map(|b| &**b).ok_or_else(|| self.mixed(T::DTYPE))
    }

    /// As [`cpu`](Self::cpu), to write.
    pub fn cpu_mut<T: Real>(&mut self) -> Result<&mut [T]> {
        let mixed = self.mixed(T::DTYPE);
        let any: &mut dyn Any = match &mut self.storage {
            Storage::CpuF32(v) => v,
            Storage::CpuF64(v) => v,
            Storage::Cuda { .. } => return Err(mixed),
        };
        any.downcast_mut::<Buffer<T>>().map(|b| &mut **b).ok_or(mixed)
    }

    /// All elements in double precision, wherever they are.
    ///
    /// # Errors
    /// If the copy from a GPU fails.
    pub fn to_f64_vec(&self) -> Result<Vec<f64>> {
        Ok(match &self.storage {
            Storage::CpuF64(v) => v.to_vec(),
            _ => self.to_f32_vec()?.into_iter().map(f64::from).collect(),
        })
    }

    /// All elements in single precision, wherever they are.
    ///
    /// # Errors
    /// If the copy from a GPU fails.
    pub fn to_f32_vec(&self) -> Result<Vec<f32>> {
        let (gpu, buffer, dtype) = match &self.storage {
            Storage::CpuF32(v) => return Ok(v.to_vec()),
            Storage::CpuF64(v) => return Ok(v.iter().map(|&v| f32::from_f64(v)).collect()),
            Storage::Cuda { gpu, buffer, dtype } => (gpu, buffer, dtype),
        };
        if *dtype == DType::F32 {
            let mut values = vec![0.0f32; self.len()];
            // SAFETY: the buffer holds as many f32 and is alive.
            unsafe {
                gpu.driver().download(buffer.pointer(), bytemuck::cast_slice_mut(&mut values))?;
            }
            return Ok(values);
        }
        let mut bits = vec![0u16; self.len()];
        // SAFETY: the buffer holds as many numbers of two bytes and is alive.
        unsafe { gpu.driver().download(buffer.pointer(), bytemuck::cast_slice_mut(&mut bits))? };
        Ok(match dtype {
            DType::F16 => bits.into_iter().map(|b| f16::from_bits(b).to_f32()).collect(),
            _ => bits.into_iter().map(|b| bf16::from_bits(b).to_f32()).collect(),
        })
    }

    /// The same without a wait for a GPU, of a tensor of F32: what it holds after all that was issued before.
    ///
    /// # Errors
    /// If it is of another type, or the copy cannot begin.
    pub fn to_f32_later(&self) -> Result<Later> {
        let (gpu, buffer) = match &self.storage {
            Storage::Cuda { gpu, buffer, dtype: DType::F32 } => (gpu, buffer),
            Storage::CpuF32(v) => return Ok(Later::There(v.to_vec())),
            _ => return Err(self.mixed(DType::F32)),
        };
        // SAFETY: the buffer holds as many f32 and is alive; it is used again only by what is issued later.
        let arriving = unsafe { gpu.driver().download_later(buffer.pointer(), 4 * self.len())? };
        Ok(Later::Arriving(arriving))
    }

    /// The same values on `device`, in single precision when they move.
    ///
    /// # Errors
    /// If the memory of a GPU is full or the copy fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device() == *device {
            return self.try_clone();
        }
        Self::from_slice_on(device, &self.to_f32_vec()?, &self.shape)
    }

    /// A copy in new memory.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn try_clone(&self) -> Result<Self> {
        let mut copy = Self::empty_as(self, &self.shape)?;
        copy.copy_from(self)?;
        Ok(copy)
    }

    /// Replaces all elements by those of `other`, which has the same shape, element type and device. The memory stays
    /// where it is: recorded graphs see the new elements.
    ///
    /// # Errors
    /// If the tensors do not match.
    pub fn copy_from(&mut self, other: &Self) -> Result<()> {
        if self.shape != other.shape {
            return Err(Error::shape("copy", format!("{:?}", self.shape), &other.shape));
        }
        let (bytes, mixed) = (self.bytes(), other.mixed(self.dtype()));
        match (&mut self.storage, &other.storage) {
            (Storage::CpuF32(to), Storage::CpuF32(from)) => to.copy_from_slice(from),
            (Storage::CpuF64(to), Storage::CpuF64(from)) => to.copy_from_slice(from),
            (
                Storage::Cuda { gpu, buffer: to, dtype },
                Storage::Cuda { gpu: theirs, buffer: from, dtype: of },
            ) if gpu == theirs && dtype == of => {
                // A second name of the same memory has its elements.
                if Arc::ptr_eq(to, from) {
                    return Ok(());
                }
                // SAFETY: both buffers hold as many bytes, of one shape and type, are alive, and are two.
                unsafe { gpu.driver().copy(to.pointer(), from.pointer(), bytes)? };
            }
            _ => return Err(mixed),
        }
        Ok(())
    }

    /// `n` copies one behind the other: `[n, ...]`.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn stacked(&self, n: usize) -> Result<Self> {
        let shape = [&[n], &self.shape[..]].concat();
        let mut all = Self::empty_on(&self.device(), self.dtype(), &shape)?;
        for i in 0..n {
            let at = i * self.len()..(i + 1) * self.len();
            match (&mut all.storage, &self.storage) {
                (Storage::CpuF32(to), Storage::CpuF32(from)) => to[at].copy_from_slice(from),
                (Storage::CpuF64(to), Storage::CpuF64(from)) => to[at].copy_from_slice(from),
                (Storage::Cuda { buffer: to, .. }, Storage::Cuda { gpu, buffer: from, .. }) => {
                    let to = to.pointer().offset(i * self.bytes());
                    // SAFETY: the new buffer holds n times the bytes of the old one; both are alive.
                    unsafe { gpu.driver().copy(to, from.pointer(), self.bytes())? };
                }
                _ => unreachable!("empty_on keeps device and element type"),
            }
        }
        Ok(all)
    }

    /// The same elements under another shape of equal length.
    pub fn reshape(mut self, shape: &[usize]) -> Result<Self> {
        if shape.iter().product::<usize>() != self.len() {
            return Err(Error::shape("reshape", format!("{} elements", self.len()), shape));
        }
        self.shape = shape.to_vec();
        Ok(self)
    }

    fn mixed(&self, wanted: DType) -> Error {
        let what =
            format!("{wanted:?} beside a tensor of {:?} on {:?}", self.dtype(), self.device());
        Error::Unsupported { op: "tensor", what }
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
