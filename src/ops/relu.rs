//! Rectified linear unit.
//!
//! ```text
//! y  = max(x, 0)
//! dx = dy where y > 0, else 0
//! ```
//!
//! A NaN stays a NaN, so that it is seen at the end of the network.
use super::simd::Lane;
use super::unary::{Unary, unary};
use crate::engine::op_case::OpCase;

unary! {
    /// `max(x, 0)`, elementwise.
    relu: Relu, relu_forward, relu_backward of y
}

impl Unary for Relu {
    fn y<T: Lane>(x: T) -> T {
        if x < T::default() { T::default() } else { x }
    }

    fn slope<T: Lane>(y: T, dy: T) -> T {
        if y > T::default() { dy } else { T::default() }
    }
}

/// An odd length (tail of the vectorised loop), and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Relu, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Relu, &[&[1]]),
        OpCase::new(|| Relu, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}
