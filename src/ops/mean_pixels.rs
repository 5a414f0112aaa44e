//! The mean over all pixels of each channel of each image: global average pooling.
//!
//! ```text
//! y[n,0,0,c] = sum over h, w of x[n,h,w,c] / (H W)
//! dx[n,h,w,c] = dy[n,0,0,c] / (H W)
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The means `[N, 1, 1, C]` of `x` `[N, H, W, C]`.
    pub fn mean_pixels(&mut self, x: &Var) -> Result<Var> {
        self.apply(MeanPixels, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct MeanPixels;

impl Op for MeanPixels {
    fn name(&self) -> &'static str {
        "mean_pixels"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("mean_pixels takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h * w == 0 {
            return Err(Error::shape(self.name(), "at least one pixel", x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, 1, 1, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::forward(&gpu, dims, x, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("mean_pixels takes one input") };
        let dims @ [_, h, w, c] = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(dims, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => {
                let (count, dtype) = (dx.len(), dx.dtype());
                kernels::mean_pixels_backward { dy, dx: &mut dx, n: count, pixels: (h * w), c }
                    .launch(&gpu, Grid::packs(count, dtype))?;
            }
        );
        Ok(vec![Some(dx)])
    }
}

/// Odd sizes, one pixel; whole packs, several blocks down and across; a squeeze of a training batch.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| MeanPixels, &[&[2, 3, 5, 7]]),
        OpCase::new(|| MeanPixels, &[&[2, 1, 1, 1]]),
        OpCase::new(|| MeanPixels, &[&[2, 3, 2, 16]]),
        OpCase::new(|| MeanPixels, &[&[2, 17, 31, 3]]).kernel_only(),
        OpCase::new(|| MeanPixels, &[&[1, 33, 16, 264]]).kernel_only(),
        OpCase::new(|| MeanPixels, &[&[16, 64, 64, 128]]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::DType;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::column_blocks;

    pub(super) fn forward(
        gpu: &Gpu,
        [n, h, w, c]: [usize; 4],
        x: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let (pixels, dtype, count) = (h * w, x.dtype(), y.len());
        let ([across, splits], rows) = column_blocks(dtype, pixels, c);
        let mut partial = Tensor::empty_on(&x.device(), DType::F32, &[n, splits, c])?;
        kernels::mean_pixels_sums { x, partial: &mut partial, pixels, c, rows }
            .launch(gpu, Grid::new([across, splits, n], 256))?;
        kernels::mean_pixels_finish { partial: &partial, y, n: count, splits, c, pixels }
            .launch(gpu, Grid::elements(count))
    }
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{column_sums, rows};

    pub(super) fn forward<T: Real>([n, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let m = (h * w) as f64;
        for n in 0..n {
            let sums = column_sums(&x[n * h * w * c..][..h * w * c], c);
            y[n * c..][..c].iter_mut().zip(sums).for_each(|(y, s)| *y = T::from_f64(s / m));
        }
    }

    pub(super) fn backward<T: Real>([_, h, w, c]: [usize; 4], dy: &[T], dx: &mut [T]) {
        let each = T::from_f64(1.0 / (h * w) as f64);
        rows(dx, c, |pixel, dx| {
            let dy = &dy[pixel / (h * w) * c..][..c];
            for k in 0..c {
                dx[k] = each * dy[k];
            }
        });
    }
}
