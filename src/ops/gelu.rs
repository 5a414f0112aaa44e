//! Gaussian error linear unit, in its exact form.
//!
//! ```text
//! y  = x P(x),                 P(x) = (1 + erf(x / sqrt(2))) / 2
//! dx = dy (P(x) + x p(x)),     p(x) = exp(-x^2 / 2) / sqrt(2 pi)
//! ```
use std::f64::consts::{PI, SQRT_2};

use super::simd::Lane;
use super::unary::{Unary, unary};
use crate::engine::op_case::OpCase;

unary! {
    /// `x` times the normal distribution function of `x`, elementwise.
    gelu: Gelu, gelu_forward, gelu_backward of x
}

impl Unary for Gelu {
    fn y<T: Lane>(x: T) -> T {
        x * distribution(x)
    }

    fn slope<T: Lane>(x: T, dy: T) -> T {
        let density = T::from_f64(1.0 / (2.0 * PI).sqrt()) * (-T::from_f64(0.5) * x * x).exp();
        dy * (distribution(x) + x * density)
    }
}

fn distribution<T: Lane>(x: T) -> T {
    T::from_f64(0.5) * (T::from_f64(1.0) + (x * T::from_f64(1.0 / SQRT_2)).erf())
}

/// An odd length, inputs far from 0, and the hidden layer of a transformer block.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Gelu, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Gelu, &[&[17]]).inputs(5.0, 0.0),
        OpCase::new(|| Gelu, &[&[1, 64, 64, 192]]).timed_only(),
    ]
}
