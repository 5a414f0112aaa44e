//! Rows and columns added by reflection, edge pixels not repeated.
//!
//! ```text
//! y[n,i,j,c] = x[n, r(i - top, H), r(j - left, W), c],    r(i, H) = .. 1 0 1 .. H-1 H-2 .. 1 0 1 ..
//! dx[n,i,j,c] = sum of dy over all positions that read x[n,i,j,c]
//! ```
//!
//! Padding beyond the size reflects again; a single row or column is repeated.
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `[N, H, W, C]` grown to `[N, H + bottom, W + right, C]`; [`crop`](Self::crop) undoes it.
    pub fn pad_reflect(&mut self, x: &Var, bottom: usize, right: usize) -> Result<Var> {
        self.apply(PadReflect { top: 0, left: 0, bottom, right }, &[x])
    }

    /// `[N, H, W, C]` grown by `pad` rows and columns on every side.
    pub fn pad_reflect_around(&mut self, x: &Var, pad: usize) -> Result<Var> {
        self.apply(PadReflect { top: pad, left: pad, bottom: pad, right: pad }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct PadReflect {
    /// Rows added above.
    pub top: usize,
    /// Columns added on the left.
    pub left: usize,
    /// Rows added below.
    pub bottom: usize,
    /// Columns added on the right.
    pub right: usize,
}

impl PadReflect {
    /// The size of a padded map.
    const fn padded(&self, h: usize, w: usize) -> [usize; 2] {
        [self.top + h + self.bottom, self.left + w + self.right]
    }

    /// Where the padded axes start in the periodic pattern of reflections.
    fn starts(&self, h: usize, w: usize) -> [usize; 2] {
        let start = |added: usize, len| (period(len) - added % period(len)) % period(len);
        [start(self.top, h), start(self.left, w)]
    }
}

impl Op for PadReflect {
    fn name(&self) -> &'static str {
        "pad_reflect"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("pad_reflect takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h * w == 0 {
            return Err(Error::shape(self.name(), "at least one pixel", x.shape()));
        }
        let [height, width] = self.padded(h, w);
        let mut y = Tensor::empty_as(x, &[n, height, width, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let [row, column] = self.starts(h, w);
                let (n, grid, y) = (y.len(), Grid::packs(y.len(), y.dtype()), &mut y);
                kernels::pad_reflect_forward { x, y, n, h, w, c, height, width, row, column }
                    .launch(&gpu, grid)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("pad_reflect takes one input") };
        let dims @ [_, h, w, c] = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(self, dims, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                let ([height, width], [row, column]) = (self.padded(h, w), self.starts(h, w));
                let (n, grid, dx) = (dx.len(), Grid::packs(dx.len(), dx.dtype()), &mut dx);
                kernels::pad_reflect_backward { dy, dx, n, h, w, c, height, width, row, column }
                    .launch(&gpu, grid)?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// One axis, both axes, further than the size, a single row, whole packs, all sides; a tile padded to a
/// multiple of 8, the first level of a UNet.
pub fn cases() -> Vec<OpCase> {
    let case = |bottom, right, shape: &[usize]| {
        OpCase::new(move || PadReflect { top: 0, left: 0, bottom, right }, &[shape])
    };
    let sides = |[top, left, bottom, right]: [usize; 4], shape: &[usize]| {
        OpCase::new(move || PadReflect { top, left, bottom, right }, &[shape])
    };
    vec![
        case(2, 1, &[2, 3, 5, 3]),
        case(0, 4, &[1, 2, 5, 1]),
        case(7, 3, &[2, 3, 2, 2]),
        case(2, 1, &[1, 1, 3, 1]),
        case(0, 0, &[1, 2, 2, 1]),
        case(1, 6, &[2, 3, 2, 8]),
        sides([1, 1, 1, 1], &[2, 3, 5, 3]),
        sides([2, 7, 0, 1], &[1, 3, 4, 8]),
        sides([3, 1, 1, 2], &[1, 1, 2, 1]),
        case(6, 3, &[1, 122, 125, 64]).timed_only(),
        sides([1, 1, 1, 1], &[1, 160, 160, 64]).timed_only(),
    ]
}

/// After how many positions the reflections of an axis repeat.
fn period(len: usize) -> usize {
    (2 * (len - 1)).max(1)
}

/// The position in `0..len` that position `i` of the pattern reads.
fn reflected(i: usize, len: usize) -> usize {
    let period = period(len);
    (i % period).min(period - i % period) % len
}

mod cpu {
    use super::{PadReflect, reflected};
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    pub(super) fn forward<T: Real>(
        op: &PadReflect,
        [_, h, w, c]: [usize; 4],
        x: &[T],
        y: &mut [T],
    ) {
        let ([height, width], [row, column]) = (op.padded(h, w), op.starts(h, w));
        let same = op.left..op.left + w;
        rows(y, width * c, |r, y| {
            let x = &x[(r / height * h + reflected(row + r % height, h)) * w * c..][..w * c];
            y[same.start * c..same.end * c].copy_from_slice(x);
            for j in (0..same.start).chain(same.end..width) {
                y[j * c..][..c].copy_from_slice(&x[reflected(column + j, w) * c..][..c]);
            }
        });
    }

    pub(super) fn backward<T: Real>(
        op: &PadReflect,
        [_, h, w, c]: [usize; 4],
        dy: &[T],
        dx: &mut [T],
    ) {
        let ([height, width], [row, column]) = (op.padded(h, w), op.starts(h, w));
        let (vertical, horizontal) = (readers(h, height, row), readers(w, width, column));
        rows(dx, w * c, |r, dx| {
            dx.fill(T::default());
            for &i in &vertical[r % h] {
                let dy = &dy[(r / h * height + i) * width * c..][..width * c];
                for (dx, readers) in dx.chunks_exact_mut(c).zip(&horizontal) {
                    for &j in readers {
                        for k in 0..c {
                            dx[k] += dy[j * c + k];
                        }
                    }
                }
            }
        });
    }

    /// For each position the positions of the padded axis that read it.
    fn readers(len: usize, padded: usize, start: usize) -> Vec<Vec<usize>> {
        let mut readers = vec![Vec::new(); len];
        for i in 0..padded {
            readers[reflected(start + i, len)].push(i);
        }
        readers
    }
}
