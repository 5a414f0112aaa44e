//! Records ops while a model runs forward, and replays them backward.
//!
//! Ops overwrite, the tape adds: [`Grads`] is the only place where gradients accumulate, so a
//! value or parameter used twice receives the sum, and no op or kernel has an accumulate mode.
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cuda::{Grid, kernels};
pub use super::grads::Grads;
use super::grads::Share;
use super::parameter::Parameter;
use super::tensor::Tensor;
pub use super::var::Var;
use crate::error::{Error, Result};

/// A differentiable operation. One implementor per file in `src/ops/`; parameters are fields.
pub trait Op: Debug + Send + 'static {
    /// The stem of `src/ops/{name}.rs`, and the label in traces and benches.
    fn name(&self) -> &'static str;

    /// Computes the output, and what [`backward`](Op::backward) needs besides inputs and output.
    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)>;

    /// Given `dy`, computes the gradient of every input for which `call.wants` is true.
    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let _ = (call, dy);
        Err(Error::NotDifferentiable { op: self.name() })
    }

    /// The number that `dy` times is the gradient of an input: [`backward`](Op::backward) leaves it out then, and the tape
    /// hands `dy` on.
    fn hands_on(&self, input: usize) -> Option<f64> {
        let _ = input;
        None
    }

    /// What [`backward`](Op::backward) computes, as ops on `tape`: a gradient that has a gradient. Given for
    /// the inputs that `call.wants`.
    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        let _ = (tape, call, dy);
        Err(Error::NotTwiceDifferentiable { op: self.name() })
    }

    /// Floating point operations of one forward, a multiply-add counted as two; 0 if bound by memory.
    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let _ = inputs;
        0
    }
}

/// Tensors that a forward pass keeps for its backward pass.
pub type Saved = Vec<Tensor>;

/// What an op sees of its forward call when the tape is replayed.
pub struct Call<'a> {
    /// The inputs of the forward call.
    pub inputs: &'a [&'a Tensor],
    /// What the forward call returned.
    pub output: &'a Tensor,
    /// What the forward call kept.
    pub saved: &'a Saved,
    /// Which inputs need a gradient.
    pub wants: &'a [bool],
}

/// What an op sees of its forward call when its gradient is recorded.
pub struct Recorded<'a> {
    /// The inputs of the forward call.
    pub inputs: &'a [Var],
    /// What the forward call returned.
    pub output: &'a Var,
    /// Which inputs need a gradient.
    pub wants: &'a [bool],
}

impl Call<'_> {
    /// Memory for the gradient of every input that wants one, to be written.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn empty_gradients(&self) -> Result<Vec<Option<Tensor>>> {
        let empty = |x: &Tensor| Tensor::empty_as(x, x.shape());
        let inputs = self.inputs.iter().zip(self.wants);
        inputs.map(|(x, wanted)| wanted.then(|| empty(x)).transpose()).collect()
    }
}

/// The record of one forward pass. [`Tape::inference`] records nothing.
#[derive(Debug)]
pub struct Tape {
    /// Its number: no other tape of the process has it.
    number: u64,
    recording: bool,
    frozen: bool,
    recomputing: bool,
    /// Whether this is a part of a recomputing tape, which runs again with the ops of training.
    part: bool,
    batch_statistics: bool,
    nodes: Vec<Node>,
    parameters: HashMap<u64, Var>,
    /// The parameters that a part which is not recorded has asked for.
    used: Vec<Parameter>,
    next_id: usize,
}

#[derive(Debug)]
struct Node {
    work: Work,
    inputs: Vec<Var>,
    output: Var,
}

/// What made the output of a node.
enum Work {
    Op {
        op: Box<dyn Op>,
        saved: Saved,
    },
    /// A part of the network that runs again on the way back.
    Part {
        body: Box<Part>,
        frozen: bool,
        /// The parameters that it trains.
        used: Vec<usize>,
    },
}

type Part = dyn Fn(&mut Tape, &[Var]) -> Result<Var> + Send;

impl Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Op { op, .. } => op.name(),
            Self::Part { .. } => "part",
        })
    }
}

impl Tape {
    /// A tape that can be replayed with [`backward`](Self::backward).
    pub fn training() -> Self {
        Self::new(true)
    }

    /// A tape that keeps nothing: every value is freed with its last [`Var`].
    pub fn inference() -> Self {
        Self::new(false)
    }

    /// Whether this tape keeps nothing.
    pub fn is_inference(&self) -> bool {
        !self.recording
    }

    /// A training tape that keeps only the inputs of each [`part`](Self::part) and runs it again on
    /// the way back (Chen et al. 2016): less memory, a third more work.
    pub fn recomputing() -> Self {
        Self { recomputing: true, ..Self::new(true) }
    }

    /// The same tape for gradients of the network as it is used: norms over the batch take their
    /// running statistics and leave them alone.
    pub fn with_running_statistics(self) -> Self {
        Self { batch_statistics: false, ..self }
    }

    fn new(recording: bool) -> Self {
        static MADE: AtomicU64 = AtomicU64::new(0);
        Self {
            number: MADE.fetch_add(1, Ordering::Relaxed),
            recording,
            frozen: false,
            recomputing: false,
            part: false,
            batch_statistics: recording,
            nodes: Vec::new(),
            parameters: HashMap::new(),
            used: Vec::new(),
            next_id: 0,
        }
    }

    /// Whether ops are recorded.
    pub const fn is_training(&self) -> bool {
        self.recording
    }

    /// Whether nobody will ask for gradients, so that ops may be joined that have none.
    pub const fn is_free(&self) -> bool {
        !self.recording && !self.part
    }

    /// Whether norms over the batch normalise by its own statistics and move the running ones: so do
    /// training tapes, unless they are [`with_running_statistics`](Self::with_running_statistics).
    pub const fn uses_batch_statistics(&self) -> bool {
        self.batch_statistics
    }

    /// A value whose gradient is wanted.
    pub fn variable(&mut self, value: impl Into<Arc<Tensor>>) -> Var {
        let wants = self.recording;
        self.var(value.into(), wants)
    }

    /// A value whose gradient is not wanted.
    pub fn input(&mut self, value: impl Into<Arc<Tensor>>) -> Var {
        self.var(value.into(), false)
    }

    /// The value of `parameter`: one [`Var`] however often it is used, so that its gradients add up.
    pub fn parameter(&mut self, parameter: &Parameter) -> Var {
        if self.frozen || !self.recording {
            if !self.frozen {
                self.used.push(parameter.clone());
            }
            return self.input(parameter.value());
        }
        if let Some(var) = self.parameters.get(&parameter.id()) {
            return var.clone();
        }
        let var = self.var(parameter.value(), true);
        self.parameters.insert(parameter.id(), var.clone());
        var
    }

    /// The same value, cut off from what produced it: no gradient flows back through it.
    pub fn detach(&mut self, x: &Var) -> Var {
        self.var(Arc::clone(&x.value), false)
    }

    /// Runs `body` with every parameter a constant: gradients pass through, none stay.
    pub fn frozen<R>(&mut self, body: impl FnOnce(&mut Self) -> R) -> R {
        let before = std::mem::replace(&mut self.frozen, true);
        let result = body(self);
        self.frozen = before;
        result
    }

    /// Runs `op` forward and, on a training tape, remembers it.
    ///
    /// # Errors
    /// Those of the op; on a training tape also if an input is a value of another tape, whose numbers mean other values
    /// here. [`detach`](Self::detach) takes such values over.
    pub fn apply(&mut self, op: impl Op, inputs: &[&Var]) -> Result<Var> {
        self.apply_boxed(Box::new(op), inputs)
    }

    /// As [`apply`](Self::apply), for an op chosen at run time.
    pub fn apply_boxed(&mut self, op: Box<dyn Op>, inputs: &[&Var]) -> Result<Var> {
        if self.recording {
            inputs.iter().try_for_each(|input| self.check_own(op.name(), input))?;
        }
        let (y, saved) = run(&*op, inputs)?;
        let wants_grad = self.recording && inputs.iter().any(|v| v.wants_grad);
        let y = self.var(Arc::new(y), wants_grad);
        if wants_grad {
            let inputs = inputs.iter().map(|&v| v.clone()).collect();
            self.nodes.push(Node { work: Work::Op { op, saved }, inputs, output: y.clone() });
        }
        Ok(y)
    }

    /// Runs an `op` without a gradient: its output, and the first of what it keeps beside it, as values that others
    /// may use.
    pub fn apply_free(&mut self, op: &impl Op, inputs: &[&Var]) -> Result<(Var, Option<Var>)> {
        let (y, saved) = run(op, inputs)?;
        let kept = saved.into_iter().next().map(|kept| self.input(kept));
        Ok((self.input(y), kept))
    }

    /// Runs `body` on `inputs`: a part of a network that a [recomputing](Self::recomputing) tape may
    /// run again. On any other tape this is `body` itself. Parts hold no norm over the batch: its
    /// running statistics would move twice.
    pub fn part(
        &mut self,
        inputs: &[&Var],
        body: impl Fn(&mut Self, &[Var]) -> Result<Var> + Send + 'static,
    ) -> Result<Var> {
        let inputs: Vec<Var> = inputs.iter().map(|&v| v.clone()).collect();
        if !self.recomputing {
            return body(self, &inputs);
        }
        inputs.iter().try_for_each(|input| self.check_own("part", input))?;
        let mut inner = Self { frozen: self.frozen, part: true, ..Self::inference() };
        let seen: Vec<Var> = inputs.iter().map(|v| inner.input(Arc::clone(&v.value))).collect();
        let y = body(&mut inner, &seen)?.value;
        // Registered here, so that their gradients have a place.
        let used = std::mem::take(&mut inner.used);
        let used: Vec<usize> = used.iter().map(|parameter| self.parameter(parameter).id).collect();
        let wants_grad = !used.is_empty() || inputs.iter().any(|v| v.wants_grad);
        let y = self.var(y, wants_grad);
        if wants_grad {
            let work = Work::Part { body: Box::new(body), frozen: self.frozen, used };
            self.nodes.push(Node { work, inputs, output: y.clone() });
        }
        Ok(y)
    }

    /// The gradient of `sum(y)` by `x`, recorded: what is made of it has gradients by all that `y` depends on,
    /// such as the parameters of a critic whose slope is penalised. Zero if `y` does not depend on `x`.
    ///
    /// # Errors
    /// If an op between `x` and `y` is [not twice differentiable](Error::NotTwiceDifferentiable), or `x` is no
    /// value whose gradient is wanted, or one of them is a value of another tape.
    pub fn gradient(&mut self, y: &Var, x: &Var) -> Result<Var> {
        self.check_own("gradient", y)?;
        self.check_own("gradient", x)?;
        if !x.wants_grad {
            let what = "a value that is no variable of a training tape".to_owned();
            return Err(Error::Unsupported { op: "gradient", what });
        }
        // The walk appends to the nodes what it makes of them.
        let nodes = std::mem::take(&mut self.nodes);
        let found = self.walk_back(&nodes, y, x);
        let made = std::mem::replace(&mut self.nodes, nodes);
        self.nodes.extend(made);
        match found? {
            Some(dx) => Ok(dx),
            None => Ok(self.input(Tensor::zeros_as(x.value(), x.shape())?)),
        }
    }

    fn walk_back(&mut self, nodes: &[Node], y: &Var, x: &Var) -> Result<Option<Var>> {
        let mut depends = vec![false; self.next_id];
        depends[x.id] = true;
        for node in nodes {
            depends[node.output.id] |= node.inputs.iter().any(|v| depends[v.id]);
        }
        let one = self.input(ones_as(y.value())?);
        let mut grads = HashMap::from([(y.id, one)]);
        for node in nodes.iter().rev() {
            let wants: Vec<bool> = node.inputs.iter().map(|v| depends[v.id]).collect();
            if !wants.contains(&true) {
                continue;
            }
            let Some(dy) = grads.remove(&node.output.id) else { continue };
            let Work::Op { op, .. } = &node.work else {
                return Err(Error::NotTwiceDifferentiable { op: "part" });
            };
            let call = Recorded { inputs: &node.inputs, output: &node.output, wants: &wants };
            let dxs = op.gradient(self, &call, &dy)?;
            for ((input, wanted), dx) in node.inputs.iter().zip(wants).zip(dxs) {
                if let (true, Some(dx)) = (wanted, dx) {
                    let sum = match grads.remove(&input.id) {
                        Some(before) => self.add(&before, &dx)?,
                        None => dx,
                    };
                    grads.insert(input.id, sum);
                }
            }
        }
        Ok(grads.remove(&x.id))
    }

    /// Gradients of `sum(y * dy)` by every wanted value. Activations are freed as the replay passes.
    ///
    /// # Errors
    /// If this is an inference tape, which recorded nothing, or `y` is a value of another tape.
    pub fn backward(self, y: &Var, dy: Tensor) -> Result<Grads> {
        self.backward_telling(y, dy, &mut |_, _| Ok(()))
    }

    /// The same; `tell` is given the gradient of a parameter, by its [number](Parameter::id), as soon as nothing more
    /// will be added to it: in an order that follows from what was recorded alone.
    ///
    /// # Errors
    /// Those of `tell` as well.
    pub fn backward_telling(
        self,
        y: &Var,
        dy: Tensor,
        tell: &mut dyn FnMut(u64, &Tensor) -> Result<()>,
    ) -> Result<Grads> {
        self.backward_from(y, Arc::new(dy), tell)
    }

    fn backward_from(
        self,
        y: &Var,
        dy: Arc<Tensor>,
        tell: &mut dyn FnMut(u64, &Tensor) -> Result<()>,
    ) -> Result<Grads> {
        if !self.recording {
            let what = "a tape that records nothing".to_owned();
            return Err(Error::Unsupported { op: "backward", what });
        }
        self.check_own("backward", y)?;
        if dy.shape() != y.shape() {
            return Err(Error::shape("backward", format!("dy of {:?}", y.shape()), dy.shape()));
        }
        let parameters = self.parameters.iter().map(|(&p, v)| (p, v.id)).collect();
        let mut grads = Grads::new(self.number, self.next_id, parameters);
        grads.add(y.id, Share::whole(dy))?;
        let mut complete = self.completing();
        for node in self.nodes.into_iter().rev() {
            let told = complete.pop().unwrap_or_default();
            if let Some(dy) = grads.take(node.output.id)? {
                match &node.work {
                    Work::Op { op, saved } => node.through_op(&**op, saved, dy, &mut grads)?,
                    Work::Part { body, frozen, .. } => {
                        // Not kept while it runs again: nothing needs it.
                        let inputs = node.inputs;
                        drop(node.output);
                        through_part(&**body, *frozen, &inputs, dy, &mut grads)?;
                    }
                }
            }
            for (parameter, id) in told {
                if let Some(gradient) = grads.complete(id)? {
                    tell(parameter, gradient)?;
                }
            }
        }
        grads.complete_all()?;
        Ok(grads)
    }

    /// For each node the parameters, and the values that they are, which none before it uses: their gradients are
    /// complete once it was passed on the way back.
    fn completing(&self) -> Vec<Vec<(u64, usize)>> {
        let mut left: HashMap<usize, u64> =
            self.parameters.iter().map(|(&parameter, var)| (var.id, parameter)).collect();
        let mut first = |id: usize| left.remove(&id).map(|parameter| (parameter, id));
        let of_node = |node: &Node| match &node.work {
            Work::Op { .. } => node.inputs.iter().filter_map(|v| first(v.id)).collect(),
            Work::Part { used, .. } => {
                let inputs = node.inputs.iter().map(|v| v.id);
                inputs.chain(used.iter().copied()).filter_map(&mut first).collect()
            }
        };
        self.nodes.iter().map(of_node).collect()
    }

    fn var(&mut self, value: Arc<Tensor>, wants_grad: bool) -> Var {
        let id = self.next_id;
        self.next_id += 1;
        Var { id, tape: self.number, value, wants_grad }
    }

    /// Refuses a value of another tape: its number is that of another value here, which would get its gradient.
    fn check_own(&self, op: &'static str, v: &Var) -> Result<()> {
        match v.tape == self.number {
            true => Ok(()),
            false => Err(Error::Argument { op, what: "a value of another tape".to_owned() }),
        }
    }
}

fn run(op: &dyn Op, inputs: &[&Var]) -> Result<(Tensor, Saved)> {
    op.forward(&inputs.iter().map(|v| v.value()).collect::<Vec<_>>())
}

/// Ones in the shape of `x`. On a GPU this only launches.
fn ones_as(x: &Tensor) -> Result<Tensor> {
    let Some(gpu) = x.gpu() else {
        return Ok(Tensor::from_f64(&vec![1.0; x.len()], x.shape(), x.dtype()));
    };
    let (n, zeros) = (x.len(), Tensor::zeros_as(x, x.shape())?);
    let mut ones = Tensor::empty_as(x, x.shape())?;
    let grid = Grid::packs(n, x.dtype());
    kernels::affine {
        x: &zeros,
        y: &mut ones,
        n,
        channels: 1,
        f0: 0.0,
        s0: 1.0,
        f1: 0.0,
        s1: 0.0,
        f2: 0.0,
        s2: 0.0,
        f3: 0.0,
        s3: 0.0,
    }
    .launch(gpu, grid)?;
    Ok(ones)
}

impl Node {
    /// Adds what an op passes on of `dy`.
    fn through_op(
        &self,
        op: &dyn Op,
        saved: &Saved,
        dy: Arc<Tensor>,
        grads: &mut Grads,
    ) -> Result<()> {
        let inputs: Vec<&Tensor> = self.inputs.iter().map(Var::value).collect();
        let wants: Vec<bool> = self.inputs.iter().map(|v| v.wants_grad).collect();
        let call = Call { inputs: &inputs, output: self.output.value(), saved, wants: &wants };
        let dxs = op.backward(&call, &dy)?;
        for (i, ((input, &wanted), dx)) in self.inputs.iter().zip(&wants).zip(dxs).enumerate() {
            let handed = op.hands_on(i).map(|times| Share::of(Arc::clone(&dy), times));
            let dx = handed.or_else(|| dx.map(|dx| Share::whole(Arc::new(dx))));
            if let (true, Some(dx)) = (wanted, dx) {
                grads.add(input.id, dx)?;
            }
        }
        Ok(())
    }
}

/// Runs a part again and adds what it passes on of `dy`.
fn through_part(
    body: &Part,
    frozen: bool,
    inputs: &[Var],
    dy: Arc<Tensor>,
    grads: &mut Grads,
) -> Result<()> {
    let mut inner = Tape { frozen, ..Tape::training() };
    let again: Vec<Var> =
        inputs.iter().map(|v| inner.var(Arc::clone(&v.value), v.wants_grad)).collect();
    let y = body(&mut inner, &again)?;
    let mut found = inner.backward_from(&y, dy, &mut |_, _| Ok(()))?;
    for (input, again) in inputs.iter().zip(&again).filter(|(v, _)| v.wants_grad) {
        if let Some(dx) = found.take(again.id)? {
            grads.add(input.id, Share::whole(dx))?;
        }
    }
    grads.add_parameters(found)
}
