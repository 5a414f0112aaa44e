//! How large an output is to be, where not by a factor.
use super::upscale::options::positive;
use crate::upscale::budget;

/// Exact sizes; the model's output is resampled to them.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
#[command(next_help_heading = "Size")]
pub(super) struct Sizes {
    /// How many times as large; the model's 4x is resampled to any other factor
    #[arg(short, long, value_name = "FACTOR", value_parser = factor,
        aliases = ["outscale", "upscale"])]
    scale: Option<f64>,
    /// Exactly this many pixels: 1920x1080, or 1920x and x1080 with the other side in proportion
    #[arg(long, value_name = "WxH", value_parser = sides, conflicts_with_all = ["scale", "fit"])]
    size: Option<Sides>,
    /// This wide, the height in proportion unless --height says it
    #[arg(short = 'w', long, value_name = "PIXELS", value_parser = side(),
        conflicts_with_all = ["scale", "size", "fit", "long", "short"])]
    width: Option<u32>,
    /// This high, the width in proportion unless --width says it
    #[arg(long, value_name = "PIXELS", value_parser = side(),
        conflicts_with_all = ["scale", "size", "fit", "long", "short"])]
    height: Option<u32>,
    /// The longer side, the other in proportion
    #[arg(long, value_name = "PIXELS", value_parser = side(),
        conflicts_with_all = ["scale", "size", "fit", "short"])]
    long: Option<u32>,
    /// The shorter side, the other in proportion
    #[arg(long, value_name = "PIXELS", value_parser = side(),
        conflicts_with_all = ["scale", "size", "fit"])]
    short: Option<u32>,
    /// As large as fits into this frame, in proportion
    #[arg(long, value_name = "WxH", value_parser = frame, conflicts_with = "scale")]
    fit: Option<(u32, u32)>,
}

/// One side or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sides {
    Both(u32, u32),
    Width(u32),
    Height(u32),
}

/// The longest side that can be asked for: no format holds more.
const MOST: u32 = 0x7FFF_FFFF;

fn side() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MOST))
}

/// A factor, also as people write it: 4, 4x, x4.
fn factor(text: &str) -> Result<f64, String> {
    let plain = text.strip_prefix(['x', 'X']).or_else(|| text.strip_suffix(['x', 'X']));
    positive(plain.unwrap_or(text)).map_err(|error| match text.contains('x') {
        true => format!("{error}; --size takes WxH"),
        false => error,
    })
}

fn pixels(text: &str) -> Option<u32> {
    text.parse().ok().filter(|side| (1..=MOST).contains(side))
}

fn sides(text: &str) -> Result<Sides, String> {
    let parts = text.split_once(['x', 'X']);
    let found = parts.and_then(|(width, height)| match (width, height) {
        (width, "") => pixels(width).map(Sides::Width),
        ("", height) => pixels(height).map(Sides::Height),
        (width, height) => Some(Sides::Both(pixels(width)?, pixels(height)?)),
    });
    found.ok_or_else(|| "1920x1080, 1920x or x1080".to_owned())
}

fn frame(text: &str) -> Result<(u32, u32), String> {
    match sides(text) {
        Ok(Sides::Both(width, height)) => Ok((width, height)),
        _ => Err("both sides of a frame, such as 1920x1080".into()),
    }
}

/// `side` times `to` / `from`, at least 1.
fn in_proportion(side: usize, from: usize, to: usize) -> usize {
    let (side, from, to) = (side as u128, from.max(1) as u128, to as u128);
    usize::try_from(((2 * side * to + from) / (2 * from)).max(1)).unwrap_or(usize::MAX)
}

impl Sizes {
    fn sides(&self) -> Option<Sides> {
        match (self.width, self.height) {
            (Some(width), Some(height)) => Some(Sides::Both(width, height)),
            (Some(width), None) => Some(Sides::Width(width)),
            (None, Some(height)) => Some(Sides::Height(height)),
            (None, None) => self.size,
        }
    }

    /// The factor that was asked for, if one was.
    pub(super) fn factor(&self) -> Option<f64> {
        self.scale
    }

    /// Whether an exact size was asked for.
    fn is_exact(&self) -> bool {
        self.sides().is_some() || self.long.or(self.short).is_some() || self.fit.is_some()
    }

    /// The size (width, height) of the output of a picture of `size`, with a model that enlarges `model` times.
    pub(super) fn target(&self, (w, h): (usize, usize), model: usize) -> (usize, usize) {
        let wide = |width: usize| (width, in_proportion(h, w, width));
        let high = |height: usize| (in_proportion(w, h, height), height);
        match (self.sides(), self.long, self.short, self.fit) {
            (Some(Sides::Both(width, height)), ..) => (width as usize, height as usize),
            (Some(Sides::Width(width)), ..) => wide(width as usize),
            (Some(Sides::Height(height)), ..) => high(height as usize),
            (None, Some(long), ..) if w >= h => wide(long as usize),
            (None, Some(long), ..) => high(long as usize),
            (None, None, Some(short), _) if w <= h => wide(short as usize),
            (None, None, Some(short), _) => high(short as usize),
            (None, None, None, Some((width, height))) => {
                let (width, height) = (width as usize, height as usize);
                let (by_width, by_height) = (wide(width), high(height));
                if by_width.1 <= height { by_width } else { by_height }
            }
            _ => budget::target((w, h), self.scale.unwrap_or(model as f64)),
        }
    }

    /// What names say of the size: the factor, or the pixels.
    pub(super) fn label(&self, model: usize) -> String {
        let of_sides = self.sides().map(|sides| match sides {
            Sides::Both(width, height) => format!("{width}x{height}"),
            Sides::Width(width) => format!("w{width}"),
            Sides::Height(height) => format!("h{height}"),
        });
        let named = |name: &str, side: Option<u32>| side.map(|side| format!("{name}{side}"));
        of_sides
            .or_else(|| named("long", self.long))
            .or_else(|| named("short", self.short))
            .or_else(|| self.fit.map(|(width, height)| format!("fit{width}x{height}")))
            .unwrap_or_else(|| self.scale.unwrap_or(model as f64).to_string())
    }

    /// What is put behind the stem of an output beside its input: `_x4`, or the pixels.
    pub(super) fn suffix(&self, model: usize) -> String {
        let label = self.label(model);
        if self.is_exact() { format!("_{label}") } else { format!("_x{label}") }
    }

    /// For the stamp of an output.
    pub(super) fn settings(&self, model: usize) -> Vec<(&'static str, String)> {
        self.is_exact().then(|| ("size", self.label(model))).into_iter().collect()
    }

    /// What a user should know of the size `to` of an output of a picture of size `from`.
    pub(super) fn note(
        &self,
        from: (usize, usize),
        to: (usize, usize),
        model: usize,
    ) -> Option<String> {
        let squeezed = to.1.abs_diff(in_proportion(from.1, from.0, to.0)) > 1
            && to.0.abs_diff(in_proportion(from.0, from.1, to.1)) > 1;
        if squeezed {
            let (width, height) = to;
            return Some(format!(
                "{width}x{height} is not the shape of {}x{}; --fit {width}x{height} keeps it",
                from.0, from.1
            ));
        }
        let factor = (to.0 as f64 / from.0.max(1) as f64).max(to.1 as f64 / from.1.max(1) as f64);
        // Rounding of a side alone is no resampling.
        (factor > model as f64 * 1.02 && to.0.max(to.1) > from.0.max(from.1) * model + 1).then(
            || {
                let factor = (factor * 1e4).round() / 1e4;
                format!(
                    "the model enlarges {model}x; plain resampling does the rest, up to {factor}x"
                )
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_follow_each_other() {
        let none = Sizes::default();
        let of = |sizes: Sizes| sizes.target((400, 300), 4);
        assert_eq!(of(none), (1600, 1200));
        assert_eq!(of(Sizes { scale: Some(2.5), ..none }), (1000, 750));
        assert_eq!(of(Sizes { size: Some(Sides::Both(10, 20)), ..none }), (10, 20));
        assert_eq!(of(Sizes { size: Some(Sides::Width(1000)), ..none }), (1000, 750));
        assert_eq!(of(Sizes { width: Some(1001), ..none }), (1001, 751));
        assert_eq!(of(Sizes { height: Some(1), ..none }), (1, 1));
        assert_eq!(of(Sizes { width: Some(7), height: Some(9), ..none }), (7, 9));
        assert_eq!(of(Sizes { long: Some(800), ..none }), (800, 600));
        assert_eq!(of(Sizes { short: Some(600), ..none }), (800, 600));
        assert_eq!(of(Sizes { fit: Some((1000, 1000)), ..none }), (1000, 750));
        assert_eq!(of(Sizes { fit: Some((1000, 600)), ..none }), (800, 600));
        assert_eq!(Sizes { long: Some(800), ..none }.target((300, 400), 4), (600, 800));
        assert_eq!(Sizes { short: Some(600), ..none }.target((300, 400), 4), (600, 800));
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        assert_eq!((factor("4"), factor("4x"), factor("x2.5")), (Ok(4.0), Ok(4.0), Ok(2.5)));
        assert_eq!(sides("1920x1080"), Ok(Sides::Both(1920, 1080)));
        assert_eq!((sides("9x"), sides("X8")), (Ok(Sides::Width(9)), Ok(Sides::Height(8))));
        for text in ["x", "0x8", "8", "axb", "-1x8", "9999999999x1", ""] {
            assert!(sides(text).is_err(), "{text}");
        }
        assert!(factor("1920x1080").unwrap_err().contains("--size"));
        assert!(frame("9x").is_err());
    }

    #[test]
    fn what_is_unexpected_is_said() {
        let none = Sizes::default();
        assert_eq!(none.note((3, 5), (12, 20), 4), None);
        assert_eq!(none.note((400, 300), (1001, 751), 4), None);
        assert!(none.note((400, 300), (100, 100), 4).unwrap().contains("--fit"));
        assert!(none.note((400, 300), (3200, 2400), 4).unwrap().contains("8x"));
    }
}
