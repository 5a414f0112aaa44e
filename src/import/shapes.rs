//! What a state dict shows of its network, and what srk knows of one.
use std::collections::BTreeMap;

use crate::models::ModelConfig;

/// A network that srk imports.
pub struct Known {
    /// Its kind, as in a recipe's `[model]`.
    pub name: &'static str,
    /// Keys that every checkpoint of it has, and none of another.
    pub(super) keys: &'static [&'static str],
    /// Its sizes; none where the shapes fit no such network.
    pub(super) config: fn(&Shapes) -> Option<ModelConfig>,
    /// A narrow one, under the same names.
    pub narrow: fn() -> ModelConfig,
    /// What weights do not tell and is assumed; may be empty.
    pub assumed: &'static str,
}

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
    pub(super) fn count(&self, name: impl Fn(usize) -> String) -> usize {
        (0..).take_while(|&i| self.shapes.contains_key(&name(i))).count()
    }
}

impl Known {
    /// Whether the keys of this network are there.
    pub(super) fn fits(&self, shapes: &Shapes) -> bool {
        self.keys.iter().all(|key| shapes.shapes.contains_key(*key))
    }

    /// Its sizes by the shapes; none where they fit no such network.
    pub fn config(&self, shapes: &Shapes) -> Option<ModelConfig> {
        let config = self.fits(shapes).then(|| (self.config)(shapes)).flatten()?;
        // A layer of no channels is none that was trained.
        let fields = serde_json::to_value(&config).ok()?;
        let is_zero = |v: &serde_json::Value| v.as_u64() == Some(0);
        let has_zero = |v: &serde_json::Value| {
            is_zero(v) || v.as_array().is_some_and(|a| a.iter().any(is_zero))
        };
        let zero = fields.as_object().into_iter().flatten().any(|(_, v)| has_zero(v));
        (!zero).then_some(config)
    }

    /// How many of its names are there, and how many it has.
    pub fn matches(&self, shapes: &Shapes) -> (usize, usize) {
        let state = (self.narrow)().build(0).state();
        let found = state.iter().filter(|p| shapes.shapes.contains_key(p.name())).count();
        (found, state.len())
    }
}
