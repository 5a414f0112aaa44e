//! Mish (Misra 2019): a smooth unit that stays a little negative left of 0.
//!
//! ```text
//! y  = x T,     T = tanh(ln(1 + exp x)) = (E^2 + 2 E) / (E^2 + 2 E + 2),  E = exp x
//! dx = dy (T + x sigmoid(x) (1 - T^2))
//! ```
use super::simd::Lane;
use super::unary::{Unary, unary};
use crate::engine::op_case::OpCase;

unary! {
    /// `x tanh(ln(1 + exp x))`, elementwise.
    mish: Mish, mish_forward, mish_backward of x
}

impl Unary for Mish {
    fn y<T: Lane>(x: T) -> T {
        x * gate(x).0
    }

    fn slope<T: Lane>(x: T, dy: T) -> T {
        let (one, (gate, rest)) = (T::from_f64(1.0), gate(x));
        dy * (gate + x * (one / (one + (-x).exp())) * rest * (one + gate))
    }
}

/// `T` and `1 - T`, without cancellation. From 20 on `T` is 1 in both precisions, and `E^2` would overflow.
fn gate<T: Lane>(x: T) -> (T, T) {
    let (two, limit) = (T::from_f64(2.0), T::from_f64(20.0));
    let e = if x > limit { limit } else { x }.exp();
    let n = e * (e + two);
    (n / (n + two), two / (n + two))
}

/// An odd length, inputs far from 0, and the first level of a UNet.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Mish, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Mish, &[&[17]]).inputs(5.0, 0.0),
        OpCase::new(|| Mish, &[&[33]]).inputs(60.0, 0.0),
        OpCase::new(|| Mish, &[&[1, 160, 160, 64]]).timed_only(),
    ]
}
