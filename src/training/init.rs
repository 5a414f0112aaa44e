//! Weights to start from: `run.init`, the tensors of another model that fit this one.
use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value as Json;

use super::log::Reporter;
use crate::diffusion::system;
use crate::engine::document;
use crate::engine::parameter::Parameter;
use crate::engine::spelling;
use crate::error::{Error, Report, Result};
use crate::models::attentive_grid::LATER;
use crate::models::weights::{WeightsFile, file_shape, from_file_layout, to_file_layout};
use crate::models::{Known, ModelConfig};

/// What `run` says of weights to start from beside their file.
pub(super) struct Rules<'a> {
    /// Beginnings of names, and what stands there in the file.
    pub(super) names: &'a BTreeMap<String, String>,
    /// Whether a narrower network's tensors fit, too.
    pub(super) widen: bool,
    /// The network here, as a weights file says it.
    pub(super) model: Option<String>,
}

/// Gives `state` every tensor of the model `path` (a weights file, a run folder, a name) that has the name and
/// shape of one of its own, and reports how many those were, which start anew, and by which keys they meant something else.
///
/// # Errors
/// [`Error::Model`] if the file cannot be read, [`Error::Usage`] if none of its tensors fits.
pub(super) fn load(
    state: &[Parameter],
    path: &Path,
    rules: &Rules<'_>,
    reporter: &mut dyn Reporter,
) -> Result<()> {
    if !path.exists() && !system::is_name(path) {
        let report = Report::new(
            format!("cannot start from {}", path.display()),
            "there is no such file or folder",
        );
        let help = spelling::help(
            path,
            "name a weights file, the folder of a run, as runs/NAME, a model of srk models list, or hf:ORG/REPO",
        );
        return Err(Error::Model(report.code("not_found").help(help)));
    }
    let file = system::read(path)?;
    let mut taken = 0;
    let mut new = Vec::new();
    for parameter in state {
        match take(parameter, &file, rules)? {
            true => taken += 1,
            false => new.push(parameter.name()),
        }
    }
    if taken == 0 {
        let what = format!("nothing in {} fits the network", path.display());
        let first = file.tensors.keys().next().map_or("none", String::as_str);
        let cause = format!("none of its {} tensors (first: {first})", file.tensors.len());
        let report = Report::new(what, format!("{cause} has the name and shape of one of its own"));
        return Err(Error::Usage(report.help("srk models info FILE    shows what it is")));
    }
    reporter.line(&format!(
        "starting from {}: {} of {} tensors",
        path.display(),
        taken,
        state.len()
    ));
    let other = other_meaning(&file, rules.model.as_ref());
    if !other.is_empty() {
        reporter.warn(&format!(
            "the weights in {} meant something else there: {}",
            path.display(),
            other.join("; ")
        ));
    }
    if !new.is_empty() {
        reporter.warn(&format!(
            "{} of {} tensors are not in {} and start at random: {}",
            new.len(),
            state.len(),
            path.display(),
            new[..new.len().min(5)].join(", ")
        ));
    }
    Ok(())
}

/// The keys of `[model]` by which the weights of `file` meant something else than in the network `here`, with both values.
fn other_meaning(file: &WeightsFile, here: Option<&String>) -> Vec<String> {
    let fields = |text: &String| {
        let model: ModelConfig = document::from_json_text(text).ok()?;
        Some(document::to_json(&model))
    };
    let there = file.metadata.get("srk.config").and_then(fields);
    let Some((there, here)) = there.zip(here.and_then(fields)) else { return Vec::new() };
    let is_here = |known: &&Known<ModelConfig>| here["kind"] == known.name;
    let known = ModelConfig::KINDS.iter().find(is_here).filter(|known| there["kind"] == known.name);
    let assumed = file.metadata.get("srk.assumed").map_or("", String::as_str);
    let differ = |&&key: &&&str| there[key] != here[key];
    let said = |key: &&str| {
        let how = if assumed.contains(&format!("model.{key}")) { ", as is assumed" } else { "" };
        let [there, here] = [&there[*key], &here[*key]].map(shown);
        format!("model.{key} = {there} in the file{how}, {here} here")
    };
    known.map_or(&[][..], |known| known.meaning).iter().filter(differ).map(said).collect()
}

/// A value as a configuration may have it.
fn shown(value: &Json) -> String {
    match (value.as_f64(), value.as_array()) {
        (Some(number), _) => number.to_string(),
        (_, Some(all)) => format!("[{}]", all.iter().map(shown).collect::<Vec<_>>().join(", ")),
        _ => value.to_string(),
    }
}

/// Whether `file` holds the tensor of `parameter`, under its own name or the one that `rules` gives it, which then has
/// its values. Where a file knows of no later calls, they start as the first one.
fn take(parameter: &Parameter, file: &WeightsFile, rules: &Rules<'_>) -> Result<bool> {
    let renamed = rules.names.iter().find_map(|(here, there)| {
        parameter.name().strip_prefix(here.as_str()).map(|rest| format!("{there}{rest}"))
    });
    let plain = parameter.name().strip_prefix(LATER).and_then(|name| name.strip_prefix('.'));
    let tried = [renamed.as_deref(), Some(parameter.name()), plain];
    let found = tried.into_iter().flatten().find_map(|name| file.tensors.get(name));
    let Some((shape, values)) = found else { return Ok(false) };
    let layout = parameter.layout();
    let own = file_shape(layout, parameter.value().shape());
    if *shape == own {
        parameter.set(from_file_layout(layout, shape, values));
        return Ok(true);
    }
    if !rules.widen || !is_wider(&own, shape) {
        return Ok(false);
    }
    let mut wide = to_file_layout(layout, &parameter.value())?;
    widen(&mut wide, &own, shape, values);
    parameter.set(from_file_layout(layout, &own, &wide));
    Ok(true)
}

/// Whether a tensor of shape `own` is one of shape `narrow` with more outputs (the first axis) or inputs (the second). One
/// without numbers is no beginning of any.
fn is_wider(own: &[usize], narrow: &[usize]) -> bool {
    own.len() == narrow.len()
        && own.iter().zip(narrow).all(|(own, &narrow)| *own >= narrow && narrow > 0)
        && own.iter().skip(2).eq(narrow.iter().skip(2))
}

/// Puts `values`, of shape `narrow`, into the first outputs and inputs of `wide`, of shape `own`. What those outputs
/// get from the other inputs is zero, so that the wider network begins as the narrower one (Net2Net, Chen et al.
/// 2016); the other outputs stay as they were drawn, so that they come to differ.
fn widen(wide: &mut [f32], own: &[usize], narrow: &[usize], values: &[f32]) {
    let outputs = narrow[0];
    let (row, narrow_row) = (wide.len() / own[0], values.len() / outputs);
    for (wide, values) in wide.chunks_exact_mut(row).zip(values.chunks_exact(narrow_row)) {
        let (old, new) = wide.split_at_mut(narrow_row);
        old.copy_from_slice(values);
        new.fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_without_numbers_are_not_widened() {
        assert!(is_wider(&[4, 3, 3, 3], &[2, 1, 3, 3]));
        assert!(!is_wider(&[4, 3, 3, 3], &[2, 1, 1, 1]));
        for empty in [[0, 3, 3, 3], [4, 0, 3, 3], [0, 0, 3, 3]] {
            assert!(!is_wider(&[4, 3, 3, 3], &empty), "{empty:?}");
        }
    }
}
