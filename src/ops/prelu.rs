//! Parametric rectified linear unit with one slope for the whole map, or one for each channel (He et al. 2015).
//!
//! x: any shape whose last axis is C, slope: `[1]` or `[C]`.
//!
//! ```text
//! y         = x where x > 0, else slope[c] x
//! dx        = dy where x > 0, else slope[c] dy
//! dslope[c] = sum of dy x where x <= 0, over the channel or all
//! ```
//!
//! Summed in a fixed order: in double precision on the CPU, in single on a GPU.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x`, multiplied by `slope`, `[1]` or one for each channel, where it is not positive.
    pub fn prelu(&mut self, x: &Var, slope: &Var) -> Result<Var> {
        self.apply(Prelu, &[x, slope])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Prelu;

impl Op for Prelu {
    fn name(&self) -> &'static str {
        "prelu"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, slope] = inputs else { unreachable!("prelu takes two inputs") };
        let channels = x.shape().last().copied().unwrap_or(1);
        if slope.shape() != [1] && slope.shape() != [channels] {
            let wanted = format!("one slope, [1], or {channels} slopes");
            return Err(Error::shape(self.name(), wanted, slope.shape()));
        }
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(slope.cpu()?, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::forward(&gpu, x, slope, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x, slope] = call.inputs else { unreachable!("prelu takes two inputs") };
        let mut grads = call.empty_gradients()?;
        let [dx, dslope] = &mut grads[..] else { unreachable!("one gradient for each input") };
        on_device!(x,
            cpu::<T> => {
                let (x, dy) = (x.cpu::<T>()?, dy.cpu()?);
                if let Some(dx) = dx {
                    cpu::by_input(slope.cpu()?, x, dy, dx.cpu_mut()?);
                }
                if let Some(dslope) = dslope {
                    cpu::by_slope(x, dy, dslope.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = dx {
                    cuda::by_input(&gpu, [x, slope, dy], dx)?;
                }
                if let Some(dslope) = dslope {
                    cuda::by_slope(&gpu, x, dy, dslope)?;
                }
            }
        );
        Ok(grads)
    }
}

/// An odd length, one element, several blocks and a rest; the same with a slope for each channel; maps of
/// generators.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Prelu, &[&[2, 3, 5, 7], &[1]]),
        OpCase::new(|| Prelu, &[&[1], &[1]]),
        OpCase::new(|| Prelu, &[&[3, 31, 17, 5], &[1]]).kernel_only(),
        OpCase::new(|| Prelu, &[&[2, 3, 5, 7], &[7]]),
        OpCase::new(|| Prelu, &[&[1, 2, 3, 16], &[16]]),
        OpCase::new(|| Prelu, &[&[3, 31, 17, 5], &[5]]).kernel_only(),
        OpCase::new(|| Prelu, &[&[1, 33, 16, 264], &[264]]).kernel_only(),
        OpCase::new(|| Prelu, &[&[1, 96, 96, 64], &[1]]).timed_only(),
        OpCase::new(|| Prelu, &[&[1, 96, 96, 64], &[64]]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::DType;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::column_blocks;

    pub(super) fn forward(gpu: &Gpu, x: &Tensor, slope: &Tensor, y: &mut Tensor) -> Result<()> {
        kernels::prelu_forward { x, slope, y, n: x.len(), c: slope.len() }
            .launch(gpu, Grid::packs(x.len(), x.dtype()))
    }

    pub(super) fn by_input(gpu: &Gpu, [x, slope, dy]: [&Tensor; 3], dx: &mut Tensor) -> Result<()> {
        kernels::prelu_backward { x, slope, dy, dx, n: x.len(), c: slope.len() }
            .launch(gpu, Grid::packs(x.len(), x.dtype()))
    }

    pub(super) fn by_slope(gpu: &Gpu, x: &Tensor, dy: &Tensor, slope: &mut Tensor) -> Result<()> {
        match slope.len() {
            1 => by_one_slope(gpu, x, dy, slope),
            _ => by_slopes(gpu, x, dy, slope),
        }
    }

    fn by_one_slope(gpu: &Gpu, x: &Tensor, dy: &Tensor, slope: &mut Tensor) -> Result<()> {
        // Enough blocks for any GPU, few enough for one block to add up.
        let blocks = x.len().div_ceil(2048).clamp(1, 1024);
        let mut partial = Tensor::empty_on(&x.device(), DType::F32, &[blocks])?;
        kernels::prelu_slope_sums { x, dy, partial: &mut partial, n: x.len() }
            .launch(gpu, Grid::new([blocks, 1, 1], 256))?;
        // A sum is a mean over one.
        kernels::mean_loss_finish { partial: &partial, y: slope, blocks, n: 1 }
            .launch(gpu, Grid::new([1, 1, 1], 256))
    }

    fn by_slopes(gpu: &Gpu, x: &Tensor, dy: &Tensor, slopes: &mut Tensor) -> Result<()> {
        let (dtype, c) = (x.dtype(), slopes.len());
        let pixels = x.len() / c;
        let ([across, splits], rows) = column_blocks(dtype, pixels, c);
        let mut partial = Tensor::empty_on(&x.device(), DType::F32, &[splits, c])?;
        kernels::prelu_channel_sums { x, dy, partial: &mut partial, pixels, c, rows }
            .launch(gpu, Grid::new([across, splits, 1], 256))?;
        kernels::prelu_channel_finish { partial: &partial, dslope: slopes, c, splits }
            .launch(gpu, Grid::elements(c))
    }
}

mod cpu {
    use crate::engine::device::Real;
    use crate::engine::pool::Buffer;
    use crate::ops::parallel::{column_sums, rows, sum, zip2, zip3};

    pub(super) fn forward<T: Real>(slopes: &[T], x: &[T], y: &mut [T]) {
        let zero = T::default();
        if let &[slope] = slopes {
            return zip2(y, x, move |y, &x| *y = if x > zero { x } else { slope * x });
        }
        let c = slopes.len();
        rows(y, c, |pixel, y| {
            let x = &x[pixel * c..][..c];
            for k in 0..c {
                y[k] = if x[k] > zero { x[k] } else { slopes[k] * x[k] };
            }
        });
    }

    pub(super) fn by_input<T: Real>(slopes: &[T], x: &[T], dy: &[T], dx: &mut [T]) {
        let (zero, c) = (T::default(), slopes.len());
        if let &[slope] = slopes {
            return zip3(dx, x, dy, move |dx, &x, &dy| {
                *dx = if x > zero { dy } else { slope * dy }
            });
        }
        rows(dx, c, |pixel, dx| {
            let (x, dy) = (&x[pixel * c..][..c], &dy[pixel * c..][..c]);
            for (k, dx) in dx.iter_mut().enumerate() {
                *dx = if x[k] > zero { dy[k] } else { slopes[k] * dy[k] };
            }
        });
    }

    pub(super) fn by_slope<T: Real>(x: &[T], dy: &[T], dslopes: &mut [T]) {
        let zero = T::default();
        if let [dslope] = dslopes {
            let each = |i: usize| if x[i] > zero { 0.0 } else { x[i].to_f64() * dy[i].to_f64() };
            *dslope = T::from_f64(sum(x.len(), each));
            return;
        }
        let mut products = Buffer::<T>::new(x.len());
        zip3(&mut products, x, dy, move |p, &x, &dy| *p = if x > zero { zero } else { x * dy });
        let sums = column_sums(&products, dslopes.len());
        dslopes.iter_mut().zip(sums).for_each(|(d, sum)| *d = T::from_f64(sum));
    }
}
