//! Panels of the right matrix, packed.
use std::mem::MaybeUninit;

use super::kernels::{Columns, DEPTH, Kernels, kernels};
use super::matrix::Matrix;
use crate::engine::device::Real;
use crate::engine::pool::Buffer;

/// Elements in 64 bytes, which panels start at multiples of, and in the largest panel: 32 KiB.
const ALIGNED: usize = 64;
const PANEL_BYTES: usize = DEPTH * 128;

/// What a product multiplies with from the right.
#[derive(Clone, Copy)]
pub(crate) enum Right<'a, T: Real> {
    Plain(Matrix<'a, T>),
    Packed(&'a Packed<T>),
}

impl<'a, T: Real> From<Matrix<'a, T>> for Right<'a, T> {
    fn from(b: Matrix<'a, T>) -> Self {
        Self::Plain(b)
    }
}

impl<'a, T: Real> From<&'a Packed<T>> for Right<'a, T> {
    fn from(b: &'a Packed<T>) -> Self {
        Self::Packed(b)
    }
}

impl<T: Real> Right<'_, T> {
    /// Rows and columns.
    pub(super) const fn sizes(&self) -> [usize; 2] {
        match self {
            Self::Plain(b) => [b.rows, b.columns],
            Self::Packed(b) => [b.inner, b.columns],
        }
    }
}

/// A right matrix all panels of which are packed, for several products.
pub(crate) struct Packed<T: Real> {
    data: Buffer<T>,
    /// Of the first panel.
    start: usize,
    inner: usize,
    columns: usize,
    /// Of the kernels that it is packed for.
    width: usize,
}

impl<T: Real> Packed<T> {
    /// The matrix packed, if so many tasks read more of it than they would pack.
    pub(crate) fn for_tasks(tasks: usize, b: Matrix<T>) -> Option<Self> {
        (tasks > 1 && b.columns > 1).then(|| Self::with(kernels(b.columns), b))
    }

    pub(super) fn with(kernels: &Kernels<T>, b: Matrix<T>) -> Self {
        let padded = kernels.padded(b.columns);
        let mut data = Buffer::<T>::new(b.rows * padded + ALIGNED / size_of::<T>());
        let start = data.as_ptr().align_offset(ALIGNED).min(ALIGNED / size_of::<T>());
        let to = data[start..].as_mut_ptr();
        for first in (0..b.rows).step_by(DEPTH) {
            for column in (0..b.columns).step_by(kernels.width) {
                let panel = columns_of(kernels, b, first, column);
                // SAFETY: the panel begins after those before it, and all of them have `padded` columns in a row of `b`.
                unsafe {
                    let to = to.add(first * padded + column * panel.inner);
                    (kernels.pack)(&Columns { to, ..panel });
                }
            }
        }
        Self { data, start, inner: b.rows, columns: b.columns, width: kernels.width }
    }

    /// The panel of block `first..` from `column` on, and from row to row of it.
    pub(super) fn panel(
        &self,
        kernels: &Kernels<T>,
        first: usize,
        column: usize,
    ) -> (*const T, usize) {
        assert_eq!(self.width, kernels.width, "packed for other kernels");
        let inner = DEPTH.min(self.inner - first);
        let padded = kernels.padded(self.columns);
        let at = self.start + first * padded + column * inner;
        (self.data[at..].as_ptr(), kernels.padded(kernels.width.min(self.columns - column)))
    }
}

/// A panel of rows `first..` of `b` from `column` on, packed to nowhere.
fn columns_of<T: Real>(
    kernels: &Kernels<T>,
    b: Matrix<T>,
    first: usize,
    column: usize,
) -> Columns<T> {
    let inner = DEPTH.min(b.rows - first);
    let columns = kernels.width.min(b.columns - column);
    Columns {
        b: b.rows(first, inner).columns(column, columns).start(),
        strides: [b.row_stride, b.column_stride],
        inner,
        columns,
        to: std::ptr::null_mut(),
    }
}

/// Room for a panel that is used at once.
#[repr(align(64))]
pub(super) struct Scratch([MaybeUninit<u8>; PANEL_BYTES]);

impl Scratch {
    pub(super) const fn new() -> Self {
        Self([MaybeUninit::uninit(); PANEL_BYTES])
    }

    /// As [`Packed::panel`], of `b`.
    pub(super) fn panel<T: Real>(
        &mut self,
        kernels: &Kernels<T>,
        b: Matrix<T>,
        first: usize,
        column: usize,
    ) -> (*const T, usize) {
        let panel = columns_of(kernels, b, first, column);
        let padded = kernels.padded(panel.columns);
        assert!(panel.inner * padded * size_of::<T>() <= PANEL_BYTES, "a panel is too large");
        let to = self.0.as_mut_ptr().cast();
        // SAFETY: there is room for it, aligned.
        unsafe { (kernels.pack)(&Columns { to, ..panel }) };
        (to, padded)
    }
}
