//! The state of training beside the weights: moments, the moving average, and the step count.
use crate::engine::parameter::Parameter;
use crate::engine::tape::Grads;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::ops::adam::{Adam, adam};
use crate::ops::clip_by_norm;
use crate::ops::ema::ema;

use super::sections::{Config, EmaConfig, OptimConfig, OptimKind};

/// Moments and averages of all parameters, in their order.
#[derive(Debug)]
pub struct Optimizer {
    /// First moments.
    pub first: Vec<Tensor>,
    /// Second moments.
    pub second: Vec<Tensor>,
    /// Moving averages of the values.
    pub average: Vec<Tensor>,
    /// Steps done.
    pub step: u64,
    /// What keeps gradients in the range of f16, where that is trained in.
    pub scale: Option<LossScale>,
}

/// The factor of the loss that keeps gradients in the range of f16 (Micikevicius et al. 2018, section
/// 3.2): halved when they overflow, doubled after a long time without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScale {
    /// The factor.
    pub value: f64,
    /// Steps since it changed.
    pub good: u64,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { value: Self::FIRST, good: 0 }
    }
}

impl LossScale {
    const FIRST: f64 = 65536.0;
    const GROWTH: u64 = 2000;

    /// Adapts to a step, or to one that was skipped because gradients overflowed.
    pub fn update(&mut self, skipped: bool) {
        self.good += 1;
        if skipped {
            *self = Self { value: self.value / 2.0, good: 0 };
        } else if self.good == Self::GROWTH {
            *self = Self { value: (self.value * 2.0).min(Self::FIRST), good: 0 };
        }
    }
}

/// Sums of gradients in the order of the parameters; none where the loss does not depend on one.
pub type Gradients = Vec<Option<Tensor>>;

/// Takes the gradients of `parameters` out of `grads`.
///
/// # Errors
/// If one must be copied and the memory of a GPU is full.
pub fn take(grads: &mut Grads, parameters: &[Parameter]) -> Result<Gradients> {
    parameters.iter().map(|p| grads.take_parameter(p)).collect()
}

/// Adds `more` to `sum`.
pub fn accumulate(sum: &mut Gradients, more: Gradients) -> Result<()> {
    for (sum, more) in sum.iter_mut().zip(more) {
        match (sum.as_mut(), more) {
            (Some(sum), Some(more)) => sum.add_assign(&more)?,
            (None, more) => *sum = more,
            (Some(_), None) => {}
        }
    }
    Ok(())
}

/// What an optimizer is told.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The algorithm and its rate.
    pub optim: &'a OptimConfig,
    /// The moving average.
    pub ema: &'a EmaConfig,
    /// Its steps in all.
    pub steps: u64,
    /// The step it starts after, without moments.
    pub since: u64,
}

impl<'a> Plan<'a> {
    /// That of the one optimizer of `config`.
    pub const fn of(config: &'a Config) -> Self {
        Self { optim: &config.optim, ema: &config.ema, steps: config.run.steps, since: 0 }
    }
}

/// What a step did.
#[derive(Clone, Copy, Debug)]
pub struct StepReport {
    /// The learning rate.
    pub rate: f64,
    /// The L2 norm of the mean gradient before clipping.
    pub norm: f64,
}

impl Optimizer {
    /// Zero moments, and averages equal to the values.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn new(parameters: &[Parameter]) -> Result<Self> {
        let zeros = || {
            let zero = |p: &Parameter| Tensor::zeros_as(&p.value(), p.value().shape());
            parameters.iter().map(zero).collect::<Result<Vec<_>>>()
        };
        let average = parameters.iter().map(|p| p.value().try_clone()).collect::<Result<_>>()?;
        Ok(Self { first: zeros()?, second: zeros()?, average, step: 0, scale: None })
    }

    /// One step: clips the mean of the gradients summed `of` times, moves every parameter, then its average.
    /// Changes nothing if the norm of the gradients is not finite.
    pub fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &Gradients,
        plan: &Plan,
        of: f64,
    ) -> Result<StepReport> {
        let step = self.step + 1;
        let o = plan.optim;
        let mean = 1.0 / of;
        let mut slices = Vec::new();
        for gradient in gradients.iter().flatten() {
            slices.push(gradient.cpu::<f32>()?);
        }
        let norm = mean * clip_by_norm::norm(slices.into_iter());
        let rate = o.rate(step - plan.since, plan.steps - plan.since);
        if !norm.is_finite() {
            return Ok(StepReport { rate, norm });
        }
        if self.step == plan.since {
            for moment in self.first.iter_mut().chain(&mut self.second) {
                moment.cpu_mut::<f32>()?.fill(0.0);
            }
        }
        self.step = step;
        let constants = Adam {
            lr: rate,
            betas: o.betas,
            eps: o.eps,
            decay: if o.kind == OptimKind::Adamw { o.weight_decay } else { 0.0 },
            step: step - plan.since,
            scale: mean * clip_by_norm::factor(norm, o.clip),
        };
        let keep = plan.ema.decay_at(step);
        for (i, parameter) in parameters.iter().enumerate() {
            let mut value = parameter.value().try_clone()?;
            if let Some(gradient) = &gradients[i] {
                let (m, v) = (self.first[i].cpu_mut()?, self.second[i].cpu_mut()?);
                adam(value.cpu_mut()?, m, v, gradient.cpu()?, &constants);
            }
            ema(self.average[i].cpu_mut()?, value.cpu()?, keep);
            parameter.set(value);
        }
        Ok(StepReport { rate, norm })
    }
}
