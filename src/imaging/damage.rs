//! What a picture shows of the damage it has suffered: the quality of a JPEG by its own quantisation tables, and
//! the noise by its flattest parts.
use super::{Image, Rect};
use crate::error::Result;
use crate::models::damage::Damage;

/// The luminance table of quality 50 (ITU-T T.81, table K.1), row by row.
const STANDARD: [u16; 64] = [
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69,
    56, //
    14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113,
    92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
];

/// Where the k-th number of a table in a file stands in [`STANDARD`] (T.81, figure A.6).
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, //
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38,
    31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// The quality, 1..=100, on the scale of the Independent JPEG Group, of which a luminance table in a file is
/// nearest: exact for the tables of libjpeg, the median of what its entries say for others.
pub fn quality_of_table(table: &[u16; 64]) -> f32 {
    let mut scales: Vec<f32> =
        (0..64).map(|k| 100.0 * f32::from(table[k]) / f32::from(STANDARD[ZIGZAG[k]])).collect();
    scales.sort_by(f32::total_cmp);
    let scale = f32::midpoint(scales[31], scales[32]);
    // libjpeg: 200 - 2 q from quality 50 on, 5000 / q below.
    let quality = if scale <= 100.0 { (200.0 - scale) / 2.0 } else { 5000.0 / scale };
    quality.clamp(1.0, 100.0)
}

/// The damage that can be seen of `image`: what its file said of JPEG, and the noise where no compression has
/// taken part of it away.
///
/// # Errors
/// If the lengths in the image do not fit together.
pub fn seen(image: &Image) -> Result<Damage> {
    let jpeg_quality = image.metadata.jpeg_quality;
    let hidden = jpeg_quality.is_some_and(|q| q < HONEST_QUALITY);
    let noise = if hidden { None } else { noise(image)? };
    Ok(Damage { jpeg_quality, noise, blur: None })
}

/// From this quality on compression leaves noise nearly as it is.
const HONEST_QUALITY: f32 = 90.0;

/// Side of the patches that are compared.
const PATCH: usize = 8;

/// How much the mean of the flattest tenth lies below the mean of all patches of pure noise.
const FLATTEST: f64 = 0.85;

/// The standard deviation of the noise of luma, in levels of 0..=255: the response to a mask that sees no plane and
/// no edge along an axis (Immerkaer 1996), in the flattest tenth of the patches. None of pictures too small for it.
///
/// # Errors
/// If the lengths in the image do not fit together.
pub fn noise(image: &Image) -> Result<Option<f32>> {
    let (columns, rows) =
        (image.width.saturating_sub(2) / PATCH, image.height.saturating_sub(2) / PATCH);
    if columns * rows < 16 {
        return Ok(None);
    }
    let mut patches = Vec::with_capacity(columns * rows);
    for row in 0..rows {
        let band = Rect::new(0, row * PATCH, image.width, PATCH + 2);
        let luma: Vec<f64> = image
            .rgb_f32(band)?
            .chunks_exact(3)
            .map(|p| {
                255.0
                    * (0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]))
            })
            .collect();
        patches
            .extend((0..columns).filter_map(|column| of_patch(&luma, image.width, column * PATCH)));
    }
    if patches.is_empty() {
        return Ok(None);
    }
    patches.sort_by(f64::total_cmp);
    let tenth = patches.len().div_ceil(10);
    let mean = patches[..tenth].iter().sum::<f64>() / tenth as f64;
    #[allow(clippy::cast_possible_truncation)] // An estimate.
    Ok(Some((mean / FLATTEST) as f32))
}

/// The deviation in the patch at `left` of a band of `PATCH + 2` rows; none where values are at the ends of the
/// scale, which hide it.
fn of_patch(luma: &[f64], width: usize, left: usize) -> Option<f64> {
    let at = |x: usize, y: usize| luma[y * width + left + x];
    let mut sum = 0.0;
    for y in 1..=PATCH {
        for x in 1..=PATCH {
            let corners = at(x - 1, y - 1) + at(x + 1, y - 1) + at(x - 1, y + 1) + at(x + 1, y + 1);
            let sides = at(x, y - 1) + at(x, y + 1) + at(x - 1, y) + at(x + 1, y);
            sum += (corners - 2.0 * sides + 4.0 * at(x, y)).abs();
        }
    }
    let centre = at(PATCH / 2, PATCH / 2);
    // The mask's norm is 6; the mean of |z| is sqrt(2 / pi).
    let deviation = (std::f64::consts::PI / 2.0).sqrt() * sum / (6.0 * (PATCH * PATCH) as f64);
    (4.0..=251.0).contains(&centre).then_some(deviation)
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Made-up pixels.
mod tests {
    use super::*;
    use crate::engine::rng::{Purpose, Stream};
    use crate::imaging::Color;

    #[test]
    fn tables_of_libjpeg_are_recognised() {
        for quality in [30u16, 50, 75, 92, 95] {
            let scale = if quality < 50 { 5000 / quality } else { 200 - 2 * quality };
            let entry = |k: usize| ((STANDARD[ZIGZAG[k]] * scale + 50) / 100).clamp(1, 255);
            let table: [u16; 64] = std::array::from_fn(entry);
            let found = quality_of_table(&table);
            assert!((found - f32::from(quality)).abs() < 1.0, "{quality} is read as {found}");
        }
    }

    #[test]
    fn noise_is_measured_beside_edges_and_slopes() {
        let mut draws = Stream::new(1, Purpose::Weights, 0).sequence();
        for sigma in [0.0, 2.0, 5.0, 12.0] {
            let mut pixels = vec![];
            for y in 0..128 {
                for x in 0..128 {
                    let picture =
                        60.0 + 0.5 * x as f32 + if x > 80 { 40.0 } else { 0.3 * y as f32 };
                    let value = (picture + sigma * draws.normal()).round().clamp(0.0, 255.0);
                    pixels.push(value as u8);
                }
            }
            let image = Image::from_u8(128, 128, Color::Gray, pixels).unwrap();
            let found = noise(&image).unwrap().unwrap();
            assert!((found - sigma).abs() < 0.35 + 0.12 * sigma, "{sigma} is measured as {found}");
        }
    }
}
