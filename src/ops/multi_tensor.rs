//! Tables for kernels that walk over many tensors in one launch.
//!
//! Tensors are divided into chunks, one for each block of threads. Where chunks begin never changes and
//! is uploaded once. Gradients are made anew in each step, so their addresses are written by
//! [`set_gradients`](MultiTensor::set_gradients), between steps or after a graph was recorded, because
//! nothing may be uploaded while one is. A kernel reads the addresses when it runs.
use crate::engine::cuda::{Gpu, Grid};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// Elements and threads of a block, as in kernels/adam.cu and kernels/clip_by_norm.cu.
const CHUNK: usize = 4096;
const THREADS: usize = 256;

/// Where all tensors, their chunks and their gradients are.
#[derive(Debug)]
pub struct MultiTensor {
    gpu: Gpu,
    /// Of the gradients.
    dtype: DType,
    lengths: Vec<usize>,
    addresses: Vec<u64>,
    chunks: usize,
    /// `[chunks, 2]`, integers: tensor and first element.
    chunk_table: Tensor,
    /// `[tensors]`, integers.
    length_table: Tensor,
    /// `[tensors]`, addresses of gradients, 0 where there is none.
    gradient_table: Tensor,
}

impl MultiTensor {
    /// Tables for tensors of `lengths` elements with gradients of `dtype`.
    ///
    /// # Errors
    /// If the memory of the GPU is full or a tensor has 2^31 elements.
    pub fn new(gpu: &Gpu, lengths: &[usize], dtype: DType) -> Result<Self> {
        let starts = |(tensor, &len): (usize, &usize)| {
            (0..len).step_by(CHUNK).flat_map(move |first| [tensor, first])
        };
        let chunks: Vec<usize> = lengths.iter().enumerate().flat_map(starts).collect();
        let addresses = vec![0; lengths.len()];
        Ok(Self {
            gpu: gpu.clone(),
            dtype,
            chunks: chunks.len() / 2,
            chunk_table: integers(gpu, &chunks)?,
            length_table: integers(gpu, lengths)?,
            gradient_table: addresses_on(gpu, &addresses)?,
            lengths: lengths.to_vec(),
            addresses,
        })
    }

    /// Tells kernels where the gradients are from now on. They must stay there until the kernels are
    /// launched, and as long as a graph is replayed in which they were.
    ///
    /// # Errors
    /// If a gradient has another length or element type than agreed, or the copy to the GPU fails.
    pub fn set_gradients(&mut self, gradients: &[Option<&Tensor>]) -> Result<()> {
        assert_eq!(gradients.len(), self.lengths.len(), "one gradient a tensor");
        let of = |(gradient, &len): (&Option<&Tensor>, &usize)| match gradient {
            None => Ok(0),
            Some(g) if g.len() == len && g.dtype() == self.dtype => address(g),
            Some(g) => {
                let wanted = format!("a gradient of {len} elements of {:?}", self.dtype);
                Err(Error::shape("multi_tensor", wanted, g.shape()))
            }
        };
        let new = gradients.iter().zip(&self.lengths).map(of).collect::<Result<Vec<_>>>()?;
        if new != self.addresses {
            self.gradient_table.write(bytemuck::cast_slice(&new))?;
            self.addresses = new;
        }
        Ok(())
    }

    /// The GPU.
    pub(super) const fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// The element type of the gradients.
    pub(super) const fn dtype(&self) -> DType {
        self.dtype
    }

    /// One block a chunk.
    pub(super) const fn grid(&self) -> Grid {
        Grid::new([self.chunks, 1, 1], THREADS)
    }

    /// Blocks of the [grid](Self::grid).
    pub(super) const fn chunks(&self) -> usize {
        self.chunks
    }

    /// The tensor and the first element of each block, for kernels.
    pub(super) const fn blocks(&self) -> &Tensor {
        &self.chunk_table
    }

    /// The elements of each tensor, for kernels.
    pub(super) const fn lengths(&self) -> &Tensor {
        &self.length_table
    }

    /// Tensors.
    pub(super) const fn count(&self) -> usize {
        self.lengths.len()
    }

    /// The addresses of the gradients, for kernels.
    pub(super) const fn gradients(&self) -> &Tensor {
        &self.gradient_table
    }
}

/// Where the elements of `tensor` are on its GPU.
pub(super) fn address(tensor: &Tensor) -> Result<u64> {
    let missing = || {
        let what = format!("a tensor on {:?} among those of a GPU", tensor.device());
        Error::Unsupported { op: "multi_tensor", what }
    };
    tensor.device_pointer().map(|at| at.address()).ok_or_else(missing)
}

/// `values` as a table of addresses.
pub(super) fn addresses_on(gpu: &Gpu, values: &[u64]) -> Result<Tensor> {
    // A table is bits to the engine; kernels know better.
    let bits: &[f32] = bytemuck::cast_slice(values);
    Tensor::from_slice_on(&Device::from(gpu), bits, &[bits.len()])
}

fn integers(gpu: &Gpu, values: &[usize]) -> Result<Tensor> {
    let narrow = |&v: &usize| {
        let what = || format!("a tensor of {v} elements");
        i32::try_from(v).map_err(|_| Error::Unsupported { op: "multi_tensor", what: what() })
    };
    let values = values.iter().map(narrow).collect::<Result<Vec<_>>>()?;
    Tensor::from_slice_on(&Device::from(gpu), bytemuck::cast_slice(&values), &[values.len()])
}
