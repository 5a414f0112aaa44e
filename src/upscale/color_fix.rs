//! Colours of an output brought back to those of its input, over the whole picture, so that tiles do not matter.
//!
//! ```text
//! lowfreq   out + enlarged(blur(in - shrunk(out))): only what varies over many pixels changes
//! adain     (out - mean(out)) / std(out) * std(in) + mean(in), of each channel
//! ycbcr     Y of out, Cb and Cr of the input enlarged by Lanczos
//! ```
//! `strength` blends from the output (0) to that (1). Alpha stays as it is; colours under transparent pixels are
//! those that the network saw.
use super::alpha;
use crate::engine::threads::pieces;
use crate::error::Result;
use crate::imaging::{Color, Image, Rect, resample};

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// What varies over many pixels.
    LowFrequencies,
    /// Mean and spread of each channel.
    Statistics,
    /// Chroma.
    Chroma,
}

/// How colours are corrected.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColorFix {
    /// Which way.
    pub method: Method,
    /// From 0, not at all, to 1.
    pub strength: f32,
}

/// Radius of the three means over a square that blur the difference, in input pixels: about a Gaussian of
/// sigma 8, as wide as the last of five levels of wavelets that others use at a factor of 4.
const RADIUS: usize = 7;

/// Corrects the colours of `output`, which is `scale` times as large as `input`.
///
/// # Errors
/// If the sizes do not fit.
pub fn fix(output: &mut Image, input: &Image, scale: usize, how: ColorFix) -> Result<()> {
    let bled = alpha::bled(input);
    let input = bled.as_ref().unwrap_or(input);
    match how.method {
        Method::LowFrequencies => low_frequencies(output, input, scale, how.strength),
        Method::Statistics => statistics(output, input, how.strength),
        // Gray has none.
        Method::Chroma if output.color == Color::Gray => Ok(()),
        Method::Chroma => chroma(output, input, how.strength),
    }
}

/// Changes rows of `image`: `change` gets the number of a row and its pixels `[W, 3]`.
fn each_row(image: &mut Image, change: impl Fn(usize, &mut [f32]) + Sync) -> Result<()> {
    const ROWS: usize = 64;
    let mut y = 0;
    while y < image.height {
        let part = Rect::new(0, y, image.width, ROWS.min(image.height - y));
        let mut pixels = image.rgb_f32(part)?;
        pieces(&mut pixels, 3 * image.width, |row, pixels| change(y + row, pixels));
        image.store(part, &pixels)?;
        y += part.height;
    }
    Ok(())
}

fn low_frequencies(output: &mut Image, input: &Image, scale: usize, strength: f32) -> Result<()> {
    let (width, height) = (input.width, input.height);
    let mut difference = input.rgb_f32(input.rect())?;
    let each = 1.0 / (scale * scale) as f32;
    for y in 0..height {
        let rows = output.rgb_f32(Rect::new(0, y * scale, output.width, scale))?;
        for (i, pixel) in rows.as_chunks::<3>().0.iter().enumerate() {
            let x = i % output.width / scale;
            for (sum, v) in difference[(y * width + x) * 3..][..3].iter_mut().zip(pixel) {
                *sum -= v * each;
            }
        }
    }
    for _ in 0..3 {
        difference = transposed_mean(&difference, width, height);
        difference = transposed_mean(&difference, height, width);
    }
    // Bilinear between the middles of input pixels.
    let place = |at: usize, size: usize| {
        let at = ((at as f32 + 0.5) / scale as f32 - 0.5).clamp(0.0, (size - 1) as f32);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Within 0..size.
        let first = at as usize;
        (first, (first + 1).min(size - 1), at - first as f32)
    };
    each_row(output, |row, pixels| {
        let (y0, y1, fy) = place(row, height);
        for (column, pixel) in pixels.as_chunks_mut::<3>().0.iter_mut().enumerate() {
            let (x0, x1, fx) = place(column, width);
            for (c, v) in pixel.iter_mut().enumerate() {
                let at = |x: usize, y: usize| difference[(y * width + x) * 3 + c];
                let above = at(x0, y0) + (at(x1, y0) - at(x0, y0)) * fx;
                let below = at(x0, y1) + (at(x1, y1) - at(x0, y1)) * fx;
                *v += strength * (above + (below - above) * fy);
            }
        }
    })
}

/// The means of each row over windows of the radius, cut at the borders; `[H, W, 3]` becomes `[W, H, 3]`.
fn transposed_mean(values: &[f32], width: usize, height: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for y in 0..height {
        let row = &values[y * width * 3..][..width * 3];
        for c in 0..3 {
            let mut sum = 0.0f64;
            let mut within = 0..0;
            for x in 0..width {
                let (start, end) = (x.saturating_sub(RADIUS), (x + RADIUS + 1).min(width));
                (within.end..end).for_each(|i| sum += f64::from(row[i * 3 + c]));
                (within.start..start).for_each(|i| sum -= f64::from(row[i * 3 + c]));
                within = start..end;
                #[allow(clippy::cast_possible_truncation)] // Narrowing is the purpose.
                let mean = (sum / within.len() as f64) as f32;
                out[(x * height + y) * 3 + c] = mean;
            }
        }
    }
    out
}

/// Mean and spread of the three channels.
fn moments(image: &Image) -> Result<[(f64, f64); 3]> {
    let mut sums = [(0.0, 0.0); 3];
    for y in 0..image.height {
        let row = image.rgb_f32(Rect::new(0, y, image.width, 1))?;
        for pixel in row.as_chunks::<3>().0 {
            for (sum, &v) in sums.iter_mut().zip(pixel) {
                let v = f64::from(v);
                *sum = (sum.0 + v, sum.1 + v * v);
            }
        }
    }
    let count = (image.width * image.height).max(1) as f64;
    Ok(sums.map(|(sum, squares)| {
        let mean = sum / count;
        (mean, (squares / count - mean * mean).max(0.0).sqrt())
    }))
}

#[allow(clippy::cast_possible_truncation)] // Factors for f32.
fn statistics(output: &mut Image, input: &Image, strength: f32) -> Result<()> {
    let (of_output, of_input) = (moments(output)?, moments(input)?);
    let mut factors = [(1.0, 0.0); 3];
    for ((factor, out), wanted) in factors.iter_mut().zip(of_output).zip(of_input) {
        // A plain channel has no spread to change.
        let gain = if out.1 > 1e-6 { wanted.1 / out.1 } else { 1.0 };
        *factor = (gain as f32, (wanted.0 - out.0 * gain) as f32);
    }
    each_row(output, |_, pixels| {
        for pixel in pixels.as_chunks_mut::<3>().0 {
            for (v, (gain, shift)) in pixel.iter_mut().zip(factors) {
                *v += strength * (*v * gain + shift - *v);
            }
        }
    })
}

fn chroma(output: &mut Image, input: &Image, strength: f32) -> Result<()> {
    let large = resample::resize(input, output.width, output.height)?;
    each_row(output, |row, pixels| {
        let Ok(wanted) = large.rgb_f32(Rect::new(0, row, large.width, 1)) else { return };
        let luma = |p: &[f32; 3]| 0.299 * p[0] + 0.587 * p[1] + 0.114 * p[2];
        let wanted = wanted.as_chunks::<3>().0;
        for (pixel, wanted) in pixels.as_chunks_mut::<3>().0.iter_mut().zip(wanted) {
            // Equal chroma is an equal distance of each channel from luma.
            let shift = luma(pixel) - luma(wanted);
            for (v, w) in pixel.iter_mut().zip(wanted) {
                *v += strength * (w + shift - *v);
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(width: usize, height: usize, shift: [u8; 3]) -> Image {
        let pixel = |i: usize| {
            let v = u8::try_from((i % width) * 100 / width + (i / width) * 60 / height).unwrap();
            shift.map(|s| v + s)
        };
        let samples = (0..width * height).flat_map(pixel).collect();
        Image::from_u8(width, height, Color::Rgb, samples).unwrap()
    }

    fn means(image: &Image) -> [f64; 3] {
        moments(image).unwrap().map(|(mean, _)| mean * 255.0)
    }

    #[test]
    fn every_way_takes_a_tint_away() {
        let input = picture(40, 30, [40, 40, 40]);
        for (method, left) in
            [(Method::LowFrequencies, 1.0), (Method::Statistics, 0.6), (Method::Chroma, 9.0)]
        {
            let mut output = picture(160, 120, [60, 40, 30]);
            let before = means(&output)[0] - means(&output)[2];
            assert!(before > 29.0);
            fix(&mut output, &input, 4, ColorFix { method, strength: 1.0 }).unwrap();
            let [r, g, b] = means(&output);
            assert!((r - b).abs() < 1.0 && (r - g).abs() < 1.0, "{method:?}: {r} {g} {b}");
            let wanted = means(&input)[0];
            assert!((g - wanted).abs() < left, "{method:?}: {g} against {wanted}");
        }
    }

    #[test]
    fn detail_stays_and_strength_0_changes_nothing() {
        let input = Image::from_u8(32, 32, Color::Gray, vec![120; 32 * 32]).unwrap();
        let samples: Vec<u8> =
            (0..128 * 128).map(|i| if (i % 128 + i / 128) % 2 == 0 { 100 } else { 160 }).collect();
        let output = Image::from_u8(128, 128, Color::Gray, samples).unwrap();
        let fixed = |strength: f32| {
            let mut output = output.clone();
            let how = ColorFix { method: Method::LowFrequencies, strength };
            fix(&mut output, &input, 4, how).unwrap();
            output
        };
        assert_eq!(fixed(0.0), output);
        let fixed = fixed(1.0);
        let values = fixed.samples.as_u8().unwrap();
        // The mean was 130 and is 120; the pattern is as strong as before.
        assert!(values.iter().all(|&v| v == 90 || v == 150), "{:?}", &values[..4]);
    }
}
