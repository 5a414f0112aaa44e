//! Three training steps: losses, gradient norms, parameters before and after.
use srk::engine::device::DType;
use srk::engine::parameter::Parameter;
use srk::engine::tape::{Grads, Tape};
use srk::engine::tensor::Tensor;
use srk::models::{Network, weights};
use srk::ops::dssim::Centres;
use srk::ops::{adam, clip_by_norm};
use srk::training::sections::{LossConfig, LossKind};
use srk::training::tasks::loss;

use super::Outcome;
use super::file::File;
use super::network::{Subject, build, check_parameters};

/// The README's bounds: 1e-4 for losses and norms, 1e-6 for parameters, 2e-2 for their change (the
/// first Adam step is a sign function of gradients near zero).
const TOLS: [f64; 3] = [1e-4, 1e-6, 2e-2];

struct Run<'a> {
    file: &'a File,
    subject: Subject,
    /// What gradients are computed in; the optimizer works in f32.
    compute: DType,
    optimizer: Optimizer,
    failed: Vec<String>,
}

/// What the sentence in the metadata says.
struct Optimizer {
    lr: f64,
    betas: [f64; 2],
    eps: f64,
    decay: f64,
    clip: f64,
}

impl Optimizer {
    fn of(file: &File) -> Option<Self> {
        let words: Vec<&str> = file.text("optimizer").split_whitespace().collect();
        let after = |word: &str| {
            let at = words.iter().position(|w| *w == word)?;
            words.get(at + 1)?.trim_end_matches(',').parse::<f64>().ok()
        };
        // "clipped to 1.0"; elsewhere "no clipping".
        let clip = if words.contains(&"clipped") { after("to")? } else { 0.0 };
        let decay = if words[0] == "AdamW" { after("decay")? } else { 0.0 };
        // "betas (0.9,0.999)"
        let betas = file.text("optimizer").split_once("betas").map(|(_, rest)| rest);
        let betas = betas.and_then(|rest| super::spec::numbers(rest).first_chunk().copied());
        Some(Self {
            lr: after("lr")?,
            betas: betas.unwrap_or([0.9, 0.999]),
            eps: after("eps")?,
            decay,
            clip,
        })
    }
}

pub fn run(file: &File) -> Outcome {
    let subject = build(file).filter(|subject| match subject {
        Subject::Denoiser(..) => file.text("system").contains("DualDomain"),
        Subject::Stacked(..) | Subject::Critic(_) | Subject::Autoencoder(..) => false,
        Subject::Upscaler(_) => true,
    });
    let (Some(subject), Some(optimizer)) = (subject, Optimizer::of(file)) else {
        return Outcome::Unknown(format!("training of \"{}\"", file.text("system")));
    };
    // Units of the pyramid lie so close to the kinks of their ReLUs that those that single precision
    // puts on the other side move the third norm by 1.4e-4 (1e-3 with SRK_SIMD=portable).
    let compute = match subject {
        Subject::Upscaler(_) => DType::F64,
        _ => DType::F32,
    };
    let mut run = Run { file, subject, compute, optimizer, failed: vec![] };
    file.fill(run.subject.parameters(), DType::F32);
    run.steps();
    if run.failed.is_empty() { Outcome::Passed(1) } else { Outcome::Failed(run.failed) }
}

impl Run<'_> {
    fn steps(&mut self) {
        let parameters = self.subject.parameters().to_vec();
        let before: Vec<Vec<f32>> = parameters.iter().map(flat).collect();
        let mut moments: Vec<[Vec<f32>; 2]> =
            before.iter().map(|v| [vec![0.0; v.len()], vec![0.0; v.len()]]).collect();
        let count = self.file.array("grad_norm").data.len();
        for k in 0..count {
            let (value, mut grads) = self.loss(k);
            self.near(&format!("loss {k}"), value, self.file.array("loss").data[k]);
            let norm = self.norm(&grads);
            self.near(&format!("grad_norm {k}"), norm, self.file.array("grad_norm").data[k]);
            if k == 0 {
                let of = |p: &Parameter| {
                    grads.of_parameter(p).map(|g| weights::to_file_layout(p.layout(), g).unwrap())
                };
                check_parameters(self.file, &parameters, "grad0", 2e-4, &mut self.failed, of);
            }
            let constants = adam::Adam {
                lr: self.optimizer.lr,
                betas: self.optimizer.betas,
                eps: self.optimizer.eps,
                decay: self.optimizer.decay,
                step: k as u64 + 1,
                scale: clip_by_norm::factor(norm, self.optimizer.clip),
            };
            for (p, [m, v]) in parameters.iter().zip(&mut moments) {
                let gradient = grads.take_parameter(p).unwrap().unwrap().cast(DType::F32).unwrap();
                let mut value = p.value().try_clone().unwrap();
                adam::adam(value.cpu_mut().unwrap(), m, v, gradient.cpu().unwrap(), &constants);
                p.set(value);
            }
        }
        let (last, _) = self.loss(0);
        self.near("loss after", last, self.file.array("loss").data[count]);
        check_parameters(self.file, &parameters, "param_after", TOLS[1], &mut self.failed, |p| {
            Some(weights::to_file_layout(p.layout(), &p.value()).unwrap())
        });
        check_parameters(self.file, &parameters, "delta", TOLS[2], &mut self.failed, |p| {
            let at = parameters.iter().position(|q| q.id() == p.id()).unwrap();
            let change = flat(p).iter().zip(&before[at]).map(|(a, b)| a - b).collect();
            let change = Tensor::from_vec::<f32>(change, p.value().shape());
            Some(weights::to_file_layout(p.layout(), &change).unwrap())
        });
    }

    /// The loss on the inputs of step `k`, and its gradients.
    fn loss(&self, k: usize) -> (f64, Grads) {
        let parameters = self.subject.parameters();
        parameters.iter().for_each(|p| p.cast(self.compute).unwrap());
        let found = match &self.subject {
            Subject::Denoiser(network, _) | Subject::Stacked(network, _) => {
                self.shifting_loss(&**network, k)
            }
            Subject::Upscaler(_) => self.dissimilarity(),
            Subject::Critic(_) | Subject::Autoencoder(..) => unreachable!("no file trains these"),
        };
        parameters.iter().for_each(|p| p.cast(DType::F32).unwrap());
        found
    }

    /// DSSIM of the enlarged `x` and `target`, the same in every step.
    fn dissimilarity(&self) -> (f64, Grads) {
        let centres = match self.file.text("inputs").contains("no padding") {
            true => Centres::Inside,
            false => Centres::Reflected,
        };
        let mut tape = Tape::training();
        let [x, target] =
            ["x", "target"].map(|name| tape.input(self.file.array(name).tensor(self.compute)));
        let predicted = self.subject.forward(&mut tape, &[x], None).unwrap();
        let value = tape.dssim(&predicted, &target, centres).unwrap();
        let number = value.value().to_f64_vec().unwrap()[0];
        let one = Tensor::from_f64(&[1.0], &[1], self.compute);
        (number, tape.backward(&value, one).unwrap())
    }

    /// The published loss of residual shifting.
    fn shifting_loss(&self, network: &dyn Network, k: usize) -> (f64, Grads) {
        let get = |name: &str| self.file.array(name).tensor(DType::F32);
        let (x0, y0) = (get("x0"), get("y0"));
        let stored = self.file.array("noise");
        let len = x0.len();
        let noise = super::file::Array {
            shape: stored.shape[1..].to_vec(),
            data: stored.data[k * len..(k + 1) * len].to_vec(),
        };
        let noise = noise.tensor(DType::F32);
        let batch = x0.shape()[0];
        let t = &self.file.array("t").data[k * batch..(k + 1) * batch];
        let eta: Vec<f64> = t.iter().map(|&t| self.file.array("eta").data[t as usize]).collect();
        let t = Tensor::from_f64(t, &[batch], DType::F64);
        let each = len / batch;
        let values = |t: &Tensor| t.to_f64_vec().unwrap();
        let (x, y, z) = (values(&x0), values(&y0), values(&noise));
        // "... + 2*sqrt(eta)*noise"
        let text = self.file.text("inputs").split("*sqrt(eta)").next().unwrap_or_default();
        let kappa = super::spec::numbers(text).last().copied().unwrap_or(2.0);
        let state: Vec<f64> = (0..len)
            .map(|i| {
                let eta = eta[i / each];
                (1.0 - eta) * x[i] + eta * y[i] + kappa * eta.sqrt() * z[i]
            })
            .collect();
        let target: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
        let condition = network.condition(&y0, &y0).unwrap();
        let mut tape = Tape::training();
        let state = tape.input(Tensor::from_f64(&state, x0.shape(), DType::F32));
        let condition = tape.input(condition);
        let predicted = network.forward(&mut tape, &state, &condition, &t).unwrap();
        let target = tape.input(Tensor::from_f64(&target, x0.shape(), DType::F32));
        let config =
            LossConfig { kind: LossKind::MultiscaleDct, dct: 2.0, ..LossConfig::default() };
        let value = loss::loss(&mut tape, &config, &predicted, &target).unwrap();
        let number = value.value().to_f64_vec().unwrap()[0];
        let one = Tensor::from_vec(vec![1.0f32], &[1]);
        (number, tape.backward(&value, one).unwrap())
    }

    fn norm(&self, grads: &Grads) -> f64 {
        let gradient = |p: &Parameter| grads.of_parameter(p).unwrap().to_f32_vec().unwrap();
        let all: Vec<Vec<f32>> = self.subject.parameters().iter().map(gradient).collect();
        clip_by_norm::norm(all.iter().map(Vec::as_slice))
    }

    fn near(&mut self, what: &str, got: f64, stored: f64) {
        let error = (got - stored).abs() / stored.abs();
        if error > TOLS[0] || error.is_nan() {
            self.failed.push(format!("{what}: {got} is not {stored}"));
        }
    }
}

fn flat(p: &Parameter) -> Vec<f32> {
    p.value().cpu::<f32>().unwrap().to_vec()
}
