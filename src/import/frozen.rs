//! The part of a network that is not trained, where its checkpoint is a file of its own.
use std::fs::File;
use std::path::Path;

use super::archive::Archive;
use super::detect::Known;
use super::pickle::Parsed;
use super::state_dict::StateDict;
use crate::models::FrozenPart;

/// The file of such a part.
pub(super) struct Frozen {
    pub(super) archive: Archive,
    /// How its names begin in the network.
    pub(super) prefix: &'static str,
}

impl Frozen {
    /// Opens the checkpoint `path` and adds its tensors to those of the network, `state`.
    ///
    /// # Errors
    /// If it is damaged, holds another part, or the network has none.
    pub(super) fn open(path: &Path, known: &Known, state: &mut StateDict) -> Parsed<Self> {
        let Some(FrozenPart { prefix, key }) = known.frozen else {
            return Err(format!("{} has no part with a checkpoint of its own", known.name));
        };
        let file = File::open(path).map_err(|e| e.to_string())?;
        let size = file.metadata().map_err(|e| e.to_string())?.len();
        let archive = Archive::open(Box::new(file), size)?;
        let found = StateDict::find(&archive, None)?;
        let wrapped = found.tensors.keys().find_map(|name| name.strip_suffix(key));
        let Some(wrapper) = wrapped.map(str::to_owned) else {
            return Err(format!("it has no {key}, as the {prefix}* of {} would", known.name));
        };
        for (name, tensor) in found.tensors {
            if let Some(name) = name.strip_prefix(&wrapper) {
                state.tensors.insert(format!("{prefix}{name}"), tensor);
            }
        }
        Ok(Self { archive, prefix })
    }
}
