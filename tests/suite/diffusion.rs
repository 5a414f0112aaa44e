//! Processes and samplers against what the formulas promise.
#![allow(clippy::unwrap_used)]
use std::sync::{Arc, Mutex};

use srk::diffusion::pixel_noise::PixelNoise;
use srk::diffusion::process::{Chain, Enlarge, InputScale, Prediction, Process, TimeInput};
use srk::diffusion::sampler::{
    Clamp, Diffusion, Rule, Sampler, Space, Start, Variance, ddpm_ancestral, respaced,
};
use srk::diffusion::schedule::{Betas, DdpmTable, EtaSchedule};
use srk::diffusion::walk::{Progress, sample};
use srk::engine::device::Device;
use srk::engine::parameter::Parameter;
use srk::engine::tape::{Tape, Var};
use srk::engine::tensor::Tensor;
use srk::error::Result;
use srk::models::compact::{Compact, CompactConfig};
use srk::models::direct::Direct;
use srk::models::{Geometry, Module, Network};
use srk::ops;
use srk::ops::noise::{Noise, pixel_noise};

fn resshift(input_scale: InputScale) -> Process {
    let eta = EtaSchedule::Official { min_noise_level: 0.04, end: 0.99, power: 0.3 };
    Process::ResShift { steps: 15, kappa: 2.0, eta, input_scale, first_t: 0 }
}

fn processes() -> Vec<Process> {
    let beta = Betas::Linear { start: 1e-4, end: 0.02 };
    vec![
        resshift(InputScale::Pixel),
        Process::ResShift {
            steps: 4,
            kappa: 0.5,
            eta: EtaSchedule::Paper { first: 0.008, last: 0.999, power: 0.3 },
            input_scale: InputScale::None,
            first_t: 1,
        },
        Process::Ddpm { steps: 300, beta, time: TimeInput::NoiseLevel },
        Process::ResidualDdpm { steps: 30, beta, gain: 1.0 },
        Process::ResidualDdpm { steps: 30, beta, gain: 2.0 },
    ]
}

fn system(process: Process, prediction: Prediction, rule: Rule) -> Diffusion {
    let sampler = Sampler { rule, clamp: Clamp::X0, start: Start::Marginal };
    let (enlarge, t_weights) = (Enlarge::Bicubic, vec![]);
    let space = Space::Pixel;
    Diffusion { process, prediction, sampler, enlarge, t_weights, space, own_states: 0.0 }
}

/// A step from t to s turns the distribution of `x_t` given x0 and y0 into that of `x_s`: that is
/// what makes it a sampler of this process. Seed 001's rule and the large variance do not.
fn error_of_marginal(chain: &Chain, rule: Rule, t: usize, s: usize) -> f64 {
    let (from, to, step) = (chain.marginal(t), chain.marginal(s), chain.step(rule, t, s));
    let x0 = (step.x * from.x0 + step.x0 - to.x0).abs();
    let y0 = (step.x * from.y0 + step.y0 - to.y0).abs();
    let noise = ((step.x * from.noise).hypot(step.noise) - to.noise).abs();
    x0.max(y0).max(noise)
}

#[test]
fn steps_of_every_length_keep_the_marginals() {
    for process in processes() {
        let chain = process.chain();
        for rule in [Rule::Posterior, Rule::Ddim { eta: 0.0 }, Rule::Ddim { eta: 0.7 }] {
            for t in 1..=chain.steps() {
                for s in (0..t).rev().step_by(7).chain([0]) {
                    let error = error_of_marginal(&chain, rule, t, s);
                    assert!(error < 1e-12, "{process:?} {rule:?} {t} -> {s}: {error:e}");
                }
            }
        }
    }
    // The rule that is known to be wrong is seen to be.
    let chain = resshift(InputScale::None).chain();
    assert!(error_of_marginal(&chain, Rule::DualDomain, 8, 7) > 1e-2);
}

#[test]
fn a_step_to_the_next_t_is_the_table_of_the_paper() {
    let table = DdpmTable::new(Betas::Cosine { offset: 0.008 }.betas(50));
    for t in 1..50 {
        let (at, to) = (table.alpha_bar[t], table.alpha_bar[t - 1]);
        let small = ddpm_ancestral(at, to, Variance::BetaTilde);
        let large = ddpm_ancestral(at, to, Variance::Beta);
        let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
        assert!(near(small.x, table.posterior_mean_xt[t]));
        assert!(near(small.x0, table.posterior_mean_x0[t]));
        assert!(near(small.noise.powi(2), table.posterior_variance[t]));
        assert!(near(large.noise.powi(2), table.beta[t]));
    }
    assert_eq!(ddpm_ancestral(table.alpha_bar[0], 1.0, Variance::Beta).noise, 0.0);
}

#[test]
fn shorter_walks_start_at_the_end_of_the_chain() {
    assert_eq!(respaced(4, 4), [4, 3, 2, 1]);
    assert_eq!(respaced(4, 9), [4, 3, 2, 1]);
    assert_eq!(respaced(4, 1), [4]);
    assert_eq!(respaced(4, 0), [4]);
    assert_eq!(respaced(15, 3), [15, 10, 5]);
    for (trained, n) in [(15, 4), (1000, 50), (300, 7)] {
        let walk = respaced(trained, n);
        assert_eq!((walk.len(), walk[0]), (n, trained));
        assert!(walk.windows(2).all(|w| w[0] > w[1]) && walk[n - 1] >= 1);
    }
}

#[test]
fn weights_decide_which_t_are_trained() {
    let mut system = system(processes().remove(1), Prediction::Residual, Rule::Posterior);
    let count = |system: &Diffusion| {
        let mut counts = [0; 5];
        (0..1000).for_each(|i| counts[system.draw_t(f64::from(i) / 1000.0)] += 1);
        counts
    };
    assert_eq!(count(&system), [0, 250, 250, 250, 250]);
    system.t_weights = vec![1.0, 0.0, 1.0, 2.0];
    assert_eq!(count(&system), [0, 250, 0, 250, 500]);
    assert!(system.check().is_ok());
    for wrong in [vec![1.0], vec![0.0; 4], vec![1.0, -1.0, 1.0, 1.0], vec![f64::NAN; 4]] {
        system.t_weights = wrong;
        assert_eq!(system.check().unwrap_err().exit_code(), 2);
    }
}

/// Knows x0, and answers what a perfect network would.
struct Oracle {
    x0: Tensor,
    y0: Tensor,
    system: Diffusion,
    chain: Chain,
    told: Mutex<Vec<f64>>,
}

impl Oracle {
    fn new(system: &Diffusion, x0: &Tensor, y0: &Tensor) -> Self {
        Self {
            x0: x0.try_clone().unwrap(),
            y0: y0.try_clone().unwrap(),
            chain: system.process.chain(),
            system: system.clone(),
            told: Mutex::new(vec![]),
        }
    }
}

/// What a network is told of `t`: it is a tensor in single precision.
#[allow(clippy::cast_possible_truncation)] // To f32 and back: that is the point.
fn told(t: f64) -> f64 {
    f64::from(t as f32)
}

impl Module for Oracle {
    fn parameters(&self) -> &[Parameter] {
        &[]
    }
}

impl Network for Oracle {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, _condition: &Var, t: &Tensor) -> Result<Var> {
        let t = t.to_f64_vec()?;
        self.told.lock().unwrap().push(t[0]);
        let step = (1..=self.chain.steps()).find(|&s| told(self.chain.time(s)) == t[0]).unwrap();
        let (m, scale) = (self.chain.marginal(step), self.chain.input_scale(step));
        let (x, x0, y0) = (
            x.value().to_f64_vec().unwrap(),
            self.x0.to_f64_vec().unwrap(),
            self.y0.to_f64_vec().unwrap(),
        );
        let answer = |i: usize| match self.system.prediction {
            Prediction::Residual => x0[i] - y0[i],
            Prediction::NegativeResidual => y0[i] - x0[i],
            Prediction::X0 => x0[i],
            Prediction::Epsilon => (x[i] / scale - m.x0 * x0[i] - m.y0 * y0[i]) / m.noise,
        };
        let answers: Vec<f64> = (0..x.len()).map(answer).collect();
        Ok(tape.input(Tensor::from_f64(&answers, self.x0.shape(), self.x0.dtype())))
    }

    fn geometry(&self) -> Geometry {
        Geometry { align: 1, receptive_field: Some(0) }
    }

    fn floats_per_pixel(&self) -> usize {
        1
    }
}

fn image(seed: usize, shape: &[usize]) -> Tensor {
    let value = |i: usize| ((i * 37 + seed * 11) % 101) as f64 / 55.0 - 0.9;
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_f64(&values, shape, srk::engine::device::DType::F32)
}

fn shared(image: &Tensor) -> Arc<Tensor> {
    Arc::new(image.try_clone().unwrap())
}

fn run(network: &dyn Network, system: &Diffusion, y0: &Tensor, steps: usize) -> Tensor {
    let places = vec![[0, 0]; y0.shape()[0]];
    let noise = PixelNoise::new(&Device::Cpu, 5, &places).unwrap();
    sample(network, system, shared(y0), y0, &noise, steps, &mut |_: Progress<'_>| Ok(())).unwrap()
}

#[test]
fn a_perfect_network_gives_the_clean_image_whatever_it_predicts() {
    let (x0, y0) = (image(1, &[2, 3, 5, 3]), image(2, &[2, 3, 5, 3]));
    let kinds =
        [Prediction::Residual, Prediction::NegativeResidual, Prediction::X0, Prediction::Epsilon];
    let rules = [Rule::Posterior, Rule::LargeVariance, Rule::Ddim { eta: 0.0 }, Rule::DualDomain];
    for process in processes() {
        for (prediction, rule) in kinds.iter().flat_map(|&k| rules.map(|r| (k, r))) {
            let system = system(process.clone(), prediction, rule);
            for steps in [1, 3, usize::MAX] {
                let network = Oracle::new(&system, &x0, &y0);
                let got = run(&network, &system, &y0, steps);
                let (want, got) = (x0.to_f64_vec().unwrap(), got.to_f64_vec().unwrap());
                let error = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                // x0 from a noise prediction divides by 1 - eta_T = 0.001, which magnifies rounding.
                assert!(error < 2e-3, "{process:?} {prediction:?} {rule:?} {steps}: {error:e}");
                let first = told(system.process.chain().time(process.steps()));
                assert_eq!(network.told.lock().unwrap()[0], first);
            }
        }
    }
}

/// Answers a function of the state at each pixel, so that tiles need no halo.
struct Pointwise;

impl Module for Pointwise {
    fn parameters(&self) -> &[Parameter] {
        &[]
    }
}

impl Network for Pointwise {
    fn condition(&self, low: &Tensor, _y0: &Tensor) -> Result<Tensor> {
        low.try_clone()
    }

    fn forward(&self, tape: &mut Tape, x: &Var, _condition: &Var, _t: &Tensor) -> Result<Var> {
        tape.scale(x, 0.3)
    }

    fn geometry(&self) -> Geometry {
        Geometry { align: 1, receptive_field: Some(0) }
    }

    fn floats_per_pixel(&self) -> usize {
        1
    }
}

#[test]
fn a_tile_draws_the_noise_of_its_own_pixels() {
    let (y0, system) = (
        image(3, &[1, 6, 8, 3]),
        system(processes().remove(1), Prediction::Residual, Rule::Posterior),
    );
    let whole = run(&Pointwise, &system, &y0, 4).to_f64_vec().unwrap();
    // The tile of rows 2..5 and columns 3..7.
    let cut = |all: &[f64]| -> Vec<f64> {
        (2..5).flat_map(|y| all[(y * 8 + 3) * 3..(y * 8 + 7) * 3].to_vec()).collect()
    };
    let tile = Tensor::from_f64(&cut(&y0.to_f64_vec().unwrap()), &[1, 3, 4, 3], y0.dtype());
    let noise = PixelNoise::new(&Device::Cpu, 5, &[[2, 3]]).unwrap();
    let ignore = &mut |_: Progress<'_>| Ok(());
    let got = sample(&Pointwise, &system, shared(&tile), &tile, &noise, 4, ignore).unwrap();
    assert_eq!(got.to_f64_vec().unwrap(), cut(&whole));
    let elsewhere = PixelNoise::new(&Device::Cpu, 5, &[[2, 2]]).unwrap();
    let moved = sample(&Pointwise, &system, shared(&tile), &tile, &elsewhere, 4, ignore).unwrap();
    assert_ne!(moved.to_f64_vec().unwrap(), cut(&whole));
}

#[test]
fn noise_differs_from_draw_to_draw_and_channel_to_channel() {
    let noise = PixelNoise::new(&Device::Cpu, 1, &[[0, 0]]).unwrap();
    let draw = |k: u32| {
        let mut z = image(0, &[1, 4, 4, 3]);
        let Noise::Pixels(noise) = noise.numbers() else { unreachable!() };
        let noise = ops::noise::PixelNoise { stream: noise.stream.later(k), ..noise };
        pixel_noise(&noise, &mut z).unwrap();
        z.to_f64_vec().unwrap()
    };
    assert_ne!(draw(0), draw(1));
    assert_eq!(draw(1), draw(1));
    let first = draw(0);
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[3]);
}

#[test]
fn a_walk_can_be_stopped() {
    let y0 = image(3, &[1, 2, 2, 3]);
    let system = system(processes().remove(1), Prediction::Residual, Rule::Posterior);
    let noise = PixelNoise::new(&Device::Cpu, 5, &[[0, 0]]).unwrap();
    let mut calls = vec![];
    let stop = &mut |p: Progress<'_>| {
        calls.push((p.done, p.calls));
        match p.done {
            2 => Err(srk::error::Error::NotDifferentiable { op: "stop" }),
            _ => Ok(()),
        }
    };
    assert!(sample(&Pointwise, &system, shared(&y0), &y0, &noise, 4, stop).is_err());
    assert_eq!(calls, [(1, 4), (2, 4)]);
}

#[test]
fn training_meets_every_noise_level_between_two_steps() {
    let beta = Betas::Linear { start: 1e-4, end: 0.02 };
    let chain = Process::Ddpm { steps: 300, beta, time: TimeInput::NoiseLevel }.chain();
    for t in [1, 150, 300] {
        let level = |uniform: f64| chain.drawn(t, || uniform);
        let (nearest, farthest) = (level(0.0), level(1.0));
        assert!((nearest.0.x0 - chain.marginal(t - 1).x0).abs() < 1e-12);
        assert!((farthest.0.noise - chain.marginal(t).noise).abs() < 1e-12);
        let (middle, told) = level(0.5);
        assert_eq!(told, middle.x0);
        assert!((middle.x0.powi(2) + middle.noise.powi(2) - 1.0).abs() < 1e-12);
        assert!(farthest.1 < told && told < nearest.1);
    }
    // Told the step, a network meets the steps alone.
    let chain = Process::Ddpm { steps: 300, beta, time: TimeInput::Step }.chain();
    assert_eq!(chain.drawn(7, || unreachable!("nothing is drawn")), (chain.marginal(7), 6.0));
}

/// A network that does not say that it looks at the low resolution alone.
struct Untold(Direct<Compact>);

impl Module for Untold {
    fn parameters(&self) -> &[Parameter] {
        self.0.parameters()
    }
}

impl Network for Untold {
    fn condition(&self, low: &Tensor, y0: &Tensor) -> Result<Tensor> {
        self.0.condition(low, y0)
    }

    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        self.0.forward(tape, x, condition, t)
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn floats_per_pixel(&self) -> usize {
        self.0.floats_per_pixel()
    }
}

#[test]
fn a_network_that_sees_the_low_resolution_alone_needs_no_state_for_its_bits() {
    let config = CompactConfig { channels: 16, depth: 2, ..CompactConfig::default() };
    let (low, y0) = (image(3, &[1, 7, 9, 3]), image(4, &[1, 28, 36, 3]));
    let noise = PixelNoise::new(&Device::Cpu, 5, &[[0, 0]]).unwrap();
    let pixels = |network: &dyn Network| {
        let seen = shared(&low);
        sample(network, &Diffusion::direct(), seen, &y0, &noise, 1, &mut |_| Ok(())).unwrap()
    };
    let told = Compact::network(&config, 8);
    assert!(told.sees_low_alone());
    let plain = Untold(Compact::network(&config, 8));
    assert_eq!(pixels(&told).cpu::<f32>().unwrap(), pixels(&plain).cpu::<f32>().unwrap());
}
