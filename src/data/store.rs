//! The images of a training run: as many decoded as the cache holds, the others read when they are
//! asked for.
//!
//! All are decoded once before the first step, so that broken ones are known and every size is, which
//! decides the crops: batches are the same, bit for bit, whatever the cache holds. It keeps the first
//! that fit; every image is as likely as another, so no choice would be better.
use std::sync::Arc;

use super::degrade::{self, Damage, Degrade, Process};
use super::folder::{self, OnBroken, Source};
use super::lows::Lows;
use super::rgb8::Rgb8;
use crate::engine::interrupt;
use crate::engine::memory::{self, in_words};
use crate::engine::threads::{self, try_map};
use crate::error::{Error, Report, Result};

/// An image at both resolutions.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The file, for messages.
    pub name: String,
    /// The image, its sides multiples of the scale.
    pub high: Rgb8,
    /// The same at `1 / scale`.
    pub low: Rgb8,
    /// What was done to it; unknown of one that is given.
    pub damage: Option<Damage>,
    /// What a teacher made of it, as large as `high`.
    pub taught: Option<Rgb8>,
}

/// How pairs are made of images.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How the low-resolution image is made.
    pub degrade: Degrade,
    /// Those that are given in place of it.
    pub given: Option<Lows>,
    /// What a teacher made of them.
    pub taught: Option<Lows>,
    /// How they are shown to the network.
    pub process: Option<Process>,
    /// The factor between the resolutions.
    pub scale: usize,
    /// Images with shorter sides are padded with black to this.
    pub pad: usize,
    /// The shortest side that is of use after that, and what is said of images that are smaller and left out.
    pub small: (usize, String),
}

/// The pairs of images, in the order of their files.
#[derive(Debug)]
pub struct Pairs {
    entries: Vec<Entry>,
    recipe: Option<Recipe>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    /// Width and height of the high and of the low resolution.
    high: (usize, usize),
    low: (usize, usize),
    held: Option<Arc<Pair>>,
    source: Option<Source>,
}

impl Entry {
    fn of(pair: Pair, source: Option<Source>) -> Self {
        let (high, low) = (&pair.high, &pair.low);
        Self {
            name: pair.name.clone(),
            high: (high.width, high.height),
            low: (low.width, low.height),
            held: Some(Arc::new(pair)),
            source,
        }
    }

    fn bytes(&self) -> u64 {
        let of = |image: &Rgb8| image.pixels.len() as u64;
        let all =
            |pair: &Arc<Pair>| of(&pair.high) + of(&pair.low) + pair.taught.as_ref().map_or(0, of);
        self.held.as_ref().map_or(0, all)
    }
}

impl From<Vec<Pair>> for Pairs {
    /// Pairs that are all in memory.
    fn from(pairs: Vec<Pair>) -> Self {
        Self {
            entries: pairs.into_iter().map(|pair| Entry::of(pair, None)).collect(),
            recipe: None,
        }
    }
}

impl Pairs {
    /// Pairs of `sources` by `recipe`, of which at most `cache` bytes stay in memory. Broken ones are left
    /// out and named in one warning, or are an error.
    ///
    /// # Errors
    /// Exit code 2 if none is left, or one is broken and should not be; 5 if an image does not fit in
    /// memory; 128 + signal once one asked to stop.
    pub fn load(
        sources: &[Source],
        recipe: Recipe,
        cache: u64,
        on_broken: OnBroken,
        warn: &mut dyn FnMut(&str),
    ) -> Result<Self> {
        let (mut entries, mut broken, mut small) = (Vec::new(), Vec::new(), Vec::new());
        let mut left = cache;
        // Some at a time: what is over the budget is given back before the next are decoded.
        let at_once = 2 * threads::count().max(1);
        for some in sources.chunks(at_once) {
            interrupt::check()?;
            let load = |source: &Source| match recipe.pair(source, at_once) {
                Ok(Ok(pair)) => {
                    let mut entry = Entry::of(pair, Some(source.clone()));
                    // Not held until its turn comes, when it is known that it will not stay.
                    if entry.bytes() > left {
                        entry.held = None;
                    }
                    Ok(Ok(Ok(entry)))
                }
                Ok(Err(size)) => Ok(Ok(Err(size))),
                Err(ends @ (Error::Memory(_) | Error::Interrupted { .. })) => Err(ends),
                Err(error) => Ok(Err(error)),
            };
            let loaded = try_map(some.len(), |i| load(&some[i]))?;
            for (source, entry) in some.iter().zip(loaded) {
                match entry {
                    Ok(Err((width, height))) => {
                        small.push(format!("{} ({width}x{height})", source.name().display()));
                    }
                    Ok(Ok(mut entry)) => {
                        // Of one that is not held that is 0.
                        match left.checked_sub(entry.bytes()) {
                            Some(rest) => left = rest,
                            None => entry.held = None,
                        }
                        entries.push(entry);
                    }
                    Err(error) => broken.push((source.name(), error)),
                }
            }
        }
        folder::report_broken((&broken, sources.len()), on_broken, "data.train.on_broken", warn)?;
        if !small.is_empty() {
            let (count, all, why) = (small.len(), sources.len(), &recipe.small.1);
            warn(&format!("{count} of {all} images are left out, {why}: {}", small.join(", ")));
        }
        Ok(Self { entries, recipe: Some(recipe) })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The pixels of all high-resolution images.
    pub fn pixels(&self) -> usize {
        self.entries.iter().map(|e| e.high.0 * e.high.1).sum()
    }

    /// How many are in memory.
    pub fn held(&self) -> usize {
        self.entries.iter().filter(|e| e.held.is_some()).count()
    }

    /// Whether their low resolutions were there already.
    pub fn are_given(&self) -> bool {
        self.recipe.as_ref().is_some_and(|recipe| recipe.given.is_some())
    }

    /// Whether a teacher made something of those.
    pub fn are_taught(&self) -> bool {
        self.recipe.as_ref().is_some_and(|recipe| recipe.taught.is_some())
    }

    /// What messages call pair `index`.
    pub fn name(&self, index: usize) -> &str {
        &self.entries[index].name
    }

    /// Width and height of the high resolution of pair `index`.
    pub fn high(&self, index: usize) -> (usize, usize) {
        self.entries[index].high
    }

    /// Width and height of the low resolution of pair `index`.
    pub fn low(&self, index: usize) -> (usize, usize) {
        self.entries[index].low
    }

    /// Leaves out those whose high resolution is not `wanted`.
    pub fn retain(&mut self, wanted: impl Fn((usize, usize)) -> bool) {
        self.entries.retain(|e| wanted(e.high));
    }

    /// Pair `index`, from the cache or from its file.
    ///
    /// # Errors
    /// If the file cannot be read any more, or is another one.
    pub fn get(&self, index: usize) -> Result<Arc<Pair>> {
        let entry = &self.entries[index];
        let (source, recipe) = match (&entry.held, &entry.source, &self.recipe) {
            (Some(pair), ..) => return Ok(Arc::clone(pair)),
            (None, Some(source), Some(recipe)) => (source, recipe),
            _ => return Err(Error::shape("training data", "a pair with a source", &[index])),
        };
        let pair = recipe.pair(source, 1)?;
        let size = pair.as_ref().map_or_else(|size| *size, |p| (p.high.width, p.high.height));
        let Some(pair) = pair.ok().filter(|_| size == entry.high) else {
            let what = format!("{} has changed while training", entry.name);
            let cause = format!(
                "it was {}x{}, now it is {}x{}",
                entry.high.0, entry.high.1, size.0, size.1
            );
            return Err(Error::Failed(Report::new(what, cause).help("put the old file back")));
        };
        Ok(Arc::new(pair))
    }
}

impl Recipe {
    /// The pair of `source`, one of `at_once` that are made at a time; the size of one that is too small.
    fn pair(
        &self,
        source: &Source,
        at_once: usize,
    ) -> Result<std::result::Result<Pair, (usize, usize)>> {
        let fits = |decoding: u64| {
            // The image padded, cut, and in the f64 rows of resampling.
            let needed = decoding.saturating_mul(2).saturating_mul(at_once as u64);
            let available = memory::available();
            if needed <= available {
                return Ok(());
            }
            let what = format!("{} does not fit in memory", source.name().display());
            let cause = format!(
                "{at_once} such images at a time need {}, {} are free",
                in_words(needed),
                in_words(available)
            );
            let help = "cut it into parts, or --set data.cache=0    which keeps no image in memory";
            Err(Error::Memory(Report::new(what, cause).help(help)))
        };
        let image = source.decode_if(&fits)?;
        let size = (image.width, image.height);
        let side = |side: usize| side.max(self.pad) / self.scale * self.scale;
        if side(size.0).min(side(size.1)) < self.small.0 {
            return Ok(Err(size));
        }
        let high = image.padded(self.pad).cut_to_multiple(self.scale);
        let (low, damage) = match &self.given {
            Some(given) => {
                let (low, damage) = given.of(&source.name(), &high, self.scale)?;
                match (&self.process, &damage) {
                    (Some(process), Some(known)) => (process.seen(low, known)?, damage),
                    _ => (low, damage),
                }
            }
            None => (degrade::shrink(&high, self.degrade, self.scale)?, Some(Damage::default())),
        };
        let taught = match &self.taught {
            Some(taught) => Some(taught.of(&source.name(), &high, 1)?.0),
            None => None,
        };
        Ok(Ok(Pair { name: source.name().display().to_string(), high, low, damage, taught }))
    }
}
