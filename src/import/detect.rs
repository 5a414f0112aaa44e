//! Which network a state dict belongs to, by the entries of [`models`](crate::models).
use crate::models::{self, ModelConfig, Shapes};

/// The entry of a network.
pub type Known = models::Known<ModelConfig>;

/// The networks whose checkpoints srk imports by the names of their tensors.
pub fn known() -> impl Iterator<Item = &'static Known> {
    ModelConfig::KINDS.iter().filter(|known| !known.keys.is_empty())
}

/// The network that the shapes belong to.
pub fn identify(shapes: &Shapes) -> Option<&'static Known> {
    known().find(|known| known.fits(shapes))
}

/// The network called `name`.
pub fn by_name(name: &str) -> Option<&'static Known> {
    known().find(|known| known.name == name)
}

/// How many names of the network are there, and how many it has.
pub fn matches(known: &Known, shapes: &Shapes) -> (usize, usize) {
    let state = (known.narrow)().build(0).state();
    let found = state.iter().filter(|p| shapes.shapes.contains_key(p.name())).count();
    (found, state.len())
}

/// The network that shares most names with the shapes, in proportion to its own.
pub fn nearest(shapes: &Shapes) -> Option<(&'static Known, (usize, usize))> {
    let all = known().map(|known| (known, matches(known, shapes)));
    all.max_by_key(|(_, (found, all))| found * 1000 / (*all).max(1))
}
