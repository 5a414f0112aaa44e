//! What a GPU knows of the groups of a map before they are normalised: of some pixels, `pixels` ([`PIXELS`] or half of
//! them), and `run` channels the mean and the sum of squared differences to it, `[N, H W / pixels, C / run, 2]` in f32. A
//! convolution finds them of what it writes (`kernels/conv2d.cuh`), whatever its blocks; of other maps a kernel looks.
//!
//! Of 16-bit maps alone: a mean in one f32 is exact there beside what a value is rounded by, and f32 keeps its digits.
use crate::engine::cuda::Gpu;
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Pixels of an entry: the rows of a block of a convolution.
const PIXELS: usize = 128;

/// Maps of at most so many pixels have entries of half as many: the rows of blocks that share the depth.
const SMALL: usize = 4096;

/// Columns of the narrowest block of a convolution.
const COLUMNS: usize = 32;

/// Entries of an image that each block which normalises may join: 32 KiB.
const MOST: usize = 4096;

/// Channels of an entry: those of a group, or what divides them and the columns of any block.
pub(in crate::ops) const fn run(channels: usize, groups: usize) -> usize {
    common_divisor(channels / groups, COLUMNS)
}

/// The shape of the moments of a map `[N, H, W, C]`, if there are any for it.
pub(super) fn shape(dtype: DType, [n, h, w, c]: [usize; 4], groups: usize) -> Option<[usize; 4]> {
    let pixels = h * w;
    let fits = dtype.size() == 2
        && n * pixels > 0
        && pixels.is_multiple_of(PIXELS)
        && c.is_multiple_of(8)
        && groups > 0
        && c.is_multiple_of(groups);
    let runs = if fits { c / run(c, groups) } else { 0 };
    let entries = [pixels / PIXELS * 2, pixels / PIXELS];
    let few = |&entries: &usize| fits && entries * runs <= MOST;
    let entries = entries.into_iter().skip(usize::from(pixels > SMALL)).find(few)?;
    Some([n, entries, runs, 2])
}

/// Pixels of an entry of the moments of a map of so many pixels.
pub(in crate::ops) fn pixels(moments: &Tensor, of_map: usize) -> usize {
    of_map / moments.shape()[1]
}

/// A place for the moments of a map `dims` on the GPU, if there are any for it.
pub(in crate::ops) fn empty(
    gpu: &Gpu,
    dtype: DType,
    dims: [usize; 4],
    groups: usize,
) -> Result<Option<Tensor>> {
    let shape = shape(dtype, dims, groups);
    shape.map(|shape| Tensor::empty_on(&Device::from(gpu), DType::F32, &shape)).transpose()
}

/// The largest number that divides both.
pub(super) const fn common_divisor(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
