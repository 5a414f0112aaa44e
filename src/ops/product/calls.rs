//! What the ops call.
use super::kernels::{DEPTH, Kernels, Panel, kernels};
use super::matrix::Matrix;
use super::packed::{Packed, Right, Scratch};
use crate::engine::device::Real;
use crate::engine::threads::{each, pieces};

/// Rows (of a tall product) or columns (of a wide one) that a task computes.
const ROWS: usize = 64;
const COLUMNS: usize = 512;
/// Elements of `b` of a task that computes all of few rows.
const ELEMENTS: usize = 1 << 16;

/// From this many rows on panels that could be read in place are packed, so that they lie in few lines of the cache.
const PACKED_ROWS: usize = 32;

/// `y = a b` on the calling thread, with `y` row-major.
pub(crate) fn multiply<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(y.len(), a.rows * b.columns, "y does not fit the product");
    // SAFETY: `y` holds `a.rows` rows of `b.columns` elements, and nobody else can see it.
    unsafe { multiply_into(kernels(b.columns), y.as_mut_ptr(), b.columns, a, b.into(), false) }
}

/// `y += a b` on the calling thread, where row `i` of the product starts at `y[i * stride]`.
pub(crate) fn add_product<'b, T: Real>(
    y: &mut [T],
    stride: usize,
    a: Matrix<T>,
    b: impl Into<Right<'b, T>>,
) {
    let b = b.into();
    let [_, columns] = b.sizes();
    assert!(stride >= columns, "rows of the product overlap");
    assert!((a.rows.max(1) - 1) * stride + columns <= y.len(), "y does not fit the product");
    // SAFETY: `y` holds `a.rows` rows of `columns` elements, and nobody else can see it.
    unsafe { multiply_into(kernels(columns), y.as_mut_ptr(), stride, a, b, true) }
}

/// `y = a b`, over chunks of rows if there are many, else over chunks of columns.
pub(crate) fn multiply_rows<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    assert_eq!(y.len(), a.rows * b.columns, "y does not fit the product");
    if a.rows <= ROWS {
        return by_columns(y, a, b, columns_of_task(b.rows), false);
    }
    if y.is_empty() {
        return;
    }
    let (columns, packed) = (b.columns, Packed::for_tasks(a.rows.div_ceil(ROWS), b));
    pieces(y, ROWS * columns, |i, y| {
        let a = a.rows(i * ROWS, y.len() / columns);
        let b = packed.as_ref().map_or(Right::Plain(b), Right::Packed);
        // SAFETY: `y` holds `a.rows` rows of `columns` elements, and nobody else can see it.
        unsafe { multiply_into(kernels(columns), y.as_mut_ptr(), columns, a, b, false) };
    });
}

/// `y = a b`, over chunks of columns: for wide `y`.
pub(crate) fn multiply_columns<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    by_columns(y, a, b, COLUMNS, false);
}

/// `y += a b`, over chunks of columns: for few rows of a large `b`.
pub(crate) fn add_columns<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>) {
    by_columns(y, a, b, columns_of_task(b.rows), true);
}

/// So many columns of `b` that a task has some work however few rows of `a` there are.
fn columns_of_task(inner: usize) -> usize {
    (ELEMENTS / inner.max(1)).next_multiple_of(64).max(64)
}

fn by_columns<T: Real>(y: &mut [T], a: Matrix<T>, b: Matrix<T>, len: usize, add: bool) {
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
    each(stride.div_ceil(len), &|chunk| {
        let from = chunk * len;
        let part = b.columns(from, len.min(stride - from));
        // SAFETY: writes columns `from..from + part.columns` of `y`, which is checked above to have
        // `a.rows` rows of `stride` elements; no other task writes those columns.
        unsafe {
            let y = start.get().add(from);
            multiply_into(kernels(part.columns), y, stride, a, part.into(), add);
        };
    });
}

/// Writes `a b` to the `a.rows` x `b.columns` elements `y[i * stride + j]`, or adds it to them.
///
/// # Safety
/// All those elements lie in one allocation that no one else reads or writes meanwhile.
pub(super) unsafe fn multiply_into<T: Real>(
    kernels: &Kernels<T>,
    y: *mut T,
    stride: usize,
    a: Matrix<T>,
    b: Right<'_, T>,
    add: bool,
) {
    let [inner, columns] = b.sizes();
    assert_eq!(a.columns, inner, "the inner sizes of a product differ");
    if a.rows * columns == 0 {
        return;
    }
    if let Right::Plain(b) = b
        && columns == 1
        && stride == 1
        && a.rows > 1
    {
        // One column as one row, which fills vectors.
        // SAFETY: the same elements of y.
        return unsafe { multiply_into(kernels, y, a.rows, b.t(), a.t().into(), add) };
    }
    if inner == 0 && !add {
        for i in 0..a.rows {
            // SAFETY: row i, as the caller promises.
            unsafe { std::slice::from_raw_parts_mut(y.add(i * stride), columns) }
                .fill(T::default());
        }
        return;
    }
    let mut scratch = Scratch::new();
    for first in (0..inner).step_by(DEPTH) {
        let a = a.columns(first, DEPTH.min(inner - first));
        let start = a.start();
        for column in (0..columns).step_by(kernels.width) {
            let held = kernels.width.min(columns - column);
            let (b, b_stride) = match b {
                Right::Packed(b) => b.panel(kernels, first, column),
                Right::Plain(b) if in_place(kernels, a.rows, held, &b) => {
                    let b = b.rows(first, a.columns).columns(column, held);
                    (b.start(), b.row_stride)
                }
                Right::Plain(b) => scratch.panel(kernels, b, first, column),
            };
            let panel = Panel {
                a: start,
                a_strides: [a.row_stride, a.column_stride],
                rows: a.rows,
                b,
                b_stride,
                inner: a.columns,
                // SAFETY: the elements from `column` on.
                y: unsafe { y.add(column) },
                y_stride: stride,
                columns: held,
                add: add || first > 0,
            };
            // SAFETY: all of `a` and of the panel can be read; that of `y` can be written is the caller's promise.
            unsafe { (kernels.multiply)(&panel) };
        }
    }
}

/// Whether a panel of `columns` columns of `b` is read where it lies, by so many rows.
fn in_place<T: Real>(kernels: &Kernels<T>, rows: usize, columns: usize, b: &Matrix<T>) -> bool {
    let whole = b.column_stride == 1 && columns.is_multiple_of(kernels.lanes);
    whole && (rows < PACKED_ROWS || b.row_stride <= 2 * kernels.width)
}
