//! The convolution of compute capability 9.0, `kernels/conv2d_hopper.cu`: what it takes, and its launch. Loads by the TMA and
//! products of warpgroups (wgmma); the rest is as `cuda.rs` has it. Not run on a GPU yet.
use super::Dims;
use super::blocks::pack;
use super::epilogue::{Epilogue, Found, launch_with};
use crate::engine::cuda::{Boxes, Gpu, Grid, Mapped, launch_one_of};
use crate::engine::device::{DType, Real};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Rows of a tile: outputs.
const ROWS: usize = 128;
/// Eight warps that multiply, one that loads.
const THREADS: usize = 9 * 32;
/// Of shared memory, to begin at a multiple of.
const ALIGNMENT: usize = 1024;

/// Columns of a tile: channels of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Columns {
    Wide,
    Narrow,
}

impl Columns {
    const fn count(self) -> usize {
        match self {
            Self::Wide => 128,
            Self::Narrow => 64,
        }
    }

    /// Bytes of `HopperMemory`.
    const fn shared(self) -> usize {
        match self {
            Self::Wide => 218_112,
            Self::Narrow => 193_536,
        }
    }
}

/// How a convolution is cut into tiles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    x: Boxes,
    w: Boxes,
    columns: Columns,
    tiles: usize,
}

impl Tiles {
    /// Those of the convolution that gives the gradient of the input of convolution `d` from that of its output, `dy`, and
    /// weights that are transposed.
    pub(super) fn back(gpu: &Gpu, d: &Dims, w: &Tensor, dy: &Tensor) -> Option<Self> {
        // The transposed weights begin where memory does, as all tensors that are made.
        (d.stride == 1 && d.pad < d.kernel).then(|| Self::fit(gpu, &d.back(), dy, w)).flatten()
    }

    /// Those of a convolution of `x` on this GPU, if it is one that the kernel computes.
    pub(super) fn fit(gpu: &Gpu, d: &Dims, x: &Tensor, w: &Tensor) -> Option<Self> {
        let half = x.dtype() == DType::F16 || x.dtype() == DType::BF16;
        if !half || !gpu.driver().has_tensor_maps() {
            return None;
        }
        // The TMA reads from multiples of 16 bytes, and the epilogue writes packs.
        let aligned = |t: &Tensor| t.device_pointer().is_some_and(|at| at.address() % 16 == 0);
        let rows = d.batch * d.out_height() * d.out_width();
        let counts = i32::try_from(rows + ROWS).is_ok();
        if !aligned(x) || !aligned(w) || !counts || !d.co.is_multiple_of(pack(x.dtype())) {
            return None;
        }
        let cover = |columns: Columns| rows.div_ceil(ROWS) * d.co.div_ceil(columns.count());
        // As `Product::blocks`: large tiles move less, but must fill the GPU.
        let unwasted = d.co.next_multiple_of(128) == d.co.next_multiple_of(64);
        let wide = unwasted && cover(Columns::Wide) >= gpu.multiprocessors();
        let columns = if wide { Columns::Wide } else { Columns::Narrow };
        let map = [d.batch, d.height, d.width, d.ci];
        Some(Self {
            x: Boxes::windows(map, [d.kernel, d.stride, d.pad], ROWS)?,
            w: Boxes::weights([d.co, d.kernel * d.kernel, d.ci], columns.count())?,
            columns,
            tiles: cover(columns),
        })
    }

    /// `y = conv(x, w)`, with the weights `turned` by half a turn or as they are, then the epilogue, and what is to be found
    /// of `y`.
    pub(super) fn run(
        &self,
        gpu: &Gpu,
        d: &Dims,
        [x, w]: [&Tensor; 2],
        turned: bool,
        epilogue: Epilogue<'_>,
        y: &mut Tensor,
        found: Option<&Found>,
    ) -> Result<()> {
        let blocks = self.tiles.min(gpu.multiprocessors());
        let grid = Grid::new([blocks, 1, 1], THREADS).shared(ALIGNMENT + self.columns.shared());
        let mut moments = found.map(|found| found.moments.borrow_mut());
        let columns = self.columns;
        launch_with!(epilogue, gpu, grid, match columns {
            Columns::Wide => conv2d_wgmma_128x128,
            Columns::Narrow => conv2d_wgmma_128x64,
        } {
            x: Mapped { tensor: x, boxes: self.x },
            w: Mapped { tensor: w, boxes: self.w },
            y,
            images: d.batch,
            inputs: d.ci,
            out_height: d.out_height(),
            out_width: d.out_width(),
            outputs: d.co,
            kernel: d.kernel,
            stride: d.stride,
            pad: d.pad,
            turned: turned.into(),
            moments: moments.as_deref_mut(),
            run: found.map_or(0, |found| found.run),
            found: found.map_or(0, |found| found.pixels),
        })
    }
}
