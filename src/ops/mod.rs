//! One file per op; [`all`] is the registry that the tests and the benches walk.
pub mod adam;
pub mod clip_by_norm;
pub mod conv2d;
pub mod ema;
pub(crate) mod matmul;
pub(crate) mod parallel;
pub mod silu;

use crate::engine::op_case::OpCase;

/// Every op with the shapes and tolerances it is checked and timed at.
pub fn all() -> Vec<OpCase> {
    [conv2d::cases(), silu::cases()].into_iter().flatten().collect()
}
