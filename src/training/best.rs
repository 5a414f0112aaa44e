//! `ckpt.best`: the measure of validation by which the best checkpoint is kept.
use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A measure of validation, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Best {
    /// None: `false`.
    #[default]
    No,
    /// PSNR of Y; more is better.
    PsnrY,
    /// SSIM of Y; more is better.
    SsimY,
    /// LPIPS with AlexNet; less is better, as with all that follow.
    LpipsAlex,
    /// LPIPS with VGG16.
    LpipsVgg,
    /// DISTS.
    Dists,
    /// NIQE.
    Niqe,
}

/// What configurations call them.
const NAMES: [(&str, Best); 6] = [
    ("psnr_y", Best::PsnrY),
    ("ssim_y", Best::SsimY),
    ("lpips_alex", Best::LpipsAlex),
    ("lpips_vgg", Best::LpipsVgg),
    ("dists", Best::Dists),
    ("niqe", Best::Niqe),
];

impl Best {
    /// What configurations call it; nothing for [`Best::No`].
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, best)| *best == self).map_or("", |(name, _)| name)
    }

    /// Under which key `metrics.jsonl` has it.
    pub fn key(self) -> String {
        format!("val_{}", self.name())
    }

    /// The same in messages.
    pub fn title(self) -> &'static str {
        match self {
            Self::PsnrY => "PSNR",
            Self::SsimY => "SSIM",
            Self::LpipsAlex | Self::LpipsVgg => "LPIPS",
            Self::Dists => "DISTS",
            Self::Niqe => "NIQE",
            Self::No => "",
        }
    }

    /// A number that is larger the better `value` is.
    pub fn rank(self, value: f64) -> f64 {
        if matches!(self, Self::PsnrY | Self::SsimY) { value } else { -value }
    }
}

impl Serialize for Best {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => to.serialize_bool(false),
            other => to.serialize_str(other.name()),
        }
    }
}

impl<'de> Deserialize<'de> for Best {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Best;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names = NAMES.map(|(name, _)| name).join(", ");
                write!(f, "false or one of {names}")
            }

            fn visit_bool<E: Error>(self, on: bool) -> Result<Best, E> {
                match on {
                    false => Ok(Best::No),
                    true => Err(E::invalid_value(serde::de::Unexpected::Bool(true), &self)),
                }
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Best, E> {
                let found = NAMES.iter().find(|(name, _)| *name == text);
                match found {
                    Some((_, best)) => Ok(*best),
                    // What --set makes of a text.
                    None if text == "false" => Ok(Best::No),
                    None => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }

        from.deserialize_any(Name)
    }
}
