//! The numbers of `srk eval` as they come: a table for people, records for programs.
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::eval_checks::{self, FULL, Space};
use super::eval_metrics::{self, Metrics, Values};
use super::print::{self, line as print};
use super::{common, voice};
use crate::error::{Error, Result};
use crate::evaluate::Scores;

/// One compared picture.
pub(super) struct Row {
    pub(super) name: String,
    /// What enlarged it, where that was done here.
    pub(super) model: Option<String>,
    pub(super) scores: Scores,
    pub(super) bicubic: Option<Scores>,
    /// Whether there are no colours: Y is the gray itself then.
    pub(super) gray: bool,
    /// Of `--metrics`: the picture's, and bicubic's.
    pub(super) more: [Values; 2],
}

/// Prints rows as they come, and the means last.
pub(super) struct Table {
    /// Its columns.
    pub(super) layout: Layout,
    pub(super) json: bool,
    pub(super) rows: Vec<Row>,
    /// What the set is called that is measured, where there are several.
    pub(super) set: String,
    /// The same as programs read it, the mean of each set behind it and that of all last.
    pub(super) records: Vec<serde_json::Value>,
    /// Truths that were cut to the size of their results.
    pub(super) cut: usize,
    /// Pictures without a partner.
    pub(super) alone: Vec<PathBuf>,
    /// How many pictures there are.
    pub(super) all: usize,
    /// Why some could not be measured.
    pub(super) failed: Vec<Error>,
    pub(super) metrics: Metrics,
}

impl Table {
    /// Says what is measured and how.
    pub(super) fn header(&self, head: &Head<'_>) {
        let Head { source, border, range, seed, better, runs } = head;
        if self.json {
            let [model, device, precision] = runs.map_or([None; 3], |runs| runs.map(Some));
            print(json!({"event": "start", "source": source, "model": model, "device": device,
                "precision": precision, "border": border,
                "y": format!("BT.601 {range}, not rounded"), "ssim": "Gaussian 11, sigma 1.5, valid region",
                "seed": seed, "better": better}));
            return;
        }
        print(format_args!(
            "{source}; border {border}; 8 bits; Y of BT.601 ({range}), not rounded; SSIM Gaussian 11x11 \
             sigma 1.5, valid region"
        ));
        print(self.layout.names());
    }

    /// Says which pictures are not measured for want of a partner.
    pub(super) fn left_out(&self) {
        let Some(first) = self.alone.first() else { return };
        let names: Vec<String> = self.alone.iter().map(|path| path.display().to_string()).collect();
        let (count, first) = (common::counted(names.len(), "picture"), first.display());
        voice::event(&json!({"event": "warn", "text": format!("{count} without a partner"),
            "left_out": names}));
        match names.len() {
            n @ 6.. => voice::say(format_args!(
                "note: {count} without a partner left out, first {first} and {} more",
                n - 1
            )),
            _ => voice::say(format_args!(
                "note: {count} without a partner left out: {}",
                names.join(", ")
            )),
        }
    }

    /// The row of `file`, or why there is none: one picture that cannot be measured costs only its own row.
    pub(super) fn measured(&mut self, file: &Path, row: Result<Row>) -> Result<()> {
        match row {
            Ok(row) => self.row(row),
            Err(error @ (Error::Interrupted { .. } | Error::Memory(_) | Error::Device(_))) => {
                return Err(error);
            }
            Err(error) => {
                let text = error.to_string();
                if self.json {
                    let record = json!({"event": "image", "name": stem(file), "input": file,
                        "status": "failed"});
                    print(voice::with_error(record, &error));
                }
                let named = text.contains(&file.display().to_string());
                let before = if named { String::new() } else { format!("{}: ", file.display()) };
                if self.all > 1 {
                    print::note(format_args!("error: {before}{text}"));
                }
                self.failed.push(error);
            }
        }
        Ok(())
    }

    fn row(&mut self, row: Row) {
        let mut event = self.layout.values(&row.scores, row.bicubic.as_ref(), &row.more);
        event["event"] = "image".into();
        event["name"] = row.name.as_str().into();
        if let Some(model) = &row.model {
            event["model"] = model.as_str().into();
        }
        if !self.set.is_empty() {
            event["set"] = self.set.as_str().into();
        }
        self.records.push(event.clone());
        match self.json {
            true => drop(print(event)),
            false => {
                let heads = eval_metrics::heads(&row.more[0]);
                if self.rows.is_empty() {
                    let gap = self.layout.width();
                    if !heads.is_empty() {
                        print(format!("{:gap$}{heads}", ""));
                    }
                    print(self.layout.directions() + &eval_metrics::directions(&row.more[0]));
                }
                let cells = eval_metrics::cells(&row.more[0]);
                print(self.layout.line(&row.name, &row.scores, row.bicubic.as_ref()) + &cells);
            }
        }
        self.rows.push(row);
    }

    /// The means of the rows from number `first` on: those of the set that has a name, or all.
    pub(super) fn summary(&mut self, first: usize) {
        let set = self.set.clone();
        let rows = &self.rows[first..];
        // Of nothing there is no mean; why, was said.
        if rows.is_empty() {
            return;
        }
        let scores: Vec<Scores> = rows.iter().map(|r| r.scores).collect();
        let baseline: Vec<Scores> = rows.iter().filter_map(|r| r.bicubic).collect();
        let mean = Scores::mean(&scores);
        let bicubic = (!baseline.is_empty()).then(|| Scores::mean(&baseline));
        let more = [0, 1].map(|k| eval_metrics::mean(rows.iter().map(move |row| &row.more[k])));
        let mut event = self.layout.values(&mean, bicubic.as_ref(), &more);
        event["event"] = if set.is_empty() { "summary" } else { "set" }.into();
        event["images"] = rows.len().into();
        if set.is_empty() && !self.alone.is_empty() {
            event["left_out"] = self.alone.len().into();
        }
        let models = counts(rows);
        if !models.is_empty() {
            event["models"] = json!(models);
        }
        let gray = rows.iter().filter(|row| row.gray).count();
        if gray > 0 {
            event["gray"] = gray.into();
        }
        if !set.is_empty() {
            event["name"] = set.as_str().into();
            event["set"] = set.as_str().into();
        }
        let count = rows.len();
        self.records.push(event.clone());
        if self.json {
            print(event);
            return;
        }
        let of = if set.is_empty() { String::new() } else { format!(" in {set}") };
        let name = format!("mean of {count}{of}");
        print(self.layout.line(&name, &mean, bicubic.as_ref()) + &eval_metrics::cells(&more[0]));
        // Only then is it a baseline: a column of zeros would be none.
        if bicubic.is_some() && !more[1].is_empty() {
            let cells = eval_metrics::cells(&more[1]);
            let gap = self.layout.width();
            print(format!("{:<gap$}{cells}", "bicubic"));
        }
    }
}

impl Table {
    /// Which model enlarged how many pictures.
    pub(super) fn note_of_models(&self) {
        let counts = counts(&self.rows).into_iter();
        let took: Vec<String> = counts
            .map(|(model, n)| format!("{model} for {}", common::counted(n, "picture")))
            .collect();
        if !took.is_empty() {
            voice::say(format_args!("note: auto took {}", took.join(", ")));
        }
    }

    /// That the Y of gray pictures is not what the header says, if there are any.
    pub(super) fn note_of_gray(&self, range: &str) {
        let count = self.rows.iter().filter(|row| row.gray).count();
        if count > 0 && self.layout.space.has_y() && range != FULL {
            let of = common::counted(count, "picture");
            voice::say(format_args!(
                "note: {of} without colours: Y is their gray as it is, in 0..255, and PSNR-Y 1.32 dB below that of the same \
                 pixels as RGB"
            ));
        }
    }
}

/// What the first lines say.
pub(super) struct Head<'a> {
    pub(super) source: String,
    pub(super) border: usize,
    /// Of Y.
    pub(super) range: &'a str,
    pub(super) seed: u64,
    /// Which values are better, by name.
    pub(super) better: serde_json::Map<String, serde_json::Value>,
    /// Model, device and precision, where a model is measured.
    pub(super) runs: Option<[&'a str; 3]>,
}

/// Which columns there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) space: Space,
    /// Whether bicubic's stand beside the picture's.
    pub(super) bicubic: bool,
}

impl Layout {
    /// Names of the columns and their widths.
    fn columns(self) -> Vec<(&'static str, usize)> {
        let mut columns = Vec::new();
        if self.space.has_y() {
            columns.extend([("PSNR-Y", 8), ("SSIM-Y", 7)]);
        }
        if self.space.has_rgb() {
            columns.extend([("PSNR-RGB", 8), ("SSIM", 7)]);
        }
        columns
    }

    /// The same of bicubic's.
    fn beside(self) -> [(&'static str, usize); 2] {
        [("bicubic", 8), (if self.space.has_y() { "SSIM-Y" } else { "SSIM" }, 7)]
    }

    fn row(self, name: &str, cell: impl Fn(usize, &str, usize) -> String) -> String {
        let mut line = format!("{name:<24}");
        let columns = self.columns();
        for (i, (head, width)) in columns.iter().enumerate() {
            line.push(' ');
            line.push_str(&cell(i, head, *width));
        }
        if self.bicubic {
            line.push_str("  ");
            for (i, (head, width)) in self.beside().iter().enumerate() {
                line.push(' ');
                line.push_str(&cell(columns.len() + i, head, *width));
            }
        }
        line
    }

    fn names(self) -> String {
        self.row("", |_, head, width| format!("{head:>width$}"))
    }

    /// Columns of text before those of `--metrics`.
    fn width(self) -> usize {
        self.names().chars().count()
    }

    /// The line below the names that says which values are better.
    fn directions(self) -> String {
        let higher = eval_metrics::better("psnr");
        self.row("better is", |_, _, width| format!("{higher:>width$}"))
    }

    fn line(self, name: &str, scores: &Scores, bicubic: Option<&Scores>) -> String {
        let of = |s: &Scores| {
            let mut values = Vec::new();
            if self.space.has_y() {
                values.extend([s.psnr_y, s.ssim_y]);
            }
            if self.space.has_rgb() {
                values.extend([s.psnr_rgb, s.ssim_rgb]);
            }
            values
        };
        let mut values = of(scores);
        values.extend(bicubic.map(|b| of(b).into_iter().take(2)).into_iter().flatten());
        self.row(name, |i, _, width| match values.get(i) {
            Some(value) if width == 8 => format!("{value:>8.3}"),
            Some(value) => format!("{value:>7.4}"),
            None => String::new(),
        })
    }

    /// The same as programs read it.
    fn values(
        self,
        scores: &Scores,
        bicubic: Option<&Scores>,
        more: &[Values; 2],
    ) -> serde_json::Value {
        let mut event = eval_checks::scores(scores, self.space);
        if let Some(b) = bicubic {
            event["bicubic"] = eval_checks::scores(b, self.space);
            eval_metrics::extend(&mut event["bicubic"], &more[1]);
        }
        eval_metrics::extend(&mut event, &more[0]);
        event
    }
}

/// How many of `rows` each model enlarged.
fn counts(rows: &[Row]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for model in rows.iter().filter_map(|row| row.model.as_deref()) {
        *counts.entry(model).or_default() += 1;
    }
    counts
}

fn stem(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}
