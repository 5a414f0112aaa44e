//! Which network a state dict belongs to, by the entries of [`models`](crate::models).
use crate::engine::parameter::Parameter;
use crate::models::weights::file_shape;
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

/// Why shapes that have the names of `known` are no network of it.
pub fn unfit(known: &Known, shapes: &Shapes) -> String {
    let state = (known.narrow)().build(0).state();
    let shape_of = |p: &Parameter| file_shape(p.layout(), p.value().shape());
    // Of convolutions that read the picture.
    let takes =
        state.iter().find_map(|p| match (&shape_of(p)[..], &shapes.shapes.get(p.name())?[..]) {
            (&[_, 3, kernel, _], &[_, channels, same, _])
                if kernel == same && matches!(channels, 1 | 2 | 4) =>
            {
                Some(channels)
            }
            _ => None,
        });
    let (found, all) = matches(known, shapes);
    let held = state.iter().find_map(|p| Some((p.name(), shapes.shapes.get(p.name())?)));
    match (takes, held) {
        (Some(channels), _) => {
            let s = if channels == 1 { "" } else { "s" };
            format!(
                "its pictures have {channels} channel{s}; srk runs {} for those of 3",
                known.name
            )
        }
        (None, Some((name, shape))) if found == all => format!(
            "its names are those of {}, but no size of it has such shapes: {name} is {shape:?}",
            known.name
        ),
        _ => format!("{found} of the {all} tensors of {} are there", known.name),
    }
}

/// The network that shares most names with the shapes, in proportion to its own.
pub fn nearest(shapes: &Shapes) -> Option<(&'static Known, (usize, usize))> {
    let all = known().map(|known| (known, matches(known, shapes)));
    all.max_by_key(|(_, (found, all))| found * 1000 / (*all).max(1))
}
