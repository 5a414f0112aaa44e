//! Convolutions of few channels on a GPU, `kernels/conv2d_few.cu`: the ends of networks whose maps are pictures.
use super::Dims;
use super::blocks::pack;
use super::epilogue::{Epilogue, launch_with};
use crate::engine::cuda::{Gpu, Grid, launch_one_of};
use crate::engine::device::{DType, Real};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Threads of a block and pixels of a thread, and numbers of the weights that a block holds: as in the kernel.
const THREADS: usize = 128;
const PIXELS: usize = 4;
const WEIGHTS: usize = 576;

/// Outputs that a thread computes at once, the ones that are missing too.
const fn padded(outputs: usize) -> usize {
    if outputs <= 4 { 4 } else { 8 }
}

/// Whether the kernel takes a convolution: one whose inputs fill no packs, which others gather one by one.
pub(super) const fn fits(d: &Dims, dtype: DType) -> bool {
    let ragged = !d.ci.is_multiple_of(pack(dtype));
    ragged && d.co <= 8 && d.kernel * d.kernel * d.ci * padded(d.co) <= WEIGHTS
}

/// `y = conv(x, w)`, then the epilogue.
pub(super) fn forward(
    gpu: &Gpu,
    d: &Dims,
    x: &Tensor,
    w: &Tensor,
    epilogue: Epilogue<'_>,
    y: &mut Tensor,
) -> Result<()> {
    let outputs = padded(d.co);
    let pixels = d.batch * d.out_height() * d.out_width();
    let grid = Grid::new([pixels.div_ceil(THREADS * PIXELS), 1, 1], THREADS);
    launch_with!(epilogue, gpu, grid, match outputs {
        4 => conv2d_few_4,
        _ => conv2d_few_8,
    } {
        x,
        w,
        y,
        images: d.batch,
        height: d.height,
        width: d.width,
        inputs: d.ci,
        out_height: d.out_height(),
        out_width: d.out_width(),
        outputs: d.co,
        kernel: d.kernel,
        stride: d.stride,
        pad: d.pad,
    })
}
