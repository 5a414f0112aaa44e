//! Training on a GPU.
//!
//! Parameters, their moments and averages are F32 and stay on the device. Networks compute with copies in half
//! precision, which the update writes beside the parameters. The first batch of a way runs as it is written; then
//! what it launches is recorded as a graph, which later batches of the same way replay with new numbers. So are sums of
//! the gradients of several batches and the update of each part. Running statistics are written where they lie, so that
//! replays find them. While the GPU computes, the next batch is copied ahead.
use std::collections::BTreeMap;
use std::sync::Arc;

use super::buckets::Buckets;
use super::coming::{Bad, Coming, Done, Moving, Numbers, bad_loss};
use super::gpu_part::GpuPart;
use super::interface::{Fewer, Joint, Learn, Learned, Move, Pass, Stepper};
use super::staged::Staged;
use crate::engine::cuda::{Gpu, Graph};
use crate::engine::device::{DType, Device, Real};
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::ops::clip_by_norm::Measured;
use crate::training::batch::Batch;
use crate::training::checkpoint::Part;
use crate::training::optimizer::{Gradients, LossScale, Optimizer};
use crate::training::ranks::{Said, Sum};
use crate::training::sections::OptimConfig;

/// Parts that lie on a GPU.
pub(super) struct OnGpu {
    on: Gpu,
    dtype: DType,
    optim: OptimConfig,
    fewer: Fewer,
    parts: Vec<GpuPart>,
    /// The parameters of each part.
    parameters: Vec<Vec<Parameter>>,
    /// Step counts; moments and averages as they were at the last rest.
    optimizers: Vec<Optimizer>,
    ways: BTreeMap<usize, Way>,
    /// What the gradient of a loss is multiplied by, `[1]`.
    factor: Tensor,
    /// The same, where gradients need it.
    scale: Option<LossScale>,
    measured: Arc<Measured>,
    /// Numbers that a batch says.
    count: usize,
    joint: Joint,
    /// The batch that comes next, where it is copied ahead.
    staged: Option<Staged>,
}

/// A way that batches go.
struct Way {
    /// Where their numbers lie.
    inputs: Batch,
    recorded: Option<Recorded>,
    /// Whether it is known if it can be recorded.
    tried: bool,
}

/// What batches of a way launch.
struct Recorded {
    graph: Graph,
    learned: Learned,
    /// What adds the gradients to those of the batches before, and what begins with them.
    sums: [Option<Graph>; 2],
}

impl OnGpu {
    pub(super) fn new(
        (gpu, dtype): (&Gpu, DType),
        parts: &[Part<'_>],
        optimizers: Vec<Optimizer>,
        (optim, fewer): (&OptimConfig, Fewer),
        joint: Joint,
    ) -> Result<Self> {
        let device = Device::Cuda(gpu.clone());
        let scale = optimizers.first().and_then(|by| by.scale);
        let measured = Arc::new(Measured::new(gpu)?);
        let placed = parts.iter().enumerate().zip(&optimizers);
        let placed =
            placed.map(|(part, by)| GpuPart::new((gpu, dtype), part, by, (optim, &measured)));
        Ok(Self {
            on: gpu.clone(),
            dtype,
            optim: optim.clone(),
            fewer,
            parts: placed.collect::<Result<_>>()?,
            parameters: parts.iter().map(|part| part.parameters.to_vec()).collect(),
            optimizers,
            ways: BTreeMap::new(),
            factor: Tensor::from_slice_on(&device, &[1.0], &[1])?,
            measured,
            count: 0,
            scale: (dtype == DType::F16).then(|| scale.unwrap_or_default()),
            staged: if joint.joins() { None } else { Staged::new(gpu)? },
            joint,
        })
    }

    /// Learns from `batches`: what they say of the parts lies in these afterwards, summed over all ranks.
    fn learn_all(&mut self, batches: &[Batch], learn: &mut Learn<'_>) -> Result<Numbers> {
        if self.joint.joins() {
            let numbers = match self.joint.buckets.clone() {
                Some(buckets) => self.joined_in_place(batches, &buckets, learn)?,
                None => self.joined(batches, learn)?,
            };
            // What is finite here may not be elsewhere: the means say whether to move.
            self.measured.release()?;
            return Ok(Numbers::Known(numbers));
        }
        self.measured.clear()?;
        for (i, batch) in batches.iter().enumerate() {
            self.take(batch, (i, batches.len()), learn)?;
        }
        let sums = self.measured.read_later()?;
        Ok(Numbers::Later { sums, count: self.count, batches: batches.len() })
    }

    /// The same over several ranks, or in an order of its own, through the memory of the host; the means of the
    /// numbers. Each unit moves running statistics from what they were before all of them.
    fn joined(&mut self, batches: &[Batch], learn: &mut Learn<'_>) -> Result<Vec<f64>> {
        let mut sum = self.joint.sum(&self.parameters, &self.buffers());
        let before = self.parts.iter().map(GpuPart::kept_statistics).collect::<Result<Vec<_>>>()?;
        let first = self.joint.shares.first();
        // As many at once as are added up on the device.
        let together = if self.joint.shares.fixed { 1 } else { batches.len().max(1) };
        for (at, units) in (first..).step_by(together).zip(batches.chunks(together)) {
            let mut said = self.units(units, &before, learn)?;
            said.gradients =
                self.parts.iter().map(GpuPart::sums_on_cpu).collect::<Result<Vec<_>>>()?;
            sum.add(at..at + units.len() as u64, said)?;
        }
        let mut said = self.over_ranks(sum, &before)?;
        for (part, gradients) in self.parts.iter_mut().zip(std::mem::take(&mut said.gradients)) {
            part.put_sums(gradients, self.dtype)?;
        }
        Ok(said.numbers)
    }

    /// The same where `buckets` add up gradients on the GPUs: only numbers and statistics go through the host.
    fn joined_in_place(
        &mut self,
        batches: &[Batch],
        buckets: &Buckets,
        learn: &mut Learn<'_>,
    ) -> Result<Vec<f64>> {
        let mut sum = self.joint.sum(&[], &self.buffers());
        let before = self.parts.iter().map(GpuPart::kept_statistics).collect::<Result<Vec<_>>>()?;
        let first = self.joint.shares.first();
        let said = self.units(batches, &before, learn)?;
        if self.joint.while_found().is_none() {
            let parts = self.parts.iter().zip(&self.parameters);
            parts.into_iter().try_for_each(|(part, of)| buckets.add_up(of, part.sums()))?;
            self.joint.settle()?;
        }
        sum.add(first..first + batches.len() as u64, said)?;
        Ok(self.over_ranks(sum, &before)?.numbers)
    }

    /// Running statistics of all parts.
    fn buffers(&self) -> Vec<Parameter> {
        self.parts.iter().flat_map(|part| part.buffers.clone()).collect()
    }

    /// What `units` say but for gradients, whose sums lie in the parts afterwards. Each moves running statistics from
    /// `before`.
    fn units(
        &mut self,
        units: &[Batch],
        before: &[Vec<Tensor>],
        learn: &mut Learn<'_>,
    ) -> Result<Said> {
        let mut said = Said::default();
        self.parts.iter_mut().for_each(GpuPart::forget_gradients);
        self.measured.clear()?;
        for (i, batch) in units.iter().enumerate() {
            self.reset_to(before)?;
            self.take(batch, (i, units.len()), learn)?;
            let moved = self.parts.iter().map(GpuPart::statistics_on_cpu);
            let moved = moved.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
            said.add(Said { statistics: moved, ..Said::default() })?;
        }
        let (sums, count) = (self.measured.read_later()?, self.count);
        said.numbers = Numbers::Later { sums, count, batches: 1 }.wait()?;
        Ok(said)
    }

    /// Running statistics as they were.
    fn reset_to(&self, before: &[Vec<Tensor>]) -> Result<()> {
        self.parts.iter().zip(before).try_for_each(|(part, kept)| part.put_statistics(kept))
    }

    /// What all ranks said; running statistics, until then those `before`, are their means.
    fn over_ranks(&mut self, sum: Sum, before: &[Vec<Tensor>]) -> Result<Said> {
        // Should a rank be gone, they are still those of a whole number of steps.
        self.reset_to(before)?;
        let said = self.joint.join(sum)?;
        let mut statistics = &said.statistics[..];
        for part in &self.parts {
            let (mine, others) = statistics.split_at(part.buffers.len());
            part.put_statistics(mine)?;
            statistics = others;
        }
        Ok(said)
    }

    /// What the gradient of the loss is multiplied by.
    fn loss_scale(&self) -> f64 {
        self.scale.map_or(1.0, |scale| scale.value)
    }

    /// Copies the numbers of `batch` to the device, over those of the one before where there was one of its way.
    fn upload(&mut self, way: usize, batch: &Batch) -> Result<()> {
        if let Some(known) = self.ways.get_mut(&way).filter(|known| known.inputs.fits(batch)) {
            let staged = self.staged.as_mut();
            return match staged.map(|staged| staged.take(batch, &mut known.inputs)).transpose()? {
                Some(true) => Ok(()),
                _ => known.inputs.write(batch),
            };
        }
        let device = Device::Cuda(self.on.clone());
        let inputs = batch.map(|tensor| tensor.to_device(&device))?;
        self.ways.insert(way, Way { inputs, recorded: None, tried: false });
        Ok(())
    }

    /// What the batch uploaded for `way` says; its gradients are those of all processes where `buckets` are given.
    fn learn(
        &self,
        inputs: &Batch,
        buckets: Option<&Buckets>,
        learn: &mut Learn<'_>,
    ) -> Result<Learned> {
        let (parts, scale, dtype) = (&self.parameters[..], &self.factor, self.dtype);
        let pass = Pass { parts, scale, dtype, buckets };
        let learned = learn(&pass, inputs)?;
        self.measured.add(&learned.numbers)?;
        self.parts.iter().try_for_each(GpuPart::keep_statistics)?;
        Ok(learned)
    }

    /// Learns from batch `i` of `of`: its numbers are added to those measured, its gradients to those of the parts.
    fn take(
        &mut self,
        batch: &Batch,
        (i, of): (usize, usize),
        learn: &mut Learn<'_>,
    ) -> Result<()> {
        let way = batch.way;
        self.upload(way, batch)?;
        let Some(mut known) = self.ways.remove(&way) else { return Ok(()) };
        let result = self.take_known(&mut known, (i, of), learn);
        let result = result.map_err(|e| self.fits(&known.inputs, e, learn));
        self.ways.insert(way, known);
        result
    }

    fn take_known(
        &mut self,
        way: &mut Way,
        (i, of): (usize, usize),
        learn: &mut Learn<'_>,
    ) -> Result<()> {
        let (first, last) = (i == 0, i + 1 == of);
        if let Some(Recorded { graph, learned, sums: adding }) = &mut way.recorded {
            // SAFETY: inputs, networks and what was recorded are held by this value.
            unsafe { graph.replay()? };
            self.joint.settle()?;
            self.begin_next(last)?;
            self.count = learned.numbers.len();
            if of > 1 {
                return self.add_recorded(
                    &learned.gradients,
                    &mut adding[usize::from(first)],
                    first,
                );
            }
            for (part, gradients) in &learned.gradients {
                self.parts[*part].take_lasting(gradients)?;
            }
            return Ok(());
        }
        let learned = self.learn(&way.inputs, self.joint.while_found(), learn)?;
        self.joint.settle()?;
        self.begin_next(last)?;
        self.count = learned.numbers.len();
        for (part, gradients) in learned.gradients {
            let part = &mut self.parts[part];
            if of == 1 {
                part.take_fresh(gradients);
                continue;
            }
            part.begin_sums()?;
            part.launch_sums(&gradients, first)?;
            part.count_in(&gradients, first)?;
        }
        Ok(())
    }

    /// Begins to copy the next batch ahead, if those of this descent are all issued.
    fn begin_next(&mut self, is_last: bool) -> Result<()> {
        match self.staged.as_mut().filter(|_| is_last) {
            Some(staged) => staged.begin(&self.on),
            None => Ok(()),
        }
    }

    /// Adds `gradients`, which lie where a recording puts them, by `graph`, which is recorded the first time.
    fn add_recorded(
        &mut self,
        gradients: &[(usize, Gradients)],
        graph: &mut Option<Graph>,
        first: bool,
    ) -> Result<()> {
        for (part, gradients) in gradients {
            let part = &mut self.parts[*part];
            part.begin_sums()?;
            part.count_in(gradients, first)?;
        }
        let parts = &self.parts;
        let launch = || {
            let mut each = gradients.iter();
            each.try_for_each(|(part, gradients)| parts[*part].launch_sums(gradients, first))
        };
        let graph = match graph {
            Some(graph) => graph,
            None => graph.insert(self.on.capture(launch)?.0),
        };
        // SAFETY: gradients and sums are held by this value.
        unsafe { graph.replay() }
    }

    /// Moves the parts of `moves`, each unless the loss, its gradients or something before it is not finite.
    fn update(
        &mut self,
        moves: &[Move<'_>],
        batches: usize,
        mut numbers: Numbers,
    ) -> Result<Coming> {
        let scale = 1.0 / (self.joint.averaged_over(batches) * self.loss_scale());
        if self.joint.joins() || (self.scale.is_some() && moves.len() > 1) {
            let known = numbers.wait()?;
            let mut bad = bad_loss(&known);
            if self.scale.is_some() && moves.len() > 1 {
                // All of them, or none.
                bad = bad.map_or_else(|| self.would_not_move(moves, scale), |bad| Ok(Some(bad)))?;
            }
            if bad.is_some() {
                return Ok(Coming::known(Done { numbers: known, moved: Vec::new(), bad }));
            }
            numbers = Numbers::Known(known);
        }
        let mut moving = Vec::with_capacity(moves.len());
        for Move { part, plan } in moves {
            let part = &mut self.parts[*part];
            let (rate, outcome) = part.step(plan, &mut self.optimizers[part.number], scale)?;
            moving.push(Moving { part: part.number, rate, outcome });
        }
        Ok(Coming::later(numbers, moving))
    }

    /// The first of `moves` whose gradients are not finite.
    fn would_not_move(&mut self, moves: &[Move<'_>], scale: f64) -> Result<Option<Bad>> {
        for Move { part, plan } in moves {
            let part = &mut self.parts[*part];
            part.tell(plan, &self.optimizers[part.number], scale)?;
            if !part.would_move()? {
                return Ok(Some(Bad { part: Some(part.number), value: f64::INFINITY }));
            }
        }
        Ok(None)
    }

    /// Whether what the next descent does may be read late: nobody here asks for it, and there is nothing to record.
    fn reads_late(&self, moves: &[Move<'_>], batches: &[Batch]) -> bool {
        let tried = |batch: &Batch| self.ways.get(&batch.way).is_some_and(|way| way.tried);
        let recorded = |m: &Move<'_>| self.parts[m.part].is_recorded();
        let asks = self.joint.joins() || self.scale.is_some();
        !asks && batches.iter().all(tried) && moves.iter().all(recorded)
    }

    /// Records the ways of `batches` and the updates of `moves`, where that has not been tried.
    fn record(
        &mut self,
        batches: &[Batch],
        moves: &[Move<'_>],
        learn: &mut Learn<'_>,
    ) -> Result<()> {
        for Move { part, .. } in moves {
            self.parts[*part].record()?;
        }
        for batch in batches {
            let Some(mut known) = self.ways.remove(&batch.way) else { continue };
            let result = match std::mem::replace(&mut known.tried, true) {
                false => self.record_way(&mut known, learn),
                true => Ok(()),
            };
            self.ways.insert(batch.way, known);
            result?;
        }
        Ok(())
    }

    /// Records `way`, in the memory of the others.
    fn record_way(&mut self, way: &mut Way, learn: &mut Learn<'_>) -> Result<()> {
        self.parts.iter_mut().for_each(GpuPart::forget_gradients);
        let buckets = self.joint.while_found();
        let other = self.ways.values().find_map(|way| way.recorded.as_ref()).map(|r| &r.graph);
        match self.on.capture_beside(other, || self.learn(&way.inputs, buckets, learn)) {
            Ok((graph, learned)) => {
                way.recorded = Some(Recorded { graph, learned, sums: [None, None] });
            }
            // A recording keeps its memory to itself: where it does not fit, steps run as they are written.
            Err(Error::Memory(_)) => self.parts.iter().try_for_each(GpuPart::reset_statistics)?,
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Where `error` says that the device is full: adds the largest batch that fits, found by trying.
    fn fits(&mut self, inputs: &Batch, error: Error, learn: &mut Learn<'_>) -> Error {
        let Error::Memory(report) = &error else { return error };
        self.ways.clear();
        self.parts.iter_mut().for_each(GpuPart::forget_gradients);
        let batch = inputs.images;
        let mut smaller = batch / 2;
        while smaller > 0 && self.try_batch(inputs, smaller, learn).is_err() {
            smaller /= 2;
        }
        let _ = self.parts.iter().try_for_each(GpuPart::reset_statistics);
        let what = format!("a batch of {batch} does not fit the GPU");
        let help = match smaller {
            0 => "not even one image fits: smaller images, or a smaller model".to_owned(),
            _ => (self.fewer)(smaller, batch.div_ceil(smaller) as u64 * self.optim.accumulate),
        };
        Error::Memory(Report::new(what, &report.cause).help(help))
    }

    /// Whether the first `images` images alone can be learned from.
    fn try_batch(&self, inputs: &Batch, images: usize, learn: &mut Learn<'_>) -> Result<()> {
        let device = Device::Cuda(self.on.clone());
        let mut fewer = inputs.map(|tensor| match tensor.shape() {
            [n, rest @ ..] if *n == inputs.images && inputs.images > 1 => {
                Tensor::zeros_on(&device, DType::F32, &[&[images], rest].concat())
            }
            _ => tensor.try_clone(),
        })?;
        fewer.images = images;
        self.learn(&fewer, None, learn).map(drop)
    }
}

impl Stepper for OnGpu {
    fn place(&self) -> (Device, DType) {
        (Device::Cuda(self.on.clone()), self.dtype)
    }

    fn begin(&mut self, next: Option<&Batch>) -> Result<()> {
        if let Some((staged, next)) = self.staged.as_mut().zip(next) {
            staged.expect(next.clone());
        }
        self.measured.release()
    }

    fn descend(
        &mut self,
        moves: &[Move<'_>],
        batches: &[Batch],
        learn: &mut Learn<'_>,
    ) -> Result<Coming> {
        let late = self.reads_late(moves, batches);
        let before: Vec<u64> = moves.iter().map(|m| self.optimizers[m.part].step).collect();
        let done = loop {
            self.factor.write(&[f32::from_f64(self.loss_scale())])?;
            let numbers = self.learn_all(batches, learn)?;
            let coming = self.update(moves, batches.len(), numbers)?;
            if late {
                return Ok(coming);
            }
            let done = coming.wait()?;
            // Steps were counted as they were issued.
            let moved = done.moved.iter().filter(|report| report.norm.is_finite()).count();
            let stays = moves.iter().zip(&before).skip(moved);
            stays.for_each(|(m, &step)| self.optimizers[m.part].step = step);
            let Some(scale) = &mut self.scale else { break done };
            // Where f16 overflowed, the step is repeated with a smaller scale.
            scale.update(done.bad.is_some());
            if done.bad.is_none() || scale.value < 1.0 {
                break done;
            }
            self.measured.release()?;
        };
        if done.bad.is_none() {
            self.record(batches, moves, learn)?;
        }
        Ok(Coming::known(done))
    }

    fn averaged(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let kept: Vec<_> = self.parameters.iter().flatten().map(Parameter::value).collect();
        self.parts.iter().for_each(GpuPart::take_averages);
        let result = body();
        let all = self.parameters.iter().flatten().zip(kept);
        all.for_each(|(parameter, value)| parameter.set(value));
        result
    }

    fn at_rest(&mut self, body: &mut dyn FnMut(&[Optimizer]) -> Result<()>) -> Result<()> {
        for (part, optimizer) in self.parts.iter().zip(&mut self.optimizers) {
            part.download(optimizer)?;
            optimizer.scale = self.scale;
        }
        let kept: Vec<_> = self.parts.iter().map(GpuPart::held).collect();
        let copied = self.parts.iter().try_for_each(GpuPart::rest);
        let result = copied.and_then(|()| body(&self.optimizers));
        self.parts.iter().zip(kept).for_each(|(part, held)| part.hold(held));
        result
    }

    fn go_on_from(&mut self, optimizers: Vec<Optimizer>) -> Result<()> {
        self.ways.clear();
        for (part, optimizer) in self.parts.iter_mut().zip(&optimizers) {
            part.load((&self.on, self.dtype), optimizer, &self.optim)?;
        }
        self.optimizers = optimizers;
        Ok(())
    }

    fn count(&mut self, step: u64) {
        for (optimizer, part) in self.optimizers.iter_mut().zip(&self.parts) {
            optimizer.step = step * part.pace;
        }
    }

    fn warnings(&self) -> Vec<String> {
        self.on.take_warnings()
    }

    fn engines(&self) -> Option<String> {
        self.on.choices()
    }
}
