//! On a GPU: how kernels/group_norm.cu is launched.
use super::{GroupNorm, moments};
use crate::engine::cuda::{Gpu, Grid, kernels, launch_one_of};
use crate::engine::device::{DType, Device, Real};
use crate::engine::tape::Call;
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Threads of a block.
const THREADS: usize = 256;
const WARP: usize = 32;
/// Blocks that fill any GPU, whatever its size: results must not depend on it.
const BLOCKS: usize = 512;
/// Most blocks of an image whose statistics are joined.
const JOINED: usize = 128;
/// Bytes of what normalises a channel, and of what is known of a group.
const OF_CHANNEL: usize = 12;
const OF_GROUP: usize = 12;

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
        Self::of_maps(op, dims, dims[3], dtype)
    }

    /// Of two maps beside each other, the first of `c0` of the channels.
    fn of_maps(op: &GroupNorm, dims: [usize; 4], c0: usize, dtype: DType) -> Self {
        let packed = 16 / dtype.size();
        let fits = dims[3].is_multiple_of(packed) && c0.is_multiple_of(packed);
        let pack = if fits { packed } else { 1 };
        Self { dims, groups: op.groups, size: dtype.size(), pack }
    }

    fn pixels(&self) -> usize {
        self.dims[1] * self.dims[2]
    }

    /// Whether channels do not fill packs: then kernels of their own take them one by one.
    const fn ragged(&self) -> bool {
        self.pack == 1
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
        self.grid_of(self.chunk())
    }

    /// Blocks that have `chunk` pixels each.
    fn grid_of(&self, chunk: usize) -> Grid {
        let slabs = (self.dims[3] / self.pack).div_ceil(self.columns());
        Grid::new([slabs, self.pixels().div_ceil(chunk), self.dims[0]], THREADS)
    }

    /// Pixels of a block that looks for statistics: few enough blocks that each that uses them may join them all.
    fn found(&self) -> usize {
        self.chunk().max(self.pixels().div_ceil(JOINED))
    }

    /// Channels whose statistics a block keeps together: those of a group, or what divides them where a block's do.
    fn run(&self) -> usize {
        let (per_group, of_block) = (self.dims[3] / self.groups, self.columns() * self.pack);
        if of_block >= self.dims[3] {
            per_group
        } else {
            moments::common_divisor(per_group, of_block)
        }
    }

    /// Bytes of the constants of a block's channels.
    fn constants(&self) -> usize {
        OF_CHANNEL * self.columns() * self.pack
    }

    /// The same, and those of statistics, or slopes, of its groups.
    fn joined(&self) -> usize {
        let (per_group, of_block) = (self.dims[3] / self.groups, self.columns() * self.pack);
        self.constants() + OF_GROUP * (of_block.div_ceil(per_group) + 1)
    }

    /// Bytes in which a block adds up two numbers for each channel of each thread.
    fn scratch(&self) -> usize {
        4 * 2 * self.pack * THREADS
    }

    /// The channels of a block that holds `maps` maps of them in shared memory, if they fit. They are
    /// whole groups and packs, and where possible fill the 32 bytes that memory reads at once.
    fn slab(&self, gpu: &Gpu, maps: usize) -> Option<(usize, Grid)> {
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
        let fits = OF_CHANNEL * width <= self.scratch() && bytes <= gpu.shared_memory();
        fits.then(|| (width, Grid::new([c / width, n, 1], THREADS).shared(bytes)))
    }

    fn f32(&self, gpu: &Gpu, shape: &[usize]) -> Result<Tensor> {
        Tensor::empty_on(&Device::from(gpu), DType::F32, shape)
    }
}

/// What follows the normalisation, by its names in kernels.
#[derive(Clone, Copy)]
struct Affine<'a> {
    gamma: &'a Tensor,
    beta: &'a Tensor,
    scale: Option<&'a Tensor>,
    shift: Option<&'a Tensor>,
}

impl<'a> Affine<'a> {
    /// Of the op's inputs, which are x, gamma, beta, and scale and shift if there are any.
    fn of(inputs: &[&'a Tensor]) -> Self {
        let [gamma, beta] = [inputs[1], inputs[2]];
        Self { gamma, beta, scale: inputs.get(3).copied(), shift: inputs.get(4).copied() }
    }
}

/// A map, and perhaps one whose channels follow.
pub(in crate::ops) type Maps<'a> = (&'a Tensor, Option<&'a Tensor>);

/// Looks at `chunk` pixels at a time of the maps, of groups that hold whole runs of `run` channels; where `absolute`, means
/// are not less the first value of the group.
fn look(
    gpu: &Gpu,
    plan: &Plan,
    (x, x1): Maps<'_>,
    [run, chunk]: [usize; 2],
    absolute: bool,
    partial: &mut Tensor,
) -> Result<()> {
    let ragged = plan.ragged();
    launch_one_of!(gpu, plan.grid_of(chunk).shared(plan.scratch()), match ragged {
        false => group_norm_moments,
        true => group_norm_moments_ragged,
    } {
        x,
        x1,
        partial,
        c0: x.shape()[3],
        pixels: plan.pixels(),
        channels: plan.dims[3],
        groups: plan.groups,
        run,
        columns: plan.columns(),
        chunk,
        absolute: absolute.into(),
    })
}

/// Whether maps like this have [moments], and whether there is something to gain by looking for them before they are
/// normalised: smaller ones are held by the block that does both.
pub(in crate::ops) fn has_moments(
    gpu: &Gpu,
    op: &GroupNorm,
    dtype: DType,
    dims: [usize; 4],
    known: bool,
) -> bool {
    moments::shape(dtype, dims, op.groups).is_some()
        && (known || Plan::new(op, dims, dtype).slab(gpu, 1).is_none())
}

/// Looks for the [moments] of `x` in `groups` groups.
pub(in crate::ops) fn find_moments(
    gpu: &Gpu,
    x: &Tensor,
    groups: usize,
    found: &mut Tensor,
) -> Result<()> {
    find_moments_of(gpu, (x, None), groups, found)
}

/// The same of maps of one size beside each other.
pub(in crate::ops) fn find_moments_of(
    gpu: &Gpu,
    (x, x1): Maps<'_>,
    groups: usize,
    found: &mut Tensor,
) -> Result<()> {
    let [n, h, w, c0] = x.nhwc("group_norm")?;
    let dims = [n, h, w, c0 + x1.map_or(0, |x1| x1.shape()[3])];
    let plan = Plan::of_maps(&GroupNorm { groups, eps: 0.0, silu: false }, dims, c0, x.dtype());
    let pixels = moments::pixels(found, plan.pixels());
    look(gpu, &plan, (x, x1), [moments::run(dims[3], groups), pixels], true, found)
}

/// Writes `y`, whose sizes are `dims`, and returns the statistics; `x1` is what lies beside x, and `given` what is known of
/// both, if there is such.
pub(super) fn forward(
    gpu: &Gpu,
    op: &GroupNorm,
    dims: [usize; 4],
    inputs: &[&Tensor],
    x1: Option<&Tensor>,
    given: Option<&Tensor>,
    y: &mut Tensor,
) -> Result<Tensor> {
    let x = inputs[0];
    let c0 = x.shape()[3];
    let plan = Plan::of_maps(op, dims, c0, y.dtype());
    let ragged = plan.ragged();
    let Affine { gamma, beta, scale, shift } = Affine::of(inputs);
    let (pixels, channels, groups) = (plan.pixels(), dims[3], op.groups);
    let (eps, silu) = (f32::from_f64(op.eps), op.silu.into());
    let mut stats = plan.f32(gpu, &[dims[0], groups, 3])?;
    if let (None, Some((width, grid))) = (given, plan.slab(gpu, 1)) {
        let to = &mut stats;
        launch_one_of!(gpu, grid, match ragged {
            false => group_norm_slab,
            true => group_norm_slab_ragged,
        } {
            x,
            x1,
            gamma,
            beta,
            scale,
            shift,
            y,
            stats: to,
            c0,
            pixels,
            channels,
            groups,
            width,
            eps,
            silu,
        })?;
        return Ok(stats);
    }
    let (run, found) = match given {
        Some(given) => (moments::run(channels, groups), moments::pixels(given, pixels)),
        None => (plan.run(), plan.found()),
    };
    let mut partial = None;
    if given.is_none() {
        let shape = [dims[0], pixels.div_ceil(found), channels / run, 2];
        look(gpu, &plan, (x, x1), [run, found], false, partial.insert(plan.f32(gpu, &shape)?))?;
    }
    let Some(partial) = given.or(partial.as_ref()) else { return Ok(stats) };
    launch_one_of!(gpu, plan.grid().shared(plan.joined()), match ragged {
        false => group_norm_apply,
        true => group_norm_apply_ragged,
    } {
        x,
        x1,
        partial,
        stats: &mut stats,
        gamma,
        beta,
        scale,
        shift,
        y,
        c0,
        pixels,
        channels,
        groups,
        run,
        found,
        columns: plan.columns(),
        chunk: plan.chunk(),
        absolute: given.is_some().into(),
        silu,
        eps,
    })?;
    Ok(stats)
}

/// The gradients of all inputs.
pub(super) fn gradients(
    gpu: &Gpu,
    op: &GroupNorm,
    dims @ [images, _, _, channels]: [usize; 4],
    call: &Call,
    dy: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let x = call.inputs[0];
    let plan = Plan::new(op, dims, dy.dtype());
    let mut dx = call.wants[0].then(|| Tensor::empty_as(x, x.shape())).transpose()?;
    let empty = |of: &&Tensor| Tensor::empty_as(of, of.shape());
    let mut gradients = call.inputs[1..].iter().map(empty).collect::<Result<Vec<_>>>()?;
    let Some((width, grid)) = plan.slab(gpu, 2) else {
        large_gradient(gpu, op, &plan, call, dy, dx.as_mut(), &mut gradients)?;
        return Ok(std::iter::once(dx).chain(gradients.into_iter().map(Some)).collect());
    };
    let mut sums = plan.f32(gpu, &[images, 2, channels])?;
    let Affine { gamma, beta, scale, shift } = Affine::of(call.inputs);
    let ragged = plan.ragged();
    launch_one_of!(gpu, grid, match ragged {
        false => group_norm_gradient_slab,
        true => group_norm_gradient_slab_ragged,
    } {
        x,
        dy,
        stats: &call.saved[0],
        gamma,
        beta,
        scale,
        shift,
        sums: &mut sums,
        dx: dx.as_mut(),
        pixels: plan.pixels(),
        channels,
        groups: op.groups,
        width,
        silu: op.silu.into(),
    })?;
    let [dgamma, dbeta, rest @ ..] = &mut gradients[..] else { unreachable!("gamma and beta") };
    let mut rest = rest.iter_mut();
    let (dscale, dshift) = (rest.next(), rest.next());
    kernels::group_norm_parameters {
        sums: &sums,
        gamma,
        beta,
        scale,
        dgamma,
        dbeta,
        dscale,
        dshift,
        images,
        channels,
    }
    .launch(gpu, Grid::elements(channels))?;
    Ok(std::iter::once(dx).chain(gradients.into_iter().map(Some)).collect())
}

/// Writes `dx` and the `gradients` of the other inputs for maps that do not fit shared memory.
fn large_gradient(
    gpu: &Gpu,
    op: &GroupNorm,
    plan: &Plan,
    call: &Call,
    dy: &Tensor,
    dx: Option<&mut Tensor>,
    gradients: &mut [Tensor],
) -> Result<()> {
    let ([images, _, _, channels], pixels, groups) = (plan.dims, plan.pixels(), op.groups);
    let (x, stats) = (call.inputs[0], &call.saved[0]);
    let ragged = plan.ragged();
    let Affine { gamma, beta, scale, shift } = Affine::of(call.inputs);
    let (columns, run, silu) = (plan.columns(), plan.run(), op.silu.into());
    let found = plan.found();
    let chunks = pixels.div_ceil(found);
    let mut partial = plan.f32(gpu, &[images, chunks, 2, channels])?;
    let mut of_runs = plan.f32(gpu, &[images, chunks, 2, channels / run])?;
    let shared = plan.scratch().max(plan.constants());
    launch_one_of!(gpu, plan.grid_of(found).shared(shared), match ragged {
        false => group_norm_sums,
        true => group_norm_sums_ragged,
    } {
        x,
        dy,
        stats,
        gamma,
        beta,
        scale,
        shift,
        partial: &mut partial,
        of_runs: &mut of_runs,
        pixels,
        channels,
        groups,
        run,
        columns,
        chunk: found,
        silu,
    })?;
    let [dgamma, dbeta, rest @ ..] = gradients else { unreachable!("gamma and beta") };
    let mut rest = rest.iter_mut();
    let (dscale, dshift) = (rest.next(), rest.next());
    let of_block = columns * plan.pack;
    let parts = if dx.is_some() { plan.chunks() } else { 0 };
    let joining = of_block.div_ceil(THREADS / WARP);
    let grid = Grid::new([channels.div_ceil(of_block), parts + joining, images], THREADS);
    launch_one_of!(gpu, grid.shared(plan.joined()), match ragged {
        false => group_norm_gradient,
        true => group_norm_gradient_ragged,
    } {
        x,
        dy,
        stats,
        partial: &partial,
        of_runs: &of_runs,
        gamma,
        beta,
        scale,
        shift,
        dx,
        dgamma,
        dbeta,
        dscale,
        dshift,
        images,
        pixels,
        channels,
        groups,
        run,
        found,
        columns,
        chunk: plan.chunk(),
        parts,
        silu,
    })
}
