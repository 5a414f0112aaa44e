//! How far normal distributions are from the standard one: the second term of a VAE's loss (Kingma and
//! Welling 2014, appendix B), in nats for each element of the batch.
//!
//! ```text
//! y  = (1 / N) sum over n, k of (m^2 + e^s - 1 - s) / 2      m: means, s: log sigma^2, [N, K]; y: [1]
//! dm = dy m / N,    ds = dy (e^s - 1) / (2 N)
//! ```
use super::{parallel, same_shape};
use crate::engine::cuda::{Grid, kernels};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The mean over the first axis of the divergence of `N(mean, exp(log_variance))` from `N(0, 1)`, as `[1]`.
    pub fn kl_normal(&mut self, mean: &Var, log_variance: &Var) -> Result<Var> {
        self.apply(KlNormal, &[mean, log_variance])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct KlNormal;

impl Op for KlNormal {
    fn name(&self) -> &'static str {
        "kl_normal"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [mean, log_variance] = inputs else { unreachable!("kl_normal takes two inputs") };
        same_shape(self.name(), mean, log_variance)?;
        if mean.is_empty() {
            return Err(Error::shape(self.name(), "[N, ...] with elements", mean.shape()));
        }
        let rows = mean.shape()[0];
        let mut y = Tensor::empty_as(mean, &[1])?;
        on_device!(mean,
            cpu::<T> => {
                let (m, s) = (mean.cpu::<T>()?, log_variance.cpu::<T>()?);
                let total = parallel::sum(m.len(), |i| {
                    let (m, s) = (m[i].to_f64(), s[i].to_f64());
                    // exp_m1: near 0 the exponential and the 1 cancel.
                    0.5 * (m * m + (s.exp_m1() - s))
                });
                y.cpu_mut::<T>()?[0] = T::from_f64(total / rows as f64);
            },
            cuda(gpu) => {
                let (m, s, n) = (mean, log_variance, mean.len());
                kernels::kl_normal_forward { m, s, y: &mut y, n, rows }
                    .launch(&gpu, Grid::new([1, 1, 1], 256))?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [m, s] = call.inputs else { unreachable!("kl_normal takes two inputs") };
        let rows = m.shape()[0];
        let (mut dm, mut ds) = (Tensor::empty_as(m, m.shape())?, Tensor::empty_as(s, s.shape())?);
        on_device!(m,
            cpu::<T> => {
                let each = dy.to_f64_vec()?[0] / rows as f64;
                parallel::zip2(dm.cpu_mut::<T>()?, m.cpu()?, move |dm, &m| {
                    *dm = T::from_f64(each * m.to_f64());
                });
                parallel::zip2(ds.cpu_mut::<T>()?, s.cpu()?, move |ds, &s| {
                    *ds = T::from_f64(0.5 * each * s.to_f64().exp_m1());
                });
            },
            cuda(gpu) => {
                let n = m.len();
                kernels::kl_normal_backward { m, s, dy, dm: &mut dm, ds: &mut ds, n, rows }
                    .launch(&gpu, Grid::elements(n))?;
            }
        );
        Ok(vec![Some(dm), Some(ds)])
    }
}

/// Odd sizes, one element, more elements than a block has threads; a batch of latent codes.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: &[usize]| OpCase::new(|| KlNormal, &[shape, shape]);
    vec![
        case(&[3, 5]),
        case(&[1, 1]),
        // Gradients of 1 / N are subnormal in f16.
        case(&[70, 16]).kernel_only().kernel_tols([1e-5, 1e-2, 8e-3]),
        case(&[128, 16]).timed_only(),
    ]
}
