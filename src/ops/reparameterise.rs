//! A draw from normal distributions that has gradients by their means and variances (Kingma and Welling
//! 2014, section 2.4). The noise is data.
//!
//! ```text
//! z  = m + e^(s / 2) n               m: means, s: log sigma^2, n: standard normal numbers
//! dm = dz,    ds = dz n e^(s / 2) / 2
//! ```
use super::same_shape;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `mean + exp(log_variance / 2) * noise`, elementwise.
    pub fn reparameterise(&mut self, mean: &Var, log_variance: &Var, noise: &Var) -> Result<Var> {
        self.apply(Reparameterise, &[mean, log_variance, noise])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Reparameterise;

impl Op for Reparameterise {
    fn name(&self) -> &'static str {
        "reparameterise"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let &[m, s, n] = inputs else { unreachable!("reparameterise takes three inputs") };
        [s, n].into_iter().try_for_each(|other| same_shape(self.name(), m, other))?;
        let mut z = Tensor::empty_as(m, m.shape())?;
        on_device!(m,
            cpu::<T> => cpu::forward::<T>([m.cpu()?, s.cpu()?, n.cpu()?], z.cpu_mut()?),
            cuda(gpu) => {
                kernels::reparameterise_forward { m, s, noise: n, z: &mut z, n: m.len() }
                    .launch(&gpu, Grid::elements(m.len()))?;
            }
        );
        Ok((z, Saved::new()))
    }

    fn backward(&self, call: &Call, dz: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let &[_, s, n] = call.inputs else { unreachable!("reparameterise takes three inputs") };
        let mut ds = Tensor::empty_as(s, s.shape())?;
        on_device!(s,
            cpu::<T> => cpu::backward::<T>([s.cpu()?, n.cpu()?, dz.cpu()?], ds.cpu_mut()?),
            cuda(gpu) => {
                kernels::reparameterise_backward { s, noise: n, dz, ds: &mut ds, n: s.len() }
                    .launch(&gpu, Grid::elements(s.len()))?;
            }
        );
        Ok(vec![None, Some(ds), None])
    }

    fn hands_on(&self, input: usize) -> Option<f64> {
        (input == 0).then_some(1.0)
    }
}

/// Odd sizes, one element, several blocks; a batch of latent codes.
pub fn cases() -> Vec<OpCase> {
    let case =
        |shape: &[usize]| OpCase::new(|| Reparameterise, &[shape, shape, shape]).without_grad(2);
    vec![case(&[3, 5]), case(&[1, 1]), case(&[33, 17]).kernel_only(), case(&[128, 16]).timed_only()]
}

mod cpu {
    use crate::engine::device::Real;

    pub(super) fn forward<T: Real>([m, s, n]: [&[T]; 3], z: &mut [T]) {
        for (i, z) in z.iter_mut().enumerate() {
            *z = m[i] + deviation(s[i]) * n[i];
        }
    }

    pub(super) fn backward<T: Real>([s, n, dz]: [&[T]; 3], ds: &mut [T]) {
        for (i, ds) in ds.iter_mut().enumerate() {
            *ds = T::from_f64(0.5) * dz[i] * n[i] * deviation(s[i]);
        }
    }

    fn deviation<T: Real>(log_variance: T) -> T {
        T::from_f64((0.5 * log_variance.to_f64()).exp())
    }
}
