//! What may have been meant by a path that is not there; numbers of things in words.
use std::path::{Path, PathBuf};

/// The advice for `path`: the name beside it that is nearest, or the part of it that is not there; `otherwise` follows.
pub fn help(path: &Path, otherwise: &str) -> String {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match (nearest(path), folder.filter(|folder| !folder.is_dir())) {
        (Some(near), _) => format!("did you mean {}? {otherwise}", near.display()),
        (None, Some(folder)) => {
            format!("the folder {} is not there; {otherwise}", folder.display())
        }
        (None, None) => otherwise.to_owned(),
    }
}

/// The entry of its folder whose name is nearest to that of `path`, if one is near.
fn nearest(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).ok()?.flatten();
    let distance = |other: &str| strsim::damerau_levenshtein(&name, &other.to_lowercase());
    let names = entries.map(|e| e.file_name()).filter(|n| !n.as_encoded_bytes().starts_with(b"."));
    let near = |n: std::ffi::OsString| {
        let text = n.to_string_lossy().into_owned();
        // Another ending is near, whatever its length.
        let stem = |t: &str| Path::new(t).file_stem().map(|s| s.to_string_lossy().to_lowercase());
        let away = if stem(&text) == stem(&name) { 0 } else { distance(&text) };
        (away <= name.chars().count() / 3).then_some((away, n))
    };
    let (_, found) = names.filter_map(near).min()?;
    Some(folder.map_or_else(|| PathBuf::from(&found), |folder| folder.join(&found)))
}

/// The one of `all` that is nearest to `key`, if one is near.
pub fn nearest_of<'a>(key: &str, all: &'a [String]) -> Option<&'a String> {
    let distance = |other: &&String| strsim::damerau_levenshtein(other, key);
    all.iter().min_by_key(distance).filter(|other| distance(other) <= key.len() / 3)
}

/// `n` things in words: `1 tile`, `12 tiles`.
pub fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", plural(n))
}

/// What is put behind the name of `n` things.
pub fn plural(n: usize) -> &'static str {
    if n == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_name_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["network.pth", "other.safetensors", ".netwrok.pth"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert!(help(&at("netwrok.pth"), "x").contains("network.pth? x"));
        assert!(help(&at("other.pth"), "x").contains("other.safetensors?"));
        assert_eq!(help(&at("photo.png"), "x"), "x");
        assert!(help(&at("sub/a"), "x").contains("sub is not there; x"));
    }
}
