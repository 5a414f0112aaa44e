//! Self-attention over the pixels of a map (Vaswani et al. 2017, section 3.2), as diffusion UNets use
//! it at low resolutions.
use super::init::Init;
use super::layers::{Conv2d, GroupNorm};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::ops::conv2d::{Measured, Then};

/// `x + out(attention(qkv(norm(x))))`.
///
/// Where one convolution `qkv` makes queries, keys and values, its channels are those of the first
/// head's query, key and value, then of the second head's. Scores are divided by the root of all channels, not of a head's, as published models have
/// it; with one head that is the same.
#[derive(Clone, Debug)]
pub struct SelfAttention {
    norm: GroupNorm,
    qkv: Projection,
    out: Conv2d,
    channels: usize,
    heads: usize,
}

/// What makes queries, keys and values.
#[derive(Clone, Debug)]
enum Projection {
    Joint(Conv2d),
    Separate(Box<[Conv2d; 3]>),
}

impl SelfAttention {
    /// Attention of `heads` heads, which divide `channels`; the norm has `groups` groups.
    pub fn new(init: &mut Init, channels: usize, heads: usize, groups: usize) -> Self {
        Self {
            norm: GroupNorm::new(init, "norm", groups, channels),
            qkv: Projection::Joint(Conv2d::unbiased(init, "qkv", channels, 3 * channels, 1)),
            out: Conv2d::same(init, "out", channels, channels, 1),
            channels,
            heads,
        }
    }

    /// The attention of latent diffusion's autoencoders (Esser et al. 2021): one head, a convolution each
    /// for queries, keys and values.
    pub fn separate(init: &mut Init, channels: usize, groups: usize) -> Self {
        let norm = GroupNorm::new(init, "norm", groups, channels).with_eps(1e-6);
        let mut conv = |name: &str| Conv2d::same(init, name, channels, channels, 1);
        let qkv = Projection::Separate(Box::new([conv("q"), conv("k"), conv("v")]));
        Self { norm, qkv, out: conv("proj_out"), channels, heads: 1 }
    }

    /// The block's output, of the same shape.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let qkv = {
            let mut normed = self.norm.forward(tape, x)?;
            match &self.qkv {
                Projection::Joint(conv) => {
                    normed = conv.forward(tape, &normed)?;
                    self.parts(tape, &normed)?
                }
                Projection::Separate(convs) => separate(tape, convs, &normed)?,
            }
        };
        let y = self.attend(tape, qkv)?;
        self.out.forward_onto(tape, &y, x, 1.0)
    }

    /// Groups of the norm.
    pub const fn groups(&self) -> usize {
        self.norm.groups()
    }

    /// As [`forward`](Self::forward), the projections with what is before and behind them in one pass, and what a norm of
    /// `groups` groups behind the block asks for.
    pub fn fused(&self, tape: &mut Tape, x: &Measured, groups: Option<usize>) -> Result<Measured> {
        let qkv = match &self.qkv {
            Projection::Joint(conv) => {
                let norm = (&self.norm, false);
                let all = conv.forward_normed(tape, x, norm, Then::default(), None)?;
                let all = all.whole(tape)?;
                self.parts(tape, &all)?
            }
            Projection::Separate(convs) => {
                let x = x.whole(tape)?;
                let normed = self.norm.forward(tape, &x)?;
                separate(tape, convs, &normed)?
            }
        };
        let y = self.attend(tape, qkv)?;
        let x = x.whole(tape)?;
        let residual = Some((&x, 1.0));
        self.out.forward_measured(tape, &y, Then { residual, ..Then::default() }, groups)
    }

    fn attend(&self, tape: &mut Tape, [mut q, k, v]: [Var; 3]) -> Result<Var> {
        if self.heads > 1 {
            // The op divides by the root of a head's channels.
            q = tape.scale(&q, (self.heads as f64).sqrt().recip())?;
        }
        tape.attention(&q, &k, &v, self.heads)
    }

    fn parts(&self, tape: &mut Tape, qkv: &Var) -> Result<[Var; 3]> {
        Ok([self.part(tape, qkv, 0)?, self.part(tape, qkv, 1)?, self.part(tape, qkv, 2)?])
    }

    /// The queries (0), keys (1) or values (2) of all heads side by side.
    fn part(&self, tape: &mut Tape, qkv: &Var, which: usize) -> Result<Var> {
        let width = self.channels / self.heads;
        let heads = (0..self.heads)
            .map(|head| tape.slice_channels(qkv, (3 * head + which) * width, width))
            .collect::<Result<Vec<Var>>>()?;
        match heads.as_slice() {
            [only] => Ok(only.clone()),
            heads => tape.concat(&heads.iter().collect::<Vec<_>>()),
        }
    }
}

/// Queries, keys and values by a convolution each.
fn separate(tape: &mut Tape, [q, k, v]: &[Conv2d; 3], normed: &Var) -> Result<[Var; 3]> {
    Ok([q.forward(tape, normed)?, k.forward(tape, normed)?, v.forward(tape, normed)?])
}
