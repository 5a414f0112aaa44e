//! Batch normalisation: every channel by its mean and variance over images and pixels.
//!
//! ```text
//! y = xhat gamma + beta,    xhat = (x - mean) rstd,    rstd = 1 / sqrt(variance + eps)
//!
//! dbeta = sum dy,    dgamma = sum dy xhat                                   over n, h, w
//! dx = rstd gamma (dy - (sum dy + xhat sum dy xhat) / m)    of m elements a channel, in training
//! dx = rstd gamma dy                                        with constant statistics
//! ```
//!
//! Statistics are `[2, C]`: means, then variances; on a GPU always f32. In training they are those of
//! `x`, and running ones follow them outside the tape:
//!
//! ```text
//! mean += momentum (mean of x - mean),    variance likewise, with m - 1 in place of m
//! ```
mod op;
pub(super) mod passes;

pub use op::{BatchNorm, cases};
pub(super) use passes::{cpu, cuda, expect, wide};
pub use passes::{follow, statistics};
