//! Luma and the Y of the super-resolution literature (both BT.601).
//!
//! ```text
//! luma  = 0.299 R + 0.587 G + 0.114 B                       full range, same scale as R, G, B
//! Y     = (65.481 R + 128.553 G + 24.966 B) / 255 + 16      R, G, B in 0..255; Y in 16..235
//! ```
//! PSNR-Y and SSIM-Y of papers use the second, in float (BasicSR) or rounded to 8 bits (ResShift).

/// Full-range BT.601 luma, in the unit of its arguments.
pub fn luma(r: f32, g: f32, b: f32) -> f32 {
    // Written around g so that r = g = b gives exactly g.
    g + 0.299 * (r - g) + 0.114 * (b - g)
}

/// The [`luma`] of pixels `[.., 3]`.
pub fn luma_of(pixels: &[f32]) -> Vec<f32> {
    pixels.chunks_exact(3).map(|p| luma(p[0], p[1], p[2])).collect()
}

/// The pixels `[.., 3]` with another luma; their chroma stays.
pub fn with_luma(pixels: &[f32], new: &[f32]) -> Vec<f32> {
    let replaced = |(p, &new): (&[f32], &f32)| {
        let more = new - luma(p[0], p[1], p[2]);
        [p[0] + more, p[1] + more, p[2] + more]
    };
    pixels.chunks_exact(3).zip(new).flat_map(replaced).collect()
}

/// Y in 16..=235 of R, G, B in 0..=255, as BasicSR and MATLAB `rgb2ycbcr` define it.
pub fn y_float(r: f64, g: f64, b: f64) -> f64 {
    (65.481 * r + 128.553 * g + 24.966 * b) / 255.0 + 16.0
}

/// Y in 0..=255 of R, G, B in 0..=255: luma over the full range.
pub fn y_full(r: f64, g: f64, b: f64) -> f64 {
    0.299 * r + 0.587 * g + 0.114 * b
}

/// [`y_float`] rounded to a whole number.
pub fn y_rounded(r: f64, g: f64, b: f64) -> f64 {
    y_float(r, g, b).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y_spans_16_to_235() {
        assert_eq!(y_float(0.0, 0.0, 0.0), 16.0);
        assert!((y_float(255.0, 255.0, 255.0) - 235.0).abs() < 1e-12);
        assert_eq!(y_rounded(255.0, 0.0, 0.0), 81.0);
    }

    #[test]
    fn another_luma_keeps_the_chroma() {
        let pixels = [0.1, 0.5, 0.9, 0.3, 0.3, 0.3];
        let new = with_luma(&pixels, &[0.7, 0.25]);
        for (new, wanted) in luma_of(&new).iter().zip([0.7, 0.25]) {
            assert!((new - wanted).abs() < 1e-6);
        }
        assert!((new[2] - new[0] - 0.8).abs() < 1e-6 && new[3..] == [0.25; 3]);
    }

    #[test]
    fn luma_of_gray_is_the_gray() {
        for v in 0..=255u8 {
            let v = f32::from(v) / 255.0;
            assert_eq!(luma(v, v, v), v);
        }
    }
}
