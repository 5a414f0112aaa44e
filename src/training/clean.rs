//! The clean images that a network's output stands for, for losses that judge images.
use super::batch::Batch;
use crate::diffusion::process::{Chain, Prediction};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;

/// How x0 follows from what is predicted.
#[derive(Clone, Copy)]
pub(super) struct Clean<'a> {
    pub(super) chain: &'a Chain,
    pub(super) prediction: Prediction,
}

impl Clean<'_> {
    /// x0_hat of `predicted`, of the `state` that the network saw.
    pub(super) fn x0_hat(
        &self,
        tape: &mut Tape,
        [predicted, state]: [&Var; 2],
        batch: &Batch,
    ) -> Result<Var> {
        let factors = |t: &usize| {
            let [slope, x, y0] = self.chain.x0_hat(self.prediction, *t);
            // The network saw the state multiplied by this.
            [slope, x / self.chain.input_scale(*t), y0]
        };
        let factors: Vec<[f64; 3]> = batch.steps.iter().map(factors).collect();
        let column = |k: usize| factors.iter().map(|f| f[k]).collect::<Vec<f64>>();
        let mut x0 = tape.scale_images(predicted, column(0))?;
        let y0 = tape.input(batch.crops.y0.try_clone()?);
        for (k, image) in [(1, state), (2, &y0)] {
            let column = column(k);
            if column.iter().any(|&f| f != 0.0) {
                let part = tape.scale_images(image, column)?;
                x0 = tape.add(&x0, &part)?;
            }
        }
        Ok(x0)
    }

    /// How much the images of these steps count: alpha_bar_t where noise is predicted, since x0_hat late in
    /// the chain is a large multiple of its error; else alike.
    pub(super) fn weights(&self, steps: &[usize]) -> Vec<f64> {
        let weight = |&t: &usize| match self.prediction {
            Prediction::Epsilon => self.chain.marginal(t).x0.powi(2),
            _ => 1.0,
        };
        steps.iter().map(weight).collect()
    }
}
