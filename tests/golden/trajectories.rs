//! Whole sampling trajectories with given noise, from a closed-form denoiser.
use srk::diffusion::process::{InputScale, Process};
use srk::diffusion::sampler::{Step, Variance, ddim, ddpm_ancestral};
use srk::diffusion::sampler::{resshift_deterministic, resshift_posterior, resshift_seed001};
use srk::diffusion::schedule::{Betas, DdpmTable, EtaSchedule};

use crate::Outcome;
use crate::file::File;
use crate::network::compare;

const TOL: f64 = 1e-5;

pub fn run(file: &File) -> Outcome {
    let cases = file.json("cases");
    let (mut passed, mut failed) = (0, vec![]);
    for (name, case) in cases.as_object().unwrap() {
        // Forward cases are described by a sentence, the others by an object.
        let kind = case["kind"].as_str().or(case.as_str()).unwrap_or_default();
        let case = Case { file, name, json: case };
        match kind {
            k if k.starts_with("DDPM") => case.ddpm(&mut failed),
            k if k.starts_with("DDIM") => case.ddim(&mut failed),
            k if k.starts_with("SR3") => case.sr3(&mut failed),
            "ResShift" => case.resshift(&mut failed),
            "ResShift official sampler" => case.official(&mut failed),
            k if k.starts_with("forward process") => case.forward(&mut failed),
            k => failed.push(format!("{name}: unknown kind \"{k}\"")),
        }
        passed += 1;
    }
    if failed.is_empty() { Outcome::Passed(passed) } else { Outcome::Failed(failed) }
}

struct Case<'a> {
    file: &'a File,
    name: &'a str,
    json: &'a serde_json::Value,
}

/// `linear A..B, T=N`
fn linear(text: &str) -> DdpmTable {
    let numbers: Vec<f64> = text
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'))
        .flat_map(|word| word.split(".."))
        .filter_map(|word| word.parse().ok())
        .collect();
    let (start, end) = (numbers[0], numbers[1]);
    DdpmTable::new(Betas::Linear { start, end }.betas(numbers[2] as usize))
}

fn before(table: &DdpmTable, t: usize) -> f64 {
    if t == 0 { 1.0 } else { table.alpha_bar[t - 1] }
}

impl Case<'_> {
    fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    fn values(&self, key: &str) -> Vec<f32> {
        let name = format!("{}.{key}", self.name);
        self.file.array(&name).data.iter().map(|&v| v as f32).collect()
    }

    /// Walks `steps`, comparing every state with the stored one; `x0_hat` gives the clean image of a
    /// state at t before clamping.
    fn walk(
        &self,
        steps: &[(usize, Step)],
        noise: &dyn Fn(usize) -> Vec<f32>,
        y0: &[f32],
        clamp: &str,
        x0_hat: &dyn Fn(&[f32], usize) -> Vec<f32>,
        failed: &mut Vec<String>,
    ) {
        let states = self.values("x");
        let len = states.len() / (steps.len() + 1);
        let mut x = states[..len].to_vec();
        for (k, (t, step)) in steps.iter().enumerate() {
            let mut x0 = x0_hat(&x, *t);
            if clamp == "x0" {
                x0.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
            }
            step.apply(&mut x, &x0, y0, &noise(k));
            if clamp == "xt" {
                x.iter_mut().for_each(|v| *v = v.clamp(-1.0, 1.0));
            }
            let stored: Vec<f64> =
                states[(k + 1) * len..(k + 2) * len].iter().map(|&v| v.into()).collect();
            let got: Vec<f64> = x.iter().map(|&v| v.into()).collect();
            let before = failed.len();
            compare(&format!("{} step {k}", self.name), &got, &stored, TOL, failed);
            if failed.len() > before {
                return;
            }
        }
    }

    /// x0 from the noise predicted by `0.1 sin(3 x + angle)` and the rest of the file's formula.
    fn eps_walk(
        &self,
        table: &DdpmTable,
        steps: &[(usize, Step)],
        angle: &dyn Fn(usize) -> f64,
        clamp: &str,
        failed: &mut Vec<String>,
    ) {
        let c = self.values("c");
        let x0_hat = |x: &[f32], t: usize| -> Vec<f32> {
            let ab = table.alpha_bar[t];
            let clean = |(&x, &c): (&f32, &f32)| {
                let x = f64::from(x);
                let eps =
                    (1.0 - ab).sqrt() * x + 0.1 * (3.0 * x + angle(t)).sin() + 0.05 * f64::from(c);
                ((x - (1.0 - ab).sqrt() * eps) / ab.sqrt()) as f32
            };
            x.iter().zip(&c).map(clean).collect()
        };
        let all = self.file.get(&format!("{}.noise", self.name)).map(|_| self.values("noise"));
        let noise = |k: usize| match &all {
            Some(all) => all[k * c.len()..(k + 1) * c.len()].to_vec(),
            None => vec![0.0; c.len()],
        };
        self.walk(steps, &noise, &c, clamp, &x0_hat, failed);
    }

    fn ddpm(&self, failed: &mut Vec<String>) {
        let table = linear(self.text("schedule"));
        let variance = match self.text("variance") {
            "beta" => Variance::Beta,
            _ => Variance::BetaTilde,
        };
        let step = |t| (t, ddpm_ancestral(table.alpha_bar[t], before(&table, t), variance));
        let steps: Vec<_> = (0..table.beta.len()).rev().map(step).collect();
        self.eps_walk(&table, &steps, &|t| 0.01 * t as f64, self.text("clamp"), failed);
    }

    fn ddim(&self, failed: &mut Vec<String>) {
        let table = linear(self.text("schedule"));
        let t: Vec<usize> = self.values("t").iter().map(|&t| t as usize).collect();
        let next = |i: usize| t.get(i + 1).map_or(1.0, |&s| table.alpha_bar[s]);
        let step = |(i, &t): (usize, &usize)| (t, ddim(table.alpha_bar[t], next(i), 0.0));
        let steps: Vec<_> = t.iter().enumerate().map(step).collect();
        self.eps_walk(&table, &steps, &|t| 0.01 * t as f64, self.text("clamp"), failed);
    }

    fn sr3(&self, failed: &mut Vec<String>) {
        let table = linear(self.text("schedule"));
        let step =
            |t| (t, ddpm_ancestral(table.alpha_bar[t], before(&table, t), Variance::BetaTilde));
        let steps: Vec<_> = (0..table.beta.len()).rev().map(step).collect();
        self.eps_walk(&table, &steps, &|t| 5.0 * table.alpha_bar[t].sqrt(), "x0", failed);
    }

    fn resshift(&self, failed: &mut Vec<String>) {
        let kappa = self.json["kappa"].as_f64().unwrap();
        let eta = EtaSchedule::Paper { first: 0.008, last: 0.999, power: 0.3 }.etas(15, kappa);
        let rule = |t: usize| match self.text("mean") {
            m if m.starts_with("posterior") => resshift_posterior(kappa, eta[t], eta[t - 1]),
            m if m.starts_with("deterministic") => resshift_deterministic(eta[t], eta[t - 1]),
            _ => resshift_seed001(kappa, eta[t], eta[t - 1]),
        };
        let steps: Vec<_> = (1..=15).rev().map(|t| (t, rule(t))).collect();
        let y0 = self.values("y0");
        let x0_hat = |x: &[f32], t: usize| -> Vec<f32> {
            let clean = |(&x, &y): (&f32, &f32)| {
                let (x, y) = (f64::from(x), f64::from(y));
                (y + 0.3 * (2.0 * x + 0.2 * t as f64).sin() - 0.1 * x + 0.2 * y) as f32
            };
            x.iter().zip(&y0).map(clean).collect()
        };
        let clamp = if self.text("clamp") == "none" { "none" } else { "x0" };
        let all = self.values("noise");
        let noise = |k: usize| all[(k + 1) * y0.len()..(k + 2) * y0.len()].to_vec();
        self.walk(&steps, &noise, &y0, clamp, &x0_hat, failed);
    }

    fn official(&self, failed: &mut Vec<String>) {
        let number = |key: &str| self.json[key].as_f64().unwrap();
        let (steps, kappa) = (number("T") as usize, number("kappa"));
        let pixel = self.text("input_scaling").starts_with("pixel");
        let eta = EtaSchedule::Official {
            min_noise_level: number("min_noise_level"),
            end: number("etas_end"),
            power: number("power"),
        };
        let input_scale = if pixel { InputScale::Pixel } else { InputScale::Latent };
        let chain = Process::ResShift { steps, kappa, eta, input_scale, first_t: 0 }.chain();
        let eta = eta.etas(steps, kappa);
        let y0 = self.values("y0");
        let x0_hat = |x: &[f32], t: usize| -> Vec<f32> {
            let (scale, told) = (chain.input_scale(t), chain.time(t));
            let clean = |(&x, &y): (&f32, &f32)| {
                let (x, y) = (f64::from(x) * scale, f64::from(y));
                let wave = 0.2 * (3.0 * x + 0.1 * told).sin();
                let x0 = match self.text("predicts") {
                    "START_X" => 0.7 * x + wave + 0.3 * y,
                    _ => y - (0.2 * x + wave + 0.1 * y),
                };
                x0 as f32
            };
            x.iter().zip(&y0).map(clean).collect()
        };
        let step = |t: usize| (t, resshift_posterior(kappa, eta[t], eta[t - 1]));
        let walk: Vec<_> = (1..=steps).rev().map(step).collect();
        let clamp = if self.json["clip_x0"].as_bool() == Some(true) { "x0" } else { "none" };
        let all = self.values("noise");
        let noise = |k: usize| all[(k + 1) * y0.len()..(k + 2) * y0.len()].to_vec();
        self.walk(&walk, &noise, &y0, clamp, &x0_hat, failed);
    }

    /// `x_t` of the marginals, at one t for each entry of the batch.
    fn forward(&self, failed: &mut Vec<String>) {
        let get =
            |key: &str| self.file.array(key).data.iter().map(|&v| v as f32).collect::<Vec<_>>();
        let (x0, y0, noise) = (get("q.x0"), get("q.y0"), get("q.noise"));
        let shift = self.name.ends_with("resshift");
        let process = match shift {
            true => Process::ResShift {
                steps: 15,
                kappa: 2.0,
                eta: EtaSchedule::Paper { first: 0.008, last: 0.999, power: 0.3 },
                input_scale: InputScale::None,
                first_t: 1,
            },
            false => Process::Ddpm {
                steps: 1000,
                beta: Betas::Linear { start: 1e-4, end: 0.02 },
                time: Default::default(),
            },
        };
        let chain = process.chain();
        let times = self.values("t");
        let each = x0.len() / times.len();
        let mut got = noise;
        for (i, &t) in times.iter().enumerate() {
            let at = i * each..(i + 1) * each;
            // DDPM's tables count from 0.
            let t = t as usize + usize::from(!shift);
            chain.marginal(t).apply(&x0[at.clone()], &y0[at.clone()], &mut got[at]);
        }
        let got: Vec<f64> = got.iter().map(|&v| v.into()).collect();
        let stored = &self.file.array(&format!("{}.xt", self.name)).data;
        compare(self.name, &got, stored, TOL, failed);
    }
}
