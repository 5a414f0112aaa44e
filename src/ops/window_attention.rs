//! Attention within the windows of a map (Swin, Liu et al. 2021, section 3.2).
//!
//! qkv: `[N, H, W, 3 C]`, the queries, then keys, then values of all heads; table: `[(2 w - 1)^2, heads]`;
//! y: `[N, H, W, C]`; a head is d neighbouring channels. Windows are `w x w` pixels; with a shift `s` they
//! start at `(s, s)` and those at the lower and right edge go on at the upper and left one. For the pixels
//! i and j of a window and each head:
//!
//! ```text
//! s_ij = q_i . k_j / sqrt(d) + table[(yi - yj + w - 1) (2 w - 1) + xi - xj + w - 1] + m_ij
//! m_ij = -100 where the mask hides i and j from each other, else 0
//! p    = softmax of the rows of s     y = p v
//!
//! dv = p^T dy     ds = p (dy v^T - delta)     delta_i = sum_j p_ij dy_i . v_j
//! dq = ds k / sqrt(d)     dk = ds^T q / sqrt(d)     dtable = the sum of ds over all that read an entry
//! ```
//!
//! Nothing is kept for backward, which computes p again, and no map is rolled: pixels are found by index.
use serde::{Deserialize, Serialize};

use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The attention of `qkv` `[N, H, W, 3 C]` within windows, with the biases `table`.
    pub fn window_attention(
        &mut self,
        qkv: &Var,
        table: &Var,
        windows: WindowAttention,
    ) -> Result<Var> {
        self.apply(windows, &[qkv, table])
    }
}

/// See the [module](self) for the formulas; inputs are qkv and the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowAttention {
    /// Parts of equal width that the channels fall into.
    pub heads: usize,
    /// Side of a window in pixels; divides height and width.
    pub window: usize,
    /// How far windows are shifted down and to the right; less than `window`.
    pub shift: usize,
    /// Which pixels of a shifted window do not see each other.
    pub mask: Mask,
}

/// Which pixels of a shifted window do not see each other; of windows inside the map all do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// Those of a window at the lower edge whose columns are not both left or both right of `w - s`: the
    /// code of ResShift takes columns for rows and leaves out the right edge, and its weights are used
    /// to that.
    #[default]
    Published,
    /// Those between which the lower or the right edge of the map runs, as Swin describes it.
    Edges,
}

/// The sizes that every implementation needs.
#[derive(Clone, Copy)]
struct Dims {
    images: usize,
    height: usize,
    width: usize,
    /// Of all heads together.
    channels: usize,
    heads: usize,
    window: usize,
    shift: usize,
    mask: Mask,
}

impl Dims {
    /// Channels of a head.
    const fn head(&self) -> usize {
        self.channels / self.heads
    }

    /// Pixels of a window.
    const fn pixels(&self) -> usize {
        self.window * self.window
    }

    /// Rows of the table.
    const fn entries(&self) -> usize {
        (2 * self.window - 1) * (2 * self.window - 1)
    }

    /// The row of the table for pixels `i` and `j` of a window.
    const fn entry(&self, i: usize, j: usize) -> usize {
        let w = self.window;
        (i / w + w - 1 - j / w) * (2 * w - 1) + i % w + w - 1 - j % w
    }

    /// `1 / sqrt(d)`.
    fn scale(&self) -> f64 {
        (self.head() as f64).sqrt().recip()
    }
}

impl WindowAttention {
    fn dims(self, qkv: &Tensor, table: &Tensor) -> Result<Dims> {
        const OP: &str = "window_attention";
        let [images, height, width, channels] = qkv.nhwc(OP)?;
        let Self { heads, window, shift, mask } = self;
        if heads == 0 || channels == 0 || !channels.is_multiple_of(3 * heads) {
            return Err(Error::shape(OP, format!("[N, H, W, 3 x {heads} d]"), qkv.shape()));
        }
        let fits = |side: usize| side > 0 && side.is_multiple_of(window);
        if shift >= window || !fits(height) || !fits(width) {
            let wanted = format!("H and W divisible by windows of {window}, shifted by {shift}");
            return Err(Error::shape(OP, wanted, qkv.shape()));
        }
        let channels = channels / 3;
        let d = Dims { images, height, width, channels, heads, window, shift, mask };
        if table.shape() != [d.entries(), heads] {
            let wanted = format!("a table of [{}, {heads}]", d.entries());
            return Err(Error::shape(OP, wanted, table.shape()));
        }
        Ok(d)
    }
}

impl Op for WindowAttention {
    fn name(&self) -> &'static str {
        "window_attention"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [qkv, table] = *inputs else { unreachable!("window_attention takes two inputs") };
        let d = self.dims(qkv, table)?;
        let mut y = Tensor::empty_as(qkv, &[d.images, d.height, d.width, d.channels])?;
        on_device!(qkv,
            cpu::<T> => cpu::forward::<T>(&d, qkv.cpu()?, table.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::forward(&gpu, &d, qkv, table, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [qkv, table] = *call.inputs else { unreachable!("window_attention takes two inputs") };
        let d = self.dims(qkv, table)?;
        let mut dqkv = Tensor::empty_as(qkv, qkv.shape())?;
        let mut dtable = Tensor::empty_as(table, table.shape())?;
        on_device!(qkv,
            cpu::<T> => {
                let inputs = [qkv.cpu::<T>()?, table.cpu()?, dy.cpu()?];
                cpu::backward(&d, inputs, dqkv.cpu_mut()?, dtable.cpu_mut()?);
            },
            cuda(gpu) => cuda::backward(&gpu, &d, [qkv, table, dy], &mut dqkv, &mut dtable)?,
        );
        Ok(vec![Some(dqkv), Some(dtable)])
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let tokens: usize = inputs[0][..3].iter().product();
        4 * (tokens * self.window * self.window * inputs[0][3] / 3) as u64
    }
}

/// One window, several, shifted, over the edge on both axes; windows of one pixel and of odd sides; the
/// largest maps of ResShift.
pub fn cases() -> Vec<OpCase> {
    let case = |heads: usize, window: usize, shift: usize, [n, h, w, c]: [usize; 4]| {
        let table = [(2 * window - 1) * (2 * window - 1), heads];
        let mask = if n == 1 { Mask::Published } else { Mask::Edges };
        let op = WindowAttention { heads, window, shift, mask };
        OpCase::new(move || op, &[&[n, h, w, 3 * c], &table])
    };
    vec![
        case(1, 2, 0, [1, 2, 2, 3]),
        case(2, 2, 0, [2, 4, 6, 4]),
        case(2, 2, 1, [2, 6, 4, 4]),
        case(1, 4, 2, [1, 4, 8, 2]),
        case(3, 3, 1, [1, 6, 3, 6]),
        case(2, 1, 0, [1, 3, 2, 4]),
        case(2, 8, 0, [1, 8, 16, 64]).kernel_only(),
        case(2, 8, 4, [2, 24, 16, 64]).kernel_only(),
        case(1, 7, 3, [1, 14, 7, 40]).kernel_only(),
        case(6, 8, 4, [1, 64, 64, 192]).timed_only(),
    ]
}

mod cpu {
    use super::{Dims, Mask};
    use crate::engine::device::Real;
    use crate::engine::threads::map_pieces;
    use crate::ops::product::{Matrix, multiply};

    /// One window of an image. `band` counts windows downwards, `column` to the right.
    #[derive(Clone, Copy)]
    struct Window<'a> {
        d: &'a Dims,
        image: usize,
        band: usize,
        column: usize,
    }

    impl Window<'_> {
        /// Row and column of pixel `i` in the map.
        const fn place(&self, i: usize) -> [usize; 2] {
            let w = self.d.window;
            let (row, column) = (self.band * w + i / w, self.column * w + i % w);
            [(row + self.d.shift) % self.d.height, (column + self.d.shift) % self.d.width]
        }

        /// Where pixel `i` lies as the mask has it: two that differ do not see each other.
        fn side(&self, i: usize) -> [bool; 2] {
            let (w, shift) = (self.d.window, self.d.shift);
            let below = |row| self.band * w + row + shift >= self.d.height;
            match self.d.mask {
                Mask::Published => [below(i % w), false],
                Mask::Edges => [below(i / w), self.column * w + i % w + shift >= self.d.width],
            }
        }

        /// The `[pixels, d]` channels from `from` on, out of `[N, H, W, stride]`.
        fn gather<T: Real>(&self, x: &[T], stride: usize, from: usize) -> Vec<T> {
            let d = self.d;
            let mut rows = Vec::with_capacity(d.pixels() * d.head());
            for i in 0..d.pixels() {
                let [row, column] = self.place(i);
                let pixel = (self.image * d.height + row) * d.width + column;
                rows.extend_from_slice(&x[pixel * stride + from..][..d.head()]);
            }
            rows
        }

        /// The reverse of `gather`, into the rows of the map that this band covers.
        fn scatter<T: Real>(&self, from: &[T], rows: &mut [&mut [T]], stride: usize, at: usize) {
            for (i, from) in from.chunks_exact(self.d.head()).enumerate() {
                let column = self.place(i)[1];
                rows[i / self.d.window][column * stride + at..][..from.len()].copy_from_slice(from);
            }
        }

        /// The probabilities `[pixels, pixels]` of queries `q` and keys `k`.
        fn probabilities<T: Real>(&self, q: &[T], k: &[T], bias: &[T]) -> Vec<T> {
            let (d, n) = (self.d, self.d.pixels());
            let mut p = vec![T::default(); n * n];
            multiply(&mut p, Matrix::new(q, n, d.head()), Matrix::new(k, n, d.head()).t());
            let scale = T::from_f64(d.scale());
            p.iter_mut().zip(bias).for_each(|(s, &bias)| *s = *s * scale + bias);
            let sides: Vec<[bool; 2]> = (0..n).map(|i| self.side(i)).collect();
            if sides.iter().any(|side| *side != sides[0]) {
                let hidden = T::from_f64(-100.0);
                for (s, at) in p.iter_mut().zip(0..) {
                    if sides[at / n] != sides[at % n] {
                        *s += hidden;
                    }
                }
            }
            p.chunks_exact_mut(n).for_each(softmax);
            p
        }
    }

    fn softmax<T: Real>(row: &mut [T]) {
        let larger = |a: T, &b: &T| if b > a { b } else { a };
        let most = row.iter().fold(row[0], larger);
        row.iter_mut().for_each(|s| *s = (*s - most).exp());
        let total: T = row.iter().copied().sum();
        row.iter_mut().for_each(|p| *p = *p / total);
    }

    /// The biases of all pairs of pixels, `[heads, pixels, pixels]`.
    fn biases<T: Real>(d: &Dims, table: &[T]) -> Vec<T> {
        let n = d.pixels();
        let of_head = |h| (0..n * n).map(move |at| table[d.entry(at / n, at % n) * d.heads + h]);
        (0..d.heads).flat_map(of_head).collect()
    }

    /// Runs `f` on every band of windows with the rows of `y` that it covers, `stride` channels a pixel.
    fn bands<T: Real, R: Send>(
        d: &Dims,
        y: &mut [T],
        stride: usize,
        f: impl Fn(&[Window<'_>], &mut [&mut [T]]) -> R + Sync,
    ) -> Vec<R> {
        let mut rows: Vec<&mut [T]> = y.chunks_mut(d.width * stride).collect();
        rows.chunks_mut(d.height).for_each(|image| image.rotate_left(d.shift));
        let per_image = d.height / d.window;
        map_pieces(&mut rows, d.window, |i, rows| {
            let window = |column| Window { d, image: i / per_image, band: i % per_image, column };
            f(&(0..d.width / d.window).map(window).collect::<Vec<_>>(), rows)
        })
    }

    pub(super) fn forward<T: Real>(d: &Dims, qkv: &[T], table: &[T], y: &mut [T]) {
        let (n, c) = (d.pixels(), d.channels);
        let bias = biases(d, table);
        bands(d, y, c, |windows, rows| {
            let mut out = vec![T::default(); n * d.head()];
            for window in windows {
                for h in 0..d.heads {
                    let part = |which| window.gather(qkv, 3 * c, which * c + h * d.head());
                    let [q, k, v] = [part(0), part(1), part(2)];
                    let p = window.probabilities(&q, &k, &bias[h * n * n..]);
                    multiply(&mut out, Matrix::new(&p, n, n), Matrix::new(&v, n, d.head()));
                    window.scatter(&out, rows, c, h * d.head());
                }
            }
        });
    }

    pub(super) fn backward<T: Real>(
        d: &Dims,
        [qkv, table, dy]: [&[T]; 3],
        dqkv: &mut [T],
        dtable: &mut [T],
    ) {
        let bias = biases(d, table);
        let partial = bands(d, dqkv, 3 * d.channels, |windows, rows| {
            let mut sums = vec![0.0; dtable.len()];
            for window in windows {
                for h in 0..d.heads {
                    backward_head(window, h, [qkv, &bias, dy], rows, &mut sums);
                }
            }
            sums
        });
        for (i, sum) in dtable.iter_mut().enumerate() {
            *sum = T::from_f64(partial.iter().map(|p| p[i]).sum());
        }
    }

    /// The gradients of one head of one window; adds those of the table to `sums`.
    fn backward_head<T: Real>(
        window: &Window<'_>,
        h: usize,
        [qkv, bias, dy]: [&[T]; 3],
        rows: &mut [&mut [T]],
        sums: &mut [f64],
    ) {
        let d = window.d;
        let (n, c, width) = (d.pixels(), d.channels, d.head());
        let part = |which| window.gather(qkv, 3 * c, which * c + h * width);
        let [q, k, v] = [part(0), part(1), part(2)];
        let dy = window.gather(dy, c, h * width);
        let matrix = |x| Matrix::new(x, n, width);
        let p = window.probabilities(&q, &k, &bias[h * n * n..]);
        let mut ds = vec![T::default(); n * n];
        multiply(&mut ds, matrix(&dy), matrix(&v).t());
        for (ds, p) in ds.chunks_exact_mut(n).zip(p.chunks_exact(n)) {
            let delta: T = ds.iter().zip(p).map(|(&ds, &p)| ds * p).sum();
            ds.iter_mut().zip(p).for_each(|(ds, &p)| *ds = p * (*ds - delta));
        }
        for (at, ds) in ds.iter().enumerate() {
            sums[d.entry(at / n, at % n) * d.heads + h] += ds.to_f64();
        }
        let (p, weights) = (Matrix::new(&p, n, n), Matrix::new(&ds, n, n));
        let mut out = vec![T::default(); n * width];
        let scale = T::from_f64(d.scale());
        let products =
            [(weights, &k, scale), (weights.t(), &q, scale), (p.t(), &dy, T::from_f64(1.0))];
        for (which, (weights, x, factor)) in products.into_iter().enumerate() {
            multiply(&mut out, weights, matrix(x));
            out.iter_mut().for_each(|v| *v = *v * factor);
            window.scatter(&out, rows, 3 * c, which * c + h * width);
        }
    }
}

mod cuda {
    use super::{Dims, Mask};
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::{DType, Real};
    use crate::engine::tensor::Tensor;
    use crate::error::{Error, Result};
    use crate::ops::conv2d::cuda::check_dtype;
    use crate::ops::conv2d::cuda_weights::sum_rows;

    /// A block for each window and head, with `tiles` maps of a head and a matrix of scores in its memory.
    fn grid(gpu: &Gpu, d: &Dims, dtype: DType, tiles: usize) -> Result<Grid> {
        check_dtype(gpu, "window_attention", dtype)?;
        let shared = 4 * d.pixels() * (tiles * (d.head() + 1) + d.pixels() + 1);
        if d.pixels() > 64 || shared > 64 << 10 {
            let (w, c) = (d.window, d.head());
            let what = format!("windows of {w} pixels a side with heads of {c} channels on a GPU");
            return Err(Error::Unsupported { op: "window_attention", what });
        }
        let windows = d.height / d.window * (d.width / d.window);
        Ok(Grid::new([windows, d.heads, d.images], 256).shared(shared))
    }

    pub(super) fn forward(
        gpu: &Gpu,
        d: &Dims,
        qkv: &Tensor,
        table: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let grid = grid(gpu, d, y.dtype(), 3)?;
        let Dims { height: h, width: w, channels: c, window: side, shift, mask, .. } = *d;
        let (edges, scale) = ((mask == Mask::Edges).into(), f32::from_f64(d.scale()));
        kernels::window_attention_forward { qkv, table, y, h, w, c, side, shift, edges, scale }
            .launch(gpu, grid)
    }

    pub(super) fn backward(
        gpu: &Gpu,
        d: &Dims,
        [qkv, table, dy]: [&Tensor; 3],
        dqkv: &mut Tensor,
        dtable: &mut Tensor,
    ) -> Result<()> {
        let grid = grid(gpu, d, dy.dtype(), 4)?;
        let windows = d.images * d.height * d.width / d.pixels();
        let shape = [windows, d.entries(), d.heads];
        let mut partial = Tensor::empty_on(&dy.device(), DType::F32, &shape)?;
        let Dims { height: h, width: w, channels: c, window: side, shift, mask, .. } = *d;
        kernels::window_attention_backward {
            qkv,
            table,
            dy,
            dqkv,
            partial: &mut partial,
            h,
            w,
            c,
            side,
            shift,
            edges: (mask == Mask::Edges).into(),
            scale: f32::from_f64(d.scale()),
        }
        .launch(gpu, grid)?;
        sum_rows(gpu, &partial, dtable)
    }
}
