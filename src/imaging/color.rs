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

/// Y in 16..=235 of R, G, B in 0..=255, as BasicSR and MATLAB `rgb2ycbcr` define it.
pub fn y_float(r: f64, g: f64, b: f64) -> f64 {
    (65.481 * r + 128.553 * g + 24.966 * b) / 255.0 + 16.0
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
    fn luma_of_gray_is_the_gray() {
        for v in 0..=255u8 {
            let v = f32::from(v) / 255.0;
            assert_eq!(luma(v, v, v), v);
        }
    }
}
