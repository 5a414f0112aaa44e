//! The blocks of JPEG, seen in pixels alone.
//!
//! ```text
//! s(x)    |1.5 (y[x-1] - y[x]) - 0.5 (y[x-2] - y[x+1])| of luma: what is left of a step where a slope would go on
//! stands  s(x) > s(x-1), s(x+1), 0.5 and the mean of s(x-3), s(x-2), s(x+2), s(x+3); where those at 2 are 0, s(x) <= 8
//! lead    the share of places of a phase (x mod 8) that stand, less that of the other phases
//! ratio   the mean of s at a phase over that at the others
//! ```
//!
//! Shares, not sizes: a few hard edges that happen to lie on a grid of 8 pixels weigh no more than their number. JPEG
//! makes many small steps along both axes; a drawing, art of large pixels and a picture on squared paper do not.
use super::{Image, Rect};
use crate::error::Result;

/// Side of a block.
const SIDE: usize = 8;

/// Pixels on one side that a place is judged by.
const REACH: usize = 5;

/// Smaller steps do not stand out, in levels of 0..=255.
const LEAST_STEP: f64 = 0.5;

/// Below this a step is rounding.
const FLAT: f64 = 1e-6;

/// A larger step between two flat parts is drawn: JPEG that coarse leaves few blocks flat.
const DRAWN_STEP: f64 = 8.0;

/// Where more is flat between the lines of a grid, it is art of large pixels. JPEG of quality 5 leaves 0.76.
const ALL_FLAT: f64 = 0.98;

/// The least lead (the geometric mean of both axes) that is JPEG's, with blocks from the corner and elsewhere. Of 72
/// photographs of 128 to 768 pixels a side (Kodak24 in three sizes) none has any; at quality 60 the least is 0.135.
const LEAST_LEAD: [f64; 2] = [0.07, 0.1];

/// The least lead over the nearest phases, the mean of both axes: lines and pixels of 2 and 4 have several such phases.
const LEAST_OVER_NEAR: f64 = 0.04;

/// Smaller pictures have too few blocks to look for where they begin.
const LEAST_ANYWHERE: usize = 12 * SIDE;

/// The ratio at some qualities, by 84 photographs (Kodak24 in four sizes). Finer ones do no harm.
const RATIOS: [(f64, f64); 5] = [(1.2, 86.0), (1.3, 79.0), (1.5, 63.0), (1.87, 41.0), (2.4, 25.0)];

/// The quality of JPEG that the blocks in a picture speak of, 25 to 86, wherever its corner was cut off; none where
/// none are seen, or the picture has fewer than three blocks a side.
///
/// # Errors
/// If the lengths in the image do not fit together.
pub fn quality(image: &Image) -> Result<Option<f32>> {
    if image.width.min(image.height) < 3 * SIDE {
        return Ok(None);
    }
    let axes = axes(image)?;
    let of_corner = seen(&axes, [0, 0], LEAST_LEAD[0]);
    if of_corner.is_some() || image.width.min(image.height) < LEAST_ANYWHERE {
        return Ok(of_corner);
    }
    let best = axes.each_ref().map(|axis| {
        let phases = 0..SIDE;
        phases.max_by(|&p, &q| axis.lead(p).total_cmp(&axis.lead(q))).unwrap_or_default()
    });
    Ok(seen(&axes, best, LEAST_LEAD[1]))
}

/// The quality that blocks which begin at `phases` speak of.
fn seen(axes: &[Axis; 2], phases: [usize; 2], least: f64) -> Option<f32> {
    let of = |f: &dyn Fn(&Axis, usize) -> f64| [f(&axes[0], phases[0]), f(&axes[1], phases[1])];
    let mean = |f: &dyn Fn(&Axis, usize) -> f64| of(f).iter().sum::<f64>() / 2.0;
    let lead = of(&Axis::lead).map(|lead| lead.max(0.0));
    let ratio = mean(&Axis::ratio);
    let jpeg = (lead[0] * lead[1]).sqrt() >= least
        && mean(&Axis::lead_over_near) >= LEAST_OVER_NEAR
        && mean(&Axis::flat_inside) < ALL_FLAT
        && ratio >= RATIOS[0].0;
    #[allow(clippy::cast_possible_truncation)] // An estimate.
    jpeg.then(|| quality_of_ratio(ratio) as f32)
}

fn quality_of_ratio(ratio: f64) -> f64 {
    let between = RATIOS.windows(2).find(|pair| ratio < pair[1].0);
    between.map_or(RATIOS[RATIOS.len() - 1].1, |pair| {
        let share = (ratio - pair[0].0) / (pair[1].0 - pair[0].0);
        pair[0].1 + share * (pair[1].1 - pair[0].1)
    })
}

/// What is seen across columns and across rows.
fn axes(image: &Image) -> Result<[Axis; 2]> {
    let (width, height) = (image.width, image.height);
    let mut axes = [Axis::default(), Axis::default()];
    let mut steps = Vec::new();
    for top in (0..height).step_by(SIDE) {
        let first = top.saturating_sub(REACH);
        let rows = (top + SIDE + REACH - 1).min(height) - first;
        let luma = luma(image, Rect::new(0, first, width, rows))?;
        for y in top - first..(top - first + SIDE).min(rows) {
            axes[0].add(&luma[y * width..][..width], 0, &mut steps);
        }
        let mut column = vec![0.0; rows];
        for x in 0..width {
            for (y, v) in column.iter_mut().enumerate() {
                *v = luma[y * width + x];
            }
            axes[1].add(&column, first, &mut steps);
        }
    }
    Ok(axes)
}

/// Luma of a part of `image`, in levels of 0..=255.
fn luma(image: &Image, part: Rect) -> Result<Vec<f64>> {
    let levels = |p: &[f32]| {
        255.0 * (0.299 * f64::from(p[0]) + 0.587 * f64::from(p[1]) + 0.114 * f64::from(p[2]))
    };
    Ok(image.rgb_f32(part)?.chunks_exact(3).map(levels).collect())
}

/// Steps along one axis, by the phase of their place.
#[derive(Default)]
struct Axis {
    places: [u64; SIDE],
    sums: [f64; SIDE],
    standing: [u64; SIDE],
    flat: [u64; SIDE],
}

impl Axis {
    /// Takes in a line of pixels of which the first is at `first`; those at its ends only serve to judge the others.
    fn add(&mut self, line: &[f64], first: usize, steps: &mut Vec<f64>) {
        steps.clear();
        steps.extend(line.windows(4).map(|v| {
            let step = (1.5 * (v[1] - v[2]) - 0.5 * (v[0] - v[3])).abs();
            if step < FLAT { 0.0 } else { step }
        }));
        // The step in the middle of a window is that from the fifth pixel on to the next.
        for (i, s) in steps.windows(7).enumerate() {
            let phase = (first + i + REACH) % SIDE;
            let near = s[1] + s[5];
            let stands = s[3] > (0.25 * (s[0] + near + s[6])).max(LEAST_STEP)
                && s[3] > s[2].max(s[4]) + FLAT
                && !(near == 0.0 && s[3] > DRAWN_STEP);
            self.places[phase] += 1;
            self.sums[phase] += s[3];
            self.standing[phase] += u64::from(stands);
            self.flat[phase] += u64::from(s[3] == 0.0);
        }
    }

    fn share(&self, of: &[u64; SIDE], phase: usize) -> f64 {
        of[phase % SIDE] as f64 / self.places[phase % SIDE].max(1) as f64
    }

    fn others(phase: usize) -> impl Iterator<Item = usize> {
        (0..SIDE).filter(move |&p| p != phase)
    }

    fn lead(&self, phase: usize) -> f64 {
        let others = Self::others(phase).map(|p| self.share(&self.standing, p));
        self.share(&self.standing, phase) - others.sum::<f64>() / (SIDE - 1) as f64
    }

    /// The lead over the one of the nearest phases that has most. The fourth is the middle of a block, where JPEG, too,
    /// makes steps.
    fn lead_over_near(&self, phase: usize) -> f64 {
        let near = [1, 2, 3, 5, 6, 7].map(|k| self.share(&self.standing, phase + k));
        let most = near.into_iter().fold(0.0, f64::max);
        (self.share(&self.standing, phase) - most).min(self.lead(phase))
    }

    /// The share of places well within blocks where nothing changes.
    fn flat_inside(&self, phase: usize) -> f64 {
        (2..7).map(|k| self.share(&self.flat, phase + k)).sum::<f64>() / 5.0
    }

    fn ratio(&self, phase: usize) -> f64 {
        let sum = |of: &dyn Fn(usize) -> f64| Self::others(phase).map(of).sum::<f64>();
        let here = self.sums[phase] / self.places[phase].max(1) as f64;
        let others = sum(&|p| self.sums[p]) / sum(&|p| self.places[p] as f64).max(1.0);
        if others > 0.0 { here / others } else { 1.0 }
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Made-up pixels.
pub(super) mod tests {
    use super::*;
    use crate::engine::rng::{Purpose, Sequence, Stream};
    use crate::imaging::{Color, lossy};

    fn draws() -> Sequence {
        Stream::new(1, Purpose::Weights, 0).sequence()
    }

    /// A smooth gray picture, `[height, width, 3]`.
    pub(in crate::imaging) fn waves(width: usize, height: usize) -> Vec<u8> {
        let mut draws = draws();
        let waves: Vec<[f32; 3]> =
            (0..24).map(|_| [0.9, 0.9, 6.3].map(|k| k * draws.uniform() as f32)).collect();
        let value = |x: f32, y: f32| {
            let sum: f32 = waves.iter().map(|[a, b, c]| (a * x + b * y + c).sin()).sum();
            (128.0 + 10.0 * sum).clamp(0.0, 255.0) as u8
        };
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x as f32, y as f32)));
        places.flat_map(|(x, y)| [value(x, y); 3]).collect()
    }

    fn of(width: usize, height: usize, color: Color, pixels: Vec<u8>) -> Option<f32> {
        quality(&Image::from_u8(width, height, color, pixels).unwrap()).unwrap()
    }

    /// What is found in a gray picture of these values.
    fn of_values(width: usize, height: usize, value: impl Fn(usize, usize) -> u8) -> Option<f32> {
        let places = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        of(width, height, Color::Gray, places.map(|(x, y)| value(x, y)).collect())
    }

    /// What is found in waves after JPEG, without so many columns and rows at the beginning.
    fn compressed(quality: u8, left: usize, top: usize) -> Option<f32> {
        let (width, height) = (176, 144);
        let file = lossy::jpeg(&waves(width, height), width, height, quality, lossy::Chroma::Full)
            .unwrap();
        let pixels = lossy::pixels(&file).unwrap();
        let rows = pixels.chunks(3 * width).skip(top);
        let kept = rows.flat_map(|row| row[3 * left..].to_vec()).collect();
        of(width - left, height - top, Color::Rgb, kept)
    }

    #[test]
    fn blocks_are_seen_where_the_file_does_not_say() {
        assert_eq!(of(128, 96, Color::Rgb, waves(128, 96)), None);
        let (coarse, fine) = (compressed(20, 0, 0).unwrap(), compressed(50, 0, 0));
        assert!(coarse < 50.0, "{coarse}");
        assert!(fine.is_none_or(|fine| fine > coarse), "{fine:?} and {coarse}");
        assert_eq!(compressed(95, 0, 0), None);
    }

    #[test]
    fn blocks_are_seen_wherever_they_begin() {
        let whole = compressed(20, 0, 0).unwrap();
        for (left, top) in [(3, 5), (0, 1), (7, 0), (4, 4)] {
            let cut = compressed(20, left, top).unwrap_or(100.0);
            assert!((cut - whole).abs() < 8.0, "{cut} without {left} and {top}, {whole} with them");
            assert_eq!(compressed(95, left, top), None);
        }
    }

    /// A few hard edges on a grid of 8, and slopes whose steps within blocks are rounding.
    #[test]
    fn what_is_drawn_on_a_grid_is_no_jpeg() {
        let ramp = of_values(256, 100, |x, _| x as u8);
        assert_eq!(ramp, None, "a ramp");
        assert_eq!(of_values(256, 100, |x, _| (x / 8 + 10) as u8), None, "a dark ramp");
        assert_eq!(of_values(160, 100, |x, _| if x < 80 { 60 } else { 180 }), None, "two halves");
        let line = |v: usize| v.is_multiple_of(32);
        let lines = of_values(256, 256, |x, y| if line(x) || line(y) { 200 } else { 255 });
        assert_eq!(lines, None, "squared paper");
        let board = of_values(128, 128, |x, y| if (x / 8 + y / 8) % 2 == 0 { 0 } else { 255 });
        assert_eq!(board, None, "a board");
        // Panels of an interface, with rough glyphs in them.
        let panel = |x: usize, y: usize| match (x / 8, y / 8) {
            (_, 0..4) => 40,
            (0..12, _) => 233,
            (a, b) if a % 20 < 16 && b % 6 < 4 => {
                let glyph = a % 20 > 4 && b % 6 == 2 && (x * x + 3 * x * y + y) % 7 < 3;
                if glyph { 50 } else { 255 }
            }
            _ => 246,
        };
        assert_eq!(of_values(480, 320, panel), None, "an interface");
    }

    #[test]
    fn large_pixels_are_no_jpeg() {
        for side in [2, 4, 8, 16] {
            let mut draws = draws();
            let cells: Vec<u8> = (0..32 * 32).map(|_| 40 * (6.0 * draws.uniform()) as u8).collect();
            let art = of_values(24 * side, 24 * side, |x, y| cells[y / side * 32 + x / side]);
            assert_eq!(art, None, "pixels of {side}");
        }
        // The steps of a smooth picture are as small as those of JPEG.
        let small = waves(40, 30);
        let large = of_values(320, 240, |x, y| small[3 * (y / 8 * 40 + x / 8)]);
        assert_eq!(large, None);
    }
}
