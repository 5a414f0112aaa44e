//! Finding and decoding the images of a data set.
use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::idx::{self, Images};
use super::list;
use super::packed::{self, Shard};
pub use super::rgb8::Rgb8;
use crate::engine::cuda::sha256;
use crate::engine::files as whole;
use crate::engine::spelling;
use crate::engine::threads::map;
use crate::error::{Error, Report, Result};
use crate::imaging::decode::MAX_PIXELS;
use crate::imaging::header::{Header, header};
use crate::imaging::{self, Color, Depth, Samples, folder as names};

/// Where an image is.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file of its own.
    File(PathBuf),
    /// One of many in an idx file, which is in memory.
    Idx(Arc<Images>, usize),
    /// One of many in a tar file, which is not.
    Packed(Arc<Shard>, usize),
}

/// A decoded image.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Where it came from.
    pub path: PathBuf,
    /// Its pixels, oriented, without alpha.
    pub image: Rgb8,
}

/// What to do with an image that cannot be decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBroken {
    /// Leave it out, with a warning that names it.
    #[default]
    Skip,
    /// Stop before training starts.
    Error,
}

/// The images under `paths` (files, idx files, tar files, folders with all pictures below them, or [lists](list) of such),
/// sorted by path, each once.
///
/// What is called like a picture and is no file, and a folder that cannot be listed, are among them, as pictures that
/// cannot be decoded: what is done with broken ones is done with them.
///
/// # Errors
/// Exit code 2 if a path is missing or nothing is found; 1 if one cannot be listed, or an idx file is damaged.
pub fn find(paths: &[PathBuf]) -> Result<Vec<Source>> {
    find_or(paths, ELSEWHERE)
}

/// As [`find`], with `help` of its own where there is nothing.
///
/// # Errors
/// As there.
pub fn find_or(paths: &[PathBuf], help: &str) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let named = with_lists(paths)?;
    let by_name: HashSet<&PathBuf> = named.iter().collect();
    for file in files(&named, help)? {
        if packed::is_tar(&file) {
            let shard = Arc::new(Shard::open(&file)?);
            sources.extend((0..shard.len()).map(|i| Source::Packed(Arc::clone(&shard), i)));
            continue;
        }
        // In folders only pictures are looked for: one with MNIST's files holds train and test alike.
        match by_name.contains(&file) && idx::is_idx(&file) {
            false => sources.push(Source::File(file)),
            true => {
                let images = Arc::new(Images::read(&file)?);
                sources.extend((0..images.len()).map(|i| Source::Idx(Arc::clone(&images), i)));
            }
        }
    }
    Ok(sources)
}

/// The images under `paths` in words that differ where the images do: how many there are, and a hash of the names and
/// sizes of the files that they are in, wherever those lie.
///
/// # Errors
/// As [`find`].
pub fn listing(paths: &[PathBuf]) -> Result<String> {
    described(&find(paths)?)
}

/// The same of images that were found.
///
/// # Errors
/// Exit code 1 if a file is gone meanwhile.
pub fn described(sources: &[Source]) -> Result<String> {
    let (mut text, mut bytes) = (String::new(), 0);
    let mut last: Option<&Path> = None;
    for file in sources.iter().map(Source::file) {
        if last == Some(file) {
            continue;
        }
        last = Some(file);
        // Links to nothing are among them, and what is done with broken ones is done with them.
        let size = std::fs::metadata(file).map_or(0, |m| m.len());
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        text += &format!("{name} {size}\n");
        bytes += size;
    }
    let hash = sha256::hex(text.as_bytes());
    let images = spelling::counted(sources.len(), "image");
    Ok(format!("{images} in files of {bytes} bytes, listing {}", &hash[..16]))
}

/// `paths` with the entries of lists in their place.
fn with_lists(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut named = Vec::new();
    for path in paths {
        match list::is_list(path) {
            true => named.extend(list::read(path)?),
            false => named.push(path.clone()),
        }
    }
    Ok(named)
}

/// What helps where something is there and cannot be read.
const PERMISSIONS: &str = "check the permissions";

/// What helps where no images are found, in training and elsewhere.
const ELSEWHERE: &str = "name a folder of pictures that is there; for training: --set 'data.train.paths=[\"FOLDER\"]', \
     and data.val.paths for validation";

fn files(paths: &[PathBuf], help: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        walk(path, &mut found).map_err(|e| {
            let missing = e.kind() == ErrorKind::NotFound;
            let report = Report::new(format!("cannot read {}", path.display()), e);
            match missing {
                true => Error::Usage(report.code("not_found").help(spelling::help(path, help))),
                false => Error::Failed(report.code("unreadable").help(PERMISSIONS)),
            }
        })?;
        if found.len() == before {
            let what = format!("no images in {}", path.display());
            let cause = format!("no file below it ends in {}", names::ENDINGS.join(", "));
            return Err(Error::Usage(Report::new(what, cause).help(help)));
        }
    }
    found.sort();
    found.dedup();
    match found.is_empty() {
        true => Err(Error::Usage(Report::new("no images to read", "the list of paths is empty"))),
        false => Ok(found),
    }
}

fn walk(path: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    match std::fs::metadata(path)?.is_dir() {
        true => {
            let listing = names::listing(path, true)?;
            found.extend(listing.pictures.into_iter().chain(listing.no_files));
            found.extend(listing.closed.into_iter().map(|(folder, _)| folder));
            let inside = std::fs::read_dir(path)?.flatten().map(|entry| entry.path());
            found.extend(inside.filter(|path| packed::is_tar(path)));
        }
        false => found.push(path.to_owned()),
    }
    Ok(())
}

/// Decodes `sources`, in their order. Broken ones are left out and named in one warning, or are an
/// error; that none is left is an error, exit code 2.
pub fn decode_all(
    sources: &[Source],
    on_broken: OnBroken,
    warn: &mut dyn FnMut(&str),
) -> Result<Vec<Picture>> {
    let decoded = map(sources.len(), |i| sources[i].decode());
    let (mut pictures, mut broken) = (Vec::new(), Vec::new());
    for (source, image) in sources.iter().zip(decoded) {
        match image {
            Ok(image) => pictures.push(Picture { path: source.name(), image }),
            Err(error @ Error::Interrupted { .. }) => return Err(error),
            Err(e) => broken.push((source.name(), e)),
        }
    }
    report_broken((&broken, sources.len()), on_broken, "data.on_broken", warn)?;
    Ok(pictures)
}

/// Names the `broken` ones of `all` images in one warning, or fails: if they should be an error, or none
/// is left; `key` is that of `on_broken`.
pub(super) fn report_broken(
    (broken, all): (&[(PathBuf, Error)], usize),
    on_broken: OnBroken,
    key: &str,
    warn: &mut dyn FnMut(&str),
) -> Result<()> {
    let list = broken.iter().map(|(path, e)| describe(path, e)).collect::<Vec<_>>().join("; ");
    let what = format!("{} of {all} images cannot be read", broken.len());
    if broken.len() == all || (on_broken == OnBroken::Error && !broken.is_empty()) {
        let help = format!("repair or remove them, or: --set {key}=skip");
        return Err(Error::Usage(Report::new(what, list).help(help)));
    }
    if !broken.is_empty() {
        warn(&format!("{what} and are left out: {list}"));
    }
    Ok(())
}

/// One line about a file that cannot be read.
pub(super) fn describe(path: &Path, error: &Error) -> String {
    let text = error.to_string();
    let cause = text.lines().find_map(|l| l.strip_prefix("cause: ")).unwrap_or(&text);
    format!("{} ({cause})", path.display())
}

impl Source {
    /// What messages call it: the file, and which of its images.
    pub fn name(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Idx(images, index) => images.name(*index),
            Self::Packed(shard, index) => shard.name(*index),
        }
    }

    /// The file it is in.
    pub fn file(&self) -> &Path {
        match self {
            Self::File(path) => path,
            Self::Idx(images, _) => images.path(),
            Self::Packed(shard, _) => shard.path(),
        }
    }

    /// Width and height as far as they can be known without decoding it.
    pub(super) fn size(&self) -> Option<(usize, usize)> {
        let head = match self {
            Self::File(path) => imaging::header::of_file(path)?,
            Self::Packed(shard, index) => header(&shard.bytes(*index).ok()?)?,
            Self::Idx(images, _) => return Some(images.size()),
        };
        Some((head.width, head.height))
    }

    pub(super) fn decode(&self) -> Result<Rgb8> {
        self.decode_if(&|_| Ok(()))
    }

    /// Decodes it, unless `fits`, which is told about how many bytes that takes, says otherwise.
    pub(super) fn decode_if(&self, fits: &dyn Fn(u64) -> Result<()>) -> Result<Rgb8> {
        match self {
            Self::File(path) => {
                refuse_other(path)?;
                decode(&imaging::decode::read_bytes(path)?, &path.display().to_string(), fits)
            }
            Self::Packed(shard, index) => {
                decode(&shard.bytes(*index)?, &shard.name(*index).display().to_string(), fits)
            }
            Self::Idx(images, index) => Ok(images.image(*index)),
        }
    }
}

/// Refuses what [`find`] found and is no file.
///
/// # Errors
/// [`Error::Failed`] with the reason: a pipe is never opened, a folder is there because it cannot be listed.
pub(super) fn refuse_other(path: &Path) -> Result<()> {
    let (verb, help, looked) = match path.is_dir() {
        true => ("list", PERMISSIONS, std::fs::read_dir(path).map(drop)),
        false => ("read", "", whole::refuse_endless(path)),
    };
    looked.map_err(|e| {
        let report = Report::new(format!("cannot {verb} {}", path.display()), e);
        Error::Failed(report.code("unreadable").help(help))
    })
}

fn decode(bytes: &[u8], name: &str, fits: &dyn Fn(u64) -> Result<()>) -> Result<Rgb8> {
    // Beyond the limit decoding refuses the file, as one that is broken, whatever fits.
    let allowed = |h: &Header| (h.width as u64).saturating_mul(h.height as u64) <= MAX_PIXELS;
    if let Some(header) = header(bytes).filter(allowed) {
        fits(header.decoding)?;
    }
    let image = imaging::decode(bytes, name)?;
    // Only what is not of this kind is copied.
    let image = if image.color == Color::Rgb { image } else { image.to_rgb() };
    let image = image.to_depth(Depth::Eight);
    match image.samples {
        Samples::U8(pixels) => Ok(Rgb8 { width: image.width, height: image.height, pixels }),
        Samples::U16(_) => unreachable!("to_depth narrows"),
    }
}
