//! Launches of `kernels/conv2d.cu` and its kin: which blocks compute a product. Gradients of weights: [`super::cuda_weights`].
//! Transposed convolutions and linear layers come here too.
use super::blocks::{Blocks, Product, THREADS, pack};
use super::engines::Ways;
pub(in crate::ops) use super::epilogue::Epilogue;
pub(super) use super::epilogue::Found;
use super::epilogue::launch_with;
use super::wgmma::Tiles;
use super::{Dims, engines, few};
use crate::engine::cuda::{Gpu, Grid, Pass, kernels, launch_one_of};
use crate::engine::device::{DType, Real};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::ops::group_norm::cuda::find_moments;
use crate::ops::group_norm::{GroupNorm, moments};

/// Tensor cores multiply bf16 from compute capability 8.0 on.
pub(in crate::ops) fn check_dtype(gpu: &Gpu, op: &'static str, dtype: DType) -> Result<()> {
    if dtype == DType::BF16 && gpu.compute_capability() < (8, 0) {
        let what = "bf16 on a GPU below compute capability 8.0".into();
        return Err(Error::Unsupported { op, what });
    }
    Ok(())
}

/// Kernels count the pixels of a batch in an `int`.
fn check_pixels(pixels: usize) -> Result<()> {
    match i32::try_from(pixels) {
        Ok(_) => Ok(()),
        Err(_) => {
            let cause = format!("a batch of {pixels} pixels; kernels count to 2^31 - 1");
            let report = Report::new("too much at once for a convolution", cause);
            Err(Error::Memory(report.help("smaller tiles, or a smaller batch")))
        }
    }
}

/// `y = conv(x, w)`, then the epilogue.
pub(in crate::ops) fn forward(
    gpu: &Gpu,
    d: &Dims,
    x: &Tensor,
    w: &Tensor,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    forward_measured(gpu, d, x, w, epilogue, y, None)
}

/// As [`forward`] of two maps beside each other, and what is to be found of `y`. No library reads two.
pub(super) fn forward_beside(
    gpu: &Gpu,
    d: &Dims,
    [x, x1]: [&Tensor; 2],
    w: &Tensor,
    epilogue: Epilogue,
    y: &mut Tensor,
    found: Option<&Found>,
) -> Result<()> {
    let source = [d.height, d.width, d.ci];
    let size = [d.out_height(), d.out_width(), d.co];
    gather(gpu, d, false, (x, Some(x1)), source, w, epilogue, y, size, found)
}

/// As [`forward`], and what is to be found of `y`.
pub(super) fn forward_measured(
    gpu: &Gpu,
    d: &Dims,
    x: &Tensor,
    w: &Tensor,
    epilogue: Epilogue,
    y: &mut Tensor,
    found: Option<&Found>,
) -> Result<()> {
    let source = [d.height, d.width, d.ci];
    let size = [d.out_height(), d.out_width(), d.co];
    let native = |y: &mut Tensor| match few::fits(d, x.dtype()) {
        true => {
            check_pixels(d.batch * d.height * d.width)?;
            few::forward(gpu, d, x, w, epilogue, y)
        }
        false => gather(gpu, d, false, (x, None), source, w, epilogue, y, size, found),
    };
    let finish = |y: &mut Tensor| {
        finish(gpu, epilogue, y, size)?;
        let find = |f: &Found| find_moments(gpu, y, f.groups, &mut f.moments.borrow_mut());
        found.map_or(Ok(()), find)
    };
    let tiles = Tiles::fit(gpu, d, x, w);
    let by_tiles =
        tiles.map(|t| move |y: &mut Tensor| t.run(gpu, d, [x, w], false, epilogue, y, found));
    let wgmma = by_tiles.as_ref().map(|work| work as engines::Work<'_>);
    let ways = Ways { native: &native, wgmma, finish: &finish };
    engines::run(gpu, &d.problem(Pass::Forward, x.dtype()), [x, w], y, ways)
}

/// `dx`, the gradient of the input of the convolution given that of its output; with an epilogue it
/// is a transposed convolution.
pub(in crate::ops) fn input_gradient(
    gpu: &Gpu,
    d: &Dims,
    w: &Tensor,
    dy: &Tensor,
    epilogue: Epilogue,
    dx: &mut Tensor,
) -> Result<()> {
    let size = [d.height, d.width, d.ci];
    let native = |dx: &mut Tensor| native_input_gradient(gpu, d, w, dy, epilogue, dx);
    let finish = |dx: &mut Tensor| finish(gpu, epilogue, dx, size);
    let problem = d.problem(Pass::InputGradient, dy.dtype());
    let by_tiles = Tiles::back(gpu, d, w, dy).map(|tiles| {
        move |dx: &mut Tensor| {
            tiles.run(gpu, &d.back(), [dy, &transposed(gpu, d, w)?], true, epilogue, dx, None)
        }
    });
    let wgmma = by_tiles.as_ref().map(|work| work as engines::Work<'_>);
    let ways = Ways { native: &native, wgmma, finish: &finish };
    engines::run(gpu, &problem, [w, dy], dx, ways)
}

fn native_input_gradient(
    gpu: &Gpu,
    d: &Dims,
    w: &Tensor,
    dy: &Tensor,
    epilogue: Epilogue,
    dx: &mut Tensor,
) -> Result<()> {
    let step = 4 * pack(w.dtype());
    if d.co.is_multiple_of(step) && d.ci.is_multiple_of(pack(w.dtype())) {
        return gather_back(gpu, d, w, dy, epilogue, dx);
    }
    let source = [d.out_height(), d.out_width(), d.co];
    let size = [d.height, d.width, d.ci];
    gather(gpu, d, true, (dy, None), source, &transposed(gpu, d, w)?, epilogue, dx, size, None)
}

/// `w` `[Co, k, k, Ci]` as `[Ci, k, k, Co]`.
fn transposed(gpu: &Gpu, d: &Dims, w: &Tensor) -> Result<Tensor> {
    let taps = d.kernel * d.kernel;
    let mut transposed = Tensor::empty_as(w, &[d.ci, d.kernel, d.kernel, d.co])?;
    let grid = Grid::new([d.ci.div_ceil(32), d.co.div_ceil(32), taps], 256);
    let (to, outputs, inputs) = (&mut transposed, d.co, d.ci);
    kernels::conv2d_transpose_weights { w, transposed: to, outputs, taps, inputs }
        .launch(gpu, grid)?;
    Ok(transposed)
}

/// As [`gather`] with the weights where they lie, for outputs of the convolution that fill steps along the depth.
fn gather_back(
    gpu: &Gpu,
    d: &Dims,
    w: &Tensor,
    dy: &Tensor,
    epilogue: Epilogue,
    dx: &mut Tensor,
) -> Result<()> {
    check_dtype(gpu, "conv2d", dy.dtype())?;
    let (height, width) = (d.out_height(), d.out_width());
    check_pixels(d.batch * height * width)?;
    let rows = d.batch * d.height.div_ceil(d.stride) * d.width.div_ceil(d.stride);
    let product = Product { dtype: dy.dtype(), inputs: d.co, rows, outputs: d.ci };
    let blocks = product.blocks(gpu);
    let grid = Grid::new([blocks.cover(rows, d.ci), d.stride * d.stride, 1], THREADS);
    launch_with!(epilogue, gpu, grid, match blocks {
        Blocks::Large => conv2d_back_128x128,
        Blocks::Tall => conv2d_back_128x64,
        Blocks::Small => conv2d_back_64x64,
        _ => conv2d_back_128x32,
    } {
        x: dy,
        w,
        y: dx,
        images: d.batch,
        height,
        width,
        inputs: d.co,
        out_height: d.height,
        out_width: d.width,
        outputs: d.ci,
        kernel: d.kernel,
        stride: d.stride,
        pad: d.pad,
    })
}

/// The epilogue of what a library wrote to `y`, whose images have this height, width and channels.
fn finish(gpu: &Gpu, epilogue: Epilogue, y: &mut Tensor, size: [usize; 3]) -> Result<()> {
    if epilogue.is_none() {
        return Ok(());
    }
    let [height, width, channels] = size;
    let together = if channels.is_multiple_of(pack(y.dtype())) { pack(y.dtype()) } else { 1 };
    let grid = Grid::elements(y.len() / together);
    let (pixels, image_pixels) = (y.len() / channels, height * width);
    launch_with!(epilogue, gpu, grid, match () { () => conv2d_epilogue } {
        y,
        pixels,
        image_pixels,
        channels,
    })
}

/// Every output gathers from the pixels of `x`, and of `x1` beside it, that its taps meet.
fn gather(
    gpu: &Gpu,
    d: &Dims,
    transposed: bool,
    (x, x1): (&Tensor, Option<&Tensor>),
    [height, width, inputs]: [usize; 3],
    w: &Tensor,
    epilogue: Epilogue,
    y: &mut Tensor,
    [out_height, out_width, outputs]: [usize; 3],
    found: Option<&Found>,
) -> Result<()> {
    check_dtype(gpu, "conv2d", x.dtype())?;
    check_pixels(d.batch * height * width)?;
    let mut moments = found.map(|found| found.moments.borrow_mut());
    let stride = if transposed { d.stride } else { 1 };
    let rows = d.batch * out_height.div_ceil(stride) * out_width.div_ceil(stride);
    let product = Product { dtype: x.dtype(), inputs, rows, outputs };
    let taps = d.kernel.div_ceil(stride).pow(2);
    let of_entry = found.map_or(0, |found| found.pixels);
    let blocks = product.sliced_blocks(gpu, taps, stride * stride, of_entry);
    let blocks = product.lengthened(gpu, blocks);
    let grid = blocks.grid([blocks.cover(rows, outputs), stride * stride]);
    launch_with!(epilogue, gpu, grid, match blocks {
        Blocks::Sliced128x128 => conv2d_sliced_128x128,
        Blocks::Sliced128x64 => conv2d_sliced_128x64,
        Blocks::Sliced64x64 => conv2d_sliced_64x64,
        Blocks::Sliced64x32 => conv2d_sliced_64x32,
        Blocks::Large => conv2d_128x128,
        Blocks::Long => conv2d_256x64,
        Blocks::Tall => conv2d_128x64,
        Blocks::Narrow => conv2d_128x32,
        Blocks::Small => conv2d_64x64,
        Blocks::Ragged => conv2d_ragged,
    } {
        x,
        x1,
        w,
        y,
        images: d.batch,
        height,
        width,
        inputs,
        out_height,
        out_width,
        outputs,
        kernel: d.kernel,
        stride: d.stride,
        pad: d.pad,
        transposed: transposed.into(),
        moments: moments.as_deref_mut(),
        run: found.map_or(0, |found| found.run),
        found: found.map_or(0, |found| found.pixels),
        c0: x1.map_or(inputs, |_| x.shape()[3]),
    })
}

/// How a map is normalised on its way into a convolution.
pub(super) struct Normed<'a> {
    pub(super) norm: GroupNorm,
    pub(super) moments: &'a Tensor,
    pub(super) gamma: &'a Tensor,
    pub(super) beta: &'a Tensor,
}

/// As [`forward_measured`] of `x`, and of `x1` beside it, normalised, for kernels of one tap and stride 1 and a map that has moments.
pub(super) fn forward_normed(
    gpu: &Gpu,
    d: &Dims,
    (x, x1): (&Tensor, Option<&Tensor>),
    Normed { norm, moments: partial, gamma, beta }: Normed<'_>,
    w: &Tensor,
    epilogue: Epilogue,
    y: &mut Tensor,
    found: Option<&Found>,
) -> Result<()> {
    check_dtype(gpu, "conv2d", x.dtype())?;
    let (pixels, groups) = (d.height * d.width, norm.groups);
    check_pixels(d.batch * pixels)?;
    let product = Product { dtype: x.dtype(), inputs: d.ci, rows: d.batch * pixels, outputs: d.co };
    let memory = |blocks: Blocks| blocks.memory() + 4 * 3 * (d.ci + groups);
    let blocks = match product.blocks(gpu) {
        Blocks::Large if memory(Blocks::Large) <= gpu.shared_memory() => Blocks::Large,
        Blocks::Large | Blocks::Tall => Blocks::Tall,
        _ => Blocks::Narrow,
    };
    let grid = Grid::new([blocks.cover(d.batch * pixels, d.co), 1, 1], THREADS);
    let grid = grid.shared(memory(blocks));
    let mut moments = found.map(|found| found.moments.borrow_mut());
    launch_with!(epilogue, gpu, grid, match blocks {
        Blocks::Large => conv2d_normed_128x128,
        Blocks::Tall => conv2d_normed_128x64,
        _ => conv2d_normed_128x32,
    } {
        x,
        x1,
        partial,
        gamma,
        beta,
        w,
        y,
        images: d.batch,
        pixels,
        inputs: d.ci,
        outputs: d.co,
        groups,
        of_run: moments::run(d.ci, groups),
        seen: moments::pixels(partial, pixels),
        silu: norm.silu.into(),
        eps: f32::from_f64(norm.eps),
        moments: moments.as_deref_mut(),
        run: found.map_or(0, |found| found.run),
        found: found.map_or(0, |found| found.pixels),
        c0: x.shape()[3],
    })
}

/// Maps that one kernel reads side by side.
const MAPS: usize = 5;

/// Whether [`forward_maps`] takes maps `[.., channels[k]]`.
pub(super) fn reads_maps(dtype: DType, channels: &[usize]) -> bool {
    channels.len() <= MAPS && channels.iter().all(|c| c.is_multiple_of(pack(dtype)))
}

/// As [`forward`], of maps side by side, each pixel of which is seen as 2 x 2 where `doubled`. The sizes `d` are
/// those of what is seen.
pub(super) fn forward_maps(
    gpu: &Gpu,
    d: &Dims,
    maps: &[&Tensor],
    doubled: bool,
    w: &Tensor,
    epilogue: Epilogue,
    y: &mut Tensor,
) -> Result<()> {
    check_dtype(gpu, "conv2d", w.dtype())?;
    check_pixels(d.batch * d.height * d.width)?;
    let (out_height, out_width) = (d.out_height(), d.out_width());
    let rows = d.batch * out_height * out_width;
    let product = Product { dtype: w.dtype(), inputs: d.ci, rows, outputs: d.co };
    let blocks = match product.sliced_blocks(gpu, d.kernel * d.kernel, 1, 0) {
        Blocks::Large => Blocks::Tall,
        blocks => blocks,
    };
    let grid = blocks.grid([blocks.cover(rows, d.co), 1]);
    let at = |k: usize| maps.get(k).copied();
    let channels = |k: usize| at(k).map_or(0, |map| map.shape()[3]);
    let times = if doubled { 2 } else { 1 };
    launch_with!(epilogue, gpu, grid, match blocks {
        Blocks::Sliced128x128 => conv2d_joined_sliced_128x128,
        Blocks::Sliced128x64 => conv2d_joined_sliced_128x64,
        Blocks::Sliced64x64 => conv2d_joined_sliced_64x64,
        Blocks::Sliced64x32 => conv2d_joined_sliced_64x32,
        Blocks::Tall => conv2d_joined_128x64,
        Blocks::Small => conv2d_joined_64x64,
        _ => conv2d_joined_128x32,
    } {
        x: maps[0],
        x1: at(1),
        x2: at(2),
        x3: at(3),
        x4: at(4),
        w,
        y,
        c0: channels(0),
        c1: channels(1),
        c2: channels(2),
        c3: channels(3),
        c4: channels(4),
        doubled: doubled.into(),
        images: d.batch,
        height: d.height / times,
        width: d.width / times,
        out_height,
        out_width,
        outputs: d.co,
        kernel: d.kernel,
        stride: d.stride,
        pad: d.pad,
    })
}

/// `dz` = `dy` where `y` is positive, else 0.
pub(super) fn relu_mask(gpu: &Gpu, y: &Tensor, dy: &Tensor, dz: &mut Tensor) -> Result<()> {
    let grid = Grid::elements(y.len().div_ceil(pack(y.dtype())));
    kernels::conv2d_relu_mask { y, dy, dz, n: y.len() }.launch(gpu, grid)
}
