//! Rows and columns of zeros at the bottom and the right: the reverse of a crop, whose kernels it launches.
//!
//! ```text
//! y[n,i,j,c] = x[n,i,j,c] where i < H and j < W, else 0
//! dx = the top left part of dy
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `[N, H, W, C]` grown to `[N, H + bottom, W + right, C]`; [`crop`](Self::crop) undoes it.
    pub fn pad_zero(&mut self, x: &Var, bottom: usize, right: usize) -> Result<Var> {
        self.apply(PadZero { bottom, right }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct PadZero {
    /// Rows added.
    pub bottom: usize,
    /// Columns added.
    pub right: usize,
}

impl Op for PadZero {
    fn name(&self) -> &'static str {
        "pad_zero"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("pad_zero takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h * w == 0 {
            return Err(Error::shape(self.name(), "at least one pixel", x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, h + self.bottom, w + self.right, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, dims, x.cpu()?, y.cpu_mut()?),
            // What a crop passes back is what this op computes, and the other way round.
            cuda(gpu) => cuda::forward(&gpu, dims, x, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("pad_zero takes one input") };
        let dims = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(self, dims, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => cuda::backward(&gpu, dims, dy, &mut dx)?,
        );
        Ok(vec![Some(dx)])
    }
}

/// Both axes, one axis, nothing, whole packs; a map of an autoencoder before it is halved.
pub fn cases() -> Vec<OpCase> {
    let case =
        |bottom, right, shape: &[usize]| OpCase::new(move || PadZero { bottom, right }, &[shape]);
    vec![
        case(1, 1, &[2, 3, 5, 3]),
        case(0, 4, &[1, 2, 5, 1]),
        case(2, 0, &[2, 1, 3, 2]),
        case(0, 0, &[1, 2, 2, 1]),
        case(1, 2, &[2, 3, 2, 8]),
        case(1, 1, &[1, 41, 40, 3]).kernel_only(),
        case(1, 1, &[1, 128, 128, 128]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    pub(super) fn forward(
        gpu: &Gpu,
        [_, height, width, c]: [usize; 4],
        x: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let [_, h, w, _] = y.nhwc("pad_zero")?;
        let (n, grid) = (y.len(), Grid::packs(y.len(), y.dtype()));
        kernels::crop_backward { dy: x, dx: y, n, h, w, c, height, width, origin: None }
            .launch(gpu, grid)
    }

    pub(super) fn backward(
        gpu: &Gpu,
        [_, height, width, c]: [usize; 4],
        dy: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()> {
        let [_, h, w, _] = dy.nhwc("pad_zero")?;
        let (n, grid) = (dx.len(), Grid::packs(dx.len(), dx.dtype()));
        kernels::crop_forward { x: dy, y: dx, n, h, w, c, height, width, origin: None }
            .launch(gpu, grid)
    }
}

mod cpu {
    use super::PadZero;
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    pub(super) fn forward<T: Real>(op: &PadZero, [_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let height = h + op.bottom;
        rows(y, (w + op.right) * c, |r, y| {
            let (n, i) = (r / height, r % height);
            let kept = if i < h { w * c } else { 0 };
            y[..kept].copy_from_slice(&x[(n * h + i.min(h)) * w * c..][..kept]);
            y[kept..].fill(T::default());
        });
    }

    pub(super) fn backward<T: Real>(
        op: &PadZero,
        [_, h, w, c]: [usize; 4],
        dy: &[T],
        dx: &mut [T],
    ) {
        rows(dx, w * c, |r, dx| {
            let (n, i) = (r / h, r % h);
            let from = (n * (h + op.bottom) + i) * (w + op.right) * c;
            dx.copy_from_slice(&dy[from..][..w * c]);
        });
    }
}
