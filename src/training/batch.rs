//! What a step learns from, under names.
use std::sync::Arc;

use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::training::ranks::Unit;

/// The numbers of a batch, a function of its number. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Its number in the run.
    pub number: u64,
    /// Images in it.
    pub images: usize,
    /// Which way it takes through the networks. Batches of one way differ in nothing but the numbers of their tensors:
    /// what was recorded of one is replayed with those of another.
    pub way: usize,
    tensors: Vec<Named>,
}

/// A tensor and its name.
type Named = (&'static str, Arc<Tensor>);

impl Batch {
    /// The batch `number` of `images` images, which goes `way`; no numbers yet.
    pub const fn new(number: u64, images: usize, way: usize) -> Self {
        Self { number, images, way, tensors: Vec::new() }
    }

    /// The same with `tensor` under `name`.
    #[must_use]
    pub fn with(mut self, name: &'static str, tensor: Tensor) -> Self {
        self.tensors.push((name, Arc::new(tensor)));
        self
    }

    /// What was given under `name`.
    ///
    /// # Errors
    /// If there is no such tensor.
    pub fn get(&self, name: &str) -> Result<&Tensor> {
        let missing =
            || Error::Unsupported { op: "batch", what: format!("{name:?}, which is not in it") };
        self.find(name).ok_or_else(missing)
    }

    /// What was given under `name`, if anything was.
    pub fn find(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|(key, _)| *key == name).map(|(_, tensor)| &**tensor)
    }

    /// The same batch with every tensor as `body` makes it.
    ///
    /// # Errors
    /// Those of `body`.
    pub fn map(&self, mut body: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        let tensors = self.tensors.iter().map(|(name, t)| Ok((*name, Arc::new(body(t)?))));
        let tensors = tensors.collect::<Result<_>>()?;
        Ok(Self { tensors, ..Self::new(self.number, self.images, self.way) })
    }

    /// The images of `unit`, of a batch on the CPU that holds all: what has a row for each image is cut, the rest stays.
    ///
    /// # Errors
    /// If the batch lies on a GPU.
    pub(in crate::training) fn part(&self, unit: &Unit) -> Result<Self> {
        let images = unit.range(self.images);
        let cut = |tensor: &Tensor| match tensor.shape() {
            [n, rest @ ..] if *n == self.images && unit.of > 1 => {
                let row = rest.iter().product::<usize>();
                let rows = tensor.cpu::<f32>()?[images.start * row..images.end * row].to_vec();
                Ok(Tensor::from_vec(rows, &[&[images.len()], rest].concat()))
            }
            _ => tensor.try_clone(),
        };
        let mut part = self.map(cut)?;
        part.images = images.len();
        Ok(part)
    }

    /// Puts the numbers of `other`, which lies on the CPU, in the place of those here, wherever these lie.
    ///
    /// # Errors
    /// If the tensors do not match.
    pub fn write(&mut self, other: &Self) -> Result<()> {
        self.number = other.number;
        self.for_each(other, |to, from| to.write(from.cpu()?))
    }

    /// The same of numbers that lie on the same device. Only launches.
    ///
    /// # Errors
    /// If the tensors do not match.
    pub(in crate::training) fn copy_from(&mut self, other: &Self) -> Result<()> {
        self.number = other.number;
        self.for_each(other, Tensor::copy_from)
    }

    /// Calls `body` with each tensor here, which no clone shares, and that of `other`.
    ///
    /// # Errors
    /// Those of `body`, or if a clone shares them.
    pub(in crate::training) fn for_each(
        &mut self,
        other: &Self,
        mut body: impl FnMut(&mut Tensor, &Tensor) -> Result<()>,
    ) -> Result<()> {
        for ((name, to), (_, from)) in self.tensors.iter_mut().zip(&other.tensors) {
            let shared =
                || Error::Unsupported { op: "batch", what: format!("{name:?}, which is shared") };
            body(Arc::get_mut(to).ok_or_else(shared)?, from)?;
        }
        Ok(())
    }

    /// Whether [`write`](Self::write) can take `other`.
    pub fn fits(&self, other: &Self) -> bool {
        let same = |((a, x), (b, y)): (&Named, &Named)| a == b && x.shape() == y.shape();
        self.tensors.len() == other.tensors.len()
            && self.tensors.iter().zip(&other.tensors).all(same)
    }
}
