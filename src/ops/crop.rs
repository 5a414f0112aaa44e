//! The top left part of a map; undoes a padding at the bottom and the right.
//!
//! ```text
//! y[n,i,j,c] = x[n,i,j,c],    i < height, j < width
//! dx = dy there, 0 elsewhere
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The first `height` rows and `width` columns of `[N, H, W, C]`.
    pub fn crop(&mut self, x: &Var, height: usize, width: usize) -> Result<Var> {
        self.apply(Crop { height, width }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Crop {
    /// Rows kept.
    pub height: usize,
    /// Columns kept.
    pub width: usize,
}

impl Op for Crop {
    fn name(&self) -> &'static str {
        "crop"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("crop takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if self.height > h || self.width > w {
            let wanted = format!("at least {} x {} pixels", self.height, self.width);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, self.height, self.width, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::launch(&gpu, "crop_forward", self, dims, x, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("crop takes one input") };
        let dims = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(self, dims, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => cuda::launch(&gpu, "crop_backward", self, dims, dy, &mut dx)?,
        );
        Ok(vec![Some(dx)])
    }
}

/// Both axes cut, one axis cut, nothing cut; whole packs, several blocks; a padded map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Crop { height: 2, width: 3 }, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Crop { height: 1, width: 4 }, &[&[2, 1, 5, 2]]),
        OpCase::new(|| Crop { height: 3, width: 2 }, &[&[1, 3, 2, 1]]),
        OpCase::new(|| Crop { height: 2, width: 3 }, &[&[2, 3, 4, 8]]),
        OpCase::new(|| Crop { height: 39, width: 38 }, &[&[1, 41, 40, 3]]).kernel_only(),
        OpCase::new(|| Crop { height: 122, width: 125 }, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}

mod cuda {
    use super::Crop;
    use crate::engine::cuda::{Gpu, Grid};
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    /// `dims` are the sizes of the larger map, whichever of `from` and `to` that is.
    pub(super) fn launch(
        gpu: &Gpu,
        entry: &str,
        op: &Crop,
        dims: [usize; 4],
        from: &Tensor,
        to: &mut Tensor,
    ) -> Result<()> {
        let [_, h, w, c] = dims.map(Into::into);
        let (n, dtype) = (to.len(), to.dtype());
        let args = [from.into(), to.into(), n.into(), h, w, c, op.height.into(), op.width.into()];
        gpu.launch(entry, dtype, Grid::packs(n, dtype), &args)
    }
}

mod cpu {
    use super::Crop;
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    pub(super) fn forward<T: Real>(op: &Crop, [_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let len = op.width * c;
        rows(y, len, |r, y| {
            let (n, i) = (r / op.height, r % op.height);
            y.copy_from_slice(&x[(n * h + i) * w * c..][..len]);
        });
    }

    pub(super) fn backward<T: Real>(op: &Crop, [_, h, w, c]: [usize; 4], dy: &[T], dx: &mut [T]) {
        let len = op.width * c;
        rows(dx, w * c, |r, dx| {
            let (n, i) = (r / h, r % h);
            let kept = if i < op.height { len } else { 0 };
            dx[..kept].copy_from_slice(&dy[(n * op.height + i.min(op.height)) * len..][..kept]);
            dx[kept..].fill(T::default());
        });
    }
}
