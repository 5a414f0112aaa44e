//! A folder of prepared pictures: each at a high resolution, at a low one, and enlarged from that.
use std::collections::HashSet;
use std::path::PathBuf;

use super::folder::{self, Rgb8, Source};
use crate::engine::outputs::{Existing, Outputs};
use crate::engine::threads::try_map;
use crate::error::{Error, Report, Result};
use crate::imaging::resample::{self, Filter, Shape};
use crate::imaging::{self, Color, EncodeOptions, Image};

/// How a picture becomes a square.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Its short side becomes the size, and its middle is kept; low and high are both made of the
    /// picture (as SR3's published preparation does).
    #[default]
    Crop,
    /// All of it is squeezed or stretched; the low one is made of the high one (as published for DIV2K
    /// from 64 to 256 pixels).
    Squash,
}

/// What to prepare.
#[derive(Clone, Debug)]
pub struct Request {
    /// Files, idx files, and folders with all pictures below them.
    pub inputs: Vec<PathBuf>,
    /// Where to; new or empty unless `force`.
    pub out: PathBuf,
    /// Side of the low resolution.
    pub low: usize,
    /// Side of the high resolution.
    pub high: usize,
    /// How pictures become squares.
    pub method: Method,
    /// How they are resampled, as Pillow does.
    pub filter: Filter,
    /// The share of the pictures, in sorted order, that is for training.
    pub split: f64,
    /// Whether `out` may hold something.
    pub force: bool,
}

/// What was prepared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// Pictures for training.
    pub train: usize,
    /// Pictures for testing.
    pub test: usize,
    /// Those that could not be read, with the reason.
    pub skipped: Vec<String>,
}

/// Folders of high, low and enlarged pictures, for training and for testing.
const FOLDERS: [[&str; 3]; 2] =
    [["train", "train_lr_data", "train_hr_lr_data"], ["test", "test_lr_data", "test_hr_lr_data"]];

/// Prepares all pictures; `done` hears of each, with how many there are, and may stop the work.
///
/// # Errors
/// Exit code 2 if sizes or folders are wrong or nothing is found; 1 if no picture can be read or one
/// cannot be written; what `done` says.
pub fn prep(request: &Request, done: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<Prepared> {
    request.check()?;
    let sources = folder::find(&request.inputs)?;
    let names = names(&sources);
    request.check_outputs(&sources, &names)?;
    for folder in FOLDERS.iter().flatten() {
        let path = request.out.join(folder);
        std::fs::create_dir_all(&path).map_err(|e| {
            let report = Report::new(format!("cannot create {}", path.display()), e);
            Error::Failed(report.code("write").help("name a folder you may write to"))
        })?;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most the count"
    )]
    let train = (sources.len() as f64 * request.split) as usize;
    let one = |i: usize| -> Result<Option<String>> {
        let source = &sources[i];
        done(sources.len())?;
        let image = match source.decode() {
            Ok(image) => image,
            Err(error @ Error::Interrupted { .. }) => return Err(error),
            Err(error) => return Ok(Some(folder::describe(&source.name(), &error))),
        };
        let folders = FOLDERS[usize::from(i >= train)];
        for (folder, image) in folders.into_iter().zip(request.versions(&image)?) {
            let path = request.output(folder, &names[i]);
            let image = Image::from_u8(image.width, image.height, Color::Rgb, image.pixels)?;
            imaging::write(&path, &image, EncodeOptions::default())?;
        }
        Ok(None)
    };
    let results = try_map(sources.len(), one)?;
    let good = |part: &[Option<String>]| part.iter().filter(|r| r.is_none()).count();
    let prepared = Prepared {
        train: good(&results[..train]),
        test: good(&results[train..]),
        skipped: results.into_iter().flatten().collect(),
    };
    if prepared.train + prepared.test == 0 {
        let what = format!("none of {} pictures can be read", sources.len());
        return Err(Error::Failed(Report::new(what, prepared.skipped.join("; "))));
    }
    Ok(prepared)
}

/// What each picture is called: the name of its file, with a number where that is taken.
pub(super) fn names(sources: &[Source]) -> Vec<String> {
    let stem = |source: &Source| match source {
        Source::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        Source::Packed(..) => {
            source.name().file_stem().unwrap_or_default().to_string_lossy().into_owned()
        }
        Source::Idx(_, index) => {
            let name = source.name();
            let name = name.file_name().unwrap_or_default().to_string_lossy();
            let stem = name.split(['.', '#']).next().unwrap_or_default();
            format!("{stem}-{index:05}")
        }
    };
    let stems: Vec<String> = sources.iter().map(stem).collect();
    let mut taken: HashSet<String> = HashSet::new();
    // Names that files have themselves are not given to others.
    let own: HashSet<&String> = stems.iter().collect();
    let name = |stem: &String| {
        let mut numbered = (2..).map(|i| format!("{stem}_{i}")).filter(|name| !own.contains(name));
        let mut name = stem.clone();
        // File systems may not tell apart what differs in case.
        while !taken.insert(name.to_lowercase()) {
            name = numbered.next().unwrap_or_default();
        }
        name
    };
    stems.iter().map(name).collect()
}

impl Request {
    fn check(&self) -> Result<()> {
        let wrong = |what: String, help: &str| Error::Usage(Report::new(what, "").help(help));
        let (low, high) = (self.low, self.high);
        if low == 0 || high <= low || high > 1 << 14 {
            let what = format!("cannot prepare pictures of {low} and {high} pixels");
            return Err(wrong(what, "--low 64 --high 256    is a pair of sizes"));
        }
        if !(0.0..=1.0).contains(&self.split) {
            return Err(wrong(format!("{} is no share", self.split), "--split 0.9"));
        }
        let holds = std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some());
        if holds && !self.force {
            let what = format!("{} is not empty", self.out.display());
            return Err(wrong(what, "name a new folder, or replace files in it with --force"));
        }
        Ok(())
    }

    fn output(&self, folder: &str, name: &str) -> PathBuf {
        self.out.join(folder).join(format!("{name}.png"))
    }

    /// Nothing that is read may be written, and without `force` nothing that is there.
    fn check_outputs(&self, sources: &[Source], names: &[String]) -> Result<()> {
        let existing = if self.force { Existing::Overwrite } else { Existing::Refuse };
        let mut outputs = Outputs::new(existing, "--force replaces it");
        let inputs = || sources.iter().map(Source::file);
        inputs().for_each(|input| outputs.reads(input));
        for (input, name) in inputs().zip(names) {
            for folder in FOLDERS.iter().flatten() {
                outputs.claim(&self.output(folder, name), input)?;
            }
        }
        Ok(())
    }

    /// The picture at the high resolution, at the low one, and enlarged from that.
    fn versions(&self, image: &Rgb8) -> Result<[Rgb8; 3]> {
        let (low, high) = (self.low, self.high);
        let [large, small] = match self.method {
            Method::Crop => [self.square(image, high)?, self.square(image, low)?],
            Method::Squash => {
                let large = self.resized(image, high, high)?;
                let small = self.resized(&large, low, low)?;
                [large, small]
            }
        };
        let enlarged = self.resized(&small, high, high)?;
        Ok([large, small, enlarged])
    }

    /// The short side becomes `side`; the middle is kept, the odd pixel cut off where Python rounds to.
    fn square(&self, image: &Rgb8, side: usize) -> Result<Rgb8> {
        let short = image.width.min(image.height);
        let long = |v: usize| if v == short { side } else { (side * v / short).max(side) };
        let image = self.resized(image, long(image.width), long(image.height))?;
        let start = |v: usize| {
            let (half, odd) = ((v - side) / 2, (v - side) % 2);
            half + odd * (half % 2)
        };
        Ok(image.cut(start(image.width), start(image.height), side, side))
    }

    fn resized(&self, image: &Rgb8, width: usize, height: usize) -> Result<Rgb8> {
        let from = Shape::new(image.height, image.width, 3);
        let pixels = resample::pillow(&image.pixels, from, height, width, self.filter)?;
        Ok(Rgb8 { width, height, pixels })
    }
}
