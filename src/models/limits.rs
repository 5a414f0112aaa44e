//! Networks of sizes that come from elsewhere: within limits, or not at all.
use serde::Serialize;

use super::weights::WeightsFile;
use crate::engine::document;
use crate::engine::shield::shielded;
use crate::error::{Error, Report};
use crate::nn::init;

/// Why a network cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unbuilt {
    /// It has more parameters than it may.
    TooLarge,
    /// Its sizes make no network, in words.
    Unfit(String),
}

/// The numbers that a network may have whose weights are in `file`: some more, so that one that misses little is
/// told which tensors those are.
pub fn most_numbers(file: &WeightsFile) -> usize {
    let held: usize = file.tensors.values().map(|(_, values)| values.len()).sum();
    held + held / 4 + (1 << 20)
}

impl Unbuilt {
    /// The error of the model file `name`.
    pub fn of_file(self, name: &str) -> Error {
        let cause = match self {
            Self::TooLarge => {
                "its srk.config asks for a network of more numbers than its tensors hold".to_owned()
            }
            Self::Unfit(cause) => format!("its srk.config is wrong: {cause}"),
        };
        let report = Report::new(format!("cannot load the model {name}"), cause);
        Error::Model(report.help("srk models info FILE    shows what a file holds"))
    }

    /// The error of a configuration, where `most` numbers were what the memory holds.
    pub fn of_config(self, most: usize) -> Error {
        match self {
            Self::TooLarge => {
                let cause = format!(
                    "{} million parameters are what the free memory holds",
                    most / 1_000_000
                );
                let report = Report::new("the network does not fit in memory", cause);
                Error::Memory(report.help("make the sizes in [model] smaller"))
            }
            Self::Unfit(cause) => {
                let report = Report::new("wrong configuration", cause);
                Error::Usage(
                    report.help("srk train --list-recipes    shows configurations that work"),
                )
            }
        }
    }
}

/// What `build` makes of the sizes in `config`, with the limits of [`ModelConfig::build_within`](super::ModelConfig::build_within).
///
/// # Errors
/// As there.
pub fn build_within<R>(
    config: &impl Serialize,
    most: usize,
    build: impl FnOnce() -> R,
) -> std::result::Result<R, Unbuilt> {
    let sizes = document::to_json(config);
    refuse_huge("model", &sizes).map_err(Unbuilt::Unfit)?;
    let built = shielded(|| init::within(most, build));
    let unfit = |panic| Unbuilt::Unfit(format!("the sizes do not go together: {panic}"));
    built.map_err(unfit)?.ok_or(Unbuilt::TooLarge)
}

/// No size of a network is larger: the largest that are published are a quarter of it.
pub(super) const MOST: u64 = 1 << 16;

/// Refuses numbers that no size has, before products of them overflow; `name` is the key of `sizes`.
fn refuse_huge(name: &str, sizes: &serde_json::Value) -> std::result::Result<(), String> {
    use serde_json::Value;
    match sizes {
        Value::Number(n) if n.as_u64().is_some_and(|n| n > MOST) => {
            Err(format!("{name} = {n} is above {MOST}"))
        }
        // Networks of ncnn are lists of hundreds of layers, and check them by themselves.
        Value::Array(all) if all.len() > 64 && name != "model.layers" => {
            Err(format!("{name} is a list of {}, which is more than 64", all.len()))
        }
        Value::Array(all) => all.iter().try_for_each(|one| refuse_huge(name, one)),
        Value::Object(all) => {
            all.iter().try_for_each(|(key, one)| refuse_huge(&format!("{name}.{key}"), one))
        }
        _ => Ok(()),
    }
}
