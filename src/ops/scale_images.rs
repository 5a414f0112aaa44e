//! Multiplication of each image of a batch by its own number, such as a weight that depends on t.
//!
//! ```text
//! y[n]  = s[n] x[n]
//! dx[n] = s[n] dy[n]
//! ```
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::DType;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x` `[N, ..]` with every `x[n]` multiplied by `factors[n]`: `[N]`, F32, where `x` lies. This can be recorded, and
    /// replayed with others.
    pub fn scale_images_by(&mut self, x: &Var, factors: &Tensor) -> Result<Var> {
        self.apply(ScaleImages { factors: factors.try_clone()? }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct ScaleImages {
    /// A number for each image, `[N]`; on the CPU any type, and copied to where the images lie.
    pub factors: Tensor,
}

impl ScaleImages {
    /// Multiplies by `factors`.
    pub fn new(factors: &[f64]) -> Self {
        Self { factors: Tensor::from_f64(factors, &[factors.len()], DType::F64) }
    }
}

impl Op for ScaleImages {
    fn name(&self) -> &'static str {
        "scale_images"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("scale_images takes one input") };
        let images = self.factors.len();
        if images == 0 || x.shape().first() != Some(&images) {
            return Err(Error::shape(self.name(), format!("{images} images"), x.shape()));
        }
        Ok((self.applied(x)?, Saved::new()))
    }

    fn backward(&self, _: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.applied(dy)?)])
    }
}

impl ScaleImages {
    fn applied(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = Tensor::empty_as(x, x.shape())?;
        let each = x.len() / self.factors.len();
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(&self.factors.to_f64_vec()?, each, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => {
                let n = x.len();
                let moved = match self.factors.device() == x.device() {
                    true => None,
                    false => Some(self.factors.cast(DType::F32)?.to_device(&x.device())?),
                };
                let factors = moved.as_ref().unwrap_or(&self.factors);
                kernels::scale_images { x, factors, y: &mut y, n, each }
                    .launch(&gpu, Grid::elements(n))?;
            }
        );
        Ok(y)
    }
}

/// Images of an odd size, verdicts of one number, and an image of a training batch.
pub fn cases() -> Vec<OpCase> {
    let three = || ScaleImages::new(&[0.3, -1.5, 0.0]);
    vec![
        OpCase::new(three, &[&[3, 5, 7, 3]]),
        OpCase::new(three, &[&[3]]),
        OpCase::new(|| ScaleImages::new(&[0.5; 4]), &[&[4, 256, 256, 3]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::zip2;

    pub(super) fn forward<T: Real>(factors: &[f64], each: usize, x: &[T], y: &mut [T]) {
        let images = y.chunks_exact_mut(each.max(1)).zip(x.chunks_exact(each.max(1)));
        for ((y, x), &factor) in images.zip(factors) {
            let factor = T::from_f64(factor);
            zip2(y, x, move |y, &x| *y = factor * x);
        }
    }
}
