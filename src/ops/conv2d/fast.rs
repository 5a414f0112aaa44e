//! The fast convolution on x86: Winograd F(4x4, 3x3) (Lavin & Gray 2016) for 3x3 kernels, a packed
//! product for 1x1, both with stride 1 and "same" padding, in f32.
//!
//! A 4x4 block of outputs is `Y = A^T [(G g G^T) . (B^T d B)] A` of a 6x6 window d: 36 products in
//! place of 144. The gradient of the input is the same convolution with flipped weights; that of the
//! weights is `dg = G^T [sum over blocks (B^T d B) (A dY A^T)] G`. Every position is computed alike
//! wherever it stands in the map, so a tile of an image equals the whole, bit for bit.
use std::cell::RefCell;
use std::ops::Range;

use super::Dims;
use super::finish::{After, Finish, finish_rows};
use super::instructions::{Kernels, kernels};
use super::packed::{Packed, padded};
use super::simd::CB;
use super::source::{Shared, Source};
use super::tuned::{row_0, wanted_rows};
use crate::engine::threads::{self, each, pieces};
use crate::ops::bf16::{Products, products};
use crate::ops::simd::level as simd_level;

/// The tiles that convolutions use, if the processor has an instruction set for them and nothing else is wanted.
pub(super) fn chosen() -> Option<&'static Kernels> {
    (products() == Products::F32).then(|| kernels(simd_level())).flatten()
}

/// The rows of blocks to compute, of all or those that are wanted.
fn wanted_blocks(d: &Dims) -> (usize, usize) {
    let all = d.out_height().div_ceil(4);
    match wanted_rows() {
        Some([start, end]) if d.batch == 1 => ((start / 4).min(all), end.div_ceil(4).min(all)),
        _ => (0, d.batch * all),
    }
}

thread_local! {
    /// V and M of the block a thread works on; kept, so that no block pays for fresh pages.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Positions (Winograd tiles or pixels) per block: V, which M takes the place of, stays in the second-level cache beside
/// the weights, which every block reads again, and threads end together. `tile` positions fill a register tile.
fn block_len(tile: usize, frequencies: usize, ci: usize, co: usize, positions: usize) -> usize {
    const CACHE_FLOATS: usize = 96 << 10;
    const MOST: usize = 112;
    // What reading the weights costs a block, in positions.
    const WEIGHTS: usize = 6;
    let beside_weights = CACHE_FLOATS.saturating_sub(frequencies * ci * co);
    let fit = (beside_weights / (frequencies * ci.max(co)) / tile).clamp(1, MOST / tile);
    let threads = threads::count();
    let time = |t: usize| positions.div_ceil(t).div_ceil(threads) * (t + WEIGHTS);
    (1..=fit).rev().map(|n| n * tile).min_by_key(|&t| time(t)).unwrap_or(tile)
}

/// Where a Winograd tile stands: image, first output row and column.
pub(super) fn tile_at(d: &Dims, position: usize) -> (usize, usize, usize) {
    let (rows, columns) = (d.out_height().div_ceil(4), d.out_width().div_ceil(4));
    let (n, rest) = (position / (rows * columns), position % (rows * columns));
    (n, rest / columns * 4, rest % columns * 4)
}

/// Copies the `SIZE` x `SIZE` window at (y0, x0) of image `n` into `patch`, zero outside of images of that height and width.
pub(super) fn window<const SIZE: usize>(
    [height, width]: [usize; 2],
    x: &[f32],
    channels: usize,
    (n, y0, x0): (usize, isize, isize),
    patch: &mut [f32],
) {
    let cp = padded(channels);
    for (at, pixel) in patch.chunks_exact_mut(cp).take(SIZE * SIZE).enumerate() {
        let (y, x_) = (y0 + (at / SIZE) as isize, x0 + (at % SIZE) as isize);
        let inside = (0..height as isize).contains(&y) && (0..width as isize).contains(&x_);
        if !inside {
            pixel.fill(0.0);
            continue;
        }
        #[allow(clippy::cast_sign_loss)] // Both were just found to be inside.
        let from = &x[((n * height + y as usize) * width + x_ as usize) * channels..];
        match (cp == CB, pixel.first_chunk_mut::<CB>(), from.first_chunk::<CB>()) {
            // Of a size that the compiler knows: not two calls for three channels.
            (true, Some(pixel), Some(from)) => {
                *pixel = std::array::from_fn(|i| if i < channels { from[i] } else { 0.0 });
            }
            _ => {
                pixel[..channels].copy_from_slice(&from[..channels]);
                pixel[channels..].fill(0.0);
            }
        }
    }
}

/// Where transformed positions go: positions that a channel block has room for, and elements of a frequency.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) positions: usize,
    pub(super) frequency: usize,
}

/// Transforms the windows of `tiles` into V.
///
/// # Safety
/// `v` is the first element of the first tile's first channel of this source in V, which has that room; no one else
/// touches these positions. `patch` holds 36 times the channels.
pub(super) unsafe fn transform_inputs(
    k: &Kernels,
    d: &Dims,
    Source { x, channels }: Source<'_>,
    tiles: Range<usize>,
    (v, room): (*mut f32, Room),
    patch: &mut [f32],
) {
    let (cp, Room { positions, frequency }) = (padded(channels), room);
    for (p, tile) in tiles.enumerate() {
        let (n, y, x0) = tile_at(d, tile);
        let [top, left] = [y, x0].map(|at| at as isize - d.pad as isize);
        let inside = y.min(x0) >= d.pad && y - d.pad + 6 <= d.height && x0 - d.pad + 6 <= d.width;
        // SAFETY: position p of V, as the caller promises.
        let to = unsafe { v.add(p * CB) };
        if inside && cp == channels {
            let from = &x[((n * d.height + y - d.pad) * d.width + x0 - d.pad) * cp..];
            // SAFETY: the whole window lies inside the image; the caller's promise for V.
            unsafe { (k.input)(from.as_ptr(), d.width * cp, cp, cp, to, positions, frequency) };
        } else {
            window::<6>([d.height, d.width], x, channels, (n, top, left), patch);
            // SAFETY: the patch is a 6x6 window of cp channels; the caller's promise for V.
            unsafe { (k.input)(patch.as_ptr(), 6 * cp, cp, cp, to, positions, frequency) };
        }
    }
}

/// Runs `body` with `floats` of this thread's scratch memory, whose content is unspecified; it starts at a cache line.
pub(super) fn with_scratch(floats: usize, body: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < floats + CB {
            scratch.resize(floats + CB, 0.0);
        }
        body(from_line(scratch, floats));
    });
}

/// `len` elements of `memory`, which has [`CB`] more, from the first cache line on: blocks of CB channels that began
/// elsewhere would each touch two.
pub(super) fn from_line(memory: &mut [f32], len: usize) -> &mut [f32] {
    let start = memory.as_ptr().align_offset(4 * CB).min(CB);
    &mut memory[start..][..len]
}

/// `y = then(conv(x, packed) + bias)`; the channels of `x` together are `packed.inputs`, and multiples of [`CB`] but
/// for the last. Several are for 3x3 kernels.
pub(super) fn convolve(
    k: &Kernels,
    d: &Dims,
    x: &[Source<'_>],
    packed: &Packed,
    bias: Option<&[f32]>,
    then: After<'_, f32>,
    y: &mut [f32],
) {
    let finish = Finish::new(bias, then, padded(packed.outputs));
    match x {
        [x] if d.kernel == 1 => pointwise(k, x.x, packed, &finish, y),
        _ => winograd(k, d, x, packed, &finish, y),
    }
}

fn winograd(
    k: &Kernels,
    d: &Dims,
    x: &[Source<'_>],
    packed: &Packed,
    finish: &Finish,
    y: &mut [f32],
) {
    let (ip, op) = (padded(packed.inputs), padded(packed.outputs));
    let (top, bottom) = wanted_blocks(d);
    let columns = d.out_width().div_ceil(4);
    let (skipped, positions) = (top * columns, bottom * columns);
    let block = block_len(k.positions, 36, ip, op, positions - skipped);
    if let Some([start, end]) = wanted_rows() {
        let whole = start.is_multiple_of(4) && (end.is_multiple_of(4) || end >= d.out_height());
        assert!(whole || d.batch > 1, "rows are computed in blocks of four");
    }
    let shared = row_0(d.batch, d.out_height(), d.out_width() * packed.outputs, y);
    each((positions - skipped).div_ceil(block), &|b| {
        let start = skipped + b * block;
        let t = block.min(positions - start);
        // V of a frequency lies a slot behind M of it: a product is written where the one before was read, so that half as
        // much memory passes through the caches. An odd number of cache lines: a tile's frequencies then lie in different sets of the first-level cache.
        let slot = ((t * ip.max(op) / CB) | 1) * CB;
        with_scratch(37 * slot + 36 * ip + 16 * op, |scratch| {
            let (slots, rest) = scratch.split_at_mut(37 * slot);
            let (patch, out) = rest.split_at_mut(36 * ip);
            let mut first = 0;
            for &source in x {
                let room = Room { positions: t, frequency: slot };
                let to = slots[slot + first * t..].as_mut_ptr();
                // SAFETY: V of this task holds t positions of all channels, from `first` on those of this source.
                unsafe { transform_inputs(k, d, source, start..start + t, (to, room), patch) };
                first += padded(source.channels);
            }
            for xi in 0..36 {
                let (m, v) = slots[xi * slot..][..2 * slot].split_at_mut(slot);
                let u = &packed.u[xi * ip * op..];
                // SAFETY: frequency xi of V, U and M, laid out as `product` asks.
                unsafe {
                    (k.product)(v.as_ptr(), t, t, ip / CB, u.as_ptr(), m.as_mut_ptr(), op);
                }
            }
            for p in 0..t {
                let (channels, m) = (packed.outputs, &slots[p * op..]);
                store_tile(k, d, channels, start + p, m, slot, finish, out, shared);
            }
        });
    });
}

/// Writes one tile of outputs, through `out` where it sticks out of the image.
fn store_tile(
    k: &Kernels,
    d: &Dims,
    channels: usize,
    position: usize,
    m: &[f32],
    frequency: usize,
    finish: &Finish,
    out: &mut [f32],
    y: Shared,
) {
    let (n, oy, ox) = tile_at(d, position);
    let Finish { bias, relu, .. } = finish;
    let (op, slopes) = (bias.len(), finish.slopes());
    let [height, width] = [d.out_height(), d.out_width()];
    let (rows, columns) = ((height - oy).min(4), (width - ox).min(4));
    let pixel = |row: usize| ((n * height + oy + row) * width + ox) * channels;
    if rows == 4 && columns == 4 && op == channels {
        // SAFETY: the tile lies inside image n and belongs to this task alone.
        unsafe {
            let y = y.get().wrapping_add(pixel(0));
            (k.output)(m.as_ptr(), frequency, op, bias.as_ptr(), *relu, slopes, y, width * op, op);
        }
        return;
    }
    // SAFETY: `out` holds 4x4 pixels of op channels.
    unsafe {
        let out = out.as_mut_ptr();
        (k.output)(m.as_ptr(), frequency, op, bias.as_ptr(), *relu, slopes, out, 4 * op, op)
    };
    for row in 0..rows {
        for column in 0..columns {
            let from = out[(row * 4 + column) * op..].as_ptr();
            // SAFETY: a pixel inside image n that belongs to this task alone.
            unsafe {
                let to = y.get().wrapping_add(pixel(row) + column * channels);
                std::ptr::copy_nonoverlapping(from, to, channels);
            }
        }
    }
}

/// Packs pixels of `x` into V, channels padded with zeros.
///
/// # Safety
/// `v` is the first pixel of V `[channels / CB][positions][CB]`; no one else touches these positions.
pub(super) unsafe fn pack_pixels(x: &[f32], channels: usize, v: *mut f32, positions: usize) {
    for (p, x) in x.chunks_exact(channels).enumerate() {
        let (whole, rest) = x.as_chunks::<CB>();
        for (cb, x) in whole.iter().enumerate() {
            // SAFETY: channel block cb of position p, as the caller promises. Of a size that the compiler knows: not a call.
            unsafe { v.add((cb * positions + p) * CB).cast::<[f32; CB]>().write(*x) };
        }
        if !rest.is_empty() {
            // SAFETY: as above, the last block.
            unsafe {
                let to = v.add((whole.len() * positions + p) * CB);
                std::ptr::copy_nonoverlapping(rest.as_ptr(), to, rest.len());
                to.add(rest.len()).write_bytes(0, CB - rest.len());
            }
        }
    }
}

fn pointwise(k: &Kernels, x: &[f32], packed: &Packed, finish: &Finish, y: &mut [f32]) {
    let (inputs, outputs) = (packed.inputs, packed.outputs);
    let (ip, op) = (padded(inputs), padded(outputs));
    let block = block_len(k.positions, 1, ip, op, y.len() / outputs);
    pieces(y, block * outputs, |i, y| {
        let t = y.len() / outputs;
        let x = &x[i * block * inputs..][..t * inputs];
        with_scratch(t * (ip + op), |scratch| {
            let (v, m) = scratch.split_at_mut(t * ip);
            // SAFETY: V of this task holds t positions.
            unsafe { pack_pixels(x, inputs, v.as_mut_ptr(), t) };
            // SAFETY: V, U and M of one frequency, laid out as `product` asks.
            unsafe {
                (k.product)(v.as_ptr(), t, t, ip / CB, packed.u.as_ptr(), m.as_mut_ptr(), op);
            }
            finish_rows(&m[..t * op], op, y, outputs, outputs, finish, 0);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::general;
    use crate::ops::conv2d::packed::pack;
    use crate::ops::conv2d::weight_gradient::weight_gradient;
    use crate::ops::simd::Level;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0).collect()
    }

    fn close(a: &[f32], b: &[f32], what: &str) {
        let square =
            |v: &mut dyn Iterator<Item = f32>| v.map(|v| f64::from(v).powi(2)).sum::<f64>();
        let off = square(&mut a.iter().zip(b).map(|(a, b)| a - b)).sqrt();
        let error = off / square(&mut b.iter().copied()).sqrt();
        // Winograd's transforms cost about two digits of f32.
        assert!(error < 1e-5, "{what}: relative L2 {error:.1e}");
    }

    /// Every instruction set the processor has, not only the one that is chosen: whole tiles, edges
    /// and channels that fill no vector, forward and both gradients.
    #[test]
    #[allow(clippy::print_stdout)] // A skipped check says so.
    fn every_instruction_set_agrees_with_the_general_code() {
        let (mut tried, mut bits) = (0, Vec::new());
        for level in [Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= simd_level()) {
            let Some(k) = kernels(level) else { continue };
            tried += 1;
            let mut of_level = Vec::new();
            for (kernel, pad, height, width, ci, co) in [
                (3, 1, 13, 18, 32, 48),
                (3, 1, 4, 5, 3, 20),
                (3, 1, 9, 7, 51, 6),
                (3, 0, 15, 20, 16, 40),
                (3, 0, 6, 3, 20, 9),
                (3, 2, 7, 14, 24, 16),
                (1, 0, 5, 9, 20, 33),
                (1, 0, 3, 40, 64, 16),
                // Several blocks of positions in the sums of the weights' gradient.
                (3, 1, 33, 30, 64, 48),
                (3, 0, 36, 33, 48, 64),
                (1, 0, 50, 50, 16, 16),
            ] {
                let d = Dims { batch: 2, height, width, ci, co, kernel, stride: 1, pad };
                let (x, of_y) =
                    (numbers(2 * height * width * ci, 1), d.out_height() * d.out_width());
                let dy = numbers(2 * of_y * co, 2);
                let (w, b) = (numbers(co * kernel * kernel * ci, 3), numbers(co, 4));
                let label = |what: &str| format!("{level:?} {what} {d:?}");

                let (mut y, mut expected) = (vec![f32::NAN; dy.len()], vec![0.0; dy.len()]);
                let source = Source { x: &x, channels: ci };
                let packed = pack(k, &d, &w, false);
                convolve(k, &d, &[source], &packed, Some(&b), After::Nothing, &mut y);
                general::forward(&d, &x, &w, Some(&b), &mut expected);
                close(&y, &expected, &label("forward"));

                let (mut dx, mut expected) = (vec![f32::NAN; x.len()], vec![0.0; x.len()]);
                let source = Source { x: &dy, channels: co };
                let packed = pack(k, &d, &w, true);
                convolve(k, &d.back(), &[source], &packed, None, After::Nothing, &mut dx);
                general::input_gradient(&d, &w, &dy, &mut expected);
                close(&dx, &expected, &label("input gradient"));

                let (mut dw, mut expected) = (vec![f32::NAN; w.len()], vec![0.0; w.len()]);
                weight_gradient(k, &d, &x, &dy, &mut dw);
                general::weight_gradient(&d, &x, &dy, &mut expected);
                close(&dw, &expected, &label("weight gradient"));
                of_level.extend([y, dx, dw].concat().into_iter().map(f32::to_bits));
            }
            bits.push(of_level);
        }
        assert!(bits.windows(2).all(|pair| pair[0] == pair[1]), "sets differ in bits");
        println!("{tried} instruction sets agree with the general code");
    }
}
