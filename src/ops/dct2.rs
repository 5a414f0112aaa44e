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
        let mut y = Tensor::empty_as(x, x.shape());
        on_device!(x, cpu::<T> => match self.block {
            None => cpu::whole::<T>(self.inverse, dims, x.cpu()?, y.cpu_mut()?)?,
            Some(block) => cpu::blocks::<T>(self.inverse, block, dims, x.cpu()?, y.cpu_mut()?)?,
        });
        Ok(y)
    }
}

/// Whole maps of odd, even and single sizes, blocks on both paths; a decoder level both ways.
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
        case(false, None, &[1, 256, 256, 64]).timed_only(),
        case(false, Some(8), &[1, 128, 128, 64]).timed_only(),
        case(true, Some(8), &[1, 128, 128, 64]).timed_only(),
        case(false, Some(8), &[1, 256, 256, 128]).timed_only(),
    ]
}

mod cpu {
    use std::collections::HashMap;
    use std::f64::consts::PI;
    use std::sync::{Arc, Mutex, PoisonError};

    use super::{Matrix, multiply, multiply_columns};
    use crate::engine::device::{DType, Real};
    use crate::engine::pool::Buffer;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::parallel::{rows, rows_with};

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

    /// Rows of whole blocks at a time: first along W, then along H.
    pub(super) fn blocks<T: Real>(
        inverse: bool,
        b: usize,
        [_, _, w, c]: [usize; 4],
        x: &[T],
        y: &mut [T],
    ) -> Result<()> {
        let d = cosines(b, T::DTYPE);
        let d = d.cpu::<T>()?;
        let at = |k: usize, i: usize| if inverse { d[i * b + k] } else { d[k * b + i] };
        let band = b * w * c;
        rows_with(y, band, band, |r, y, half| {
            let x = &x[r * band..][..band];
            for (half, x) in half.chunks_exact_mut(b * c).zip(x.chunks_exact(b * c)) {
                mix(half, x, c, b, at);
            }
            mix(y, half, w * c, b, at);
        });
        Ok(())
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
        let matrix = cache.entry((n, dtype)).or_insert_with(|| {
            let value = |k: usize, i: usize| {
                let scale = (if k == 0 { 1.0 } else { 2.0 } / n as f64).sqrt();
                // The angle modulo 2 pi in integers: exact however large n is.
                let turn = (2 * i + 1) * k % (4 * n);
                scale * (PI * turn as f64 / (2 * n) as f64).cos()
            };
            let values: Vec<f64> = (0..n * n).map(|at| value(at / n, at % n)).collect();
            Arc::new(Tensor::from_f64(&values, &[n, n], dtype))
        });
        Arc::clone(matrix)
    }
}
