//! Launches of `kernels/conv2d.cu`: which blocks compute a product, and how its depth is split.
//! Transposed convolutions and linear layers come here too.
use super::{Activation, Dims, engines};
use crate::engine::cuda::{Arg, Gpu, Grid, Pass};
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// What becomes of a sum before it is written: `y = activation(sum + bias + shift) + residual`.
#[derive(Clone, Copy, Default)]
pub(in crate::ops) struct Epilogue<'a> {
    /// `[Co]`.
    pub(in crate::ops) bias: Option<&'a Tensor>,
    /// `[N, Co]`: one number an image and channel.
    pub(in crate::ops) shift: Option<&'a Tensor>,
    /// As the output.
    pub(in crate::ops) residual: Option<&'a Tensor>,
    pub(in crate::ops) activation: Activation,
}

/// A kernel that computes products in blocks of `rows` x `columns`.
struct Blocks {
    entry: &'static str,
    rows: usize,
    columns: usize,
    threads: usize,
}

const fn blocks(entry: &'static str, rows: usize, columns: usize, threads: usize) -> Blocks {
    Blocks { entry, rows, columns, threads }
}

/// Elements in 16 bytes.
const fn pack(dtype: DType) -> usize {
    16 / dtype.size()
}

/// The blocks of a convolution with `inputs` channels: large ones move less, but must fill the GPU.
fn gather_blocks(gpu: &Gpu, dtype: DType, inputs: usize, rows: usize, outputs: usize) -> Blocks {
    let enough = |columns| rows.div_ceil(128) * outputs.div_ceil(columns) >= gpu.multiprocessors();
    let unwasted = outputs.next_multiple_of(128) == outputs.next_multiple_of(64);
    if !inputs.is_multiple_of(pack(dtype)) {
        blocks("conv2d_ragged", 64, 64, 128)
    } else if dtype == DType::F32 {
        blocks("conv2d_64x64", 64, 64, 128)
    } else if unwasted && enough(128) {
        blocks("conv2d_128x128", 128, 128, 256)
    } else if outputs > 32 && enough(64) {
        blocks("conv2d_128x64", 128, 64, 128)
    } else {
        blocks("conv2d_128x32", 128, 32, 128)
    }
}

/// The blocks of a gradient of weights, `outputs` x `columns`.
fn weight_blocks(dtype: DType, d: &Dims) -> Blocks {
    if !d.ci.is_multiple_of(pack(dtype)) || !d.co.is_multiple_of(pack(dtype)) {
        blocks("conv2d_weight_ragged", 64, 64, 128)
    } else if dtype != DType::F32 && d.co > 64 && d.kernel * d.kernel * d.ci > 64 {
        blocks("conv2d_weight_128x128", 128, 128, 256)
    } else {
        blocks("conv2d_weight_64x64", 64, 64, 128)
    }
}

/// Tensor cores multiply bf16 from compute capability 8.0 on.
pub(in crate::ops) fn check_dtype(gpu: &Gpu, op: &'static str, dtype: DType) -> Result<()> {
    if dtype == DType::BF16 && gpu.compute_capability() < (8, 0) {
        let what = "bf16 on a GPU below compute capability 8.0".into();
        return Err(Error::Unsupported { op, what });
    }
    Ok(())
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
    let source = [d.height, d.width, d.ci];
    let (size, y) = ([d.out_height(), d.out_width(), d.co], &*y);
    let native = || gather(gpu, d, false, x, source, w, epilogue, y, size);
    let finish = || finish(gpu, epilogue, y, size);
    engines::run(gpu, &d.problem(Pass::Forward, x.dtype()), [x, w, y], &native, &finish)
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
    let (size, dx) = ([d.height, d.width, d.ci], &*dx);
    let native = || native_input_gradient(gpu, d, w, dy, epilogue, dx);
    let finish = || finish(gpu, epilogue, dx, size);
    let problem = d.problem(Pass::InputGradient, dy.dtype());
    engines::run(gpu, &problem, [dx, w, dy], &native, &finish)
}

fn native_input_gradient(
    gpu: &Gpu,
    d: &Dims,
    w: &Tensor,
    dy: &Tensor,
    epilogue: Epilogue,
    dx: &Tensor,
) -> Result<()> {
    let taps = d.kernel * d.kernel;
    let mut transposed = Tensor::empty_as(w, &[d.ci, d.kernel, d.kernel, d.co])?;
    let grid = Grid::new([d.ci.div_ceil(32), d.co.div_ceil(32), taps], 256);
    let args = [w.into(), (&mut transposed).into(), d.co.into(), taps.into(), d.ci.into()];
    gpu.launch("conv2d_transpose_weights", w.dtype(), grid, &args)?;
    let source = [d.out_height(), d.out_width(), d.co];
    gather(gpu, d, true, dy, source, &transposed, epilogue, dx, [d.height, d.width, d.ci])
}

/// The epilogue of what a library wrote to `y`, whose images have this height, width and channels.
fn finish(gpu: &Gpu, epilogue: Epilogue, y: &Tensor, size: [usize; 3]) -> Result<()> {
    let pointers = [epilogue.bias, epilogue.shift, epilogue.residual];
    if pointers.iter().all(Option::is_none) && epilogue.activation == Activation::None {
        return Ok(());
    }
    let [height, width, channels] = size;
    let [bias, shift, residual] = pointers.map(Arg::optional);
    let sizes = [y.len() / channels, height * width, channels].map(Arg::from);
    let mut args = vec![y.into(), bias, shift, residual];
    args.extend(sizes.into_iter().chain([Arg::from(epilogue.activation as i32)]));
    let together = if channels.is_multiple_of(pack(y.dtype())) { pack(y.dtype()) } else { 1 };
    gpu.launch("conv2d_epilogue", y.dtype(), Grid::elements(y.len() / together), &args)
}

/// Every output gathers from the pixels of `x` that its taps meet.
fn gather(
    gpu: &Gpu,
    d: &Dims,
    transposed: bool,
    x: &Tensor,
    [height, width, inputs]: [usize; 3],
    w: &Tensor,
    epilogue: Epilogue,
    y: &Tensor,
    [out_height, out_width, outputs]: [usize; 3],
) -> Result<()> {
    check_dtype(gpu, "conv2d", x.dtype())?;
    let stride = if transposed { d.stride } else { 1 };
    let rows = d.batch * out_height.div_ceil(stride) * out_width.div_ceil(stride);
    let blocks = gather_blocks(gpu, x.dtype(), inputs, rows, outputs);
    let tiles = rows.div_ceil(blocks.rows) * outputs.div_ceil(blocks.columns);
    let pointers = [epilogue.bias, epilogue.shift, epilogue.residual].map(Arg::optional);
    let [bias, shift, residual] = pointers;
    let sizes = [d.batch, height, width, inputs, out_height, out_width, outputs];
    let window = [d.kernel, d.stride, d.pad];
    let mut args = vec![x.into(), w.into(), bias, shift, residual, y.into()];
    args.extend(sizes.into_iter().chain(window).map(Arg::from));
    args.extend([Arg::from(transposed), Arg::from(epilogue.activation as i32)]);
    let grid = Grid::new([tiles, stride * stride, 1], blocks.threads);
    gpu.launch(blocks.entry, x.dtype(), grid, &args)
}

/// Blocks that a sum is split into where there is enough to add: a few for each multiprocessor of a
/// large GPU. Not asked of the GPU: the order of the additions depends on it.
const SPLITS: usize = 512;

/// `dw` given the input and the gradient `dz` of the output.
pub(in crate::ops) fn weight_gradient(
    gpu: &Gpu,
    d: &Dims,
    x: &Tensor,
    dz: &Tensor,
    dw: &mut Tensor,
) -> Result<()> {
    let (dw, problem) = (&*dw, d.problem(Pass::WeightGradient, x.dtype()));
    let native = || native_weight_gradient(gpu, d, x, dz, dw);
    engines::run(gpu, &problem, [x, dw, dz], &native, &|| Ok(()))
}

fn native_weight_gradient(gpu: &Gpu, d: &Dims, x: &Tensor, dz: &Tensor, dw: &Tensor) -> Result<()> {
    check_dtype(gpu, "conv2d", x.dtype())?;
    let blocks = weight_blocks(x.dtype(), d);
    let (pixels, columns) = (d.batch * d.out_height() * d.out_width(), d.kernel * d.kernel * d.ci);
    let tiles = d.co.div_ceil(blocks.rows) * columns.div_ceil(blocks.columns);
    // A block should have some steps to hide the start of its pipeline behind.
    let step = 4 * pack(x.dtype());
    let depth = pixels.div_ceil((SPLITS / tiles).max(1)).max(8 * step).next_multiple_of(step);
    let splits = pixels.div_ceil(depth);
    let mut partial = Tensor::empty_on(&x.device(), DType::F32, &[splits, d.co, columns])?;
    let sizes = [d.batch, d.height, d.width, d.ci, d.out_height(), d.out_width(), d.co];
    let mut args = vec![dz.into(), x.into(), (&mut partial).into()];
    args.extend(sizes.into_iter().chain([d.kernel, d.stride, d.pad, depth]).map(Arg::from));
    let grid = Grid::new([tiles, 1, splits], blocks.threads);
    gpu.launch(blocks.entry, x.dtype(), grid, &args)?;
    add_partials(gpu, &partial, dw)
}

/// `sums[c]` = the sum of `x[.., c]`.
pub(in crate::ops) fn sum_rows(gpu: &Gpu, x: &Tensor, sums: &mut Tensor) -> Result<()> {
    let columns = sums.len();
    let rows = x.len() / columns;
    let depth = rows.div_ceil(SPLITS).max(64);
    let splits = rows.div_ceil(depth);
    let mut partial = Tensor::empty_on(&x.device(), DType::F32, &[splits, columns])?;
    let args = [x.into(), (&mut partial).into(), rows.into(), columns.into(), depth.into()];
    let grid = Grid::new([columns.div_ceil(32), splits, 1], 256);
    gpu.launch("conv2d_column_sums", x.dtype(), grid, &args)?;
    add_partials(gpu, &partial, sums)
}

/// `y` = the sum of `partial` along its first axis.
fn add_partials(gpu: &Gpu, partial: &Tensor, y: &Tensor) -> Result<()> {
    let n = y.len();
    let args = [partial.into(), y.into(), partial.shape()[0].into(), n.into()];
    gpu.launch("conv2d_add_partials", y.dtype(), Grid::elements(n), &args)
}

/// `dz` = `dy` where `y` is positive, else 0.
pub(super) fn relu_mask(gpu: &Gpu, y: &Tensor, dy: &Tensor, dz: &mut Tensor) -> Result<()> {
    let args = [y.into(), dy.into(), (&mut *dz).into(), y.len().into()];
    let grid = Grid::elements(y.len().div_ceil(pack(y.dtype())));
    gpu.launch("conv2d_relu_mask", y.dtype(), grid, &args)
}
