//! What a data set holds: pictures that are broken, small, gray or there twice, and numbers of all its pixels.
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::folder::{self, Rgb8, Source};
use crate::engine::cuda::sha256;
use crate::engine::threads::try_map;
use crate::error::{Error, Result};

/// A picture of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its file, and which of its images.
    pub path: PathBuf,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Whether no pixel has a colour.
    pub gray: bool,
    /// Whether its file is a JPEG of four inks, which srk turns into RGB without their profile.
    pub cmyk: bool,
    /// Over the pixels: two files with the same ones are one picture.
    digest: [u8; 32],
    /// Sums of the values of R, G and B and of their squares.
    sums: [[u64; 3]; 2],
}

/// All pictures of a set, in the order of their paths.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Those that can be read.
    pub entries: Vec<Entry>,
    /// The others, with the reason.
    pub broken: Vec<(PathBuf, String)>,
}

/// Means and deviations of R, G and B over all pixels of a set, in 0..=1.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Colors {
    /// Means.
    pub mean: [f64; 3],
    /// Standard deviations.
    pub deviation: [f64; 3],
}

/// Decodes everything under `paths`; `done` hears of each picture, with how many there are, and may stop the work.
///
/// # Errors
/// Exit code 2 if a path is missing or nothing is found; what `done` says.
pub fn survey(paths: &[PathBuf], done: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<Survey> {
    let sources = folder::find(paths)?;
    let one = |i: usize| -> Result<std::result::Result<Entry, (PathBuf, String)>> {
        let source = &sources[i];
        done(sources.len())?;
        match source.decode() {
            Ok(image) => Ok(Ok(look(source, &image))),
            Err(error @ Error::Interrupted { .. }) => Err(error),
            Err(error) => Ok(Err((source.name(), cause(&error)))),
        }
    };
    let mut survey = Survey::default();
    for result in try_map(sources.len(), one)? {
        match result {
            Ok(entry) => survey.entries.push(entry),
            Err(broken) => survey.broken.push(broken),
        }
    }
    Ok(survey)
}

fn look(source: &Source, image: &Rgb8) -> Entry {
    let (mut sums, mut gray) = ([[0u64; 3]; 2], true);
    for pixel in image.pixels.chunks_exact(3) {
        gray &= pixel[0] == pixel[1] && pixel[1] == pixel[2];
        for (channel, &value) in pixel.iter().enumerate() {
            sums[0][channel] += u64::from(value);
            sums[1][channel] += u64::from(value) * u64::from(value);
        }
    }
    Entry {
        path: source.name(),
        width: image.width,
        height: image.height,
        gray,
        cmyk: has_four_inks(source.file()).unwrap_or(false),
        digest: sha256::digest(&image.pixels),
        sums,
    }
}

/// Why a picture cannot be read, in a line.
fn cause(error: &Error) -> String {
    match error.report() {
        Some(report) if !report.cause.is_empty() => report.cause.replace('\n', " "),
        _ => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// Whether `path` is a JPEG of four components; none if it is no JPEG.
fn has_four_inks(path: &Path) -> Option<bool> {
    let mut file = BufReader::new(File::open(path).ok()?);
    let mut start = [0; 2];
    file.read_exact(&mut start).ok()?;
    if start != [0xFF, 0xD8] {
        return None;
    }
    loop {
        let mut marker = [0; 2];
        file.read_exact(&mut marker).ok()?;
        // Markers may be filled up with 0xFF.
        while marker[1] == 0xFF {
            file.read_exact(&mut marker[1..]).ok()?;
        }
        let mut length = [0; 2];
        file.read_exact(&mut length).ok()?;
        match marker[1] {
            0xC4 | 0xC8 | 0xCC => {}
            // A frame: bits, rows, columns, components.
            0xC0..=0xCF => {
                let mut frame = [0; 6];
                file.read_exact(&mut frame).ok()?;
                return Some(frame[5] == 4);
            }
            _ => {}
        }
        let rest = i64::from(u16::from_be_bytes(length)) - 2;
        file.seek(SeekFrom::Current(rest.max(0))).ok()?;
    }
}

impl Survey {
    /// How many pictures there are, broken ones included.
    pub fn len(&self) -> usize {
        self.entries.len() + self.broken.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Files with the same pixels as one before them, each with that one.
    pub fn twins(&self) -> Vec<[&Path; 2]> {
        let mut seen: BTreeMap<(usize, usize, [u8; 32]), &Path> = BTreeMap::new();
        let mut twins = Vec::new();
        for entry in &self.entries {
            let key = (entry.width, entry.height, entry.digest);
            match seen.get(&key) {
                Some(first) => twins.push([entry.path.as_path(), first]),
                None => drop(seen.insert(key, &entry.path)),
            }
        }
        twins
    }

    /// Files with the same pixels as one of `other`, each with that one.
    pub fn shared_with<'a>(&'a self, other: &'a Self) -> Vec<[&'a Path; 2]> {
        let key = |entry: &Entry| (entry.width, entry.height, entry.digest);
        let known: BTreeMap<_, &Path> =
            other.entries.iter().map(|entry| (key(entry), entry.path.as_path())).collect();
        let of = |entry: &'a Entry| Some([entry.path.as_path(), *known.get(&key(entry))?]);
        self.entries.iter().filter_map(of).collect()
    }

    /// All pixels that can be read.
    pub fn pixels(&self) -> u64 {
        self.entries.iter().map(|e| (e.width * e.height) as u64).sum()
    }

    /// The smallest, the middle and the largest of what `of` tells of the pictures; zeros if there are none.
    pub fn spread(&self, of: impl Fn(&Entry) -> usize) -> [usize; 3] {
        let mut all: Vec<usize> = self.entries.iter().map(of).collect();
        all.sort_unstable();
        let at = |i: usize| all.get(i).copied().unwrap_or(0);
        [at(0), at(all.len() / 2), at(all.len().saturating_sub(1))]
    }

    /// Means and deviations of the colours; the sums are exact, so that no order counts.
    pub fn colors(&self) -> Colors {
        let n = self.pixels().max(1) as f64;
        let sum = |power: usize, channel: usize| {
            self.entries.iter().map(|e| u128::from(e.sums[power][channel])).sum::<u128>() as f64
        };
        let mut colors = Colors::default();
        for channel in 0..3 {
            let mean = sum(0, channel) / n;
            let variance = (sum(1, channel) / n - mean * mean).max(0.0);
            colors.mean[channel] = mean / 255.0;
            colors.deviation[channel] = variance.sqrt() / 255.0;
        }
        colors
    }
}
