//! Low-resolution images that are given in place of made, found by the names of their high-resolution ones.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::degrade::Damage;
use super::folder::{self, Rgb8, Source};
use super::pairs::Known;
use crate::error::{Error, Report, Result};

/// The images by the stems of their files, less an ending such as `x4`.
#[derive(Clone, Debug)]
pub struct Lows(Arc<BTreeMap<String, Given>>);

#[derive(Clone, Debug)]
struct Given {
    source: Source,
    /// What was done to it, where `srk data degrade` made it.
    damage: Option<Damage>,
}

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
    /// [`Error::Usage`] with the first names if some have no partner, or two, or what `srk data degrade` wrote of them
    /// cannot be read.
    pub fn find(paths: &[PathBuf], highs: &[Source], scale: usize) -> Result<Option<Self>> {
        if paths.is_empty() {
            return Ok(None);
        }
        let mut known = BTreeMap::new();
        for path in paths {
            known.append(&mut damages(path)?);
        }
        let mut found: BTreeMap<String, Given> = BTreeMap::new();
        for source in folder::find(paths)? {
            let path = source.name();
            let given = Given { damage: known.get(&path).copied(), source };
            if let Some(Given { source: other, .. }) = found.insert(key(&path, scale), given) {
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

    /// The low resolution of `high`, `scale` times as large, which `name` names, and its damage where that is known.
    ///
    /// # Errors
    /// If it cannot be read or has another size.
    pub(super) fn of(
        &self,
        name: &Path,
        high: &Rgb8,
        scale: usize,
    ) -> Result<(Rgb8, Option<Damage>)> {
        let Some(Given { source, damage }) = self.0.get(&key(name, scale)) else {
            let what = format!("{} has no low resolution", name.display());
            return Err(Error::Failed(Report::new(what, "it was not there at the start")));
        };
        let low = source.decode()?;
        let wanted = (high.width / scale, high.height / scale);
        if (low.width, low.height) == wanted {
            return Ok((low, *damage));
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

/// What `srk data degrade` wrote beside the folder `low` of its pairs: the damage of each by its path.
fn damages(folder: &Path) -> Result<BTreeMap<PathBuf, Damage>> {
    let Some(root) = folder.parent().filter(|_| folder.is_dir()) else {
        return Ok(BTreeMap::new());
    };
    let list = root.join("pairs.json");
    let text = match std::fs::read(&list) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(e) => return Err(unreadable(&list, e)),
    };
    let pairs: Vec<Known> = serde_json::from_slice(&text).map_err(|e| unreadable(&list, e))?;
    let placed = pairs.into_iter().map(|pair| (root.join(pair.low), pair.damage));
    Ok(placed.collect())
}

fn unreadable(list: &Path, e: impl std::fmt::Display) -> Error {
    let what =
        format!("cannot read {}, which tells the damage of the low resolutions", list.display());
    Error::Usage(
        Report::new(what, e.to_string()).help("move it away to train without knowing the damage"),
    )
}
