//! Areas of one colour, which stay what they are: later calls of a diffusion model would draw the grain there that
//! photographs have.
//!
//! An area is a square of [`SIDE`] pixels all alike, larger than a block of JPEG; what a bicubic kernel sees of its
//! surroundings is [`REACH`] pixels of its border. A picture goes on beyond its edges with their pixels.
use std::ops::Range;

use crate::imaging::{Image, Rect, Samples};

/// Pixels on a side of the least area.
const SIDE: usize = 9;
/// Pixels at the border of an area that see beyond it.
const REACH: usize = 2;

/// Writes the colours of areas of `image` over those of `strip`, which is the part `of` of its enlargement.
pub(super) fn keep(image: &Image, scale: usize, of: Rect, strip: &mut Image) {
    match (&image.samples, &mut strip.samples) {
        (Samples::U8(from), Samples::U8(to)) => keep_samples(image, from, scale, of, to),
        (Samples::U16(from), Samples::U16(to)) => keep_samples(image, from, scale, of, to),
        _ => {}
    }
}

fn keep_samples<T: Copy + PartialEq>(
    image: &Image,
    from: &[T],
    scale: usize,
    of: Rect,
    to: &mut [T],
) {
    let (channels, width) = (image.channels(), image.width);
    let rows = of.y / scale..of.bottom().div_ceil(scale).min(image.height);
    Areas { pixels: from, channels, width, height: image.height }.rows(rows, &mut |row, flat| {
        let lines = (row * scale).max(of.y)..((row + 1) * scale).min(of.bottom());
        for (column, _) in flat.iter().enumerate().filter(|(_, flat)| **flat) {
            let pixel = &from[(row * width + column) * channels..][..channels];
            let places = (column * scale).max(of.x)..((column + 1) * scale).min(of.right());
            for line in lines.clone() {
                for place in places.clone() {
                    let at = ((line - of.y) * of.width + place - of.x) * channels;
                    to[at..at + channels].copy_from_slice(pixel);
                }
            }
        }
    });
}

/// A picture whose areas are looked for.
struct Areas<'a, T> {
    pixels: &'a [T],
    channels: usize,
    width: usize,
    height: usize,
}

impl<T: PartialEq> Areas<'_, T> {
    fn pixel(&self, row: usize, column: usize) -> &[T] {
        &self.pixels[(row * self.width + column) * self.channels..][..self.channels]
    }

    /// Tells `each` of every row of `wanted` which of its pixels lie in an area and see nothing else.
    fn rows(&self, wanted: Range<usize>, each: &mut dyn FnMut(usize, &[bool])) {
        // A square is known by its last row and column, which may lie beyond the edges: they are shifted by SIDE.
        let behind = SIDE - 1 - REACH;
        let columns = self.width + SIDE;
        // How many rows on end, of the last ones, have SIDE pixels alike up to this column, and are alike.
        let mut tall = vec![0usize; columns];
        // The last row of a square that covers the pixel.
        let mut covered = vec![None; self.width];
        let first = (wanted.start + REACH + 1).saturating_sub(SIDE);
        for row in first..wanted.end + behind {
            let own = row.min(self.height - 1);
            let alike = |column: usize| {
                row == 0
                    || row >= self.height
                    || self.pixel(own, column) == self.pixel(own - 1, column)
            };
            let mut run = SIDE;
            // The first column behind the last square's.
            let mut until = 0;
            for (column, tall) in tall.iter_mut().enumerate() {
                let own_column = column.min(self.width - 1);
                let goes_on = column == 0
                    || column >= self.width
                    || self.pixel(own, column) == self.pixel(own, column - 1);
                run = if goes_on { (run + 1).min(SIDE) } else { 1 };
                *tall = match run < SIDE {
                    true => 0,
                    // Above the first row is the same.
                    false if row == 0 => SIDE,
                    false if alike(own_column) => (*tall + 1).min(SIDE),
                    false => 1,
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
                let flat: Vec<bool> = covered.iter().map(lies).collect();
                each(complete, &flat);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the definition.
    fn flat(pixels: &[u8], [width, height]: [usize; 2], row: usize, column: usize) -> bool {
        let side = SIDE as isize;
        let reach = REACH as isize;
        let (row, column) = (row as isize, column as isize);
        let at = |y: isize, x: isize| {
            let y = y.clamp(0, height as isize - 1) as usize;
            pixels[y * width + x.clamp(0, width as isize - 1) as usize]
        };
        let square = |top: isize, left: isize| {
            (top..top + side).all(|y| (left..left + side).all(|x| at(y, x) == at(row, column)))
        };
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
        Areas { pixels, channels: 1, width, height }.rows(wanted, &mut |_, flat| {
            all.extend_from_slice(flat);
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
                .map(|(y, x)| flat(&pixels, size, y, x))
                .collect();
            expected.iter().for_each(|&flat| counts[usize::from(flat)] += 1);
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
        let pixels: Vec<u8> =
            (0..48 * 48).map(|i| u8::try_from(i / 48 / 8 * 6 + i % 48 / 8).unwrap()).collect();
        // At the edges a block goes on beyond them.
        let inside = found(&pixels, size, 8..40);
        let inner = inside.chunks(48).flat_map(|row| &row[8..40]);
        assert!(inner.into_iter().all(|flat| !flat));
    }

    #[test]
    fn colours_are_written_where_areas_are_and_nowhere_else() {
        let mut samples = vec![200u16; 3 * 20 * 12];
        samples[3 * (5 * 20 + 15)] = 0;
        let image = Image::from_u16(20, 12, crate::imaging::Color::Rgb, samples).unwrap();
        let of = Rect::new(3, 7, 55, 20);
        let mut strip = Image::from_u16(55, 20, image.color, vec![9; 3 * 55 * 20]).unwrap();
        keep(&image, 3, of, &mut strip);
        let written = strip.samples.as_u16().unwrap();
        for (i, pixel) in written.chunks_exact(3).enumerate() {
            let (row, column) = ((7 + i / 55) / 3, (3 + i % 55) / 3);
            let flat = row.abs_diff(5) > REACH || column.abs_diff(15) > REACH;
            assert_eq!(pixel, if flat { [200; 3] } else { [9; 3] }, "{row}, {column}");
        }
    }
}
