//! Distances of images as people see them: LPIPS and DISTS, by frozen networks that were trained to name what
//! images show. The smaller, the more alike; 0 for equal images.
//!
//! No weights of these networks are part of this program: [`folder`] finds them in files.
pub mod backbone;
pub mod dists;
pub mod folder;
pub mod lpips;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::engine::device::{DType, Device};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use folder::Folder;

/// A distance by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// LPIPS with AlexNet.
    LpipsAlex,
    /// LPIPS with VGG16.
    LpipsVgg,
    /// DISTS.
    Dists,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::LpipsAlex, Self::LpipsVgg, Self::Dists];

    /// As in recipes and tables, such as `lpips_alex`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LpipsAlex => "lpips_alex",
            Self::LpipsVgg => "lpips_vgg",
            Self::Dists => "dists",
        }
    }

    /// The least height and width of an image.
    pub const fn least_side(self) -> usize {
        match self {
            // Two overlapping maxima behind a stride of 4.
            Self::LpipsAlex => 31,
            Self::LpipsVgg => 16,
            Self::Dists => 1,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

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
