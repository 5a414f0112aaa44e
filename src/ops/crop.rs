//! A part of a map: the top left one undoes a padding at the bottom and the right.
//!
//! ```text
//! y[n,i,j,c] = x[n,top+i,left+j,c],    i < height, j < width
//! dx = dy there, 0 elsewhere
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real as _;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The first `height` rows and `width` columns of `[N, H, W, C]`.
    pub fn crop(&mut self, x: &Var, height: usize, width: usize) -> Result<Var> {
        self.apply(Crop { height, width, origin: None }, &[x])
    }

    /// The `[height, width]` of `[N, H, W, C]` whose first pixel is at the row and the column in `origin` `[1, 2]`, F32,
    /// where `x` lies. This can be recorded, and replayed with another place.
    pub fn crop_at(
        &mut self,
        x: &Var,
        origin: &Tensor,
        [height, width]: [usize; 2],
    ) -> Result<Var> {
        self.apply(Crop { height, width, origin: Some(origin.try_clone()?) }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Crop {
    /// Rows kept.
    pub height: usize,
    /// Columns kept.
    pub width: usize,
    /// How many rows and columns are left out before, `[1, 2]`, F32; none if there are none. What lies on the CPU is
    /// copied to where the map lies.
    pub origin: Option<Tensor>,
}

impl Crop {
    /// Rows and columns left out before, on the CPU.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Whole numbers.
    fn corner(&self, [h, w]: [usize; 2]) -> Result<[usize; 2]> {
        let Some(origin) = &self.origin else { return Ok([0, 0]) };
        let [top, left] = [0, 1].map(|i| origin.cpu::<f32>().map(|at| at[i] as usize));
        let corner @ [top, left] = [top?, left?];
        if top + self.height > h || left + self.width > w {
            let what =
                format!("a part at row {top} and column {left}, which ends beyond {h} x {w}");
            return Err(Error::Unsupported { op: self.name(), what });
        }
        Ok(corner)
    }

    /// The origin on the GPU of `x`, copied where it lies elsewhere.
    fn origin_on(&self, x: &Tensor) -> Result<Option<Tensor>> {
        let moved = self.origin.as_ref().filter(|origin| origin.device() != x.device());
        moved.map(|origin| origin.to_device(&x.device())).transpose()
    }
}

impl Op for Crop {
    fn name(&self) -> &'static str {
        "crop"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("crop takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        let Self { height, width, ref origin } = *self;
        if height > h || width > w {
            let wanted = format!("at least {height} x {width} pixels");
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        if let Some(origin) = origin.as_ref().filter(|origin| origin.shape() != [1, 2]) {
            return Err(Error::shape(self.name(), "an origin [1, 2]", origin.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, self.height, self.width, c])?;
        on_device!(x,
            cpu::<T> => {
                let corner = self.corner([h, w])?;
                cpu::forward::<T>(self, corner, dims, x.cpu()?, y.cpu_mut()?);
            },
            cuda(gpu) => {
                let moved = self.origin_on(x)?;
                let origin = moved.as_ref().or(origin.as_ref());
                let (n, grid, y) = (y.len(), Grid::packs(y.len(), y.dtype()), &mut y);
                kernels::crop_forward { x, y, n, h, w, c, height, width, origin }
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
            cpu::<T> => {
                let corner = self.corner([h, w])?;
                cpu::backward::<T>(self, corner, dims, dy.cpu()?, dx.cpu_mut()?);
            },
            cuda(gpu) => {
                let moved = self.origin_on(x)?;
                let Self { height, width, ref origin } = *self;
                let origin = moved.as_ref().or(origin.as_ref());
                let (n, grid, dx) = (dx.len(), Grid::packs(dx.len(), dx.dtype()), &mut dx);
                kernels::crop_backward { dy, dx, n, h, w, c, height, width, origin }
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
        let at = [top, left].map(|at: usize| f32::from_f64(at as f64)).to_vec();
        let origin = move || (at != [0.0; 2]).then(|| Tensor::from_vec(at.clone(), &[1, 2]));
        OpCase::new(move || Crop { height, width, origin: origin() }, &[shape])
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

    pub(super) fn forward<T: Real>(
        op: &Crop,
        [top, left]: [usize; 2],
        [_, h, w, c]: [usize; 4],
        x: &[T],
        y: &mut [T],
    ) {
        let len = op.width * c;
        rows(y, len, |r, y| {
            let (n, i) = (r / op.height, top + r % op.height);
            y.copy_from_slice(&x[((n * h + i) * w + left) * c..][..len]);
        });
    }

    pub(super) fn backward<T: Real>(
        op: &Crop,
        [top, left]: [usize; 2],
        [_, h, w, c]: [usize; 4],
        dy: &[T],
        dx: &mut [T],
    ) {
        let len = op.width * c;
        rows(dx, w * c, |r, dx| {
            let (n, i) = (r / h, (r % h).wrapping_sub(top));
            dx.fill(T::default());
            if i < op.height {
                let dy = &dy[(n * op.height + i) * len..][..len];
                dx[left * c..][..len].copy_from_slice(dy);
            }
        });
    }
}
