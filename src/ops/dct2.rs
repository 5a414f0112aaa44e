//! Orthonormal two-dimensional cosine transform (DCT-II) of every channel, and its inverse (DCT-III),
//! over the whole map or over aligned square blocks.
//!
//! ```text
//! y = D_H x D_W^T,    D_N[k,i] = s_k cos(pi (2i + 1) k / (2N)),  s_0 = sqrt(1/N), s_k = sqrt(2/N)
//! dx = D_H^T dy D_W,  which is the inverse transform of dy, as D is orthogonal
//! ```
//!
//! A whole map takes two products with constant matrices, kept per size. Blocks of 8 have a path of
//! their own that runs over the channels of a block at once.
use std::f64::consts::PI;

use super::product::{Matrix, multiply, multiply_columns};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The coefficients of `[N, H, W, C]`, of the whole map or of blocks with this many pixels a
    /// side.
    pub fn dct2(&mut self, x: &Var, block: Option<usize>) -> Result<Var> {
        self.apply(Dct2 { inverse: false, block }, &[x])
    }

    /// The map whose [`dct2`](Self::dct2) coefficients are `x`.
    pub fn dct2_inverse(&mut self, x: &Var, block: Option<usize>) -> Result<Var> {
        self.apply(Dct2 { inverse: true, block }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Dct2 {
    /// Whether coefficients become pixels.
    pub inverse: bool,
    /// The side of the blocks; the whole map if none.
    pub block: Option<usize>,
}

impl Op for Dct2 {
    fn name(&self) -> &'static str {
        "dct2"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("dct2 takes one input") };
        Ok((self.transformed(x)?, Saved::new()))
    }

    fn backward(&self, _: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(Self { inverse: !self.inverse, block: self.block }.transformed(dy)?)])
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let [n, h, w, c] = [0, 1, 2, 3].map(|i| inputs[0][i]);
        // Blocks are bound by memory.
        if self.block.is_some() { 0 } else { 2 * (n * h * w * c * (h + w)) as u64 }
    }
}

impl Dct2 {
    fn transformed(&self, x: &Tensor) -> Result<Tensor> {
        let dims @ [_, h, w, _] = x.nhwc(self.name())?;
        if let Some(block) = self.block.filter(|&b| b == 0 || h % b != 0 || w % b != 0) {
            let wanted = format!("H and W divisible by {block}");
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => match self.block {
                None => cpu::whole::<T>(self.inverse, dims, x.cpu()?, y.cpu_mut()?)?,
                Some(block) => cpu::blocks::<T>(self.inverse, block, dims, x.cpu()?, y.cpu_mut()?)?,
            },
            cuda(gpu) => cuda::separable(&gpu, self.inverse, self.block, dims, x, &mut y)?,
        );
        Ok(y)
    }
}

/// Whole maps of odd, even and single sizes, of several tiles; blocks on both paths; a decoder level both ways.
pub fn cases() -> Vec<OpCase> {
    let case =
        |inverse, block, shape: &[usize]| OpCase::new(move || Dct2 { inverse, block }, &[shape]);
    vec![
        case(false, None, &[2, 3, 5, 3]),
        case(true, None, &[2, 4, 6, 1]),
        case(false, None, &[1, 1, 7, 2]),
        case(false, Some(2), &[2, 4, 6, 3]),
        case(true, Some(3), &[1, 3, 6, 2]),
        case(false, Some(8), &[1, 8, 16, 3]),
        case(true, Some(8), &[2, 16, 8, 1]),
        case(false, Some(8), &[1, 8, 8, 18]),
        case(false, None, &[1, 70, 67, 2]).kernel_only(),
        case(true, None, &[2, 17, 66, 3]).kernel_only(),
        case(true, Some(8), &[1, 16, 24, 12]).kernel_only(),
        case(false, None, &[1, 256, 256, 64]).timed_only(),
        case(false, Some(8), &[1, 128, 128, 64]).timed_only(),
        case(true, Some(8), &[1, 128, 128, 64]).timed_only(),
        case(false, Some(8), &[1, 256, 256, 128]).timed_only(),
    ]
}

/// The matrix `D_n` of the [module](self).
fn cosine_matrix(n: usize) -> Vec<f64> {
    let value = |k: usize, i: usize| {
        let scale = (if k == 0 { 1.0 } else { 2.0 } / n as f64).sqrt();
        // The angle modulo 2 pi in integers: exact however large n is.
        let turn = (2 * i + 1) * k % (4 * n);
        scale * (PI * turn as f64 / (2 * n) as f64).cos()
    };
    (0..n * n).map(|at| value(at / n, at % n)).collect()
}

mod cuda {
    use super::cosine_matrix;
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::{DType, Real};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    /// Rows and columns of a block of `multiply` in the kernel.
    const TILE: usize = 64;

    /// Two products. A map in blocks is one of more rows of `block` pixels, and of more images.
    pub(super) fn separable(
        gpu: &Gpu,
        inverse: bool,
        block: Option<usize>,
        [_, h, w, c]: [usize; 4],
        x: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let mut half = Tensor::empty_on(&x.device(), DType::F32, x.shape())?;
        // What a product along `len` elements takes: columns, grid and matrix.
        let product = |len: usize| -> Result<_> {
            let columns = x.len() / len.max(1);
            let grid = Grid::new([columns.div_ceil(TILE), len.div_ceil(TILE), 1], 256);
            Ok((columns, grid, transposed(gpu, len, inverse)?))
        };
        let len = block.unwrap_or(w);
        let (columns, grid, d) = product(len)?;
        kernels::dct2_along_rows { d: &d, x, half: &mut half, columns, len, inner: c }
            .launch(gpu, grid)?;
        let len = block.unwrap_or(h);
        let (columns, grid, d) = product(len)?;
        kernels::dct2_along_columns { d: &d, half: &half, y, columns, len, inner: w * c }
            .launch(gpu, grid)
    }

    /// The transposed matrix of the transform: what the kernel reads in order.
    fn transposed(gpu: &Gpu, n: usize, inverse: bool) -> Result<Tensor> {
        gpu.constant(&format!("dct2 {n} {inverse}"), &[n, n], || {
            let d = cosine_matrix(n);
            let at = |i: usize| if inverse { i } else { i % n * n + i / n };
            (0..n * n).map(|i| f32::from_f64(d[at(i)])).collect()
        })
    }
}

mod cpu {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{Matrix, cosine_matrix, multiply, multiply_columns};
    use crate::engine::device::{DType, Real};
    use crate::engine::pool::Buffer;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::parallel::{rows, rows_with};
    use crate::ops::simd::{Lane, multiversion};

    pub(super) fn whole<T: Real>(
        inverse: bool,
        [_, h, w, c]: [usize; 4],
        x: &[T],
        y: &mut [T],
    ) -> Result<()> {
        let (vertical, horizontal) = (cosines(h, T::DTYPE), cosines(w, T::DTYPE));
        let (vertical, horizontal) = (vertical.cpu::<T>()?, horizontal.cpu::<T>()?);
        let matrix = |d, n| if inverse { Matrix::new(d, n, n).t() } else { Matrix::new(d, n, n) };
        let mut half = Buffer::<T>::new(x.len());
        rows(&mut half, w * c, |r, half| {
            multiply(half, matrix(horizontal, w), Matrix::new(&x[r * w * c..][..w * c], w, c));
        });
        let image = h * w * c;
        for (y, half) in y.chunks_mut(image.max(1)).zip(half.chunks(image.max(1))) {
            multiply_columns(y, matrix(vertical, h), Matrix::new(half, h, w * c));
        }
        Ok(())
    }

    pub(super) fn blocks<T: Lane>(
        inverse: bool,
        block: usize,
        [_, _, w, c]: [usize; 4],
        x: &[T],
        y: &mut [T],
    ) -> Result<()> {
        let d = cosines(block, T::DTYPE);
        let (d, band) = (d.cpu::<T>()?, block * w * c);
        // In double precision every size takes the general path, so that f32 is compared with it.
        if block == 8 && T::DTYPE == DType::F32 {
            let d = Matrix8 {
                inverse,
                d: std::array::from_fn(|k| std::array::from_fn(|i| d[k * 8 + i])),
            };
            rows_with(y, band, 64 * c, |r, y, half| {
                blocks_of_8(&d, c, &x[r * band..][..band], y, half);
            });
        } else {
            let at = |k: usize, i: usize| if inverse { d[i * block + k] } else { d[k * block + i] };
            rows_with(y, band, band, |r, y, half| {
                let x = &x[r * band..][..band];
                for (half, x) in half.chunks_exact_mut(block * c).zip(x.chunks_exact(block * c)) {
                    mix(half, x, c, block, at);
                }
                mix(y, half, w * c, block, at);
            });
        }
        Ok(())
    }

    /// The left half of `D_8`; the right half is its mirror image, negated in odd rows.
    struct Matrix8<T> {
        inverse: bool,
        d: [[T; 4]; 8],
    }

    /// Channels that [`blocks_of_8`] transforms at once: a 512-bit vector of f32.
    const LANES: usize = 16;

    multiversion! {
        /// Transforms a row of blocks, `x`, to `y`; `half` holds one block of all channels.
        fn blocks_of_8<T, FMA>(d: &Matrix8<T>, c: usize, x: &[T], y: &mut [T], half: &mut [T]) {
            let (stride, row) = (x.len() / 8, 8 * c);
            for left in (0..stride).step_by(row) {
                each::<T, FMA>(d, row, &x[left..], stride, half, row);
                for k in 0..8 {
                    each::<T, FMA>(d, c, &half[k * row..], c, &mut y[k * stride + left..], c);
                }
            }
        }
    }

    /// `len` transforms side by side, of elements `x_stride` apart to elements `y_stride` apart.
    #[inline(always)] // As the body that calls it.
    fn each<T: Lane, const FMA: bool>(
        d: &Matrix8<T>,
        len: usize,
        x: &[T],
        x_stride: usize,
        y: &mut [T],
        y_stride: usize,
    ) {
        let wide = len / LANES * LANES;
        for j in (0..wide).step_by(LANES) {
            eight::<T, FMA, LANES>(d, &x[j..], x_stride, &mut y[j..], y_stride);
        }
        for j in wide..len {
            eight::<T, FMA, 1>(d, &x[j..], x_stride, &mut y[j..], y_stride);
        }
    }

    /// Sums and differences of mirrored elements halve the products.
    #[inline(always)] // As the body that calls it.
    fn eight<T: Lane, const FMA: bool, const L: usize>(
        Matrix8 { inverse, d }: &Matrix8<T>,
        x: &[T],
        x_stride: usize,
        y: &mut [T],
        y_stride: usize,
    ) {
        let zero = [T::default(); L];
        let mut v = [zero; 8];
        for i in 0..8 {
            v[i].copy_from_slice(&x[i * x_stride..][..L]);
        }
        let mut out = [zero; 8];
        if *inverse {
            for i in 0..4 {
                for j in 0..L {
                    let of = |k: usize| (v[k][j], d[k][i]);
                    let even = dot::<T, FMA>([of(0), of(2), of(4), of(6)]);
                    let odd = dot::<T, FMA>([of(1), of(3), of(5), of(7)]);
                    (out[i][j], out[7 - i][j]) = (even + odd, even - odd);
                }
            }
        } else {
            let mut halves = [[zero; 4]; 2];
            for i in 0..4 {
                for j in 0..L {
                    halves[0][i][j] = v[i][j] + v[7 - i][j];
                    halves[1][i][j] = v[i][j] - v[7 - i][j];
                }
            }
            for k in 0..8 {
                for j in 0..L {
                    let of = |i: usize| (halves[k % 2][i][j], d[k][i]);
                    out[k][j] = dot::<T, FMA>([of(0), of(1), of(2), of(3)]);
                }
            }
        }
        for i in 0..8 {
            y[i * y_stride..][..L].copy_from_slice(&out[i]);
        }
    }

    #[inline(always)] // As the body that calls it.
    fn dot<T: Lane, const FMA: bool>([a, b, c, d]: [(T, T); 4]) -> T {
        a.0.fma::<FMA>(a.1, b.0.fma::<FMA>(b.1, c.0.fma::<FMA>(c.1, d.0 * d.1)))
    }

    /// `y[k] = sum of at(k, i) x[i]`, for `b` rows of `len` elements.
    fn mix<T: Real>(y: &mut [T], x: &[T], len: usize, b: usize, at: impl Fn(usize, usize) -> T) {
        for (k, y) in y.chunks_exact_mut(len).enumerate() {
            y.fill(T::default());
            for (i, x) in x.chunks_exact(len).enumerate().take(b) {
                let weight = at(k, i);
                y.iter_mut().zip(x).for_each(|(y, &x)| *y += weight * x);
            }
        }
    }

    /// Sizes whose matrices are kept; a few per model, so that a stream of odd images cannot pile up.
    const KEPT: usize = 16;

    type Cosines = HashMap<(usize, DType), Arc<Tensor>>;

    /// The matrix `D_n` of the [module](super).
    fn cosines(n: usize, dtype: DType) -> Arc<Tensor> {
        static CACHE: Mutex<Option<Cosines>> = Mutex::new(None);
        let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache.get_or_insert_default();
        if cache.len() >= KEPT && !cache.contains_key(&(n, dtype)) {
            cache.clear();
        }
        let matrix = cache
            .entry((n, dtype))
            .or_insert_with(|| Arc::new(Tensor::from_f64(&cosine_matrix(n), &[n, n], dtype)));
        Arc::clone(matrix)
    }
}
