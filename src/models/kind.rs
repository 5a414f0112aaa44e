//! What srk knows of a kind of network beside the network itself: the entry at the end of its file.
use serde::Serialize;

use super::network::Network;
use super::shapes::Shapes;
use crate::engine::document;

/// The entry of a network, implemented by its configuration. All that is generic follows from it: building from a
/// recipe, recognition of checkpoints, and the tests that go through [`ModelConfig::KINDS`](super::ModelConfig::KINDS).
pub trait Kind: Sized {
    /// Names of tensors that every checkpoint of it has, and none of another network: that of the widest layer among
    /// them, so that a file cannot ask for more memory than it is long. Empty where checkpoints of other programs
    /// are not read.
    const KEYS: &'static [&'static str];

    /// Whether it enlarges in one call, from low resolution straight to high, and knows no noise.
    const DIRECT: bool = false;

    /// What weights do not tell and is assumed.
    const ASSUMED: &'static [Assumption] = &[];

    /// Keys that no shape shows and that change what the weights mean.
    const MEANING: &'static [&'static str] = &[];

    /// The part that is not trained and has checkpoints of its own, if there is one.
    const FROZEN: Option<FrozenPart> = None;

    /// The network, its initial weights a function of `seed`.
    fn build(&self, seed: u64) -> Box<dyn Network>;

    /// The factor between low and high resolution.
    fn scale(&self) -> usize;

    /// The sizes that a state dict with all [`KEYS`](Self::KEYS) is of; none where the shapes fit no such network.
    fn of_shapes(shapes: &Shapes) -> Option<Self>;

    /// A narrow one, whose every part has the names it has in wider ones. Tests take it through imports, devices,
    /// and tiles.
    fn narrow() -> Self;

    /// Whether the weights told of this one what is assumed of others.
    fn is_settled(&self) -> bool {
        Self::ASSUMED.is_empty()
    }

    /// Whether the [frozen part](Self::FROZEN) is among its weights.
    fn is_whole(&self) -> bool {
        true
    }
}

/// Something that weights do not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assumption {
    /// The keys that say it, without `model.`; none where it cannot be set.
    pub keys: &'static [&'static str],
    /// In words, which name the keys.
    pub what: &'static str,
}

/// The part of a network that is not trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrozenPart {
    /// How its names begin in the network.
    pub prefix: &'static str,
    /// A name of the part by itself.
    pub key: &'static str,
}

/// An entry as a value: `M` is the configuration of any network.
#[derive(Debug)]
pub struct Known<M> {
    /// Its kind, as in a recipe's `[model]`.
    pub name: &'static str,
    /// See [`Kind::KEYS`].
    pub keys: &'static [&'static str],
    /// See [`Kind::of_shapes`].
    pub of_shapes: fn(&Shapes) -> Option<M>,
    /// See [`Kind::narrow`].
    pub narrow: fn() -> M,
    /// See [`Kind::ASSUMED`].
    pub assumed: &'static [Assumption],
    /// See [`Kind::MEANING`].
    pub meaning: &'static [&'static str],
    /// See [`Kind::FROZEN`].
    pub frozen: Option<FrozenPart>,
}

impl<M: Serialize> Known<M> {
    /// What is assumed where the keys in `told` are known, in words; empty if nothing is.
    pub fn assumptions(&self, told: &[&str]) -> String {
        let is_open =
            |a: &&Assumption| a.keys.is_empty() || !a.keys.iter().all(|k| told.contains(k));
        let open = self.assumed.iter().filter(is_open).map(|a| a.what);
        open.collect::<Vec<_>>().join("; ")
    }

    /// Whether the keys of this network are there.
    pub fn fits(&self, shapes: &Shapes) -> bool {
        !self.keys.is_empty() && self.keys.iter().all(|key| shapes.shapes.contains_key(*key))
    }

    /// Its sizes by the shapes; none where they fit no such network.
    pub fn config(&self, shapes: &Shapes) -> Option<M> {
        let config = self.fits(shapes).then(|| (self.of_shapes)(shapes)).flatten()?;
        // A layer of no channels is none that was trained.
        let fields = document::to_json(&config);
        let is_zero = |v: &serde_json::Value| v.as_u64() == Some(0);
        let has_zero = |v: &serde_json::Value| {
            is_zero(v) || v.as_array().is_some_and(|a| a.iter().any(is_zero))
        };
        let zero = fields.as_object().into_iter().flatten().any(|(_, v)| has_zero(v));
        (!zero).then_some(config)
    }
}
