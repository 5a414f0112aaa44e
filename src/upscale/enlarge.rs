//! y0: the low resolution enlarged, as training and upscaling see it.
use crate::diffusion::process::Enlarge;
use crate::error::Result;
use crate::imaging::resample::{Filter, Shape};
use crate::imaging::{Rect, resample};

/// The part `wanted` (in enlarged pixels) of an image of `size` enlarged `scale` times, `[H, W, 3]` in `[-1, 1]` (a
/// cubic overshoots; what it overshoots is kept). `pixels` are the part `held` of the image, `[h, w, 3]` in `[-1, 1]`,
/// which is at least the [footprint](resample::bicubic_footprint) of what is wanted.
///
/// # Errors
/// If less is held.
pub fn enlarge(
    pixels: &[f32],
    (held, size): (Rect, (usize, usize)),
    (method, scale): (Enlarge, usize),
    wanted: Rect,
) -> Result<Vec<f32>> {
    match method {
        Enlarge::Bicubic => resample::bicubic_up(pixels, held, size, 3, scale, wanted),
        Enlarge::TorchBicubic => resample::torch_bicubic_up(pixels, held, size, 3, scale, wanted),
        Enlarge::Bilinear => resample::bilinear_up(pixels, held, size, 3, scale, wanted),
        Enlarge::Pillow => {
            let bytes: Vec<u8> = pixels.iter().map(|&v| byte(v)).collect();
            let from = Shape::new(held.height, held.width, 3);
            let (height, width) = (held.height * scale, held.width * scale);
            let all = resample::pillow(&bytes, from, height, width, Filter::Bicubic)?;
            let all: Vec<f32> = all.iter().map(|&p| f32::from(p) / 127.5 - 1.0).collect();
            Ok(crop(&all, held.scaled(scale), wanted))
        }
    }
}

/// The part `wanted` of `pixels`, which are the region `held` `[H, W, 3]`.
pub(super) fn crop(pixels: &[f32], held: Rect, wanted: Rect) -> Vec<f32> {
    let mut out = Vec::with_capacity(wanted.area() * 3);
    for y in wanted.y..wanted.bottom() {
        let at = ((y - held.y) * held.width + wanted.x - held.x) * 3;
        out.extend_from_slice(&pixels[at..at + wanted.width * 3]);
    }
    out
}

/// From `[-1, 1]` to `0..=255`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
fn byte(v: f32) -> u8 {
    ((v.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
}
