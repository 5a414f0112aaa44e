//! Parametric rectified linear unit with one slope for the whole map (He et al. 2015).
//!
//! x: any shape, slope: `[1]`.
//!
//! ```text
//! y      = x where x > 0, else slope x
//! dx     = dy where x > 0, else slope dy
//! dslope = sum of dy x where x <= 0
//! ```
//!
//! Summed in a fixed order: in double precision on the CPU, in single on a GPU.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x`, multiplied by `slope` `[1]` where it is not positive.
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
        if slope.shape() != [1] {
            return Err(Error::shape(self.name(), "one slope, [1]", slope.shape()));
        }
        let mut y = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(slope.cpu()?[0], x.cpu()?, y.cpu_mut()?),
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
                    cpu::by_input(slope.cpu()?[0], x, dy, dx.cpu_mut()?);
                }
                if let Some(dslope) = dslope {
                    dslope.cpu_mut()?[0] = cpu::by_slope(x, dy);
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

/// An odd length, one element, several blocks and a rest; a map of a generator.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Prelu, &[&[2, 3, 5, 7], &[1]]),
        OpCase::new(|| Prelu, &[&[1], &[1]]),
        OpCase::new(|| Prelu, &[&[3, 31, 17, 5], &[1]]).kernel_only(),
        OpCase::new(|| Prelu, &[&[1, 96, 96, 64], &[1]]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid};
    use crate::engine::device::DType;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    pub(super) fn forward(gpu: &Gpu, x: &Tensor, slope: &Tensor, y: &mut Tensor) -> Result<()> {
        let args = [x.into(), slope.into(), y.into(), x.len().into()];
        gpu.launch("prelu_forward", x.dtype(), Grid::packs(x.len(), x.dtype()), &args)
    }

    pub(super) fn by_input(gpu: &Gpu, [x, slope, dy]: [&Tensor; 3], dx: &mut Tensor) -> Result<()> {
        let args = [x.into(), slope.into(), dy.into(), dx.into(), x.len().into()];
        gpu.launch("prelu_backward", x.dtype(), Grid::packs(x.len(), x.dtype()), &args)
    }

    pub(super) fn by_slope(gpu: &Gpu, x: &Tensor, dy: &Tensor, slope: &mut Tensor) -> Result<()> {
        // Enough blocks for any GPU, few enough for one block to add up.
        let blocks = x.len().div_ceil(2048).clamp(1, 1024);
        let partial = Tensor::empty_on(&x.device(), DType::F32, &[blocks])?;
        let args = [x.into(), dy.into(), (&partial).into(), x.len().into()];
        gpu.launch("prelu_slope_sums", x.dtype(), Grid::new([blocks, 1, 1], 256), &args)?;
        // A sum is a mean over one.
        let args = [(&partial).into(), slope.into(), blocks.into(), 1usize.into()];
        gpu.launch("mean_loss_finish", x.dtype(), Grid::new([1, 1, 1], 256), &args)
    }
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{sum, zip2, zip3};

    pub(super) fn forward<T: Real>(slope: T, x: &[T], y: &mut [T]) {
        let zero = T::default();
        zip2(y, x, |y, &x| *y = if x > zero { x } else { slope * x });
    }

    pub(super) fn by_input<T: Real>(slope: T, x: &[T], dy: &[T], dx: &mut [T]) {
        let zero = T::default();
        zip3(dx, x, dy, |dx, &x, &dy| *dx = if x > zero { dy } else { slope * dy });
    }

    pub(super) fn by_slope<T: Real>(x: &[T], dy: &[T]) -> T {
        let zero = T::default();
        let each = |i: usize| if x[i] > zero { 0.0 } else { x[i].to_f64() * dy[i].to_f64() };
        T::from_f64(sum(x.len(), each))
    }
}
