//! The largest value of every 3x3 window at stride 2, windows overlapping by one row or column; what fills no
//! window at the bottom or right is dropped.
//!
//! ```text
//! y[n,i,j,c] = max of x[n,2i+a,2j+b,c] over a, b in {0, 1, 2}
//! dx[p] = sum of dy over the windows whose largest is p (the first in row-major order)
//! ```
//!
//! Nothing is saved: backward finds the largest again. A pixel looks at the up to four windows that it is in,
//! so no two threads write to one place.
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// 3x3 maxima of `[N, H, W, C]` at stride 2: `[N, (H - 1) / 2, (W - 1) / 2, C]`.
    pub fn max_pool3(&mut self, x: &Var) -> Result<Var> {
        self.apply(MaxPool3, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct MaxPool3;

/// Windows along an axis of `side` pixels.
const fn windows(side: usize) -> usize {
    (side - 1) / 2
}

impl Op for MaxPool3 {
    fn name(&self) -> &'static str {
        "max_pool3"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("max_pool3 takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h < 3 || w < 3 {
            return Err(Error::shape(self.name(), "at least 3 x 3 pixels", x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, windows(h), windows(w), c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let (count, dtype) = (y.len(), y.dtype());
                kernels::max_pool3_forward { x, y: &mut y, n: count, h, w, c }
                    .launch(&gpu, Grid::packs(count, dtype))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("max_pool3 takes one input") };
        let dims @ [_, h, w, c] = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(dims, x.cpu()?, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                let (count, dtype) = (dx.len(), dx.dtype());
                kernels::max_pool3_backward { x, dy, dx: &mut dx, n: count, h, w, c }
                    .launch(&gpu, Grid::packs(count, dtype))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Even and odd sides, one window, whole packs with dropped edges; what AlexNet sees of a crop.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| MaxPool3, &[&[2, 5, 7, 3]]),
        OpCase::new(|| MaxPool3, &[&[2, 4, 6, 1]]),
        OpCase::new(|| MaxPool3, &[&[1, 3, 3, 5]]),
        OpCase::new(|| MaxPool3, &[&[1, 6, 5, 8]]),
        OpCase::new(|| MaxPool3, &[&[16, 31, 31, 64]]).timed_only(),
    ]
}

mod cpu {
    use super::windows;
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    pub(super) fn forward<T: Real>([_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let (oh, ow) = (windows(h), windows(w));
        rows(y, ow * c, |r, y| {
            let x = &x[(r / oh * h + r % oh * 2) * w * c..][..3 * w * c];
            for (j, y) in y.chunks_exact_mut(c).enumerate() {
                let taps = window(x, w, c, j);
                y.copy_from_slice(taps[0]);
                for tap in &taps[1..] {
                    for k in 0..c {
                        y[k] = if stays(y[k], tap[k]) { y[k] } else { tap[k] };
                    }
                }
            }
        });
    }

    /// Whether `a` stays the largest beside `b`, which comes later: a tie, or the first NaN.
    #[allow(clippy::eq_op)] // Only a NaN differs from itself.
    fn stays<T: Real>(a: T, b: T) -> bool {
        (a >= b) | (a != a)
    }

    pub(super) fn backward<T: Real>([_, h, w, c]: [usize; 4], x: &[T], dy: &[T], dx: &mut [T]) {
        let (oh, ow) = (windows(h), windows(w));
        rows(dx, w * c, |r, dx| {
            let (n, row) = (r / h, r % h);
            dx.fill(T::default());
            // The rows of windows that this row of pixels is in.
            for i in row.saturating_sub(1) / 2..=(row / 2).min(oh - 1) {
                let x = &x[(n * h + 2 * i) * w * c..][..3 * w * c];
                let dy = &dy[(n * oh + i) * ow * c..][..ow * c];
                for (j, dy) in dy.chunks_exact(c).enumerate() {
                    let taps = window(x, w, c, j);
                    for (k, &dy) in dy.iter().enumerate() {
                        let best = winner(&taps, k);
                        if best / 3 == row - 2 * i {
                            dx[(2 * j + best % 3) * c + k] += dy;
                        }
                    }
                }
            }
        });
    }

    /// Which of the nine taps is the largest in channel `k`.
    fn winner<T: Real>(taps: &[&[T]; 9], k: usize) -> usize {
        (1..9).fold(0, |best, tap| if stays(taps[best][k], taps[tap][k]) { best } else { tap })
    }

    /// The nine pixels of window `j` in three rows of `w` pixels.
    fn window<T: Real>(x: &[T], w: usize, c: usize, j: usize) -> [&[T]; 9] {
        std::array::from_fn(|tap| &x[(tap / 3 * w + 2 * j + tap % 3) * c..][..c])
    }
}
