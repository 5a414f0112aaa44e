//! Forward processes and what a network predicts of them.
//!
//! All processes here are linear in the clean image x0, its blurred enlargement y0 and noise:
//!
//! ```text
//! x_t = a_t x0 + b_t y0 + c_t eps         t = 1..T; t = 0 is the clean state
//!
//! resshift        1 - eta_t       eta_t             kappa sqrt(eta_t)      (Yue et al. 2023, eq. 2)
//! ddpm            sqrt(ab_t)      0                 sqrt(1 - ab_t)         (Ho et al. 2020, eq. 4)
//! residual-ddpm   g sqrt(ab_t)    -g sqrt(ab_t)     sqrt(1 - ab_t)         the state is g (x0 - y0)
//! direct          0               0                 0                      T = 1: no diffusion, one call
//! ```
use serde::{Deserialize, Serialize};

use super::schedule::{Betas, DdpmTable, EtaSchedule};
pub(crate) use crate::ops::sampler_step::combine;

/// No chain is longer: published ones have at most 4000 steps, and tables grow with them.
pub const MOST_STEPS: usize = 100_000;

/// How y0 is made of the low-resolution image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enlarge {
    /// A cubic (a = -0.5) in floating point, not rounded.
    #[default]
    Bicubic,
    /// The same cubic as Pillow computes it, rounded to 8 bits after each pass.
    Pillow,
    /// Linear between the centres of pixels, not rounded.
    Bilinear,
    /// A cubic (a = -0.75) as PyTorch computes it, not rounded.
    TorchBicubic,
}

/// A forward process and its constants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Process {
    /// Shifts the residual in while adding noise (ResShift, Yue et al. 2023).
    #[serde(rename = "resshift")]
    ResShift {
        /// T.
        steps: usize,
        /// Noise at the end of the chain, where a grey level of white is 1.
        kappa: f64,
        /// The growth of eta.
        eta: EtaSchedule,
        /// What the network's input is divided by.
        #[serde(default)]
        input_scale: InputScale,
        /// What the network is told at the first step: 0 as the official code, 1 as the `DualDomainUNet` system.
        #[serde(default = "one")]
        first_t: usize,
    },
    /// Adds noise to the image until nothing else is left (DDPM, Ho et al. 2020).
    Ddpm {
        /// T.
        steps: usize,
        /// The growth of beta.
        beta: Betas,
        /// What the network is told about t.
        #[serde(default)]
        time: TimeInput,
    },
    /// DDPM of the residual x0 - y0.
    ResidualDdpm {
        /// T.
        steps: usize,
        /// The growth of beta.
        beta: Betas,
        /// What the residual is multiplied by: 2 in SRDiff (Li et al. 2022).
        #[serde(default = "unscaled")]
        gain: f64,
    },
    /// No diffusion: one call of a network that enlarges by itself, and whose state is always 0.
    Direct {},
}

const fn unscaled() -> f64 {
    1.0
}

const fn one() -> usize {
    1
}

/// What the state is divided by before the network sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InputScale {
    /// 1, as in the `DualDomainUNet` system.
    #[default]
    None,
    /// `sqrt(kappa^2 eta + 1)`: the official code for latents, whose variance is about 1.
    Latent,
    /// `3 kappa sqrt(eta) + 1`: the official code for pixels.
    Pixel,
}

/// What a network is told about t.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimeInput {
    /// `t - 1`.
    #[default]
    Step,
    /// `sqrt(alpha_bar_t)` (SR3, Saharia et al. 2021).
    NoiseLevel,
}

/// What a network's output means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prediction {
    /// `x0 - y0`: what the enlargement lacks.
    #[default]
    Residual,
    /// `y0 - x0`: the residual with the sign of the ResShift paper.
    NegativeResidual,
    /// `x0`.
    X0,
    /// The noise.
    Epsilon,
}

/// `x_t = x0 * X0 + y0 * Y0 + noise * eps`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marginal {
    /// Factor of the clean image.
    pub x0: f64,
    /// Factor of the enlarged low-resolution image.
    pub y0: f64,
    /// Standard deviation of the noise.
    pub noise: f64,
}

/// The tables of a process, for t = 0..=T.
#[derive(Clone, Debug)]
pub struct Chain {
    /// What tells the processes apart.
    pub family: Family,
    marginals: Vec<Marginal>,
    inputs: Vec<f64>,
    times: Vec<f64>,
    /// Whether training meets every noise level between two steps.
    continuous: bool,
}

/// The schedule of a chain, entry t for t = 0..=T.
#[derive(Clone, Debug, PartialEq)]
pub enum Family {
    /// ResShift.
    Shift {
        /// `eta_t`, 0 at t = 0.
        eta: Vec<f64>,
        /// Noise at the end.
        kappa: f64,
    },
    /// DDPM of the image, or of the residual.
    Ddpm {
        /// `alpha_bar_t`, 1 at t = 0.
        alpha_bar: Vec<f64>,
        /// The factor of x0 - y0, where that is the clean state and not x0.
        gain: Option<f64>,
    },
    /// One call.
    Direct,
}

/// The smallest factor of x0 by which a state can be divided; where `alpha_bar` should be 0 rounding may leave less.
const LEAST_SIGNAL: f64 = 1e-7;

impl Process {
    /// T.
    pub const fn steps(&self) -> usize {
        match self {
            Self::ResShift { steps, .. }
            | Self::Ddpm { steps, .. }
            | Self::ResidualDdpm { steps, .. } => *steps,
            Self::Direct {} => 1,
        }
    }

    /// The tables of the process.
    pub fn chain(&self) -> Chain {
        match self {
            Self::ResShift { steps, kappa, eta, input_scale, first_t } => {
                let eta = eta.etas(*steps, *kappa);
                let marginal =
                    |&eta: &f64| Marginal { x0: 1.0 - eta, y0: eta, noise: kappa * eta.sqrt() };
                let input = |eta: &f64| match input_scale {
                    InputScale::None => 1.0,
                    InputScale::Latent => (kappa * kappa * eta + 1.0).sqrt().recip(),
                    InputScale::Pixel => (3.0 * kappa * eta.sqrt() + 1.0).recip(),
                };
                Chain {
                    marginals: eta.iter().map(marginal).collect(),
                    inputs: eta.iter().map(input).collect(),
                    times: (0..=*steps).map(|t| (t + first_t) as f64 - 1.0).collect(),
                    family: Family::Shift { eta, kappa: *kappa },
                    continuous: false,
                }
            }
            Self::Ddpm { steps, beta, time } => ddpm_chain(*steps, beta, *time, None),
            Self::ResidualDdpm { steps, beta, gain } => {
                ddpm_chain(*steps, beta, TimeInput::Step, Some(*gain))
            }
            Self::Direct {} => Chain {
                marginals: vec![Marginal { x0: 0.0, y0: 0.0, noise: 0.0 }; 2],
                inputs: vec![1.0; 2],
                times: vec![0.0; 2],
                family: Family::Direct,
                continuous: false,
            },
        }
    }

    /// Refuses constants that make no chain, or none in which `prediction` tells x0.
    pub(super) fn check(&self, prediction: Prediction) -> std::result::Result<(), String> {
        if self.steps() == 0 {
            return Err("diffusion.process.steps must be at least 1".into());
        }
        if self.steps() > MOST_STEPS {
            return Err(format!(
                "diffusion.process.steps = {} is above {MOST_STEPS}",
                self.steps()
            ));
        }
        let chain = self.chain();
        let finite = |m: &Marginal| m.x0.is_finite() && m.y0.is_finite() && m.noise.is_finite();
        let grows = chain.marginals.windows(2).all(|m| m[0].noise <= m[1].noise);
        let gain = match self {
            Self::ResidualDdpm { gain, .. } => *gain,
            _ => 1.0,
        };
        if gain <= 0.0 || !gain.is_finite() {
            return Err("diffusion.process.gain must be above 0".into());
        }
        if !chain.marginals.iter().all(finite) || !grows {
            return Err("the noise of diffusion.process does not grow from step to step".into());
        }
        let direct = matches!(self, Self::Direct {});
        let faint = |m: &Marginal| m.x0.abs() < LEAST_SIGNAL;
        if prediction == Prediction::Epsilon && !direct && chain.marginals.iter().any(faint) {
            return Err("diffusion.process (beta, eta or end) ends in noise alone, of which diffusion.prediction = \
                        \"epsilon\" tells no image: less noise, or \"x0\""
                .into());
        }
        Ok(())
    }
}

fn ddpm_chain(steps: usize, beta: &Betas, time: TimeInput, gain: Option<f64>) -> Chain {
    let table = DdpmTable::new(beta.betas(steps));
    let alpha_bar: Vec<f64> = std::iter::once(1.0).chain(table.alpha_bar).collect();
    let marginal = |&ab: &f64| Marginal {
        x0: gain.unwrap_or(1.0) * ab.sqrt(),
        y0: gain.map_or(0.0, |g| -g * ab.sqrt()),
        noise: (1.0 - ab).sqrt(),
    };
    let told = |t: usize| match time {
        TimeInput::Step => t as f64 - 1.0,
        TimeInput::NoiseLevel => alpha_bar[t].sqrt(),
    };
    Chain {
        marginals: alpha_bar.iter().map(marginal).collect(),
        inputs: vec![1.0; steps + 1],
        times: (0..=steps).map(told).collect(),
        family: Family::Ddpm { alpha_bar, gain },
        continuous: time == TimeInput::NoiseLevel,
    }
}

impl Chain {
    /// T.
    pub fn steps(&self) -> usize {
        self.marginals.len() - 1
    }

    /// `q(x_t | x0, y0)`, for t = 0..=T.
    pub fn marginal(&self, t: usize) -> Marginal {
        self.marginals[t]
    }

    /// What training draws for the step t = 1..T: `q(x_t | x0, y0)`, and what the network is told. Where
    /// that is the noise level, it lies anywhere between those of t - 1 and t, by `uniform` in `[0, 1)`
    /// (SR3, Saharia et al. 2021; WaveGrad, Chen et al. 2021, algorithm 1).
    pub fn drawn(&self, t: usize, uniform: impl FnOnce() -> f64) -> (Marginal, f64) {
        if !self.continuous {
            return (self.marginal(t), self.time(t));
        }
        // sqrt(alpha_bar), which is the factor of x0, too.
        let level = self.times[t - 1] + uniform() * (self.times[t] - self.times[t - 1]);
        let noise = (1.0 - level * level).sqrt();
        (Marginal { x0: level, y0: 0.0, noise }, level)
    }

    /// What the network's input is multiplied by.
    pub fn input_scale(&self, t: usize) -> f64 {
        self.inputs[t]
    }

    /// What the network is told about t.
    pub fn time(&self, t: usize) -> f64 {
        self.times[t]
    }

    /// The weight of x0 in what a network predicts, `d x0_hat / d output`, at t = 1..T.
    pub fn x0_slope(&self, prediction: Prediction, t: usize) -> f64 {
        match prediction {
            Prediction::Residual | Prediction::X0 => 1.0,
            Prediction::NegativeResidual => -1.0,
            Prediction::Epsilon => -self.marginals[t].noise / self.marginals[t].x0,
        }
    }

    /// The factors of a network's output, of the state and of y0 in the clean image that the output
    /// stands for at t = 1..T.
    pub fn x0_hat(&self, prediction: Prediction, t: usize) -> [f64; 3] {
        let m = self.marginals[t];
        let slope = self.x0_slope(prediction, t);
        let (from_x, from_y0) = match prediction {
            Prediction::Residual | Prediction::NegativeResidual => (0.0, 1.0),
            Prediction::X0 => (0.0, 0.0),
            Prediction::Epsilon => (1.0 / m.x0, -m.y0 / m.x0),
        };
        [slope, from_x, from_y0]
    }
}

impl Marginal {
    /// Writes `x_t` over `noise`; all slices hold the same pixels.
    pub fn apply(&self, x0: &[f32], y0: &[f32], noise: &mut [f32]) {
        combine(noise, [self.noise, self.x0, self.y0, 0.0], x0, y0, y0);
    }
}
