//! Gradients that are added up over the GPUs of several processes while the way back still runs.
//!
//! On the way back a gradient is complete as soon as the first use of its parameter was passed. Those that are make a
//! bucket, whose sum is begun when it is full, beside what follows; the update waits for the last one. Buckets follow
//! from the network alone, so that all processes make the same ones.
use std::collections::HashSet;
use std::sync::Arc;

use crate::engine::cuda::{Collective, DevicePointer};
use crate::engine::device::DType;
use crate::engine::parameter::Parameter;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::training::optimizer::Gradients;

/// Bytes of a bucket at most, but for the gradient that fills it: more gain nothing on NVLink (PyTorch's choice, Li et
/// al. 2020).
const MOST: usize = 25 << 20;
/// Buckets of a network at least, so that those of a small one overlap, too.
const LEAST: usize = 8;

/// What adds up gradients.
#[derive(Clone, Debug)]
pub(in crate::training) struct Buckets(Arc<dyn Collective>);

/// Buckets on their way.
pub(super) struct Filling<'a> {
    by: &'a dyn Collective,
    /// The parameters that are trained.
    mine: HashSet<u64>,
    /// Bytes of a bucket.
    size: usize,
    waiting: Vec<(DevicePointer, usize, DType)>,
    bytes: usize,
    begun: bool,
}

impl Buckets {
    /// Those that `by` adds up.
    pub(in crate::training) const fn new(by: Arc<dyn Collective>) -> Self {
        Self(by)
    }

    /// What adds them up.
    pub(super) fn by(&self) -> &dyn Collective {
        &*self.0
    }

    /// Empty buckets for the gradients of `parameters`.
    pub(super) fn fill(&self, parameters: &[Parameter]) -> Filling<'_> {
        let bytes = |p: &Parameter| p.value().len() * p.value().dtype().size();
        let all: usize = parameters.iter().map(bytes).sum();
        Filling {
            by: &*self.0,
            mine: parameters.iter().map(Parameter::id).collect(),
            size: all.div_ceil(LEAST).min(MOST),
            waiting: Vec::new(),
            bytes: 0,
            begun: false,
        }
    }

    /// Adds up `gradients` of `parameters`, which are complete.
    ///
    /// # Errors
    /// If the library cannot, or they are not on a GPU.
    pub(super) fn add_up(&self, parameters: &[Parameter], gradients: &Gradients) -> Result<()> {
        let mut filling = self.fill(parameters);
        for (parameter, gradient) in parameters.iter().zip(gradients) {
            if let Some(gradient) = gradient {
                filling.add(parameter.id(), gradient)?;
            }
        }
        filling.end()
    }
}

impl Filling<'_> {
    /// Puts `gradient`, that of the parameter of this number, which nothing changes any more, into a bucket.
    ///
    /// # Errors
    /// If the library cannot add up.
    pub(super) fn add(&mut self, parameter: u64, gradient: &Tensor) -> Result<()> {
        let Some(at) = gradient.device_pointer().filter(|_| self.mine.contains(&parameter)) else {
            return Ok(());
        };
        self.waiting.push((at, gradient.len(), gradient.dtype()));
        self.bytes += gradient.len() * gradient.dtype().size();
        if self.bytes >= self.size { self.begin() } else { Ok(()) }
    }

    /// Begins the sum of the bucket.
    fn begin(&mut self) -> Result<()> {
        let full = std::mem::take(&mut self.waiting);
        self.bytes = 0;
        if full.is_empty() {
            return Ok(());
        }
        self.begun = true;
        // SAFETY: gradients are kept by whoever takes them from the tape, which waits for the sums first.
        unsafe { self.by.all_reduce(&full) }
    }

    /// Begins the last one; what is launched next waits for all of them.
    ///
    /// # Errors
    /// If the library cannot add up.
    pub(super) fn end(mut self) -> Result<()> {
        self.begin()?;
        if self.begun { self.by.join() } else { Ok(()) }
    }
}
