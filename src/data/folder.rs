//! Finding and decoding the images of a data set.
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Report, Result};
use crate::imaging::{self, Depth, Samples};

/// File endings that count as images, lower case.
const ENDINGS: [&str; 12] =
    ["png", "jpg", "jpeg", "webp", "tif", "tiff", "bmp", "ppm", "pgm", "pnm", "pam", "gif"];

/// An 8-bit RGB image in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb8 {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `[H, W, 3]`.
    pub pixels: Vec<u8>,
}

/// A decoded file.
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

/// The images under `paths` (files or folders, folders with all below them), sorted by path, each
/// once. Fails with exit code 2 if a path is missing or nothing is found.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in paths {
        let before = found.len();
        walk(path, &mut found).map_err(|e| {
            let report = Report::new(format!("cannot read the folder {}", path.display()), e);
            Error::Usage(report.help("--set 'data.train.paths=[\"FOLDER\"]'    names another"))
        })?;
        if found.len() == before {
            let what = format!("no images in {}", path.display());
            let cause = format!("no file below it ends in {}", ENDINGS.join(", "));
            let help = "--set 'data.train.paths=[\"FOLDER\"]'    names another folder";
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
    if !std::fs::metadata(path)?.is_dir() {
        found.push(path.to_owned());
        return Ok(());
    }
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_lowercase();
        // A link into nowhere is not an image; metadata follows links.
        match std::fs::metadata(&path) {
            Ok(m) if m.is_dir() => walk(&path, found)?,
            Ok(_) if ENDINGS.contains(&ending.as_str()) => found.push(path),
            _ => {}
        }
    }
    Ok(())
}

/// Decodes `files`, in their order. Broken ones are left out and named in one warning, or are an
/// error; that none is left is an error, exit code 2.
pub fn decode_all(
    files: &[PathBuf],
    on_broken: OnBroken,
    warn: &mut dyn FnMut(&str),
) -> Result<Vec<Picture>> {
    let decoded: Vec<Result<Rgb8>> = files.par_iter().map(|path| decode(path)).collect();
    let (mut pictures, mut broken) = (Vec::new(), Vec::new());
    for (path, image) in files.iter().zip(decoded) {
        match image {
            Ok(image) => pictures.push(Picture { path: path.clone(), image }),
            Err(e) => broken.push((path.clone(), e)),
        }
    }
    let list = broken.iter().map(|(path, e)| describe(path, e)).collect::<Vec<_>>().join("; ");
    let what = format!("{} of {} images cannot be read", broken.len(), files.len());
    if pictures.is_empty() || (on_broken == OnBroken::Error && !broken.is_empty()) {
        let help = "repair or remove them, or: --set data.train.on_broken=skip";
        return Err(Error::Usage(Report::new(what, list).help(help)));
    }
    if !broken.is_empty() {
        warn(&format!("{what} and are left out: {list}"));
    }
    Ok(pictures)
}

/// One line about a file that cannot be read.
fn describe(path: &Path, error: &Error) -> String {
    let text = error.to_string();
    let cause = text.lines().find_map(|l| l.strip_prefix("cause: ")).unwrap_or(&text);
    format!("{} ({cause})", path.display())
}

fn decode(path: &Path) -> Result<Rgb8> {
    let image = imaging::read(path)?.to_rgb().to_depth(Depth::Eight);
    match image.samples {
        Samples::U8(pixels) => Ok(Rgb8 { width: image.width, height: image.height, pixels }),
        Samples::U16(_) => unreachable!("to_depth narrows"),
    }
}

impl Rgb8 {
    /// The part of `width` x `height` pixels whose top left pixel is `(x, y)`.
    pub fn cut(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let row = |r: usize| &self.pixels[((y + r) * self.width + x) * 3..][..width * 3];
        let pixels = (0..height).flat_map(row).copied().collect();
        Self { width, height, pixels }
    }

    /// The largest part from the top left whose sides are multiples of `factor`.
    pub fn cut_to_multiple(&self, factor: usize) -> Self {
        self.cut(0, 0, self.width / factor * factor, self.height / factor * factor)
    }
}
