//! Some of the channels of a map.
//!
//! ```text
//! y[.., c] = x[.., from + c],    c < len
//! dx[.., from + c] = dy[.., c],  0 in the other channels
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// Channels `from..from + len` of the last axis of `x`, such as `[N, H, W, C]` or `[N, C]`.
    pub fn slice_channels(&mut self, x: &Var, from: usize, len: usize) -> Result<Var> {
        self.apply(SliceChannels { from, len }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct SliceChannels {
    /// The first channel taken.
    pub from: usize,
    /// How many channels are taken.
    pub len: usize,
}

impl Op for SliceChannels {
    fn name(&self) -> &'static str {
        "slice_channels"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("slice_channels takes one input") };
        let end = self.from + self.len;
        let (c, before) = match x.shape() {
            [before @ .., c] if end <= *c => (*c, before),
            _ => {
                let wanted = format!("at least {end} channels");
                return Err(Error::shape(self.name(), wanted, x.shape()));
            }
        };
        let mut y = Tensor::empty_as(x, &[before, &[self.len]].concat())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, c, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let (n, from, len) = (y.len(), self.from, self.len);
                let grid = Grid::packs(n, y.dtype());
                kernels::slice_channels_forward { x, y: &mut y, n, channels: c, from, len }
                    .launch(&gpu, grid)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("slice_channels takes one input") };
        let mut dx = Tensor::empty_as(x, x.shape())?;
        let c = x.shape().last().copied().unwrap_or(0);
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(self, c, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                let (n, from, len) = (dx.len(), self.from, self.len);
                let grid = Grid::packs(n, dx.dtype());
                kernels::slice_channels_backward { dy, dx: &mut dx, n, channels: c, from, len }
                    .launch(&gpu, grid)?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// The middle, all and the last of the channels, whole packs, no map; the sub-bands of a UNet level.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| SliceChannels { from: 2, len: 3 }, &[&[2, 3, 5, 7]]),
        OpCase::new(|| SliceChannels { from: 0, len: 2 }, &[&[2, 1, 1, 2]]),
        OpCase::new(|| SliceChannels { from: 4, len: 1 }, &[&[1, 3, 1, 5]]),
        OpCase::new(|| SliceChannels { from: 3, len: 3 }, &[&[2, 6]]),
        OpCase::new(|| SliceChannels { from: 8, len: 16 }, &[&[1, 2, 3, 32]]),
        OpCase::new(|| SliceChannels { from: 64, len: 64 }, &[&[1, 64, 64, 256]]).timed_only(),
    ]
}

mod cpu {
    use super::SliceChannels;
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    pub(super) fn forward<T: Real>(op: &SliceChannels, channels: usize, x: &[T], y: &mut [T]) {
        rows(y, op.len, |pixel, y| {
            y.copy_from_slice(&x[pixel * channels + op.from..][..op.len]);
        });
    }

    pub(super) fn backward<T: Real>(op: &SliceChannels, channels: usize, dy: &[T], dx: &mut [T]) {
        rows(dx, channels, |pixel, dx| {
            let (before, rest) = dx.split_at_mut(op.from);
            let (taken, after) = rest.split_at_mut(op.len);
            before.fill(T::default());
            taken.copy_from_slice(&dy[pixel * op.len..][..op.len]);
            after.fill(T::default());
        });
    }
}
