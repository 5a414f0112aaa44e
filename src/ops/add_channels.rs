//! Adds one number per image and channel to every pixel: the time shift of a residual block.
//!
//! ```text
//! y[n,h,w,c] = x[n,h,w,c] + b[n,c]
//! dx = dy,    db[n,c] = sum over h, w of dy[n,h,w,c]
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x` of `[N, H, W, C]` plus `b` of `[N, C]`.
    pub fn add_channels(&mut self, x: &Var, b: &Var) -> Result<Var> {
        self.apply(AddChannels, &[x, b])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct AddChannels;

impl Op for AddChannels {
    fn name(&self) -> &'static str {
        "add_channels"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, b] = inputs else { unreachable!("add_channels takes two inputs") };
        let dims @ [n, _, _, c] = x.nhwc(self.name())?;
        if b.shape() != [n, c] {
            return Err(Error::shape(self.name(), format!("a shift of {:?}", [n, c]), b.shape()));
        }
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(dims, x.cpu()?, b.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::forward(&gpu, dims, x, b, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [_, b] = call.inputs else { unreachable!("add_channels takes two inputs") };
        let dims = dy.nhwc(self.name())?;
        if !call.wants[1] {
            return Ok(vec![None, None]);
        }
        let mut db = Tensor::empty_as(b, b.shape())?;
        on_device!(b,
            cpu::<T> => cpu::backward::<T>(dims, dy.cpu()?, db.cpu_mut()?),
            cuda(gpu) => cuda::backward(&gpu, dims, dy, &mut db)?,
        );
        Ok(vec![None, Some(db)])
    }

    fn hands_on(&self, input: usize) -> Option<f64> {
        (input == 0).then_some(1.0)
    }
}

/// Odd sizes, one pixel; whole packs, several blocks down and across; a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| AddChannels, &[&[2, 3, 5, 7], &[2, 7]]),
        OpCase::new(|| AddChannels, &[&[2, 1, 1, 1], &[2, 1]]),
        OpCase::new(|| AddChannels, &[&[2, 3, 2, 16], &[2, 16]]),
        OpCase::new(|| AddChannels, &[&[2, 17, 31, 3], &[2, 3]]).kernel_only(),
        OpCase::new(|| AddChannels, &[&[1, 33, 16, 264], &[1, 264]]).kernel_only(),
        OpCase::new(|| AddChannels, &[&[1, 128, 128, 64], &[1, 64]]).timed_only(),
    ]
}

pub(in crate::ops) mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::DType;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::column_blocks;

    pub(super) fn forward(
        gpu: &Gpu,
        [_, h, w, c]: [usize; 4],
        x: &Tensor,
        b: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let (n, dtype) = (x.len(), x.dtype());
        kernels::add_channels_forward { x, b, y, n, pixels: h * w, c }
            .launch(gpu, Grid::packs(n, dtype))
    }

    /// `db` `[N, C]`, the sums of `dy` over the pixels of an image.
    pub(in crate::ops) fn backward(
        gpu: &Gpu,
        [n, h, w, c]: [usize; 4],
        dy: &Tensor,
        db: &mut Tensor,
    ) -> Result<()> {
        let (pixels, dtype, count) = (h * w, dy.dtype(), db.len());
        let ([across, splits], rows) = column_blocks(dtype, pixels, c);
        let mut partial = Tensor::empty_on(&dy.device(), DType::F32, &[n, splits, c])?;
        kernels::add_channels_backward { dy, partial: &mut partial, pixels, c, rows }
            .launch(gpu, Grid::new([across, splits, n], 256))?;
        kernels::add_channels_finish { partial: &partial, db, n: count, splits, c }
            .launch(gpu, Grid::elements(count))
    }
}

/// The op for some rows of an image on the CPU, which take no part in a tape: `y = x + b` for every pixel.
pub(crate) fn to_image(x: &[f32], b: &[f32], y: &mut [f32]) {
    cpu::forward([1, 1, x.len() / b.len(), b.len()], x, b, y);
}

pub(in crate::ops) mod cpu {
    use crate::engine::device::Real;
    use crate::engine::threads::pieces;
    use crate::ops::parallel::{CHUNK, column_sums};

    pub(in crate::ops) fn forward<T: Real>(
        [_, h, w, c]: [usize; 4],
        x: &[T],
        b: &[T],
        y: &mut [T],
    ) {
        let (image, held) = (h * w * c, (CHUNK / c).max(1) * c);
        pieces(y, held, |task, mut y| {
            let mut at = task * held;
            // As far as the image goes.
            while !y.is_empty() {
                let (n, len) = (at / image, y.len().min(image - at % image));
                let (rows, rest) = y.split_at_mut(len);
                let b = &b[n * c..][..c];
                for (y, x) in rows.chunks_exact_mut(c).zip(x[at..at + len].chunks_exact(c)) {
                    for k in 0..c {
                        y[k] = x[k] + b[k];
                    }
                }
                (y, at) = (rest, at + len);
            }
        });
    }

    pub(in crate::ops) fn backward<T: Real>([n, h, w, c]: [usize; 4], dy: &[T], db: &mut [T]) {
        for n in 0..n {
            let sums = column_sums(&dy[n * h * w * c..][..h * w * c], c);
            db[n * c..][..c].iter_mut().zip(sums).for_each(|(db, s)| *db = T::from_f64(s));
        }
    }
}
