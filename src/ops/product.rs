//! Matrix products on the CPU: one thread each, spread over chunks that depend on the shapes alone.
use gemm_common::Parallelism;

use crate::engine::device::{DType, Real};
use crate::engine::threads::{each, pieces};

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

/// From this many rows on, an element of a product with `columns` columns has the same bits however many rows there are:
/// the library adds up products of at most 256 elements in another order.
pub(crate) const fn steady_rows(columns: usize) -> usize {
    match 256usize.checked_div(columns) {
        Some(rows) => rows + 1,
        None => 1,
    }
}

/// As [`add_product`] of `rows` x `inner` patches and closely packed rows of `y`, the bits of which do not depend on how
/// many rows there are.
pub(crate) fn add_product_steadily<T: Real>(
    y: &mut [T],
    patches: &[T],
    inner: usize,
    b: Matrix<T>,
) {
    let columns = b.columns;
    let (rows, least) = (y.len() / columns.max(1), steady_rows(columns));
    if rows >= least {
        return add_product(y, columns, Matrix::new(patches, rows, inner), b);
    }
    let (mut held, mut sums) = (patches.to_vec(), y.to_vec());
    held.resize(least * inner, T::default());
    sums.resize(least * columns, T::default());
    add_product(&mut sums, columns, Matrix::new(&held, least, inner), b);
    y.copy_from_slice(&sums[..rows * columns]);
}

/// `y = a b`, over chunks of rows: for tall `y`.
pub(crate) fn multiply_rows<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(y.len(), a.rows * b.columns, "y does not fit the product");
    if y.is_empty() {
        return;
    }
    let of = |i, rows| a.rows(i * ROWS, rows);
    pieces(y, ROWS * b.columns, |i, y| multiply(y, of(i, y.len() / b.columns), b));
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
    each(b.columns.div_ceil(COLUMNS), &|chunk| {
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
    // No stride exceeds a slice, and those end at isize::MAX.
    let strides = |m: &Matrix<T>| [m.row_stride as isize, m.column_stride as isize];
    let ([a_row, a_column], [b_row, b_column]) = (strides(&a), strides(&b));
    let (left, right) = (a.data.as_ptr(), b.data.as_ptr());
    // The kernels want the result by columns: that of `y^T = b^T a^T`, unless a row is one element long.
    let call = match stride > 1 {
        true => Call {
            sizes: [b.columns, a.rows, a.columns],
            result: (y, [stride as isize, 1]),
            left: (right, [b_row, b_column]),
            right: (left, [a_row, a_column]),
            add,
        },
        false => Call {
            sizes: [a.rows, b.columns, a.columns],
            result: (y, [1, stride as isize]),
            left: (left, [a_column, a_row]),
            right: (right, [b_column, b_row]),
            add,
        },
    };
    // SAFETY: the reads were checked above, the writes are the caller's promise; the pointers are of the type that
    // the function of that element type takes.
    unsafe {
        match T::DTYPE {
            DType::F64 => call.cast().run(gemm_f64::gemm::f64::get_gemm_fn(), 1.0),
            _ => call.cast().run(gemm_f32::gemm::f32::get_gemm_fn(), 1.0),
        }
    }
}

/// What the kernels are given; strides are those from column to column and from row to row.
struct Call<T> {
    /// Rows and columns of the result, and the inner size.
    sizes: [usize; 3],
    result: (*mut T, [isize; 2]),
    left: (*const T, [isize; 2]),
    right: (*const T, [isize; 2]),
    add: bool,
}

/// A product: rows, columns, inner size, result, whether to add, left, right, two factors, what to conjugate, threads.
type Kernel<T> = unsafe fn(
    usize,
    usize,
    usize,
    *mut T,
    isize,
    isize,
    bool,
    *const T,
    isize,
    isize,
    *const T,
    isize,
    isize,
    T,
    T,
    bool,
    bool,
    bool,
    Parallelism,
);

impl<T> Call<T> {
    /// The same of another name for the same type.
    fn cast<U>(self) -> Call<U> {
        let Self { sizes, result, left, right, add } = self;
        Call {
            sizes,
            result: (result.0.cast(), result.1),
            left: (left.0.cast(), left.1),
            right: (right.0.cast(), right.1),
            add,
        }
    }

    /// # Safety
    /// All that is read and written lies in allocations of `T`; no one else touches the result meanwhile.
    unsafe fn run(self, kernel: Kernel<T>, one: T)
    where
        T: Copy,
    {
        let Self { sizes: [m, n, k], result: (y, of_y), left: (a, of_a), right: (b, of_b), add } =
            self;
        let none = Parallelism::None;
        // SAFETY: the caller's promise.
        unsafe {
            kernel(
                m, n, k, y, of_y[0], of_y[1], add, a, of_a[0], of_a[1], b, of_b[0], of_b[1], one,
                one, false, false, false, none,
            );
        }
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
