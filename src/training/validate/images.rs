//! Images on their way to the sheet.
use super::scores::Quality;
use crate::data::crops::Pair;
use crate::data::folder::Rgb8;
use crate::error::Result;
use crate::imaging::{Color, Image, metrics};
use crate::training::sheet::{self, Shown};

/// The measures of an output and of bicubic enlargement, with what the sheet shows.
pub(super) fn shown(
    pair: &Pair,
    scale: usize,
    states: Vec<(usize, Image)>,
    [bicubic, output, truth]: [Image; 3],
) -> Result<Shown> {
    let quality = [measure(&output, &truth, scale)?, measure(&bicubic, &truth, scale)?];
    Ok(Shown {
        name: pair.name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned(),
        low: sheet::repeated(&pair.low, scale)?,
        states,
        bicubic,
        output,
        truth,
        quality,
    })
}

/// The top left part of `values` `[H, width, 3]` in `[0, 1]`, as large as `like`, in 8 bits.
pub(super) fn cut(values: &[f32], width: usize, like: &Rgb8) -> Result<Image> {
    let rows = values.chunks_exact(width * 3).take(like.height);
    let unit: Vec<f32> = rows.flat_map(|row| &row[..like.width * 3]).copied().collect();
    Image::from_rgb_f32(like.width, like.height, &unit)
}

pub(super) fn to_image(image: &Rgb8) -> Result<Image> {
    Image::from_u8(image.width, image.height, Color::Rgb, image.pixels.clone())
}

pub(super) fn measure(image: &Image, truth: &Image, border: usize) -> Result<Quality> {
    Ok(Quality {
        psnr: metrics::psnr_y_float(image, truth, border)?,
        ssim: metrics::ssim_y_float(image, truth, border)?,
    })
}
