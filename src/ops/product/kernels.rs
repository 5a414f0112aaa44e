//! What the instruction sets have in common: what a kernel is given, and which kernels are run.
use super::portable;
#[cfg(target_arch = "x86_64")]
use super::simd;
use crate::engine::device::{DType, Real};
use crate::ops::simd::{Level, level};

/// Products that are added up before their sum is added to those of other blocks: k of a block.
pub(super) const DEPTH: usize = 256;

/// Some rows of a product, of a panel of columns and a block of k.
#[derive(Clone, Copy)]
pub(super) struct Panel<T> {
    pub(super) a: *const T,
    /// From row to row of `a`, and from k to k.
    pub(super) a_strides: [usize; 2],
    pub(super) rows: usize,
    /// `[inner][padded columns]`.
    pub(super) b: *const T,
    pub(super) b_stride: usize,
    pub(super) inner: usize,
    /// Rows of `columns` elements.
    pub(super) y: *mut T,
    pub(super) y_stride: usize,
    pub(super) columns: usize,
    pub(super) add: bool,
}

/// Columns of `b` and where they are packed to.
#[derive(Clone, Copy)]
pub(super) struct Columns<T> {
    pub(super) b: *const T,
    /// From k to k, and from column to column.
    pub(super) strides: [usize; 2],
    pub(super) inner: usize,
    pub(super) columns: usize,
    /// `[inner][padded columns]`.
    pub(super) to: *mut T,
}

/// The code for one element type and instruction set.
pub(super) struct Kernels<T> {
    /// Columns of a vector: those of panels are padded to a multiple.
    pub(super) lanes: usize,
    /// Columns of a whole panel.
    pub(super) width: usize,
    /// Writes the product of a panel, or adds it.
    ///
    /// # Safety
    /// The pointers lead to what [`Panel`] says, `columns` is 1 to `width`, and nobody else touches those elements of y.
    pub(super) multiply: unsafe fn(&Panel<T>),
    /// Copies columns to a panel, with zeros as padding.
    ///
    /// # Safety
    /// The pointers lead to what [`Columns`] says, `columns` is 1 to `width`, and nobody else touches the panel.
    pub(super) pack: unsafe fn(&Columns<T>),
}

impl<T> Kernels<T> {
    /// `columns` with those that pad them.
    pub(super) const fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.lanes)
    }
}

/// The kernels of a level: at most that which the processor has.
pub(super) fn kernels_of<T: Real>(level: Level) -> &'static Kernels<T> {
    #[cfg(target_arch = "x86_64")]
    let of_f32: [&'static Kernels<f32>; 3] =
        [&portable::f32::KERNELS, &simd::avx2_f32::KERNELS, &simd::avx512_f32::KERNELS];
    // f64 is for comparisons, which have time.
    #[cfg(target_arch = "x86_64")]
    let of_f64: [&'static Kernels<f64>; 3] =
        [&portable::f64::KERNELS, &simd::avx2_f64::KERNELS, &simd::avx2_f64::KERNELS];
    #[cfg(not(target_arch = "x86_64"))]
    let (of_f32, of_f64) = ([&portable::f32::KERNELS; 3], [&portable::f64::KERNELS; 3]);
    let at = level as usize;
    match T::DTYPE {
        // SAFETY: f64 alone has this type.
        DType::F64 => unsafe { &*std::ptr::from_ref(of_f64[at]).cast() },
        // SAFETY: the other `Real` is f32.
        _ => unsafe { &*std::ptr::from_ref(of_f32[at]).cast() },
    }
}

/// The kernels that are run for products with so many columns: vectors of 512 bits that are half padding are slower than
/// those of 256.
pub(super) fn kernels<T: Real>(columns: usize) -> &'static Kernels<T> {
    let narrow = kernels_of(level().min(Level::Avx2));
    if columns <= narrow.lanes { narrow } else { kernels_of(level()) }
}
