//! The general convolution: every shape, stride and element type. What each output sees is laid out as
//! a row of a matrix, some rows of the image at a time, and multiplied with the weights. The
//! specification that the fast path is tested against.
use std::ops::Range;

use super::Dims;
use crate::engine::device::Real;
use crate::engine::pool::Buffer;
use crate::engine::threads::{map, pieces};
use crate::ops::product::{Matrix, Packed, add_columns, add_product};

/// Positions that a task multiplies at once: enough that packing the weights costs little beside it.
const POSITIONS: usize = 128;
/// Output channels of a task of the weight gradient.
const CHANNELS: usize = 64;

impl Dims {
    /// Taps of the kernel.
    const fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    /// Rows of `width` positions that make a task.
    fn rows_of_task(width: usize) -> usize {
        POSITIONS.div_ceil(width.max(1))
    }

    /// Copies what taps `(ky, 0..kernel)` read for the positions `columns` of output row `row` of the batch to
    /// `patch` `[positions, kernel, ci]`, whose rows are `stride` apart; zeros outside of the image.
    fn gather_row<T: Real>(
        &self,
        x: &[T],
        (row, columns): (usize, Range<usize>),
        ky: usize,
        patch: &mut [T],
        stride: usize,
    ) {
        let (n, oy) = (row / self.out_height(), row % self.out_height());
        let len = self.kernel * self.ci;
        let inside = (oy * self.stride + ky).checked_sub(self.pad).filter(|&y| y < self.height);
        let start = columns.start;
        for ox in columns {
            let patch = &mut patch[(ox - start) * stride..][..len];
            let Some(iy) = inside else {
                patch.fill(T::default());
                continue;
            };
            let left = ox * self.stride;
            let first = self.pad.saturating_sub(left).min(self.kernel);
            let end = (self.width + self.pad).saturating_sub(left).min(self.kernel).max(first);
            patch[..first * self.ci].fill(T::default());
            patch[end * self.ci..].fill(T::default());
            if end > first {
                let at = ((n * self.height + iy) * self.width + left + first - self.pad) * self.ci;
                patch[first * self.ci..end * self.ci]
                    .copy_from_slice(&x[at..at + (end - first) * self.ci]);
            }
        }
    }
}

/// `y += patches weights`: one task of several, or all of it.
fn add<T: Real>(
    y: &mut [T],
    columns: usize,
    patches: Matrix<T>,
    (weights, packed): (Matrix<T>, Option<&Packed<T>>),
) {
    match packed {
        Some(packed) => add_product(y, columns, patches, packed),
        None => add_columns(y, patches, weights),
    }
}

/// `y = conv(x, w) + bias`.
pub(super) fn forward<T: Real>(d: &Dims, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
    let (width, inner) = (d.out_width(), d.taps() * d.ci);
    let rows = Dims::rows_of_task(width);
    let weights = Matrix::new(w, d.co, inner).t();
    let packed = Packed::for_tasks(y.len().div_ceil((rows * width * d.co).max(1)), weights);
    pieces(y, rows * width * d.co, |task, y| {
        for y in y.chunks_exact_mut(d.co) {
            match bias {
                Some(b) => y.copy_from_slice(b),
                None => y.fill(T::default()),
            }
        }
        // Long rows go in pieces: what is gathered of a row is many times as much as the row.
        let piece = width.min(POSITIONS);
        let mut patches = Buffer::new((y.len() / d.co).min(rows * piece) * inner);
        for first in (0..width).step_by(piece) {
            let columns = first..(first + piece).min(width);
            let held = columns.len();
            for (i, patch) in
                patches.chunks_mut(held * inner).take(y.len() / (width * d.co)).enumerate()
            {
                for ky in 0..d.kernel {
                    let at = ky * d.kernel * d.ci;
                    let place = (task * rows + i, columns.clone());
                    d.gather_row(x, place, ky, &mut patch[at..], inner);
                }
            }
            // Of several rows a piece is all.
            let positions = if piece == width { y.len() / d.co } else { held };
            let y = &mut y[first * d.co..][..positions * d.co];
            let patches = Matrix::new(&patches[..positions * inner], positions, inner);
            add(y, d.co, patches, (weights, packed.as_ref()));
        }
    });
}

/// The taps that positions of one phase of the stride see: those at `first`, `first + stride`, ...
#[derive(Clone, Copy)]
struct Phase {
    first: usize,
    taps: usize,
}

impl Phase {
    /// Of input positions whose coordinate is `at` modulo the stride.
    fn of(d: &Dims, at: usize) -> Self {
        let first = (at + d.pad) % d.stride;
        Self { first, taps: d.kernel.saturating_sub(first).div_ceil(d.stride) }
    }

    /// The tap that is number `i` by ascending output coordinate.
    const fn tap(&self, d: &Dims, i: usize) -> usize {
        self.first + (self.taps - 1 - i) * d.stride
    }

    /// The output coordinate that tap number 0 reads for input coordinate `at`; it may lie outside.
    fn output(&self, d: &Dims, at: usize) -> isize {
        let last = (self.taps - 1) * d.stride + self.first;
        (at + d.pad) as isize / d.stride as isize - (last / d.stride) as isize
    }
}

/// The weights `[taps, co, ci]` of the phases of a row and of a column, in the order they are gathered.
fn weights_of<T: Real>(d: &Dims, w: &[T], rows: Phase, columns: Phase) -> Vec<T> {
    let mut packed = Vec::with_capacity(rows.taps * columns.taps * d.co * d.ci);
    for i in 0..rows.taps {
        for j in 0..columns.taps {
            let tap = rows.tap(d, i) * d.kernel + columns.tap(d, j);
            for o in 0..d.co {
                packed.extend_from_slice(&w[(o * d.taps() + tap) * d.ci..][..d.ci]);
            }
        }
    }
    packed
}

/// The gradient of the input: positions of one phase of the stride see the same taps, and are computed
/// together.
pub(super) fn input_gradient<T: Real>(d: &Dims, w: &[T], dy: &[T], dx: &mut [T]) {
    if dx.is_empty() {
        return;
    }
    let phases: Vec<Phase> = (0..d.stride).map(|at| Phase::of(d, at)).collect();
    let weights =
        map(d.stride * d.stride, |i| weights_of(d, w, phases[i / d.stride], phases[i % d.stride]));
    // A multiple of the stride, so that most tasks hold as many rows of each phase.
    let rows = Dims::rows_of_task(d.width / d.stride) * d.stride;
    let tasks = dx.len().div_ceil(rows * d.width * d.ci);
    let weights: Vec<_> = weights
        .iter()
        .map(|w| Matrix::new(w, w.len() / d.ci, d.ci))
        .map(|w| (w, Packed::for_tasks(tasks, w)))
        .collect();
    pieces(dx, rows * d.width * d.ci, |task, dx| {
        dx.fill(T::default());
        let held = dx.len() / (d.width * d.ci);
        let all: Vec<usize> = (task * rows..task * rows + held).collect();
        for (phase, weights) in weights.iter().enumerate() {
            let (row, column) = (phase / d.stride, phase % d.stride);
            let mine: Vec<usize> =
                all.iter().copied().filter(|r| r % d.height % d.stride == row).collect();
            let group = Group { d, rows: phases[row], columns: phases[column], column };
            group.add(&mine, weights, dy, &mut dx[..], task * rows);
        }
    });
}

/// Input positions of one phase.
struct Group<'a> {
    d: &'a Dims,
    rows: Phase,
    columns: Phase,
    /// The phase of the columns.
    column: usize,
}

impl Group<'_> {
    /// Writes the gradients of these positions in `rows` of the batch to `dx`, whose first row is `first`.
    fn add<T: Real>(
        &self,
        rows: &[usize],
        (weights, packed): &(Matrix<'_, T>, Option<Packed<T>>),
        dy: &[T],
        dx: &mut [T],
        first: usize,
    ) {
        let d = self.d;
        let columns: Vec<usize> = (self.column..d.width).step_by(d.stride).collect();
        let inner = self.rows.taps * self.columns.taps * d.co;
        let positions = rows.len() * columns.len();
        if positions * inner == 0 {
            return;
        }
        let mut patches = Buffer::new(positions * inner);
        patches.fill(T::default());
        let places = rows.iter().flat_map(|&row| columns.iter().map(move |&x| (row, x)));
        for ((row, x), patch) in places.clone().zip(patches.chunks_exact_mut(inner)) {
            self.gather(dy, row, x, patch);
        }
        let mut sums = Buffer::new(positions * d.ci);
        sums.fill(T::default());
        let patches = Matrix::new(&patches, positions, inner);
        add(&mut sums, d.ci, patches, (*weights, packed.as_ref()));
        for ((row, x), sum) in places.zip(sums.chunks_exact(d.ci)) {
            dx[((row - first) * d.width + x) * d.ci..][..d.ci].copy_from_slice(sum);
        }
    }

    /// What the taps read for the input position `x` of `row`, into `patch` of zeros.
    fn gather<T: Real>(&self, dy: &[T], row: usize, x: usize, patch: &mut [T]) {
        let d = self.d;
        let (n, y) = (row / d.height, row % d.height);
        let (top, left) = (self.rows.output(d, y), self.columns.output(d, x));
        let (height, width) = (d.out_height() as isize, d.out_width() as isize);
        let from = left.max(0);
        let to = (left + self.columns.taps as isize).min(width);
        if from >= to {
            return;
        }
        for (i, patch) in patch.chunks_exact_mut(self.columns.taps * d.co).enumerate() {
            let oy = top + i as isize;
            if (0..height).contains(&oy) {
                let at = |ox: isize| ((n as isize * height + oy) * width + ox) as usize * d.co;
                let start = (from - left) as usize * d.co;
                let read = &dy[at(from)..at(to)];
                patch[start..start + read.len()].copy_from_slice(read);
            }
        }
    }
}

/// The gradient of the weights: rows of taps and some output channels side by side, positions one after
/// the other, so that the order of the sums is fixed.
pub(super) fn weight_gradient<T: Real>(d: &Dims, x: &[T], dy: &[T], dw: &mut [T]) {
    let (width, len) = (d.out_width(), d.kernel * d.ci);
    let rows = Dims::rows_of_task(width) * 4;
    let parts = d.co.div_ceil(CHANNELS);
    let sums = map(d.kernel * parts, |task| {
        let (ky, first) = (task / parts, task % parts * CHANNELS);
        let channels = CHANNELS.min(d.co - first);
        let mut sum = vec![T::default(); channels * len];
        let mut patches = Buffer::new(rows * width * len);
        let all: Vec<usize> = (0..d.batch * d.out_height()).collect();
        for block in all.chunks(rows) {
            for (&row, patch) in block.iter().zip(patches.chunks_exact_mut(width * len)) {
                d.gather_row(x, (row, 0..width), ky, patch, len);
            }
            let positions = block.len() * width;
            let dy = &dy[block[0] * width * d.co + first..];
            let dy = Matrix::strided(dy, [channels, positions], [1, d.co]);
            let patches = Matrix::new(&patches[..positions * len], positions, len);
            add_product(&mut sum, len, dy, patches);
        }
        sum
    });
    for (o, dw) in dw.chunks_exact_mut(d.taps() * d.ci).enumerate() {
        for (ky, dw) in dw.chunks_exact_mut(len).enumerate() {
            let sum = &sums[ky * parts + o / CHANNELS];
            dw.copy_from_slice(&sum[o % CHANNELS * len..][..len]);
        }
    }
}
