//! The sheet of a validation: what came in, what came out, what should have.
use std::collections::BTreeMap;
use std::path::Path;

use super::sections::Config;
use super::validate::Quality;
use crate::data::folder::Rgb8;
use crate::diffusion::walk::Progress;
use crate::error::{Error, Report, Result};
use crate::imaging::sheet::{Panel, Sheet};
use crate::imaging::{self, Color, EncodeOptions, Image, Rect};

/// The most and the least that a panel is wide, in pixels of the sheet.
const PANEL: [usize; 2] = [320, 96];

/// One validated image: each of its versions, and the measures of output and bicubic.
pub(super) struct Shown {
    pub(super) name: String,
    pub(super) low: Image,
    pub(super) bicubic: Image,
    pub(super) output: Image,
    pub(super) truth: Image,
    /// States on the way, by their step of the chain.
    pub(super) states: Vec<(usize, Image)>,
    pub(super) quality: [Quality; 2],
}

/// The states that the sheet shows: of each of some equal parts of the chain, the last one.
pub(super) struct States {
    parts: usize,
    steps: usize,
    seen: BTreeMap<usize, (usize, Image)>,
}

impl States {
    /// As many as the configuration asks for.
    pub(super) fn new(config: &Config) -> Self {
        let steps = config.diffusion.process.steps();
        let parts = usize::try_from(config.val.states).unwrap_or(usize::MAX).min(steps);
        Self { parts, steps, seen: BTreeMap::new() }
    }

    /// Keeps the state, which `image` shows, in place of an earlier one of the same part.
    pub(super) fn see(
        &mut self,
        progress: &Progress<'_>,
        image: impl FnOnce() -> Result<Image>,
    ) -> Result<()> {
        // Not every state of a long chain is shown: those that close a part will do.
        let closes = (progress.at * self.parts) % self.steps < self.parts;
        if self.parts > 0 && (closes || progress.calls < self.steps) {
            let part = progress.at * self.parts / self.steps;
            self.seen.insert(part, (progress.at, image()?));
        }
        Ok(())
    }

    /// The states kept, the cleanest first.
    pub(super) fn images(self) -> Vec<(usize, Image)> {
        self.seen.into_values().collect()
    }
}

/// Writes `sheet.png` into `folder`: a row for each image, each column the same part of it.
pub(super) fn write(shown: Vec<Shown>, config: &Config, folder: &Path) -> Result<()> {
    let mut titles: Vec<String> = match config.val.states {
        0 => ["low resolution", "bicubic", "srk", "ground truth"].map(str::to_owned).to_vec(),
        _ => ["ground truth", "enlarged", "low resolution", "srk"].map(str::to_owned).to_vec(),
    };
    let states = shown.first().map(|row| &row.states).into_iter().flatten();
    titles.extend(states.map(|(at, _)| format!("step {at}")));
    let mut sheet = Sheet::new(&titles.iter().map(String::as_str).collect::<Vec<_>>());
    for row in shown {
        sheet = sheet.row(row.panels()?);
    }
    let path = folder.join("sheet.png");
    std::fs::create_dir_all(folder)
        .map_err(|e| Error::Failed(Report::new(format!("cannot write {}", path.display()), e)))?;
    imaging::write(&path, &sheet.render()?, EncodeOptions::default())
}

impl Shown {
    fn panels(self) -> Result<Vec<Panel>> {
        let caption = |q: Quality| format!("{:.2} dB  {:.4}", q.psnr, q.ssim);
        let [output, bicubic] = self.quality.map(caption);
        let low = Panel::new(middle(&self.low)?, self.name);
        let bicubic = Panel::new(middle(&self.bicubic)?, bicubic);
        let output = Panel::new(middle(&self.output)?, output);
        let truth = Panel::new(middle(&self.truth)?, "");
        if self.states.is_empty() {
            return Ok(vec![low, bicubic, output, truth]);
        }
        let states = self.states.iter().map(|(_, state)| Ok(Panel::new(middle(state)?, "")));
        [truth, bicubic, low, output].into_iter().map(Ok).chain(states).collect()
    }
}

/// The middle of `image`, at most as large as a panel; small images are shown in large pixels.
fn middle(image: &Image) -> Result<Image> {
    let [most, least] = PANEL;
    let (width, height) = (image.width.min(most), image.height.min(most));
    let at = Rect::new((image.width - width) / 2, (image.height - height) / 2, width, height);
    let image = image.crop(at)?.to_rgb().to_depth(imaging::Depth::Eight);
    match image.samples {
        imaging::Samples::U8(pixels) if width < least => {
            repeated(&Rgb8 { width, height, pixels }, least.div_ceil(width))
        }
        _ => Ok(image),
    }
}

/// `image` with every pixel repeated `scale` times each way.
pub(super) fn repeated(image: &Rgb8, scale: usize) -> Result<Image> {
    let mut pixels = Vec::with_capacity(image.pixels.len() * scale * scale);
    for row in image.pixels.chunks_exact(image.width * 3) {
        let row: Vec<u8> = row
            .chunks_exact(3)
            .flat_map(|p| std::iter::repeat_n(p, scale).flatten())
            .copied()
            .collect();
        (0..scale).for_each(|_| pixels.extend_from_slice(&row));
    }
    Image::from_u8(image.width * scale, image.height * scale, Color::Rgb, pixels)
}
