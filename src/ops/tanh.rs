//! Hyperbolic tangent.
//!
//! ```text
//! y  = tanh(x)
//! dx = dy (1 - y^2)
//! ```
use super::simd::Lane;
use super::unary::{Unary, unary};
use crate::engine::op_case::OpCase;

unary! {
    /// `tanh(x)`, elementwise.
    tanh: Tanh, tanh_forward, tanh_backward of y
}

impl Unary for Tanh {
    fn y<T: Lane>(x: T) -> T {
        x.tanh()
    }

    fn slope<T: Lane>(y: T, dy: T) -> T {
        dy * (T::from_f64(1.0) - y) * (T::from_f64(1.0) + y)
    }
}

/// An odd length, inputs far from 0, and the images of a generator.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Tanh, &[&[2, 3, 5, 7]]),
        // Near 1 the gradient is what rounding leaves of 1 - y.
        OpCase::new(|| Tanh, &[&[17]]).inputs(3.0, 0.0).kernel_tols([1e-5, 5e-3, 3e-2]),
        OpCase::new(|| Tanh, &[&[128, 28, 28, 1]]).timed_only(),
    ]
}
