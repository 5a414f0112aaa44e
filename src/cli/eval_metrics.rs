//! What `srk eval --metrics` measures besides PSNR and SSIM.
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::Result;
use crate::evaluate;
use crate::imaging::niqe::Niqe;
use crate::imaging::{Image, artefacts};
use crate::models::perceptual::folder::Folder;
use crate::models::perceptual::{Distance, Kind};

/// A name of `--metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Metric {
    /// In dB, of Y and of RGB: always shown
    Psnr,
    /// Of Y and of RGB: always shown
    Ssim,
    /// LPIPS with AlexNet and with VGG16; lower is better
    Lpips,
    /// DISTS; lower is better
    Dists,
    /// NIQE, without the truth; lower is more natural
    Niqe,
    /// Periods 2 and 4 of a pixel shuffle beside the truth's; 1 is none
    Weave,
    /// Steps across the enlarged grid of JPEG's blocks; 1 is none
    Grid,
    /// Noise in flat parts beside bicubic's; 1 is as much
    #[value(name = "flat_noise", alias = "flat-noise")]
    FlatNoise,
}

/// Values by name; none where a picture is too small or plain to have one.
pub(super) type Values = Vec<(&'static str, Option<f64>)>;

/// What is measured, with the weights that it takes.
#[derive(Default)]
pub(super) struct Metrics {
    distances: Vec<(Kind, Distance)>,
    niqe: Option<Niqe>,
    wanted: Vec<Metric>,
    scale: usize,
}

impl Metrics {
    /// The metrics `wanted`, of pictures enlarged `scale` times, with the weights in `features`.
    ///
    /// # Errors
    /// Exit code 3 if their weights are not there.
    pub(super) fn open(wanted: &[Metric], features: Option<&Path>, scale: usize) -> Result<Self> {
        let folder = Folder::open(features);
        let mut this = Self { wanted: wanted.to_vec(), scale, ..Self::default() };
        for kind in Kind::ALL {
            let metric = if kind == Kind::Dists { Metric::Dists } else { Metric::Lpips };
            if wanted.contains(&metric) {
                this.distances.push((kind, Distance::open(kind, &folder)?));
            }
        }
        if wanted.contains(&Metric::Niqe) {
            let file = folder.niqe()?;
            let values = |key: &str| file.tensors.get(key).map_or(&[][..], |t| t.1.as_slice());
            this.niqe = Some(Niqe::new(values("mu"), values("cov"))?);
        }
        Ok(this)
    }

    /// The values of `image`, whose truth is `truth` and whose bicubic version is `bicubic`, or else the truth
    /// shrunk and enlarged.
    pub(super) fn of(
        &self,
        image: &Image,
        truth: &Image,
        bicubic: Option<&Image>,
    ) -> Result<Values> {
        let mut values = Values::new();
        for (kind, distance) in &self.distances {
            values.push((kind.name(), evaluate::distance(distance, *kind, [image, truth])?));
        }
        if let Some(niqe) = &self.niqe {
            values.push(("niqe", niqe.of(image)?));
            values.push(("niqe_truth", niqe.of(truth)?));
        }
        if self.wanted.contains(&Metric::Weave) {
            let (of_image, of_truth) = (artefacts::weave(image)?, artefacts::weave(truth)?);
            let ratio = of_image.zip(of_truth).map(|(a, b)| a.prominence / b.prominence);
            values.push(("weave", ratio));
            for (names, weave) in [
                (["weave_power_2", "weave_power_4"], of_image),
                (["weave_truth_power_2", "weave_truth_power_4"], of_truth),
            ] {
                values.push((names[0], weave.map(|w| w.period2)));
                values.push((names[1], weave.map(|w| w.period4)));
            }
        }
        if self.wanted.contains(&Metric::Grid) {
            values.push(("grid", artefacts::grid(image, self.scale)?));
            values.push(("grid_truth", artefacts::grid(truth, self.scale)?));
        }
        if self.wanted.contains(&Metric::FlatNoise) {
            values.push(("flat_noise", self.flat_noise(image, truth, bicubic)?));
        }
        Ok(values)
    }

    fn flat_noise(
        &self,
        image: &Image,
        truth: &Image,
        bicubic: Option<&Image>,
    ) -> Result<Option<f64>> {
        if let Some(bicubic) = bicubic {
            return artefacts::flat_noise(image, truth, bicubic);
        }
        if truth.width < self.scale || truth.height < self.scale {
            return Ok(None);
        }
        let pair = evaluate::degrade_matlab(truth, self.scale)?;
        let image = image.crop_to_multiple(self.scale)?;
        artefacts::flat_noise(&image, &pair.truth, &pair.bicubic)
    }
}

/// The mean of each value over the rows that have one.
pub(super) fn mean<'a>(rows: impl Iterator<Item = &'a Values> + Clone) -> Values {
    let names = rows.clone().next().cloned().unwrap_or_default();
    let of = |(i, (name, _)): (usize, &(&'static str, Option<f64>))| {
        let all: Vec<f64> = rows.clone().filter_map(|row| row.get(i)?.1).collect();
        (*name, (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64))
    };
    names.iter().enumerate().map(of).collect()
}

/// Which values of what has this name are better; none of what describes the truth.
pub(super) fn better(name: &str) -> &'static str {
    let begins = |with: &[&str]| with.iter().any(|with| name.starts_with(with));
    if name.contains("_truth") || name.contains("_power_") {
        ""
    } else if begins(&["psnr", "ssim"]) {
        "higher"
    } else if begins(&["lpips", "dists", "niqe", "weave", "flat_noise"]) {
        "lower"
    } else {
        "near 1"
    }
}

/// The same for the columns of [`cells`].
pub(super) fn directions(values: &Values) -> String {
    shown(values).map(|(name, _)| format!(" {:>10}", better(name))).collect()
}

/// The names of all that is measured where `wanted` is, those of the truth among them.
pub(super) fn names(wanted: &[Metric]) -> Vec<&'static str> {
    let always = ["psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"];
    let more = wanted.iter().flat_map(|metric| -> Vec<&'static str> {
        match metric {
            Metric::Psnr | Metric::Ssim => vec![],
            Metric::Lpips => {
                Kind::ALL.iter().filter(|&&kind| kind != Kind::Dists).map(|k| k.name()).collect()
            }
            Metric::Dists => vec![Kind::Dists.name()],
            Metric::Niqe => vec!["niqe", "niqe_truth"],
            Metric::Weave => vec![
                "weave",
                "weave_power_2",
                "weave_power_4",
                "weave_truth_power_2",
                "weave_truth_power_4",
            ],
            Metric::Grid => vec!["grid", "grid_truth"],
            Metric::FlatNoise => vec!["flat_noise"],
        }
    });
    always.into_iter().chain(more).collect()
}

/// The same by name, of all that `wanted` are measured by.
pub(super) fn directions_by_name(wanted: &[Metric]) -> Map<String, Value> {
    let known = names(wanted).into_iter().map(|name| (name, better(name)));
    known.filter(|(_, way)| !way.is_empty()).map(|(name, way)| (name.into(), way.into())).collect()
}

/// Adds the values to a record; `null` where there is none.
pub(super) fn extend(record: &mut Value, values: &Values) {
    let fields: Map<String, Value> =
        values.iter().map(|&(name, value)| (name.to_owned(), value.into())).collect();
    if let Some(object) = record.as_object_mut() {
        object.extend(fields);
    }
}

/// Names over the columns of [`cells`].
pub(super) fn heads(values: &Values) -> String {
    shown(values).map(|(name, _)| format!(" {name:>10}")).collect()
}

/// The values in columns.
pub(super) fn cells(values: &Values) -> String {
    let cell = |value: Option<f64>| match value {
        Some(value) => format!(" {value:>10.4}"),
        None => format!(" {:>10}", "-"),
    };
    shown(values).map(|&(_, value)| cell(value)).collect()
}

/// What a table shows: powers are for records.
fn shown(values: &Values) -> impl Iterator<Item = &(&'static str, Option<f64>)> {
    values.iter().filter(|(name, _)| !name.contains("_power_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measure_has_its_direction() {
        let all = [Metric::Psnr, Metric::Lpips, Metric::Dists, Metric::Niqe, Metric::Grid];
        let directions = directions_by_name(&all);
        for (name, direction) in [
            ("psnr_y", "higher"),
            ("ssim_rgb", "higher"),
            ("lpips_alex", "lower"),
            ("lpips_vgg", "lower"),
            ("dists", "lower"),
            ("niqe", "lower"),
            ("grid", "near 1"),
        ] {
            assert_eq!(directions[name], direction, "{name}");
        }
        assert_eq!((better("niqe_truth"), better("weave_power_2")), ("", ""));
    }
}
