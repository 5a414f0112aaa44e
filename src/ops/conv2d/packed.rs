//! The weights of the fast convolution, transformed as its products read them.
use rayon::prelude::*;

use super::Dims;
use super::simd::{CB, FAR, FAR2, NEAR, NEAR2};
use crate::engine::pool::Buffer;

#[derive(Clone, Copy)]
pub(super) struct Shared(pub(super) *mut f32);
// SAFETY: threads write disjoint positions of what it points to.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer; a method, so that closures capture the whole wrapper.
    pub(super) const fn get(self) -> *mut f32 {
        self.0
    }
}

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

/// Packs `w` `[Co, k, k, Ci]` (k is 1 or 3) in blocks of `ocb` outputs; with `flipped`, the weights of the input gradient.
pub(super) fn pack(ocb: usize, d: &Dims, w: &[f32], flipped: bool) -> Packed {
    let (inputs, outputs) = if flipped { (d.co, d.ci) } else { (d.ci, d.co) };
    let (ip, op, taps) = (padded(inputs), padded(outputs), d.kernel);
    let frequencies = if taps == 3 { 36 } else { 1 };
    let mut u = Buffer::new(frequencies * ip * op);
    let shared = Shared(u.as_mut_ptr());
    let weight = |o: usize, ky: usize, kx: usize, i: usize| match flipped {
        false => w[((o * taps + ky) * taps + kx) * d.ci + i],
        true => w[((i * taps + taps - 1 - ky) * taps + taps - 1 - kx) * d.ci + o],
    };
    (0..op / CB).into_par_iter().for_each(|ob| {
        let o0 = ob * CB;
        let block = o0 / ocb * ocb;
        let width = ocb.min(op - block);
        // Channels that only fill a block have no weights.
        let known = |i: usize| if i < inputs { outputs - o0.min(outputs) } else { 0 };
        for i in 0..ip {
            let mut g = [[[0.0f32; CB]; 3]; 3];
            for (ky, g) in g.iter_mut().enumerate().take(taps) {
                for (kx, g) in g.iter_mut().enumerate().take(taps) {
                    for (lane, g) in g.iter_mut().enumerate().take(known(i)) {
                        *g = weight(o0 + lane, ky, kx, i);
                    }
                }
            }
            let at = block * ip + i * width + o0 - block;
            let store = |xi: usize, v: &[f32; CB]| {
                // SAFETY: this task alone writes output channels o0..o0 + CB.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        v.as_ptr(),
                        shared.get().add(xi * ip * op + at),
                        CB,
                    );
                }
            };
            if taps == 1 {
                store(0, &g[0][0]);
            } else {
                transform_weights(&g, store);
            }
        }
    });
    Packed { u, inputs, outputs }
}

/// What evaluations at 0, +-`NEAR` and +-`FAR` are multiplied by: one over the products of the point's distances to the
/// others.
pub(super) const AT_0: f32 = 1.0 / (NEAR2 * FAR2);
pub(super) const AT_NEAR: f32 = 0.5 / (NEAR2 * (NEAR2 - FAR2));
pub(super) const AT_FAR: f32 = 0.5 / (FAR2 * (FAR2 - NEAR2));

/// `G g` along one axis: three taps to six frequencies, for a block of channels.
fn g_rows(g: [&[f32; CB]; 3]) -> [[f32; CB]; 6] {
    let mut out = [[0.0; CB]; 6];
    for l in 0..CB {
        let (a, b, c) = (g[0][l], g[1][l], g[2][l]);
        let (even, odd) = ((a + c * NEAR2) * AT_NEAR, b * (NEAR * AT_NEAR));
        let (even2, odd2) = ((a + c * FAR2) * AT_FAR, b * (FAR * AT_FAR));
        out[0][l] = a * AT_0;
        out[1][l] = even + odd;
        out[2][l] = even - odd;
        out[3][l] = even2 + odd2;
        out[4][l] = even2 - odd2;
        out[5][l] = c;
    }
    out
}

/// `G g G^T`, handed to `store` frequency by frequency.
fn transform_weights(g: &[[[f32; CB]; 3]; 3], store: impl Fn(usize, &[f32; CB])) {
    let columns: [[[f32; CB]; 6]; 3] =
        std::array::from_fn(|kx| g_rows([&g[0][kx], &g[1][kx], &g[2][kx]]));
    for i in 0..6 {
        let row = g_rows([&columns[0][i], &columns[1][i], &columns[2][i]]);
        for (j, v) in row.iter().enumerate() {
            store(i * 6 + j, v);
        }
    }
}
