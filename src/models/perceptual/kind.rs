//! The distances by their names.
use std::fmt;

use serde::{Deserialize, Serialize};

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
