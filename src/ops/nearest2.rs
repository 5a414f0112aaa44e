//! Twice the size by repeating every pixel.
//!
//! ```text
//! y[n, i, j, c] = x[n, i/2, j/2, c]
//! dx[n, i, j, c] = dy[2i, 2j] + dy[2i, 2j+1] + dy[2i+1, 2j] + dy[2i+1, 2j+1]    (of n, c)
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `[N, H, W, C]` as `[N, 2H, 2W, C]`.
    pub fn nearest2(&mut self, x: &Var) -> Result<Var> {
        self.apply(Nearest2, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Nearest2;

impl Op for Nearest2 {
    fn name(&self) -> &'static str {
        "nearest2"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("nearest2 takes one input") };
        let [n, h, w, c] = x.nhwc(self.name())?;
        let mut y = Tensor::empty_as(x, &[n, 2 * h, 2 * w, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(w, c, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                kernels::nearest2_forward { x, y: &mut y, n: x.len(), w, c }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("nearest2 takes one input") };
        let [_, _, w, c] = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(w, c, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                kernels::nearest2_backward { dy, dx: &mut dx, n: x.len(), w, c }
                    .launch(&gpu, Grid::packs(x.len(), x.dtype()))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Odd sizes, one pixel, whole packs, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Nearest2, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Nearest2, &[&[2, 1, 1, 1]]),
        OpCase::new(|| Nearest2, &[&[2, 2, 3, 8]]),
        OpCase::new(|| Nearest2, &[&[1, 64, 64, 64]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    /// `w`: columns of `x`.
    pub(super) fn forward<T: Real>(w: usize, c: usize, x: &[T], y: &mut [T]) {
        rows(y, 2 * w * c, |row, y| {
            let x = &x[row / 2 * w * c..][..w * c];
            for (y, x) in y.chunks_exact_mut(2 * c).zip(x.chunks_exact(c)) {
                y[..c].copy_from_slice(x);
                y[c..].copy_from_slice(x);
            }
        });
    }

    /// `w`: columns of `dx`.
    pub(super) fn backward<T: Real>(w: usize, c: usize, dy: &[T], dx: &mut [T]) {
        rows(dx, w * c, |row, dx| {
            let (upper, lower) = dy[row * 4 * w * c..][..4 * w * c].split_at(2 * w * c);
            let windows = upper.chunks_exact(2 * c).zip(lower.chunks_exact(2 * c));
            for (dx, (upper, lower)) in dx.chunks_exact_mut(c).zip(windows) {
                for k in 0..c {
                    dx[k] = (upper[k] + upper[c + k]) + (lower[k] + lower[c + k]);
                }
            }
        });
    }
}
