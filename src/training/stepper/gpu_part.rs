//! One network on a GPU with everything its training needs.
use std::sync::Arc;

use crate::engine::cuda::{Gpu, Graph};
use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::ops::adam::{Adam, FusedAdam, LaterOutcome, Moved, Scalars};
use crate::ops::clip_by_norm::{self, Measured};
use crate::training::checkpoint::Part;
use crate::training::optimizer::{Gradients, Optimizer, Plan};
use crate::training::sections::{OptimConfig, OptimKind};

/// A part, its state and its update.
pub(super) struct GpuPart {
    on: Gpu,
    pub(super) number: usize,
    pub(super) pace: u64,
    parameters: Vec<Parameter>,
    pub(super) buffers: Vec<Parameter>,
    /// Where running statistics lie.
    statistics: Vec<Arc<Tensor>>,
    state: State,
    adam: FusedAdam,
    scalars: Scalars,
    measured: Arc<Measured>,
    /// Gradients of a step, of all its batches.
    sum: Gradients,
    /// Where those of several batches are added up, of every parameter; empty until there are several.
    sums: Vec<Tensor>,
    update: Option<Graph>,
}

/// What the update moves, tensor by tensor.
struct State {
    values: Vec<Arc<Tensor>>,
    first: Vec<Arc<Tensor>>,
    second: Vec<Arc<Tensor>>,
    average: Vec<Arc<Tensor>>,
    /// What networks compute with.
    copies: Vec<Arc<Tensor>>,
}

impl State {
    fn new(
        device: &Device,
        dtype: DType,
        parameters: &[Parameter],
        by: &Optimizer,
    ) -> Result<Self> {
        let place = |t: &Tensor| Ok(Arc::new(t.to_device(device)?));
        let all = |list: &[Tensor]| list.iter().map(place).collect::<Result<Vec<_>>>();
        let values = parameters.iter().map(|p| place(&p.value())).collect::<Result<Vec<_>>>()?;
        let copies = match dtype {
            DType::F32 => values.clone(),
            _ => values.iter().map(|v| Ok(Arc::new(v.cast(dtype)?))).collect::<Result<_>>()?,
        };
        let (first, second, average) = (all(&by.first)?, all(&by.second)?, all(&by.average)?);
        Ok(Self { values, first, second, average, copies })
    }

    fn adam(&self, gpu: &Gpu, dtype: DType, optim: &OptimConfig) -> Result<FusedAdam> {
        let moved = Moved {
            values: &self.values,
            first: &self.first,
            second: &self.second,
            average: &self.average,
            copies: (dtype != DType::F32).then_some(&self.copies),
        };
        FusedAdam::new(gpu, moved, dtype, optim.betas, optim.eps)
    }
}

impl GpuPart {
    /// Moves `part`, the one of `number`, to the GPU.
    pub(super) fn new(
        (gpu, dtype): (&Gpu, DType),
        (number, part): (usize, &Part<'_>),
        by: &Optimizer,
        (optim, measured): (&OptimConfig, &Arc<Measured>),
    ) -> Result<Self> {
        let device = Device::Cuda(gpu.clone());
        let state = State::new(&device, dtype, part.parameters, by)?;
        let adam = state.adam(gpu, dtype, optim)?;
        let place = |b: &Parameter| Ok(Arc::new(b.value().to_device(&device)?));
        let new = Self {
            on: gpu.clone(),
            number,
            pace: part.pace,
            parameters: part.parameters.to_vec(),
            buffers: part.buffers.to_vec(),
            statistics: part.buffers.iter().map(place).collect::<Result<_>>()?,
            state,
            adam,
            scalars: Scalars::new(gpu)?,
            measured: Arc::clone(measured),
            sum: Vec::new(),
            sums: Vec::new(),
            update: None,
        };
        new.compute_with_copies();
        Ok(new)
    }

    /// Gives networks what they compute with.
    fn compute_with_copies(&self) {
        let pairs = self.parameters.iter().zip(&self.state.copies);
        pairs.for_each(|(parameter, copy)| parameter.set(Arc::clone(copy)));
        self.buffers.iter().zip(&self.statistics).for_each(|(b, kept)| b.set(Arc::clone(kept)));
    }

    /// Takes the weights that the parameters hold, on the CPU, and those of `by`.
    pub(super) fn load(
        &mut self,
        (gpu, dtype): (&Gpu, DType),
        by: &Optimizer,
        optim: &OptimConfig,
    ) -> Result<()> {
        let (parameters, buffers) = (self.parameters.clone(), self.buffers.clone());
        let part =
            Part { parameters: &parameters, buffers: &buffers, aside: false, pace: self.pace };
        let measured = Arc::clone(&self.measured);
        *self = Self::new((gpu, dtype), (self.number, &part), by, (optim, &measured))?;
        Ok(())
    }

    /// Writes running statistics that a pass has moved to where they lie. Only launches.
    pub(super) fn keep_statistics(&self) -> Result<()> {
        for (buffer, kept) in self.buffers.iter().zip(&self.statistics) {
            let moved = buffer.value();
            if !Arc::ptr_eq(&moved, kept) {
                kept.alias_on(&self.on)?.copy_from(&moved)?;
                buffer.set(Arc::clone(kept));
            }
        }
        Ok(())
    }

    /// Takes no notice of what a pass that failed made of them.
    pub(super) fn reset_statistics(&self) -> Result<()> {
        self.buffers.iter().zip(&self.statistics).for_each(|(b, kept)| b.set(Arc::clone(kept)));
        Ok(())
    }

    /// Running statistics as they are now, in memory of their own.
    pub(super) fn kept_statistics(&self) -> Result<Vec<Tensor>> {
        self.statistics.iter().map(|kept| kept.try_clone()).collect()
    }

    /// Puts `values`, wherever they are, where running statistics lie.
    pub(super) fn put_statistics(&self, values: &[Tensor]) -> Result<()> {
        for (kept, value) in self.statistics.iter().zip(values) {
            let value = value.to_device(&Device::Cuda(self.on.clone()))?;
            kept.alias_on(&self.on)?.copy_from(&value)?;
        }
        Ok(())
    }

    /// Running statistics on the CPU.
    pub(super) fn statistics_on_cpu(&self) -> Result<Vec<Tensor>> {
        self.statistics.iter().map(|kept| kept.to_device(&Device::Cpu)).collect()
    }

    /// The sums of gradients.
    pub(super) const fn sums(&self) -> &Gradients {
        &self.sum
    }

    /// The sums of gradients on the CPU, in single precision.
    pub(super) fn sums_on_cpu(&self) -> Result<Gradients> {
        let mut sums: Gradients = self.parameters.iter().map(|_| None).collect();
        for (to, sum) in sums.iter_mut().zip(&self.sum) {
            *to = sum.as_ref().map(|sum| sum.to_device(&Device::Cpu)).transpose()?;
        }
        Ok(sums)
    }

    /// Takes `sums`, which lie on the CPU, as those of the step, in `dtype`.
    pub(super) fn put_sums(&mut self, sums: Gradients, dtype: DType) -> Result<()> {
        let device = Device::Cuda(self.on.clone());
        let place = |sum: Tensor| {
            let sum = sum.to_device(&device)?;
            if dtype == DType::F32 { Ok(sum) } else { sum.cast(dtype) }
        };
        self.sum = sums.into_iter().map(|sum| sum.map(place).transpose()).collect::<Result<_>>()?;
        Ok(())
    }

    /// Takes gradients that are nobody else's as those of the step.
    pub(super) fn take_fresh(&mut self, gradients: Gradients) {
        self.sum = gradients;
    }

    /// The same of gradients that lie where a recording puts them.
    pub(super) fn take_lasting(&mut self, gradients: &Gradients) -> Result<()> {
        let same = |g: &Option<Tensor>| g.as_ref().map(|g| g.alias_on(&self.on)).transpose();
        self.sum = gradients.iter().map(same).collect::<Result<_>>()?;
        Ok(())
    }

    /// Makes room for the sums of the gradients of several batches, once.
    pub(super) fn begin_sums(&mut self) -> Result<()> {
        if self.sums.is_empty() {
            let room = |copy: &Arc<Tensor>| Tensor::zeros_as(copy, copy.shape());
            self.sums = self.state.copies.iter().map(room).collect::<Result<_>>()?;
        }
        Ok(())
    }

    /// Adds `gradients` to the sums, which begin with them if they are the `first`. Only launches.
    pub(super) fn launch_sums(&self, gradients: &Gradients, first: bool) -> Result<()> {
        for (sum, gradient) in self.sums.iter().zip(gradients) {
            let mut sum = sum.alias_on(&self.on)?;
            match gradient {
                Some(gradient) if first => sum.copy_from(gradient)?,
                Some(gradient) => sum.add_assign(gradient)?,
                // Another batch may have one of this parameter.
                None if first => sum.clear()?,
                None => {}
            }
        }
        Ok(())
    }

    /// Takes the sums as gradients of the step, where one of its batches has one: the `first`, and now `gradients`.
    pub(super) fn count_in(&mut self, gradients: &Gradients, first: bool) -> Result<()> {
        if first {
            self.sum.clear();
        }
        self.sum.resize_with(self.sums.len(), || None);
        for ((taken, sum), gradient) in self.sum.iter_mut().zip(&self.sums).zip(gradients) {
            if taken.is_none() && gradient.is_some() {
                *taken = Some(sum.alias_on(&self.on)?);
            }
        }
        Ok(())
    }

    /// Gives their memory back.
    pub(super) fn forget_gradients(&mut self) {
        self.sum.clear();
    }

    /// Uploads the constants of the next step, and where the gradients are.
    pub(super) fn tell(&mut self, plan: &Plan<'_>, by: &Optimizer, scale: f64) -> Result<f64> {
        let (o, step) = (plan.optim, by.step + 1);
        let rate = o.rate(step - plan.since, plan.steps - plan.since);
        let constants = Adam {
            lr: rate,
            betas: o.betas,
            eps: o.eps,
            decay: if o.kind == OptimKind::Adamw { o.weight_decay } else { 0.0 },
            step: step - plan.since,
            scale,
        };
        self.scalars.write(&constants, o.clip, plan.ema.decay_at(step))?;
        self.sum.resize_with(self.parameters.len(), || None);
        let gradients: Vec<_> = self.sum.iter().map(Option::as_ref).collect();
        self.adam.set_gradients(&gradients)?;
        Ok(rate)
    }

    /// Whether the gradients are finite.
    pub(super) fn would_move(&mut self) -> Result<bool> {
        clip_by_norm::clip(self.adam.tables(), &mut self.scalars, &self.measured)?;
        Ok(!self.scalars.read()?.skipped)
    }

    /// Clips and applies the gradients, unless they are not finite or the step is held; the rate, and what comes of it.
    pub(super) fn step(
        &mut self,
        plan: &Plan<'_>,
        by: &mut Optimizer,
        scale: f64,
    ) -> Result<(f64, LaterOutcome)> {
        if plan.since > 0 && by.step == plan.since {
            self.zero_moments()?;
        }
        let rate = self.tell(plan, by, scale)?;
        match &self.update {
            // SAFETY: scalars, what is measured, moments, weights and gradients that it names are held by this value.
            Some(update) => unsafe { update.replay()? },
            None => self.launch_update()?,
        }
        by.step += 1;
        Ok((rate, self.scalars.read_later()?))
    }

    /// Whether the update is recorded.
    pub(super) const fn is_recorded(&self) -> bool {
        self.update.is_some()
    }

    fn launch_update(&mut self) -> Result<()> {
        clip_by_norm::clip(self.adam.tables(), &mut self.scalars, &self.measured)?;
        self.adam.step(&self.scalars)
    }

    /// Moments start anew, where they lie.
    fn zero_moments(&self) -> Result<()> {
        for moment in self.state.first.iter().chain(&self.state.second) {
            let zeros = Tensor::zeros_as(moment, moment.shape())?;
            moment.alias_on(&self.on)?.copy_from(&zeros)?;
        }
        Ok(())
    }

    /// Records the update, once.
    pub(super) fn record(&mut self) -> Result<()> {
        if self.update.is_some() {
            return Ok(());
        }
        let gpu = self.on.clone();
        match gpu.capture(|| self.launch_update()) {
            Ok((update, ())) => self.update = Some(update),
            Err(Error::Memory(_)) => {}
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Gives the parameters their averages.
    pub(super) fn take_averages(&self) {
        let pairs = self.parameters.iter().zip(&self.state.average);
        pairs.for_each(|(parameter, average)| parameter.set(Arc::clone(average)));
    }

    /// Copies moments and averages to `by`.
    pub(super) fn download(&self, by: &mut Optimizer) -> Result<()> {
        let all = |list: &[Arc<Tensor>]| {
            list.iter().map(|t| t.to_device(&Device::Cpu)).collect::<Result<Vec<_>>>()
        };
        by.first = all(&self.state.first)?;
        by.second = all(&self.state.second)?;
        by.average = all(&self.state.average)?;
        Ok(())
    }

    /// What parameters and buffers hold.
    pub(super) fn held(&self) -> Vec<Arc<Tensor>> {
        self.parameters.iter().chain(&self.buffers).map(Parameter::value).collect()
    }

    /// Gives them that again.
    pub(super) fn hold(&self, held: Vec<Arc<Tensor>>) {
        let all = self.parameters.iter().chain(&self.buffers).zip(held);
        all.for_each(|(parameter, value)| parameter.set(value));
    }

    /// Gives them copies on the CPU, in single precision.
    pub(super) fn rest(&self) -> Result<()> {
        for (parameter, value) in self.parameters.iter().zip(&self.state.values) {
            parameter.set(value.to_device(&Device::Cpu)?);
        }
        for (buffer, value) in self.buffers.iter().zip(&self.statistics) {
            buffer.set(value.to_device(&Device::Cpu)?);
        }
        Ok(())
    }
}
