//! What trains, as those who train see it.
use super::buckets::Buckets;
use super::coming::Coming;
use crate::engine::device::{DType, Device, Real};
use crate::engine::parameter::Parameter;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::training::batch::Batch;
use crate::training::optimizer::{self, Gradients, Optimizer, Plan};
use crate::training::ranks::{Form, Ranks, Said, Shares, Sum};

/// Moves networks, called parts, down gradients. The parts lie where it trains, and compute there in its type.
pub trait Stepper {
    /// Where the parts lie, and what they compute in.
    fn place(&self) -> (Device, DType);

    /// Begins a step, before its descents. The one after it begins with `next`, if that is known: it may be copied ahead.
    ///
    /// # Errors
    /// If a GPU failed.
    fn begin(&mut self, next: Option<&Batch>) -> Result<()>;

    /// Takes the gradients that `learn` finds for each of `batches`, averages them, and moves the parts of `moves` by
    /// them, each once. A part moves only if the loss and the norm of its gradients are finite, and so were those
    /// before it in this step.
    ///
    /// # Errors
    /// Those of `learn`; if memory is full, with what would fit.
    fn descend(
        &mut self,
        moves: &[Move<'_>],
        batches: &[Batch],
        learn: &mut Learn<'_>,
    ) -> Result<Coming>;

    /// Runs `body` while all parts hold the moving averages of their parameters, in single precision.
    ///
    /// # Errors
    /// Those of `body`.
    fn averaged(&self, body: &mut dyn FnMut() -> Result<()>) -> Result<()>;

    /// Runs `body` while all parts lie on the CPU, as checkpoints hold them; it is given their optimizers.
    ///
    /// # Errors
    /// Those of `body`, or if a copy fails.
    fn at_rest(&mut self, body: &mut dyn FnMut(&[Optimizer]) -> Result<()>) -> Result<()>;

    /// Goes on with the weights that the parts, now on the CPU, hold, and with these optimizers.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    fn go_on_from(&mut self, optimizers: Vec<Optimizer>) -> Result<()>;

    /// Counts the steps of every part as those of a run after `step` steps.
    fn count(&mut self, step: u64);

    /// What libraries had to say, such as results that were wrong.
    fn warnings(&self) -> Vec<String>;

    /// Which engines were chosen for convolutions, for a later process that goes on here.
    fn engines(&self) -> Option<String>;
}

/// What one batch says of the parts: only launches, so that it can be recorded.
pub type Learn<'a> = dyn FnMut(&Pass<'_>, &Batch) -> Result<Learned> + 'a;

/// A part that moves.
#[derive(Clone, Copy, Debug)]
pub struct Move<'a> {
    /// Its number among the parts of the task.
    pub part: usize,
    /// How it moves.
    pub plan: Plan<'a>,
}

/// How what this process finds becomes what all find.
#[derive(Clone, Debug)]
pub struct Joint {
    pub(super) ranks: Ranks,
    pub(super) shares: Shares,
    /// What adds up gradients where they lie; none if that is done in the memory of the host.
    pub(super) buckets: Option<Buckets>,
}

impl Joint {
    /// Of the process of `ranks` that takes `shares`, with GPUs that `buckets` join.
    pub(in crate::training) const fn new(
        ranks: Ranks,
        shares: Shares,
        buckets: Option<Buckets>,
    ) -> Self {
        Self { ranks, shares, buckets }
    }

    /// What adds up gradients while they are found: where this process finds them at once.
    pub(super) fn while_found(&self) -> Option<&Buckets> {
        self.buckets.as_ref().filter(|_| self.shares.here() == 1)
    }

    /// Waits until the GPU is done, where it may wait for others, as long as these are there.
    ///
    /// # Errors
    /// That of the rank that is gone, or hangs.
    pub(super) fn settle(&self) -> Result<()> {
        let Some(buckets) = &self.buckets else { return Ok(()) };
        match buckets.by().settle(&mut self.ranks.patience())? {
            true => Ok(()),
            false => Err(self.ranks.why_broken()),
        }
    }

    /// Whether gradients found here are not yet those of the step.
    pub(super) const fn joins(&self) -> bool {
        self.shares.are_joined()
    }

    /// An empty sum of the gradients of `parameters` and of what `buffers` become.
    pub(super) fn sum(&self, parameters: &[Vec<Parameter>], buffers: &[Parameter]) -> Sum {
        let shape = |p: &Parameter| p.value().shape().to_vec();
        let gradients = parameters.iter().map(|part| part.iter().map(shape).collect()).collect();
        let form = Form { gradients, statistics: buffers.iter().map(shape).collect() };
        Sum::new(self.shares.fixed, self.shares.units(), form)
    }

    /// The sum over the units of all ranks, and their means of numbers and statistics.
    ///
    /// # Errors
    /// If a rank is gone.
    pub(super) fn join(&self, sum: Sum) -> Result<Said> {
        let mut said = sum.over(&self.ranks)?;
        let units = self.shares.units() as f64;
        said.numbers.iter_mut().for_each(|number| *number /= units);
        for statistic in &mut said.statistics {
            let values = statistic.cpu_mut::<f32>()?.iter_mut();
            values.for_each(|v| *v = f32::from_f64(f64::from(*v) / units));
        }
        Ok(said)
    }

    /// Batches whose gradients are averaged, of which there are `here`.
    pub(super) fn averaged_over(&self, here: usize) -> f64 {
        if self.joins() { self.shares.units() as f64 } else { here as f64 }
    }
}

/// What is known where a batch is learned from.
pub struct Pass<'a> {
    pub(super) parts: &'a [Vec<Parameter>],
    /// What the gradient of a loss is multiplied by, `[1]`.
    pub(super) scale: &'a Tensor,
    pub(super) dtype: DType,
    /// What adds up gradients over several GPUs while they are found.
    pub(super) buckets: Option<&'a Buckets>,
}

impl Pass<'_> {
    /// The gradients of `loss` `[1]` by the parameters of `part`.
    ///
    /// # Errors
    /// If memory is full.
    pub fn gradients(&self, tape: Tape, loss: &Var, part: usize) -> Result<(usize, Gradients)> {
        let seed = self.scale.try_clone()?;
        let mut grads = match self.buckets {
            None => tape.backward(loss, seed)?,
            Some(buckets) => {
                let mut filling = buckets.fill(&self.parts[part]);
                let tell = &mut |parameter, gradient: &Tensor| filling.add(parameter, gradient);
                let grads = tape.backward_telling(loss, seed, tell)?;
                filling.end()?;
                grads
            }
        };
        Ok((part, optimizer::take(&mut grads, &self.parts[part])?))
    }

    /// `x` in the type that networks compute in.
    ///
    /// # Errors
    /// If memory is full.
    pub fn narrow(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        cast(tape, x, self.dtype)
    }

    /// `x` in single precision, in which losses are computed: their terms are far smaller than their sum.
    ///
    /// # Errors
    /// If memory is full.
    pub fn wide(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        cast(tape, x, DType::F32)
    }
}

fn cast(tape: &mut Tape, x: &Var, to: DType) -> Result<Var> {
    if x.value().dtype() == to { Ok(x.clone()) } else { tape.cast(x, to) }
}

/// Runs `body` as a stepper on the CPU would, on `parts`.
#[cfg(test)]
pub(in crate::training) fn pass_of<R>(
    parts: &[Vec<Parameter>],
    body: impl FnOnce(&Pass<'_>) -> R,
) -> R {
    let one = Tensor::from_vec(vec![1.0f32], &[1]);
    body(&Pass { parts, scale: &one, dtype: DType::F32, buckets: None })
}

/// What a batch says.
#[derive(Debug)]
pub struct Learned {
    /// Numbers to log, `[1]` each, a loss first.
    pub numbers: Vec<Tensor>,
    /// Gradients of the parts that learn of it.
    pub gradients: Vec<(usize, Gradients)>,
}

/// What to do where so many images fit at once, and so many batches of them are what was asked for.
pub type Fewer = fn(images: usize, batches: u64) -> String;
