//! Matrix products of strided matrices through the `gemm` crate, single-threaded: callers split the
//! work into fixed parts, so that no result depends on the number of threads.
use crate::engine::device::{DType, Real};

/// A matrix to read: element `(i, j)` is `data[i * row + j * column]`.
pub(crate) struct Matrix<'a, T> {
    pub(crate) data: &'a [T],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// A matrix to write, laid out like [`Matrix`].
pub(crate) struct MatrixMut<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// `c = a b`, or `c += a b` with `add`, for sizes `[m, k, n]`: a is m x k, b is k x n.
pub(crate) fn matmul<T: Real>(
    [m, k, n]: [usize; 3],
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    c: MatrixMut<'_, T>,
    add: bool,
) {
    let reach = |rows: usize, columns: usize, row: usize, column: usize| {
        if rows * columns == 0 { 0 } else { (rows - 1) * row + (columns - 1) * column + 1 }
    };
    assert!(reach(m, k, a.row, a.column) <= a.data.len(), "a does not hold {m} x {k}");
    assert!(reach(k, n, b.row, b.column) <= b.data.len(), "b does not hold {k} x {n}");
    assert!(reach(m, n, c.row, c.column) <= c.data.len(), "c does not hold {m} x {n}");
    let isize = |v: usize| isize::try_from(v).unwrap_or(isize::MAX);
    macro_rules! call {
        ($t:ty) => {
            // SAFETY: the assertions above keep every element inside its slice, and DTYPE says that
            // T is the type the pointers are cast to.
            unsafe {
                gemm::gemm::<$t>(
                    m,
                    n,
                    k,
                    c.data.as_mut_ptr().cast(),
                    isize(c.column),
                    isize(c.row),
                    add,
                    a.data.as_ptr().cast(),
                    isize(a.column),
                    isize(a.row),
                    b.data.as_ptr().cast(),
                    isize(b.column),
                    isize(b.row),
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    gemm::Parallelism::None,
                );
            }
        };
    }
    match T::DTYPE {
        DType::F64 => call!(f64),
        _ => call!(f32),
    }
}
