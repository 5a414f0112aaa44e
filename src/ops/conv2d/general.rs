//! The general convolution: every shape, stride and element type, as one strided matrix product for
//! each tap of the kernel and row of the image. The specification that the fast path is tested
//! against.
use rayon::prelude::*;

use super::Dims;
use crate::engine::device::Real;
use crate::ops::product::{Matrix, add_product};

/// The output columns whose tap `kx` falls inside the image, and the input column of the first.
fn columns(d: &Dims, kx: usize) -> (std::ops::Range<usize>, usize) {
    let first = d.pad.saturating_sub(kx).div_ceil(d.stride);
    let end = (d.width + d.pad).saturating_sub(kx).div_ceil(d.stride).min(d.out_width());
    (first..end.max(first), (first * d.stride + kx).saturating_sub(d.pad))
}

/// The input row that tap `ky` of output row `oy` reads, if it is inside the image.
fn input_row(d: &Dims, oy: usize, ky: usize) -> Option<usize> {
    (oy * d.stride + ky).checked_sub(d.pad).filter(|&y| y < d.height)
}

/// `y = conv(x, w) + bias`.
pub(in crate::ops) fn forward<T: Real>(
    d: &Dims,
    x: &[T],
    w: &[T],
    bias: Option<&[T]>,
    y: &mut [T],
) {
    let (oh, ow) = (d.out_height(), d.out_width());
    y.par_chunks_mut(ow * d.co).enumerate().for_each(|(row, y)| {
        let (n, oy) = (row / oh, row % oh);
        for y in y.chunks_exact_mut(d.co) {
            match bias {
                Some(b) => y.copy_from_slice(b),
                None => y.fill(T::default()),
            }
        }
        for ky in 0..d.kernel {
            let Some(iy) = input_row(d, oy, ky) else { continue };
            for kx in 0..d.kernel {
                let (out, ix) = columns(d, kx);
                if out.is_empty() {
                    continue;
                }
                let from = &x[((n * d.height + iy) * d.width + ix) * d.ci..];
                let tap = &w[(ky * d.kernel + kx) * d.ci..];
                let x = Matrix::strided(from, [out.len(), d.ci], [d.stride * d.ci, 1]);
                let w = Matrix::strided(tap, [d.ci, d.co], [1, d.kernel * d.kernel * d.ci]);
                add_product(&mut y[out.start * d.co..], d.co, x, w);
            }
        }
    });
}

/// The gradient of the input: each input row gathers from the output rows that read it.
pub(in crate::ops) fn input_gradient<T: Real>(d: &Dims, w: &[T], dy: &[T], dx: &mut [T]) {
    let (oh, ow) = (d.out_height(), d.out_width());
    dx.par_chunks_mut(d.width * d.ci).enumerate().for_each(|(row, dx)| {
        let (n, iy) = (row / d.height, row % d.height);
        dx.fill(T::default());
        for ky in 0..d.kernel {
            let Some(oy) = (iy + d.pad).checked_sub(ky).filter(|v| v % d.stride == 0) else {
                continue;
            };
            let oy = oy / d.stride;
            if oy >= oh {
                continue;
            }
            for kx in 0..d.kernel {
                let (out, ix) = columns(d, kx);
                if out.is_empty() {
                    continue;
                }
                let from = &dy[((n * oh + oy) * ow + out.start) * d.co..];
                let tap = &w[(ky * d.kernel + kx) * d.ci..];
                let dy = Matrix::strided(from, [out.len(), d.co], [d.co, 1]);
                let w = Matrix::strided(tap, [d.co, d.ci], [d.kernel * d.kernel * d.ci, 1]);
                add_product(&mut dx[ix * d.ci..], d.stride * d.ci, dy, w);
            }
        }
    });
}

/// The gradient of the weights: taps side by side, rows one after the other, so that the order of the
/// sums is fixed.
pub(in crate::ops) fn weight_gradient<T: Real>(d: &Dims, x: &[T], dy: &[T], dw: &mut [T]) {
    let (oh, ow, taps) = (d.out_height(), d.out_width(), d.kernel * d.kernel);
    let tap_gradients: Vec<Vec<T>> = (0..taps)
        .into_par_iter()
        .map(|tap| {
            let (out, ix) = columns(d, tap % d.kernel);
            let mut sum = vec![T::default(); d.co * d.ci];
            for row in 0..d.batch * oh {
                let (n, oy) = (row / oh, row % oh);
                let Some(iy) = input_row(d, oy, tap / d.kernel) else { continue };
                if out.is_empty() {
                    continue;
                }
                let dy = &dy[((n * oh + oy) * ow + out.start) * d.co..];
                let x = &x[((n * d.height + iy) * d.width + ix) * d.ci..];
                let dy = Matrix::strided(dy, [d.co, out.len()], [1, d.co]);
                let x = Matrix::strided(x, [out.len(), d.ci], [d.stride * d.ci, 1]);
                add_product(&mut sum, d.ci, dy, x);
            }
            sum
        })
        .collect();
    for (o, dw) in dw.chunks_exact_mut(taps * d.ci).enumerate() {
        for (tap, dw) in dw.chunks_exact_mut(d.ci).enumerate() {
            dw.copy_from_slice(&tap_gradients[tap][o * d.ci..(o + 1) * d.ci]);
        }
    }
}
