//! Pictures cut into overlapping squares, as BasicSR's `extract_subimages` cuts them, and the low resolutions of whole
//! sets.
//!
//! ```text
//! squares alone          OUT/NAME_s001.png
//! low resolutions alone  OUT/high/NAME.png        OUT/low/NAMEx4.png
//! both                   OUT/high/NAME_s001.png   OUT/low/NAME_s001x4.png
//! ```
//!
//! A low resolution is made of a whole picture, cut at the right and below to a multiple of the factor, before it is
//! cut into squares: at the edges of a square it is what it is in the picture. All are 8-bit RGB.
use std::path::{Path, PathBuf};

use super::degrade::{self, Degrade};
use super::folder::{self, Rgb8, Source};
use super::lows::Lows;
use super::prep;
use crate::engine::threads::try_map;
use crate::error::{Error, Report, Result};
use crate::imaging::{self, Color, EncodeOptions, Image};

/// Which squares of a picture, numbered row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Squares {
    /// Their side in pixels.
    pub side: usize,
    /// From one to the next.
    pub step: usize,
    /// More than so many pixels that are left at the end of a side get a square that ends with it.
    pub thresh: usize,
}

impl Squares {
    /// Where squares start along a side of `length` pixels; nowhere if it is shorter than one.
    pub fn starts(&self, length: usize) -> Vec<usize> {
        let Some(room) = length.checked_sub(self.side) else { return Vec::new() };
        let mut starts: Vec<usize> = (0..=room).step_by(self.step.max(1)).collect();
        if room - starts.last().copied().unwrap_or(0) > self.thresh {
            starts.push(room);
        }
        starts
    }
}

/// Low resolutions.
#[derive(Clone, Debug)]
pub struct Low {
    /// The factor between the resolutions.
    pub scale: usize,
    /// How they are made.
    pub method: Degrade,
    /// Files and folders that hold them, where they are not made.
    pub given: Vec<PathBuf>,
}

/// What to write.
#[derive(Clone, Debug)]
pub struct Request {
    /// Files, idx files, folders with all pictures below them, and lists of such.
    pub inputs: Vec<PathBuf>,
    /// Where to; new or empty unless `force`.
    pub out: PathBuf,
    /// The squares; whole pictures if left out.
    pub squares: Option<Squares>,
    /// The low resolutions; none if left out.
    pub low: Option<Low>,
    /// Whether `out` may hold something.
    pub force: bool,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Pictures that were read and large enough.
    pub pictures: usize,
    /// Images made of them, their low resolutions not counted.
    pub images: usize,
    /// Pictures that were left out, with the reason.
    pub skipped: Vec<String>,
}

/// Writes all of them; `done` hears of each picture, with how many there are, and may stop the work.
///
/// # Errors
/// Exit code 2 if sizes or folders are wrong or nothing is found; 1 if nothing comes of any picture, or an image cannot
/// be written; what `done` says.
pub fn write(request: &Request, done: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<Written> {
    request.check()?;
    let sources = folder::find(&request.inputs)?;
    request.check_place(&sources)?;
    if let Some(low) = request.low.as_ref().filter(|low| !low.given.is_empty()) {
        request.check_place(&folder::find(&low.given)?)?;
    }
    let given = match &request.low {
        Some(low) => Lows::find(&low.given, &sources, low.scale)?,
        None => None,
    };
    let names = prep::names(&sources);
    for part in request.folders() {
        let path = request.out.join(part);
        std::fs::create_dir_all(&path).map_err(|e| {
            let report = Report::new(format!("cannot create {}", path.display()), e);
            Error::Failed(report.code("write").help("name a folder you may write to"))
        })?;
    }
    let results = try_map(sources.len(), |i| {
        done(sources.len())?;
        request.picture(&sources[i], &names[i], given.as_ref())
    });
    let mut written = Written::default();
    for result in results? {
        match result {
            Ok(images) => {
                written.pictures += 1;
                written.images += images;
            }
            Err(reason) => written.skipped.push(reason),
        }
    }
    if written.pictures == 0 {
        let what = format!("nothing came of {} pictures", sources.len());
        return Err(Error::Failed(Report::new(what, written.skipped.join("; "))));
    }
    Ok(written)
}

impl Request {
    fn check(&self) -> Result<()> {
        let wrong = |what: String, help: &str| Err(Error::Usage(Report::new(what, "").help(help)));
        let scale = self.low.as_ref().map_or(1, |low| low.scale);
        if scale == 0 {
            return wrong("a factor of 0 leaves nothing".into(), "--scale 4");
        }
        if let Some(Squares { side, step, .. }) = self.squares {
            if side == 0 || step == 0 {
                let what = format!("cannot cut squares of {side} pixels at steps of {step}");
                return wrong(what, "--crop 480 --step 240    overlap by half");
            }
            if !side.is_multiple_of(scale) || !step.is_multiple_of(scale) {
                let what = format!("{side} and {step} are no multiples of the factor {scale}");
                return wrong(what, "--crop 480 --step 240 --scale 4    fit together");
            }
        }
        let holds = std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some());
        if holds && !self.force {
            let what = format!("{} is not empty", self.out.display());
            return wrong(what, "name a new folder, or replace files in it with --force");
        }
        Ok(())
    }

    /// Refuses to write where pictures are read.
    fn check_place(&self, sources: &[Source]) -> Result<()> {
        let Ok(out) = std::fs::canonicalize(&self.out) else { return Ok(()) };
        let lies_there =
            |source: &&Source| source.file().canonicalize().is_ok_and(|p| p.starts_with(&out));
        match sources.iter().find(lies_there) {
            None => Ok(()),
            Some(source) => {
                let what = format!("{} lies in the folder to write", source.file().display());
                let report = Report::new(what, format!("that is {}", self.out.display()));
                Err(Error::Usage(report.code("overwrites_input").help("name another folder")))
            }
        }
    }

    /// The folders of images below `out`.
    fn folders(&self) -> &'static [&'static str] {
        if self.low.is_some() { &["high", "low"] } else { &[""] }
    }

    /// Writes what comes of a picture: how many images, or why it is left out.
    fn picture(
        &self,
        source: &Source,
        name: &str,
        given: Option<&Lows>,
    ) -> Result<std::result::Result<usize, String>> {
        let path = source.name();
        let image = match source.decode() {
            Ok(image) => image,
            Err(error @ Error::Interrupted { .. }) => return Err(error),
            Err(error) => return Ok(Err(folder::describe(&path, &error))),
        };
        let too_small = |least: usize| {
            let size = format!("{}x{}", image.width, image.height);
            Ok(Err(format!("{} ({size}, smaller than {least}x{least})", path.display())))
        };
        let scale = self.low.as_ref().map_or(1, |low| low.scale);
        let least = self.squares.map_or(scale, |squares| squares.side);
        if image.width.min(image.height) < least {
            return too_small(least);
        }
        let high = image.cut_to_multiple(scale);
        let low = match (&self.low, given) {
            (None, _) => None,
            (Some(low), None) => Some(degrade::shrink(&high, low.method, scale)?),
            (Some(_), Some(given)) => match given.of(&path, &high, scale) {
                Ok((low, _)) => Some(low),
                Err(error) => return Ok(Err(folder::describe(&path, &error))),
            },
        };
        let Some(squares) = self.squares else {
            self.save(name, high, low)?;
            return Ok(Ok(1));
        };
        let (side, small) = (squares.side, squares.side / scale);
        let mut count = 0;
        for y in squares.starts(high.height) {
            for x in squares.starts(high.width) {
                count += 1;
                let low = low.as_ref().map(|low| low.cut(x / scale, y / scale, small, small));
                self.save(&format!("{name}_s{count:03}"), high.cut(x, y, side, side), low)?;
            }
        }
        Ok(Ok(count))
    }

    fn save(&self, name: &str, high: Rgb8, low: Option<Rgb8>) -> Result<()> {
        let parts = self.folders();
        write_png(&self.out.join(parts[0]).join(format!("{name}.png")), high)?;
        match (low, &self.low) {
            (Some(low), Some(Low { scale, .. })) => {
                write_png(&self.out.join(parts[1]).join(format!("{name}x{scale}.png")), low)
            }
            _ => Ok(()),
        }
    }
}

fn write_png(path: &Path, image: Rgb8) -> Result<()> {
    let image = Image::from_u8(image.width, image.height, Color::Rgb, image.pixels)?;
    imaging::write(path, &image, EncodeOptions::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn squares_start_where_basicsr_starts_them() {
        let starts = |side, step, thresh, length| Squares { side, step, thresh }.starts(length);
        // np.arange(0, 2040 - 480 + 1, 240), and 1560 appended where more than thresh are left.
        assert_eq!(starts(480, 240, 0, 1356), [0, 240, 480, 720, 876]);
        assert_eq!(starts(480, 240, 156, 1356), [0, 240, 480, 720]);
        assert_eq!(starts(480, 240, 0, 1440), [0, 240, 480, 720, 960]);
        assert_eq!(starts(480, 480, 0, 480), [0]);
        assert!(starts(480, 240, 0, 479).is_empty());
    }
}
