//! y0 of a low-resolution image, as training sees it.
use super::super::folder::Rgb8;
use crate::diffusion::process::Enlarge;
use crate::error::Result;
use crate::imaging::{Rect, resample};
use crate::upscale;

/// The part `wanted` (in enlarged pixels) of `low` enlarged `scale` times, `[H, W, 3]` in `[-1, 1]`
/// (a cubic overshoots; what it overshoots is kept).
pub fn enlarge(low: &Rgb8, method: Enlarge, scale: usize, wanted: Rect) -> Result<Vec<f32>> {
    let size = (low.width, low.height);
    let held = resample::bicubic_footprint(wanted, size, scale);
    let part = low.cut(held.x, held.y, held.width, held.height);
    upscale::enlarge::enlarge(&to_signed(&part.pixels), (held, size), (method, scale), wanted)
}

/// From `0..=255` to `[-1, 1]`.
pub fn to_signed(pixels: &[u8]) -> Vec<f32> {
    pixels.iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect()
}
