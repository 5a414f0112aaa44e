//! Gradients that a backward pass finds, and their sums.
use std::collections::HashMap;
use std::sync::Arc;

use super::parameter::Parameter;
use super::tensor::Tensor;
use super::var::Var;
use crate::error::Result;

/// A gradient, or a part of one: a tensor, perhaps somebody else's as well, times a number.
#[derive(Debug)]
pub(super) struct Share {
    of: Arc<Tensor>,
    times: f64,
}

impl Share {
    /// `of` itself.
    pub(super) const fn whole(of: Arc<Tensor>) -> Self {
        Self { of, times: 1.0 }
    }

    /// `times * of`.
    pub(super) const fn of(of: Arc<Tensor>, times: f64) -> Self {
        Self { of, times }
    }

    #[allow(clippy::float_cmp)] // Numbers as ops gave them.
    fn is_whole(&self) -> bool {
        self.times == 1.0
    }

    /// The product.
    fn computed(self) -> Result<Arc<Tensor>> {
        if self.is_whole() { Ok(self.of) } else { Ok(Arc::new(self.of.times(self.times)?)) }
    }

    /// Adds `more`, in place where nobody else has it.
    fn add(&mut self, more: &Self) -> Result<()> {
        if self.is_whole()
            && more.is_whole()
            && let Some(sum) = Arc::get_mut(&mut self.of)
        {
            return sum.add_assign(&more.of);
        }
        *self = Self::whole(Arc::new(self.of.weighted(self.times, &more.of, more.times)?));
        Ok(())
    }
}

/// What a backward pass found.
#[derive(Debug)]
pub struct Grads {
    /// The number of the tape.
    tape: u64,
    by_id: Vec<Option<Share>>,
    parameters: HashMap<u64, usize>,
}

impl Grads {
    /// None yet of `count` values of `tape`; `parameters` are the numbers of some of them.
    pub(super) fn new(tape: u64, count: usize, parameters: HashMap<u64, usize>) -> Self {
        Self { tape, by_id: (0..count).map(|_| None).collect(), parameters }
    }

    /// The gradient of a [`variable`](super::tape::Tape::variable); none if the result does not depend on it.
    ///
    /// # Panics
    /// If `v` is a value of another tape than the one that was replayed.
    pub fn of(&self, v: &Var) -> Option<&Tensor> {
        assert!(v.tape == self.tape, "gradient of a value of another tape");
        self.by_id[v.id].as_ref().map(|share| &*share.of)
    }

    /// The gradient of a parameter; none if it was frozen or the result does not depend on it.
    pub fn of_parameter(&self, p: &Parameter) -> Option<&Tensor> {
        self.by_id[*self.parameters.get(&p.id())?].as_ref().map(|share| &*share.of)
    }

    /// Takes the gradient of a parameter out, to scale or accumulate it.
    ///
    /// # Errors
    /// If it is another value's as well, and must be copied, and the memory of a GPU is full.
    pub fn take_parameter(&mut self, p: &Parameter) -> Result<Option<Tensor>> {
        let Some(&id) = self.parameters.get(&p.id()) else { return Ok(None) };
        let own =
            |shared: Arc<Tensor>| Arc::try_unwrap(shared).or_else(|shared| shared.try_clone());
        self.take(id)?.map(own).transpose()
    }

    /// Takes out what was found of value `id`.
    pub(super) fn take(&mut self, id: usize) -> Result<Option<Arc<Tensor>>> {
        self.by_id[id].take().map(Share::computed).transpose()
    }

    /// Adds `dx` to what was found of value `id`.
    pub(super) fn add(&mut self, id: usize, dx: Share) -> Result<()> {
        match &mut self.by_id[id] {
            Some(sum) => sum.add(&dx),
            place => {
                *place = Some(dx);
                Ok(())
            }
        }
    }

    /// Adds what was found `inside` a part of the parameters that are known here.
    pub(super) fn add_parameters(&mut self, mut inside: Self) -> Result<()> {
        for (parameter, id) in std::mem::take(&mut inside.parameters) {
            let outer = self.parameters.get(&parameter).copied();
            if let Some((outer, dx)) = outer.zip(inside.take(id)?) {
                self.add(outer, Share::whole(dx))?;
            }
        }
        Ok(())
    }

    /// What was found of the parameter that is value `id`, to which nothing is added any more. It is nobody else's:
    /// several ranks add up gradients where they lie.
    pub(super) fn complete(&mut self, id: usize) -> Result<Option<&Tensor>> {
        let Some(share) = self.by_id[id].take() else { return Ok(None) };
        let mut whole = share.computed()?;
        if Arc::get_mut(&mut whole).is_none() {
            whole = Arc::new(whole.try_clone()?);
        }
        let share = self.by_id[id].insert(Share::whole(whole));
        Ok(Some(&share.of))
    }

    /// Computes whatever was found.
    pub(super) fn complete_all(&mut self) -> Result<()> {
        for place in &mut self.by_id {
            if let Some(share) = place.take_if(|share| !share.is_whole()) {
                *place = Some(Share::whole(share.computed()?));
            }
        }
        Ok(())
    }
}
