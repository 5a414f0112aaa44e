//! Low-resolution images that are given in place of made, found by the names of their high-resolution ones.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::folder::{self, Rgb8, Source};
use crate::error::{Error, Report, Result};

/// The images by the stems of their files, less an ending such as `x4`.
#[derive(Clone, Debug)]
pub struct Lows(Arc<BTreeMap<String, Source>>);

/// The name by which two files belong together, `scale` times as large one as the other.
pub fn key(path: &Path, scale: usize) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ends = [format!("_x{scale}"), format!("x{scale}"), "_lr".into(), "_hr".into()];
    let cut = ends.iter().find_map(|end| stem.strip_suffix(end.as_str()));
    cut.unwrap_or(&stem).to_owned()
}

impl Lows {
    /// Those below `paths`, for all of `highs`; none if `paths` is empty.
    ///
    /// # Errors
    /// [`Error::Usage`] with the first names if some have no partner, or two.
    pub fn find(paths: &[PathBuf], highs: &[Source], scale: usize) -> Result<Option<Self>> {
        if paths.is_empty() {
            return Ok(None);
        }
        let mut found: BTreeMap<String, Source> = BTreeMap::new();
        for source in folder::find(paths)? {
            let path = source.name();
            if let Some(other) = found.insert(key(&path, scale), source) {
                let what = "two low-resolution images have one name";
                let cause = format!("{} and {}", other.name().display(), path.display());
                return Err(Error::Usage(Report::new(what, cause).help("name one folder of them")));
            }
        }
        let alone = |source: &&Source| !found.contains_key(&key(&source.name(), scale));
        let alone: Vec<_> = highs.iter().filter(alone).map(|source| source.name()).collect();
        if let Some(first) = alone.first() {
            let (n, all) = (alone.len(), highs.len());
            let verb = if n == 1 { "has" } else { "have" };
            let what = format!("{n} of {all} images {verb} no low resolution");
            let cause = format!("first {}; {} are given", first.display(), found.len());
            let help =
                format!("pairs are found by file names, with or without x{scale} at their end");
            return Err(Error::Usage(Report::new(what, cause).help(help)));
        }
        Ok(Some(Self(Arc::new(found))))
    }

    /// The low resolution of `high`, `scale` times as large, which `name` names.
    ///
    /// # Errors
    /// If it cannot be read or has another size.
    pub(super) fn of(&self, name: &Path, high: &Rgb8, scale: usize) -> Result<Rgb8> {
        let Some(source) = self.0.get(&key(name, scale)) else {
            let what = format!("{} has no low resolution", name.display());
            return Err(Error::Failed(Report::new(what, "it was not there at the start")));
        };
        let low = source.decode()?;
        let wanted = (high.width / scale, high.height / scale);
        if (low.width, low.height) == wanted {
            return Ok(low);
        }
        let what =
            format!("{} is no low resolution of {}", source.name().display(), name.display());
        let cause = format!(
            "it is {}x{}, at a factor of {scale} it would be {}x{}",
            low.width, low.height, wanted.0, wanted.1
        );
        Err(Error::Failed(Report::new(what, cause).code("size")))
    }
}
