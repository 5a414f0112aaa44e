//! Three training steps: losses, gradient norms, parameters before and after.
use srk::engine::device::DType;
use srk::engine::parameter::Parameter;
use srk::engine::tape::{Grads, Tape};
use srk::engine::tensor::Tensor;
use srk::models::{Network, weights};
use srk::ops::{adam, clip_by_norm};
use srk::training::loss;
use srk::training::sections::{LossConfig, LossKind};

use crate::Outcome;
use crate::file::File;
use crate::network::{build, check_parameters};

/// The README's bounds: 1e-4 for losses and norms, 1e-6 for parameters, 2e-2 for their change (the
/// first Adam step is a sign function of gradients near zero).
const TOLS: [f64; 3] = [1e-4, 1e-6, 2e-2];

struct Run<'a> {
    file: &'a File,
    network: Box<dyn Network>,
    failed: Vec<String>,
}

pub fn run(file: &File) -> Outcome {
    let Some((network, _)) = build(file).filter(|_| file.text("system").contains("DualDomain"))
    else {
        return Outcome::Unknown(format!("training of \"{}\"", file.text("system")));
    };
    let mut run = Run { file, network, failed: vec![] };
    file.fill(run.network.parameters(), DType::F32);
    run.steps();
    if run.failed.is_empty() { Outcome::Passed(1) } else { Outcome::Failed(run.failed) }
}

impl Run<'_> {
    fn steps(&mut self) {
        let parameters = self.network.parameters().to_vec();
        let before: Vec<Vec<f32>> = parameters.iter().map(flat).collect();
        let mut moments: Vec<[Vec<f32>; 2]> =
            before.iter().map(|v| [vec![0.0; v.len()], vec![0.0; v.len()]]).collect();
        for k in 0..3 {
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
                lr: 1e-4,
                betas: [0.9, 0.999],
                eps: 1e-8,
                decay: 0.0,
                step: k as u64 + 1,
                scale: clip_by_norm::factor(norm, 1.0),
            };
            for (p, [m, v]) in parameters.iter().zip(&mut moments) {
                let gradient = grads.take_parameter(p).unwrap();
                let mut value = p.value().try_clone().unwrap();
                adam::adam(value.cpu_mut().unwrap(), m, v, gradient.cpu().unwrap(), &constants);
                p.set(value);
            }
        }
        let (last, _) = self.loss(0);
        self.near("loss after", last, self.file.array("loss").data[3]);
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
        let get = |name: &str| self.file.array(name).tensor(DType::F32);
        let (x0, y0) = (get("x0"), get("y0"));
        let stored = self.file.array("noise");
        let len = x0.len();
        let noise = crate::file::Array {
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
        let state: Vec<f64> = (0..len)
            .map(|i| {
                let eta = eta[i / each];
                (1.0 - eta) * x[i] + eta * y[i] + 2.0 * eta.sqrt() * z[i]
            })
            .collect();
        let target: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x - y).collect();
        let condition = self.network.condition(&y0, &y0).unwrap();
        let mut tape = Tape::training();
        let state = tape.input(Tensor::from_f64(&state, x0.shape(), DType::F32));
        let condition = tape.input(condition);
        let predicted = self.network.forward(&mut tape, &state, &condition, &t).unwrap();
        let target = tape.input(Tensor::from_f64(&target, x0.shape(), DType::F32));
        let config = LossConfig { kind: LossKind::MultiscaleDct, dct: 2.0 };
        let value = loss::loss(&mut tape, &config, &predicted, &target).unwrap();
        let number = value.value().to_f64_vec().unwrap()[0];
        let one = Tensor::from_vec(vec![1.0f32], &[1]);
        (number, tape.backward(&value, one).unwrap())
    }

    fn norm(&self, grads: &Grads) -> f64 {
        let slices = self.network.parameters().iter();
        clip_by_norm::norm(slices.map(|p| grads.of_parameter(p).unwrap().cpu::<f32>().unwrap()))
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
