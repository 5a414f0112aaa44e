//! Views of matrices.
use crate::engine::device::Real;

/// A view of a matrix: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a, T: Real> Matrix<'a, T> {
    /// The row-major matrix with the elements of `data`.
    pub(crate) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "data does not fill a {rows} x {columns} matrix");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The matrix whose element `(i, j)` is `data[i * row_stride + j * column_stride]`.
    pub(crate) fn strided(
        data: &'a [T],
        [rows, columns]: [usize; 2],
        [row_stride, column_stride]: [usize; 2],
    ) -> Self {
        Self { data, rows, columns, row_stride, column_stride }
    }

    /// The transpose, without moving anything.
    pub(crate) fn t(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// `len` rows from `from` on.
    pub(super) fn rows(self, from: usize, len: usize) -> Self {
        assert!(from + len <= self.rows, "rows of another matrix");
        let data = self.data.get(from * self.row_stride..).unwrap_or_default();
        Self { data, rows: len, ..self }
    }

    /// `len` columns from `from` on.
    pub(super) fn columns(self, from: usize, len: usize) -> Self {
        self.t().rows(from, len).t()
    }

    /// Where element (0, 0) lies; all elements can be read from there.
    pub(super) fn start(&self) -> *const T {
        if self.rows * self.columns > 0 {
            let last = (self.rows - 1) * self.row_stride + (self.columns - 1) * self.column_stride;
            assert!(last < self.data.len(), "the data of a matrix are too short");
        }
        self.data.as_ptr()
    }
}
