//! Writes damaged pairs as training makes them, to look at or to test with.
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::degrade::{self, Damage, Degraded, Drawn, Draws, Process};
use super::folder::{self, Rgb8, Source};
use crate::engine::files::atomic_write;
use crate::engine::outputs::{Existing, Outputs};
use crate::engine::spelling;
use crate::engine::threads::try_map;
use crate::error::{Error, Report, Result};
use crate::imaging::{self, Color, EncodeOptions, Image};

/// What to write.
#[derive(Clone, Debug)]
pub struct Request {
    /// Files, idx files, and folders with all pictures below them.
    pub inputs: Vec<PathBuf>,
    /// Where to: `high/`, `low/` and `pairs.json`; new or empty unless `force`.
    pub out: PathBuf,
    /// The damage.
    pub process: Process,
    /// The factor between the resolutions.
    pub scale: usize,
    /// Pairs; the pictures take turns in sorted order.
    pub count: usize,
    /// Side of a truth, a multiple of the scale.
    pub size: usize,
    /// Of all draws.
    pub seed: u64,
    /// Whether low-resolution images are the files that compression made, where it came last. Each truth
    /// then is a whole photograph, not a part of a larger one.
    pub as_files: bool,
    /// Whether `out` may hold something.
    pub force: bool,
}

/// A pair, as `pairs.json` tells of it.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// The truth, below the folder.
    pub high: String,
    /// The low-resolution image.
    pub low: String,
    /// The picture it is cut out of.
    pub source: String,
    /// The left column and the top row of the truth there.
    pub place: [usize; 2],
    /// What was done to it.
    pub drawn: Drawn,
    /// In numbers.
    pub damage: Damage,
}

/// What training asks of `pairs.json`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Known {
    /// The low-resolution image, below the folder.
    pub(super) low: String,
    /// What was done to it.
    pub(super) damage: Damage,
}

/// Writes all pairs; `done` hears of each and may stop the work. Pictures that are smaller than the truths asked for are left
/// out, as `warn` hears.
///
/// # Errors
/// Exit code 2 if sizes or folders are wrong or nothing is found; 1 if a picture cannot be read, none is as large as
/// the truths, or a file cannot be written; what `done` says.
pub fn write(
    request: &Request,
    warn: &mut dyn FnMut(&str),
    done: &(dyn Fn() -> Result<()> + Sync),
) -> Result<Vec<Pair>> {
    request.check()?;
    let sources = request.large_enough(folder::find(&request.inputs)?, warn)?;
    let digits = request.count.to_string().len().max(3);
    request.check_outputs(&sources, digits)?;
    for part in ["high", "low"] {
        let path = request.out.join(part);
        std::fs::create_dir_all(&path).map_err(|e| {
            let report = Report::new(format!("cannot create {}", path.display()), e);
            Error::Failed(report.code("write").help("name a folder you may write to"))
        })?;
    }
    let one = |i: usize| -> Result<Pair> {
        done()?;
        request.pair(&sources[i % sources.len()], i, &format!("{i:0digits$}"))
    };
    let pairs = try_map(request.count, one)?;
    let lines = pairs.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<_>>>();
    let lines = lines.map_err(|e| Error::Failed(Report::new("cannot write pairs.json", e)))?;
    let text = format!("[\n{}\n]\n", lines.join(",\n"));
    atomic_write(&request.out.join("pairs.json"), |file| file.write_all(text.as_bytes()))?;
    Ok(pairs)
}

impl Request {
    fn check(&self) -> Result<()> {
        let wrong = |what: String, help: &str| Err(Error::Usage(Report::new(what, "").help(help)));
        if self.scale == 0 || self.size == 0 || !self.size.is_multiple_of(self.scale) {
            let what = format!("{} is not a multiple of the scale, {}", self.size, self.scale);
            return wrong(what, "--size 384 --scale 4    fit together");
        }
        if self.count == 0 {
            return wrong("there are no pairs to write".into(), "--count 50");
        }
        let holds = std::fs::read_dir(&self.out).is_ok_and(|mut entries| entries.next().is_some());
        if holds && !self.force {
            let what = format!("{} is not empty", self.out.display());
            return wrong(what, "name a new folder, or replace files in it with --force");
        }
        Ok(())
    }

    /// Nothing that is read may be written, and without `force` nothing that is there.
    fn check_outputs(&self, sources: &[Source], digits: usize) -> Result<()> {
        let existing = if self.force { Existing::Overwrite } else { Existing::Refuse };
        let mut outputs = Outputs::new(existing, "--force replaces it");
        sources.iter().for_each(|source| outputs.reads(source.file()));
        let list = self.out.join("pairs.json");
        outputs.claim(&list, &list)?;
        for i in 0..self.count {
            let input = sources[i % sources.len()].file();
            // Which of the last three it will be follows from what is drawn.
            for (folder, end) in [("high", "png"), ("low", "png"), ("low", "jpg"), ("low", "webp")]
            {
                outputs.claim(&self.out.join(format!("{folder}/{i:0digits$}.{end}")), input)?;
            }
        }
        Ok(())
    }

    /// Those of `sources` that pairs are made of, without the ones that by their heads are smaller than a truth.
    fn large_enough(
        &self,
        sources: Vec<Source>,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Vec<Source>> {
        let (mut large, mut small) = (Vec::new(), Vec::new());
        for source in sources {
            // More than there are pairs have no turn.
            if large.len() == self.count {
                break;
            }
            match source.size() {
                Some((w, h)) if w.min(h) < self.size => small.push((source.name(), w, h)),
                _ => large.push(source),
            }
        }
        let largest = small.iter().max_by_key(|(_, w, h)| w.min(h));
        if let (true, Some((name, w, h))) = (large.is_empty(), largest) {
            return Err(self.too_small(&name.display().to_string(), *w, *h));
        }
        if let Some((first, ..)) = small.first() {
            let (pictures, size) = (spelling::counted(small.len(), "picture"), self.size);
            let first = first.display();
            warn(&format!(
                "{pictures} smaller than a truth of {size}x{size} left out (first: {first})"
            ));
        }
        Ok(large)
    }

    fn too_small(&self, name: &str, width: usize, height: usize) -> Error {
        let size = self.size;
        let report = Report::new(
            format!("{name} is smaller than the crops asked for ({size}x{size})"),
            format!("it has {width}x{height} pixels"),
        );
        let fits = width.min(height) / self.scale * self.scale;
        Error::Failed(report.code("size").help(format!("--size {fits}    cuts truths that fit")))
    }

    /// Pair `index`, under `name`, of a picture.
    fn pair(&self, source: &Source, index: usize, name: &str) -> Result<Pair> {
        let picture = source.decode()?;
        let (scale, small) = (self.scale, self.size / self.scale);
        let (columns, rows) = (picture.width / scale, picture.height / scale);
        if columns < small || rows < small {
            let name = source.name().display().to_string();
            return Err(self.too_small(&name, picture.width, picture.height));
        }
        let mut draws = Draws::new(self.seed, 0, u32::try_from(index).unwrap_or(u32::MAX));
        let place = [draws.below(columns - small + 1), draws.below(rows - small + 1)];
        let context = match self.as_files {
            true => degrade::Context { x: place[0], y: place[1], width: small, height: small },
            false => degrade::Context::around(place, small, [columns, rows], &mut draws),
        };
        let [x, y, width, height] = context.scaled(scale);
        let made = self.process.apply(picture.cut(x, y, width, height), draws)?;
        let low = self.write(&made, [place[0] - context.x, place[1] - context.y], name)?;
        Ok(Pair {
            high: format!("high/{name}.png"),
            low,
            source: source.name().display().to_string(),
            place: place.map(|v| v * scale),
            drawn: made.drawn,
            damage: made.damage,
        })
    }

    /// Writes both images, of which the pair begins at low-resolution pixel `at`; the name of the low one.
    fn write(&self, made: &Degraded, [x, y]: [usize; 2], name: &str) -> Result<String> {
        let (scale, small) = (self.scale, self.size / self.scale);
        let high = made.high.cut(x * scale, y * scale, self.size, self.size);
        write_png(&self.out.join(format!("high/{name}.png")), high)?;
        let low = match (&made.file, self.as_files) {
            (Some(made), true) => {
                let low = format!("low/{name}.{}", made.extension);
                atomic_write(&self.out.join(&low), |file| file.write_all(&made.bytes))?;
                low
            }
            _ => {
                let low = format!("low/{name}.png");
                write_png(&self.out.join(&low), made.low.cut(x, y, small, small))?;
                low
            }
        };
        Ok(low)
    }
}

fn write_png(path: &Path, image: Rgb8) -> Result<()> {
    let image = Image::from_u8(image.width, image.height, Color::Rgb, image.pixels)?;
    imaging::write(path, &image, EncodeOptions::default())
}
