//! Samplers: every step of every sampler is one linear combination, whose factors follow from the
//! schedule at two points t > s of the chain.
//!
//! ```text
//! x_s = x * x_t + x0 * x0_hat + y0 * y0 + noise * z
//! ```
use serde::{Deserialize, Serialize};

use super::process::{Chain, Enlarge, Family, Marginal, Prediction, Process};
use crate::engine::rng::Sequence;
use crate::error::{Error, Report, Result};
use crate::ops::sampler_step::{Factors, combine};

/// How a chain is walked back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sampler {
    /// The rule of one step.
    pub rule: Rule,
    /// What is kept within `[-1, 1]`.
    pub clamp: Clamp,
    /// Where the chain starts.
    pub start: Start,
}

/// The `[diffusion]` section: a process, what the network predicts, and how it is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Diffusion {
    /// The forward process.
    pub process: Process,
    /// What the network's output means.
    #[serde(default)]
    pub prediction: Prediction,
    /// How the process is reversed.
    #[serde(default)]
    pub sampler: Sampler,
    /// How y0 is made of the low-resolution image.
    #[serde(default)]
    pub enlarge: Enlarge,
    /// Where states live.
    #[serde(default)]
    pub space: Space,
    /// Probability of each t = 1..T in training, up to a common factor; uniform if empty.
    #[serde(default)]
    pub t_weights: Vec<f64>,
    /// Probability that training makes the state at t < T of what the network itself estimates in one call, as it
    /// will be when the chain is walked, and not of x0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub own_states: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(v: &f64) -> bool {
    *v == 0.0
}

impl Diffusion {
    /// Whether the network makes the pixels of the image in one call, so that those that look at the low resolution
    /// alone ([`Network::sees_low_alone`]) need no state and no enlargement.
    pub fn is_direct(&self) -> bool {
        self.process == (Process::Direct {}) && self.space == Space::Pixel
    }

    /// That of networks which enlarge in one call.
    pub fn direct() -> Self {
        Self {
            process: Process::Direct {},
            prediction: Prediction::X0,
            sampler: Sampler::default(),
            enlarge: Enlarge::default(),
            space: Space::default(),
            t_weights: Vec::new(),
            own_states: 0.0,
        }
    }

    /// Refuses constants that make no chain or no distribution of t; exit code 2.
    pub fn check(&self) -> Result<()> {
        let wrong = |cause: String| Error::Usage(Report::new("wrong [diffusion]", cause));
        self.process.check(self.prediction).map_err(wrong)?;
        let (given, steps) = (self.t_weights.len(), self.process.steps());
        let sane = |w: &f64| *w >= 0.0 && w.is_finite();
        if self.process == (Process::Direct {}) && self.prediction == Prediction::Epsilon {
            return Err(wrong(
                "a direct network predicts x0 or the residual; there is no noise".into(),
            ));
        }
        if !(0.0..=1.0).contains(&self.own_states) {
            return Err(wrong("diffusion.own_states is a probability, from 0 to 1".into()));
        }
        if self.own_states > 0.0 && (self.predicts_noise() || self.space == Space::Latent) {
            return Err(wrong("diffusion.own_states needs a network that predicts images".into()));
        }
        if given != 0 && (given != steps || !self.t_weights.iter().all(sane)) {
            return Err(wrong(format!(
                "diffusion.t_weights needs {steps} numbers that are not negative, or none; got {:?}",
                self.t_weights
            )));
        }
        if given != 0 && self.t_weights.iter().sum::<f64>() <= 0.0 {
            return Err(wrong("diffusion.t_weights are all zero".into()));
        }
        Ok(())
    }

    fn predicts_noise(&self) -> bool {
        self.prediction == Prediction::Epsilon
    }

    /// The t of `n` images by `draws`: each of its own or, if calls at T are `apart`, all of them T or none.
    pub fn draw_steps(&self, n: usize, draws: &mut Sequence, apart: bool) -> Vec<usize> {
        let last = self.process.steps();
        let mut drawn = || self.draw_t(draws.uniform());
        let first = drawn();
        let fits = |t: usize| !apart || (t == last) == (first == last);
        // As many draws as it takes: what the first one was has a probability above 0.
        let mut next = || std::iter::repeat_with(&mut drawn).find(|&t| fits(t)).unwrap_or(first);
        std::iter::once(first).chain((1..n).map(|_| next())).take(n).collect()
    }

    /// The t = 1..T that `uniform` in `[0, 1)` stands for under `t_weights`.
    pub fn draw_t(&self, uniform: f64) -> usize {
        let steps = self.process.steps();
        let weight = |t: usize| self.t_weights.get(t - 1).copied().unwrap_or(1.0);
        let mut left = uniform * (1..=steps).map(weight).sum::<f64>();
        let mut last = 1;
        for t in (1..=steps).filter(|&t| weight(t) > 0.0) {
            last = t;
            if left < weight(t) {
                break;
            }
            left -= weight(t);
        }
        last
    }
}

/// Where the states of a chain live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// They are images.
    #[default]
    Pixel,
    /// They are what the network's first stage makes of images.
    Latent,
}

/// The rule of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// The posterior `q(x_s | x_t, x0)` of the process with its own variance: ancestral sampling.
    #[default]
    Posterior,
    /// The posterior mean of DDPM with the variance `beta_t` (Ho et al. 2020, section 3.2). The
    /// same as `posterior` for ResShift.
    LargeVariance,
    /// DDIM with the given eta (Song et al. 2021); for ResShift, the deterministic step that keeps
    /// the noise found, whatever eta is.
    Ddim {
        /// 0 adds no noise, 1 adds as much as ancestral sampling.
        eta: f64,
    },
    /// The `DualDomainUNet` system's mean, which mixes y0 in again and so leaves the marginals of training. ResShift only.
    #[serde(alias = "seed001")]
    DualDomain,
}

/// What a sampler keeps within `[-1, 1]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clamp {
    /// Nothing.
    None,
    /// The predicted clean image.
    #[default]
    X0,
    /// The state after every step.
    Xt,
}

/// Where a chain starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// `q(x_T | x0 = y0)`: what the network met in training. `y0 + kappa sqrt(eta_T) z` for ResShift.
    #[default]
    Marginal,
    /// Standard normal noise alone, as the DDPM systems start even where T steps leave some signal.
    Noise,
}

/// The factors of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Factor of the state.
    pub x: f64,
    /// Factor of the predicted clean image.
    pub x0: f64,
    /// Factor of the enlarged low-resolution image.
    pub y0: f64,
    /// Standard deviation of the fresh noise.
    pub noise: f64,
}

impl Step {
    /// Replaces the state by the next one. All slices hold the same pixels; `z` is standard normal.
    pub fn apply(&self, x: &mut [f32], x0_hat: &[f32], y0: &[f32], z: &[f32]) {
        combine(x, [self.x, self.x0, self.y0, self.noise], x0_hat, y0, z);
    }
}

/// The posterior of ResShift, `q(x_s | x_t, x0)` (Yue et al. 2023, equation 6):
/// mean `(eta_s x_t + (eta_t - eta_s) x0) / eta_t`, variance `kappa^2 eta_s (eta_t - eta_s) / eta_t`.
pub fn resshift_posterior(kappa: f64, eta_t: f64, eta_s: f64) -> Step {
    let alpha = eta_t - eta_s;
    let noise = kappa * (eta_s / eta_t * alpha).sqrt();
    Step { x: eta_s / eta_t, x0: alpha / eta_t, y0: 0.0, noise }
}

/// ResShift as the `DualDomainUNet` system samples it:
/// mean `(eta_s x_t + alpha (1 - eta_s) x0 + alpha eta_s y0) / eta_t` with `alpha = eta_t - eta_s`.
pub fn resshift_dual_domain(kappa: f64, eta_t: f64, eta_s: f64) -> Step {
    let alpha = eta_t - eta_s;
    let x0 = alpha / eta_t * (1.0 - eta_s);
    Step { x0, y0: alpha * eta_s / eta_t, ..resshift_posterior(kappa, eta_t, eta_s) }
}

/// ResShift without fresh noise: the noise found in `x_t` is kept, scaled to s,
/// `x_s = (1 - eta_s) x0 + eta_s y0 + sqrt(eta_s / eta_t) (x_t - (1 - eta_t) x0 - eta_t y0)`.
pub fn resshift_deterministic(eta_t: f64, eta_s: f64) -> Step {
    let keep = (eta_s / eta_t).sqrt();
    let x0 = 1.0 - eta_s - keep * (1.0 - eta_t);
    Step { x: keep, x0, y0: eta_s - keep * eta_t, noise: 0.0 }
}

/// The variance of an ancestral DDPM step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variance {
    /// `beta_t`.
    Beta,
    /// The posterior's own, `beta_t (1 - alpha_bar_s) / (1 - alpha_bar_t)`.
    BetaTilde,
}

/// Ancestral DDPM (Ho et al. 2020, equation 7) from t to s with `beta_t = 1 - alpha_bar_t /
/// alpha_bar_s`. No noise where `alpha_bar_s` is 1. SR3 samples the same way with `BetaTilde`.
pub fn ddpm_ancestral(alpha_bar_t: f64, alpha_bar_s: f64, variance: Variance) -> Step {
    let beta = 1.0 - alpha_bar_t / alpha_bar_s;
    let (noise_t, noise_s) = (1.0 - alpha_bar_t, 1.0 - alpha_bar_s);
    let variance = match variance {
        _ if noise_s == 0.0 => 0.0,
        Variance::Beta => beta,
        Variance::BetaTilde => beta * noise_s / noise_t,
    };
    Step {
        x: noise_s * (1.0 - beta).sqrt() / noise_t,
        x0: beta * alpha_bar_s.sqrt() / noise_t,
        y0: 0.0,
        noise: variance.sqrt(),
    }
}

/// DDIM (Song et al. 2021, equation 12) from t to s:
/// `sqrt(alpha_bar_s) x0 + sqrt(1 - alpha_bar_s - sigma^2) eps_hat + sigma z`.
pub fn ddim(alpha_bar_t: f64, alpha_bar_s: f64, eta: f64) -> Step {
    let noise_t = 1.0 - alpha_bar_t;
    let noise_s = 1.0 - alpha_bar_s;
    let sigma = eta * (noise_s / noise_t * (1.0 - alpha_bar_t / alpha_bar_s)).sqrt();
    // eps_hat = (x - sqrt(alpha_bar_t) x0) / sqrt(1 - alpha_bar_t)
    let eps = (noise_s - sigma * sigma).max(0.0).sqrt() / noise_t.sqrt();
    Step { x: eps, x0: alpha_bar_s.sqrt() - eps * alpha_bar_t.sqrt(), y0: 0.0, noise: sigma }
}

impl Chain {
    /// The factors of `rule` from t to s, `T >= t > s >= 0`.
    pub fn step(&self, rule: Rule, t: usize, s: usize) -> Step {
        match &self.family {
            Family::Shift { eta, kappa } => match rule {
                Rule::Posterior | Rule::LargeVariance => resshift_posterior(*kappa, eta[t], eta[s]),
                Rule::Ddim { .. } => resshift_deterministic(eta[t], eta[s]),
                Rule::DualDomain => resshift_dual_domain(*kappa, eta[t], eta[s]),
            },
            Family::Ddpm { alpha_bar, gain } => {
                let (a, b) = (alpha_bar[t], alpha_bar[s]);
                let step = match rule {
                    Rule::Posterior | Rule::DualDomain => ddpm_ancestral(a, b, Variance::BetaTilde),
                    Rule::LargeVariance => ddpm_ancestral(a, b, Variance::Beta),
                    Rule::Ddim { eta } => ddim(a, b, eta),
                };
                // The clean state of the residual process is g (x0 - y0).
                let x0 = step.x0 * gain.unwrap_or(1.0);
                Step { x0, y0: if gain.is_some() { -x0 } else { 0.0 }, ..step }
            }
            // A chain of one step has no state between its ends.
            Family::Direct => Step { x: 0.0, x0: 1.0, y0: 0.0, noise: 0.0 },
        }
    }
}

/// The steps `T = t_1 > t_2 > ... > t_n >= 1` of a walk with `n` calls: equally spaced among the
/// trained ones, T always among them. `n` above T walks all of them.
pub fn respaced(trained: usize, n: usize) -> Vec<usize> {
    let n = n.clamp(1, trained);
    (0..n).map(|k| trained - k * trained / n).collect()
}

/// What the state at T is made of.
pub(super) fn start(diffusion: &Diffusion, chain: &Chain) -> Marginal {
    match diffusion.sampler.start {
        Start::Noise => Marginal { x0: 0.0, y0: 0.0, noise: 1.0 },
        Start::Marginal => chain.marginal(chain.steps()),
    }
}

/// Step `k` of a walk, from t to `next`, or to the clean image if there is no next.
pub(super) fn factors(
    diffusion: &Diffusion,
    chain: &Chain,
    (k, t): (usize, usize),
    next: Option<&usize>,
) -> Factors {
    // Latents have no bounds.
    let clamp = match diffusion.space {
        Space::Pixel => diffusion.sampler.clamp,
        Space::Latent => Clamp::None,
    };
    let step = next.map(|&s| chain.step(diffusion.sampler.rule, t, s));
    Factors {
        x0_hat: chain.x0_hat(diffusion.prediction, t),
        clamp_x0: clamp == Clamp::X0 || (next.is_none() && diffusion.space == Space::Pixel),
        next: step.map(|step| [step.x, step.x0, step.y0, step.noise]),
        clamp_xt: clamp == Clamp::Xt,
        input: next.map_or(1.0, |&s| chain.input_scale(s)),
        // Draw 0 starts the chain.
        draw: u32::try_from(k + 1).unwrap_or(u32::MAX),
    }
}
