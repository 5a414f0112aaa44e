//! Channels to pixels (sub-pixel convolution) and back.
//!
//! ```text
//! shuffle    y[n, h r + i, w r + j, c] = x[n, h, w, c r r + i r + j],    i, j < r
//! unshuffle  the other way round; each is the other's backward
//! ```
use crate::engine::cuda::{Grid, launch_one_of};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `[N, H, W, C r r]` to `[N, H r, W r, C]` with `r = factor`.
    pub fn pixel_shuffle(&mut self, x: &Var, factor: usize) -> Result<Var> {
        self.apply(PixelShuffle { factor, inverse: false }, &[x])
    }

    /// `[N, H r, W r, C]` to `[N, H, W, C r r]` with `r = factor`.
    pub fn pixel_unshuffle(&mut self, x: &Var, factor: usize) -> Result<Var> {
        self.apply(PixelShuffle { factor, inverse: true }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct PixelShuffle {
    /// How many times larger each side becomes.
    pub factor: usize,
    /// Whether pixels become channels.
    pub inverse: bool,
}

impl Op for PixelShuffle {
    fn name(&self) -> &'static str {
        "pixel_shuffle"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("pixel_shuffle takes one input") };
        Ok((self.moved(x)?, Saved::new()))
    }

    fn backward(&self, _: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(Self { factor: self.factor, inverse: !self.inverse }.moved(dy)?)])
    }
}

impl PixelShuffle {
    fn moved(&self, x: &Tensor) -> Result<Tensor> {
        let (dims @ [n, h, w, c], r) = (x.nhwc(self.name())?, self.factor);
        if r == 0 || (self.inverse && (h % r != 0 || w % r != 0)) {
            let wanted = format!("H and W divisible by {r}");
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        if !self.inverse && c % (r * r) != 0 {
            let wanted = format!("C divisible by {}", r * r);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        let shape = match self.inverse {
            false => [n, h * r, w * r, c / (r * r)],
            true => [n, h / r, w / r, c * r * r],
        };
        let mut y = Tensor::empty_as(x, &shape)?;
        on_device!(x,
            cpu::<T> => match self.inverse {
                false => cpu::shuffle::<T>(r, shape, x.cpu()?, y.cpu_mut()?),
                true => cpu::unshuffle::<T>(r, dims, x.cpu()?, y.cpu_mut()?),
            },
            cuda(gpu) => {
                let (w, c) = if self.inverse { (w / r, c) } else { (w, c / (r * r)) };
                let (n, y, inverse) = (x.len() / (r * r), &mut y, self.inverse);
                launch_one_of!(&gpu, Grid::packs(n, x.dtype()), match inverse {
                    false => pixel_shuffle,
                    true => pixel_unshuffle,
                } { x, y, n, w, c, r })?;
            }
        );
        Ok(y)
    }
}

/// Factors 1 to 4 both ways, whole packs, and the ends of a pixel-shuffle network.
pub fn cases() -> Vec<OpCase> {
    let case = |factor, inverse, shape: &[usize]| {
        OpCase::new(move || PixelShuffle { factor, inverse }, &[shape])
    };
    vec![
        case(2, false, &[2, 3, 5, 12]),
        case(3, false, &[1, 1, 2, 9]),
        case(1, false, &[1, 2, 3, 5]),
        case(2, true, &[2, 6, 10, 3]),
        case(4, true, &[1, 4, 8, 1]),
        case(2, false, &[1, 2, 3, 32]),
        case(3, true, &[1, 3, 6, 8]),
        case(4, false, &[1, 1, 2, 48]),
        case(2, false, &[1, 128, 128, 256]).timed_only(),
        case(4, false, &[1, 128, 128, 48]).timed_only(),
        case(2, true, &[1, 256, 256, 64]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::rows;

    /// `[_, rows, width, c]` are the sizes of the larger map, `y`.
    pub(super) fn shuffle<T: Real>(r: usize, [_, _, width, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let places = places(r, c);
        rows(y, width * c, |row, y| {
            let (low, i) = (row / r, row % r);
            let x = &x[low * width * c * r..][..width * c * r];
            for (y, x) in y.chunks_exact_mut(r * c).zip(x.chunks_exact(c * r * r)) {
                for k in 0..r * c {
                    y[k] = x[i * r + places[k]];
                }
            }
        });
    }

    /// `[_, rows, width, c]` are the sizes of the larger map, `x`.
    pub(super) fn unshuffle<T: Real>(r: usize, [_, _, width, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let places = places(r, c);
        rows(y, width * c * r, |row, y| {
            for i in 0..r {
                let x = &x[(row * r + i) * width * c..][..width * c];
                for (y, x) in y.chunks_exact_mut(c * r * r).zip(x.chunks_exact(r * c)) {
                    for k in 0..r * c {
                        y[i * r + places[k]] = x[k];
                    }
                }
            }
        });
    }

    /// Where the channels of the pixels of a row of r x r stand in the smaller map's pixel, but for the row's own place.
    fn places(r: usize, c: usize) -> Vec<usize> {
        (0..r * c).map(|k| k % c * r * r + k / c).collect()
    }
}
