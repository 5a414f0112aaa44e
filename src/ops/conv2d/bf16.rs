//! Convolutions of numbers rounded to bf16: every kernel, stride and padding, as products over the taps of a row.
//!
//! Rows of the map are rounded into a padded copy, some at a time. There the numbers that a row of taps sees lie side by
//! side, and windows are a pixel apart, so that products read the copy as it is: positions that begin in the padding are
//! computed and thrown away. Every position is computed alike wherever it stands in the map.
use super::Dims;
use super::finish::{After, Finish, finish_rows};
use super::source::{Shared, Source};
use super::tuned::{row_0, wanted_rows};
use crate::engine::pool::Buffer;
use crate::engine::threads::{self, each, pieces};
use crate::ops::bf16::{
    Blocks, Left, Right, SIDE, Square, round_apart, round_pairs, round_to, with_scratch,
};

/// Numbers of the copy that a task holds, about: they and a block's weights stay in the second-level cache, which two
/// threads may share.
const COPY: usize = 128 << 10;
/// Rows that a task has at least, if there are as many: those around them are rounded for it too.
const LEAST_ROWS: usize = 4;

/// What is convolved, with stride 1 unless it is said.
#[derive(Clone, Copy)]
struct Plan {
    batch: usize,
    /// Of the map as it lies in memory: rows, and columns.
    height: usize,
    width: usize,
    /// Pixels of the map lie so far apart, with zeros between them.
    spread: usize,
    /// Zeros before the first row and column.
    pad: usize,
    kernel: usize,
    stride: usize,
    out_height: usize,
    out_width: usize,
}

impl Plan {
    fn forward(d: &Dims) -> Self {
        let (out_height, out_width) = (d.out_height(), d.out_width());
        let Dims { batch, height, width, kernel, stride, pad, .. } = *d;
        let spread = 1;
        let plan =
            Self { batch, height, width, spread, pad, kernel, stride, out_height, out_width };
        plan.flat()
    }

    /// That of the input's gradient, from the output's.
    fn backward(d: &Dims) -> Self {
        let plan = Self {
            batch: d.batch,
            height: d.out_height(),
            width: d.out_width(),
            spread: d.stride,
            // The caller's padding is below the kernel.
            pad: d.kernel - 1 - d.pad,
            kernel: d.kernel,
            stride: 1,
            out_height: d.height,
            out_width: d.width,
        };
        plan.flat()
    }

    /// Images below each other, where no window sees two rows; those of which some rows are wanted stay.
    fn flat(self) -> Self {
        let pointwise = (self.kernel, self.stride, self.spread, self.pad) == (1, 1, 1, 0);
        if !pointwise || wanted_rows().is_some() {
            return self;
        }
        let rows = self.batch * self.height;
        Self { batch: 1, height: rows, out_height: rows, ..self }
    }

    /// Pixels in a row of the copy.
    const fn pitch(&self) -> usize {
        (self.out_width - 1) * self.stride + self.kernel
    }

    /// Rows of the copy that `rows` of the output see.
    const fn seen(&self, rows: usize) -> usize {
        (rows - 1) * self.stride + self.kernel
    }

    /// Rows of the output that a task computes, of `rows` in each image.
    fn rows_of_task(&self, pixel: usize, rows: usize) -> usize {
        let fit = (COPY / (self.pitch() * pixel)).max(LEAST_ROWS);
        let share = (self.batch * rows).div_ceil(4 * threads::count());
        fit.min(share.max(LEAST_ROWS)).min(rows).max(1)
    }

    /// Writes row `row` of the copy of image `n`, counted from the top of its padding, to `to`, whose pixels have `pixel`
    /// numbers.
    fn copy_row(&self, x: &[Source<'_>], n: usize, row: usize, pixel: usize, to: &mut [u16]) {
        let inside = row.checked_sub(self.pad).filter(|y| y.is_multiple_of(self.spread));
        let Some(y) = inside.map(|y| y / self.spread).filter(|&y| y < self.height) else {
            return to.fill(0);
        };
        let start = (n * self.height + y) * self.width;
        // Pixels of the map that stand in the copy.
        let held =
            (self.pitch() - self.pad.min(self.pitch())).div_ceil(self.spread).min(self.width);
        let whole = |s: &Source<'_>| s.channels == pixel && self.spread == 1;
        if let [one] = x
            && whole(one)
        {
            let (before, rest) = to.split_at_mut(self.pad.min(self.pitch()) * pixel);
            let (middle, behind) = rest.split_at_mut(held * pixel);
            before.fill(0);
            behind.fill(0);
            return round_to(&one.x[start * pixel..][..held * pixel], middle);
        }
        to.fill(0);
        let mut first = 0;
        for &Source { x, channels } in x {
            let from = &x[start * channels..][..held * channels];
            if !from.is_empty() {
                round_apart(
                    from,
                    channels,
                    &mut to[self.pad * pixel + first..],
                    self.spread * pixel,
                );
            }
            first += channels;
        }
    }
}

/// Weights as products read them: `[Co / 32][k][steps][2][16][16][2]`, a step being 32 numbers of a row of taps.
struct Packed {
    /// Pairs of numbers, kept as floats of the same bits.
    pairs: Buffer<f32>,
    steps: usize,
    outputs: usize,
    /// Numbers of a pixel of the map.
    pixel: usize,
}

/// Columns of the right operand that lie side by side.
const HALF: usize = SIDE / 2;

impl Packed {
    /// Pairs of numbers in the weights of a row of taps, for 32 outputs.
    const fn row(steps: usize) -> usize {
        steps * SIDE * HALF
    }

    /// Of `w` `[Co, k, k, Ci]`; with `flipped`, for the gradient of the input.
    fn of(d: &Dims, w: &[f32], flipped: bool) -> Self {
        let (inputs, outputs) = if flipped { (d.co, d.ci) } else { (d.ci, d.co) };
        let pixel = inputs.next_multiple_of(2);
        let steps = (d.kernel * pixel).div_ceil(SIDE);
        let blocks = outputs.div_ceil(SIDE);
        let mut pairs = Buffer::new(blocks * d.kernel * Self::row(steps));
        let all: &mut [u32] = bytemuck::cast_slice_mut(&mut pairs);
        pieces(all, Self::row(steps), |task, to| {
            let (block, ky) = (task / d.kernel, task % d.kernel);
            to.fill(0);
            for half in 0..2 {
                let first = block * SIDE + half * HALF;
                let held = outputs.saturating_sub(first).min(HALF);
                if held > 0 {
                    let of = HalfBlock { d, w, ky, first, held, pixel };
                    if flipped { of.flipped(half, to) } else { of.straight(half, to) }
                }
            }
        });
        Self { pairs, steps, outputs, pixel }
    }

    fn block(&self, kernel: usize, block: usize) -> Right {
        let at = self.pairs[block * kernel * Self::row(self.steps)..].as_ptr().cast();
        Right { at, stride: SIDE, second: SIDE * HALF, step: 2 * SIDE * HALF }
    }
}

/// A row of taps of up to 16 outputs.
struct HalfBlock<'a> {
    d: &'a Dims,
    w: &'a [f32],
    ky: usize,
    first: usize,
    held: usize,
    pixel: usize,
}

impl HalfBlock<'_> {
    /// Where pair `pair` of a row of taps lies.
    const fn at(half: usize, pair: usize) -> usize {
        (pair / HALF * 2 + half) * HALF * HALF + pair % HALF * HALF
    }

    fn straight(&self, half: usize, to: &mut [u32]) {
        let Self { d, w, ky, first, held, pixel } = *self;
        let mut row = vec![0u16; d.kernel * pixel];
        for o in 0..held {
            let from = &w[((first + o) * d.kernel + ky) * d.kernel * d.ci..][..d.kernel * d.ci];
            for (row, from) in row.chunks_exact_mut(pixel).zip(from.chunks_exact(d.ci)) {
                round_to(from, &mut row[..d.ci]);
            }
            for (pair, two) in row.chunks_exact(2).enumerate() {
                to[Self::at(half, pair) + o] = u32::from(two[0]) | u32::from(two[1]) << 16;
            }
        }
    }

    fn flipped(&self, half: usize, to: &mut [u32]) {
        let Self { d, w, ky, first, held, pixel } = *self;
        let taps = d.kernel * d.kernel;
        let zeros = [0.0; HALF];
        for kx in 0..d.kernel {
            let tap = taps - 1 - (ky * d.kernel + kx);
            let of = |o: usize| match o < d.co {
                true => &w[(o * taps + tap) * d.ci + first..][..held],
                false => &zeros[..held],
            };
            for pair in 0..pixel / 2 {
                let at = Self::at(half, kx * pixel / 2 + pair);
                round_pairs(of(2 * pair), of(2 * pair + 1), &mut to[at..at + held]);
            }
        }
    }
}

/// `y = then(conv(x, w) + bias)`; the channels of `x` together are those of `d`.
pub(super) fn forward(
    d: &Dims,
    x: &[Source<'_>],
    w: &[f32],
    bias: Option<&[f32]>,
    then: After<'_, f32>,
    y: &mut [f32],
) {
    convolve(&Plan::forward(d), x, &Packed::of(d, w, false), bias, then, y);
}

/// The gradient of the input.
pub(super) fn input_gradient(d: &Dims, w: &[f32], dy: &[f32], dx: &mut [f32]) {
    let dy = [Source { x: dy, channels: d.co }];
    convolve(&Plan::backward(d), &dy, &Packed::of(d, w, true), None, After::Nothing, dx);
}

fn convolve(
    plan: &Plan,
    x: &[Source<'_>],
    packed: &Packed,
    bias: Option<&[f32]>,
    then: After<'_, f32>,
    y: &mut [f32],
) {
    if y.is_empty() {
        return;
    }
    let finish = Finish::new(bias, then, packed.outputs.next_multiple_of(SIDE));
    let (top, bottom) = match wanted_rows() {
        Some([start, end]) if plan.batch == 1 => (start, end.min(plan.out_height)),
        _ => (0, plan.out_height),
    };
    let rows = bottom.saturating_sub(top);
    if rows == 0 {
        return;
    }
    let held = plan.rows_of_task(packed.pixel, rows);
    let of_image = rows.div_ceil(held);
    let shared = row_0(plan.batch, plan.out_height, plan.out_width * packed.outputs, y);
    each(plan.batch * of_image, &|task| {
        let (n, first) = (task / of_image, top + task % of_image * held);
        let band = Band { plan, packed, n, first, rows: held.min(bottom - first) };
        band.convolve(x, &finish, shared);
    });
}

/// Some rows of the output of an image.
struct Band<'a> {
    plan: &'a Plan,
    packed: &'a Packed,
    n: usize,
    first: usize,
    rows: usize,
}

impl Band<'_> {
    fn convolve(&self, x: &[Source<'_>], finish: &Finish, y: Shared) {
        let (plan, packed) = (self.plan, self.packed);
        let (pitch, pixel) = (plan.pitch(), packed.pixel);
        let seen = plan.seen(self.rows);
        // Blocks are whole: the last may begin anywhere, and its last row of taps is a whole number of steps.
        let behind = SIDE * plan.stride * pixel + packed.steps * SIDE;
        with_scratch(seen * pitch * pixel + behind, |copy| self.convolve_copy(x, copy, finish, y));
    }

    fn convolve_copy(&self, x: &[Source<'_>], copy: &mut [u16], finish: &Finish, y: Shared) {
        let (plan, packed) = (self.plan, self.packed);
        let (pitch, pixel) = (plan.pitch(), packed.pixel);
        let seen = plan.seen(self.rows);
        let (rows, rest) = copy.split_at_mut(seen * pitch * pixel);
        rest.fill(0);
        for (row, to) in rows.chunks_exact_mut(pitch * pixel).enumerate() {
            plan.copy_row(x, self.n, self.first * plan.stride + row, pixel, to);
        }
        // Positions a pixel apart go from row to row.
        let (runs, len) = match plan.stride {
            1 => (1, (self.rows - 1) * pitch + plan.out_width),
            _ => (self.rows, plan.out_width),
        };
        let blocks = Blocks::here();
        let mut sums = Square::zeros();
        for block in 0..packed.outputs.div_ceil(SIDE) {
            let right = packed.block(plan.kernel, block);
            let columns = (packed.outputs - block * SIDE).min(SIDE);
            for run in 0..runs {
                for start in (0..len).step_by(SIDE) {
                    let held = SIDE.min(len - start);
                    let at = (run * plan.stride * pitch + start * plan.stride) * pixel;
                    let left = Left {
                        at: copy[at..].as_ptr(),
                        stride: plan.stride * pixel,
                        groups: plan.kernel,
                        group: pitch * pixel,
                    };
                    // SAFETY: the copy has room for a whole block behind its last position.
                    unsafe {
                        blocks.multiply(left, right, packed.steps, [held, columns], &mut sums);
                    }
                    let to = (run * plan.out_width + start, block * SIDE, columns);
                    self.store(&sums, held, to, finish, y);
                }
            }
        }
    }

    /// Writes the sums of `held` positions from `start` on, without those that begin in the padding.
    fn store(
        &self,
        sums: &Square,
        held: usize,
        (start, channel, columns): (usize, usize, usize),
        finish: &Finish,
        y: Shared,
    ) {
        let (plan, outputs) = (self.plan, self.packed.outputs);
        let pitch = if plan.stride == 1 { plan.pitch() } else { plan.out_width };
        let mut at = 0;
        while at < held {
            let (row, column) = ((start + at) / pitch, (start + at) % pitch);
            let wanted = plan.out_width.saturating_sub(column).min(held - at);
            if wanted > 0 {
                let row = self.n * plan.out_height + self.first + row;
                let to = (row * plan.out_width + column) * outputs + channel;
                let len = (wanted - 1) * outputs + columns;
                // SAFETY: these channels of these positions are this task's alone.
                let y = unsafe { std::slice::from_raw_parts_mut(y.get().wrapping_add(to), len) };
                finish_rows(&sums.0[at * SIDE..], SIDE, y, outputs, columns, finish, channel);
            }
            at += (pitch - column).min(held - at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bf16_weights::weight_gradient;
    use super::*;
    use crate::ops::conv2d::general;
    use crate::ops::conv2d::tuned::rows_from;

    /// Numbers that bf16 holds, so that products differ in the order of their sums alone.
    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 255) as f32 / 128.0 - 1.0).collect()
    }

    fn close(a: &[f32], b: &[f32], what: &str) {
        let square =
            |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
        let off = square(&mut a.iter().zip(b).map(|(a, b)| a - b)).sqrt();
        let error = off / square(&mut b.iter().copied()).sqrt();
        assert!(error < 1e-6, "{what}: relative L2 {error:.1e}");
    }

    fn shapes() -> Vec<Dims> {
        [
            (2, 13, 18, 32, 48, 3, 1, 1),
            (2, 4, 5, 3, 20, 3, 1, 1),
            (1, 9, 7, 51, 6, 3, 1, 1),
            (3, 8, 8, 64, 33, 1, 1, 0),
            (2, 12, 11, 20, 40, 3, 2, 1),
            (1, 12, 12, 16, 24, 4, 2, 1),
            (1, 9, 40, 6, 16, 5, 1, 2),
            (1, 17, 9, 32, 17, 7, 1, 0),
            (1, 70, 33, 24, 16, 3, 1, 1),
        ]
        .into_iter()
        .map(|(batch, height, width, ci, co, kernel, stride, pad)| Dims {
            batch,
            height,
            width,
            ci,
            co,
            kernel,
            stride,
            pad,
        })
        .collect()
    }

    fn len(d: &Dims) -> [usize; 3] {
        let outputs = d.batch * d.out_height() * d.out_width() * d.co;
        [d.batch * d.height * d.width * d.ci, d.co * d.kernel * d.kernel * d.ci, outputs]
    }

    #[test]
    fn every_shape_agrees_with_the_general_code() {
        for d in shapes() {
            let [of_x, of_w, of_y] = len(&d);
            let (x, w, dy) = (numbers(of_x, 1), numbers(of_w, 2), numbers(of_y, 3));
            let bias = numbers(d.co, 4);

            let (mut y, mut expected) = (vec![f32::NAN; of_y], vec![0.0; of_y]);
            let source = [Source { x: &x, channels: d.ci }];
            forward(&d, &source, &w, Some(&bias), After::Slopes(&[0.25]), &mut y);
            general::forward(&d, &x, &w, Some(&bias), &mut expected);
            expected.iter_mut().filter(|v| **v < 0.0).for_each(|v| *v *= 0.25);
            close(&y, &expected, &format!("forward {d:?}"));

            let (mut dx, mut expected) = (vec![f32::NAN; of_x], vec![0.0; of_x]);
            input_gradient(&d, &w, &dy, &mut dx);
            general::input_gradient(&d, &w, &dy, &mut expected);
            close(&dx, &expected, &format!("input gradient {d:?}"));

            let (mut dw, mut expected) = (vec![f32::NAN; of_w], vec![0.0; of_w]);
            weight_gradient(&d, &x, &dy, &mut dw);
            general::weight_gradient(&d, &x, &dy, &mut expected);
            close(&dw, &expected, &format!("weight gradient {d:?}"));
        }
    }

    #[test]
    fn bits_depend_on_no_number_of_threads_and_rows_alone_are_those_of_all() {
        let d =
            Dims { batch: 1, height: 61, width: 20, ci: 24, co: 40, kernel: 3, stride: 1, pad: 1 };
        let [of_x, of_w, of_y] = len(&d);
        let part = |len, seed| numbers(len, seed).iter().map(|v| v * 1.237).collect::<Vec<f32>>();
        let (x, w, dy) = (part(of_x, 1), part(of_w, 2), part(of_y, 3));
        let run = |count: usize| {
            threads::with_count(count, || {
                let (mut y, mut dw) = (vec![0.0; of_y], vec![0.0; of_w]);
                let source = [Source { x: &x, channels: d.ci }];
                forward(&d, &source, &w, None, After::Nothing, &mut y);
                weight_gradient(&d, &x, &dy, &mut dw);
                (y, dw)
            })
        };
        let whole = run(1);
        assert_eq!(whole, run(3));
        // Two maps side by side, of which some rows are wanted, and room for others above.
        let line = 20 * 40;
        let mut y = vec![0.0; 34 * line];
        let halves: Vec<Vec<f32>> = [0..10, 10..24]
            .into_iter()
            .map(|range| x.chunks_exact(24).flat_map(|p| p[range.clone()].to_vec()).collect())
            .collect();
        let sources =
            [Source { x: &halves[0], channels: 10 }, Source { x: &halves[1], channels: 14 }];
        rows_from(-4, [7, 30], || forward(&d, &sources, &w, None, After::Nothing, &mut y));
        assert_eq!(y[11 * line..], whole.0[7 * line..30 * line]);
        assert!(
            y[..11 * line].iter().all(|&v| v == 0.0),
            "rows that nobody asked for were written"
        );
    }
}
