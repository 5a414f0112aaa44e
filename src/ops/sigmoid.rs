//! Logistic function.
//!
//! ```text
//! y  = 1 / (1 + exp(-x))
//! dx = dy y (1 - y)
//! ```
use super::parallel::chunks2;
use super::simd::{Lane, multiversion};
use super::unary::{Unary, unary};
use crate::engine::op_case::OpCase;

unary! {
    /// `1 / (1 + exp(-x))`, elementwise.
    sigmoid: Sigmoid, sigmoid_forward, sigmoid_backward of y
}

impl Unary for Sigmoid {
    fn y<T: Lane>(x: T) -> T {
        x.sigmoid::<false>()
    }

    fn slope<T: Lane>(y: T, dy: T) -> T {
        dy * y * (T::from_f64(1.0) - y)
    }

    fn forward<T: Lane>(x: &[T], y: &mut [T]) {
        chunks2(y, x, sigmoid);
    }
}

multiversion! {
    fn sigmoid<T, FMA>(y: &mut [T], x: &[T]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = x.sigmoid::<FMA>());
    }
}

/// An odd length, inputs far from 0, and the probabilities of a batch of patches.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Sigmoid, &[&[2, 3, 5, 7]]),
        // Near 1 the gradient is what rounding leaves of 1 - y.
        OpCase::new(|| Sigmoid, &[&[17]]).inputs(6.0, 0.0).kernel_tols([1e-5, 5e-3, 3e-2]),
        OpCase::new(|| Sigmoid, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}
