//! Models that Hugging Face's programs have downloaded, by the names they have there: `hf:ORG/REPO[@REVISION][:FILE]`.
//!
//! ```text
//! HUB/models--ORG--REPO/refs/main                     the commit that a revision is
//! HUB/models--ORG--REPO/snapshots/COMMIT/FILE         its files
//! HUB     $HF_HUB_CACHE, or $HF_HOME/hub, or huggingface/hub in $XDG_CACHE_HOME or ~/.cache
//! ```
//! Nothing is downloaded.
use std::path::{Component, Path, PathBuf};

use super::listing;
use crate::diffusion::system;
use crate::error::{Error, Report, Result};

/// What such names begin with.
pub const PREFIX: &str = system::HUB;

/// The folder of all downloaded repositories.
fn hub() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("HF_HUB_CACHE")
        .or_else(|| Some(set("HF_HOME")?.join("hub")))
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(set("HOME")?.join(".cache/huggingface/hub")))
}

/// The parts of a name without its prefix: repository, revision, file.
fn parts(name: &str) -> Option<(&str, &str, Option<&str>)> {
    let (name, file) = match name.split_once(':') {
        Some((name, file)) => (name, Some(file)),
        None => (name, None),
    };
    let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
    let plain = |part: &str| {
        let mut all = Path::new(part).components();
        !part.is_empty() && all.all(|c| matches!(c, Component::Normal(_)))
    };
    let named = |(owner, name): (&str, &str)| plain(owner) && plain(name) && !name.contains('/');
    let known = repository.split_once('/').is_some_and(named) && plain(revision);
    (known && file.is_none_or(plain)).then_some((repository, revision, file))
}

/// The file on this machine that `model`, which begins with [`PREFIX`], names.
///
/// # Errors
/// [`Error::Model`] if it is not there, with the command that downloads it, or if several could be meant.
pub fn file(model: &str) -> Result<PathBuf> {
    let refuse = |cause: String, help: String| {
        let report = Report::new(format!("there is no model {model}"), cause).code("not_found");
        Err(Error::Model(report.help(help)))
    };
    let Some((repository, revision, wanted)) = parts(model.strip_prefix(PREFIX).unwrap_or(model))
    else {
        let help = "-m hf:ORG/REPO, hf:ORG/REPO:FILE, or hf:ORG/REPO@REVISION:FILE".into();
        return refuse("that is no name of a repository".into(), help);
    };
    let download = || {
        let at = if revision == "main" { String::new() } else { format!(" --revision {revision}") };
        let file = wanted.map_or(String::new(), |file| format!(" {file}"));
        format!(
            "hf download {repository}{file}{at}    (Hugging Face's program); srk downloads nothing"
        )
    };
    let Some(hub) = hub() else {
        return refuse("neither HF_HOME nor HOME is set".into(), download());
    };
    let place = hub.join(format!("models--{}", repository.replace('/', "--")));
    let commit = std::fs::read_to_string(place.join("refs").join(revision));
    let commit = commit.map_or_else(|_| revision.to_owned(), |text| text.trim().to_owned());
    // It is the name of a folder and no way out of it.
    let commit = if parts(&format!("a/b@{commit}")).is_some() { commit } else { String::new() };
    let snapshot = place.join("snapshots").join(&commit);
    if commit.is_empty() || !snapshot.is_dir() {
        let cause = format!("it was not downloaded: {} is not there", snapshot.display());
        return refuse(cause, download());
    }
    if let Some(wanted) = wanted {
        let path = snapshot.join(wanted);
        return match path.is_file() {
            true => Ok(path),
            false => refuse(format!("{wanted} was not downloaded with the others"), download()),
        };
    }
    let mut found = listing::files(&snapshot)?;
    found.retain(|file| file.is_file());
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => refuse(format!("{} holds no weights", snapshot.display()), download()),
        several => {
            let name = |path: &PathBuf| path.file_name().unwrap_or_default().display().to_string();
            let names: Vec<String> = several.iter().map(name).collect();
            let help = format!("-m {PREFIX}{repository}:{}    names one", names[0]);
            refuse(format!("it holds {}", super::first(&names)), help)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_and_lead_nowhere_else() {
        assert_eq!(parts("a/b"), Some(("a/b", "main", None)));
        assert_eq!(parts("a/b@v1:x/y.pth"), Some(("a/b", "v1", Some("x/y.pth"))));
        for wrong in
            ["a", "a/b/c", "../b", "a/..", "a/b@../x", "a/b:../x", "a/b:/etc/x", "/b", "a/"]
        {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
