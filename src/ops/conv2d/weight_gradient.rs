//! The gradient of the weights by the fast path: `dg = G^T [sum over blocks (B^T d B) (A dY A^T)] G`.
//!
//! Blocks of the map are transformed, so many at a time, and then multiplied, frequency by frequency and output by
//! output. How many depends on the shape alone, and every sum belongs to one task: the bits are the same at any number of
//! threads and on every instruction set.
use std::ops::Range;

use super::Dims;
use super::fast::{Room, from_line, pack_pixels, tile_at, transform_inputs, window, with_scratch};
use super::instructions::Kernels;
use super::packed::padded;
use super::simd::{CB, ROWS};
use super::source::{Shared, Source};
use crate::engine::pool::Buffer;
use crate::engine::threads::{each, pieces};

/// Numbers in V and Z together, about: they stay in the second-level cache.
const FLOATS: usize = 224 << 10;
/// The least positions at a time where dU has no room there: it is read and written again for all of them.
const LEAST: usize = 64;
/// Positions that are transformed by a task.
const TASK: usize = 16;

/// The gradient of the weights `[Co, k, k, Ci]` given that of the output.
pub(super) fn weight_gradient(k: &Kernels, d: &Dims, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let all = Transformed { k, d, ip: padded(d.ci), op: padded(d.co) };
    let (frequencies, positions) = match d.kernel {
        3 => (36, d.batch * d.out_height().div_ceil(4) * d.out_width().div_ceil(4)),
        _ => (1, d.batch * d.height * d.width),
    };
    let least = if frequencies * all.ip * all.op > FLOATS { LEAST } else { 16 };
    let most = (FLOATS / (frequencies * (all.ip + all.op))).clamp(least, 4096).min(positions);
    // An odd number: frequencies a power of two apart would share a few lines of a cache.
    let room = most | 1;
    let lens = [room * all.ip, room * all.op, all.ip * all.op].map(|len| frequencies * len);
    let mut memory = lens.map(|len| Buffer::new(len + CB));
    let [v, z, du] = &mut memory;
    let [v, z, du] = [(v, lens[0]), (z, lens[1]), (du, lens[2])].map(|(m, len)| from_line(m, len));
    for start in (0..positions).step_by(most) {
        let held = start..(start + most).min(positions);
        all.transform(x, dy, held.clone(), room, [&mut *v, &mut *z]);
        all.add_products(held.len(), room, [&*v, &*z], start == 0, du);
    }
    all.finish(du, dw);
}

/// The operands of the products.
struct Transformed<'a> {
    k: &'a Kernels,
    d: &'a Dims,
    /// Channels, padded.
    ip: usize,
    op: usize,
}

impl Transformed<'_> {
    /// Transforms `held` positions of the map and of the gradient.
    fn transform(
        &self,
        x: &[f32],
        dy: &[f32],
        held: Range<usize>,
        room: usize,
        [v, z]: [&mut [f32]; 2],
    ) {
        let (d, k) = (self.d, self.k);
        let (v, z) = (Shared(v.as_mut_ptr()), Shared(z.as_mut_ptr()));
        each(held.len().div_ceil(TASK), &|task| {
            let first = task * TASK;
            let positions = held.start + first..(held.start + first + TASK).min(held.end);
            // SAFETY: V and Z have room for all positions that are held; these belong to this task alone.
            unsafe {
                let (v, z) = (v.get().add(first * CB), z.get().add(first * CB));
                if d.kernel == 1 {
                    let of = |c: usize| positions.start * c..positions.end * c;
                    pack_pixels(&x[of(d.ci)], d.ci, v, room);
                    pack_pixels(&dy[of(d.co)], d.co, z, room);
                    return;
                }
                let at = |c: usize| Room { positions: room, frequency: room * c };
                with_scratch(36 * self.ip.max(self.op), |patch| {
                    let x = Source { x, channels: d.ci };
                    transform_inputs(k, d, x, positions.clone(), (v, at(self.ip)), patch);
                    transform_gradients(k, d, dy, positions, (z, at(self.op)), patch);
                });
            }
        });
    }

    /// Adds the products of `t` positions to `du`, unless it is `fresh`.
    fn add_products(
        &self,
        t: usize,
        room: usize,
        [v, z]: [&[f32]; 2],
        fresh: bool,
        du: &mut [f32],
    ) {
        let Self { k, ip, op, .. } = *self;
        pieces(du, ROWS * ip, |task, du| {
            let (frequency, o) = (task / (op / ROWS), task % (op / ROWS) * ROWS);
            let v = &v[frequency * room * ip..];
            let z = &z[frequency * room * op + o / CB * room * CB + o % CB..];
            // SAFETY: a frequency of V, ROWS outputs of it in Z and dU, laid out as `outer` asks.
            unsafe { (k.outer)(v.as_ptr(), room, t, ip / CB, z.as_ptr(), du.as_mut_ptr(), fresh) };
        });
    }

    /// `dw = G^T dU G` for each pair of channels, or a copy for 1x1 kernels.
    fn finish(&self, du: &[f32], dw: &mut [f32]) {
        let Self { k, d, ip, op } = *self;
        let taps = d.kernel * d.kernel;
        pieces(dw, taps * d.ci, |o, dw| {
            let du = &du[o * ip..];
            if taps == 1 {
                dw.copy_from_slice(&du[..d.ci]);
                return;
            }
            let whole = d.ci / CB * CB;
            // SAFETY: output o of all frequencies of dU, and all taps of dw.
            unsafe { (k.weight_gradients)(du.as_ptr(), ip * op, whole, dw.as_mut_ptr(), d.ci) };
            if whole == d.ci {
                return;
            }
            let mut rest = [0.0; 9 * CB];
            let du = &du[whole..];
            // SAFETY: the last block of channels, padded, and as many of each tap in `rest`.
            unsafe { (k.weight_gradients)(du.as_ptr(), ip * op, CB, rest.as_mut_ptr(), CB) };
            for (dw, rest) in dw.chunks_exact_mut(d.ci).zip(rest.chunks_exact(CB)) {
                dw[whole..].copy_from_slice(&rest[..d.ci - whole]);
            }
        });
    }
}

/// Transforms the output gradients of `tiles` into Z.
///
/// # Safety
/// `z` is the first element of the first tile in Z, which has that room; no one else touches these positions. `patch`
/// holds 16 times the channels.
unsafe fn transform_gradients(
    k: &Kernels,
    d: &Dims,
    dy: &[f32],
    tiles: Range<usize>,
    (z, room): (*mut f32, Room),
    patch: &mut [f32],
) {
    let (op, Room { positions, frequency }) = (padded(d.co), room);
    let [height, width] = [d.out_height(), d.out_width()];
    for (p, tile) in tiles.enumerate() {
        let (n, y, x) = tile_at(d, tile);
        // SAFETY: position p of Z, as the caller promises.
        let to = unsafe { z.add(p * CB) };
        if y + 4 <= height && x + 4 <= width && op == d.co {
            let from = &dy[((n * height + y) * width + x) * op..];
            // SAFETY: the whole tile lies inside the image; the caller's promise for Z.
            unsafe { (k.gradient)(from.as_ptr(), width * op, op, op, to, positions, frequency) };
        } else {
            window::<4>([height, width], dy, d.co, (n, y as isize, x as isize), patch);
            // SAFETY: the patch is a 4x4 tile of op channels; the caller's promise for Z.
            unsafe { (k.gradient)(patch.as_ptr(), 4 * op, op, op, to, positions, frequency) };
        }
    }
}
