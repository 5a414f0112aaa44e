//! Puts maps of one size side by side along the channels.
//!
//! ```text
//! y[.., from_k + c] = x_k[.., c],    from_k = channels of the inputs before k
//! dx_k[.., c] = dy[.., from_k + c]
//! ```
use super::slice_channels::SliceChannels;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// All of `parts`, `[N, H, W, C_k]` each, as one `[N, H, W, sum of C_k]`.
    pub fn concat(&mut self, parts: &[&Var]) -> Result<Var> {
        self.apply(Concat, parts)
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Concat;

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let Some(first) = inputs.first() else {
            return Err(Error::shape(self.name(), "at least one input", &[]));
        };
        let [n, h, w, _] = first.nhwc(self.name())?;
        let mut channels = 0;
        for x in inputs {
            let [n2, h2, w2, c] = x.nhwc(self.name())?;
            if [n2, h2, w2] != [n, h, w] {
                let wanted = format!("[{n}, {h}, {w}, any] as the first input");
                return Err(Error::shape(self.name(), wanted, x.shape()));
            }
            channels += c;
        }
        let mut y = Tensor::empty_as(first, &[n, h, w, channels])?;
        on_device!(first,
            cpu::<T> => {
                let parts = inputs.iter().map(|x| Ok((x.cpu::<T>()?, x.shape()[3])));
                cpu::forward::<T>(&parts.collect::<Result<Vec<_>>>()?, channels, y.cpu_mut()?);
            },
            cuda(gpu) => cuda::forward(&gpu, inputs, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let mut from = 0;
        let mut part = |(x, &wanted): (&&Tensor, &bool)| {
            let slice = SliceChannels { from, len: x.shape()[3] };
            from += slice.len;
            wanted.then(|| Ok(slice.forward(&[dy])?.0)).transpose()
        };
        call.inputs.iter().zip(call.wants).map(&mut part).collect()
    }
}

/// One, two and three inputs with odd and single channels, whole packs, packs off a boundary; the decoder and the input of a UNet.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Concat, &[&[2, 3, 5, 7], &[2, 3, 5, 1], &[2, 3, 5, 4]]),
        OpCase::new(|| Concat, &[&[2, 1, 1, 3], &[2, 1, 1, 2]]),
        OpCase::new(|| Concat, &[&[1, 2, 3, 2]]),
        OpCase::new(|| Concat, &[&[1, 2, 3, 16], &[1, 2, 3, 8]]),
        OpCase::new(|| Concat, &[&[1, 2, 3, 4], &[1, 2, 3, 8], &[1, 2, 3, 4]]),
        OpCase::new(|| Concat, &[&[1, 128, 128, 64], &[1, 128, 128, 64]]).timed_only(),
        OpCase::new(|| Concat, &[&[1, 256, 256, 3], &[1, 256, 256, 28]]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    pub(super) fn forward(gpu: &Gpu, inputs: &[&Tensor], y: &mut Tensor) -> Result<()> {
        let (dtype, channels) = (y.dtype(), y.shape()[3]);
        let mut from = 0;
        for x in inputs {
            let (n, len) = (x.len(), x.shape()[3]);
            kernels::concat_part { x, y, n, channels, from, len }
                .launch(gpu, Grid::packs(n, dtype))?;
            from += len;
        }
        Ok(())
    }
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    /// `parts`: elements and channels of each input.
    pub(super) fn forward<T: Real>(parts: &[(&[T], usize)], channels: usize, y: &mut [T]) {
        rows(y, channels, |pixel, mut y| {
            for &(x, c) in parts {
                let (to, rest) = y.split_at_mut(c);
                to.copy_from_slice(&x[pixel * c..][..c]);
                y = rest;
            }
        });
    }
}
