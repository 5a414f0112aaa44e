//! Which model takes a picture, and what it is told of the picture's damage.
use super::Upscaler;
use crate::diffusion::system::System;
use crate::error::Result;
use crate::imaging::Image;
use crate::imaging::damage::{self, Findings};
use crate::models::damage::Damage;

/// How much of noise and blocks is taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Denoise {
    /// As much as the picture shows.
    #[default]
    Auto,
    /// This share of it, 0 to 1; 0 leaves noise and blocks as they are.
    Strength(f32),
}

/// The name that stands for the choice between the models of the binary.
pub const AUTO: &str = "auto";

/// The models of a run.
pub enum Models {
    /// The one that was named.
    One(Box<Upscaler>),
    /// One for pictures as they are and one for clean ones, chosen by what each picture shows.
    Auto {
        /// For pictures as they are.
        photo: Box<Upscaler>,
        /// For clean ones.
        clean: Box<Upscaler>,
    },
}

impl Models {
    /// The models of the binary, each put where it runs by `place`.
    ///
    /// # Errors
    /// Those of `place`.
    pub fn auto(place: impl Fn(System) -> Result<Upscaler>) -> Result<Self> {
        let [photo, clean] = System::embedded().map(|name| place(System::open(name)?));
        Ok(Self::Auto { photo: Box::new(photo?), clean: Box::new(clean?) })
    }

    /// The same for each device of them alone.
    pub fn apart(&self) -> Vec<Self> {
        let one = |upscaler| Box::new(upscaler);
        match self {
            Self::One(upscaler) => {
                upscaler.apart().into_iter().map(|u| Self::One(one(u))).collect()
            }
            Self::Auto { photo, clean } => {
                let pairs = photo.apart().into_iter().zip(clean.apart());
                pairs.map(|(p, c)| Self::Auto { photo: one(p), clean: one(c) }).collect()
            }
        }
    }

    /// The one that a picture takes which shows `findings`.
    pub fn of(&self, findings: &Findings, denoise: Denoise) -> &Upscaler {
        match self {
            Self::One(upscaler) => upscaler,
            Self::Auto { photo, clean } => match denoise {
                Denoise::Auto if findings.is_damaged() => photo,
                Denoise::Auto => clean,
                // Nothing to take away is what clean pictures have.
                Denoise::Strength(0.0) => clean,
                Denoise::Strength(_) => photo,
            },
        }
    }

    /// The one that costs most, before a picture is known.
    pub const fn any(&self) -> &Upscaler {
        match self {
            Self::One(upscaler) => upscaler,
            Self::Auto { photo, .. } => photo,
        }
    }

    /// The name that was asked for.
    pub fn name(&self) -> &str {
        match self {
            Self::One(upscaler) => &upscaler.system().name,
            Self::Auto { .. } => AUTO,
        }
    }

    /// Whether pictures are looked at for damage.
    pub fn looks(&self) -> bool {
        match self {
            Self::One(upscaler) => upscaler.system().knows_damage(),
            Self::Auto { .. } => true,
        }
    }

    /// What `image` shows of its damage, if anything hangs on that.
    ///
    /// # Errors
    /// If the lengths in the image do not fit together.
    pub fn findings(&self, image: &Image) -> Result<Findings> {
        if self.looks() { damage::seen(image) } else { Ok(Findings::default()) }
    }
}

/// What `system` is told of a picture.
pub fn told(system: &System, findings: &Findings, denoise: Denoise) -> Damage {
    system.told(match denoise {
        Denoise::Auto => findings.damage(),
        Denoise::Strength(0.0) => Damage::CLEAN,
        Denoise::Strength(strength) => findings.damage().scaled(strength),
    })
}
