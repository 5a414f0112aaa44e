//! A part of a map: the top left one undoes a padding at the bottom and the right.
//!
//! ```text
//! y[n,i,j,c] = x[n,top+i,left+j,c],    i < height, j < width
//! dx = dy there, 0 elsewhere
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The first `height` rows and `width` columns of `[N, H, W, C]`.
    pub fn crop(&mut self, x: &Var, height: usize, width: usize) -> Result<Var> {
        self.apply(Crop { top: 0, left: 0, height, width }, &[x])
    }

    /// The `[height, width]` of `[N, H, W, C]` whose first pixel is at `[top, left]`.
    pub fn crop_at(
        &mut self,
        x: &Var,
        [top, left]: [usize; 2],
        [height, width]: [usize; 2],
    ) -> Result<Var> {
        self.apply(Crop { top, left, height, width }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Crop {
    /// Rows left out above.
    pub top: usize,
    /// Columns left out on the left.
    pub left: usize,
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
        let [height, width] = [self.top + self.height, self.left + self.width];
        if height > h || width > w {
            let wanted = format!("at least {height} x {width} pixels");
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, self.height, self.width, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let Self { top, left, height, width } = *self;
                let (n, grid, y) = (y.len(), Grid::packs(y.len(), y.dtype()), &mut y);
                kernels::crop_forward { x, y, n, h, w, c, top, left, height, width }
                    .launch(&gpu, grid)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("crop takes one input") };
        let dims @ [_, h, w, c] = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(self, dims, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                let Self { top, left, height, width } = *self;
                let (n, grid, dx) = (dx.len(), Grid::packs(dx.len(), dx.dtype()), &mut dx);
                kernels::crop_backward { dy, dx, n, h, w, c, top, left, height, width }
                    .launch(&gpu, grid)?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Both axes cut, one axis cut, nothing cut, parts from the middle and the end; whole packs, several blocks; a
/// padded map.
pub fn cases() -> Vec<OpCase> {
    let case = |[top, left, height, width]: [usize; 4], shape: &[usize]| {
        OpCase::new(move || Crop { top, left, height, width }, &[shape])
    };
    vec![
        case([0, 0, 2, 3], &[2, 3, 5, 7]),
        case([0, 0, 1, 4], &[2, 1, 5, 2]),
        case([0, 0, 3, 2], &[1, 3, 2, 1]),
        case([0, 0, 2, 3], &[2, 3, 4, 8]),
        case([1, 2, 2, 3], &[2, 4, 6, 3]),
        case([2, 1, 2, 3], &[2, 4, 4, 8]),
        case([0, 0, 39, 38], &[1, 41, 40, 3]).kernel_only(),
        case([0, 0, 122, 125], &[1, 128, 128, 64]).timed_only(),
    ]
}

mod cpu {
    use super::Crop;
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    pub(super) fn forward<T: Real>(op: &Crop, [_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let len = op.width * c;
        rows(y, len, |r, y| {
            let (n, i) = (r / op.height, op.top + r % op.height);
            y.copy_from_slice(&x[((n * h + i) * w + op.left) * c..][..len]);
        });
    }

    pub(super) fn backward<T: Real>(op: &Crop, [_, h, w, c]: [usize; 4], dy: &[T], dx: &mut [T]) {
        let len = op.width * c;
        rows(dx, w * c, |r, dx| {
            let (n, i) = (r / h, (r % h).wrapping_sub(op.top));
            dx.fill(T::default());
            if i < op.height {
                let dy = &dy[(n * op.height + i) * len..][..len];
                dx[op.left * c..][..len].copy_from_slice(dy);
            }
        });
    }
}
