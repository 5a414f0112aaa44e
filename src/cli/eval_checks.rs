//! What `srk eval` makes of its numbers besides a table: records, a file of columns, and checks.
use std::cmp::Ordering;
use std::path::Path;

use serde_json::{Value, json};

use crate::engine::files::atomic_write;
use crate::error::{Error, Report, Result};
use crate::imaging::metrics::Channels;

/// The range of a Y that is a mean of 8-bit levels.
pub(super) const FULL: &str = "0..255";

/// Which Y is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Convention {
    /// Y in 16..235, as papers, BasicSR, KAIR and MATLAB have it
    #[default]
    #[value(aliases = ["basicsr", "matlab", "kair"])]
    Papers,
    /// Y in 0..255, as pyiqa has it by default: PSNR-Y is 1.32 dB lower
    #[value(alias = "pyiqa")]
    FullRange,
}

impl Convention {
    /// What of a picture is its Y.
    pub(super) fn channels(self) -> Channels {
        match self {
            Self::Papers => Channels::YFloat,
            Self::FullRange => Channels::YFull,
        }
    }

    /// In words.
    pub(super) fn range(self) -> &'static str {
        match self {
            Self::Papers => "16..235",
            Self::FullRange => FULL,
        }
    }
}

/// A value of `--space`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Space {
    /// Y alone, as most papers
    Y,
    /// RGB alone
    Rgb,
    #[default]
    Both,
}

impl Space {
    pub(super) fn has_y(self) -> bool {
        self != Self::Rgb
    }

    pub(super) fn has_rgb(self) -> bool {
        self != Self::Y
    }

    /// Whether the value of this name is measured.
    pub(super) fn has(self, name: &str) -> bool {
        match name {
            "psnr_y" | "ssim_y" => self.has_y(),
            "psnr_rgb" | "ssim_rgb" => self.has_rgb(),
            _ => true,
        }
    }
}

/// A value of `--scale`: no network of srk enlarges more, and the border is as wide by default.
pub(super) fn scale(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(scale @ 1..=64) => Ok(scale),
        _ => Err("a number from 1 to 64".into()),
    }
}

/// A value of `--border`; none is the scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Border(pub(super) Option<usize>);

impl std::str::FromStr for Border {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self(None)),
            (_, Ok(pixels)) => Ok(Self(Some(pixels))),
            _ => Err("auto (the scale), or a number of pixels".into()),
        }
    }
}

/// A number for JSON, which has no infinity: the PSNR of equal pictures is the text `inf`.
pub(super) fn number(value: f64) -> Value {
    match value.is_finite() {
        true => value.into(),
        false => value.to_string().into(),
    }
}

/// What a mean must reach.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limit {
    name: String,
    value: f64,
}

pub(super) fn limit(text: &str) -> std::result::Result<Limit, String> {
    let (name, value) = text.split_once('=').ok_or("a name and a number, such as psnr_y=27.5")?;
    let value = value.parse::<f64>().map_err(|_| format!("{value} is no number"))?;
    if value.is_nan() {
        return Err("a number that can be compared".into());
    }
    Ok(Limit { name: name.trim().to_ascii_lowercase(), value })
}

/// Refuses, before any work, limits of what is not among the `names` that will be measured, or not in this space.
pub(super) fn check_names(limits: &[&Limit], names: &[&str], space: Space) -> Result<()> {
    let measured: Vec<&str> = names.iter().copied().filter(|name| space.has(name)).collect();
    match limits.iter().find(|limit| !measured.contains(&limit.name.as_str())) {
        Some(limit) => Err(unknown(limit, &measured)),
        None => Ok(()),
    }
}

fn unknown(limit: &Limit, known: &[&str]) -> Error {
    let cause = format!("what is: {}", known.join(", "));
    let report = Report::new(format!("{} is not measured", limit.name), cause);
    let near = known.iter().find(|name| name.starts_with(&limit.name));
    Error::Usage(report.help(match near {
        Some(near) => format!("did you mean {near}={}?", limit.value),
        None => "--metrics names more to measure".to_owned(),
    }))
}

/// Whether the means in `summary` are at least `least` and at most `most`.
///
/// # Errors
/// [`Error::Check`] with all that are not.
pub(super) fn check(summary: &Value, least: &[Limit], most: &[Limit]) -> Result<()> {
    let of = |limit: &Limit| match &summary[&limit.name] {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let mut missed = Vec::new();
    for (limits, side, missing) in
        [(least, "below", Ordering::Less), (most, "above", Ordering::Greater)]
    {
        for limit in limits {
            let name = &limit.name;
            match of(limit) {
                // NaN meets none.
                Some(v) if v.partial_cmp(&limit.value).is_none_or(|is| is == missing) => {
                    missed.push(format!("{name} = {v:.4}, {side} {}", limit.value));
                }
                Some(_) => {}
                None => missed.push(format!("no picture is large enough for {name}")),
            }
        }
    }
    match missed.is_empty() {
        true => Ok(()),
        false => {
            let report =
                Report::new("the pictures are not as good as asked for", missed.join("; "));
            Err(Error::Check(report.code("below_limit")))
        }
    }
}

/// Writes `records` as columns: the name, where there are several sets the set (empty for the mean of all), then every
/// number of the first, those of bicubic in front of which stands `bicubic_`.
pub(super) fn write_csv(path: &Path, records: &[Value]) -> Result<()> {
    let flat = |record: &Value| -> Vec<(String, Value)> {
        let mut fields = Vec::new();
        for (key, value) in record.as_object().into_iter().flatten() {
            match value {
                Value::Object(_) if key == "models" => {}
                Value::Object(inner) => fields
                    .extend(inner.iter().map(|(name, v)| (format!("{key}_{name}"), v.clone()))),
                _ if ["event", "name", "model", "set", "images"].contains(&key.as_str()) => {}
                _ => fields.push((key.clone(), value.clone())),
            }
        }
        fields
    };
    let names: Vec<String> =
        records.first().map(&flat).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    let sets = records.iter().any(|record| record["set"].is_string());
    let mut text = format!("name,{}{}\n", if sets { "set," } else { "" }, names.join(","));
    for record in records {
        let fields = flat(record);
        let cell = |name: &String| {
            let found = fields.iter().find(|(key, _)| key == name).map(|(_, value)| value);
            match found {
                Some(Value::String(text)) => text.clone(),
                Some(value) if !value.is_null() => value.to_string(),
                _ => String::new(),
            }
        };
        let name = record["name"].as_str().filter(|_| record["event"] == "image");
        let mut cells = vec![quoted(name.unwrap_or("mean"))];
        cells.extend(sets.then(|| quoted(record["set"].as_str().unwrap_or_default())));
        cells.extend(names.iter().map(cell));
        text.push_str(&format!("{}\n", cells.join(",")));
    }
    atomic_write(path, |writer| writer.write_all(text.as_bytes()))
}

/// Refuses a file in a folder that is not there, before anything is measured.
pub(super) fn check_folder(file: &Path) -> Result<()> {
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if folder.is_dir() {
        return Ok(());
    }
    let report = Report::new(format!("cannot write {}", file.display()), "there is no such folder");
    Err(Error::Usage(report.help(format!("mkdir -p '{}'", folder.display()))))
}

/// A cell as RFC 4180 has it.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

/// The scores under their names.
pub(super) fn scores(s: &crate::evaluate::Scores, space: Space) -> Value {
    let mut all = json!({"psnr_y": number(s.psnr_y), "ssim_y": number(s.ssim_y),
        "psnr_rgb": number(s.psnr_rgb), "ssim_rgb": number(s.ssim_rgb)});
    if let Some(all) = all.as_object_mut() {
        all.retain(|name, _| space.has(name));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_kept() {
        let least = [limit("psnr_y=27.5").unwrap()];
        let most = [limit("LPIPS_alex=0.2").unwrap()];
        let summary = |psnr: Value, lpips: f64| json!({"psnr_y": psnr, "lpips_alex": lpips});
        assert!(check(&summary(27.5.into(), 0.2), &least, &most).is_ok());
        assert!(check(&summary("inf".into(), 0.1), &least, &most).is_ok());
        let error = check(&summary(27.49.into(), 0.3), &least, &most).unwrap_err();
        assert_eq!((error.exit_code(), error.code()), (6, "below_limit"));
        assert!(error.to_string().contains("27.49") && error.to_string().contains("0.3"));
        // None of the pictures had it: what was asked for was not shown.
        let error = check(&summary(30.into(), 0.1), &[limit("dists=1").unwrap()], &[]).unwrap_err();
        assert_eq!(error.exit_code(), 6);
        for text in ["psnr_y", "psnr_y=x", "psnr_y=nan"] {
            assert!(limit(text).is_err(), "{text}");
        }
        let always = &["psnr_y", "psnr_rgb"][..];
        let names = |limit, names, space| check_names(&[limit], names, space);
        assert!(names(&least[0], always, Space::Both).is_ok());
        assert!(names(&least[0], always, Space::Rgb).is_err());
        assert!(names(&most[0], always, Space::Y).is_err());
        assert!(names(&most[0], &["lpips_alex"], Space::Y).is_ok());
    }

    #[test]
    fn infinity_is_a_text() {
        assert_eq!(number(f64::INFINITY), json!("inf"));
        assert_eq!(number(1.5), json!(1.5));
        assert_eq!(quoted("a,\"b"), "\"a,\"\"b\"");
    }
}
