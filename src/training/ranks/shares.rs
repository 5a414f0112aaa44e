//! What each rank takes of a step.
//!
//! The images of a step, whatever the number of ranks, are those of its batches, each a function of seed and number.
//! Batches that are averaged in one descent are cut into units, equal parts of a batch, and each rank takes units that
//! follow each other. With `run.reduce = "fast"` there are as few units as ranks need: whole batches where their number
//! is a multiple of that of the ranks. With `fixed` a batch has as many as divide it, up to 8, whatever the ranks.
use std::ops::Range;

use crate::error::{Error, Report, Result};
use crate::training::sections::Reduce;

/// Most units of a batch with `fixed`.
const FIXED: usize = 8;

/// A part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::training) struct Unit {
    /// The number of the batch.
    pub(in crate::training) batch: u64,
    /// Which part, from 0 on, of how many.
    pub(in crate::training) part: usize,
    /// See `part`.
    pub(in crate::training) of: usize,
}

impl Unit {
    /// The images of it, of a batch of `images`.
    pub(in crate::training) const fn range(&self, images: usize) -> Range<usize> {
        let size = images / self.of;
        self.part * size..(self.part + 1) * size
    }
}

/// What a rank takes of each descent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::training) struct Shares {
    /// Batches of a descent.
    together: u64,
    /// Parts of a batch.
    parts: usize,
    /// Its units of each descent.
    first: u64,
    end: u64,
    /// Whether sums have an order of their own.
    pub(in crate::training) fixed: bool,
    /// Whether units go to several ranks.
    several: bool,
}

impl Shares {
    /// Those of `rank` of `world` in batches of `images`, of which `together` are averaged in a descent.
    ///
    /// # Errors
    /// Exit code 2 if they cannot be shared.
    pub(in crate::training) fn new(
        (rank, world): (usize, usize),
        reduce: Reduce,
        images: usize,
        together: u64,
    ) -> Result<Self> {
        let ranks = world as u64;
        let fixed = reduce == Reduce::Fixed;
        let parts = match fixed {
            true => (1..=FIXED.min(images)).rev().find(|&n| images.is_multiple_of(n)).unwrap_or(1),
            false => world / usize::try_from(gcd(ranks, together)).unwrap_or(1),
        };
        let units = together.saturating_mul(parts as u64);
        if !images.is_multiple_of(parts) || units < ranks {
            let what = format!("{world} processes cannot share a step");
            let cause = format!("it has {together} x {images} images, {units} parts at most");
            let cause = match fixed {
                true => cause,
                false => format!("it has {together} x {images} images, no {world} equal parts"),
            };
            let more = images.next_multiple_of(world);
            let help = format!("--set data.train.batch={more}, or data.batch for digits");
            return Err(Error::Usage(Report::new(what, cause).help(help)));
        }
        let at = |rank: usize| units * rank as u64 / ranks;
        Ok(Self { together, parts, first: at(rank), end: at(rank + 1), fixed, several: world > 1 })
    }

    /// Units of a descent, of all ranks together.
    pub(in crate::training) const fn units(&self) -> u64 {
        self.together * self.parts as u64
    }

    /// The number within its descent of the first unit of this rank.
    pub(in crate::training) const fn first(&self) -> u64 {
        self.first
    }

    /// Units of a descent of this rank.
    pub(in crate::training) const fn here(&self) -> u64 {
        self.end - self.first
    }

    /// Whether gradients of this rank alone are not all, or their sum has an order of its own.
    pub(in crate::training) const fn are_joined(&self) -> bool {
        self.several || self.fixed
    }

    /// Units of this rank in `batches` batches.
    pub(in crate::training) const fn of(&self, batches: u64) -> u64 {
        batches / self.together * self.here()
    }

    /// The unit `item` of this rank, counted from the start of the run.
    pub(in crate::training) fn unit(&self, item: u64) -> Unit {
        let mine = self.here();
        let unit = self.first + item % mine;
        let (of, part) = (self.parts as u64, unit % self.parts as u64);
        let batch = item / mine * self.together + unit / of;
        Unit { batch, part: usize::try_from(part).unwrap_or(0), of: self.parts }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// All units of two descents, of all ranks.
    fn units(world: usize, reduce: Reduce, images: usize, together: u64) -> Vec<Unit> {
        let shares = |rank| Shares::new((rank, world), reduce, images, together).unwrap();
        let mut all = Vec::new();
        for descent in 0..2 {
            for rank in 0..world {
                let shares = shares(rank);
                let mine = shares.of(together);
                all.extend((descent * mine..(descent + 1) * mine).map(|item| shares.unit(item)));
            }
        }
        all
    }

    #[test]
    fn every_image_of_a_step_belongs_to_one_rank() {
        for (world, images, together) in
            [(1, 3, 1), (2, 4, 1), (4, 4, 1), (2, 5, 2), (4, 6, 2), (3, 6, 3)]
        {
            for reduce in [Reduce::Fast, Reduce::Fixed] {
                let mut seen = Vec::new();
                for unit in units(world, reduce, images, together) {
                    seen.extend(unit.range(images).map(|image| (unit.batch, image)));
                }
                let all: Vec<(u64, usize)> =
                    (0..2 * together).flat_map(|b| (0..images).map(move |i| (b, i))).collect();
                assert_eq!(seen, all, "{world} ranks, {together} x {images}, {reduce:?}");
            }
        }
    }

    #[test]
    fn whole_batches_stay_whole_where_they_can() {
        let unit = |batch| Unit { batch, part: 0, of: 1 };
        assert_eq!(units(2, Reduce::Fast, 5, 2), [unit(0), unit(1), unit(2), unit(3)]);
    }

    #[test]
    fn fixed_units_do_not_depend_on_the_ranks() {
        for (images, parts) in [(16, 8), (12, 6), (7, 7), (11, 1), (1, 1), (24, 8)] {
            let shares = Shares::new((0, 1), Reduce::Fixed, images, 1).unwrap();
            assert_eq!(shares.units(), parts, "{images} images");
        }
        let one = units(1, Reduce::Fixed, 12, 2);
        assert_eq!(units(3, Reduce::Fixed, 12, 2), one);
        assert_eq!(units(5, Reduce::Fixed, 12, 2), one);
    }

    #[test]
    fn what_cannot_be_shared_is_refused_with_what_can() {
        for (world, reduce, images) in
            [(2, Reduce::Fast, 3), (4, Reduce::Fast, 2), (2, Reduce::Fixed, 1)]
        {
            let error = Shares::new((0, world), reduce, images, 1).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("data.train.batch="), "{error}");
        }
    }
}
