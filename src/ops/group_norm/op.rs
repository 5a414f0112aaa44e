//! The op and its entries on the tape.
use crate::engine::tape::{Tape, Var};
use crate::error::Result;

/// See the [module](super) for the formulas; inputs are x, gamma, beta and perhaps scale, shift.
#[derive(Clone, Copy, Debug)]
pub struct GroupNorm {
    /// How many groups the channels are divided into, in order.
    pub groups: usize,
    /// What is added to the variance.
    pub eps: f64,
    /// Whether SiLU follows.
    pub silu: bool,
}

impl Tape {
    /// `x` `[N, H, W, C]` normalised in `groups` groups of channels, then `gamma` and `beta` `[C]`.
    pub fn group_norm(
        &mut self,
        x: &Var,
        gamma: &Var,
        beta: &Var,
        groups: usize,
        eps: f64,
    ) -> Result<Var> {
        self.apply(GroupNorm { groups, eps, silu: false }, &[x, gamma, beta])
    }

    /// [`group_norm`](Self::group_norm), then SiLU.
    pub fn group_norm_silu(
        &mut self,
        x: &Var,
        gamma: &Var,
        beta: &Var,
        groups: usize,
        eps: f64,
    ) -> Result<Var> {
        self.apply(GroupNorm { groups, eps, silu: true }, &[x, gamma, beta])
    }

    /// [`group_norm`](Self::group_norm), then `* (1 + scale) + shift` with both `[N, C]`, then SiLU.
    pub fn group_norm_film_silu(
        &mut self,
        x: &Var,
        [gamma, beta]: [&Var; 2],
        [scale, shift]: [&Var; 2],
        groups: usize,
        eps: f64,
    ) -> Result<Var> {
        self.apply(GroupNorm { groups, eps, silu: true }, &[x, gamma, beta, scale, shift])
    }
}
