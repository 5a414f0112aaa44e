//! Running convolutions from the top of a map to its bottom, a few rows at a time, so that neither maps nor
//! surroundings of tiles are held or computed twice.
//!
//! Every layer keeps the last rows that it was given, as many as its next rows look at, and makes the rows that what
//! it has suffices for. The fast convolution computes blocks of 4x4 pixels ([`BLOCK`]); rows are made in whole blocks
//! where they stand in the whole map, so that its bits come out.
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::ops::{conv2d, parallel};

/// Rows of the blocks in which convolutions compute. A layer is this many rows behind what it is given.
pub const BLOCK: usize = 4;

/// Rows of room above those that a layer makes: the next one, a block behind, looks at a block above its own.
const ROOM: usize = 2 * BLOCK;

/// Some rows of a map of one image.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Which.
    pub at: Range<usize>,
    /// The row of the map at which `map` starts; it may hold more than `at`.
    first: usize,
    /// `[1, n times the rows, n times the columns, C]`.
    map: Arc<Tensor>,
    /// Rows of the tensor for each row of the map: n.
    scale: usize,
}

impl Rows {
    /// The rows from `start` on that `map` `[1, h, w, C]` holds, with `scale` rows of it for each.
    ///
    /// # Errors
    /// If `map` is not of that form.
    pub fn new(start: usize, map: Tensor, scale: usize) -> Result<Self> {
        Self::shared(start, Arc::new(map), scale)
    }

    /// The same of a tensor that others hold too.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn shared(start: usize, map: Arc<Tensor>, scale: usize) -> Result<Self> {
        let [_, height, _, _] = map.nhwc("rows")?;
        Ok(Self { at: start..start + height / scale, first: start, map, scale })
    }

    /// Their numbers.
    ///
    /// # Errors
    /// If they are not on the CPU.
    pub fn values(&self, wanted: Range<usize>) -> Result<&[f32]> {
        let [_, _, width, channels] = self.map.nhwc("rows")?;
        let line = self.scale * width * channels;
        Ok(&self.map.cpu::<f32>()?
            [(wanted.start - self.first) * line..(wanted.end - self.first) * line])
    }

    /// All of them as a tensor of their own.
    ///
    /// # Errors
    /// If they are not on the CPU.
    pub fn tensor(&self) -> Result<Arc<Tensor>> {
        if self.first == self.at.start && self.map.shape()[1] == self.at.len() * self.scale {
            return Ok(Arc::clone(&self.map));
        }
        joined(&self.map, self.at.clone(), self.scale, &[self]).map(Arc::new)
    }

    /// The rows of `seen`, which end with these, as a tensor that begins there; those before these come from `kept`. In
    /// place where the tensor is nobody else's and has room for them.
    fn behind(mut self, kept: Option<&Self>, seen: Range<usize>) -> Result<Arc<Tensor>> {
        let fits = self.first == seen.start
            && self.at.end == seen.end
            && self.map.shape()[1] == seen.len() * self.scale;
        let (at, scale) = (self.at.clone(), self.scale);
        if let (true, Some(map)) = (fits, Arc::get_mut(&mut self.map)) {
            let Some(kept) = kept else { return Ok(self.map) };
            let [_, _, width, channels] = map.nhwc("rows")?;
            let line = scale * width * channels;
            let before = kept.at.start.max(seen.start)..at.start;
            let to = (before.start - seen.start) * line..(before.end - seen.start) * line;
            parallel::copy(&mut map.cpu_mut::<f32>()?[to], kept.values(before)?);
            return Ok(self.map);
        }
        let parts: Vec<&Self> = kept.into_iter().chain([&self]).collect();
        joined(&self.map, seen, scale, &parts).map(Arc::new)
    }

    /// `f(theirs, ours)` for these rows and the same of `queue`, in place.
    ///
    /// # Errors
    /// If they are not on the CPU.
    pub fn combine(&mut self, queue: &Queue, f: impl Fn(&[f32], &mut [f32])) -> Result<()> {
        let at = self.at.clone();
        if Arc::get_mut(&mut self.map).is_none() {
            self.map = Arc::new(joined(&self.map, at.clone(), self.scale, &[self])?);
            self.first = at.start;
        }
        let [_, _, width, channels] = self.map.nhwc("rows")?;
        let (first, line) = (self.first, self.scale * width * channels);
        let Some(map) = Arc::get_mut(&mut self.map) else { return Ok(()) };
        let map = map.cpu_mut::<f32>()?;
        for theirs in &queue.rows {
            let both = theirs.at.start.max(at.start)..theirs.at.end.min(at.end);
            if !both.is_empty() {
                let ours = (both.start - first) * line..(both.end - first) * line;
                f(theirs.values(both)?, &mut map[ours]);
            }
        }
        Ok(())
    }

    /// What `f(theirs, ours)` makes of them, with room for a [`Window`]'s rows above.
    ///
    /// # Errors
    /// If they are not on the CPU.
    pub fn map(&self, f: impl FnOnce(&[f32], &mut [f32])) -> Result<Self> {
        let (at, scale) = (self.at.clone(), self.scale);
        let first = at.start.saturating_sub(ROOM);
        let shape @ [_, _, width, channels] = Self::shape(&self.map, at.end - first, scale)?;
        let mut map = Tensor::empty_as(&self.map, &shape)?;
        let above = (at.start - first) * scale * width * channels;
        f(self.values(at.clone())?, &mut map.cpu_mut::<f32>()?[above..]);
        Ok(Self { at, first, map: Arc::new(map), scale })
    }

    /// `[1, h, w, C]` of the tensor that holds `rows` of the map, in the manner of `like`.
    fn shape(like: &Tensor, rows: usize, scale: usize) -> Result<[usize; 4]> {
        let [_, _, width, channels] = like.nhwc("rows")?;
        Ok([1, rows * scale, width, channels])
    }
}

/// The rows `wanted`, taken from `parts`, which follow each other; zeros where none has them.
fn joined(like: &Tensor, wanted: Range<usize>, scale: usize, parts: &[&Rows]) -> Result<Tensor> {
    let shape = Rows::shape(like, wanted.len(), scale)?;
    let line = scale * shape[2] * shape[3];
    let mut to = Tensor::empty_as(like, &shape)?;
    let values = to.cpu_mut::<f32>()?;
    let mut filled = wanted.start;
    for part in parts {
        let (start, end) = (part.at.start.max(wanted.start), part.at.end.min(wanted.end));
        if start >= end {
            continue;
        }
        values[(filled - wanted.start) * line..(start - wanted.start) * line].fill(0.0);
        let to = &mut values[(start - wanted.start) * line..(end - wanted.start) * line];
        parallel::copy(to, part.values(start..end)?);
        filled = end;
    }
    values[(filled - wanted.start) * line..].fill(0.0);
    Ok(to)
}

/// One layer of 3x3 convolutions, and how far it is.
#[derive(Debug)]
pub struct Window {
    /// The rows that the next ones look at.
    kept: Option<Rows>,
    /// The first row that is not made yet.
    next: usize,
    /// Rows that are made at a time: at the end of a map the layers would else hand on all that they are behind.
    most: usize,
    /// Rows above those that are made, where the next layer puts those that it kept.
    above: usize,
    done: bool,
}

impl Window {
    /// A layer at its start that makes at most `most` rows at a time, a multiple of [`BLOCK`].
    pub const fn new(most: usize) -> Self {
        Self { kept: None, next: 0, most, above: ROOM, done: false }
    }

    /// The same where what it makes is kept, not handed to a layer.
    pub fn last(most: usize) -> Self {
        Self { above: 0, ..Self::new(most) }
    }

    /// Whether the map is made.
    pub const fn is_done(&self) -> bool {
        self.done
    }

    /// Takes the rows that follow those taken before, the `last` ones or not, and gives rows that the layer can make now;
    /// of the last ones in several passes. `layer` is given some rows of the map, and where they are; it convolves them
    /// once, at stride 1. The first and the last [`BLOCK`] of a piece of the map may hold anything.
    ///
    /// # Errors
    /// Those of the layer.
    pub fn pass(
        &mut self,
        rows: Option<Rows>,
        last: bool,
        layer: impl FnOnce(&mut Tape, &Var, Range<usize>) -> Result<Var>,
    ) -> Result<Option<Rows>> {
        if self.done || (rows.is_none() && !last) {
            return Ok(None);
        }
        let (kept, rows) = match (self.kept.take(), rows) {
            (kept, Some(rows)) => (kept, rows),
            (Some(kept), None) => (None, kept),
            (None, None) => return Ok(None),
        };
        let (end, scale) = (rows.at.end, rows.scale);
        let known = if last { end } else { (end / BLOCK * BLOCK).saturating_sub(BLOCK) };
        let stop = known.min(self.next + self.most);
        let keep = |from: usize, parts: &[&Rows]| {
            let from = from.saturating_sub(1);
            Rows::new(from, joined(&parts[0].map, from..end, scale, parts)?, scale).map(Some)
        };
        if stop <= self.next {
            let parts: Vec<&Rows> = kept.iter().chain([&rows]).collect();
            self.kept = keep(self.next, &parts)?;
            return Ok(None);
        }
        let seen = self.next.saturating_sub(BLOCK)..end;
        let input = rows.behind(kept.as_ref(), seen.clone())?;
        let input = Rows { at: seen.clone(), first: seen.start, map: input, scale };
        self.done = last && stop == end;
        self.kept = if self.done { None } else { keep(stop, &[&input])? };
        let mut tape = Tape::inference();
        let input = tape.input(input.map);
        let wanted = [self.next - seen.start, stop - seen.start];
        let made = self.next..stop;
        let first = made.start.saturating_sub(self.above);
        let from = first as isize - seen.start as isize;
        let output = conv2d::rows_from(from, wanted, || layer(&mut tape, &input, seen.clone()))?;
        drop(input);
        let map = output.into_tensor()?;
        let scale = map.shape()[1] / (stop - first);
        self.next = stop;
        Ok(Some(Rows { at: made, first, map: Arc::new(map), scale }))
    }
}

/// Rows that wait until what they are to be joined with is there.
#[derive(Debug, Default)]
pub struct Queue {
    rows: VecDeque<Rows>,
}

impl Queue {
    /// Takes the rows that follow those taken before.
    pub fn push(&mut self, rows: &Rows) {
        self.rows.push_back(rows.clone());
    }

    /// The rows `wanted` as a tensor; zeros where there are none.
    ///
    /// # Errors
    /// If they are not on the CPU.
    pub fn get(&self, like: &Tensor, wanted: Range<usize>) -> Result<Tensor> {
        let parts: Vec<&Rows> = self.rows.iter().collect();
        let (map, scale) = parts.first().map_or((like, 1), |rows| (&*rows.map, rows.scale));
        joined(map, wanted, scale, &parts)
    }

    /// Lets go of all rows before `row`.
    pub fn forget(&mut self, row: usize) {
        while self.rows.front().is_some_and(|rows| rows.at.end <= row) {
            self.rows.pop_front();
        }
    }
}

/// One call of a network that goes over its images from top to bottom.
pub trait RollingCall {
    /// Takes the next rows of the condition and of the state, in low-resolution rows, the `last` ones or not, and
    /// gives rows of its output that they suffice for; after the last ones again and again, until it is done.
    ///
    /// # Errors
    /// If shapes do not fit or memory is full.
    fn pass(
        &mut self,
        condition: Option<Rows>,
        state: Option<Rows>,
        last: bool,
    ) -> Result<Option<Rows>>;

    /// Whether all rows of the output were given.
    fn is_done(&self) -> bool;
}
