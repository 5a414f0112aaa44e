//! Training on the CPU.
use super::interface::{Bad, Done, Learn, Move, Pass, Stepper};
use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::optimizer::{self, Gradients, Optimizer};

/// Parts that lie on the CPU.
pub(super) struct OnCpu {
    parameters: Vec<Vec<Parameter>>,
    /// Steps that each takes in one of the run.
    paces: Vec<u64>,
    optimizers: Vec<Optimizer>,
    one: Tensor,
}

impl OnCpu {
    pub(super) fn new(parts: &[Part<'_>], optimizers: Vec<Optimizer>) -> Result<Self> {
        let parameters = parts.iter().map(|part| part.parameters.to_vec()).collect();
        let paces = parts.iter().map(|part| part.pace).collect();
        Ok(Self { parameters, paces, optimizers, one: Tensor::from_vec(vec![1.0f32], &[1]) })
    }
}

impl Stepper for OnCpu {
    fn place(&self) -> (Device, DType) {
        (Device::Cpu, DType::F32)
    }

    fn descend(
        &mut self,
        moves: &[Move<'_>],
        batches: &[Batch],
        learn: &mut Learn<'_>,
    ) -> Result<Done> {
        let none = |parameters: &Vec<Parameter>| parameters.iter().map(|_| None).collect();
        let mut sums: Vec<Gradients> = self.parameters.iter().map(none).collect();
        let mut numbers = Vec::new();
        let pass = Pass { parts: &self.parameters, scale: &self.one, dtype: DType::F32 };
        for batch in batches {
            let learned = learn(&pass, batch)?;
            add(&mut numbers, &learned.numbers, batches.len())?;
            for (part, gradients) in learned.gradients {
                optimizer::accumulate(&mut sums[part], gradients)?;
            }
        }
        let mut done = Done { numbers, moved: Vec::new(), bad: None };
        if let Some(&value) = done.numbers.first().filter(|loss| !loss.is_finite()) {
            done.bad = Some(Bad { part: None, value });
            return Ok(done);
        }
        for Move { part, plan } in moves {
            let optimizer = &mut self.optimizers[*part];
            let report = optimizer.step(&self.parameters[*part], &sums[*part], plan)?;
            done.moved.push(report);
            if !report.norm.is_finite() {
                done.bad = Some(Bad { part: Some(*part), value: report.norm });
                break;
            }
        }
        Ok(done)
    }

    fn averaged(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let all: Vec<&Parameter> = self.parameters.iter().flatten().collect();
        let kept: Vec<_> = all.iter().map(|p| p.value()).collect();
        let averages = self.optimizers.iter().flat_map(|by| &by.average);
        let averages = averages.map(Tensor::try_clone).collect::<Result<Vec<_>>>()?;
        all.iter().zip(averages).for_each(|(parameter, average)| parameter.set(average));
        let result = body();
        all.iter().zip(kept).for_each(|(parameter, value)| parameter.set(value));
        result
    }

    fn at_rest(&mut self, body: &mut dyn FnMut(&[Optimizer]) -> Result<()>) -> Result<()> {
        body(&self.optimizers)
    }

    fn go_on_from(&mut self, optimizers: Vec<Optimizer>) -> Result<()> {
        self.optimizers = optimizers;
        Ok(())
    }

    fn count(&mut self, step: u64) {
        for (optimizer, pace) in self.optimizers.iter_mut().zip(&self.paces) {
            optimizer.step = step * pace;
        }
    }

    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// Adds `more`, each a share of the mean over `parts`, to `sums`.
pub(super) fn add(sums: &mut Vec<f64>, more: &[Tensor], parts: usize) -> Result<()> {
    sums.resize(more.len(), 0.0);
    for (sum, number) in sums.iter_mut().zip(more) {
        *sum += number.to_f64_vec()?[0] / parts as f64;
    }
    Ok(())
}
