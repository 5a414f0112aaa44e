//! The registry.
use serde::{Deserialize, Serialize};

use super::network::Discriminator;
use crate::models::patch_discriminator::{PatchDiscriminator, PatchDiscriminatorConfig};
use crate::models::srgan_discriminator::{SrganDiscriminator, SrganDiscriminatorConfig};

/// Which discriminator, and its sizes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum DiscriminatorConfig {
    /// SRDDPM's: a verdict for each patch.
    Patch(PatchDiscriminatorConfig),
    /// SRGAN's: a verdict for each image of one size.
    Srgan(SrganDiscriminatorConfig),
}

impl DiscriminatorConfig {
    /// The discriminator, its initial weights a function of `seed`.
    pub fn build(&self, seed: u64) -> Box<dyn Discriminator> {
        match self {
            Self::Patch(c) => Box::new(PatchDiscriminator::new(c, seed)),
            Self::Srgan(c) => Box::new(SrganDiscriminator::new(c, seed)),
        }
    }
}
