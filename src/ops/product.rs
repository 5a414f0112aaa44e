//! Matrix products on the CPU: one thread each, spread over chunks that depend on the shapes alone.
use gemm::Parallelism;
use rayon::prelude::*;

use crate::engine::device::Real;

/// Rows (of a tall product) or columns (of a wide one) that a task computes.
const ROWS: usize = 64;
const COLUMNS: usize = 512;

/// A view of a matrix: element `(i, j)` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
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
    fn rows(self, from: usize, len: usize) -> Self {
        assert!(from + len <= self.rows);
        let data = self.data.get(from * self.row_stride..).unwrap_or_default();
        Self { data, rows: len, ..self }
    }

    /// `len` columns from `from` on.
    fn columns(self, from: usize, len: usize) -> Self {
        self.t().rows(from, len).t()
    }
}

/// `y = a b` on the calling thread, with `y` row-major.
pub(crate) fn multiply<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(y.len(), a.rows * b.columns, "y does not fit the product");
    // SAFETY: `y` holds `a.rows` rows of `b.columns` elements, and nobody else can see it.
    unsafe { multiply_into(y.as_mut_ptr(), b.columns, a, b, false) }
}

/// `y += a b` on the calling thread, where row `i` of the product starts at `y[i * stride]`.
pub(crate) fn add_product<T: Real>(y: &mut [T], stride: usize, a: Matrix<T>, b: Matrix<T>) {
    assert!(stride >= b.columns, "rows of the product overlap");
    assert!((a.rows.max(1) - 1) * stride + b.columns <= y.len(), "y does not fit the product");
    // SAFETY: `y` holds `a.rows` rows of `b.columns` elements, and nobody else can see it.
    unsafe { multiply_into(y.as_mut_ptr(), stride, a, b, true) }
}

/// `y = a b`, over chunks of rows: for tall `y`.
pub(crate) fn multiply_rows<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(y.len(), a.rows * b.columns, "y does not fit the product");
    if y.is_empty() {
        return;
    }
    y.par_chunks_mut(ROWS * b.columns)
        .enumerate()
        .for_each(|(i, y)| multiply(y, a.rows(i * ROWS, y.len() / b.columns), b));
}

/// `y = a b`, over chunks of columns: for wide `y`.
pub(crate) fn multiply_columns<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(y.len(), a.rows * b.columns, "y does not fit the product");
    struct Start<T>(*mut T);
    // SAFETY: the pointer is only used for the disjoint columns of the tasks below.
    unsafe impl<T> Sync for Start<T> {}
    impl<T> Start<T> {
        fn get(&self) -> *mut T {
            self.0
        }
    }
    let (start, stride) = (Start(y.as_mut_ptr()), b.columns);
    (0..b.columns.div_ceil(COLUMNS)).into_par_iter().for_each(|chunk| {
        let from = chunk * COLUMNS;
        let part = b.columns(from, COLUMNS.min(stride - from));
        // SAFETY: writes columns `from..from + part.columns` of `y`, which is checked above to have
        // `a.rows` rows of `stride` elements; no other task writes those columns.
        unsafe { multiply_into(start.get().add(from), stride, a, part, false) }
    });
}

/// Writes `a b` to the `a.rows` x `b.columns` elements `y[i * stride + j]`, or adds it to them.
///
/// # Safety
/// All those elements lie in one allocation that no one else reads or writes meanwhile.
unsafe fn multiply_into<T: Real>(y: *mut T, stride: usize, a: Matrix<T>, b: Matrix<T>, add: bool) {
    assert_eq!(a.columns, b.rows, "the inner sizes of a product differ");
    let last = |m: &Matrix<T>| {
        (m.rows.max(1) - 1) * m.row_stride + (m.columns.max(1) - 1) * m.column_stride
    };
    let empty = |m: &Matrix<T>| m.rows * m.columns == 0;
    assert!(empty(&a) || last(&a) < a.data.len(), "a is too short");
    assert!(empty(&b) || last(&b) < b.data.len(), "b is too short");
    let one = T::from_f64(1.0);
    // No stride exceeds a slice, and those end at isize::MAX.
    let stride_of = |s: usize| s as isize;
    // SAFETY: the reads were checked above, the writes are the caller's promise.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            y,
            1,
            stride_of(stride),
            add,
            a.data.as_ptr(),
            stride_of(a.column_stride),
            stride_of(a.row_stride),
            b.data.as_ptr(),
            stride_of(b.column_stride),
            stride_of(b.row_stride),
            one,
            one,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_splitting_gives_the_product() {
        let (m, k, n) = (70, 3, 515);
        let a: Vec<f64> = (0..m * k).map(|i| (i % 11) as f64).collect();
        let b: Vec<f64> = (0..n * k).map(|i| (i % 7) as f64 - 3.0).collect();
        let expected: Vec<f64> =
            (0..m * n).map(|i| (0..k).map(|l| a[i / n * k + l] * b[i % n * k + l]).sum()).collect();
        for multiply in [multiply::<f64>, multiply_rows::<f64>, multiply_columns::<f64>] {
            let mut y = vec![f64::NAN; m * n];
            multiply(&mut y, Matrix::new(&a, m, k), Matrix::new(&b, n, k).t());
            assert_eq!(y, expected);
        }
    }
}
