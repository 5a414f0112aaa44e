//! How far slopes are from 1: the penalty of WGAN-GP (Gulrajani et al. 2017, equation 3), of the gradient of
//! a critic by its inputs.
//!
//! ```text
//! y    = mean over n of (|g_n| - 1)^2,    |g_n| the L2 norm of all of g[n, ..]        y: [1]
//! dg_n = dy (2 / N) (1 - 1 / |g_n|) g_n,    0 where g_n is 0
//! ```
use super::parallel;
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::{DType, Real};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// The mean over the first axis of `(|g_n| - 1)^2`, as `[1]`.
    pub fn gradient_penalty(&mut self, g: &Var) -> Result<Var> {
        self.apply(GradientPenalty, &[g])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct GradientPenalty;

impl Op for GradientPenalty {
    fn name(&self) -> &'static str {
        "gradient_penalty"
    }

    /// Saves the norms `[N]`, F32 on a GPU.
    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [g] = inputs else { unreachable!("gradient_penalty takes one input") };
        let rows = match g.shape() {
            [rows, ..] if !g.is_empty() => *rows,
            shape => return Err(Error::shape(self.name(), "[N, ...] with elements", shape)),
        };
        let length = g.len() / rows;
        let norms_in = if g.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let mut norms = Tensor::empty_on(&g.device(), norms_in, &[rows])?;
        let mut y = Tensor::empty_as(g, &[1])?;
        on_device!(g,
            cpu::<T> => {
                let (g, norms) = (g.cpu::<T>()?, norms.cpu_mut::<T>()?);
                parallel::rows(norms, 1, |n, norm| {
                    let squares = g[n * length..][..length].iter().map(|v| v.to_f64().powi(2));
                    norm[0] = T::from_f64(squares.sum::<f64>().sqrt());
                });
                let total: f64 = norms.iter().map(|norm| (norm.to_f64() - 1.0).powi(2)).sum();
                y.cpu_mut::<T>()?[0] = T::from_f64(total / rows as f64);
            },
            cuda(gpu) => forward_on_gpu(&gpu, g, &mut norms, &mut y)?,
        );
        Ok((y, vec![norms]))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let ([g], [norms]) = (call.inputs, &call.saved[..]) else { unreachable!("as forward") };
        let (rows, length) = (norms.len(), g.len() / norms.len());
        let mut dg = Tensor::empty_as(g, g.shape())?;
        on_device!(g,
            cpu::<T> => {
                let each = 2.0 * dy.to_f64_vec()?[0] / rows as f64;
                let (g, norms) = (g.cpu::<T>()?, norms.cpu::<T>()?);
                parallel::rows(dg.cpu_mut::<T>()?, length, |n, dg| {
                    let norm = norms[n].to_f64();
                    let factor = if norm > 0.0 { each * (1.0 - 1.0 / norm) } else { 0.0 };
                    let factor = T::from_f64(factor);
                    dg.iter_mut().zip(&g[n * length..]).for_each(|(dg, &g)| *dg = factor * g);
                });
            },
            cuda(gpu) => {
                let n = g.len();
                kernels::gradient_penalty_backward { g, norms, dy, dg: &mut dg, n, length, rows }
                    .launch(&gpu, Grid::packs(n, g.dtype()))?;
            }
        );
        Ok(vec![Some(dg)])
    }
}

fn forward_on_gpu(gpu: &Gpu, g: &Tensor, norms: &mut Tensor, y: &mut Tensor) -> Result<()> {
    let (rows, length) = (norms.len(), g.len() / norms.len());
    kernels::gradient_penalty_norms { g, norms, length }
        .launch(gpu, Grid::new([rows, 1, 1], 256))?;
    kernels::gradient_penalty_finish { norms: &*norms, y, rows }
        .launch(gpu, Grid::new([1, 1, 1], 256))
}

/// Odd lengths, one element, slopes beside 1, more rows than a block has threads; a batch of MNIST.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: &[usize]| OpCase::new(|| GradientPenalty, &[shape]);
    vec![
        case(&[2, 3, 5, 7]),
        case(&[3, 5]),
        case(&[1, 1]).inputs(0.1, 1.5),
        // The gradients of 2 / N are far below those of the default tolerance's case in f16.
        case(&[300, 3]).kernel_only().kernel_tols([1e-5, 1e-2, 8e-3]),
        case(&[2, 16, 16, 3]).kernel_only(),
        case(&[128, 28, 28, 1]).timed_only(),
    ]
}
