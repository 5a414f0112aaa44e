//! The gradient of the weights of a convolution in bf16: for each tap, the product of the output's gradient with the map
//! behind that tap.
//!
//! Some rows at a time are laid out with the padding that the kernel sees, so that taps are shifts: the gradient by
//! outputs, with zeros where no output is; the map in pairs of positions, once for each parity of the shift. Sums of such
//! bands are added in their order, and bands depend on the shapes alone.
use std::cell::RefCell;

use super::Dims;
use crate::engine::pool::Buffer;
use crate::engine::threads::{each, pieces, pieces2};
use crate::ops::bf16::{Blocks, Left, Right, SIDE, Square, round_pairs, transpose};
use crate::ops::simd::vectorized;

/// Numbers that a band holds, about: they stay in the second-level cache.
const BAND: usize = 448 << 10;
/// Positions that are laid out by a task.
const TASK: usize = 256;

/// The gradient `[Co, k, k, Ci]` of the weights given that of the output.
pub(super) fn weight_gradient(d: &Dims, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    dw.fill(0.0);
    if dw.is_empty() || dy.is_empty() {
        return;
    }
    let band = Band::of(d);
    let mut pairs = Buffer::<f32>::new(band.gradients() + 2 * band.plane());
    let mut sums =
        Buffer::<f32>::new(band.ops / SIDE * band.ips / SIDE * band.taps() * SIDE * SIDE);
    sums.fill(0.0);
    let pairs: &mut [u32] = bytemuck::cast_slice_mut(&mut pairs);
    for n in 0..d.batch {
        for first in (0..band.rows_of_image).step_by(band.rows) {
            let rows = first..(first + band.rows).min(band.rows_of_image);
            band.lay_out(x, dy, n, rows, pairs);
            band.add_products(pairs, &mut sums);
        }
    }
    band.write(&sums, dw);
}

struct Band<'a> {
    d: &'a Dims,
    /// Rows of positions in an image: those of outputs, as far apart as the stride has them.
    rows_of_image: usize,
    /// Rows of a band.
    rows: usize,
    /// Positions in a row: those with padding.
    pitch: usize,
    /// Positions of a band, rounded up to whole steps.
    positions: usize,
    /// Channels, rounded up to whole blocks.
    ips: usize,
    ops: usize,
}

impl<'a> Band<'a> {
    fn of(d: &'a Dims) -> Self {
        let [ips, ops] = [d.ci, d.co].map(|c| c.next_multiple_of(SIDE));
        let spread = |outputs: usize| (outputs - 1) * d.stride + 1;
        let rows_of_image = spread(d.out_height());
        let pitch = spread(d.out_width()) + d.kernel - 1;
        let rows = (BAND / (pitch * (2 * ips + ops))).clamp(1, rows_of_image);
        let positions = (rows * pitch).next_multiple_of(SIDE);
        Self { d, rows_of_image, rows, pitch, positions, ips, ops }
    }

    const fn taps(&self) -> usize {
        self.d.kernel * self.d.kernel
    }

    /// Pairs of positions in the gradient by outputs.
    const fn gradients(&self) -> usize {
        self.ops * self.positions / 2
    }

    /// Pairs of positions of the map that are held: those of the band, and those that taps see behind them.
    const fn held_pairs(&self) -> usize {
        (self.positions + (self.d.kernel - 1) * (self.pitch + 1)).div_ceil(2) + 1
    }

    /// Pairs in a plane of the map.
    const fn plane(&self) -> usize {
        self.held_pairs() * self.ips
    }

    /// Lays out `rows` of image `n`.
    fn lay_out(
        &self,
        x: &[f32],
        dy: &[f32],
        n: usize,
        rows: std::ops::Range<usize>,
        pairs: &mut [u32],
    ) {
        let d = self.d;
        let (gradients, planes) = pairs.split_at_mut(self.gradients());
        let output = |position: usize| {
            let (row, column) = (rows.start + position / self.pitch, position % self.pitch);
            let stands = row < rows.end
                && row.is_multiple_of(d.stride)
                && column.is_multiple_of(d.stride)
                && column / d.stride < d.out_width();
            let at = (n * d.out_height() + row / d.stride) * d.out_width() + column / d.stride;
            stands.then(|| &dy[at * d.co..][..d.co])
        };
        let shared = Pairs(gradients.as_mut_ptr());
        each(self.positions.div_ceil(TASK), &|task| {
            let positions = task * TASK..((task + 1) * TASK).min(self.positions);
            with_row(TASK / 2 * self.ops, |by_position| {
                for (pair, to) in by_position.chunks_exact_mut(self.ops).enumerate() {
                    let first = positions.start + 2 * pair;
                    if first >= positions.end {
                        break;
                    }
                    write_pair(output(first), output(first + 1), d.co, to);
                }
                let held = positions.len() / 2;
                // SAFETY: pairs of these positions, for every output, are this task's alone.
                unsafe {
                    let to = shared.get().add(positions.start / 2);
                    transpose(by_position, [held, self.ops], to, self.positions / 2);
                }
            });
        });
        let pixel = |position: usize| {
            let (row, column) = (rows.start + position / self.pitch, position % self.pitch);
            let (y, x_) = (row.checked_sub(d.pad)?, column.checked_sub(d.pad)?);
            let at = (n * d.height + y) * d.width + x_;
            (y < d.height && x_ < d.width).then(|| &x[at * d.ci..][..d.ci])
        };
        let (even, odd) = planes.split_at_mut(self.plane());
        let per_task = TASK / 2 * self.ips;
        pieces2(even, odd, [per_task; 2], |task, even, odd| {
            let each = even.chunks_exact_mut(self.ips).zip(odd.chunks_exact_mut(self.ips));
            for (pair, (even, odd)) in each.enumerate() {
                let first = task * TASK + 2 * pair;
                let [a, b, c] = [first, first + 1, first + 2].map(pixel);
                write_pair(a, b, d.ci, even);
                write_pair(b, c, d.ci, odd);
            }
        });
    }

    /// Adds the products of the band to `sums` `[Co / 32][k k][Ci / 32][32][32]`.
    fn add_products(&self, pairs: &[u32], sums: &mut [f32]) {
        let (gradients, planes) = pairs.split_at(self.gradients());
        let across = self.ips / SIDE;
        // The blocks of a tap, so that what they read of the map is near.
        pieces(sums, across * SIDE * SIDE, |task, sums| {
            let (outputs, tap) = (task / self.taps(), task % self.taps());
            let shift = tap / self.d.kernel * self.pitch + tap % self.d.kernel;
            let plane = &planes[shift % 2 * self.plane() + shift / 2 * self.ips..];
            let left = Left {
                at: gradients[outputs * SIDE * self.positions / 2..].as_ptr().cast(),
                stride: self.positions,
                groups: 1,
                group: 0,
            };
            let blocks = Blocks::here();
            let mut square = Square::zeros();
            for (block, sums) in sums.chunks_exact_mut(SIDE * SIDE).enumerate() {
                let right = Right {
                    at: plane[block * SIDE..].as_ptr().cast(),
                    stride: 2 * self.ips,
                    second: SIDE,
                    step: SIDE * self.ips,
                };
                let held = [self.d.co - outputs * SIDE, self.d.ci - block * SIDE];
                let held = held.map(|h| h.min(SIDE));
                // SAFETY: planes hold the positions of the band and as many as the shift more.
                unsafe {
                    blocks.multiply(left, right, self.positions / SIDE, held, &mut square);
                }
                add(sums, &square.0, held[0]);
            }
        });
    }

    /// Writes the sums in the order of the weights.
    fn write(&self, sums: &[f32], dw: &mut [f32]) {
        let (d, taps, across) = (self.d, self.taps(), self.ips / SIDE);
        pieces(dw, taps * d.ci, |o, dw| {
            for (tap, dw) in dw.chunks_exact_mut(d.ci).enumerate() {
                for (block, dw) in dw.chunks_mut(SIDE).enumerate() {
                    let square = (o / SIDE * taps + tap) * across + block;
                    let from = (square * SIDE + o % SIDE) * SIDE;
                    dw.copy_from_slice(&sums[from..from + dw.len()]);
                }
            }
        });
    }
}

#[derive(Clone, Copy)]
struct Pairs(*mut u32);
// SAFETY: threads write disjoint positions of what it points to.
unsafe impl Send for Pairs {}
// SAFETY: as above.
unsafe impl Sync for Pairs {}

impl Pairs {
    const fn get(self) -> *mut u32 {
        self.0
    }
}

/// Runs `body` with so many pairs of this thread's memory, whose content is unspecified.
fn with_row(pairs: usize, body: impl FnOnce(&mut [u32])) {
    thread_local! {
        static ROW: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    }
    ROW.with_borrow_mut(|row| {
        if row.len() < pairs {
            row.resize(pairs, 0);
        }
        body(&mut row[..pairs]);
    });
}

/// Pairs of the channels of two positions, each of which may be none, and zeros behind them.
fn write_pair<'a>(
    first: Option<&'a [f32]>,
    second: Option<&'a [f32]>,
    channels: usize,
    to: &mut [u32],
) {
    static ZEROS: [f32; 1024] = [0.0; 1024];
    let (to, rest) = to.split_at_mut(channels);
    rest.fill(0);
    if first.is_none() && second.is_none() {
        return to.fill(0);
    }
    let part = |x: Option<&'a [f32]>, at: usize, len: usize| match x {
        Some(x) => &x[at..at + len],
        None => &ZEROS[..len],
    };
    for (i, to) in to.chunks_mut(ZEROS.len()).enumerate() {
        let at = i * ZEROS.len();
        round_pairs(part(first, at, to.len()), part(second, at, to.len()), to);
    }
}

vectorized! {
    /// Adds the first `rows` rows of a block.
    fn add(sums: &mut [f32], block: &[f32; SIDE * SIDE], rows: usize) {
        for (sum, v) in sums[..rows * SIDE].iter_mut().zip(block) {
            *sum += v;
        }
    }
}
