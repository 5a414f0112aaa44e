//! Images that are kept out of training to validate on.
use std::path::{Path, PathBuf};

use super::folder::Source;
use crate::engine::cuda::sha256;
use crate::error::{Error, Report, Result};

/// Splits about a `share` of `sources` off, which were found in `paths`; if there is a share, at least one is on either
/// side. What stays, then what was split off, both in their order.
///
/// Each is split off or not by a hash of `seed` and its name below its folder or list alone, and not as so many of all: images that
/// come or go move no other, so that none is validated on that was trained on before.
///
/// # Errors
/// Exit code 2 if the share is all of them.
pub fn hold_out(
    sources: Vec<Source>,
    paths: &[PathBuf],
    share: f64,
    seed: u64,
) -> Result<[Vec<Source>; 2]> {
    if share <= 0.0 {
        return Ok([sources, Vec::new()]);
    }
    let all = sources.len();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A share of a length.
    let count = ((share * all as f64).round() as usize).max(1);
    if count >= all {
        let what = format!("data.val.split = {share} leaves no image to train on");
        let report = Report::new(what, format!("it takes {count} of {all} for validation"));
        let help = "make it smaller, or name other images with data.val.paths";
        return Err(Error::Usage(report.help(help)));
    }
    let roots: Vec<&Path> = paths
        .iter()
        .map(|path| if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) })
        .collect();
    let draws: Vec<f64> = sources.iter().map(|s| drawn(seed, &name_in(s, &roots))).collect();
    let mut held: Vec<bool> = draws.iter().map(|&draw| draw < share).collect();
    // Of few images chance may put all on one side.
    let in_order = |&i: &usize, &j: &usize| draws[i].total_cmp(&draws[j]);
    if let (false, Some(least)) = (held.contains(&true), (0..all).min_by(in_order)) {
        held[least] = true;
    }
    if let (false, Some(most)) = (held.contains(&false), (0..all).max_by(in_order)) {
        held[most] = false;
    }
    let (mut stays, mut split) = (Vec::new(), Vec::new());
    for (source, held) in sources.into_iter().zip(held) {
        if held { split.push(source) } else { stays.push(source) }
    }
    Ok([stays, split])
}

/// The name of an image below the innermost of `roots` that it is in, or in its tar file: the same wherever the
/// folder lies, and whether it is packed or not.
fn name_in(source: &Source, roots: &[&Path]) -> String {
    let name = source.name();
    let below = match source {
        Source::Packed(shard, _) => name.strip_prefix(shard.path()).ok(),
        _ => roots
            .iter()
            .filter_map(|root| name.strip_prefix(root).ok())
            .min_by_key(|below| below.components().count()),
    };
    let parts = below.unwrap_or(&name).components();
    let parts: Vec<_> = parts.map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

/// A number of `[0, 1)` by the image called `name`.
fn drawn(seed: u64, name: &str) -> f64 {
    let [a, b, c, d, e, f, g, ..] = sha256::digest(format!("{seed} {name}").as_bytes());
    let bits = u64::from_be_bytes([0, a, b, c, d, e, f, g]) >> 3;
    bits as f64 / 2f64.powi(53)
}
