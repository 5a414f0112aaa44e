//! What enlarged pictures show that no scene does: the grid of JPEG's blocks, the weave of a pixel shuffle, and
//! noise in flat parts. All of Y (BT.601, 16..235) of the whole picture; gray pictures as they are.
//!
//! ```text
//! grid        mean |Y[x] - Y[x-1]| where x is a multiple of 8 * scale, over the mean at the other multiples of
//!             scale, rows alike; 1: no grid
//! weave       power at periods 2 and 4 over that of the frequencies around, and this over the truth's;
//!             1: no more weave than the truth has
//! flat noise  RMS of Y less its 9x9 mean over the flattest tenth of the truth, over that of bicubic; 1: as much
//! ```
//!
//! Power is that of 32x32 blocks under a Hann window; the frequencies around are three bins off, beyond what the
//! window lets through. Quantisation noise is added to both, so that pictures without any detail have weave 1.
use super::Image;
use super::metrics::luma;
use crate::error::Result;

/// The step across the grid of 8x8 blocks of a picture that was enlarged `scale` times; none if no line of the
/// grid lies in it, or nothing changes off the grid.
///
/// Only steps between neighbours that come of two pixels of the small picture count: a smooth enlargement is
/// steepest there, on the grid and off it.
pub fn grid(image: &Image, scale: usize) -> Result<Option<f64>> {
    let (y, width, height) = luma(image)?;
    let scale = scale.max(1);
    // Sum and count on the grid and off it.
    let mut sums = [[0.0f64; 2]; 2];
    let mut add = |at: usize, step: f64| {
        if at.is_multiple_of(scale) {
            let place = &mut sums[usize::from(!at.is_multiple_of(8 * scale))];
            place[0] += step.abs();
            place[1] += 1.0;
        }
    };
    for row in 0..height {
        for x in 0..width {
            let here = y[row * width + x];
            if x > 0 {
                add(x, here - y[row * width + x - 1]);
            }
            if row > 0 {
                add(row, here - y[(row - 1) * width + x]);
            }
        }
    }
    let [on, off] = sums.map(|[sum, count]| if count > 0.0 { sum / count } else { 0.0 });
    Ok((sums[0][1] > 0.0 && off > 0.0).then_some(on / off))
}

/// How strongly a picture repeats with periods 2 and 4.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weave {
    /// Mean power of the frequencies of period 2 along both axes or one.
    pub period2: f64,
    /// The same of the others of period 4.
    pub period4: f64,
    /// The power of all of these over that of the frequencies around.
    pub prominence: f64,
}

const BLOCK: usize = 32;

/// See [`Weave`]; none if the picture holds no block of 32x32.
pub fn weave(image: &Image) -> Result<Option<Weave>> {
    let (y, width, height) = luma(image)?;
    let mut power = vec![0.0f64; BLOCK * BLOCK];
    let mut blocks = 0usize;
    for top in (0..height.saturating_sub(BLOCK - 1)).step_by(BLOCK) {
        for left in (0..width.saturating_sub(BLOCK - 1)).step_by(BLOCK) {
            add_power(&y[top * width + left..], width, &mut power);
            blocks += 1;
        }
    }
    if blocks == 0 {
        return Ok(None);
    }
    // Of rounding to whole levels, under the window.
    let squares: f64 = (0..BLOCK).map(|i| hann(i).powi(2)).sum();
    let floor = squares * squares / 12.0;
    let at = |u: usize, v: usize| power[u % BLOCK * BLOCK + v % BLOCK] / blocks as f64 + floor;
    let (mut by_period, mut around) = ([0.0; 2], 0.0);
    let quarters = (0..4).flat_map(|a| (0..4).map(move |b| (a, b))).skip(1);
    for (a, b) in quarters {
        let (u, v) = (a * BLOCK / 4, b * BLOCK / 4);
        by_period[usize::from(a % 2 + b % 2 > 0)] += at(u, v);
        for (du, dv) in (0..9).map(|k| (k / 3 * 3, k % 3 * 3)).filter(|&d| d != (3, 3)) {
            around += at(u + BLOCK - 3 + du, v + BLOCK - 3 + dv) / 8.0;
        }
    }
    let prominence = (by_period[0] + by_period[1]) / around;
    let per_pixel = 1.0 / (squares * squares);
    let [period2, period4] = [by_period[0] / 3.0, by_period[1] / 12.0].map(|p| p * per_pixel);
    Ok(Some(Weave { period2, period4, prominence }))
}

fn hann(i: usize) -> f64 {
    0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / BLOCK as f64).cos()
}

/// Adds the power spectrum of a block under a window, its mean taken off, rows `stride` apart.
fn add_power(y: &[f64], stride: usize, power: &mut [f64]) {
    let pixels = || (0..BLOCK).flat_map(|i| y[i * stride..][..BLOCK].iter());
    let mean = pixels().sum::<f64>() / (BLOCK * BLOCK) as f64;
    let turn: Vec<(f64, f64)> =
        (0..BLOCK).map(|k| (std::f64::consts::TAU * k as f64 / BLOCK as f64).sin_cos()).collect();
    // Along the rows, then along the columns.
    let mut rows = vec![(0.0, 0.0); BLOCK * BLOCK];
    for i in 0..BLOCK {
        for v in 0..BLOCK {
            let sum = &mut rows[i * BLOCK + v];
            for (j, &pixel) in y[i * stride..][..BLOCK].iter().enumerate() {
                let (value, (sin, cos)) = ((pixel - mean) * hann(j) * hann(i), turn[j * v % BLOCK]);
                sum.0 += value * cos;
                sum.1 -= value * sin;
            }
        }
    }
    for u in 0..BLOCK {
        for v in 0..BLOCK {
            let (mut re, mut im) = (0.0, 0.0);
            for i in 0..BLOCK {
                let ((a, b), (sin, cos)) = (rows[i * BLOCK + v], turn[i * u % BLOCK]);
                re += a * cos + b * sin;
                im += b * cos - a * sin;
            }
            power[u * BLOCK + v] += re * re + im * im;
        }
    }
}

/// The noise of `image` in the parts where `truth` is flat, over that of `bicubic`; none if bicubic has none
/// there, or the picture is smaller than the 9x9 window.
pub fn flat_noise(image: &Image, truth: &Image, bicubic: &Image) -> Result<Option<f64>> {
    let (truth, width, height) = luma(truth)?;
    let Some((_, spread)) = about_mean(&truth, width, height) else { return Ok(None) };
    let mut order: Vec<usize> = (0..spread.len()).collect();
    order.sort_by(|&i, &j| spread[i].total_cmp(&spread[j]).then(i.cmp(&j)));
    order.truncate(spread.len().div_ceil(10));
    let noise = |image: &Image| -> Result<f64> {
        let (y, width, height) = luma(image)?;
        let rest = about_mean(&y, width, height).map(|(rest, _)| rest).unwrap_or_default();
        let squares: f64 = order.iter().filter_map(|&i| rest.get(i)).map(|v| v * v).sum();
        Ok((squares / order.len() as f64).sqrt())
    };
    let (of_image, of_bicubic) = (noise(image)?, noise(bicubic)?);
    // A bicubic enlargement of few pixels is level but for rounding of the sums.
    Ok((of_bicubic > 1e-6).then_some(of_image / of_bicubic))
}

const WINDOW: usize = 9;

/// What each pixel is off the mean of the 9x9 window around it, and the variance of that window, for windows
/// wholly inside; none if there is none.
fn about_mean(y: &[f64], width: usize, height: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    if width < WINDOW || height < WINDOW {
        return None;
    }
    let (across, down) = (width - WINDOW + 1, height - WINDOW + 1);
    // Sums of values and squares over rows of nine, then over columns of those.
    let sums = |of: &dyn Fn(f64) -> f64| {
        let rows: Vec<f64> = (0..height * across)
            .map(|i| y[i / across * width + i % across..][..WINDOW].iter().map(|&v| of(v)).sum())
            .collect();
        (0..down * across)
            .map(|i| (0..WINDOW).map(|k| rows[i + k * across]).sum::<f64>())
            .collect::<Vec<f64>>()
    };
    let n = (WINDOW * WINDOW) as f64;
    let (values, squares) = (sums(&|v| v), sums(&|v| v * v));
    let middle = |i: usize| y[(i / across + WINDOW / 2) * width + i % across + WINDOW / 2];
    let rest = values.iter().enumerate().map(|(i, sum)| middle(i) - sum / n).collect();
    let spread = values.iter().zip(&squares).map(|(s, q)| (q / n - (s / n).powi(2)).max(0.0));
    Some((rest, spread.collect()))
}
