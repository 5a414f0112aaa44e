//! How much an image varies around each pixel. Not differentiated: it is computed of the input.
//!
//! ```text
//! z = (x + 1) / 2,    m = box(z),  q = box(z^2)            7x7 means, zeros outside counted
//! a = sqrt(mean over c of max(q - m^2, 0) + 1e-6)
//! y = (a - min a) / (max a - min a + 1e-6)                 of each image
//! ```
//!
//! `q - m^2` cancels where the image is smooth: the CPU computes in double precision, a GPU with the
//! differences to the pixel in the middle.
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::engine::threads::pieces;
use crate::error::{Error, Result};

const RADIUS: usize = 3;
const EPS: f64 = 1e-6;

/// The map `[N, H, W, 1]` of images `[N, H, W, C]` with values in `[-1, 1]`.
///
/// Minimum and maximum are of what is given: of whole images, not of tiles.
pub fn local_amplitude(x: &Tensor) -> Result<Tensor> {
    let [n, h, w, c] = x.nhwc("local_amplitude")?;
    if h * w * c == 0 {
        return Err(Error::shape("local_amplitude", "at least one pixel", x.shape()));
    }
    if let Device::Cuda(gpu) = x.device() {
        return on_gpu(&gpu, x, [n, h, w, c]);
    }
    let z: Vec<f64> = x.to_f64_vec()?.into_iter().map(|v| (v + 1.0) / 2.0).collect();
    let mut values = Vec::with_capacity(n * h * w);
    for image in z.chunks_exact(h * w * c) {
        let mut amplitude = vec![0.0; h * w];
        pieces(&mut amplitude, w, |i, row| deviation(image, h, c, i, row));
        let min = amplitude.iter().copied().fold(f64::INFINITY, f64::min);
        let max = amplitude.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        values.extend(amplitude.iter().map(|a| (a - min) / (max - min + EPS)));
    }
    Ok(Tensor::from_f64(&values, &[n, h, w, 1], x.dtype()))
}

fn on_gpu(gpu: &Gpu, x: &Tensor, [n, h, w, c]: [usize; 4]) -> Result<Tensor> {
    let blocks = (h * w).div_ceil(256);
    let single = |shape: &[usize]| Tensor::empty_on(&x.device(), DType::F32, shape);
    let [mut amplitude, mut of_blocks, mut ranges] =
        [single(&[n, h, w])?, single(&[n, blocks, 2])?, single(&[n, 2])?];
    let grid = Grid::new([blocks, n, 1], 256);
    kernels::local_amplitude_deviation {
        x,
        amplitude: &mut amplitude,
        ranges: &mut of_blocks,
        height: h,
        width: w,
        channels: c,
    }
    .launch(gpu, grid)?;
    kernels::local_amplitude_range { ranges: &of_blocks, of_images: &mut ranges, blocks }
        .launch(gpu, Grid::new([n, 1, 1], 256))?;
    let mut y = Tensor::empty_as(x, &[n, h, w, 1])?;
    kernels::local_amplitude_stretch {
        amplitude: &amplitude,
        ranges: &ranges,
        y: &mut y,
        pixels: h * w,
    }
    .launch(gpu, grid)?;
    Ok(y)
}

/// The deviation around every pixel of row `i`.
fn deviation(image: &[f64], h: usize, c: usize, i: usize, out: &mut [f64]) {
    let w = out.len();
    let (mut sum, mut square) = (vec![0.0; w * c], vec![0.0; w * c]);
    for y in i.saturating_sub(RADIUS)..h.min(i + RADIUS + 1) {
        let row = &image[y * w * c..][..w * c];
        for ((sum, square), &v) in sum.iter_mut().zip(&mut square).zip(row) {
            *sum += v;
            *square += v * v;
        }
    }
    let area = ((2 * RADIUS + 1) * (2 * RADIUS + 1)) as f64;
    for (j, out) in out.iter_mut().enumerate() {
        let columns = j.saturating_sub(RADIUS)..w.min(j + RADIUS + 1);
        let mean =
            |of: &[f64], k: usize| columns.clone().map(|x| of[x * c + k]).sum::<f64>() / area;
        let variance = |k: usize| (mean(&square, k) - mean(&sum, k).powi(2)).max(0.0);
        *out = ((0..c).map(variance).sum::<f64>() / c as f64 + EPS).sqrt();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64], shape: &[usize]) -> Vec<f64> {
        local_amplitude(&Tensor::from_f64(values, shape, DType::F64)).unwrap().to_f64_vec().unwrap()
    }

    #[test]
    fn counts_the_padding_and_spans_0_to_1() {
        // One white pixel (z = 1) on black in 1 x 8: the windows of columns 0 to 3 hold it.
        let mut values = [-1.0; 8];
        values[0] = 1.0;
        let amplitude = of(&values, &[1, 1, 8, 1]);
        let (on, off) = ((1.0f64 / 49.0 - 1.0 / 2401.0 + 1e-6).sqrt(), 1e-3);
        let high = (on - off) / (on - off + 1e-6);
        for (j, a) in amplitude.iter().enumerate() {
            let expected = if j <= 3 { high } else { 0.0 };
            assert!((a - expected).abs() < 1e-12, "column {j}: {a} instead of {expected}");
        }
    }

    #[test]
    fn images_do_not_see_each_other() {
        let noise: Vec<f64> = (0..75).map(|i| f64::from(i * 37 % 19) / 9.5 - 1.0).collect();
        let both = [noise.clone(), noise.iter().map(|v| v / 10.0).collect()].concat();
        assert_eq!(of(&both, &[2, 5, 5, 3])[..25], of(&noise, &[1, 5, 5, 3])[..]);
    }

    #[test]
    fn wrong_ranks_are_refused() {
        let error = local_amplitude(&Tensor::from_f64(&[0.0], &[1], DType::F32)).unwrap_err();
        assert_eq!(error.to_string(), "local_amplitude: expected [N, H, W, C], got shape [1]");
    }
}
