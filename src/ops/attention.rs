//! Scaled dot-product attention of several heads.
//!
//! q, k, v, y: `[N, L, heads d]`, or maps `[N, H, W, heads d]` with `L = H W`; a head is d neighbouring
//! channels. For each image and head:
//!
//! ```text
//! s = q k^T / sqrt(d)     p = softmax of the rows of s     y = p v
//!
//! dv = p^T dy     ds = p (dy v^T - delta) / sqrt(d)     delta_i = y_i . dy_i     dq = ds k     dk = ds^T q
//! ```
//!
//! Forward keeps `lse_i = log sum_j exp(s_ij)`, from which backward recomputes `p = exp(s - lse)`. No
//! matrix of all scores is ever in memory: the CPU works on some rows at a time, a GPU on tiles.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::same_shape;

impl Tape {
    /// The attention of the queries `q` to `k` and `v`, all `[N, L, heads d]` or `[N, H, W, heads d]`.
    pub fn attention(&mut self, q: &Var, k: &Var, v: &Var, heads: usize) -> Result<Var> {
        self.apply(Attention { heads }, &[q, k, v])
    }
}

/// See the [module](self) for the formulas; inputs are q, k and v.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Parts of equal width that the channels fall into.
    pub heads: usize,
}

/// The sizes that every implementation needs.
#[derive(Clone, Copy)]
struct Dims {
    images: usize,
    length: usize,
    heads: usize,
    /// Channels of a head.
    width: usize,
}

impl Dims {
    /// Distance between the rows of a head.
    const fn stride(&self) -> usize {
        self.heads * self.width
    }

    /// `1 / sqrt(d)`. Positive: kernels look for the largest product before they scale it.
    fn scale(&self) -> f64 {
        (self.width as f64).sqrt().recip()
    }

    const fn statistics(&self) -> [usize; 3] {
        [self.images, self.length, self.heads]
    }
}

impl Attention {
    fn dims(self, q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Dims> {
        same_shape("attention", q, k)?;
        same_shape("attention", q, v)?;
        let [images, length, channels] = rows(q.shape());
        match self.heads {
            heads @ 1.. if channels > 0 && channels.is_multiple_of(heads) => {
                Ok(Dims { images, length, heads, width: channels / heads })
            }
            _ => Err(Error::shape("attention", format!("[N, L, {} d]", self.heads), q.shape())),
        }
    }
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [q, k, v] = *inputs else { unreachable!("attention takes three inputs") };
        let d = self.dims(q, k, v)?;
        let mut y = Tensor::empty_as(q, q.shape())?;
        let lse = on_device!(q,
            cpu::<T> => {
                let mut lse = Tensor::empty_as(q, &d.statistics())?;
                let inputs = [q.cpu::<T>()?, k.cpu()?, v.cpu()?];
                cpu::forward(&d, inputs, y.cpu_mut()?, lse.cpu_mut()?);
                lse
            },
            cuda(gpu) => cuda::forward(&gpu, &d, [q, k, v], &mut y)?,
        );
        Ok((y, vec![lse]))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [q, k, v] = *call.inputs else { unreachable!("attention takes three inputs") };
        let d = self.dims(q, k, v)?;
        let (y, lse) = (call.output, &call.saved[0]);
        let empty = || Tensor::empty_as(q, q.shape());
        let mut gradients = [empty()?, empty()?, empty()?];
        on_device!(q,
            cpu::<T> => {
                let inputs = [q.cpu::<T>()?, k.cpu()?, v.cpu()?];
                let mut delta = Tensor::empty_as(q, &d.statistics())?;
                cpu::deltas::<T>(&d, y.cpu()?, dy.cpu()?, delta.cpu_mut()?);
                let statistics = [lse.cpu()?, delta.cpu()?];
                let [dq, dk, dv] = &mut gradients;
                cpu::query_gradient(&d, inputs, statistics, dy.cpu()?, dq.cpu_mut()?);
                let (dk, dv) = (dk.cpu_mut()?, dv.cpu_mut()?);
                cpu::key_gradients(&d, inputs, statistics, dy.cpu()?, dk, dv);
            },
            cuda(gpu) => cuda::backward(&gpu, &d, [q, k, v], y, lse, dy, &mut gradients)?,
        );
        Ok(gradients.into_iter().map(Some).collect())
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let [images, length, channels] = rows(inputs[0]);
        4 * (images * length * length * channels) as u64
    }
}

/// Images, rows of an image and channels of `[N, L, C]` or `[N, H, W, C]`; zeros for other ranks.
const fn rows(shape: &[usize]) -> [usize; 3] {
    match *shape {
        [images, length, channels] => [images, length, channels],
        [images, height, width, channels] => [images, height * width, channels],
        _ => [0; 3],
    }
}

/// A map, one row, narrow and wide heads, lengths that fill tiles and that do not, heads that fill packs of 16 bits, of
/// 32 bits alone and of none; a UNet's map of 32 x 32.
pub fn cases() -> Vec<OpCase> {
    let case = |heads: usize, shape: [usize; 3]| {
        OpCase::new(move || Attention { heads }, &[&shape, &shape, &shape])
    };
    let map = [2, 2, 3, 8];
    vec![
        OpCase::new(|| Attention { heads: 2 }, &[&map, &map, &map]),
        case(1, [1, 5, 3]),
        case(2, [2, 7, 8]),
        case(3, [1, 1, 6]),
        case(1, [1, 9, 8]),
        case(2, [2, 70, 32]).kernel_only(),
        case(1, [1, 130, 40]).kernel_only(),
        case(2, [1, 67, 128]).kernel_only(),
        case(1, [1, 65, 128]).kernel_only(),
        case(2, [1, 33, 40]).kernel_only(),
        case(1, [1, 64, 64]).kernel_only(),
        case(3, [2, 67, 24]).kernel_only(),
        case(2, [2, 130, 128]).kernel_only(),
        case(1, [1, 128, 96]).kernel_only(),
        case(2, [2, 66, 136]).kernel_only(),
        case(2, [1, 70, 74]).kernel_only(),
        case(1, [1, 40, 256]).kernel_only(),
        case(1, [2, 37, 512]).kernel_only(),
        case(1, [1, 19, 300]).kernel_only(),
        case(4, [1, 1024, 256]).timed_only(),
    ]
}

mod cpu {
    use super::Dims;
    use crate::engine::device::Real;
    use crate::engine::threads::pieces2;
    use crate::ops::parallel;
    use crate::ops::product::{Matrix, add_product, multiply};

    /// Rows of scores that a task holds.
    const ROWS: usize = 64;

    /// `rows` rows of head `h` of image `n`, from `first` on.
    fn rows_of<'a, T: Real>(
        d: &Dims,
        x: &'a [T],
        n: usize,
        h: usize,
        first: usize,
        rows: usize,
    ) -> Matrix<'a, T> {
        let at = (n * d.length + first) * d.stride() + h * d.width;
        Matrix::strided(&x[at..], [rows, d.width], [d.stride(), 1])
    }

    /// The products of `rows` rows of `a`, from `first` on, with all rows of `b`.
    fn products<T: Real>(
        d: &Dims,
        a: &[T],
        b: &[T],
        (n, h, first, rows): (usize, usize, usize, usize),
    ) -> Vec<T> {
        let mut s = vec![T::default(); rows * d.length];
        let all = rows_of(d, b, n, h, 0, d.length);
        multiply(&mut s, rows_of(d, a, n, h, first, rows), all.t());
        s
    }

    /// Runs `f` on the parts of `y` and `z` that belong to the rows from `first` on of image `n`.
    fn blocks<T: Real>(
        d: &Dims,
        y: &mut [T],
        z: &mut [T],
        f: impl Fn(usize, usize, &mut [T], &mut [T]) + Sync,
    ) {
        let per_row = z.len() / (d.images * d.length);
        let strides = [d.stride(), per_row];
        pieces2(y, z, strides.map(|s| d.length * s), |n, y, z| {
            pieces2(y, z, strides.map(|s| ROWS * s), |block, y, z| f(n, block * ROWS, y, z));
        });
    }

    pub(super) fn forward<T: Real>(d: &Dims, [q, k, v]: [&[T]; 3], y: &mut [T], lse: &mut [T]) {
        let scale = T::from_f64(d.scale());
        blocks(d, y, lse, |n, first, y, lse| {
            let rows = y.len() / d.stride();
            y.fill(T::default());
            for h in 0..d.heads {
                let mut p = products(d, q, k, (n, h, first, rows));
                for (i, p) in p.chunks_exact_mut(d.length).enumerate() {
                    lse[i * d.heads + h] = softmax(p, scale);
                }
                let p = Matrix::new(&p, rows, d.length);
                add_product(&mut y[h * d.width..], d.stride(), p, rows_of(d, v, n, h, 0, d.length));
            }
        });
    }

    /// Turns products into probabilities and returns the logarithm of what they were divided by.
    fn softmax<T: Real>(row: &mut [T], scale: T) -> T {
        let larger = |a: T, &b: &T| if b > a { b } else { a };
        let most = row.iter().fold(row[0], larger) * scale;
        row.iter_mut().for_each(|s| *s = (*s * scale - most).exp());
        let total: T = row.iter().copied().sum();
        row.iter_mut().for_each(|p| *p = *p / total);
        most + T::from_f64(total.to_f64().ln())
    }

    pub(super) fn deltas<T: Real>(d: &Dims, y: &[T], dy: &[T], delta: &mut [T]) {
        parallel::rows(delta, 1, |at, delta| {
            let part = at * d.width..(at + 1) * d.width;
            delta[0] = y[part.clone()].iter().zip(&dy[part]).map(|(&y, &dy)| y * dy).sum();
        });
    }

    pub(super) fn query_gradient<T: Real>(
        d: &Dims,
        [q, k, v]: [&[T]; 3],
        [lse, delta]: [&[T]; 2],
        dy: &[T],
        dq: &mut [T],
    ) {
        let scale = T::from_f64(d.scale());
        blocks(d, dq, &mut vec![T::default(); lse.len()], |n, first, dq, _| {
            let rows = dq.len() / d.stride();
            dq.fill(T::default());
            for h in 0..d.heads {
                let part = (n, h, first, rows);
                let (mut s, dp) = (products(d, q, k, part), products(d, dy, v, part));
                let of_rows = s.chunks_exact_mut(d.length).zip(dp.chunks_exact(d.length));
                for (i, (s, dp)) in of_rows.enumerate() {
                    let at = (n * d.length + first + i) * d.heads + h;
                    for (s, &dp) in s.iter_mut().zip(dp) {
                        *s = (*s * scale - lse[at]).exp() * (dp - delta[at]) * scale;
                    }
                }
                let ds = Matrix::new(&s, rows, d.length);
                let k = rows_of(d, k, n, h, 0, d.length);
                add_product(&mut dq[h * d.width..], d.stride(), ds, k);
            }
        });
    }

    pub(super) fn key_gradients<T: Real>(
        d: &Dims,
        [q, k, v]: [&[T]; 3],
        [lse, delta]: [&[T]; 2],
        dy: &[T],
        dk: &mut [T],
        dv: &mut [T],
    ) {
        let scale = T::from_f64(d.scale());
        blocks(d, dk, dv, |n, first, dk, dv| {
            let rows = dk.len() / d.stride();
            dk.fill(T::default());
            dv.fill(T::default());
            for h in 0..d.heads {
                // Both transposed: a row is a key.
                let part = (n, h, first, rows);
                let (mut p, mut ds) = (products(d, k, q, part), products(d, v, dy, part));
                for (at, (p, ds)) in p.iter_mut().zip(&mut ds).enumerate() {
                    let query = (n * d.length + at % d.length) * d.heads + h;
                    *p = (*p * scale - lse[query]).exp();
                    *ds = *p * (*ds - delta[query]) * scale;
                }
                let weights = |w| Matrix::new(w, rows, d.length);
                let (q, dy) = (rows_of(d, q, n, h, 0, d.length), rows_of(d, dy, n, h, 0, d.length));
                add_product(&mut dv[h * d.width..], d.stride(), weights(&p), dy);
                add_product(&mut dk[h * d.width..], d.stride(), weights(&ds), q);
            }
        });
    }
}

mod cuda {
    use super::Dims;
    use crate::engine::cuda::{Gpu, Grid, kernels, launch_one_of};
    use crate::engine::device::{DType, Real};
    use crate::engine::tensor::Tensor;
    use crate::error::{Error, Result};
    use crate::ops::conv2d::cuda::check_dtype;

    /// What kernels there are by the width of heads.
    #[derive(Clone, Copy)]
    enum By {
        /// Tiles of heads that fill packs of 16 bytes: tensor cores, or exact f32. Up to 64 channels.
        Tiles64,
        /// The same, up to 128.
        Tiles128,
        /// Rows of any type and up to 256 channels.
        Rows,
        /// The same, up to 512.
        WideRows,
    }

    /// Which kernels do heads of this type and width, and how they are started.
    fn strategy(gpu: &Gpu, d: &Dims, dtype: DType) -> Result<(By, Grid)> {
        check_dtype(gpu, "attention", dtype)?;
        let grid = |rows, threads| Grid::new([d.length.div_ceil(rows), d.heads, d.images], threads);
        let packed = d.width.is_multiple_of(16 / dtype.size());
        match d.width {
            ..=64 if packed => Ok((By::Tiles64, grid(64, 128))),
            ..=128 if packed => Ok((By::Tiles128, grid(64, 128))),
            // A tile of 32 padded rows, and two own rows for each of 8 warps.
            0..=256 => Ok((By::Rows, grid(8, 256).shared(4 * (32 * (d.width + 1) + 16 * d.width)))),
            // A tile of 16 padded rows, and 4 warps.
            257..=512 => {
                Ok((By::WideRows, grid(4, 128).shared(4 * (16 * (d.width + 1) + 8 * d.width))))
            }
            width => {
                let what = format!("heads of {width} channels on a GPU; at most 512");
                Err(Error::Unsupported { op: "attention", what })
            }
        }
    }

    /// Computes `y` and returns the statistics.
    pub(super) fn forward(
        gpu: &Gpu,
        d: &Dims,
        [q, k, v]: [&Tensor; 3],
        y: &mut Tensor,
    ) -> Result<Tensor> {
        let mut lse = Tensor::empty_on(&y.device(), DType::F32, &d.statistics())?;
        let (by, grid) = strategy(gpu, d, y.dtype())?;
        let Dims { length, heads, width, .. } = *d;
        let scale = f32::from_f64(d.scale());
        launch_one_of!(gpu, grid, match by {
            By::Tiles64 => attention_forward_64,
            By::Tiles128 => attention_forward_128,
            By::Rows => attention_forward_any,
            By::WideRows => attention_forward_wide,
        } { q, k, v, y, lse: &mut lse, length, heads, d: width, scale })?;
        Ok(lse)
    }

    pub(super) fn backward(
        gpu: &Gpu,
        d: &Dims,
        [q, k, v]: [&Tensor; 3],
        y: &Tensor,
        lse: &Tensor,
        dy: &Tensor,
        [dq, dk, dv]: &mut [Tensor; 3],
    ) -> Result<()> {
        let mut delta = Tensor::empty_on(&y.device(), DType::F32, &d.statistics())?;
        let rows = delta.len();
        let Dims { length, heads, width, .. } = *d;
        kernels::attention_delta { y, dy, delta: &mut delta, rows, d: width }
            .launch(gpu, Grid::elements(32 * rows))?;
        let (delta, scale) = (&delta, f32::from_f64(d.scale()));
        let (by, grid) = strategy(gpu, d, y.dtype())?;
        launch_one_of!(gpu, grid, match by {
            By::Tiles64 => attention_queries_64,
            By::Tiles128 => attention_queries_128,
            By::Rows => attention_queries_any,
            By::WideRows => attention_queries_wide,
        } { q, k, v, dy, lse, delta, dq, length, heads, d: width, scale })?;
        launch_one_of!(gpu, grid, match by {
            By::Tiles64 => attention_keys_64,
            By::Tiles128 => attention_keys_128,
            By::Rows => attention_keys_any,
            By::WideRows => attention_keys_wide,
        } { q, k, v, dy, lse, delta, dk, dv, length, heads, d: width, scale })
    }
}
