//! Smooth areas, which are enlarged by bicubic interpolation alone: later calls of a diffusion model would draw the grain
//! there that photographs have, and a page, a logo or a drawn sky has not.
//!
//! A pixel is calm where every channel goes on as it came, from left to right and from top to bottom, within one level of
//! 255. An area is a square of [`SIDE`] calm pixels, more than there are in a block of JPEG; what the kernel sees beyond it
//! lies within [`REACH`] pixels of its border. A picture goes on beyond its edges with their pixels.
use std::ops::Range;

use super::Plan;
use super::enlarge::crop;
use super::runner::enlarged;
use crate::diffusion::system::System;
use crate::engine::threads::pieces;
use crate::error::Result;
use crate::imaging::{Image, Rect, Samples};

/// Pixels on a side of the least area.
const SIDE: usize = 7;
/// Pixels at the border of an area of which the kernel sees more than calm ones and their neighbours.
const REACH: usize = 1;

/// Writes what bicubic interpolation makes of smooth areas of `image` over `strip`, which is the part `of` of its
/// enlargement.
///
/// # Errors
/// If the lengths in the image do not fit together.
pub(super) fn keep(
    image: &Image,
    (plan, system): (&Plan, &System),
    of: Rect,
    strip: &mut Image,
) -> Result<()> {
    let scale = system.scale();
    let rows = of.y / scale..of.bottom().div_ceil(scale).min(image.height);
    for part in areas(image, rows) {
        let high = part.scaled(scale);
        let (x, y) = (high.x.max(of.x), high.y.max(of.y));
        let (width, height) = (high.right().min(of.right()), high.bottom().min(of.bottom()));
        let wanted = Rect::new(x, y, width.saturating_sub(x), height.saturating_sub(y));
        if wanted.area() > 0 {
            let mut pixels = crop(&enlarged(image, plan, system, part)?.0, high, wanted);
            pixels.iter_mut().for_each(|v| *v = (*v + 1.0) / 2.0);
            strip.store(Rect { x: x - of.x, y: y - of.y, ..wanted }, &pixels)?;
        }
    }
    Ok(())
}

/// The parts of `rows`, one row high, that lie in smooth areas.
fn areas(image: &Image, rows: Range<usize>) -> Vec<Rect> {
    let channels = image.channels();
    let (width, height) = (image.width, image.height);
    let mut parts = Vec::new();
    let mut add = |row: usize, smooth: &[bool]| {
        let mut column = 0;
        for run in smooth.chunk_by(|a, b| a == b) {
            if run[0] {
                parts.push(Rect::new(column, row, run.len(), 1));
            }
            column += run.len();
        }
    };
    match &image.samples {
        Samples::U8(pixels) => {
            Areas { pixels, channels, width, height, level: 1 }.rows(rows, &mut add);
        }
        Samples::U16(pixels) => {
            Areas { pixels, channels, width, height, level: 257 }.rows(rows, &mut add);
        }
    }
    parts
}

/// A picture whose areas are looked for.
struct Areas<'a, T> {
    pixels: &'a [T],
    channels: usize,
    width: usize,
    height: usize,
    /// One level of 255.
    level: i32,
}

impl<T: Copy + Into<i32> + Sync> Areas<'_, T> {
    /// Whether the pixels of a row are calm.
    fn calm(&self, row: usize, calm: &mut [bool]) {
        let (channels, len) = (self.channels, self.width * self.channels);
        let line = |row: usize| &self.pixels[row * len..][..len];
        let own = line(row);
        let bends = |a: T, b: T, c: T| {
            let [a, b, c] = [a.into(), b.into(), c.into()];
            (a - 2 * b + c).abs() > self.level
        };
        let mut bent = vec![false; len];
        // At an edge nothing says that it does not go on.
        if (1..self.height.saturating_sub(1)).contains(&row) {
            let around = line(row - 1).iter().zip(line(row + 1));
            for ((bent, &b), (&a, &c)) in bent.iter_mut().zip(own).zip(around) {
                *bent = bends(a, b, c);
            }
        }
        if self.width > 2 {
            let (before, behind) = (&own[..len - 2 * channels], &own[2 * channels..]);
            let inside = bent[channels..len - channels].iter_mut().zip(&own[channels..]);
            for ((bent, &b), (&a, &c)) in inside.zip(before.iter().zip(behind)) {
                *bent |= bends(a, b, c);
            }
        }
        for (calm, bent) in calm.iter_mut().zip(bent.chunks_exact(channels)) {
            *calm = !bent.iter().fold(false, |any, &bent| any | bent);
        }
    }

    /// Tells `each` of every row of `wanted` which of its pixels lie in an area and see nothing else.
    fn rows(&self, wanted: Range<usize>, each: &mut dyn FnMut(usize, &[bool])) {
        // A square is known by its last row and column, which may lie beyond the edges.
        let behind = SIDE - 1 - REACH;
        let columns = self.width + behind;
        // How many rows on end, of the last ones, have SIDE calm pixels up to this column.
        let mut tall = vec![0usize; columns];
        // The last row of a square that covers the pixel.
        let mut covered = vec![None; self.width];
        let first = (wanted.start + REACH + 1).saturating_sub(SIDE);
        let seen = first..(wanted.end + behind).min(self.height);
        let mut calm = vec![false; seen.len() * self.width];
        pieces(&mut calm, self.width, |i, calm| self.calm(first + i, calm));
        for row in first..wanted.end + behind {
            let own = &calm[(row.min(self.height - 1) - first) * self.width..][..self.width];
            let mut run = SIDE;
            // The first column behind the last square's.
            let mut until = 0;
            for (column, tall) in tall.iter_mut().enumerate() {
                run = if own[column.min(self.width - 1)] { (run + 1).min(SIDE) } else { 0 };
                *tall = match run {
                    // Above the first row is the same.
                    SIDE if row == 0 => SIDE,
                    SIDE => (*tall + 1).min(SIDE),
                    _ => 0,
                };
                if *tall < SIDE {
                    continue;
                }
                let start = column.saturating_sub(behind).max(until);
                let end = (column + 1).saturating_sub(REACH).min(self.width);
                for covered in &mut covered[start.min(end)..end] {
                    *covered = Some(row);
                }
                until = end.max(until);
            }
            // Later squares cover no pixel of this one.
            if let Some(complete) = row.checked_sub(behind).filter(|row| wanted.contains(row)) {
                let lies = |last: &Option<usize>| last.is_some_and(|last| last >= complete + REACH);
                let smooth: Vec<bool> = covered.iter().map(lies).collect();
                each(complete, &smooth);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition.
    fn smooth(pixels: &[u8], [width, height]: [usize; 2], row: usize, column: usize) -> bool {
        let at = |y: isize, x: isize| {
            let y = y.clamp(0, height as isize - 1) as usize;
            i32::from(pixels[y * width + x.clamp(0, width as isize - 1) as usize])
        };
        let calm = |y: isize, x: isize| {
            // Beyond the edges pixels are those of the edge, and as calm.
            let (y, x) = (y.clamp(0, height as isize - 1), x.clamp(0, width as isize - 1));
            let across = x == 0 || x == width as isize - 1;
            let down = y == 0 || y == height as isize - 1;
            (across || (at(y, x - 1) - 2 * at(y, x) + at(y, x + 1)).abs() <= 1)
                && (down || (at(y - 1, x) - 2 * at(y, x) + at(y + 1, x)).abs() <= 1)
        };
        let side = SIDE as isize;
        let reach = REACH as isize;
        let square = |top: isize, left: isize| {
            (top..top + side).all(|y| (left..left + side).all(|x| calm(y, x)))
        };
        let (row, column) = (row as isize, column as isize);
        (reach..side - reach)
            .any(|up| (reach..side - reach).any(|left| square(row - up, column - left)))
    }

    /// Pictures of few colours, most of one.
    fn picture([width, height]: [usize; 2], seed: usize) -> Vec<u8> {
        let number = |i: usize| (i * 7919 + seed * 104_729) % 1009;
        let mut pixels = vec![7; width * height];
        for k in 0..1 + seed % 5 {
            let of = |at: usize, below: usize| number(8 * k + at) % below.max(1);
            let (left, top) = (of(0, width), of(1, height));
            let (right, bottom) = (left + of(2, 14) + 1, top + of(3, 14) + 1);
            for y in top..bottom.min(height) {
                pixels[y * width..][left..right.min(width)].fill([7, 90, 200][of(4, 3)]);
            }
        }
        pixels
    }

    fn found(pixels: &[u8], [width, height]: [usize; 2], wanted: Range<usize>) -> Vec<bool> {
        let mut all = Vec::new();
        Areas { pixels, channels: 1, width, height, level: 1 }.rows(wanted, &mut |_, smooth| {
            all.extend_from_slice(smooth);
        });
        all
    }

    #[test]
    fn areas_are_those_of_the_definition_whatever_rows_are_asked_for() {
        let mut counts = [0; 2];
        for seed in 0..60 {
            let size @ [width, height] = [1 + seed * 5 % 31, 1 + seed * 11 % 29];
            let pixels = picture(size, seed);
            let expected: Vec<bool> = (0..height)
                .flat_map(|y| (0..width).map(move |x| (y, x)))
                .map(|(y, x)| smooth(&pixels, size, y, x))
                .collect();
            expected.iter().for_each(|&smooth| counts[usize::from(smooth)] += 1);
            assert_eq!(found(&pixels, size, 0..height), expected, "picture {seed}");
            let cut = height / 3;
            let parts = [found(&pixels, size, 0..cut), found(&pixels, size, cut..height)];
            assert_eq!(parts.concat(), expected, "picture {seed} in two parts");
        }
        assert!(counts.iter().all(|&n| n > 1000), "{counts:?}");
    }

    #[test]
    fn blocks_of_jpeg_are_no_areas() {
        let size = [48, 48];
        let pixels: Vec<u8> = (0..48 * 48)
            .map(|i| u8::try_from(3 * (i / 48 / 8 * 6 + i % 48 / 8)).unwrap())
            .collect();
        // At the edges a block goes on beyond them.
        let inside = found(&pixels, size, 8..40);
        let inner = inside.chunks(48).flat_map(|row| &row[8..40]);
        assert!(inner.into_iter().all(|smooth| !smooth));
    }

    #[test]
    fn a_ramp_is_smooth_and_a_texture_of_one_level_is_not() {
        let size = [40, 20];
        let of = |level: &dyn Fn(usize, usize) -> usize| {
            let at = |i: usize| u8::try_from(level(i / 40, i % 40)).unwrap();
            found(&(0..40 * 20).map(at).collect::<Vec<u8>>(), size, 0..20)
        };
        assert!(of(&|y, x| 3 * x + y / 3 + 20).iter().all(|&smooth| smooth));
        assert!(of(&|y, x| 100 + (x + y) % 2).iter().all(|&smooth| !smooth));
    }
}
