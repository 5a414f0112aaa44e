//! Eight views of a picture, mirrored and turned, each enlarged; the result is their mean.
//!
//! ```text
//! view k   mirrored in x if k & 1, in y if k & 2, transposed if k & 4
//! result   mean over k of the pixel that the pixel became in view k
//! ```
//! Views are of 16 bits, so that the mean is rounded once. Alpha is that of the picture as it is, since nothing
//! random is in it. The noise belongs to places of the view, so that each view draws its own.
use super::{Plan, Report, Upscaler, alpha, upscale};
use crate::error::Result;
use crate::imaging::{Depth, Image, Samples, narrow};

/// How many views there are.
pub const VIEWS: usize = 8;

/// Bytes held beside the picture for an output of `pixels` with `channels`: the sum, a view and its output.
pub fn memory(pixels: u64, channels: u64) -> u64 {
    pixels.saturating_mul(channels).saturating_mul(4 + 2 + 2)
}

/// Enlarges `image` by the model's factor in all views; `plans` are for the picture as it is and for the
/// transposed one.
///
/// # Errors
/// As [`upscale`].
pub fn enlarge(
    upscaler: &Upscaler,
    image: &Image,
    plans: [&Plan; 2],
    seed: u64,
    on_call: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<(Image, Report)> {
    let depth = image.depth();
    // Views go without alpha, so that colours under it must not be there any more.
    let bled = alpha::bled(image);
    let mut deep = bled.as_ref().unwrap_or(image).clone().to_depth(Depth::Sixteen);
    drop(bled);
    let alpha = deep.alpha.clone();
    let mut sums: Vec<u32> = Vec::new();
    let (mut report, mut first, mut before) = (Report::default(), None, 0);
    for k in 0..VIEWS {
        // What is transparent is so in every view; enlarging it once is enough.
        deep.alpha = if k == 0 { alpha.clone() } else { None };
        let plan = plans[usize::from(k & 4 != 0)];
        let mut calls = 0;
        let seen = view(&deep, k);
        let (output, this) = upscale(upscaler, &seen, plan, seed, &mut |done, all| {
            calls = all;
            on_call(before + done, before + all * (VIEWS - k))
        })?;
        before += calls;
        report.redone += this.redone;
        report.halved += this.halved;
        let Samples::U16(samples) = &output.samples else { continue };
        if sums.is_empty() {
            sums = vec![0; samples.len()];
        }
        let size = match k & 4 {
            0 => (output.width, output.height),
            _ => (output.height, output.width),
        };
        add(&mut sums, samples, size, output.channels(), k);
        if k == 0 {
            first = Some(Image { samples: Samples::zeros(depth, 0), ..output });
        }
    }
    let mean = |sum: u32| u16::try_from((sum + 4) / 8).unwrap_or(u16::MAX);
    let samples = match depth {
        Depth::Eight => Samples::U8(sums.iter().map(|&sum| narrow(mean(sum))).collect()),
        Depth::Sixteen => Samples::U16(sums.iter().map(|&sum| mean(sum)).collect()),
    };
    let mut output = first.unwrap_or_else(|| Image::new(0, 0, image.color, depth));
    output.alpha = output.alpha.map(|alpha| alpha.to_depth(depth));
    output.metadata = image.metadata.clone();
    Ok((Image { samples, ..output }, report))
}

/// Where the pixel (x, y) of view `k` lies in the picture of `size` (width, height).
fn origin((x, y): (usize, usize), size: (usize, usize), k: usize) -> (usize, usize) {
    let (u, v) = if k & 4 == 0 { (x, y) } else { (y, x) };
    let u = if k & 1 == 0 { u } else { size.0 - 1 - u };
    let v = if k & 2 == 0 { v } else { size.1 - 1 - v };
    (u, v)
}

/// View `k` of a picture of 16 bits, without metadata.
fn view(image: &Image, k: usize) -> Image {
    let size = (image.width, image.height);
    let (width, height) = if k & 4 == 0 { size } else { (size.1, size.0) };
    let turned = |samples: &[u16], channels: usize| {
        let mut out = Vec::with_capacity(samples.len());
        for y in 0..height {
            for x in 0..width {
                let (u, v) = origin((x, y), size, k);
                let at = (v * size.0 + u) * channels;
                out.extend_from_slice(&samples[at..at + channels]);
            }
        }
        Samples::U16(out)
    };
    let mut seen = Image::new(width, 0, image.color, Depth::Sixteen);
    seen.height = height;
    seen.samples = turned(image.samples.as_u16().unwrap_or(&[]), image.channels());
    seen.alpha = image.alpha.as_ref().map(|alpha| turned(alpha.as_u16().unwrap_or(&[]), 1));
    seen
}

/// Adds the output of view `k` to the sums of the picture's output, which has `size`.
fn add(sums: &mut [u32], samples: &[u16], size: (usize, usize), channels: usize, k: usize) {
    let (width, height) = if k & 4 == 0 { size } else { (size.1, size.0) };
    for y in 0..height {
        for x in 0..width {
            let (u, v) = origin((x, y), size, k);
            let (from, to) = ((y * width + x) * channels, (v * size.0 + u) * channels);
            for c in 0..channels {
                sums[to + c] += u32::from(samples[from + c]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::Color;

    #[test]
    fn views_are_eight_different_ones_and_come_back() {
        let samples: Vec<u16> = (0..3 * 5 * 3).map(|v| v * 100).collect();
        let image = Image::from_u16(5, 3, Color::Rgb, samples.clone()).unwrap();
        let mut seen: Vec<Image> = Vec::new();
        for k in 0..VIEWS {
            let view = view(&image, k);
            view.validate().unwrap();
            assert!(!seen.contains(&view), "view {k}");
            let mut sums = vec![0; samples.len()];
            add(&mut sums, view.samples.as_u16().unwrap(), (5, 3), 3, k);
            assert_eq!(sums, samples.iter().map(|&v| u32::from(v)).collect::<Vec<_>>(), "{k}");
            seen.push(view);
        }
    }
}
