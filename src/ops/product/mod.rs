//! Matrix products on the CPU: one thread each, spread over chunks that depend on the shapes alone.
//!
//! ```text
//! y[i, j] = (y[i, j] +) s_0 + s_1 + ...,   s_b = sum of a[i, k] b[k, j] over the k of block b
//! ```
//!
//! **The order of the sums is a promise.** A block is 256 consecutive k, the last perhaps fewer. Its sum starts at zero and
//! takes the products with k ascending, each by a fused multiply-add; the sums of blocks are then added in order. Where
//! there is no such instruction (`SRK_SIMD=portable` on x86) products are rounded before they are added. Nothing else
//! counts: not how many rows and columns there are, how they lie in memory or are split over tasks, where in a register
//! tile an element falls, nor whether vectors have 256 or 512 bits. No product is left out, so that NaN and infinities come
//! through.
//!
//! A register tile is some rows of `a`, read where they lie, times a panel: one or two vectors of columns of `b`, `[k][columns]`
//! for the k of a block. Panels are read in place where `b` lies so already and few rows read them, else packed: to the
//! stack just before they are read, or all of `b` at once for several tasks ([`Packed`]).
mod calls;
mod kernels;
mod matrix;
mod packed;
mod portable;
#[cfg(target_arch = "x86_64")]
mod simd;
#[cfg(test)]
mod tests;
mod tiles;

pub(crate) use calls::{add_columns, add_product, multiply, multiply_columns, multiply_rows};
pub(crate) use matrix::Matrix;
pub(crate) use packed::Packed;
