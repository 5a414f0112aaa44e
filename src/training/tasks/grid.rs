//! Pictures of many samples, and drawing them from weights.
use std::path::Path;

use super::draws::Draws;
use super::teaching::ModelConfig;
use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::rng::{Purpose, Stream};
use crate::engine::spelling;
use crate::engine::tensor::Tensor;
use crate::error::{Error, NOT_FINITE, Report, Result};
use crate::imaging::{Color, Image};
use crate::models::weights::WeightsFile;
use crate::models::{build_within, most_numbers, run_folder};
use crate::training::checkpoint::Part;

/// Pixels between images.
const GAP: usize = 2;

/// The images `[N, side, side, 1]` in `[-1, 1]` as one gray picture, in rows of nearly as many as there are
/// rows, each pixel `zoom` x `zoom`.
pub fn grid(images: &Tensor, zoom: usize) -> Result<Image> {
    let [count, height, width, channels] = images.nhwc("grid")?;
    if count == 0 || channels != 1 {
        return Err(Error::shape("grid", "[N, H, W, 1] with images", images.shape()));
    }
    let values = images.to_f32_vec()?;
    if let Some(bad) = values.iter().find(|v| !v.is_finite()) {
        let report =
            Report::new(format!("the model gave {bad} in place of a pixel"), "in a drawn image");
        let help = "the weights are damaged or the model diverged";
        return Err(Error::Check(report.code(NOT_FINITE).help(help)));
    }
    let mut columns = 1;
    while columns * columns < count {
        columns += 1;
    }
    let (cell_w, cell_h) = (width * zoom + GAP, height * zoom + GAP);
    let (w, h) = (columns * cell_w + GAP, count.div_ceil(columns) * cell_h + GAP);
    // Beside black digits and white paper a gap must be neither.
    let mut pixels = vec![64u8; w * h];
    for (i, image) in values.chunks_exact(width * height).enumerate() {
        let (left, top) = (GAP + i % columns * cell_w, GAP + i / columns * cell_h);
        for y in 0..height * zoom {
            let row = &image[y / zoom * width..][..width];
            let to = &mut pixels[(top + y) * w + left..][..width * zoom];
            for (to, from) in to.chunks_exact_mut(zoom).zip(row) {
                to.fill(byte(*from));
            }
        }
    }
    Image::from_u8(w, h, Color::Gray, pixels)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 255")]
fn byte(v: f32) -> u8 {
    ((v.clamp(-1.0, 1.0) + 1.0) * 127.5).round() as u8
}

/// The system in `path`, a weights file or the newest averages of a run's folder, with its weights on `device`; and the name
/// of its run. `steps` replaces the calls of a diffusion network for a sample, at most all of them, and is refused for others;
/// what was taken comes last. `notes` hear of a damaged checkpoint that was passed over, and of fewer steps.
///
/// # Errors
/// [`Error::Model`] if there is no such file, or it holds none of these systems; exit code 2 for `steps` that it
/// does not take.
pub fn open(
    path: &Path,
    steps: Option<usize>,
    device: &Device,
    notes: &mut Vec<String>,
) -> Result<(Box<dyn Draws>, String, Option<usize>)> {
    if !path.exists() {
        let report = Report::new(
            format!("cannot sample from {}", path.display()),
            "there is no such file or folder",
        );
        let help = "name the folder of a run of gan, dcgan, wgan-gp, vae or ddpm, as runs/NAME, or a weights file";
        return Err(Error::Model(report.code("not_found").help(spelling::help(path, help))));
    }
    let (file, path) = match path.is_dir() {
        true => run_folder::averages(path, notes)?,
        false => (WeightsFile::read(path)?, path.to_owned()),
    };
    let name = path.display().to_string();
    let mut model = ModelConfig::of(&file, &name)?;
    let taken = match (steps, &mut model) {
        (Some(steps), ModelConfig::Ddpm(c)) => {
            let most = c.diffusion.process.steps();
            if steps > most {
                notes.push(format!("{name} has {most} steps, so --steps {steps} is {most}"));
            }
            c.sample_steps = steps.min(most);
            Some(c.sample_steps)
        }
        (Some(_), _) => {
            let cause = "only ddpm draws in steps";
            return Err(Error::Usage(Report::new("cannot take --steps", cause)));
        }
        (None, _) => None,
    };
    let built = build_within(&model, most_numbers(&file), || model.build(0));
    let system = built.map_err(|unbuilt| unbuilt.of_file(&name))?;
    let all: Vec<Parameter> = system.parts().iter().flat_map(Part::state).collect();
    file.apply(&all, &name)?;
    all.iter().try_for_each(|parameter| parameter.to_device(device, DType::F32))?;
    let of = |key: &str| file.metadata.get(key).cloned();
    Ok((system, of("srk.run").or_else(|| of("srk.arch")).unwrap_or_default(), taken))
}

/// The noise of `srk sample --seed`.
pub const fn noise(seed: u64) -> Stream {
    // Draws of a walk count from 0 on.
    Stream::new(seed, Purpose::Sampling, 0)
}
