//! Records ops while a model runs forward, and replays them backward.
//!
//! Ops overwrite, the tape adds: `Grads::add` is the only place where gradients accumulate, so a
//! value or parameter used twice receives the sum, and no op or kernel has an accumulate mode.
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use super::parameter::Parameter;
use super::tensor::Tensor;
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

/// A value on a tape: what flows through a model's `forward`. Dropping the last clone on an
/// inference tape frees the memory.
#[derive(Clone, Debug)]
pub struct Var {
    id: usize,
    value: Arc<Tensor>,
    wants_grad: bool,
}

impl Var {
    /// The tensor.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The sizes of the axes.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The tensor itself, copied only if something else still holds it.
    ///
    /// # Errors
    /// If it must be copied and the memory of a GPU is full.
    pub fn into_tensor(self) -> Result<Tensor> {
        Arc::try_unwrap(self.value).or_else(|shared| shared.try_clone())
    }
}

/// The record of one forward pass. [`Tape::inference`] records nothing.
#[derive(Debug)]
pub struct Tape {
    recording: bool,
    frozen: bool,
    nodes: Vec<Node>,
    parameters: HashMap<u64, Var>,
    next_id: usize,
}

#[derive(Debug)]
struct Node {
    op: Box<dyn Op>,
    inputs: Vec<Var>,
    saved: Saved,
    output: Var,
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

    fn new(recording: bool) -> Self {
        Self { recording, frozen: false, nodes: Vec::new(), parameters: HashMap::new(), next_id: 0 }
    }

    /// Whether ops are recorded.
    pub const fn is_training(&self) -> bool {
        self.recording
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
    pub fn apply(&mut self, op: impl Op, inputs: &[&Var]) -> Result<Var> {
        self.apply_boxed(Box::new(op), inputs)
    }

    /// As [`apply`](Self::apply), for an op chosen at run time.
    pub fn apply_boxed(&mut self, op: Box<dyn Op>, inputs: &[&Var]) -> Result<Var> {
        let values: Vec<&Tensor> = inputs.iter().map(|v| v.value()).collect();
        let (y, saved) = op.forward(&values)?;
        let wants_grad = self.recording && inputs.iter().any(|v| v.wants_grad);
        let y = self.var(Arc::new(y), wants_grad);
        if wants_grad {
            let inputs = inputs.iter().map(|&v| v.clone()).collect();
            self.nodes.push(Node { op, inputs, saved, output: y.clone() });
        }
        Ok(y)
    }

    /// Gradients of `sum(y * dy)` by every wanted value. Activations are freed as the replay passes.
    pub fn backward(self, y: &Var, dy: Tensor) -> Result<Grads> {
        if dy.shape() != y.shape() {
            return Err(Error::shape("backward", format!("dy of {:?}", y.shape()), dy.shape()));
        }
        let mut grads = Grads {
            by_id: (0..self.next_id).map(|_| None).collect(),
            parameters: self.parameters.iter().map(|(&p, v)| (p, v.id)).collect(),
        };
        grads.by_id[y.id] = Some(dy);
        for node in self.nodes.into_iter().rev() {
            let Some(dy) = grads.by_id[node.output.id].take() else { continue };
            let inputs: Vec<&Tensor> = node.inputs.iter().map(Var::value).collect();
            let wants: Vec<bool> = node.inputs.iter().map(|v| v.wants_grad).collect();
            let call = Call {
                inputs: &inputs,
                output: node.output.value(),
                saved: &node.saved,
                wants: &wants,
            };
            let dxs = node.op.backward(&call, &dy)?;
            for ((input, &wanted), dx) in node.inputs.iter().zip(&wants).zip(dxs) {
                if let (true, Some(dx)) = (wanted, dx) {
                    grads.add(input.id, dx)?;
                }
            }
        }
        Ok(grads)
    }

    fn var(&mut self, value: Arc<Tensor>, wants_grad: bool) -> Var {
        let id = self.next_id;
        self.next_id += 1;
        Var { id, value, wants_grad }
    }
}

/// What a backward pass found.
#[derive(Debug)]
pub struct Grads {
    by_id: Vec<Option<Tensor>>,
    parameters: HashMap<u64, usize>,
}

impl Grads {
    /// The gradient of a [`variable`](Tape::variable); none if the result does not depend on it.
    pub fn of(&self, v: &Var) -> Option<&Tensor> {
        self.by_id[v.id].as_ref()
    }

    /// The gradient of a parameter; none if it was frozen or the result does not depend on it.
    pub fn of_parameter(&self, p: &Parameter) -> Option<&Tensor> {
        self.by_id[*self.parameters.get(&p.id())?].as_ref()
    }

    /// Takes the gradient of a parameter out, to scale or accumulate it.
    pub fn take_parameter(&mut self, p: &Parameter) -> Option<Tensor> {
        self.by_id[*self.parameters.get(&p.id())?].take()
    }

    fn add(&mut self, id: usize, dx: Tensor) -> Result<()> {
        match &mut self.by_id[id] {
            Some(sum) => sum.add_assign(&dx)?,
            empty => *empty = Some(dx),
        }
        Ok(())
    }
}
