//! Samplers: every step of every sampler is one linear combination, whose factors follow from the
//! schedule at two points t > s of the chain.
//!
//! ```text
//! x_s = x * x_t + x0 * x0_hat + y0 * y0 + noise * z
//! ```
use serde::{Deserialize, Serialize};

use super::process::{Chain, Enlarge, Family, Prediction, Process, combine};
use crate::engine::device::DType;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::tape::Tape;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::Network;

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
    /// Probability of each t = 1..T in training, up to a common factor; uniform if empty.
    #[serde(default)]
    pub t_weights: Vec<f64>,
}

impl Diffusion {
    /// Refuses constants that make no chain or no distribution of t; exit code 2.
    pub fn check(&self) -> Result<()> {
        let wrong = |cause: String| Error::Usage(Report::new("wrong [diffusion]", cause));
        self.process.check().map_err(wrong)?;
        let (given, steps) = (self.t_weights.len(), self.process.steps());
        let sane = |w: &f64| *w >= 0.0 && w.is_finite();
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
    /// Seed 001's mean, which mixes y0 in again and so leaves the marginals that the network was
    /// trained on. ResShift only.
    Seed001,
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

/// ResShift as seed 001 samples it:
/// mean `(eta_s x_t + alpha (1 - eta_s) x0 + alpha eta_s y0) / eta_t` with `alpha = eta_t - eta_s`.
pub fn resshift_seed001(kappa: f64, eta_t: f64, eta_s: f64) -> Step {
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
                Rule::Seed001 => resshift_seed001(*kappa, eta[t], eta[s]),
            },
            Family::Ddpm { alpha_bar, residual } => {
                let (at, to) = (alpha_bar[t], alpha_bar[s]);
                let step = match rule {
                    Rule::Posterior | Rule::Seed001 => ddpm_ancestral(at, to, Variance::BetaTilde),
                    Rule::LargeVariance => ddpm_ancestral(at, to, Variance::Beta),
                    Rule::Ddim { eta } => ddim(at, to, eta),
                };
                // The clean state of the residual process is x0 - y0.
                Step { y0: if *residual { -step.x0 } else { 0.0 }, ..step }
            }
        }
    }
}

/// The steps `T = t_1 > t_2 > ... > t_n >= 1` of a walk with `n` calls: equally spaced among the
/// trained ones, T always among them. `n` above T walks all of them.
pub fn respaced(trained: usize, n: usize) -> Vec<usize> {
    let n = n.clamp(1, trained);
    (0..n).map(|k| trained - k * trained / n).collect()
}

/// Where a sampler takes its noise from.
pub trait Noise {
    /// Fills `z` `[N, H, W, 3]` with standard normal numbers for draw `k` of the chain (0 starts it).
    fn fill(&self, k: usize, z: &mut Tensor) -> Result<()>;
}

/// Noise that is a function of seed, draw and absolute output pixel: tiles of one image draw what the
/// whole image would.
#[derive(Clone, Debug)]
pub struct PixelNoise {
    /// The seed of the image.
    pub seed: u64,
    /// Row and column of the first pixel of every batch entry in the whole output.
    pub origins: Vec<[usize; 2]>,
}

impl Noise for PixelNoise {
    fn fill(&self, k: usize, z: &mut Tensor) -> Result<()> {
        let [n, h, w, c] = z.nhwc("noise")?;
        if n != self.origins.len() || c != 3 {
            return Err(Error::shape(
                "noise",
                format!("[{}, H, W, 3]", self.origins.len()),
                z.shape(),
            ));
        }
        let stream = Stream::new(self.seed, Purpose::Sampling, k as u64);
        let images = z.cpu_mut::<f32>()?.chunks_exact_mut((h * w * c).max(1));
        for (image, &origin) in images.zip(&self.origins) {
            fill_pixels(&stream, origin, w, image);
        }
        Ok(())
    }
}

/// Three of the four normals of each pixel of `image` `[H, width, 3]`, whose first pixel is `origin`.
#[allow(clippy::cast_possible_truncation)] // Coordinates of pixels fit 32 bits.
pub(crate) fn fill_pixels(stream: &Stream, origin: [usize; 2], width: usize, image: &mut [f32]) {
    use rayon::prelude::*;
    image.par_chunks_mut(width * 3).enumerate().for_each(|(y, row)| {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let normals = stream.normals((origin[1] + x) as u32, (origin[0] + y) as u32);
            pixel.copy_from_slice(&normals[..3]);
        }
    });
}

/// Where a walk is, told after each call of the network.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Calls done.
    pub done: usize,
    /// Calls in all.
    pub calls: usize,
    /// The predicted clean image of this call, `[N, H, W, 3]`.
    pub x0_hat: &'a Tensor,
}

/// Draws the clean image `[N, H, W, 3]`, in `[-1, 1]`, that `network` believes in.
///
/// `condition` is what [`Network::condition`] made of the low-resolution images, `y0` `[N, H, W, 3]`
/// their enlargement. `steps` calls of the network are made, at most T; one call gives `x0_hat` at T.
/// `on_step` sees every call and may stop the walk with an error.
pub fn sample(
    network: &dyn Network,
    diffusion: &Diffusion,
    condition: &Tensor,
    y0: &Tensor,
    noise: &dyn Noise,
    steps: usize,
    on_step: &mut dyn FnMut(Progress<'_>) -> Result<()>,
) -> Result<Tensor> {
    let chain = diffusion.process.chain();
    let walk = respaced(chain.steps(), steps);
    let mut z = Tensor::zeros_as(y0, y0.shape())?;
    let mut x = start(&chain, diffusion.sampler.start, y0, noise)?;
    for (k, &t) in walk.iter().enumerate() {
        let mut x0 = call(network, &chain, &x, condition, t)?;
        chain.x0_hat(diffusion.prediction, t, x.cpu()?, y0.cpu()?, x0.cpu_mut()?);
        let s = walk.get(k + 1).copied().unwrap_or(0);
        if s == 0 || diffusion.sampler.clamp == Clamp::X0 {
            clamp(x0.cpu_mut()?);
        }
        on_step(Progress { done: k + 1, calls: walk.len(), x0_hat: &x0 })?;
        if s == 0 {
            return Ok(x0);
        }
        let step = chain.step(diffusion.sampler.rule, t, s);
        if step.noise > 0.0 {
            noise.fill(k + 1, &mut z)?;
        }
        step.apply(x.cpu_mut()?, x0.cpu()?, y0.cpu()?, z.cpu()?);
        if diffusion.sampler.clamp == Clamp::Xt {
            clamp(x.cpu_mut()?);
        }
    }
    unreachable!("a walk has at least one step and ends at s = 0")
}

/// The state at T.
fn start(chain: &Chain, start: Start, y0: &Tensor, noise: &dyn Noise) -> Result<Tensor> {
    let mut x = Tensor::zeros_as(y0, y0.shape())?;
    noise.fill(0, &mut x)?;
    if start == Start::Marginal {
        let y0 = y0.cpu()?;
        chain.marginal(chain.steps()).apply(y0, y0, x.cpu_mut()?);
    }
    Ok(x)
}

/// The network's output at t.
fn call(
    network: &dyn Network,
    chain: &Chain,
    x: &Tensor,
    condition: &Tensor,
    t: usize,
) -> Result<Tensor> {
    if x.dtype() != DType::F32 {
        let help = "cast the network and its inputs to F32";
        let report = Report::new("cannot sample", format!("the state is {:?}", x.dtype()));
        return Err(Error::Failed(report.help(help)));
    }
    let mut tape = Tape::inference();
    let state = tape.input(scaled(x, chain.input_scale(t))?);
    let condition = tape.input(condition.try_clone()?);
    let times = Tensor::from_f64(&vec![chain.time(t); x.shape()[0]], &[x.shape()[0]], DType::F32);
    network.forward(&mut tape, &state, &condition, &times)?.into_tensor()
}

/// `factor * x`.
fn scaled(x: &Tensor, factor: f64) -> Result<Tensor> {
    let mut y = x.try_clone()?;
    if factor != 1.0 {
        let x = x.cpu()?;
        combine(y.cpu_mut()?, [factor, 0.0, 0.0, 0.0], x, x, x);
    }
    Ok(y)
}

/// Limits `x` to `[-1, 1]`; a NaN stays one, so that it is seen.
pub fn clamp(x: &mut [f32]) {
    x.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
}
