//! On a GPU: how kernels/group_norm.cu is launched.
use super::GroupNorm;
use crate::engine::cuda::{Arg, Gpu, Grid};
use crate::engine::device::{DType, Device};
use crate::engine::tape::Call;
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that fill any GPU, whatever its size: results must not depend on it.
const BLOCKS: usize = 512;
/// Shared memory that every GPU has for a block.
const SHARED: usize = 64 << 10;

/// How a map is divided among blocks.
struct Plan {
    dims: [usize; 4],
    groups: usize,
    size: usize,
    /// Channels of a thread: 16 bytes, or one.
    pack: usize,
}

impl Plan {
    fn new(op: &GroupNorm, dims: [usize; 4], dtype: DType) -> Self {
        let packed = 16 / dtype.size();
        let pack = if dims[3].is_multiple_of(packed) { packed } else { 1 };
        Self { dims, groups: op.groups, size: dtype.size(), pack }
    }

    fn pixels(&self) -> usize {
        self.dims[1] * self.dims[2]
    }

    fn entry(&self, name: &str) -> String {
        let suffix = if self.pack == 1 { "_ragged" } else { "" };
        format!("group_norm_{name}{suffix}")
    }

    /// Threads side by side, each for one pack of channels.
    fn columns(&self) -> usize {
        (self.dims[3] / self.pack).min(THREADS)
    }

    /// Pixels of a block: at least four rows of threads.
    fn chunk(&self) -> usize {
        let [n, _, _, c] = self.dims;
        let others = n * (c / self.pack).div_ceil(self.columns());
        let chunks = BLOCKS.div_ceil(others);
        self.pixels().div_ceil(chunks).max(4 * (THREADS / self.columns()))
    }

    fn chunks(&self) -> usize {
        self.pixels().div_ceil(self.chunk())
    }

    fn grid(&self) -> Grid {
        let slabs = (self.dims[3] / self.pack).div_ceil(self.columns());
        Grid::new([slabs, self.chunks(), self.dims[0]], THREADS)
    }

    /// Bytes in which a block adds up two numbers for each channel of each thread.
    fn scratch(&self) -> usize {
        4 * 2 * self.pack * THREADS
    }

    /// One block for each group of an image, which joins what the blocks of [`grid`](Self::grid) found.
    fn joining(&self) -> Grid {
        let per_group = self.dims[3] / self.groups;
        Grid::new([self.groups, self.dims[0], 1], THREADS).shared(8 * per_group)
    }

    /// The channels of a block that holds `maps` maps of them in shared memory, if they fit. They are
    /// whole groups and packs, and where possible fill the 32 bytes that memory reads at once.
    fn slab(&self, maps: usize) -> Option<(usize, Grid)> {
        let [n, _, _, c] = self.dims;
        let whole = |width: &usize| {
            c.is_multiple_of(*width)
                && width.is_multiple_of(c / self.groups)
                && width.is_multiple_of(self.pack)
        };
        let wide = |width: &usize| width * self.size >= 32 || *width == c;
        let width = (1..=c).filter(whole).find(wide)?;
        let of_channels = (2 * width + 3 * (width / (c / self.groups))).div_ceil(4) * 16;
        let bytes = self.scratch() + of_channels + maps * self.pixels() * width * self.size;
        let fits = width / self.pack <= THREADS && bytes <= SHARED;
        fits.then(|| (width, Grid::new([c / width, n, 1], THREADS).shared(bytes)))
    }

    fn f32(&self, gpu: &Gpu, shape: &[usize]) -> Result<Tensor> {
        Tensor::empty_on(&Device::from(gpu), DType::F32, shape)
    }
}

/// gamma, beta, and scale and shift or null.
fn parameters(inputs: &[&Tensor]) -> [Arg; 4] {
    [1, 2, 3, 4].map(|i| Arg::optional(inputs.get(i).copied()))
}

/// Writes `y` and returns the statistics.
pub(super) fn forward(
    gpu: &Gpu,
    op: &GroupNorm,
    dims: [usize; 4],
    inputs: &[&Tensor],
    y: &mut Tensor,
) -> Result<Tensor> {
    let (x, dtype) = (inputs[0], y.dtype());
    let plan = Plan::new(op, dims, dtype);
    let [gamma, beta, scale, shift] = parameters(inputs);
    let [pixels, c, groups] = [plan.pixels(), dims[3], op.groups].map(Arg::from);
    let (eps, silu) = (Arg::from(op.eps), Arg::from(op.silu));
    let stats = plan.f32(gpu, &[dims[0], op.groups, 3])?;
    if let Some((width, grid)) = plan.slab(1) {
        let [y, stats_out, width] = [y.into(), (&stats).into(), width.into()];
        let args = [
            x.into(),
            gamma,
            beta,
            scale,
            shift,
            y,
            stats_out,
            pixels,
            c,
            groups,
            width,
            eps,
            silu,
        ];
        gpu.launch(&plan.entry("slab"), dtype, grid, &args)?;
        return Ok(stats);
    }
    let [columns, chunk] = [plan.columns(), plan.chunk()].map(Arg::from);
    let partial = plan.f32(gpu, &[dims[0], plan.chunks(), 2, dims[3]])?;
    let args = [x.into(), (&partial).into(), pixels, c, columns, chunk];
    gpu.launch(&plan.entry("moments"), dtype, plan.grid().shared(plan.scratch()), &args)?;
    let args = [x.into(), (&partial).into(), (&stats).into(), pixels, c, groups, chunk, eps];
    gpu.launch("group_norm_statistics", dtype, plan.joining(), &args)?;
    let from = [x.into(), (&stats).into(), gamma, beta, scale, shift, y.into()];
    let args = [&from[..], &[pixels, c, groups, columns, chunk, silu]].concat();
    gpu.launch(&plan.entry("apply"), dtype, plan.grid(), &args)?;
    Ok(stats)
}

/// The gradients of all inputs.
pub(super) fn gradients(
    gpu: &Gpu,
    op: &GroupNorm,
    dims @ [n, _, _, channels]: [usize; 4],
    call: &Call,
    dy: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let (x, dtype) = (call.inputs[0], dy.dtype());
    let plan = Plan::new(op, dims, dtype);
    let dx = call.wants[0].then(|| Tensor::empty_as(x, x.shape())).transpose()?;
    let sums = plan.f32(gpu, &[n, 2, channels])?;
    match plan.slab(2) {
        Some((width, grid)) => {
            let [gamma, beta, scale, shift] = parameters(call.inputs);
            let stats = Arg::from(&call.saved[0]);
            let from = [x.into(), dy.into(), stats, gamma, beta, scale, shift];
            let to = [(&sums).into(), Arg::optional(dx.as_ref())];
            let sizes = [plan.pixels(), channels, op.groups, width].map(Arg::from);
            let args = [&from[..], &to, &sizes, &[op.silu.into()]].concat();
            gpu.launch(&plan.entry("gradient_slab"), dtype, grid, &args)?;
        }
        None => large_gradient(gpu, op, &plan, call, dy, &sums, dx.as_ref())?,
    }
    let empty = |of: &&Tensor| Tensor::empty_as(of, of.shape());
    let gradients = call.inputs[1..].iter().map(empty).collect::<Result<Vec<_>>>()?;
    let [gamma, beta, scale, _] = parameters(call.inputs);
    let to = [0, 1, 2, 3].map(|i| Arg::optional(gradients.get(i)));
    let args = [&[(&sums).into(), gamma, beta, scale], &to[..], &[n.into(), channels.into()]];
    gpu.launch("group_norm_parameters", dtype, Grid::elements(channels), &args.concat())?;
    Ok(std::iter::once(dx).chain(gradients.into_iter().map(Some)).collect())
}

/// Writes `sums` and `dx` for maps that do not fit shared memory.
fn large_gradient(
    gpu: &Gpu,
    op: &GroupNorm,
    plan: &Plan,
    call: &Call,
    dy: &Tensor,
    sums: &Tensor,
    dx: Option<&Tensor>,
) -> Result<()> {
    let ([n, _, _, channels], dtype) = (plan.dims, dy.dtype());
    let [x, dy, stats] = [call.inputs[0], dy, &call.saved[0]].map(Arg::from);
    let [gamma, beta, scale, shift] = parameters(call.inputs);
    let [pixels, c, groups] = [plan.pixels(), channels, op.groups].map(Arg::from);
    let [columns, chunk, silu] = [plan.columns().into(), plan.chunk().into(), op.silu.into()];
    let partial = plan.f32(gpu, &[n, plan.chunks(), 2, channels])?;
    let from = [x, dy, stats, gamma, beta, scale, shift, (&partial).into()];
    let args = [&from[..], &[pixels, c, groups, columns, chunk, silu]].concat();
    gpu.launch(&plan.entry("sums"), dtype, plan.grid().shared(plan.scratch()), &args)?;
    let slopes = plan.f32(gpu, &[n, op.groups, 2])?;
    let from = [(&partial).into(), stats, gamma, scale, sums.into(), (&slopes).into()];
    let args = [&from[..], &[pixels, c, groups, chunk]].concat();
    gpu.launch("group_norm_slopes", dtype, plan.joining(), &args)?;
    let Some(dx) = dx else { return Ok(()) };
    let from = [x, dy, stats, (&slopes).into(), gamma, beta, scale, shift, dx.into()];
    let args = [&from[..], &[pixels, c, groups, columns, chunk, silu]].concat();
    gpu.launch(&plan.entry("gradient"), dtype, plan.grid(), &args)
}
