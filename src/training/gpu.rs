//! Training on a GPU.
//!
//! The weights, their moments and averages are F32 and stay on the device. The network computes with
//! copies in half precision, which the update writes beside the weights. Batches are uploaded as
//! crops; noise is added there. The first step runs as it is written; then the gradients of a batch and
//! the update are recorded as two graphs, which later steps replay with new inputs.
use std::sync::Arc;

use super::batch::{self, Batch};
use super::loss;
use super::optimizer::{self, Done, Gradients, LossScale, Optimizer, StepReport};
use super::sections::{Config, OptimKind};
use crate::diffusion::sampler::condition;
use crate::engine::cuda::{Gpu, Graph};
use crate::engine::device::{DType, Device, Real};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::models::Network;
use crate::ops::adam::{Adam, FusedAdam, Moved, Scalars};
use crate::ops::clip_by_norm;
use crate::ops::noise;
use crate::ops::q_sample::q_sample;

/// A network on a GPU with everything its training needs.
pub(super) struct GpuTrainer {
    gpu: Gpu,
    network: Box<dyn Network>,
    dtype: DType,
    state: State,
    adam: FusedAdam,
    scalars: Scalars,
    inputs: Option<Inputs>,
    gradients: Gradients,
    recorded: Option<Recorded>,
    /// Whether steps are to be recorded: not with accumulation, whose parts differ, nor for norms with running
    /// statistics, which every step puts in place of the last, nor where a recording, which keeps its
    /// memory to itself, does not fit.
    records: bool,
    /// None where gradients need no scale.
    scale: Option<LossScale>,
}

/// What the update moves, tensor by tensor.
struct State {
    values: Vec<Arc<Tensor>>,
    first: Vec<Arc<Tensor>>,
    second: Vec<Arc<Tensor>>,
    average: Vec<Arc<Tensor>>,
}

/// Where a batch lies on the device.
struct Inputs {
    low: Tensor,
    y0: Tensor,
    x0: Tensor,
    factors: Tensor,
    times: Tensor,
    /// The batch's number, which the noise is drawn with.
    number: Tensor,
    /// What the gradient of the loss is multiplied by, `[1]`.
    scale: Tensor,
}

/// The two graphs of a step.
struct Recorded {
    gradients: Graph,
    loss: Tensor,
    update: Graph,
}

impl GpuTrainer {
    /// Continues with the weights of `host` and `optimizer` on `gpu`, computing in `dtype`.
    ///
    /// # Errors
    /// If the memory of the GPU is full.
    pub(super) fn new(
        gpu: &Gpu,
        dtype: DType,
        config: &Config,
        host: &dyn Network,
        optimizer: &Optimizer,
    ) -> Result<Self> {
        let device = Device::Cuda(gpu.clone());
        let network = config.model.build(config.run.seed);
        let values: Vec<_> = host.parameters().iter().map(|p| p.value()).collect();
        let place = |t: &Tensor| Ok(Arc::new(t.to_device(&device)?));
        let all = |list: &[Tensor]| list.iter().map(place).collect::<Result<Vec<_>>>();
        let state = State {
            values: values.iter().map(|v| place(v)).collect::<Result<_>>()?,
            first: all(&optimizer.first)?,
            second: all(&optimizer.second)?,
            average: all(&optimizer.average)?,
        };
        let copies = state.copies(dtype)?;
        for (parameter, copy) in network.parameters().iter().zip(&copies) {
            parameter.set(Arc::clone(copy));
        }
        for (buffer, value) in network.buffers().iter().zip(host.buffers()) {
            buffer.set(value.value().to_device(&device)?);
        }
        let moved = Moved {
            values: &state.values,
            first: &state.first,
            second: &state.second,
            average: &state.average,
            copies: (dtype != DType::F32).then_some(&copies),
        };
        let adam = FusedAdam::new(gpu, moved, dtype, config.optim.betas, config.optim.eps)?;
        Ok(Self {
            gpu: gpu.clone(),
            network,
            dtype,
            state,
            adam,
            scalars: Scalars::new(gpu)?,
            inputs: None,
            gradients: vec![],
            recorded: None,
            records: config.optim.accumulate == 1 && !host.moves_buffers(),
            scale: (dtype == DType::F16).then(|| optimizer.scale.unwrap_or_default()),
        })
    }

    /// One optimizer step over `batches`, whose gradients are averaged. `step` counts from 1.
    ///
    /// # Errors
    /// [`Error::Memory`] with the batch that would fit; none for gradients that are not finite: those
    /// are in the norm that is returned, and nothing was changed.
    pub(super) fn step(
        &mut self,
        step: u64,
        config: &Config,
        next: &mut dyn FnMut() -> Result<Batch>,
    ) -> Result<Done> {
        let parts = config.optim.accumulate;
        let batches = (0..parts).map(|_| next()).collect::<Result<Vec<_>>>()?;
        loop {
            let mut total = 0.0;
            for (part, batch) in batches.iter().enumerate() {
                self.upload(batch)?;
                let loss =
                    self.gradients_of_batch(config, part).map_err(|e| self.fits(config, e))?;
                total += f64::from(loss) / parts as f64;
            }
            let done = self.update(step, config, total)?;
            let Some(scale) = &mut self.scale else { return Ok(done) };
            // Where f16 overflowed, the step is repeated with a smaller scale.
            scale.update(!done.step.norm.is_finite());
            if done.step.norm.is_finite() || scale.value < 1.0 {
                return Ok(done);
            }
        }
    }

    /// What the gradient of the loss is multiplied by.
    fn loss_scale(&self) -> f64 {
        self.scale.map_or(1.0, |scale| scale.value)
    }

    /// Copies the batch to the device, over the one before.
    fn upload(&mut self, batch: &Batch) -> Result<()> {
        let device = Device::Cuda(self.gpu.clone());
        #[allow(clippy::cast_possible_truncation)] // Steps of a stream count modulo 2^32.
        let number = batch.number as u32;
        let scale = f32::from_f64(self.loss_scale());
        let Some(inputs) = &mut self.inputs else {
            self.inputs = Some(Inputs {
                low: batch.crops.low.to_device(&device)?,
                y0: batch.crops.y0.to_device(&device)?,
                x0: batch.crops.x0.to_device(&device)?,
                factors: batch.factors.to_device(&device)?,
                times: batch.times.to_device(&device)?,
                number: noise::integer(&device, number)?,
                scale: Tensor::from_slice_on(&device, &[scale], &[1])?,
            });
            return Ok(());
        };
        let pairs = [
            (&mut inputs.low, &batch.crops.low),
            (&mut inputs.y0, &batch.crops.y0),
            (&mut inputs.x0, &batch.crops.x0),
            (&mut inputs.factors, &batch.factors),
            (&mut inputs.times, &batch.times),
        ];
        for (to, from) in pairs {
            to.write(from.cpu()?)?;
        }
        inputs.number.write(&[f32::from_bits(number)])?;
        inputs.scale.write(&[scale])
    }

    /// The loss of the uploaded batch; its gradients are added to those of the parts before.
    fn gradients_of_batch(&mut self, config: &Config, part: usize) -> Result<f32> {
        let inputs = self.inputs.as_ref().ok_or_else(|| unreachable!("a batch was uploaded"))?;
        if let Some(recorded) = &self.recorded {
            // SAFETY: `inputs`, the network and `recorded` are held by this value.
            unsafe { recorded.gradients.replay()? };
            return Ok(recorded.loss.to_f32_vec()?[0]);
        }
        let (loss, gradients) = self.forward_backward(config, inputs)?;
        if part == 0 {
            self.gradients = gradients;
        } else {
            optimizer::accumulate(&mut self.gradients, gradients)?;
        }
        Ok(loss.to_f32_vec()?[0])
    }

    /// Noise, network, loss and the way back. Only launches.
    fn forward_backward(&self, config: &Config, inputs: &Inputs) -> Result<(Tensor, Gradients)> {
        let network = &*self.network;
        let mut state = Tensor::empty_as(&inputs.x0, inputs.x0.shape())?;
        let mut target = Tensor::empty_as(&inputs.x0, inputs.x0.shape())?;
        let noise = batch::noise(config.run.seed, 0, Some(&inputs.number));
        let of = batch::target_factors(config.diffusion.prediction);
        let images = [&inputs.x0, &inputs.y0];
        q_sample(&inputs.factors, images, &noise, &mut state, Some((&mut target, of)))?;
        let mut tape = loss::tape(&config.optim);
        let seen = tape.input(condition(network, &inputs.low, &inputs.y0, None)?);
        let state = tape.input(state.cast(self.dtype)?);
        let predicted = network.forward(&mut tape, &state, &seen, &inputs.times)?;
        // The loss in single precision: its terms are far smaller than their sum.
        let predicted = tape.cast(&predicted, DType::F32)?;
        let target = tape.input(target);
        let loss = loss::loss(&mut tape, &config.loss, &predicted, &target)?;
        let value = loss.value().try_clone()?;
        let mut grads = tape.backward(&loss, inputs.scale.try_clone()?)?;
        Ok((value, optimizer::take(&mut grads, network.parameters())))
    }

    /// Clips and applies the gradients, unless they are not finite.
    fn update(&mut self, step: u64, config: &Config, loss: f64) -> Result<Done> {
        let o = &config.optim;
        let rate = o.rate(step, config.run.steps);
        let constants = Adam {
            lr: rate,
            betas: o.betas,
            eps: o.eps,
            decay: if o.kind == OptimKind::Adamw { o.weight_decay } else { 0.0 },
            step,
            scale: 1.0 / (o.accumulate as f64 * self.loss_scale()),
        };
        self.scalars.write(&constants, o.clip, config.ema.decay_at(step))?;
        match &self.recorded {
            // SAFETY: scalars, moments, weights and the recorded gradients are held by this value.
            Some(recorded) => unsafe { recorded.update.replay()? },
            None => {
                let gradients: Vec<_> = self.gradients.iter().map(Option::as_ref).collect();
                self.adam.set_gradients(&gradients)?;
                clip_by_norm::clip(self.adam.tables(), &mut self.scalars)?;
                self.adam.step(&self.scalars)?;
            }
        }
        let outcome = self.scalars.read()?;
        if self.recorded.is_none() && self.records {
            match self.record(config) {
                Err(Error::Memory(_)) => self.records = false,
                other => other?,
            }
        }
        let norm = if outcome.skipped { f64::INFINITY } else { outcome.norm.into() };
        Ok(Done { loss, critic: None, step: StepReport { rate, norm } })
    }

    /// Records a step.
    fn record(&mut self, config: &Config) -> Result<()> {
        let Some(inputs) = &self.inputs else { return Ok(()) };
        self.gradients.clear();
        let (gradients, (loss, kept)) =
            self.gpu.capture(|| self.forward_backward(config, inputs))?;
        self.gradients = kept;
        let addresses: Vec<_> = self.gradients.iter().map(Option::as_ref).collect();
        self.adam.set_gradients(&addresses)?;
        let (adam, scalars) = (&self.adam, &mut self.scalars);
        let (update, ()) = self.gpu.capture(|| {
            clip_by_norm::clip(adam.tables(), scalars)?;
            adam.step(scalars)
        })?;
        self.recorded = Some(Recorded { gradients, loss, update });
        Ok(())
    }

    /// Where `error` says that the device is full: adds the largest batch that fits, found by trying.
    fn fits(&self, config: &Config, error: Error) -> Error {
        let (Error::Memory(report), Some(inputs)) = (&error, &self.inputs) else { return error };
        let batch = inputs.x0.shape()[0];
        let mut smaller = batch / 2;
        while smaller > 0 && self.try_batch(config, inputs, smaller).is_err() {
            smaller /= 2;
        }
        let help = match smaller {
            0 => "not even one image fits: a smaller data.train.crop or model".to_owned(),
            n => format!(
                "--set data.train.batch={n} --set optim.accumulate={}    fits, and learns the same",
                config.optim.accumulate * (batch as u64).div_ceil(n as u64)
            ),
        };
        let what = format!("a batch of {batch} does not fit the GPU");
        Error::Memory(Report::new(what, &report.cause).help(help))
    }

    /// Whether the first `images` images alone can be learned from.
    fn try_batch(&self, config: &Config, inputs: &Inputs, images: usize) -> Result<()> {
        let device = Device::Cuda(self.gpu.clone());
        let part = |t: &Tensor| {
            let mut shape = t.shape().to_vec();
            shape[0] = images;
            Tensor::zeros_on(&device, DType::F32, &shape)
        };
        let fewer = Inputs {
            low: part(&inputs.low)?,
            y0: part(&inputs.y0)?,
            x0: part(&inputs.x0)?,
            factors: part(&inputs.factors)?,
            times: part(&inputs.times)?,
            number: inputs.number.try_clone()?,
            scale: inputs.scale.try_clone()?,
        };
        self.forward_backward(config, &fewer).map(drop)
    }

    /// What the choice of libraries has to say, such as results that were wrong.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.gpu.tuner().take_warnings()
    }

    /// Copies weights, moments and averages to `host` and `optimizer`.
    ///
    /// # Errors
    /// If the copy fails.
    pub(super) fn download(&self, host: &dyn Network, optimizer: &mut Optimizer) -> Result<()> {
        for (parameter, value) in host.parameters().iter().zip(&self.state.values) {
            parameter.set(value.to_device(&Device::Cpu)?);
        }
        for (buffer, moved) in host.buffers().iter().zip(self.network.buffers()) {
            buffer.set(moved.value().to_device(&Device::Cpu)?);
        }
        let all = |list: &[Arc<Tensor>]| {
            list.iter().map(|t| t.to_device(&Device::Cpu)).collect::<Result<Vec<_>>>()
        };
        optimizer.first = all(&self.state.first)?;
        optimizer.second = all(&self.state.second)?;
        optimizer.average = all(&self.state.average)?;
        optimizer.scale = self.scale;
        Ok(())
    }

    /// Runs `body` on the network with the averages of its weights, in single precision.
    ///
    /// # Errors
    /// Those of `body`.
    pub(super) fn with_average<R>(
        &self,
        body: impl FnOnce(&dyn Network) -> Result<R>,
    ) -> Result<R> {
        let parameters = self.network.parameters();
        let kept: Vec<_> = parameters.iter().map(|p| p.value()).collect();
        for (parameter, average) in parameters.iter().zip(&self.state.average) {
            parameter.set(Arc::clone(average));
        }
        let result = body(&*self.network);
        for (parameter, value) in parameters.iter().zip(kept) {
            parameter.set(value);
        }
        result
    }
}

impl State {
    /// What the network computes with: the values, or copies of them in half precision.
    fn copies(&self, dtype: DType) -> Result<Vec<Arc<Tensor>>> {
        match dtype {
            DType::F32 => Ok(self.values.clone()),
            _ => self.values.iter().map(|v| Ok(Arc::new(v.cast(dtype)?))).collect(),
        }
    }
}
