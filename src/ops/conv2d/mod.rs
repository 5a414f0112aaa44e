//! 2-D convolution with square kernels, optionally fused with ReLU.
//!
//! x: `[N, H, W, Ci]`, w: `[Co, k, k, Ci]`, b: `[Co]` or absent, y: `[N, Ho, Wo, Co]` with
//! `Ho = (H + 2 pad - k) / stride + 1`. With `z` the value before ReLU:
//!
//! ```text
//! z[n,i,j,o] = b[o] + sum_{u,v,c} w[o,u,v,c] x[n, i s + u - p, j s + v - p, c]      y = relu?(z)
//!
//! dz = dy [y > 0] or dy             db[o]       = sum_{n,i,j} dz[n,i,j,o]
//! dx = conv of dz with w flipped    dw[o,u,v,c] = sum_{n,i,j} dz[n,i,j,o] x[n, i s + u - p, ...]
//! ```
//!
//! On the CPU `fast` serves f32 with stride 1, "same" padding and kernels 3 or 1 on x86 with AVX2 or
//! better; `general` everything else; `bf16` those that a caller wants in bf16. The first two are tested against each other in every case.
mod bf16;
mod bf16_weights;
mod blocks;
pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
pub(in crate::ops) mod cuda_weights;
mod engines;
mod epilogue;
#[cfg(target_arch = "x86_64")]
mod fast;
mod few;
mod finish;
mod fused;
mod general;
#[cfg(target_arch = "x86_64")]
mod instructions;
mod joined;
mod kept;
mod normed;
mod op;
#[cfg(target_arch = "x86_64")]
mod packed;
mod passes;
#[cfg(target_arch = "x86_64")]
mod simd;
mod sloped;
mod source;
mod summed;
mod tuned;
#[cfg(target_arch = "x86_64")]
mod weight_gradient;
mod wgmma;

pub use self::fused::Then;
pub use self::normed::{Measured, Norm};
pub(in crate::ops) use finish::After;
pub use kept::{keep_weights, kept_bytes, share_weights};
pub(in crate::ops) use op::Dims;
pub use op::{Activation, Conv2d};
pub use passes::cases;
pub use tuned::rows_from;
