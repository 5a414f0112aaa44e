//! The tiles of each instruction set, as the fast convolution calls them.
use super::simd;
use crate::ops::simd::Level;

/// One instruction set: the tiles of [`simd`] and their width.
pub(super) struct Kernels {
    pub(super) ocb: usize,
    /// Positions in a register tile.
    pub(super) positions: usize,
    pub(super) product: unsafe fn(*const f32, usize, usize, usize, *const f32, *mut f32, usize),
    pub(super) outer: unsafe fn(*const f32, usize, usize, usize, *const f32, *mut f32, bool),
    pub(super) input: Windows,
    pub(super) gradient: Windows,
    pub(super) output: Output,
    pub(super) weights: unsafe fn(*const f32, usize, *mut f32, usize),
    pub(super) weight_gradients: unsafe fn(*const f32, usize, usize, *mut f32, usize),
}

type Windows = unsafe fn(*const f32, usize, usize, usize, *mut f32, usize, usize);
type Output =
    unsafe fn(*const f32, usize, usize, *const f32, bool, *const f32, *mut f32, usize, usize);

static AVX512: Kernels = Kernels {
    ocb: simd::avx512::OCB,
    positions: simd::avx512::PMAX,
    product: simd::avx512::product,
    outer: simd::avx512::outer,
    input: simd::avx512::input,
    gradient: simd::avx512::gradient,
    output: simd::avx512::output,
    weights: simd::avx512::weights,
    weight_gradients: simd::avx512::weight_gradients,
};

static AVX2: Kernels = Kernels {
    ocb: simd::avx2::OCB,
    positions: simd::avx2::PMAX,
    product: simd::avx2::product,
    outer: simd::avx2::outer,
    input: simd::avx2::input,
    gradient: simd::avx2::gradient,
    output: simd::avx2::output,
    weights: simd::avx2::weights,
    weight_gradients: simd::avx2::weight_gradients,
};

/// The tiles of an instruction set, if there are any.
pub(super) const fn kernels(level: Level) -> Option<&'static Kernels> {
    match level {
        Level::Avx512 => Some(&AVX512),
        Level::Avx2 => Some(&AVX2),
        Level::Portable => None,
    }
}
