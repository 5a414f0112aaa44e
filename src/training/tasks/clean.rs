//! The clean images that a network's output stands for, for losses that judge images.
use crate::diffusion::process::{Chain, Prediction};
use crate::engine::device::DType;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::training::batch::Batch;

use super::names::Y0;

/// What predicted, state and y0 are multiplied by in x0_hat, `[N]` each.
const OF: [&str; 3] = ["clean.predicted", "clean.state", "clean.y0"];
/// How much the images count, `[N]`, and the roots of that.
pub(super) const WEIGHTS: &str = "weights";
pub(super) const ROOTS: &str = "roots";

/// How x0 follows from what is predicted.
#[derive(Clone, Copy)]
pub(super) struct Clean<'a> {
    pub(super) chain: &'a Chain,
    pub(super) prediction: Prediction,
}

impl Clean<'_> {
    /// `batch` with what [`x0_hat`] and its weights need of the `steps` of its images.
    pub(super) fn tell(&self, mut batch: Batch, steps: &[usize]) -> Batch {
        let column = |values: Vec<f64>| Tensor::from_f64(&values, &[values.len()], DType::F32);
        // The same parts for every batch: one that counts nowhere in the chain is left out.
        let all: Vec<[f64; 3]> = (1..=self.chain.steps()).map(|t| self.factors(t)).collect();
        for (k, name) in OF.into_iter().enumerate() {
            if k == 0 || all.iter().any(|factors| factors[k] != 0.0) {
                let of_images = steps.iter().map(|&t| self.factors(t)[k]).collect();
                batch = batch.with(name, column(of_images));
            }
        }
        let weights: Vec<f64> = steps.iter().map(|&t| self.weight(t)).collect();
        let roots = weights.iter().map(|w| w.sqrt()).collect();
        batch.with(WEIGHTS, column(weights)).with(ROOTS, column(roots))
    }

    fn factors(&self, t: usize) -> [f64; 3] {
        let [slope, x, y0] = self.chain.x0_hat(self.prediction, t);
        // The network saw the state multiplied by this.
        [slope, x / self.chain.input_scale(t), y0]
    }

    /// How much images at t count: alpha_bar_t where noise is predicted, since x0_hat late in the chain is a large
    /// multiple of its error; else alike.
    fn weight(&self, t: usize) -> f64 {
        match self.prediction {
            Prediction::Epsilon => self.chain.marginal(t).x0.powi(2),
            _ => 1.0,
        }
    }
}

/// x0_hat of `predicted`, of the `state` that the network saw, both in single precision.
///
/// # Errors
/// If nothing was [told](Clean::tell) of the batch, or memory is full.
pub(super) fn x0_hat(tape: &mut Tape, [predicted, state]: [&Var; 2], batch: &Batch) -> Result<Var> {
    let mut x0 = tape.scale_images_by(predicted, batch.get(OF[0])?)?;
    let y0 = tape.input(batch.get(Y0)?.try_clone()?);
    for (name, image) in [(OF[1], state), (OF[2], &y0)] {
        if let Some(factors) = batch.find(name) {
            let part = tape.scale_images_by(image, factors)?;
            x0 = tape.add(&x0, &part)?;
        }
    }
    Ok(x0)
}
