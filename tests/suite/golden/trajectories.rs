//! Whole sampling trajectories with given noise, from a closed-form denoiser.
use srk::diffusion::process::{InputScale, Process};
use srk::diffusion::sampler::{Step, Variance, ddim, ddpm_ancestral};
use srk::diffusion::sampler::{resshift_deterministic, resshift_dual_domain, resshift_posterior};
use srk::diffusion::schedule::DdpmTable;

use super::Outcome;
use super::file::File;
use super::network::compare;
use super::spec::Spec;

const TOL: f64 = 1e-5;

pub fn run(file: &File) -> Outcome {
    let cases = file.json("cases");
    let (mut passed, mut failed) = (0, vec![]);
    for (name, case) in cases.as_object().unwrap() {
        // Forward cases are described by a sentence, the others by an object.
        let kind = case["kind"].as_str().or(case.as_str()).unwrap_or_default();
        let case = Case { file, name, json: case, spec: Spec(case) };
        match kind {
            k if k.starts_with("DDPM") => case.ddpm(&mut failed),
            k if k.starts_with("DDIM") => case.ddim(&mut failed),
            k if k.starts_with("SR3") => case.sr3(&mut failed),
            k if k.starts_with("ResShift official") => case.official(&mut failed),
            k if k.starts_with("ResShift") => case.resshift(&mut failed),
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
    spec: Spec<'a>,
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

    /// The schedule, and the steps in their order with alpha_bar of the next one: those of `<case>.t`, or
    /// all.
    fn steps(&self, failed: &mut Vec<String>) -> Option<(DdpmTable, Vec<(usize, f64)>)> {
        let Some(table) = self.spec.table() else {
            failed.push(format!("{}: its schedule \"{}\"", self.name, self.spec.words()));
            return None;
        };
        let listed = self.file.get(&format!("{}.t", self.name)).is_some();
        let t: Vec<usize> = match listed {
            true => self.values("t").iter().map(|&t| t as usize).collect(),
            false => (0..table.beta.len()).rev().collect(),
        };
        let next = |i: usize| t.get(i + 1).map_or(1.0, |&s| table.alpha_bar[s]);
        let steps = t.iter().enumerate().map(|(i, &t)| (t, next(i))).collect();
        Some((table, steps))
    }

    /// x0 from the noise predicted by `a sin(b x + angle) + e c` and the rest of the file's formula, for
    /// the numbers a, b, e.
    fn eps_walk(
        &self,
        table: &DdpmTable,
        steps: &[(usize, Step)],
        [a, b, e]: [f64; 3],
        angle: &dyn Fn(usize) -> f64,
        failed: &mut Vec<String>,
    ) {
        let c = self.values("c");
        let x0_hat = |x: &[f32], t: usize| -> Vec<f32> {
            let ab = table.alpha_bar[t];
            let clean = |(&x, &c): (&f32, &f32)| {
                let x = f64::from(x);
                let eps = (1.0 - ab).sqrt() * x + a * (b * x + angle(t)).sin() + e * f64::from(c);
                ((x - (1.0 - ab).sqrt() * eps) / ab.sqrt()) as f32
            };
            x.iter().zip(&c).map(clean).collect()
        };
        let all = self.file.get(&format!("{}.noise", self.name)).map(|_| self.values("noise"));
        let noise = |k: usize| match &all {
            Some(all) => all[k * c.len()..(k + 1) * c.len()].to_vec(),
            None => vec![0.0; c.len()],
        };
        self.walk(steps, &noise, &c, self.spec.clamp(), &x0_hat, failed);
    }

    /// The walk of a chain whose denoiser is told t.
    fn told_t(&self, rule: &dyn Fn(f64, f64) -> Step, failed: &mut Vec<String>) {
        let Some((table, steps)) = self.steps(failed) else { return };
        let [a, b, d, e] = self.spec.formula("*x +", [0.1, 3.0, 0.01, 0.05]);
        let step = |&(t, next): &(usize, f64)| (t, rule(table.alpha_bar[t], next));
        let steps: Vec<_> = steps.iter().map(step).collect();
        self.eps_walk(&table, &steps, [a, b, e], &|t| d * t as f64, failed);
    }

    fn ddpm(&self, failed: &mut Vec<String>) {
        let variance = match self.text("variance") {
            "beta" => Variance::Beta,
            _ => Variance::BetaTilde,
        };
        self.told_t(&|ab, next| ddpm_ancestral(ab, next, variance), failed);
    }

    fn ddim(&self, failed: &mut Vec<String>) {
        let eta = self.spec.number("eta").unwrap_or(0.0);
        self.told_t(&|ab, next| ddim(ab, next, eta), failed);
    }

    fn sr3(&self, failed: &mut Vec<String>) {
        let Some((table, steps)) = self.steps(failed) else { return };
        let rule = |ab, next| ddpm_ancestral(ab, next, Variance::BetaTilde);
        let step = |&(t, next): &(usize, f64)| (t, rule(table.alpha_bar[t], next));
        let steps: Vec<_> = steps.iter().map(step).collect();
        let [a, b, d, e] = self.spec.formula("*x +", [0.1, 3.0, 5.0, 0.05]);
        self.eps_walk(&table, &steps, [a, b, e], &|t| d * table.alpha_bar[t].sqrt(), failed);
    }

    /// Steps of a shift: what the file says, or as many as it holds.
    fn shifts(&self) -> usize {
        let held = self.file.array(&format!("{}.x", self.name)).shape[0] - 1;
        self.spec.number("T").map_or(held, |steps| steps as usize)
    }

    fn kappa(&self) -> f64 {
        self.spec.number("kappa").unwrap_or(2.0)
    }

    fn resshift(&self, failed: &mut Vec<String>) {
        let (kappa, count) = (self.kappa(), self.shifts());
        let eta = self.spec.etas().etas(count, kappa);
        let rule = |t: usize| match self.text("mean") {
            m if m.starts_with("posterior") => resshift_posterior(kappa, eta[t], eta[t - 1]),
            m if m.starts_with("deterministic") => resshift_deterministic(eta[t], eta[t - 1]),
            _ => resshift_dual_domain(kappa, eta[t], eta[t - 1]),
        };
        let steps: Vec<_> = (1..=count).rev().map(|t| (t, rule(t))).collect();
        let y0 = self.values("y0");
        let [a, b, d, e, f] = self.spec.formula("r(x,t) =", [0.3, 2.0, 0.2, -0.1, 0.2]);
        let x0_hat = |x: &[f32], t: usize| -> Vec<f32> {
            let clean = |(&x, &y): (&f32, &f32)| {
                let (x, y) = (f64::from(x), f64::from(y));
                (y + a * (b * x + d * t as f64).sin() + e * x + f * y) as f32
            };
            x.iter().zip(&y0).map(clean).collect()
        };
        let all = self.values("noise");
        let noise = |k: usize| all[(k + 1) * y0.len()..(k + 2) * y0.len()].to_vec();
        self.walk(&steps, &noise, &y0, self.spec.clamp(), &x0_hat, failed);
    }

    fn official(&self, failed: &mut Vec<String>) {
        let (steps, kappa) = (self.shifts(), self.kappa());
        let input_scale = match self.text("input_scaling") {
            s if s.starts_with("pixel") => InputScale::Pixel,
            s if s.starts_with("none") => InputScale::None,
            _ => InputScale::Latent,
        };
        let eta = self.spec.etas();
        let chain = Process::ResShift { steps, kappa, eta, input_scale, first_t: 0 }.chain();
        let eta = eta.etas(steps, kappa);
        let y0 = self.values("y0");
        let residual = self.text("predicts").starts_with("RESIDUAL");
        let [a, b, c, d, e] = match residual {
            false => self.spec.formula("START_X:", [0.7, 0.2, 3.0, 0.1, 0.3]),
            true => self.spec.formula("y0 - output):", [0.2, 0.2, 3.0, 0.1, 0.1]),
        };
        let x0_hat = |x: &[f32], t: usize| -> Vec<f32> {
            let (scale, told) = (chain.input_scale(t), chain.time(t));
            let clean = |(&x, &y): (&f32, &f32)| {
                let (x, y) = (f64::from(x) * scale, f64::from(y));
                let output = a * x + b * (c * x + d * told).sin() + e * y;
                (if residual { y - output } else { output }) as f32
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
        // Cases share their inputs, or have their own.
        let get = |key: &str| {
            let own = self.file.get(&format!("{}.{key}", self.name));
            let array = own.unwrap_or_else(|| self.file.array(&format!("q.{key}")));
            array.data.iter().map(|&v| v as f32).collect::<Vec<_>>()
        };
        let (x0, y0, noise) = (get("x0"), get("y0"), get("noise"));
        let words = self.spec.words();
        let word = |w: &str| matches!(w, "eta" | "etas" | "exponential" | "ResShift" | "seed001");
        let shift = words.split(|c: char| !c.is_alphanumeric()).any(word);
        let steps = self.spec.number("T").unwrap_or(if shift { 15.0 } else { 1000.0 }) as usize;
        let official = self.spec.number("min_noise_level").is_some();
        let process = match (shift, self.spec.table()) {
            (true, _) => Process::ResShift {
                steps,
                kappa: self.kappa(),
                eta: self.spec.etas(),
                input_scale: InputScale::None,
                first_t: 1,
            },
            (false, Some(table)) => return self.marginals(&table, [&x0, &noise], failed),
            (false, None) => return failed.push(format!("{}: schedule \"{words}\"", self.name)),
        };
        let chain = process.chain();
        let times = self.values("t");
        let each = x0.len() / times.len();
        let mut got = noise;
        for (i, &t) in times.iter().enumerate() {
            let at = i * each..(i + 1) * each;
            // The official code counts from 0.
            let t = t as usize + usize::from(official);
            chain.marginal(t).apply(&x0[at.clone()], &y0[at.clone()], &mut got[at]);
        }
        let got: Vec<f64> = got.iter().map(|&v| v.into()).collect();
        let stored = &self.file.array(&format!("{}.xt", self.name)).data;
        compare(self.name, &got, stored, TOL, failed);
    }

    /// `x_t` of DDPM, whose t counts from 0.
    fn marginals(&self, table: &DdpmTable, [x0, noise]: [&[f32]; 2], failed: &mut Vec<String>) {
        let times = self.values("t");
        let each = x0.len() / times.len();
        let value = |i: usize| {
            let alpha_bar = table.alpha_bar[times[i / each] as usize];
            alpha_bar.sqrt() * f64::from(x0[i]) + (1.0 - alpha_bar).sqrt() * f64::from(noise[i])
        };
        let got: Vec<f64> = (0..x0.len()).map(value).collect();
        let stored = &self.file.array(&format!("{}.xt", self.name)).data;
        compare(self.name, &got, stored, TOL, failed);
    }
}
