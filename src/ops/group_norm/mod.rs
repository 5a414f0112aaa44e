//! Group normalisation, with optional FiLM (scale and shift per image and channel) and SiLU.
//!
//! ```text
//! xhat = (x - mean) rstd,    rstd = 1 / sqrt(var + eps),    mean, var over a group of an image
//! v    = (xhat gamma + beta) (1 + scale) + shift            (scale = shift = 0 without FiLM)
//! y    = v, or v s(v) with s the logistic function
//!
//! dv     = dy, or dy s (1 + v (1 - s))
//! dshift = sum dv                       dscale = sum dv (xhat gamma + beta)       over h, w
//! dbeta  = sum dv (1 + scale)           dgamma = sum dv (1 + scale) xhat          over n, h, w
//! g      = dv (1 + scale) gamma
//! dx     = rstd (g - sum g / m - xhat sum(g xhat) / m)      sums over the m elements of the group
//! ```
//!
//! Saved: mean (in two parts) and rstd as `[N, G, 3]`, in double precision on the CPU and single on a
//! GPU. Both passes read `x` once for the sums and once for the result (a GPU reads a small map once).
//! A mean far above the deviation must not cancel: sums are of differences to a value of the same
//! channel, and the mean enters as a rounded part, subtracted first, and a rest, joined to the shift.
mod cpu;
pub(in crate::ops) mod cuda;
pub(in crate::ops) mod moments;
mod op;
mod passes;

pub use op::GroupNorm;
pub use passes::cases;
