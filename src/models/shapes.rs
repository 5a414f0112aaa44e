//! What a state dict shows of its network: names and shapes.
use std::collections::BTreeMap;

/// The names and shapes of a state dict, and what its file is called.
#[derive(Clone, Debug, Default)]
pub struct Shapes {
    /// In the layout of files.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// The name of the file, without folders.
    pub file: String,
}

impl Shapes {
    /// The length of an axis of a tensor; none if there is no such tensor or axis, or nothing along it.
    pub fn dim(&self, name: &str, axis: usize) -> Option<usize> {
        self.shapes.get(name)?.get(axis).copied().filter(|&n| n > 0)
    }

    /// How many of the names, counted from 0, are there.
    pub fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.shapes.contains_key(&name(i))).count()
    }

    /// The factor whose square, times 3 colours, is the number of channels before a pixel shuffle: those that the
    /// tensor `name` makes.
    pub fn shuffle(&self, name: &str) -> Option<usize> {
        (1..=16).find(|n| self.dim(name, 0) == Some(3 * n * n))
    }
}
