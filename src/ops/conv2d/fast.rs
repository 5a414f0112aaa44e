//! The fast convolution on x86: Winograd F(4x4, 3x3) (Lavin & Gray 2016) for 3x3 kernels, a packed
//! product for 1x1, both with stride 1 and "same" padding, in f32.
//!
//! A 4x4 block of outputs is `Y = A^T [(G g G^T) . (B^T d B)] A` of a 6x6 window d: 36 products in
//! place of 144. The gradient of the input is the same convolution with flipped weights; that of the
//! weights is `dg = G^T [sum over blocks (B^T d B) (A dY A^T)] G`. Every position is computed alike
//! wherever it stands in the map, so a tile of an image equals the whole, bit for bit.
use std::cell::RefCell;

use rayon::prelude::*;

use super::Dims;
use super::finish::{After, Finish};
use super::packed::{AT_0, AT_FAR, AT_NEAR, Packed, Shared, padded};
use super::simd::{self, CB, FAR, FAR2, NEAR, NEAR2};
use crate::ops::simd::{Level, level as simd_level};

/// One instruction set: the tiles of [`simd`] and their width.
pub(super) struct Kernels {
    pub(super) ocb: usize,
    product: unsafe fn(*const f32, usize, usize, usize, *const f32, *mut f32, usize),
    outer: unsafe fn(*const f32, usize, usize, usize, *const f32, *mut f32, usize),
    input: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize, usize),
    gradient: unsafe fn(*const f32, usize, usize, usize, *mut f32, usize),
    output: Output,
}

type Output =
    unsafe fn(*const f32, usize, usize, *const f32, bool, *const f32, *mut f32, usize, usize);

static AVX512: Kernels = Kernels {
    ocb: simd::avx512::OCB,
    product: simd::avx512::product,
    outer: simd::avx512::outer,
    input: simd::avx512::input,
    gradient: simd::avx512::gradient,
    output: simd::avx512::output,
};

static AVX2: Kernels = Kernels {
    ocb: simd::avx2::OCB,
    product: simd::avx2::product,
    outer: simd::avx2::outer,
    input: simd::avx2::input,
    gradient: simd::avx2::gradient,
    output: simd::avx2::output,
};

/// The tiles of an instruction set, if there are any.
const fn kernels(level: Level) -> Option<&'static Kernels> {
    match level {
        Level::Avx512 => Some(&AVX512),
        Level::Avx2 => Some(&AVX2),
        Level::Portable => None,
    }
}

/// The tiles that convolutions use, if the processor has an instruction set for them.
pub(super) fn chosen() -> Option<&'static Kernels> {
    (!PRECISE.get()).then(|| kernels(simd_level())).flatten()
}

thread_local! {
    /// Whether convolutions that this thread starts are to be plain sums.
    static PRECISE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// See [`super::precisely`].
pub(super) fn precisely<R>(body: impl FnOnce() -> R) -> R {
    let before = PRECISE.replace(true);
    let result = body();
    PRECISE.set(before);
    result
}

thread_local! {
    /// The output rows that are wanted of convolutions that this thread starts.
    static WANTED: std::cell::Cell<Option<[usize; 2]>> = const { std::cell::Cell::new(None) };
}

/// See [`super::rows_alone`].
pub(super) fn rows_alone<R>(rows: [usize; 2], body: impl FnOnce() -> R) -> R {
    let before = WANTED.replace(Some(rows));
    let result = body();
    WANTED.set(before);
    result
}

/// The rows of blocks to compute, of all or those that are wanted.
fn wanted_blocks(d: &Dims) -> (usize, usize) {
    let all = d.height.div_ceil(4);
    match WANTED.get() {
        Some([start, end]) if d.batch == 1 => ((start / 4).min(all), end.div_ceil(4).min(all)),
        _ => (0, d.batch * all),
    }
}

thread_local! {
    /// V and M of the block a thread works on; kept, so that no block pays for fresh pages.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Positions (Winograd tiles or pixels) per block: V and M stay in the second-level cache beside the weights, which
/// every block reads again, and threads end together.
fn block_len(frequencies: usize, ci: usize, co: usize, positions: usize) -> usize {
    const CACHE_FLOATS: usize = 160 << 10;
    // Positions that fill a register tile.
    const TILE: usize = 14;
    // What reading the weights costs a block, in positions.
    const WEIGHTS: usize = 6;
    let beside_weights = CACHE_FLOATS.saturating_sub(frequencies * ci * co);
    let fit = (beside_weights / (frequencies * (ci + co)) / TILE).clamp(1, 8);
    let threads = rayon::current_num_threads();
    let time = |t: usize| positions.div_ceil(t).div_ceil(threads) * (t + WEIGHTS);
    (1..=fit).rev().map(|n| n * TILE).min_by_key(|&t| time(t)).unwrap_or(TILE)
}

/// Where a Winograd tile stands: image, first output row and column.
fn tile_at(d: &Dims, position: usize) -> (usize, usize, usize) {
    let (rows, columns) = (d.height.div_ceil(4), d.width.div_ceil(4));
    let (n, rest) = (position / (rows * columns), position % (rows * columns));
    (n, rest / columns * 4, rest % columns * 4)
}

/// Copies the `SIZE` x `SIZE` window at (y0, x0) of image `n` into `patch`, zero outside.
fn window<const SIZE: usize>(
    d: &Dims,
    x: &[f32],
    channels: usize,
    (n, y0, x0): (usize, isize, isize),
    patch: &mut [f32],
) {
    let cp = padded(channels);
    for (at, pixel) in patch.chunks_exact_mut(cp).take(SIZE * SIZE).enumerate() {
        let (y, x_) = (y0 + (at / SIZE) as isize, x0 + (at % SIZE) as isize);
        pixel.fill(0.0);
        let inside = (0..d.height as isize).contains(&y) && (0..d.width as isize).contains(&x_);
        if inside {
            #[allow(clippy::cast_sign_loss)] // Both were just found to be inside.
            let from = ((n * d.height + y as usize) * d.width + x_ as usize) * channels;
            pixel[..channels].copy_from_slice(&x[from..from + channels]);
        }
    }
}

/// A map whose channels are some of those that a convolution reads.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) x: &'a [f32],
    pub(super) channels: usize,
}

/// Transforms the windows of `t` tiles from `start` on into the channels of `v` from `first` on, of `all` it has.
fn transform_inputs(
    k: &Kernels,
    d: &Dims,
    Source { x, channels }: Source<'_>,
    (first, all): (usize, usize),
    (start, t): (usize, usize),
    v: &mut [f32],
    patch: &mut [f32],
) {
    let (cp, xi) = (padded(channels), all * t);
    for p in 0..t {
        let (n, y, x0) = tile_at(d, start + p);
        let (top, left) = (y as isize - 1, x0 as isize - 1);
        let inside = y > 0 && x0 > 0 && y + 5 <= d.height && x0 + 5 <= d.width;
        let to = v[first * t + p * CB..].as_mut_ptr();
        if inside && cp == channels {
            let from = &x[((n * d.height + y - 1) * d.width + x0 - 1) * cp..];
            // SAFETY: the whole window lies inside the image; V holds t positions of all channels.
            unsafe { (k.input)(from.as_ptr(), d.width * cp, cp, cp, to, t, xi) };
        } else {
            window::<6>(d, x, channels, (n, top, left), patch);
            // SAFETY: the patch is a 6x6 window of cp channels; V holds t positions of all channels.
            unsafe { (k.input)(patch.as_ptr(), 6 * cp, cp, cp, to, t, xi) };
        }
    }
}

/// Runs `body` with `floats` of this thread's scratch memory, whose content is unspecified.
fn with_scratch(floats: usize, body: impl FnOnce(&mut [f32])) {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < floats {
            scratch.resize(floats, 0.0);
        }
        body(&mut scratch[..floats]);
    });
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
    let (skipped, positions) = (top * d.width.div_ceil(4), bottom * d.width.div_ceil(4));
    let block = block_len(36, ip, op, positions - skipped);
    let shared = Shared(y.as_mut_ptr());
    (0..(positions - skipped).div_ceil(block)).into_par_iter().for_each(|b| {
        let start = skipped + b * block;
        let t = block.min(positions - start);
        with_scratch(36 * t * (ip + op) + 36 * ip + 16 * op, |scratch| {
            let (v, rest) = scratch.split_at_mut(36 * t * ip);
            let (m, rest) = rest.split_at_mut(36 * t * op);
            let (patch, out) = rest.split_at_mut(36 * ip);
            let mut first = 0;
            for &source in x {
                transform_inputs(k, d, source, (first, ip), (start, t), v, patch);
                first += padded(source.channels);
            }
            for xi in 0..36 {
                let (v, u) = (&v[xi * t * ip..], &packed.u[xi * ip * op..]);
                let m = &mut m[xi * t * op..];
                // SAFETY: frequency xi of V, U and M, laid out as `product` asks.
                unsafe {
                    (k.product)(v.as_ptr(), t, t, ip / CB, u.as_ptr(), m.as_mut_ptr(), op);
                }
            }
            for p in 0..t {
                let (channels, m) = (packed.outputs, &m[p * op..]);
                store_tile(k, d, channels, start + p, m, t, finish, out, shared);
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
    t: usize,
    finish: &Finish,
    out: &mut [f32],
    y: Shared,
) {
    let (n, oy, ox) = tile_at(d, position);
    let Finish { bias, relu, .. } = finish;
    let (op, slopes) = (bias.len(), finish.slopes());
    let (rows, columns) = ((d.height - oy).min(4), (d.width - ox).min(4));
    let pixel = |row: usize| ((n * d.height + oy + row) * d.width + ox) * channels;
    if rows == 4 && columns == 4 && op == channels {
        // SAFETY: the tile lies inside image n and belongs to this task alone.
        unsafe {
            let y = y.get().add(pixel(0));
            (k.output)(m.as_ptr(), t * op, op, bias.as_ptr(), *relu, slopes, y, d.width * op, op);
        }
        return;
    }
    // SAFETY: `out` holds 4x4 pixels of op channels.
    unsafe {
        let out = out.as_mut_ptr();
        (k.output)(m.as_ptr(), t * op, op, bias.as_ptr(), *relu, slopes, out, 4 * op, op)
    };
    for row in 0..rows {
        for column in 0..columns {
            let from = out[(row * 4 + column) * op..].as_ptr();
            // SAFETY: a pixel inside image n that belongs to this task alone.
            unsafe {
                let to = y.get().add(pixel(row) + column * channels);
                std::ptr::copy_nonoverlapping(from, to, channels);
            }
        }
    }
}

/// Packs `t` pixels of `x` into V, channels padded with zeros.
fn pack_pixels(x: &[f32], channels: usize, t: usize, v: &mut [f32]) {
    for (cb, v) in v.chunks_exact_mut(t * CB).take(channels.div_ceil(CB)).enumerate() {
        let len = CB.min(channels - cb * CB);
        for (p, v) in v.chunks_exact_mut(CB).enumerate() {
            let from = p * channels + cb * CB;
            v[..len].copy_from_slice(&x[from..from + len]);
            v[len..].fill(0.0);
        }
    }
}

fn pointwise(k: &Kernels, x: &[f32], packed: &Packed, finish: &Finish, y: &mut [f32]) {
    let (inputs, outputs) = (packed.inputs, packed.outputs);
    let (ip, op) = (padded(inputs), padded(outputs));
    let block = block_len(1, ip, op, y.len() / outputs);
    y.par_chunks_mut(block * outputs).zip(x.par_chunks(block * inputs)).for_each(|(y, x)| {
        let t = y.len() / outputs;
        with_scratch(t * (ip + op), |scratch| {
            let (v, m) = scratch.split_at_mut(t * ip);
            pack_pixels(x, inputs, t, v);
            // SAFETY: V, U and M of one frequency, laid out as `product` asks.
            unsafe {
                (k.product)(v.as_ptr(), t, t, ip / CB, packed.u.as_ptr(), m.as_mut_ptr(), op);
            }
            for (y, m) in y.chunks_exact_mut(outputs).zip(m.chunks_exact(op)) {
                for (channel, (y, &m)) in y.iter_mut().zip(m).enumerate() {
                    *y = finish.of(channel, m);
                }
            }
        });
    });
}

/// The gradient of the weights `[Co, k, k, Ci]` given that of the output.
pub(super) fn weight_gradient(k: &Kernels, d: &Dims, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (ip, op) = (padded(d.ci), padded(d.co));
    let frequencies = if d.kernel == 3 { 36 } else { 1 };
    let positions = match d.kernel {
        3 => d.batch * d.height.div_ceil(4) * d.width.div_ceil(4),
        _ => d.batch * d.height * d.width,
    };
    // A number of partial sums that depends on the shape alone keeps the bits the same at any number
    // of threads.
    let groups = (positions / if d.kernel == 3 { 256 } else { 2048 }).clamp(1, 16);
    let partial: Vec<Vec<f32>> = (0..groups)
        .into_par_iter()
        .map(|g| {
            let range = positions * g / groups..positions * (g + 1) / groups;
            let mut du = vec![0.0; frequencies * ip * op];
            accumulate(k, d, x, dy, range, &mut du);
            du
        })
        .collect();
    let mut du = vec![0.0; frequencies * ip * op];
    du.par_chunks_mut(1 << 14).enumerate().for_each(|(chunk, du)| {
        for part in &partial {
            for (a, b) in du.iter_mut().zip(&part[chunk << 14..]) {
                *a += b;
            }
        }
    });
    untransform_weights(d, &du, dw);
}

/// Adds the products of the positions in `range` to `du`.
fn accumulate(
    k: &Kernels,
    d: &Dims,
    x: &[f32],
    dy: &[f32],
    range: std::ops::Range<usize>,
    du: &mut [f32],
) {
    let (ip, op) = (padded(d.ci), padded(d.co));
    let frequencies = if d.kernel == 3 { 36 } else { 1 };
    // Fixed, not by the number of threads: the order of the sums depends on it.
    let block = ((224 << 10) / (frequencies * (ip + op))).clamp(8, 256);
    with_scratch(frequencies * block * (ip + op) + 36 * ip + 16 * op, |scratch| {
        let (v, rest) = scratch.split_at_mut(frequencies * block * ip);
        let (z, rest) = rest.split_at_mut(frequencies * block * op);
        let (patch, dy_patch) = rest.split_at_mut(36 * ip);
        let mut start = range.start;
        while start < range.end {
            let t = block.min(range.end - start);
            if d.kernel == 3 {
                let x = Source { x, channels: d.ci };
                transform_inputs(k, d, x, (0, ip), (start, t), v, patch);
                transform_gradients(k, d, dy, (start, t), z, dy_patch);
            } else {
                pack_pixels(&x[start * d.ci..], d.ci, t, v);
                for (z, dy) in
                    z.chunks_exact_mut(op).zip(dy[start * d.co..].chunks_exact(d.co)).take(t)
                {
                    z[..d.co].copy_from_slice(dy);
                    z[d.co..].fill(0.0);
                }
            }
            for xi in 0..frequencies {
                let (v, z) = (&v[xi * t * ip..], &z[xi * t * op..]);
                let du = &mut du[xi * ip * op..];
                // SAFETY: frequency xi of V, Z and dU, laid out as `outer` asks.
                unsafe { (k.outer)(v.as_ptr(), t, t, ip / CB, z.as_ptr(), du.as_mut_ptr(), op) };
            }
            start += t;
        }
    });
}

/// Transforms the output gradients of `t` tiles from `start` on into `z`.
fn transform_gradients(
    k: &Kernels,
    d: &Dims,
    dy: &[f32],
    (start, t): (usize, usize),
    z: &mut [f32],
    patch: &mut [f32],
) {
    let op = padded(d.co);
    for p in 0..t {
        let (n, y, x) = tile_at(d, start + p);
        let to = z[p * op..].as_mut_ptr();
        if y + 4 <= d.height && x + 4 <= d.width && op == d.co {
            let from = &dy[((n * d.height + y) * d.width + x) * op..];
            // SAFETY: the whole tile lies inside the image; Z holds t positions.
            unsafe { (k.gradient)(from.as_ptr(), d.width * op, op, op, to, t * op) };
        } else {
            window::<4>(d, dy, d.co, (n, y as isize, x as isize), patch);
            // SAFETY: the patch is a 4x4 tile of op channels; Z holds t positions.
            unsafe { (k.gradient)(patch.as_ptr(), 4 * op, op, op, to, t * op) };
        }
    }
}

/// `dw = G^T dU G` for each pair of channels, or a copy for 1x1 kernels.
fn untransform_weights(d: &Dims, du: &[f32], dw: &mut [f32]) {
    let (ip, op, taps) = (padded(d.ci), padded(d.co), d.kernel);
    dw.par_chunks_mut(taps * taps * d.ci).enumerate().for_each(|(o, dw)| {
        for i in 0..d.ci {
            let at = |xi: usize| du[xi * ip * op + i * op + o];
            if taps == 1 {
                dw[i] = at(0);
                continue;
            }
            let mut rows = [[0.0; 6]; 3];
            for j in 0..6 {
                let column = g_transposed(std::array::from_fn(|f| at(f * 6 + j)));
                for (row, v) in rows.iter_mut().zip(column) {
                    row[j] = v;
                }
            }
            for (ky, row) in rows.into_iter().enumerate() {
                for (kx, v) in g_transposed(row).into_iter().enumerate() {
                    dw[(ky * 3 + kx) * d.ci + i] = v;
                }
            }
        }
    });
}

/// `G^T v`: six frequencies to three taps.
fn g_transposed(v: [f32; 6]) -> [f32; 3] {
    let (s1, d1) = ((v[1] + v[2]) * AT_NEAR, (v[1] - v[2]) * AT_NEAR);
    let (s2, d2) = ((v[3] + v[4]) * AT_FAR, (v[3] - v[4]) * AT_FAR);
    [AT_0 * v[0] + s1 + s2, d1 * NEAR + d2 * FAR, s1 * NEAR2 + s2 * FAR2 + v[5]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::conv2d::general;
    use crate::ops::conv2d::packed::pack;

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
        let mut tried = 0;
        for level in [Level::Avx2, Level::Avx512].into_iter().filter(|&l| l <= simd_level()) {
            let Some(k) = kernels(level) else { continue };
            tried += 1;
            for (kernel, height, width, ci, co) in [
                (3, 13, 18, 32, 48),
                (3, 4, 5, 3, 20),
                (3, 9, 7, 51, 6),
                (1, 5, 9, 20, 33),
                (1, 3, 40, 64, 16),
            ] {
                let pad = kernel / 2;
                let d = Dims { batch: 2, height, width, ci, co, kernel, stride: 1, pad };
                let pixels = 2 * height * width;
                let (x, dy) = (numbers(pixels * ci, 1), numbers(pixels * co, 2));
                let (w, b) = (numbers(co * kernel * kernel * ci, 3), numbers(co, 4));
                let label = |what: &str| format!("{level:?} {what} {d:?}");

                let (mut y, mut expected) = (vec![f32::NAN; dy.len()], vec![0.0; dy.len()]);
                let source = Source { x: &x, channels: ci };
                let packed = pack(k.ocb, &d, &w, false);
                convolve(k, &d, &[source], &packed, Some(&b), After::Nothing, &mut y);
                general::forward(&d, &x, &w, Some(&b), &mut expected);
                close(&y, &expected, &label("forward"));

                let (mut dx, mut expected) = (vec![f32::NAN; x.len()], vec![0.0; x.len()]);
                let source = Source { x: &dy, channels: co };
                let packed = pack(k.ocb, &d, &w, true);
                convolve(k, &d, &[source], &packed, None, After::Nothing, &mut dx);
                general::input_gradient(&d, &w, &dy, &mut expected);
                close(&dx, &expected, &label("input gradient"));

                let (mut dw, mut expected) = (vec![f32::NAN; w.len()], vec![0.0; w.len()]);
                weight_gradient(k, &d, &x, &dy, &mut dw);
                general::weight_gradient(&d, &x, &dy, &mut expected);
                close(&dw, &expected, &label("weight gradient"));
            }
        }
        println!("{tried} instruction sets agree with the general code");
    }
}
