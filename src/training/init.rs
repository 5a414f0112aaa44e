//! Weights to start from: `run.init`, the tensors of another model that fit this one.
use std::path::Path;

use crate::diffusion::system;
use crate::engine::parameter::Parameter;
use crate::error::{Error, Report, Result};
use crate::models::Network;
use crate::models::attentive_grid::LATER;
use crate::models::weights::{WeightsFile, file_shape, from_file_layout};

/// Gives `network` every tensor of the weights file (or run folder) `path` that has the name and shape of one of
/// its own, and says in a line which those were.
///
/// # Errors
/// [`Error::Model`] if the file cannot be read, [`Error::Usage`] if none of its tensors fits.
pub(super) fn load(network: &dyn Network, path: &Path) -> Result<String> {
    let file = system::read(path)?;
    let state = network.state();
    let (taken, new): (Vec<_>, Vec<_>) = state.iter().partition(|p| take(p, &file));
    if taken.is_empty() {
        let what = format!("nothing in {} fits the network", path.display());
        let first = file.tensors.keys().next().map_or("none", String::as_str);
        let cause = format!("none of its {} tensors (first: {first})", file.tensors.len());
        let report = Report::new(what, format!("{cause} has the name and shape of one of its own"));
        return Err(Error::Usage(report.help("srk models info FILE    shows what it is")));
    }
    let used = |name: &String| taken.iter().any(|p| p.name().ends_with(name.as_str()));
    let unused = file.tensors.keys().filter(|name| !used(name)).count();
    let mut line = format!("{} of {} tensors from {}", taken.len(), state.len(), path.display());
    if let Some(first) = new.first() {
        line += &format!("; {} start anew (first: {})", new.len(), first.name());
    }
    if unused > 0 {
        line += &format!("; {unused} in the file are not used");
    }
    Ok(line)
}

/// Whether `file` holds the tensor of `parameter`, which then has its values. Where a file knows of no later calls,
/// they start as the first one.
fn take(parameter: &Parameter, file: &WeightsFile) -> bool {
    let plain = parameter.name().strip_prefix(LATER).and_then(|name| name.strip_prefix('.'));
    let held = file.tensors.get(parameter.name());
    let found = held.or_else(|| plain.and_then(|name| file.tensors.get(name)));
    let Some((shape, values)) = found else { return false };
    if *shape != file_shape(parameter.layout(), parameter.value().shape()) {
        return false;
    }
    parameter.set(from_file_layout(parameter.layout(), shape, values));
    true
}
