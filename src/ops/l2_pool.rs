//! Root mean squares of 3x3 windows at stride 2, weighted by a Hann window: a pooling that aliases less than
//! maxima do (Ding et al. 2020, section 3.1).
//!
//! ```text
//! y[n,i,j,c] = sqrt(sum over a, b of g[a] g[b] x[n,2i+a-1,2j+b-1,c]^2 + 1e-12),    g = (1/4, 1/2, 1/4)
//! dx[p] = x[p] * sum of g[a] g[b] dy / y over the windows that p is in
//! ```
//!
//! Beyond the edges x is zero. The constant is the published one; it keeps the slope finite at zero.
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// Hann-weighted L2 pooling of `[N, H, W, C]` at stride 2, sides rounded up.
    pub fn l2_pool(&mut self, x: &Var) -> Result<Var> {
        self.apply(L2Pool, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct L2Pool;

impl Op for L2Pool {
    fn name(&self) -> &'static str {
        "l2_pool"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("l2_pool takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h * w == 0 {
            return Err(Error::shape(self.name(), "at least one pixel", x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, h.div_ceil(2), w.div_ceil(2), c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let (count, dtype) = (y.len(), y.dtype());
                kernels::l2_pool_forward { x, y: &mut y, n: count, h, w, c }
                    .launch(&gpu, Grid::packs(count, dtype))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let ([x], y) = (call.inputs, call.output) else { unreachable!("l2_pool takes one input") };
        let dims @ [_, h, w, c] = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(dims, x.cpu()?, [y.cpu()?, dy.cpu()?], dx.cpu_mut()?),
            cuda(gpu) => {
                let (count, dtype) = (dx.len(), dx.dtype());
                kernels::l2_pool_backward { x, y, dy, dx: &mut dx, n: count, h, w, c }
                    .launch(&gpu, Grid::packs(count, dtype))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Even and odd sides, one pixel, one row, whole packs; the first maps of a training batch.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| L2Pool, &[&[2, 5, 6, 3]]),
        OpCase::new(|| L2Pool, &[&[2, 4, 7, 1]]),
        OpCase::new(|| L2Pool, &[&[1, 1, 1, 2]]).inputs(0.5, 1.0),
        OpCase::new(|| L2Pool, &[&[1, 1, 5, 2]]),
        OpCase::new(|| L2Pool, &[&[1, 5, 4, 8]]),
        OpCase::new(|| L2Pool, &[&[4, 128, 128, 64]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::rows_with;
    use crate::ops::simd::{Lane, multiversion};

    const WINDOW: [f64; 3] = [0.25, 0.5, 0.25];
    const CONSTANT: f64 = 1e-12;

    pub(super) fn forward<T: Lane>([_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
        // The weighted squares of a column of three pixels, then those of a row.
        rows_with(y, ow * c, w * c, |r, y, columns| {
            let (n, i) = (r / oh, r % oh);
            columns.fill(T::default());
            for (a, g) in WINDOW.into_iter().enumerate() {
                if let Some(row) = (2 * i + a).checked_sub(1).filter(|&row| row < h) {
                    add_squares(T::from_f64(g), &x[(n * h + row) * w * c..][..w * c], columns);
                }
            }
            y.fill(T::from_f64(CONSTANT));
            for (j, y) in y.chunks_exact_mut(c).enumerate() {
                for (b, g) in WINDOW.into_iter().enumerate() {
                    if let Some(at) = (2 * j + b).checked_sub(1).filter(|&at| at < w) {
                        add_scaled(T::from_f64(g), &columns[at * c..][..c], y);
                    }
                }
            }
            y.iter_mut().for_each(|y| *y = root(*y));
        });
    }

    fn root<T: Real>(v: T) -> T {
        T::from_f64(v.to_f64().sqrt())
    }

    pub(super) fn backward<T: Lane>(
        [_, h, w, c]: [usize; 4],
        x: &[T],
        [y, dy]: [&[T]; 2],
        dx: &mut [T],
    ) {
        let (oh, ow) = (h.div_ceil(2), w.div_ceil(2));
        // dy / y over the rows of windows that this row is in, then over their columns.
        rows_with(dx, w * c, ow * c, |r, dx, slopes| {
            let (n, row) = (r / h, r % h);
            slopes.fill(T::default());
            for i in [row / 2, row.div_ceil(2)].into_iter().take(1 + row % 2).filter(|&i| i < oh) {
                let at = (n * oh + i) * ow * c;
                let g = T::from_f64(WINDOW[row + 1 - 2 * i]);
                add_quotient(g, [&dy[at..][..ow * c], &y[at..][..ow * c]], slopes);
            }
            for (p, dx) in dx.chunks_exact_mut(c).enumerate() {
                dx.fill(T::default());
                for j in [p / 2, p.div_ceil(2)].into_iter().take(1 + p % 2).filter(|&j| j < ow) {
                    add_scaled(T::from_f64(WINDOW[p + 1 - 2 * j]), &slopes[j * c..][..c], dx);
                }
            }
            let x = &x[r * w * c..][..w * c];
            dx.iter_mut().zip(x).for_each(|(dx, &x)| *dx = *dx * x);
        });
    }

    multiversion! {
        /// `y += g x^2`.
        fn add_squares<T, FMA>(g: T, x: &[T], y: &mut [T]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = (g * x).fma::<FMA>(x, *y);
            }
        }
    }

    multiversion! {
        /// `y += g x`.
        fn add_scaled<T, FMA>(g: T, x: &[T], y: &mut [T]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = g.fma::<FMA>(x, *y);
            }
        }
    }

    multiversion! {
        /// `y += g a / b`.
        fn add_quotient<T, FMA>(g: T, ab: [&[T]; 2], y: &mut [T]) {
            for (y, (&a, &b)) in y.iter_mut().zip(ab[0].iter().zip(ab[1])) {
                *y = g.fma::<FMA>(a / b, *y);
            }
        }
    }
}
