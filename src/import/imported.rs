//! What is asked of an import, and what comes of it.
use crate::error::{Error, Report, Result};
use serde_json::Value as Json;
use std::path::PathBuf;

use crate::diffusion::system::SystemConfig;
use crate::engine::{document, spelling};
use crate::models::weights::WeightsFile;

/// What is asked of an import; the default leaves everything to the file.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The kind of network.
    pub arch: Option<String>,
    /// The entry of the checkpoint that holds the weights.
    pub weights: Option<String>,
    /// A recipe's name, or a configuration file, for the process.
    pub recipe: Option<String>,
    /// `model.KEY=VALUE` and `diffusion.KEY=VALUE`, over what was found.
    pub overrides: Vec<String>,
    /// The checkpoint of the part that is not trained, where it is a file of its own.
    pub frozen: Option<PathBuf>,
    /// Whether tensors that the network does not have are left out.
    pub ignore_unexpected: bool,
    /// What users may do with the weights.
    pub license: Option<String>,
}

/// A checkpoint as srk runs it.
#[derive(Debug)]
pub struct Imported {
    /// With the metadata of its system.
    pub file: WeightsFile,
    /// The network, its process and sizes.
    pub config: SystemConfig,
    /// Numbers that training changes.
    pub parameters: usize,
    /// What kind of file it was, such as `torch` or `safetensors`.
    pub format: &'static str,
    /// Where in the file the weights were, such as `state_dict`, and what was cut off their names.
    pub place: [String; 2],
    /// Where the process comes from.
    pub process: String,
    /// What the weights do not tell.
    pub assumed: String,
    /// Tensors that were left out.
    pub ignored: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

/// Shape and values of a tensor, in the layout of files.
pub type Array = (Vec<usize>, Vec<f32>);

/// Applies `model.KEY=VALUE` and `diffusion.KEY=VALUE`; the keys of the network that were set, without `model.`.
pub(super) fn overridden<'a>(
    config: &mut SystemConfig,
    settings: &'a [String],
) -> Result<Vec<&'a str>> {
    let mut set = Vec::new();
    for setting in settings {
        let wrong = |cause: String| {
            let report = Report::new(format!("cannot apply --set {setting}"), cause);
            Error::Usage(report.help("--set model.groups=16    is the form"))
        };
        let (key, text) = setting.split_once('=').ok_or_else(|| wrong("there is no =".into()))?;
        let value: Json = serde_json::from_str(text).unwrap_or_else(|_| text.into());
        let path = format!("/{}", key.trim().replace('.', "/"));
        let mut all = serde_json::json!({
            "model": document::to_json(&config.model),
            "diffusion": document::to_json(&config.diffusion),
        });
        let known = keys(&all);
        let near = spelling::nearest_of(key.trim(), &known);
        let slot = all.pointer_mut(&path).ok_or_else(|| {
            let cause = format!("there is no {key}");
            match near {
                Some(near) => {
                    let report = Report::new(format!("cannot apply --set {setting}"), cause);
                    Error::Usage(report.help(format!("did you mean {near}?")))
                }
                None => wrong(cause),
            }
        })?;
        *slot = value;
        config.model = document::from_json(all["model"].take()).map_err(wrong)?;
        config.diffusion = document::from_json(all["diffusion"].take()).map_err(wrong)?;
        config.diffusion.check()?;
        set.extend(key.trim().strip_prefix("model."));
    }
    Ok(set)
}

/// The dotted keys of a table of tables.
fn keys(table: &Json) -> Vec<String> {
    let mut all = Vec::new();
    for (key, value) in table.as_object().into_iter().flatten() {
        all.push(key.clone());
        all.extend(keys(value).into_iter().map(|below| format!("{key}.{below}")));
    }
    all
}
