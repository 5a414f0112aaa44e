//! Which blocks of a GPU compute a product: the kernels of `kernels/conv2d.cu` and its kin.
use crate::engine::cuda::{Gpu, Grid};
use crate::engine::device::DType;

/// Threads of a block that computes products.
pub(super) const THREADS: usize = 128;

/// Groups of threads of a block that share the depth, threads of a group, and bytes of shared memory of all: as in
/// kernels/conv2d.cuh.
const SLICES: usize = 4;
const SLICE_THREADS: usize = 64;
const SLICES_BYTES: usize = SLICES * 3 * (64 + 32) * 64;

/// The least depth and outputs for which it is shared, and the most blocks of 128 x 32 that would cover the product
/// otherwise: multiprocessors of a large GPU.
const DEEP: usize = 1024;
const WIDE: usize = 128;
const FEW: usize = 128;

/// How a kernel computes products: in blocks of this many rows and columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocks {
    /// 128 x 128
    Large,
    /// 128 x 64
    Tall,
    /// 128 x 32
    Narrow,
    /// 64 x 32, by groups of threads that share the depth.
    Sliced,
    /// 64 x 64
    Small,
    /// 64 x 64, for channels that do not fill packs.
    Ragged,
}

impl Blocks {
    pub(super) const fn rows(self) -> usize {
        match self {
            Self::Large | Self::Tall | Self::Narrow => 128,
            Self::Sliced | Self::Small | Self::Ragged => 64,
        }
    }

    const fn columns(self) -> usize {
        match self {
            Self::Large => 128,
            Self::Narrow | Self::Sliced => 32,
            Self::Tall | Self::Small | Self::Ragged => 64,
        }
    }

    /// Blocks that cover a product.
    pub(super) const fn cover(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows()) * columns.div_ceil(self.columns())
    }

    /// So many of these blocks in x and y.
    pub(super) const fn grid(self, [x, y]: [usize; 2]) -> Grid {
        match self {
            Self::Sliced => Grid::new([x, y, 1], SLICE_THREADS).slices(SLICES).shared(SLICES_BYTES),
            _ => Grid::new([x, y, 1], THREADS),
        }
    }
}

/// Elements in 16 bytes.
pub(super) const fn pack(dtype: DType) -> usize {
    16 / dtype.size()
}

/// A product of `rows` pixels and `outputs` channels that gathers from a map of `inputs` channels.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) dtype: DType,
    pub(super) inputs: usize,
    pub(super) rows: usize,
    pub(super) outputs: usize,
}

impl Product {
    /// Its blocks: large ones move less, but must fill the GPU.
    pub(super) fn blocks(self, gpu: &Gpu) -> Blocks {
        let Self { dtype, inputs, rows, outputs } = self;
        let enough =
            |columns| rows.div_ceil(128) * outputs.div_ceil(columns) >= gpu.multiprocessors();
        let unwasted = outputs.next_multiple_of(128) == outputs.next_multiple_of(64);
        if !inputs.is_multiple_of(pack(dtype)) {
            Blocks::Ragged
        } else if dtype == DType::F32 {
            Blocks::Small
        } else if unwasted && enough(128) {
            Blocks::Large
        } else if outputs > 32 && enough(64) {
            Blocks::Tall
        } else {
            Blocks::Narrow
        }
    }

    /// The same, or those that share the depth where other blocks would be too few for a large GPU. Whether they do is
    /// decided by sizes, as wherever a sum is split; where few pixels are looked at at a time, then, last bits differ from
    /// those where there are many, which networks of many channels take that look at whole pictures anyway.
    pub(super) fn sliced_blocks(self, gpu: &Gpu, taps: usize, phases: usize) -> Blocks {
        let packed = self.dtype.size() == 2 && self.inputs.is_multiple_of(pack(self.dtype));
        let few = phases * Blocks::Narrow.cover(self.rows, self.outputs) <= FEW;
        let deep = self.outputs >= WIDE && taps * self.inputs >= DEEP;
        match packed && few && deep && gpu.shared_memory() >= SLICES_BYTES {
            true => Blocks::Sliced,
            false => self.blocks(gpu),
        }
    }
}
