//! Noise schedules, as tables in double precision: `1 - alpha_bar` at small t has no digits left in
//! single precision.
use serde::{Deserialize, Serialize};

/// How the variance `beta_t` that one DDPM step adds grows with t.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Betas {
    /// From `start` to `end` in equal steps (Ho et al. 2020, section 4).
    Linear {
        /// `beta` of the first step.
        start: f64,
        /// `beta` of the last step.
        end: f64,
    },
    /// The square of equal steps from `sqrt(start)` to `sqrt(end)`.
    Quad {
        /// `beta` of the first step.
        start: f64,
        /// `beta` of the last step.
        end: f64,
    },
    /// The same at every step.
    Const {
        /// `beta` of every step.
        end: f64,
    },
    /// Linear over the first tenth, then constant.
    Warmup10 {
        /// `beta` of the first step.
        start: f64,
        /// `beta` from the end of the warm-up.
        end: f64,
    },
    /// Linear over the first half, then constant.
    Warmup50 {
        /// `beta` of the first step.
        start: f64,
        /// `beta` from the end of the warm-up.
        end: f64,
    },
    /// `1 / (T - t + 1)` (Sohl-Dickstein et al. 2015, appendix B.2).
    Jsd,
    /// `alpha_bar = f(t) / f(0)` with `f` a squared cosine and `beta <= 0.999` (Nichol and Dhariwal
    /// 2021, equation 17).
    Cosine {
        /// The offset that keeps the first steps from being too small; 0.008 in the paper.
        offset: f64,
    },
}

/// `n` equally spaced numbers from `a` to `b`.
fn linspace(a: f64, b: f64, n: usize) -> Vec<f64> {
    let last = n.saturating_sub(1).max(1) as f64;
    (0..n).map(|i| a + (b - a) * i as f64 / last).collect()
}

fn warmup(start: f64, end: f64, steps: usize, ramp: usize) -> Vec<f64> {
    let mut betas = linspace(start, end, ramp);
    betas.resize(steps, end);
    betas
}

impl Betas {
    /// `beta_t` for t = 1..T: entry `i` is step `i + 1`.
    pub fn betas(&self, steps: usize) -> Vec<f64> {
        match *self {
            Self::Linear { start, end } => linspace(start, end, steps),
            Self::Quad { start, end } => {
                linspace(start.sqrt(), end.sqrt(), steps).iter().map(|b| b * b).collect()
            }
            Self::Const { end } => vec![end; steps],
            Self::Warmup10 { start, end } => warmup(start, end, steps, steps / 10),
            Self::Warmup50 { start, end } => warmup(start, end, steps, steps / 2),
            Self::Jsd => (0..steps).map(|i| 1.0 / (steps - i) as f64).collect(),
            Self::Cosine { offset } => {
                let angle = |i: usize| (i as f64 / steps as f64 + offset) / (1.0 + offset);
                let f = |i: usize| (angle(i) * std::f64::consts::FRAC_PI_2).cos().powi(2);
                (0..steps).map(|i| (1.0 - f(i + 1) / f(i)).min(0.999)).collect()
            }
        }
    }
}

/// What follows from a sequence of `beta` (Ho et al. 2020, equations 4 and 7): entry `i` is step
/// `i + 1`, and `alpha_bar` before the first step is 1.
#[derive(Clone, Debug, PartialEq)]
pub struct DdpmTable {
    /// Variance added by the step.
    pub beta: Vec<f64>,
    /// Share of the signal's variance that is left after the step.
    pub alpha_bar: Vec<f64>,
    /// Factor of x0 in the mean of `q(x_{t-1} | x_t, x0)`.
    pub posterior_mean_x0: Vec<f64>,
    /// Factor of `x_t` in that mean.
    pub posterior_mean_xt: Vec<f64>,
    /// Variance of `q(x_{t-1} | x_t, x0)`, the "beta tilde" of the paper.
    pub posterior_variance: Vec<f64>,
}

impl DdpmTable {
    /// The table of `betas`.
    pub fn new(beta: Vec<f64>) -> Self {
        let mut table = Self {
            alpha_bar: Vec::with_capacity(beta.len()),
            posterior_mean_x0: Vec::with_capacity(beta.len()),
            posterior_mean_xt: Vec::with_capacity(beta.len()),
            posterior_variance: Vec::with_capacity(beta.len()),
            beta,
        };
        let mut before = 1.0f64;
        for &beta in &table.beta {
            let alpha_bar = before * (1.0 - beta);
            let noise = 1.0 - alpha_bar;
            // A step that adds nothing to a clean image leaves it: 0/0 counts as 0.
            let ratio = |v: f64| if noise == 0.0 { 0.0 } else { v / noise };
            table.posterior_mean_x0.push(ratio(beta * before.sqrt()));
            table.posterior_mean_xt.push(ratio((1.0 - before) * (1.0 - beta).sqrt()));
            table.posterior_variance.push(ratio(beta * (1.0 - before)));
            table.alpha_bar.push(alpha_bar);
            before = alpha_bar;
        }
        table
    }
}

/// How the share `eta_t` of the residual that ResShift has shifted in grows with t.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EtaSchedule {
    /// The exponential schedule as the official code has it: on `sqrt(eta)`, from
    /// `min(min_noise_level / kappa, min_noise_level)` to `end`.
    Official {
        /// Noise of the first step, where kappa is at least 1.
        min_noise_level: f64,
        /// `sqrt(eta_T)`.
        end: f64,
        /// Below 1 the noise grows early, above 1 late.
        power: f64,
    },
    /// The exponential schedule as the paper has it (Yue et al. 2023, equation 10): on `eta`, with
    /// both ends given. The `DualDomainUNet` system uses 0.008, 0.999 and 0.3.
    Paper {
        /// `eta` of the first step.
        first: f64,
        /// `eta` of the last step.
        last: f64,
        /// As for the official schedule.
        power: f64,
    },
}

impl EtaSchedule {
    /// `eta_t` for t = 0..=T; `eta_0` is 0.
    pub fn etas(&self, steps: usize, kappa: f64) -> Vec<f64> {
        let (first, last, power) = match *self {
            Self::Official { min_noise_level, end, power } => {
                ((min_noise_level / kappa).min(min_noise_level), end, power)
            }
            Self::Paper { first, last, power } => (first.sqrt(), last.sqrt(), power),
        };
        let spans = steps.saturating_sub(1) as f64;
        let eta = |i: usize| {
            // A single step is the whole way.
            let way = if spans == 0.0 { 1.0 } else { (i as f64 / spans).powf(power) };
            (first * (way * (last / first).ln()).exp()).powi(2)
        };
        std::iter::once(0.0).chain((0..steps).map(eta)).collect()
    }
}
