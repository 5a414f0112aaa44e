//! Gradients of weights on a GPU, and sums of the gradients of outputs, which the same kernel finds: how the depth of
//! these sums is split.
use std::cell::RefCell;

use super::blocks::{Blocks, THREADS, pack};
use super::cuda::check_dtype;
use super::engines::Ways;
use super::{Dims, engines};
use crate::engine::cuda::{Gpu, Grid, Pass, kernels, launch_one_of};
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::ops::add_channels;

const WARP: usize = 32;

/// Channels whose gradients a block adds up.
const SUMMED: usize = 64;

/// The blocks of a gradient of weights, `outputs` x `columns`.
fn weight_blocks(dtype: DType, d: &Dims) -> Blocks {
    if !d.ci.is_multiple_of(pack(dtype)) || !d.co.is_multiple_of(pack(dtype)) {
        Blocks::Ragged
    } else if dtype != DType::F32 && d.co > 64 && d.kernel * d.kernel * d.ci > 64 {
        Blocks::Large
    } else {
        Blocks::Small
    }
}

/// Blocks that a sum is split into where there is enough to add: a few for each multiprocessor of a
/// large GPU. Not asked of the GPU: the order of the additions depends on it.
const SPLITS: usize = 512;

/// Sums of the gradient of an output, which are found beside that of the weights.
#[derive(Default)]
pub(in crate::ops) struct OutputSums<'a> {
    /// `[Co]`: over all pixels.
    pub(in crate::ops) bias: Option<&'a mut Tensor>,
    /// `[N, Co]`: over those of an image.
    pub(in crate::ops) shift: Option<&'a mut Tensor>,
}

impl OutputSums<'_> {
    /// Finds them by themselves.
    pub(in crate::ops) fn find(&mut self, gpu: &Gpu, dz: &Tensor) -> Result<()> {
        if let Some(bias) = &mut self.bias {
            sum_rows(gpu, dz, bias)?;
        }
        match &mut self.shift {
            Some(shift) => add_channels::cuda::backward(gpu, dz.nhwc("conv2d")?, dz, shift),
            None => Ok(()),
        }
    }
}

/// `dw` given the input and the gradient `dz` of the output, and sums of that.
pub(in crate::ops) fn weight_gradient(
    gpu: &Gpu,
    d: &Dims,
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
    beside: OutputSums,
) -> Result<()> {
    let problem = d.problem(Pass::WeightGradient, x.dtype());
    let beside = RefCell::new(beside);
    let native =
        |dw: &mut Tensor| native_weight_gradient(gpu, d, x, dz, dw, &mut beside.borrow_mut());
    let finish = |_: &mut Tensor| beside.borrow_mut().find(gpu, dz);
    let ways = Ways { native: &native, wgmma: None, finish: &finish };
    engines::run(gpu, &problem, [x, dz], dw, ways)
}

fn native_weight_gradient(
    gpu: &Gpu,
    d: &Dims,
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
    OutputSums { bias, shift }: &mut OutputSums,
) -> Result<()> {
    check_dtype(gpu, "conv2d", x.dtype())?;
    let blocks = weight_blocks(x.dtype(), d);
    let (pixels, columns) = (d.batch * d.out_height() * d.out_width(), d.kernel * d.kernel * d.ci);
    let tiles = blocks.cover(d.co, columns);
    // A block should have some steps to hide the start of its pipeline behind.
    let step = 4 * pack(x.dtype());
    let depth = pixels.div_ceil((SPLITS / tiles).max(1)).max(8 * step).next_multiple_of(step);
    let splits = pixels.div_ceil(depth);
    let on_device = |shape: &[usize]| Tensor::empty_on(&x.device(), DType::F32, shape);
    let mut partial = on_device(&[splits, d.co, columns])?;
    let summed = bias.is_some() || shift.is_some();
    let ranges = (splits / d.batch).max(1);
    let mut sums = summed.then(|| on_device(&[d.batch, ranges, d.co])).transpose()?;
    let of_sums = if summed { d.co.div_ceil(SUMMED) } else { 0 };
    let grid = Grid::new([tiles + of_sums, 1, splits], THREADS);
    launch_one_of!(gpu, grid, match blocks {
        Blocks::Ragged => conv2d_weight_ragged,
        Blocks::Large => conv2d_weight_128x128,
        _ => conv2d_weight_64x64,
    } {
        dz,
        x,
        partial: &mut partial,
        sums: sums.as_mut(),
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
        depth,
        ranges,
    })?;
    let n = dw.len();
    let of_bias = if bias.is_some() { d.co } else { 0 };
    let of_shift = if shift.is_some() { d.batch * d.co } else { 0 };
    let behind = WARP * (of_bias + of_shift);
    kernels::conv2d_add_partials {
        partial: &partial,
        y: dw,
        splits,
        n,
        sums: sums.as_ref(),
        bias: bias.as_deref_mut(),
        shift: shift.as_deref_mut(),
        images: d.batch,
        ranges,
        outputs: d.co,
    }
    .launch(gpu, Grid::elements(n.next_multiple_of(WARP) + behind))
}

/// `sums[c]` = the sum of `x[.., c]`.
pub(in crate::ops) fn sum_rows(gpu: &Gpu, x: &Tensor, sums: &mut Tensor) -> Result<()> {
    let columns = sums.len();
    let rows = x.len() / columns;
    let depth = rows.div_ceil(SPLITS).max(64);
    let splits = rows.div_ceil(depth);
    let mut partial = Tensor::empty_on(&x.device(), DType::F32, &[splits, columns])?;
    let grid = Grid::new([columns.div_ceil(32), splits, 1], 256);
    kernels::conv2d_column_sums { x, partial: &mut partial, rows, columns, depth }
        .launch(gpu, grid)?;
    let (bias, shift) = (None, None);
    let (partial, y, n) = (&partial, sums, columns);
    let (sums, images, ranges, outputs) = (None, 0, 0, 0);
    kernels::conv2d_add_partials {
        partial,
        y,
        splits,
        n,
        sums,
        bias,
        shift,
        images,
        ranges,
        outputs,
    }
    .launch(gpu, Grid::elements(n))
}
