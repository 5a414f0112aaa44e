//! y0 of a low-resolution image, as training sees it.
use super::super::folder::Rgb8;
use crate::diffusion::process::Enlarge;
use crate::error::Result;
use crate::imaging::resample::{Filter, Shape};
use crate::imaging::{Rect, resample};

/// The part `wanted` (in enlarged pixels) of `low` enlarged `scale` times, `[H, W, 3]` in `[-1, 1]`
/// (a cubic overshoots; what it overshoots is kept).
pub fn enlarge(low: &Rgb8, method: Enlarge, scale: usize, wanted: Rect) -> Result<Vec<f32>> {
    let size = (low.width, low.height);
    let held = resample::bicubic_footprint(wanted, size, scale);
    let part = low.cut(held.x, held.y, held.width, held.height);
    match method {
        Enlarge::Bicubic => {
            resample::bicubic_up(&to_signed(&part.pixels), held, size, 3, scale, wanted)
        }
        Enlarge::TorchBicubic => {
            resample::torch_bicubic_up(&to_signed(&part.pixels), held, size, 3, scale, wanted)
        }
        Enlarge::Bilinear => {
            resample::bilinear_up(&to_signed(&part.pixels), held, size, 3, scale, wanted)
        }
        Enlarge::Pillow => {
            let from = Shape::new(held.height, held.width, 3);
            let (height, width) = (held.height * scale, held.width * scale);
            let pixels = resample::pillow(&part.pixels, from, height, width, Filter::Bicubic)?;
            let all = Rgb8 { width, height, pixels };
            let (x, y) = (wanted.x - held.x * scale, wanted.y - held.y * scale);
            Ok(to_signed(&all.cut(x, y, wanted.width, wanted.height).pixels))
        }
    }
}

/// From `0..=255` to `[-1, 1]`.
pub fn to_signed(pixels: &[u8]) -> Vec<f32> {
    pixels.iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect()
}
