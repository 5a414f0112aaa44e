//! JPEG's blocks taken out of a picture before it is enlarged, by compressing it again.
//!
//! A picture that was compressed is compressed again with its grid of 8x8 blocks at each of 64 places, and the mean of
//! what comes out is taken (Nosratinia 2001, "Enhancement of JPEG-compressed images by re-application of JPEG"): what
//! belongs to the picture survives wherever the grid lies, steps between blocks and ringing do not. Every pixel is
//! computed alike wherever it stands, so a part of a picture equals the whole, bit for bit.
use super::damage::{CLEAN_QUALITY, tables};
use super::{Color, Image, Rect};
use crate::engine::threads::{map_pieces, pieces};
use crate::error::Result;
use crate::ops::simd::multiversion;

/// Side of a block.
const SIDE: usize = 8;

/// Pixels that the blocks of a pixel reach beyond it.
const REACH: usize = SIDE - 1;

/// Columns that are computed at a time.
const LANES: usize = 16;

/// Rows of a task.
const BAND: usize = 32;

type Lanes = [f32; LANES];

/// The region `[H, W, 3]` of `image` in [0, 1], as [`Image::rgb_f32`] gives it, without the blocks of a JPEG of
/// `quality` (1..=100 on the scale of the Independent JPEG Group). `share` is how coarse the second compression is
/// beside the first: 1 takes most away, with some detail; 0, and a quality that leaves no blocks, take nothing.
///
/// # Errors
/// If the region does not lie in the image.
pub fn deblocked(image: &Image, region: Rect, quality: f32, share: f32) -> Result<Vec<f32>> {
    let mut pixels = image.rgb_f32(region)?;
    if share <= 0.0 || quality >= CLEAN_QUALITY || region.area() == 0 {
        return Ok(pixels);
    }
    let quanta = tables(quality).map(|table| Quanta::new(&table, share));
    let channels = if image.color == Color::Gray { 1 } else { 3 };
    let of_band = |band: usize, pixels: &mut [f32]| {
        let top = region.y + band * BAND;
        let rows = pixels.len() / (region.width * 3);
        let part = Rect::new(region.x, top, region.width, rows);
        let mut planes = surroundings(image, part)?;
        // A picture that rolls through has one band at a time.
        pieces(&mut planes[..channels], 1, |channel, plane| {
            let mut mean = vec![0.0; part.area()];
            mean_of_grids::<f32>(&plane[0], part, &quanta[channel.min(1)], &mut mean);
            plane[0] = mean;
        });
        for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            let chroma = |plane: &Vec<f32>| if channels == 3 { plane[i] } else { 0.0 };
            let [y, cb, cr] = [planes[0][i], chroma(&planes[1]), chroma(&planes[2])];
            // JFIF's colours, full range.
            let rgb = [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb];
            for (to, v) in pixel.iter_mut().zip(rgb) {
                *to = ((v + 128.0) / 255.0).clamp(0.0, 1.0);
            }
        }
        Ok(())
    };
    let bands = map_pieces(&mut pixels, BAND * region.width * 3, of_band);
    bands.into_iter().collect::<Result<()>>()?;
    Ok(pixels)
}

/// Luma and both chromas, in levels around zero, of `part` and [`REACH`] more pixels on each side; those at the border
/// of the image go on beyond it.
fn surroundings(image: &Image, part: Rect) -> Result<[Vec<f32>; 3]> {
    let (width, height) = (part.width + 2 * REACH, part.height + 2 * REACH);
    let (left, top) = (part.x.saturating_sub(REACH), part.y.saturating_sub(REACH));
    let (right, bottom) = (part.right() + REACH, part.bottom() + REACH);
    let held = Rect::new(left, top, right.min(image.width) - left, bottom.min(image.height) - top);
    let rgb = image.rgb_f32(held)?;
    let mut planes = [(); 3].map(|()| Vec::with_capacity(width * height));
    let inside =
        |at: usize, first: usize, len: usize| (at.max(first + REACH) - first - REACH).min(len - 1);
    for y in 0..height {
        let row = inside(part.y + y, top, held.height) * held.width;
        for x in 0..width {
            let at = 3 * (row + inside(part.x + x, left, held.width));
            let (r, g, b) = (255.0 * rgb[at], 255.0 * rgb[at + 1], 255.0 * rgb[at + 2]);
            let luma = 0.299 * r + 0.587 * g + 0.114 * b;
            planes[0].push(luma - 128.0);
            planes[1].push((b - luma) / 1.772);
            planes[2].push((r - luma) / 1.402);
        }
    }
    Ok(planes)
}

/// The steps of a table, and one over each, by rows of frequencies.
struct Quanta {
    step: [[f32; SIDE]; SIDE],
    inverse: [[f32; SIDE]; SIDE],
}

impl Quanta {
    fn new(table: &[f32; 64], share: f32) -> Self {
        let step = std::array::from_fn(|v| std::array::from_fn(|u| table[v * SIDE + u] * share));
        Self { step, inverse: step.map(|row: [f32; SIDE]| row.map(|q| 1.0 / q)) }
    }
}

multiversion! {
    /// `part` of a plane that holds its surroundings, as the mean of what all 64 grids leave of it. Nothing is
    /// fused: the same bits on every processor.
    fn mean_of_grids<T, FMA>(plane: &[f32], part: Rect, quanta: &Quanta, out: &mut [f32]) {
        let width = part.width + 2 * REACH;
        // Where blocks begin: on the first column up to the last one of the part; lanes beyond are not used.
        let begins = part.width + REACH;
        let whole = begins.next_multiple_of(LANES);
        let mut columns = vec![0.0; SIDE * (whole + SIDE)];
        let mut blocks = vec![0.0; SIDE * whole];
        let mut sums = vec![0.0; SIDE * part.width];
        for top in 0..part.height + REACH {
            let stride = whole + SIDE;
            for x in (0..width).step_by(LANES) {
                let lanes = LANES.min(width - x);
                let rows = std::array::from_fn(|row| {
                    let mut values = [0.0; LANES];
                    let at = (top + row) * width + x;
                    values[..lanes].copy_from_slice(&plane[at..at + lanes]);
                    values
                });
                for (f, values) in forward(&rows).iter().enumerate() {
                    columns[f * stride + x..][..lanes].copy_from_slice(&values[..lanes]);
                }
            }
            for f in 0..SIDE {
                quantise_rows(&columns[f * stride..(f + 1) * stride], quanta, f, &mut blocks, whole);
                let sums = &mut sums[f * part.width..(f + 1) * part.width];
                sums.fill(0.0);
                for k in 0..SIDE {
                    // Column x is the k-th of the block that begins k before it.
                    let from = &blocks[k * whole + REACH - k..];
                    for (sum, v) in sums.iter_mut().zip(from) {
                        *sum += v;
                    }
                }
            }
            add_rows(&sums, top, part, out);
        }
        for v in out.iter_mut() {
            *v /= 64.0;
        }
    }
}

/// For the blocks that begin at each column: their row of frequencies `f`, of which `columns` holds the vertical part,
/// quantised, and its values at each of the 8 columns of the block.
#[inline(always)]
fn quantise_rows(columns: &[f32], quanta: &Quanta, f: usize, blocks: &mut [f32], whole: usize) {
    let (step, inverse) = (&quanta.step[f], &quanta.inverse[f]);
    for x in (0..whole).step_by(LANES) {
        let values = std::array::from_fn(|k| {
            let mut lanes = [0.0; LANES];
            let from = &columns[x + k..columns.len().min(x + k + LANES)];
            lanes[..from.len()].copy_from_slice(from);
            lanes
        });
        let mut frequencies = forward(&values);
        for (u, values) in frequencies.iter_mut().enumerate() {
            for v in values {
                *v = rounded(*v * inverse[u]) * step[u];
            }
        }
        for (k, values) in backward(&frequencies).iter().enumerate() {
            blocks[k * whole + x..][..LANES].copy_from_slice(values);
        }
    }
}

/// Adds what the blocks that begin `top` rows into the surroundings leave of each row of the part.
#[inline(always)]
fn add_rows(sums: &[f32], top: usize, part: Rect, out: &mut [f32]) {
    for x in (0..part.width).step_by(LANES) {
        let lanes = LANES.min(part.width - x);
        let frequencies = std::array::from_fn(|f| {
            let mut values = [0.0; LANES];
            values[..lanes].copy_from_slice(&sums[f * part.width + x..][..lanes]);
            values
        });
        for (row, values) in backward(&frequencies).iter().enumerate() {
            let Some(y) = (top + row).checked_sub(REACH).filter(|&y| y < part.height) else {
                continue;
            };
            let to = &mut out[y * part.width + x..][..lanes];
            for (to, v) in to.iter_mut().zip(values) {
                *to += v;
            }
        }
    }
}

/// To the nearest whole number, ties to even, of what is far below 2^22.
#[inline(always)]
fn rounded(v: f32) -> f32 {
    const WHOLE: f32 = 12_582_912.0; // 1.5 * 2^23
    (v + WHOLE) - WHOLE
}

/// cos(k pi / 16) / 2, of which the orthonormal transform of 8 consists.
const COSINES: [f32; 8] = [
    0.353_553_4, // The first of them is 1 / sqrt(8).
    0.490_392_65,
    0.461_939_8,
    0.415_734_8,
    0.353_553_4,
    0.277_785_1,
    0.191_341_72,
    0.097_545_16,
];

/// The numbers by which the sums of opposite values make the even frequencies.
const EVEN: [[f32; 4]; 4] = {
    let c = COSINES;
    [
        [c[0], c[0], c[0], c[0]],
        [c[2], c[6], -c[6], -c[2]],
        [c[4], -c[4], -c[4], c[4]],
        [c[6], -c[2], c[2], -c[6]],
    ]
};

/// The numbers by which the differences of opposite values make the odd frequencies.
const ODD: [[f32; 4]; 4] = {
    let c = COSINES;
    [
        [c[1], c[3], c[5], c[7]],
        [c[3], -c[7], -c[1], -c[5]],
        [c[5], -c[1], c[7], c[3]],
        [c[7], -c[5], c[3], -c[1]],
    ]
};

/// The orthonormal DCT-II of 8 values, in each lane.
#[inline(always)]
fn forward(values: &[Lanes; SIDE]) -> [Lanes; SIDE] {
    let mut out = [[0.0; LANES]; SIDE];
    for l in 0..LANES {
        let pair = |i: usize| (values[i][l], values[REACH - i][l]);
        let sums: [f32; 4] = std::array::from_fn(|i| pair(i).0 + pair(i).1);
        let differences: [f32; 4] = std::array::from_fn(|i| pair(i).0 - pair(i).1);
        for k in 0..4 {
            out[2 * k][l] = dot(&EVEN[k], &sums);
            out[2 * k + 1][l] = dot(&ODD[k], &differences);
        }
    }
    out
}

/// The inverse of [`forward`].
#[inline(always)]
fn backward(frequencies: &[Lanes; SIDE]) -> [Lanes; SIDE] {
    let mut out = [[0.0; LANES]; SIDE];
    for l in 0..LANES {
        let even: [f32; 4] = std::array::from_fn(|k| frequencies[2 * k][l]);
        let odd: [f32; 4] = std::array::from_fn(|k| frequencies[2 * k + 1][l]);
        for i in 0..4 {
            let of = |matrix: &[[f32; 4]; 4]| std::array::from_fn(|k| matrix[k][i]);
            let (e, o) = (dot(&of(&EVEN), &even), dot(&of(&ODD), &odd));
            out[i][l] = e + o;
            out[REACH - i][l] = e - o;
        }
    }
    out
}

#[inline(always)]
fn dot(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    (a[0] * b[0] + a[1] * b[1]) + (a[2] * b[2] + a[3] * b[3])
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Made-up pixels.
mod tests {
    use super::*;
    use crate::imaging::lossy;

    const WIDTH: usize = 53;
    const HEIGHT: usize = 41;

    fn picture() -> Vec<u8> {
        let value = |x: f32, y: f32, c: f32| {
            128.0 + 60.0 * (x / 9.0 + c).sin() + 50.0 * (y / 7.0 + x / 31.0).cos()
        };
        let pixels = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x as f32, y as f32)));
        pixels.flat_map(|(x, y)| [0.0, 1.0, 2.0].map(|c| value(x, y, c) as u8)).collect()
    }

    fn compressed(quality: u8) -> Image {
        let file = lossy::jpeg(&picture(), WIDTH, HEIGHT, quality, lossy::Chroma::Full).unwrap();
        let pixels = lossy::pixels(&file).unwrap();
        Image::from_u8(WIDTH, HEIGHT, Color::Rgb, pixels).unwrap()
    }

    fn off(pixels: &[f32]) -> f64 {
        let truth = picture();
        let squares =
            pixels.iter().zip(&truth).map(|(p, t)| (f64::from(*p) - f64::from(*t) / 255.0).powi(2));
        (squares.sum::<f64>() / truth.len() as f64).sqrt()
    }

    #[test]
    fn blocks_go_and_the_picture_is_nearer_to_what_it_was() {
        let image = compressed(15);
        let smooth = deblocked(&image, image.rect(), 15.0, 1.0).unwrap();
        let (before, after) = (off(&image.rgb_f32(image.rect()).unwrap()), off(&smooth));
        assert!(after < 0.8 * before, "{before} became {after}");
        let smooth = Image::from_rgb_f32(WIDTH, HEIGHT, &smooth).unwrap();
        let blocks = |image| crate::imaging::artefacts::grid(image, 1).unwrap().unwrap();
        let (before, after) = (blocks(&image), blocks(&smooth));
        assert!(before > 1.3 && after < 1.1, "{before} became {after}");
    }

    #[test]
    fn a_part_is_the_same_as_in_the_whole() {
        let image = compressed(40);
        let whole = deblocked(&image, image.rect(), 40.0, 0.5).unwrap();
        for part in [Rect::new(0, 0, 20, 9), Rect::new(13, 6, 40, 35), Rect::new(31, 40, 1, 1)] {
            let found = deblocked(&image, part, 40.0, 0.5).unwrap();
            for y in 0..part.height {
                let at = 3 * ((part.y + y) * WIDTH + part.x);
                let row = &found[3 * y * part.width..][..3 * part.width];
                assert_eq!(row, &whole[at..at + 3 * part.width], "row {y} of {part:?}");
            }
        }
    }

    #[test]
    fn it_is_the_mean_of_all_blocks_with_a_pixel() {
        let gray: Vec<u8> = picture().chunks(3).map(|p| p[0]).collect();
        let image = Image::from_u8(WIDTH, HEIGHT, Color::Gray, gray.clone()).unwrap();
        let found = deblocked(&image, image.rect(), 30.0, 0.5).unwrap();
        let table = tables(30.0)[0];
        let basis = |f: usize, i: usize| {
            let norm = if f == 0 { 0.125f64.sqrt() } else { 0.5 };
            norm * (std::f64::consts::PI * (2 * i + 1) as f64 * f as f64 / 16.0).cos()
        };
        let value = |x: isize, y: isize| {
            let inside = |v: isize, len: usize| v.clamp(0, len as isize - 1) as usize;
            f64::from(gray[inside(y, HEIGHT) * WIDTH + inside(x, WIDTH)]) - 128.0
        };
        for (x, y) in [(0, 0), (20, 17), (52, 40)] {
            let mut mean = 0.0;
            for place in 0..64 {
                let (i, j) = (place % 8, place / 8);
                for f in 0..64 {
                    let (u, v) = (f % 8, f / 8);
                    let product = |k: usize| {
                        let (dx, dy) = ((k % 8) as isize, (k / 8) as isize);
                        value(x - i as isize + dx, y - j as isize + dy)
                            * basis(u, k % 8)
                            * basis(v, k / 8)
                    };
                    let step = 0.5 * f64::from(table[f]);
                    let frequency = ((0..64).map(product).sum::<f64>() / step).round() * step;
                    mean += frequency * basis(u, i) * basis(v, j) / 64.0;
                }
            }
            let at = 3 * (y as usize * WIDTH + x as usize);
            let off = 255.0 * f64::from(found[at]) - 128.0 - mean;
            assert!(off.abs() < 0.02, "({x}, {y}) is off by {off}");
        }
    }

    #[test]
    fn without_blocks_nothing_changes() {
        let image = compressed(90);
        let as_it_is = image.rgb_f32(image.rect()).unwrap();
        for (quality, share) in [(100.0, 1.0), (30.0, 0.0)] {
            assert_eq!(deblocked(&image, image.rect(), quality, share).unwrap(), as_it_is);
        }
    }
}
