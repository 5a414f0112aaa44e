//! Transparency: colours that transparent pixels are given before the network sees them, and alpha enlarged.
//!
//! What a file holds where nothing is to be seen is arbitrary, and the network looks as far as its receptive
//! field: hidden colours would come out at the edges of what is seen. So every pixel that is (nearly)
//! transparent takes the colours of what lies nearest to it:
//!
//! ```text
//! known     pixels with alpha >= t, t = 1/16 or the most opaque pixel's alpha, whichever is less
//! fill      ring by ring around the known: the mean of the known neighbours, beside weighing 2, diagonal 1
//! result    known: as it was; others: s own + (1 - s) fill with s = alpha / t
//! ```
//! Over any background that moves a pixel by at most t / 4 of the difference between the two, and only where
//! alpha is between 0 and t. Alpha is enlarged by the cubic of [`resample::bicubic_up`], held between the
//! least and the greatest of the four samples around each output pixel, so that an edge has no ringing: what
//! is hard 0 or hard 1 stays that right up to the edge.
use crate::error::Result;
use crate::imaging::{Image, Rect, Samples, resample};

/// Below this alpha the colours of a pixel are replaced, in part or wholly.
const FAINT: f32 = 1.0 / 16.0;

/// The image with the colours of its surroundings in transparent pixels; none where nothing is to be done.
pub fn bled(image: &Image) -> Option<Image> {
    let alpha = image.alpha.as_ref()?;
    let mut out = image.clone();
    let size = (image.width, image.height);
    let changed = match (&mut out.samples, &image.samples, alpha) {
        (Samples::U8(out), Samples::U8(own), Samples::U8(a)) => {
            bleed(out, own, a, size, 255.0, |v| round(v, 255.0))
        }
        (Samples::U16(out), Samples::U16(own), Samples::U16(a)) => {
            bleed(out, own, a, size, 65535.0, |v| round(v, 65535.0))
        }
        _ => false,
    };
    changed.then_some(out)
}

/// The image over a plane of `color` (sRGB, 8 bits), without transparency: colours are mixed as they are stored, which is
/// what browsers and viewers do. Gray takes the luma of the colour.
pub fn flattened(mut image: Image, color: [u8; 3]) -> Image {
    let Some(alpha) = image.alpha.take() else { return image };
    let [r, g, b] = color.map(f32::from);
    let gray = [0.299f32.mul_add(r, 0.587f32.mul_add(g, 0.114 * b))];
    let behind: &[f32] = if image.channels() == 1 { &gray } else { &[r, g, b] };
    match (&mut image.samples, &alpha) {
        (Samples::U8(own), Samples::U8(alpha)) => mix(own, alpha, behind, 255.0),
        (Samples::U16(own), Samples::U16(alpha)) => mix(own, alpha, behind, 65535.0),
        _ => {}
    }
    image
}

/// Mixes `samples` with the 8-bit colour `behind` by `alpha`.
fn mix<T: Copy + Into<f32> + TryFrom<u32> + Default>(
    samples: &mut [T],
    alpha: &[T],
    behind: &[f32],
    max: f32,
) {
    for (pixel, &alpha) in samples.chunks_exact_mut(behind.len()).zip(alpha) {
        let share = alpha.into() / max;
        for (sample, &behind) in pixel.iter_mut().zip(behind) {
            *sample = round(share * (*sample).into() + (1.0 - share) * behind * (max / 255.0), max);
        }
    }
}

fn round<T: TryFrom<u32> + Default>(v: f32, max: f32) -> T {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    T::try_from((v + 0.5).clamp(0.0, max) as u32).unwrap_or_default()
}

/// Bleeds in `samples`, which are like `own`; false if there is nothing to replace or nothing to replace it
/// with.
fn bleed<T: Copy + Into<f32>>(
    samples: &mut [T],
    own: &[T],
    alpha: &[T],
    size: (usize, usize),
    max: f32,
    back: impl Fn(f32) -> T,
) -> bool {
    let most = alpha.iter().map(|&a| a.into()).fold(0.0, f32::max);
    let least = (FAINT * max).min(most);
    let faint = |i: usize| alpha[i].into() < least;
    if most == 0.0 || !(0..alpha.len()).any(faint) {
        return false;
    }
    let channels = samples.len() / alpha.len();
    spread(samples, (0..alpha.len()).map(|i| !faint(i)).collect(), size, &back);
    for i in (0..alpha.len()).filter(|&i| faint(i) && alpha[i].into() > 0.0) {
        let share = alpha[i].into() / least;
        let pixel = i * channels..(i + 1) * channels;
        for (fill, own) in samples[pixel.clone()].iter_mut().zip(&own[pixel]) {
            *fill = back(share * (*own).into() + (1.0 - share) * (*fill).into());
        }
    }
    true
}

/// Fills what is not `known` ring by ring. A ring reads only rings before it, so its order is no matter.
fn spread<T: Copy + Into<f32>>(
    samples: &mut [T],
    mut known: Vec<bool>,
    size: (usize, usize),
    back: impl Fn(f32) -> T,
) {
    let channels = samples.len() / known.len();
    let mut queued = known.clone();
    let near_known = |i: &usize| !known[*i] && neighbours(*i, size).any(|(j, _)| known[j]);
    let mut ring: Vec<usize> = (0..known.len()).filter(near_known).collect();
    ring.iter().for_each(|&i| queued[i] = true);
    while !ring.is_empty() {
        for &i in &ring {
            let mut sums = [0.0; 4];
            for (j, weight) in neighbours(i, size).filter(|&(j, _)| known[j]) {
                sums[3] += weight;
                let pixel = &samples[j * channels..][..channels];
                sums.iter_mut().zip(pixel).for_each(|(sum, &s)| *sum += weight * s.into());
            }
            for (sample, sum) in samples[i * channels..][..channels].iter_mut().zip(sums) {
                *sample = back(sum / sums[3]);
            }
        }
        ring.iter().for_each(|&i| known[i] = true);
        let mut next = Vec::new();
        for (j, _) in ring.iter().flat_map(|&i| neighbours(i, size)) {
            if !std::mem::replace(&mut queued[j], true) {
                next.push(j);
            }
        }
        ring = next;
    }
}

/// The up to eight pixels around pixel `i` and what they weigh.
fn neighbours(i: usize, (width, height): (usize, usize)) -> impl Iterator<Item = (usize, f32)> {
    const AROUND: [(usize, usize, f32); 8] = [
        (0, 0, 1.0),
        (1, 0, 2.0),
        (2, 0, 1.0),
        (0, 1, 2.0),
        (2, 1, 2.0),
        (0, 2, 1.0),
        (1, 2, 2.0),
        (2, 2, 1.0),
    ];
    let (x, y) = (i % width, i / width);
    AROUND.into_iter().filter_map(move |(dx, dy, weight)| {
        let (x, y) = ((x + dx).checked_sub(1)?, (y + dy).checked_sub(1)?);
        (x < width && y < height).then_some((y * width + x, weight))
    })
}

/// The part `wanted` of the alpha of an image of `size` (width, height) enlarged `scale` times, the same
/// values whatever part is asked for.
///
/// # Errors
/// If `alpha` is not of `size` or `wanted` does not lie in its enlargement.
pub fn enlarge_part(
    alpha: &Samples,
    size: (usize, usize),
    scale: usize,
    wanted: Rect,
) -> Result<Samples> {
    let held = resample::bicubic_footprint(wanted, size, scale);
    let mut low = Vec::with_capacity(held.area());
    for y in held.y..held.bottom() {
        low.extend((held.x..held.right()).map(|x| alpha.unit(y * size.0 + x)));
    }
    let mut high = resample::bicubic_up(&low, held, size, 1, scale, wanted)?;
    let columns = between(wanted.x, wanted.width, held.x, size.0, scale);
    let rows = between(wanted.y, wanted.height, held.y, size.1, scale);
    for (row, high) in rows.iter().zip(high.chunks_exact_mut(wanted.width.max(1))) {
        for (column, value) in columns.iter().zip(high) {
            let around = row.map(|y| column.map(|x| low[y * held.width + x]));
            let around = around.as_flattened();
            let least = around.iter().copied().fold(f32::INFINITY, f32::min);
            let most = around.iter().copied().fold(0.0, f32::max);
            *value = value.clamp(least, most);
        }
    }
    Ok(match alpha {
        Samples::U8(_) => Samples::U8(high.iter().map(|v| round(v * 255.0, 255.0)).collect()),
        Samples::U16(_) => Samples::U16(high.iter().map(|v| round(v * 65535.0, 65535.0)).collect()),
    })
}

/// Alpha of `size` (width, height) as `to` pixels, none of whose sides is longer: each the mean of what it covers. What is
/// not enlarged comes out as it is, and nothing reaches beyond hard edges, as it would on the way through an enlargement.
pub(super) fn shrunk(alpha: &Samples, size: (usize, usize), to: (usize, usize)) -> Samples {
    let (columns, rows) = (covered(size.0, to.0), covered(size.1, to.1));
    let mean = |i: usize| {
        let (row, column) = (&rows[i / to.0], &columns[i % to.0]);
        let parts = row.iter().flat_map(|&(y, v)| column.iter().map(move |&(x, h)| (x, y, v * h)));
        parts.map(|(x, y, share)| alpha.unit(y * size.0 + x) * share).sum::<f32>()
    };
    let values = (0..to.0 * to.1).map(mean);
    match alpha {
        Samples::U8(_) => Samples::U8(values.map(|v| round(v * 255.0, 255.0)).collect()),
        Samples::U16(_) => Samples::U16(values.map(|v| round(v * 65535.0, 65535.0)).collect()),
    }
}

/// The samples of a side of `from` that each of `to` covers, with their shares.
fn covered(from: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let step = from as f64 / to as f64;
    let share = |start: f64, end: f64, sample: usize| {
        let inside = end.min(sample as f64 + 1.0) - start.max(sample as f64);
        #[expect(clippy::cast_possible_truncation, reason = "a share")]
        (sample, (inside / step) as f32)
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the side")]
    let covers = |i: usize| {
        let (start, end) = (i as f64 * step, (i + 1) as f64 * step);
        let last = (end.ceil() as usize).min(from);
        (start as usize..last).map(|s| share(start, end, s)).filter(|(_, v)| *v > 1e-6).collect()
    };
    (0..to).map(covers).collect()
}

/// The two samples of a side of `size` between which each of the outputs lies, counted from `held`.
fn between(start: usize, len: usize, held: usize, size: usize, scale: usize) -> Vec<[usize; 2]> {
    let pair = |o: usize| {
        let (low, phase) = (o / scale, o % scale);
        // Outputs in the first half of a sample lie between the one before it and itself.
        let first = if 2 * phase + 1 < scale { low.saturating_sub(1) } else { low };
        let second = if 2 * phase + 1 > scale { (low + 1).min(size - 1) } else { low };
        [first - held, second - held]
    };
    (start..start + len).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::{Color, Depth};

    fn sprite(hidden: [u8; 3], faint: u8) -> Image {
        let inside = |i: usize| (2..5).contains(&(i % 9)) && (2..6).contains(&(i / 9));
        let pixel = |i| if inside(i) { [200, 40, 30] } else { hidden };
        let samples = (0..81).flat_map(pixel).collect();
        let mut image = Image::from_u8(9, 9, Color::Rgb, samples).unwrap();
        let alpha = (0..81).map(|i| if inside(i) { 255 } else { faint }).collect();
        image.alpha = Some(Samples::U8(alpha));
        image
    }

    #[test]
    fn alpha_that_is_not_enlarged_is_what_it_covers() {
        let alpha = Samples::U8(vec![0, 255, 255, 10, 0, 255, 255, 30]);
        assert_eq!(shrunk(&alpha, (4, 2), (4, 2)), alpha);
        assert_eq!(shrunk(&alpha, (4, 2), (2, 1)), Samples::U8(vec![128, 138]));
        // A third of 4/3 samples: the middle one covers 2/3 of two.
        assert_eq!(shrunk(&alpha, (4, 2), (3, 2)).len(), 6);
        let Samples::U8(thirds) = shrunk(&alpha, (4, 1), (3, 1)) else { panic!() };
        assert_eq!(thirds, [64, 255, 71]);
        let deep = Samples::U16(vec![0, 65_535]);
        assert_eq!(shrunk(&deep, (2, 1), (1, 1)), Samples::U16(vec![32_768]));
    }

    #[test]
    fn hidden_colours_are_gone_and_seen_ones_stay() {
        for hidden in [[0, 0, 0], [255, 255, 255], [0, 255, 0]] {
            let out = bled(&sprite(hidden, 0)).unwrap();
            assert_eq!(out.samples, Samples::U8([200, 40, 30].repeat(81)), "{hidden:?}");
            // Nearly transparent pixels keep a share of their colours.
            let Samples::U8(faint) = bled(&sprite(hidden, 1)).unwrap().samples else { panic!() };
            assert!(faint[0].abs_diff(200) <= 14, "{hidden:?}: {}", faint[0]);
        }
        assert!(bled(&sprite([9, 9, 9], 200)).is_none(), "half transparent is seen");
        let mut nothing = sprite([9, 9, 9], 0);
        nothing.alpha = Some(Samples::U8(vec![0; 81]));
        assert!(bled(&nothing).is_none(), "nothing is seen");
    }

    #[test]
    fn what_is_transparent_shows_the_plane_behind() {
        let mut image = Image::from_u8(3, 1, Color::Rgb, [200, 100, 0].repeat(3)).unwrap();
        image.alpha = Some(Samples::U8(vec![0, 255, 51]));
        let Samples::U8(out) = flattened(image, [255, 0, 50]).samples else { panic!() };
        assert_eq!(out, [255, 0, 50, 200, 100, 0, 244, 20, 40]);
        let mut gray =
            Image::from_u8(2, 1, Color::Gray, vec![7, 7]).unwrap().to_depth(Depth::Sixteen);
        gray.alpha = Some(Samples::U16(vec![0, 65_535]));
        let Samples::U16(out) = flattened(gray, [255; 3]).samples else { panic!() };
        assert_eq!(out, [65_535, 7 * 257]);
    }

    #[test]
    fn the_nearest_colour_is_taken() {
        let mut image = Image::from_u8(6, 1, Color::Gray, vec![10, 99, 99, 99, 99, 250]).unwrap();
        image.alpha = Some(Samples::U8(vec![255, 0, 0, 0, 0, 255]));
        let out = bled(&image).unwrap();
        assert_eq!(out.samples, Samples::U8(vec![10, 10, 10, 250, 250, 250]));
    }

    #[test]
    fn alpha_stays_between_its_neighbours_in_any_part() {
        let size = (7, 5);
        let alpha: Vec<u8> = (0..35u8).map(|i| if i % 7 < 3 { 0 } else { 255 - i }).collect();
        let alpha = Samples::U8(alpha);
        for scale in [2, 3, 4] {
            let all = Rect::whole(7, 5).scaled(scale);
            let whole = enlarge_part(&alpha, size, scale, all).unwrap();
            let Samples::U8(whole) = whole else { panic!() };
            let width = 7 * scale;
            for (i, &v) in whole.iter().enumerate() {
                let x = i % width;
                assert!(2 * x + 1 > 5 * scale || v == 0, "{scale}: {v} at {x}");
                assert!(2 * x + 1 < 7 * scale || v >= 220, "{scale}: {v} at {x}");
            }
            let part = Rect::new(3, 2, 9, 6);
            let Samples::U8(got) = enlarge_part(&alpha, size, scale, part).unwrap() else {
                panic!()
            };
            for (y, row) in got.chunks_exact(9).enumerate() {
                assert_eq!(row, &whole[(2 + y) * width + 3..][..9], "{scale}");
            }
        }
    }
}
