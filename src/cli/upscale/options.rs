//! What options of `srk upscale` take.
use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

use crate::engine::memory;
use crate::upscale::TileSize;
use crate::upscale::names::Template;
use crate::upscale::shard;
use crate::upscale::wrap::Wrap;

/// A value of `--alpha`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alpha {
    /// It is enlarged beside the colours.
    Keep,
    /// It is left out.
    Drop,
    /// The picture is laid over this colour.
    Flatten([u8; 3]),
}

/// The names of what may be done, and what they mean.
const ALPHAS: [(&str, &str); 3] = [
    ("keep", "Enlarge it beside the colours"),
    ("drop", "Leave it out"),
    ("flatten", "Lay the picture over white, or with flatten:#rrggbb over that colour"),
];

/// Parses a value of `--alpha`.
#[derive(Clone)]
pub(super) struct Alphas;

impl TypedValueParser for Alphas {
    type Value = Alpha;

    fn parse_ref(
        &self,
        command: &Command,
        arg: Option<&Arg>,
        value: &OsStr,
    ) -> std::result::Result<Alpha, clap::Error> {
        let text = value.to_string_lossy();
        let near = ALPHAS.iter().map(|(name, _)| *name);
        let near = near.min_by_key(|name| strsim::damerau_levenshtein(name, &text));
        let near = near.filter(|name| strsim::damerau_levenshtein(name, &text) <= 2);
        match (near, arg) {
            (Some(near), Some(arg)) if alpha(&text).is_err() => {
                let mut error = clap::Error::new(ErrorKind::InvalidValue).with_cmd(command);
                let names = ALPHAS.map(|(name, _)| name.to_owned()).to_vec();
                for (kind, value) in [
                    (ContextKind::InvalidArg, ContextValue::String(arg.to_string())),
                    (ContextKind::InvalidValue, ContextValue::String(text.into_owned())),
                    (ContextKind::ValidValue, ContextValue::Strings(names)),
                    (ContextKind::SuggestedValue, ContextValue::String(near.to_owned())),
                ] {
                    error.insert(kind, value);
                }
                Err(error)
            }
            _ => TypedValueParser::parse_ref(&alpha, command, arg, value),
        }
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let value =
            |(name, help): &(&'static str, &'static str)| PossibleValue::new(*name).help(*help);
        Some(Box::new(ALPHAS.iter().map(value)))
    }
}

fn alpha(text: &str) -> std::result::Result<Alpha, String> {
    match text {
        // What other programs call it.
        "keep" | "auto" | "resize" => Ok(Alpha::Keep),
        "drop" => Ok(Alpha::Drop),
        "flatten" => Ok(Alpha::Flatten([255; 3])),
        "model" => {
            Err("no model of srk takes alpha; keep enlarges it without rings at edges".into())
        }
        _ => {
            let color = text.strip_prefix("flatten:");
            let color = color.map(|c| c.strip_prefix('#').unwrap_or(c)).and_then(rgb);
            color
                .map(Alpha::Flatten)
                .ok_or_else(|| "keep, drop, flatten (over white), or flatten:#rrggbb".into())
        }
    }
}

/// The colour `rrggbb`.
fn rgb(text: &str) -> Option<[u8; 3]> {
    let number = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 6)?;
    let [_, color @ ..] = number.to_be_bytes();
    Some(color)
}

pub(in crate::cli) fn positive(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() && v > 0.0 => Ok(v),
        _ => Err("a factor is a number above 0".into()),
    }
}

/// What of the metadata is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kept {
    /// All that the format can hold
    #[default]
    Keep,
    /// What colours mean: the profile, or a PNG's chunks in its place
    Icc,
    /// Nothing, srk's own stamp neither
    Strip,
}

pub(super) fn wrap_sides(text: &str) -> std::result::Result<Wrap, String> {
    match text {
        "none" => Ok(Wrap::default()),
        "x" => Ok(Wrap { x: true, y: false }),
        "y" => Ok(Wrap { x: false, y: true }),
        "both" => Ok(Wrap { x: true, y: true }),
        _ => Err("none, x, y or both".into()),
    }
}

/// A value of `--tile`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Tile {
    pub(in crate::cli) size: TileSize,
    /// Whether it was a 0, which means one thing to ncnn's programs and another to Real-ESRGAN.
    pub(super) zero: bool,
}

pub(in crate::cli) fn tile(text: &str) -> std::result::Result<Tile, String> {
    let size = match text {
        "auto" | "0" => TileSize::Auto,
        "none" => TileSize::None,
        _ => {
            let of = |side: &str| side.parse().ok().filter(|&side: &usize| side >= 8);
            let sides = match text.split_once(['x', 'X']) {
                Some((width, height)) => {
                    of(width).zip(of(height)).map(|(w, h)| TileSize::Sides(w, h))
                }
                None => of(text).map(TileSize::Side),
            };
            sides.ok_or("auto, none, a side of at least 8 such as 256, or both such as 512x256")?
        }
    };
    Ok(Tile { size, zero: text == "0" })
}

/// How outputs are called whose name is not given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Names")]
pub(super) struct Naming {
    /// Names of outputs: {stem} {ext} {model} {scale} {seed} {w} {h}, such as '{stem}_{w}x{h}'
    /// [default: {stem}_x{scale} beside the input, {stem} in a folder]
    #[arg(long = "name", value_name = "TEMPLATE", value_parser = Template::parse,
        conflicts_with = "suffix")]
    pub(super) template: Option<Template>,
    /// What follows the input's name in the output's, also in a folder, such as _big
    #[arg(long, value_name = "TEXT", value_parser = suffix)]
    pub(super) suffix: Option<Template>,
    /// Replace outputs that exist
    #[arg(long, conflicts_with = "skip_existing")]
    pub(super) overwrite: bool,
    /// Leave out inputs whose output exists
    #[arg(long)]
    pub(super) skip_existing: bool,
    /// As many results of each picture, NAME_s0 and on (or by {seed} of --name), with seeds that follow each other
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000),
        aliases = ["n_samples", "num_samples"])]
    pub(super) samples: Option<u64>,
    /// The part I of N parts of all pictures, for N runs that share them: 1/8 to 8/8, or auto[/N] by the numbers
    /// that Slurm and Kubernetes give their jobs
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<shard::Wanted>,
    /// Only what failed in an earlier run, of which this file holds what --json wrote
    #[arg(long, value_name = "FILE", conflicts_with_all = ["inputs", "named_inputs", "output", "template", "suffix"])]
    pub(super) from_report: Option<PathBuf>,
}

fn suffix(text: &str) -> std::result::Result<Template, String> {
    Template::parse(&format!("{{stem}}{text}"))
}

/// A value of `--vram`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Vram {
    Bytes(u64),
    /// Of what is free.
    Share(f64),
}

impl Vram {
    /// The bytes for tiles, where `usual` are four fifths of what is free.
    pub(super) fn of(self, usual: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.min(usual / 4 * 5),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of it"
            )]
            Self::Share(share) => (usual as f64 * 1.25 * share) as u64,
        }
    }
}

pub(super) fn vram(text: &str) -> std::result::Result<Vram, String> {
    match text.trim().strip_suffix('%').map(|share| share.trim().parse::<f64>()) {
        Some(Ok(share)) if (1.0..=100.0).contains(&share) => Ok(Vram::Share(share / 100.0)),
        Some(_) => Err("a share is from 1% to 100%".into()),
        None => memory::parse(text).map(Vram::Bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_sizes_of_a_gpus_memory_are_understood() {
        assert_eq!(vram("50%").unwrap().of(800), 500);
        assert_eq!(vram("2G").unwrap().of(8 << 30), 2 << 30);
        // No more than is free.
        assert_eq!(vram("1G").unwrap().of(800), 1000);
        assert!(vram("0%").is_err() && vram("x").is_err());
    }
}
