//! The weights of the fast convolution, transformed as its products read them.
use super::Dims;
use super::instructions::Kernels;
use super::simd::CB;
use super::source::Shared;
use crate::engine::pool::Buffer;
use crate::engine::threads::each;

/// Channels with those that fill the last block.
pub(super) const fn padded(channels: usize) -> usize {
    channels.next_multiple_of(CB)
}

/// Transformed weights, see [`simd`](super::simd) for their layout.
pub(super) struct Packed {
    pub(super) u: Buffer<f32>,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
}

/// Packs `w` `[Co, k, k, Ci]` (k is 1 or 3) for the tiles of `k`; with `flipped`, the weights of the input gradient.
pub(super) fn pack(k: &Kernels, d: &Dims, w: &[f32], flipped: bool) -> Packed {
    let (inputs, outputs) = if flipped { (d.co, d.ci) } else { (d.ci, d.co) };
    let (ip, op) = (padded(inputs), padded(outputs));
    let frequencies = if d.kernel == 3 { 36 } else { 1 };
    let mut u = Buffer::new(frequencies * ip * op);
    let (shared, parts) = (Shared(u.as_mut_ptr()), ip / CB);
    // As many inputs as outputs at a time, so that neither side of the weights is read in single numbers.
    each(op.div_ceil(k.ocb) * parts, &|task| {
        let (o0, i0) = (task / parts * k.ocb, task % parts * CB);
        let width = k.ocb.min(op - o0);
        let mut taps = [0.0f32; 9 * CB * MOST_OUTPUTS];
        gather(d, w, flipped, ([i0, inputs], [o0, outputs]), width, &mut taps);
        let (len, at) = (CB * width, o0 * ip + i0 * width);
        // SAFETY: this task alone writes these pairs of channels, of all frequencies; `gather` filled 9 or 1 times `len`.
        unsafe {
            let to = shared.get().add(at);
            match d.kernel {
                3 => (k.weights)(taps.as_ptr(), len, to, ip * op),
                _ => std::ptr::copy_nonoverlapping(taps.as_ptr(), to, len),
            }
        }
    });
    Packed { u, inputs, outputs }
}

/// The most outputs in a block.
const MOST_OUTPUTS: usize = 2 * CB;

/// Copies the weights of CB inputs from the first on and `width` outputs to `to` `[taps, CB, width]`, each given with
/// how many there are in all; what is beyond stays.
fn gather(
    d: &Dims,
    w: &[f32],
    flipped: bool,
    ([i0, inputs], [o0, outputs]): ([usize; 2], [usize; 2]),
    width: usize,
    to: &mut [f32],
) {
    let taps = d.kernel * d.kernel;
    let (i1, o1) = ((i0 + CB).min(inputs), (o0 + width).min(outputs));
    for (tap, to) in to.chunks_exact_mut(CB * width).take(taps).enumerate() {
        if flipped {
            for (i, to) in (i0..i1).zip(to.chunks_exact_mut(width)) {
                let from = &w[(i * taps + taps - 1 - tap) * d.ci..][o0..o1];
                to[..from.len()].copy_from_slice(from);
            }
            continue;
        }
        for o in o0..o1 {
            let from = &w[(o * taps + tap) * d.ci..][i0..i1];
            for (to, &v) in to[o - o0..].iter_mut().step_by(width).zip(from) {
                *to = v;
            }
        }
    }
}
