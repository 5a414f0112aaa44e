//! Weights to start from: `run.init`, the tensors of another model that fit this one.
use std::collections::BTreeMap;
use std::path::Path;

use super::log::Reporter;
use crate::diffusion::system;
use crate::engine::parameter::Parameter;
use crate::engine::spelling;
use crate::error::{Error, Report, Result};
use crate::models::attentive_grid::LATER;
use crate::models::weights::{WeightsFile, file_shape, from_file_layout};

/// Gives `state` every tensor of the weights file (or run folder) `path` that has the name and shape of one of
/// its own, and reports how many those were, and which start anew.
///
/// # Errors
/// [`Error::Model`] if the file cannot be read, [`Error::Usage`] if none of its tensors fits.
pub(super) fn load(
    state: &[Parameter],
    path: &Path,
    names: &BTreeMap<String, String>,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    if !path.exists() {
        let report = Report::new(
            format!("cannot start from {}", path.display()),
            "there is no such file or folder",
        );
        let help =
            spelling::help(path, "name a weights file, or the folder of a run, as runs/NAME");
        return Err(Error::Model(report.code("not_found").help(help)));
    }
    let file = system::read(path)?;
    let (taken, new): (Vec<_>, Vec<_>) = state.iter().partition(|p| take(p, &file, names));
    if taken.is_empty() {
        let what = format!("nothing in {} fits the network", path.display());
        let first = file.tensors.keys().next().map_or("none", String::as_str);
        let cause = format!("none of its {} tensors (first: {first})", file.tensors.len());
        let report = Report::new(what, format!("{cause} has the name and shape of one of its own"));
        return Err(Error::Usage(report.help("srk models info FILE    shows what it is")));
    }
    reporter.line(&format!(
        "starting from {}: {} of {} tensors",
        path.display(),
        taken.len(),
        state.len()
    ));
    if !new.is_empty() {
        let first: Vec<&str> = new.iter().take(5).map(|p| p.name()).collect();
        reporter.warn(&format!(
            "{} of {} tensors are not in {} and start at random: {}",
            new.len(),
            state.len(),
            path.display(),
            first.join(", ")
        ));
    }
    Ok(())
}

/// Whether `file` holds the tensor of `parameter`, under its own name or the one that `names` gives it, which then has
/// its values. Where a file knows of no later calls, they start as the first one.
fn take(parameter: &Parameter, file: &WeightsFile, names: &BTreeMap<String, String>) -> bool {
    let renamed = names.iter().find_map(|(here, there)| {
        parameter.name().strip_prefix(here.as_str()).map(|rest| format!("{there}{rest}"))
    });
    let plain = parameter.name().strip_prefix(LATER).and_then(|name| name.strip_prefix('.'));
    let tried = [renamed.as_deref(), Some(parameter.name()), plain];
    let found = tried.into_iter().flatten().find_map(|name| file.tensors.get(name));
    let Some((shape, values)) = found else { return false };
    if *shape != file_shape(parameter.layout(), parameter.value().shape()) {
        return false;
    }
    parameter.set(from_file_layout(parameter.layout(), shape, values));
    true
}
