//! Which blocks of a GPU compute a product: the kernels of `kernels/conv2d.cu` and its kin.
use crate::engine::cuda::{Gpu, Grid};
use crate::engine::device::DType;

/// Threads of a block that computes products.
pub(super) const THREADS: usize = 128;

/// Bytes of shared memory that a kernel has without asking.
const STATIC: usize = 48 << 10;

/// Threads of a block whose groups share the depth.
const SLICED_THREADS: usize = 256;

/// The least depth and outputs for which it is shared, and the most blocks: as many as there are multiprocessors in a large
/// GPU.
const DEEP: usize = 512;
const WIDE: usize = 128;
const FEW: usize = 128;

/// Blocks whose groups share the depth, the smallest first.
const SLICED: [Blocks; 4] =
    [Blocks::Sliced64x32, Blocks::Sliced64x64, Blocks::Sliced128x64, Blocks::Sliced128x128];

/// How a kernel computes products: in blocks of this many rows and columns.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Blocks {
    /// 128 x 128
    Large,
    /// 256 x 64
    Long,
    /// 128 x 64
    Tall,
    /// 128 x 32
    Narrow,
    /// 64 x 64
    Small,
    /// 64 x 64, for channels that do not fill packs.
    Ragged,
    /// By two groups of threads that share the depth.
    Sliced128x128,
    /// By four.
    Sliced128x64,
    /// By eight.
    Sliced64x64,
    /// By four.
    Sliced64x32,
}

impl Blocks {
    pub(super) const fn rows(self) -> usize {
        match self {
            Self::Long => 256,
            Self::Large | Self::Tall | Self::Narrow => 128,
            Self::Sliced128x128 | Self::Sliced128x64 => 128,
            Self::Small | Self::Ragged | Self::Sliced64x64 | Self::Sliced64x32 => 64,
        }
    }

    const fn columns(self) -> usize {
        match self {
            Self::Large | Self::Sliced128x128 => 128,
            Self::Long | Self::Tall | Self::Small | Self::Ragged => 64,
            Self::Sliced128x64 | Self::Sliced64x64 => 64,
            Self::Narrow | Self::Sliced64x32 => 32,
        }
    }

    /// Groups of threads that share the depth, as kernels/conv2d.cu has them.
    const fn slices(self) -> usize {
        match self {
            Self::Sliced128x128 => 2,
            Self::Sliced128x64 | Self::Sliced64x32 => 4,
            Self::Sliced64x64 => 8,
            _ => 1,
        }
    }

    /// Bytes of shared memory: of each group three stages of rows of 64 bytes.
    pub(super) const fn memory(self) -> usize {
        self.slices() * 3 * (self.rows() + self.columns()) * 64
    }

    fn granted(self, gpu: &Gpu) -> bool {
        gpu.shared_memory() >= self.memory()
    }

    /// Blocks that cover a product.
    pub(super) const fn cover(self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows()) * columns.div_ceil(self.columns())
    }

    /// So many of these blocks in x and y.
    pub(super) const fn grid(self, [x, y]: [usize; 2]) -> Grid {
        let slices = self.slices();
        let threads = if slices > 1 { SLICED_THREADS / slices } else { THREADS };
        let asked = if slices > 1 || self.memory() > STATIC { self.memory() } else { 0 };
        Grid::new([x, y, 1], threads).slices(slices).shared(asked)
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

    /// The same, or the smallest of those that share the depth of which each multiprocessor of a large GPU has one: there
    /// others would be too few, or too small to reuse what they read. Whether they do, and how, is decided by sizes, as
    /// wherever a sum is split; where few pixels are looked at at a time, then, last bits differ from those where there are
    /// many, which networks of many channels take that look at whole pictures anyway. Of what is found of the output, if
    /// anything is, an entry is of `found` pixels, and of one block.
    pub(super) fn sliced_blocks(
        self,
        gpu: &Gpu,
        taps: usize,
        phases: usize,
        found: usize,
    ) -> Blocks {
        let packed = self.dtype.size() == 2 && self.inputs.is_multiple_of(pack(self.dtype));
        let deep = self.outputs >= WIDE && taps * self.inputs >= DEEP;
        let few = |blocks: &Blocks| {
            blocks.rows() >= found && phases * blocks.cover(self.rows, self.outputs) <= FEW
        };
        match SLICED.into_iter().find(few).filter(|_| packed && deep) {
            Some(blocks) if blocks.granted(gpu) => blocks,
            Some(Blocks::Sliced64x64) if Blocks::Sliced64x32.granted(gpu) => Blocks::Sliced64x32,
            _ => self.blocks(gpu),
        }
    }

    /// Blocks like `blocks`, twice as long where they still fill the GPU: the same sums of fewer reads.
    pub(super) fn lengthened(self, gpu: &Gpu, blocks: Blocks) -> Blocks {
        let enough = Blocks::Long.cover(self.rows, self.outputs) >= gpu.multiprocessors();
        match blocks {
            Blocks::Tall if enough && Blocks::Long.granted(gpu) => Blocks::Long,
            _ => blocks,
        }
    }
}
