//! Training on the CPU.
use std::sync::Arc;

use super::coming::{Bad, Coming, Done, bad_loss};
use super::interface::{Joint, Learn, Learned, Move, Pass, Stepper};
use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::ops::bf16::{Products, with_products};
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::optimizer::{self, Gradients, Optimizer};
use crate::training::ranks::Said;

/// Parts that lie on the CPU.
pub(super) struct OnCpu {
    parameters: Vec<Vec<Parameter>>,
    /// Steps that each takes in one of the run.
    paces: Vec<u64>,
    optimizers: Vec<Optimizer>,
    one: Tensor,
    /// Running statistics of all parts.
    buffers: Vec<Parameter>,
    joint: Joint,
    /// F32, or BF16 for the products of convolutions; parameters and sums are F32.
    dtype: DType,
}

impl OnCpu {
    pub(super) fn new(
        dtype: DType,
        parts: &[Part<'_>],
        optimizers: Vec<Optimizer>,
        joint: Joint,
    ) -> Result<Self> {
        let parameters = parts.iter().map(|part| part.parameters.to_vec()).collect();
        let paces = parts.iter().map(|part| part.pace).collect();
        let buffers = parts.iter().flat_map(|part| part.buffers.to_vec()).collect();
        let one = Tensor::from_vec(vec![1.0f32], &[1]);
        Ok(Self { parameters, paces, optimizers, one, buffers, joint, dtype })
    }

    fn pass(&self) -> Pass<'_> {
        Pass { parts: &self.parameters, scale: &self.one, dtype: DType::F32, buckets: None }
    }

    /// What the units of all ranks said, where each moves running statistics from what they were before all of them.
    fn joined(&self, batches: &[Batch], learn: &mut Learn<'_>) -> Result<Said> {
        let pass = self.pass();
        let before: Vec<_> = self.buffers.iter().map(Parameter::value).collect();
        let reset = || {
            let kept = self.buffers.iter().zip(&before);
            kept.for_each(|(buffer, value)| buffer.set(Arc::clone(value)));
        };
        let mut sum = self.joint.sum(&self.parameters, &self.buffers);
        for (unit, batch) in (self.joint.shares.first()..).zip(batches) {
            reset();
            let Learned { numbers, gradients: found } = learn(&pass, batch)?;
            let mut gradients = none(&self.parameters);
            for (part, found) in found {
                optimizer::accumulate(&mut gradients[part], found)?;
            }
            let numbers = numbers.iter().map(|n| Ok(n.to_f64_vec()?[0])).collect::<Result<_>>()?;
            let statistics = self.buffers.iter().map(|b| b.value().try_clone());
            let statistics = statistics.collect::<Result<_>>()?;
            sum.add(unit..unit + 1, Said { gradients, numbers, statistics })?;
        }
        reset();
        self.joint.join(sum)
    }

    /// What the batches of this process, which are all, said.
    fn alone(&self, batches: &[Batch], learn: &mut Learn<'_>) -> Result<Said> {
        let (mut gradients, mut numbers) = (none(&self.parameters), Vec::new());
        let pass = self.pass();
        for batch in batches {
            let learned = learn(&pass, batch)?;
            numbers.resize(learned.numbers.len(), 0.0);
            for (sum, number) in numbers.iter_mut().zip(&learned.numbers) {
                *sum += number.to_f64_vec()?[0] / batches.len() as f64;
            }
            for (part, found) in learned.gradients {
                optimizer::accumulate(&mut gradients[part], found)?;
            }
        }
        Ok(Said { gradients, numbers, statistics: Vec::new() })
    }
}

/// No gradients of any part.
fn none(parameters: &[Vec<Parameter>]) -> Vec<Gradients> {
    parameters.iter().map(|part| part.iter().map(|_| None).collect()).collect()
}

impl Stepper for OnCpu {
    fn place(&self) -> (Device, DType) {
        (Device::Cpu, DType::F32)
    }

    fn begin(&mut self, _: Option<&Batch>) -> Result<()> {
        Ok(())
    }

    fn descend(
        &mut self,
        moves: &[Move<'_>],
        batches: &[Batch],
        learn: &mut Learn<'_>,
    ) -> Result<Coming> {
        let products = if self.dtype == DType::BF16 { Products::Bf16 } else { Products::F32 };
        let said = with_products(products, || match self.joint.joins() {
            true => self.joined(batches, learn),
            false => self.alone(batches, learn),
        })?;
        let bad = bad_loss(&said.numbers);
        let mut done = Done { numbers: said.numbers, moved: Vec::new(), bad };
        if bad.is_some() {
            return Ok(Coming::known(done));
        }
        let of = self.joint.averaged_over(batches.len());
        for Move { part, plan } in moves {
            let (optimizer, parameters) = (&mut self.optimizers[*part], &self.parameters[*part]);
            let report = optimizer.step(parameters, &said.gradients[*part], plan, of)?;
            done.moved.push(report);
            if !report.norm.is_finite() {
                done.bad = Some(Bad { part: Some(*part), value: report.norm });
                break;
            }
        }
        if done.bad.is_none() {
            let moved = self.buffers.iter().zip(said.statistics);
            moved.for_each(|(buffer, value)| buffer.set(value));
        }
        Ok(Coming::known(done))
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

    fn engines(&self) -> Option<String> {
        None
    }
}
