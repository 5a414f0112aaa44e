//! Where a pixel lies in its image, as sines and cosines. Not differentiated: it has no inputs.
//!
//! ```text
//! u = x / (W - 1),  v = y / (H - 1)                      0 for a single row or column
//! channels 4k .. 4k + 3:  sin(f u), sin(f v), cos(f u), cos(f v),    f = 2^k pi,  k = 0 .. 5
//! ```
use std::f64::consts::PI;

use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::error::Result;

/// Channels of the map.
pub const CHANNELS: usize = 24;

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first row.
    pub top: usize,
    /// The first column.
    pub left: usize,
    /// The number of rows.
    pub height: usize,
    /// The number of columns.
    pub width: usize,
}

/// The map `[height, width, 24]` of `window` in an image of `height` x `width` pixels.
///
/// A pixel has the same values in every window that holds it. A window may reach beyond the image,
/// as padding does; the formula continues there.
pub fn fourier_position([height, width]: [usize; 2], window: Window, dtype: DType) -> Tensor {
    let columns = waves(window.left, window.width, width);
    let rows = waves(window.top, window.height, height);
    let mut values = Vec::with_capacity(window.height * window.width * CHANNELS);
    for row in &rows {
        for column in &columns {
            for (u, v) in column.iter().zip(row) {
                values.extend([u[0], v[0], u[1], v[1]]);
            }
        }
    }
    Tensor::from_f64(&values, &[window.height, window.width, CHANNELS], dtype)
}

/// [`fourier_position`] on `device`.
///
/// # Errors
/// If the memory of a GPU is full.
pub fn fourier_position_on(
    device: &Device,
    size @ [height, width]: [usize; 2],
    window: Window,
    dtype: DType,
) -> Result<Tensor> {
    let Device::Cuda(gpu) = device else { return Ok(fourier_position(size, window, dtype)) };
    let mut y = Tensor::empty_on(device, dtype, &[window.height, window.width, CHANNELS])?;
    let (last_row, last_column) = (height.max(2) - 1, width.max(2) - 1);
    let Window { top, left, height, width } = window;
    let grid = Grid::elements(y.len() / 4);
    kernels::fourier_position { y: &mut y, top, left, height, width, last_row, last_column }
        .launch(gpu, grid)?;
    Ok(y)
}

/// Sine and cosine at the six frequencies of `len` positions of an axis of `size` pixels.
fn waves(from: usize, len: usize, size: usize) -> Vec<[[f64; 2]; CHANNELS / 4]> {
    let last = size.max(2) - 1;
    let wave = |at: usize| {
        let mut frequency = PI;
        [(); CHANNELS / 4].map(|()| {
            let (sin, cos) = (frequency * at as f64 / last as f64).sin_cos();
            frequency *= 2.0;
            [sin, cos]
        })
    };
    (from..from + len).map(wave).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Window = Window { top: 0, left: 0, height: 5, width: 9 };

    #[test]
    fn corners_and_order_of_the_channels() {
        let map = fourier_position([5, 9], WHOLE, DType::F64).to_f64_vec().unwrap();
        let at = |y: usize, x: usize, c: usize| map[(y * 9 + x) * CHANNELS + c];
        assert_eq!([0, 1, 2, 3].map(|c| at(0, 0, c)), [0.0, 0.0, 1.0, 1.0]);
        // Half way along x, at the first frequency: sin 1, cos 0; along y nothing has changed.
        let half = [1.0, 0.0, 0.0, 1.0];
        for (c, value) in half.into_iter().enumerate() {
            assert!((at(0, 4, c) - value).abs() < 1e-15);
        }
        // A quarter along y, at the second frequency.
        assert!((at(1, 0, 5) - 1.0).abs() < 1e-15 && at(1, 0, 7).abs() < 1e-15);
    }

    #[test]
    fn a_window_holds_the_bits_of_the_whole() {
        let whole = fourier_position([5, 9], WHOLE, DType::F32).to_f64_vec().unwrap();
        let window = Window { top: 2, left: 3, height: 2, width: 4 };
        let part = fourier_position([5, 9], window, DType::F32).to_f64_vec().unwrap();
        for (i, values) in part.chunks(CHANNELS).enumerate() {
            let at = ((window.top + i / 4) * 9 + window.left + i % 4) * CHANNELS;
            assert_eq!(values, &whole[at..at + CHANNELS]);
        }
    }

    #[test]
    fn one_pixel_is_finite() {
        let window = Window { top: 0, left: 0, height: 1, width: 1 };
        let map = fourier_position([1, 1], window, DType::F32).to_f64_vec().unwrap();
        assert!(map.iter().all(|v| v.is_finite()));
    }
}
