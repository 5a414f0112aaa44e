//! A distance with its weights, of either sort.
use super::folder::Folder;
use super::kind::Kind;
use super::{dists, lpips};
use crate::engine::device::{DType, Device};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;

/// A distance with its weights, of either sort.
#[derive(Debug)]
pub enum Distance {
    /// LPIPS, with either network.
    Lpips(lpips::Lpips),
    /// DISTS.
    Dists(dists::Dists),
}

impl Distance {
    /// The distance `kind` with the weights in `folder`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::error::Error::Model) if they are not there; it says how to get them.
    pub fn open(kind: Kind, folder: &Folder) -> Result<Self> {
        Ok(match kind {
            Kind::LpipsAlex | Kind::LpipsVgg => Self::Lpips(folder.lpips(kind)?),
            Kind::Dists => Self::Dists(folder.dists()?),
        })
    }

    /// The distances `[N, 1, 1, 1]` of the images `a` and `b`, both `[N, H, W, 3]` in `[0, 1]`. Gradients go to
    /// the images alone.
    ///
    /// # Errors
    /// If the images differ in shape or are too small.
    pub fn forward(&self, tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
        match self {
            Self::Lpips(lpips) => lpips.forward(tape, a, b),
            Self::Dists(dists) => dists.forward(tape, a, b),
        }
    }

    /// Moves the weights to `device`, as `dtype` there.
    ///
    /// # Errors
    /// If the memory of the device is full.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        match self {
            Self::Lpips(lpips) => lpips.to_device(device, dtype),
            Self::Dists(dists) => dists.to_device(device, dtype),
        }
    }
}
