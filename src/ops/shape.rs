//! Shapes that several ops check or split.
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// Blocks of a launch that sums the columns of `[rows, columns]` with `kernels/columns.cuh`: across the
/// columns and down the rows; and how many rows each takes. Follows from the shape alone, and with it
/// the order of the sum.
pub(crate) fn column_blocks(dtype: DType, rows: usize, columns: usize) -> ([usize; 2], usize) {
    let pack = 16 / dtype.size();
    let chunks = if columns.is_multiple_of(pack) { columns / pack } else { columns };
    let rows_each = rows.div_ceil(64).max(256);
    ([chunks.div_ceil(32), rows.div_ceil(rows_each).max(1)], rows_each)
}

/// Fails in the name of `op` unless `b` has the shape of `a`.
pub(crate) fn same_shape(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() == b.shape() {
        return Ok(());
    }
    Err(Error::shape(op, format!("{:?} as the first input", a.shape()), b.shape()))
}
