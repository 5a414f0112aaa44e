//! What options of `srk upscale` take.
use crate::upscale::TileSize;
use crate::upscale::names::Template;
use crate::upscale::wrap::Wrap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Alpha {
    /// Enlarge it beside the colours
    #[default]
    Keep,
    /// Leave it out
    Drop,
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
    /// Nothing
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
pub(super) struct Tile {
    pub(super) size: TileSize,
    /// Whether it was a 0, which means one thing to ncnn's programs and another to Real-ESRGAN.
    pub(super) zero: bool,
}

pub(super) fn tile(text: &str) -> std::result::Result<Tile, String> {
    let size = match text {
        "auto" | "0" => TileSize::Auto,
        "none" => TileSize::None,
        _ => match text.parse() {
            Ok(side) if side >= 8 => TileSize::Side(side),
            _ => return Err("auto, none, or a number of at least 8; tiles are squares".into()),
        },
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
}

fn suffix(text: &str) -> std::result::Result<Template, String> {
    Template::parse(&format!("{{stem}}{text}"))
}
