//! Resampling that reproduces the originals, and resizing to any size.
//!
//! Everything is separable. With `s` = input / output size and output index `o`:
//!
//! ```text
//! source position   u = (o + 1/2) s - 1/2                       (align_corners: o (in-1)/(out-1))
//! cubic             k(x) = (a+2)|x|^3 - (a+3)|x|^2 + 1          |x| <= 1
//!                          a|x|^3 - 5a|x|^2 + 8a|x| - 4a        1 < |x| < 2
//!
//!                a      when shrinking   beyond the edge        rounding after each pass
//! pillow         -0.5   support times s  taps dropped           8 bits, columns first or not
//! torch bicubic  -0.75  4 taps           clamped                none
//! torch bilinear        2 taps           clamped                none
//! matlab         -0.5   support times s  mirrored               none
//! matlab 8-bit   -0.5   support times s  clamped                8 bits, height first
//! bicubic_up     -0.5   (enlarges only)  clamped                none
//! torch_.._up    -0.75  (enlarges only)  clamped                none
//! bilinear_up           (enlarges only)  clamped                none
//! ```
//! The results do not depend on the number of threads: every output value has its own fixed sum.
mod lanczos;
mod numbers;
mod originals;
mod premultiplied;
mod resize;
mod separable;
mod shape;
mod strips;
mod upsample;

use originals::cubic;
pub use originals::{Filter, matlab, matlab_8bit, matlab_8bit_image, pillow, torch_bicubic};
pub use premultiplied::Premultiplied;
pub use resize::resize;
pub use resize::resize_part;
pub use resize::resize_samples;
pub use shape::Shape;
pub use strips::Strips;
pub use upsample::bicubic_footprint;
pub use upsample::bicubic_up;
pub use upsample::bilinear_up;
pub use upsample::torch_bicubic_up;
