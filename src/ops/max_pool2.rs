//! The largest value of every 2x2 window; an odd last row or column is dropped.
//!
//! ```text
//! y[n,i,j,c] = max of x[n,2i+a,2j+b,c] over a, b in {0, 1}
//! dx = dy at the largest of each window (the first in row-major order), 0 elsewhere
//! ```
//!
//! Nothing is saved: backward finds the largest again, which costs less than an index in memory.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// 2x2 maxima of `[N, H, W, C]` at stride 2: `[N, H / 2, W / 2, C]`.
    pub fn max_pool2(&mut self, x: &Var) -> Result<Var> {
        self.apply(MaxPool2, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct MaxPool2;

impl Op for MaxPool2 {
    fn name(&self) -> &'static str {
        "max_pool2"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("max_pool2 takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h < 2 || w < 2 {
            return Err(Error::shape(self.name(), "at least 2 x 2 pixels", x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, h / 2, w / 2, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::forward(&gpu, dims, x, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("max_pool2 takes one input") };
        let dims = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(dims, x.cpu()?, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => cuda::backward(&gpu, dims, x, dy, &mut dx)?,
        );
        Ok(vec![Some(dx)])
    }
}

/// Odd height, odd width, one window, both odd in whole packs, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| MaxPool2, &[&[2, 5, 6, 3]]),
        OpCase::new(|| MaxPool2, &[&[2, 4, 7, 1]]),
        OpCase::new(|| MaxPool2, &[&[1, 2, 2, 5]]),
        OpCase::new(|| MaxPool2, &[&[1, 5, 3, 8]]),
        OpCase::new(|| MaxPool2, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    pub(super) fn forward(gpu: &Gpu, dims: [usize; 4], x: &Tensor, y: &mut Tensor) -> Result<()> {
        let (n, dtype) = (y.len(), y.dtype());
        let [_, h, w, c] = dims.map(Into::into);
        kernels::max_pool2_forward { x, y, n, h, w, c }.launch(gpu, Grid::packs(n, dtype))
    }

    pub(super) fn backward(
        gpu: &Gpu,
        [n, h, w, c]: [usize; 4],
        x: &Tensor,
        dy: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()> {
        let (windows, dtype) = (n * h.div_ceil(2) * w.div_ceil(2) * c, x.dtype());
        kernels::max_pool2_backward { x, dy, dx, n: windows, h, w, c }
            .launch(gpu, Grid::packs(windows, dtype))
    }
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;
    use crate::ops::simd::{Lane, multiversion};

    pub(super) fn forward<T: Real>([_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let (oh, ow) = (h / 2, w / 2);
        rows(y, ow * c, |r, y| {
            let x = &x[(r / oh * h + r % oh * 2) * w * c..][..2 * w * c];
            for (j, y) in y.chunks_exact_mut(c).enumerate() {
                let [p00, p01, p10, p11] = window(x, w, c, j);
                for k in 0..c {
                    y[k] = larger(larger(p00[k], p01[k]), larger(p10[k], p11[k]));
                }
            }
        });
    }

    /// `a` unless `b` is larger or the first NaN.
    fn larger<T: Real>(a: T, b: T) -> T {
        if stays(a, b) { a } else { b }
    }

    #[allow(clippy::eq_op)] // Only a NaN differs from itself.
    fn stays<T: Real>(a: T, b: T) -> bool {
        (a >= b) | (a != a)
    }

    pub(super) fn backward<T: Lane>([_, h, w, c]: [usize; 4], x: &[T], dy: &[T], dx: &mut [T]) {
        let (oh, ow, zero) = (h / 2, w / 2, T::default());
        rows(dx, w * c, |r, dx| {
            let (n, i, lower) = (r / h, r % h / 2, r % h % 2 == 1);
            if i >= oh {
                return dx.fill(zero);
            }
            let x = &x[(n * h + i * 2) * w * c..][..2 * w * c];
            let dy = &dy[(n * oh + i) * ow * c..][..ow * c];
            let (used, odd) = dx.split_at_mut(2 * ow * c);
            odd.fill(zero);
            row_backward(lower, w, c, x, dy, used);
        });
    }

    multiversion! {
        /// The upper or lower of two rows of `dx`, without an odd last column.
        fn row_backward<T, FMA>(
            lower: bool,
            w: usize,
            c: usize,
            x: &[T],
            dy: &[T],
            dx: &mut [T],
        ) {
            let zero = T::default();
            for (j, (dx, dy)) in dx.chunks_exact_mut(2 * c).zip(dy.chunks_exact(c)).enumerate() {
                let (left, right) = dx.split_at_mut(c);
                let [p00, p01, p10, p11] = window(x, w, c, j);
                let (a, b) = if lower { (p10, p11) } else { (p00, p01) };
                let right = &mut right[..c];
                for k in 0..c {
                    // The upper row comes first, so it wins a tie; so does the left of a row.
                    let upper_wins = stays(larger(p00[k], p01[k]), larger(p10[k], p11[k]));
                    let dy = if upper_wins == lower { zero } else { dy[k] };
                    let left_wins = stays(a[k], b[k]);
                    left[k] = if left_wins { dy } else { zero };
                    right[k] = if left_wins { zero } else { dy };
                }
            }
        }
    }

    /// The four pixels of window `j` in two rows of `w` pixels.
    fn window<T: Real>(x: &[T], w: usize, c: usize, j: usize) -> [&[T]; 4] {
        let pixel = |offset: usize| &x[(2 * j + offset) * c..][..c];
        [pixel(0), pixel(1), pixel(w), pixel(w + 1)]
    }
}
