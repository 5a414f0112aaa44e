//! Adam and AdamW, one step of one parameter (Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter
//! 2019, algorithm 2).
//!
//! ```text
//! m <- b1 m + (1 - b1) g          mhat = m / (1 - b1^k)
//! v <- b2 v + (1 - b2) g^2        vhat = v / (1 - b2^k)
//! p <- p - lr (mhat / (sqrt(vhat) + eps) + decay p)
//! ```
use rayon::prelude::*;

use super::parallel::CHUNK;

/// The constants of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first and of the second moment.
    pub betas: [f64; 2],
    /// What keeps the quotient finite.
    pub eps: f64,
    /// Decoupled weight decay; 0 is plain Adam.
    pub decay: f64,
    /// The number k of this step, counted from 1.
    pub step: u64,
    /// What gradients are multiplied by first: the factor of clipping.
    pub scale: f64,
}

/// Moves `p` and its moments `m` and `v` by the gradient `g`; all of one length.
#[allow(clippy::cast_possible_truncation)] // Constants are narrowed once, the powers before it in f64.
pub fn adam(p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], c: &Adam) {
    debug_assert!(p.len() == m.len() && p.len() == v.len() && p.len() == g.len());
    let [b1, b2] = c.betas;
    let k = i32::try_from(c.step).unwrap_or(i32::MAX);
    let rate = (c.lr / (1.0 - b1.powi(k))) as f32;
    let root = (1.0 / (1.0 - b2.powi(k)).sqrt()) as f32;
    let shrink = (1.0 - c.lr * c.decay) as f32;
    let (eps, scale) = (c.eps as f32, c.scale as f32);
    let (keep1, keep2, new1, new2) = (b1 as f32, b2 as f32, (1.0 - b1) as f32, (1.0 - b2) as f32);
    let chunks = p.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK)).zip(v.par_chunks_mut(CHUNK));
    chunks.zip(g.par_chunks(CHUNK)).for_each(|(((p, m), v), g)| {
        for i in 0..p.len() {
            let g = g[i] * scale;
            m[i] = keep1 * m[i] + new1 * g;
            v[i] = keep2 * v[i] + new2 * g * g;
            p[i] = p[i] * shrink - rate * m[i] / (v[i].sqrt() * root + eps);
        }
    });
}
