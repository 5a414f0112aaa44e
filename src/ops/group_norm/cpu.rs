//! On the processor.
use super::GroupNorm;
use crate::engine::device::Real;
use crate::engine::tape::Call;
use crate::engine::tensor::Tensor;
use crate::engine::threads::{map, pieces};
use crate::error::Result;
use crate::ops::parallel::CHUNK;
use crate::ops::simd::{Lane, multiversion};

/// Rows that are summed in the element type before the sums move on to double precision.
const BLOCK: usize = 32;

/// The gradients of all inputs, the second half of the module's formulas.
pub(super) fn gradients<T: Lane>(
    op: &GroupNorm,
    dims: [usize; 4],
    call: &Call,
    dy: &Tensor,
) -> Result<Vec<Option<Tensor>>> {
    let (x, dy) = (call.inputs[0], dy.cpu()?);
    let channels = channels::<T>(op, dims, call.saved[0].cpu()?, call.inputs)?;
    let sums = backward_sums::<T>(op.silu, dims, &channels, x.cpu()?, dy);
    let mut dx = call.wants[0].then(|| Tensor::empty_as(x, x.shape())).transpose()?;
    if let Some(dx) = &mut dx {
        let slopes = slopes(op, dims, &channels, &sums);
        backward::<T>(op.silu, dims, &channels, &slopes, x.cpu()?, dy, dx.cpu_mut()?);
    }
    let parameters = parameter_gradients(dims, &channels, &sums);
    let shaped = |(values, of): (&Vec<f64>, &&Tensor)| {
        Some(Tensor::from_f64(values, of.shape(), of.dtype()))
    };
    let parameters = parameters.iter().zip(&call.inputs[1..]).map(shaped);
    Ok(std::iter::once(dx).chain(parameters).collect())
}

/// What all pixels of one image and channel share: `v = (x - center) a + b`.
pub(super) struct Channel {
    /// The mean as the element type holds it, and what is missing.
    center: f64,
    rest: f64,
    rstd: f64,
    gamma: f64,
    beta: f64,
    /// `1 + scale` and `shift` of FiLM.
    film: f64,
    shift: f64,
}

impl Channel {
    fn a(&self) -> f64 {
        self.rstd * self.gamma * self.film
    }

    fn b(&self) -> f64 {
        (self.beta - self.rest * self.rstd * self.gamma) * self.film + self.shift
    }
}

/// The channels of all images, `[N, C]`.
pub(super) fn channels<T: Real>(
    op: &GroupNorm,
    [n, _, _, c]: [usize; 4],
    stats: &[f64],
    inputs: &[&Tensor],
) -> Result<Vec<Channel>> {
    let (gamma, beta) = (inputs[1].cpu::<T>()?, inputs[2].cpu::<T>()?);
    let film = match inputs.get(3..5) {
        Some([scale, shift]) => Some((scale.cpu::<T>()?, shift.cpu::<T>()?)),
        _ => None,
    };
    let channel = |i: usize| {
        let at = 3 * (i / c * op.groups + i % c / (c / op.groups));
        Channel {
            center: stats[at],
            rest: stats[at + 1],
            rstd: stats[at + 2],
            gamma: gamma[i % c].to_f64(),
            beta: beta[i % c].to_f64(),
            film: film.map_or(1.0, |(scale, _)| 1.0 + scale[i].to_f64()),
            shift: film.map_or(0.0, |(_, shift)| shift[i].to_f64()),
        }
    };
    Ok((0..n * c).map(channel).collect())
}

/// Elements of a row of the loops below: whole pixels, and long enough to fill wide vectors.
fn row_len(c: usize) -> usize {
    c * 512usize.div_ceil(c)
}

/// Elements of a task: whole rows.
fn task_len(c: usize) -> usize {
    row_len(c) * (2 * CHUNK / row_len(c)).max(1)
}

/// A row of `f` of each channel of an image.
fn row<T: Real>(channels: &[Channel], f: impl Fn(&Channel) -> f64) -> Vec<T> {
    let len = row_len(channels.len());
    channels.iter().cycle().take(len).map(|c| T::from_f64(f(c))).collect()
}

/// Two sums for each channel of an image, from `kernel(task, first element, row sums)`.
fn sums(
    c: usize,
    image: usize,
    kernel: impl Fn(std::ops::Range<usize>, &mut [f64]) + Sync,
) -> Vec<[f64; 2]> {
    let (len, task) = (row_len(c), task_len(c));
    let partial = map(image.div_ceil(task), |i| {
        let mut sums = vec![0.0; 2 * len];
        kernel(i * task..image.min((i + 1) * task), &mut sums);
        sums
    });
    let mut total = vec![[0.0; 2]; c];
    for sums in &partial {
        for j in 0..len {
            total[j % c][0] += sums[j];
            total[j % c][1] += sums[len + j];
        }
    }
    total
}

/// Center, rest and rstd of every group, `[N, G, 3]`.
pub(super) fn statistics<T: Lane>(op: &GroupNorm, [_, h, w, c]: [usize; 4], x: &[T]) -> Vec<f64> {
    let per_group = c / op.groups;
    let of_image = |x: &[T]| {
        let origin: Vec<f64> = (0..row_len(c)).map(|j| x[j % c].to_f64()).collect();
        let sums = sums(c, x.len(), |range, sums| {
            let mut scratch = vec![T::default(); 2 * row_len(c)];
            moments(&x[range], &origin, &mut scratch, sums);
        });
        let groups = sums.chunks_exact(per_group).zip(origin.chunks_exact(per_group));
        let stats = groups.flat_map(|(sums, origin)| {
            let (offset, var) = mean_and_variance(h * w, sums, origin);
            let center = T::from_f64(origin[0] + offset).to_f64();
            [center, origin[0] - center + offset, 1.0 / (var + op.eps).sqrt()]
        });
        stats.collect::<Vec<_>>()
    };
    x.chunks_exact(h * w * c).flat_map(of_image).collect()
}

/// Mean, relative to `origin[0]`, and variance of the channels of a group, from the sums of
/// differences to their `origin` over `pixels`.
fn mean_and_variance(pixels: usize, sums: &[[f64; 2]], origin: &[f64]) -> (f64, f64) {
    let n = pixels as f64;
    let offset = |i: usize| origin[i] - origin[0] + sums[i][0] / n;
    let channels = sums.len() as f64;
    let mean = (0..sums.len()).map(offset).sum::<f64>() / channels;
    let within = |i: usize| (sums[i][1] - sums[i][0] * sums[i][0] / n).max(0.0) / n;
    let var = |i: usize| within(i) + (offset(i) - mean) * (offset(i) - mean);
    (mean, (0..sums.len()).map(var).sum::<f64>() / channels)
}

multiversion! {
    /// Adds to `sums` the sums of `x - origin` and of its square over rows.
    ///
    /// In a block the differences are to its own first row: then the sum of squares exceeds what
    /// the block adds to the variance by at most its number of rows, and little cancels.
    fn moments<T, FMA>(x: &[T], origin: &[f64], scratch: &mut [T], sums: &mut [f64]) {
        let len = origin.len();
        let (s, q) = scratch.split_at_mut(len);
        let (sum, square) = sums.split_at_mut(len);
        for block in x.chunks(BLOCK * len) {
            let pivot = &block[..len.min(block.len())];
            s.fill(T::default());
            q.fill(T::default());
            for row in block.chunks(len) {
                let (s, q, pivot) =
                    (&mut s[..row.len()], &mut q[..row.len()], &pivot[..row.len()]);
                for j in 0..row.len() {
                    let d = row[j] - pivot[j];
                    s[j] += d;
                    q[j] = d.fma::<FMA>(d, q[j]);
                }
            }
            let (full, rest) = (block.len() / len, block.len() % len);
            for j in 0..pivot.len() {
                let n = (full + usize::from(j < rest)) as f64;
                let p = pivot[j].to_f64() - origin[j];
                let (s, q) = (s[j].to_f64(), q[j].to_f64());
                sum[j] += n * p + s;
                square[j] += q + p * (2.0 * s + n * p);
            }
        }
    }
}

pub(super) fn forward<T: Lane>(
    silu: bool,
    [_, h, w, c]: [usize; 4],
    channels: &[Channel],
    x: &[T],
    y: &mut [T],
) {
    let (image, task) = (h * w * c, task_len(c));
    pieces(y, image, |n, y| {
        let (x, affine) = (&x[n * image..], affine(&channels[n * c..][..c]));
        pieces(y, task, |i, y| apply(silu, &x[i * task..][..y.len()], &affine, y));
    });
}

/// Rows of `center`, `a` and `b`.
type Affine<T> = [Vec<T>; 3];

/// The first `n` of each.
#[inline(always)] // As the bodies that call it.
fn firsts<T, const N: usize>(rows: &[Vec<T>; N], n: usize) -> [&[T]; N] {
    let mut firsts: [&[T]; N] = [&[]; N];
    for (to, row) in firsts.iter_mut().zip(rows) {
        *to = &row[..n];
    }
    firsts
}

fn affine<T: Real>(channels: &[Channel]) -> Affine<T> {
    [row(channels, |c| c.center), row(channels, Channel::a), row(channels, Channel::b)]
}

multiversion! {
    fn apply<T, FMA>(silu: bool, x: &[T], affine: &Affine<T>, y: &mut [T]) {
        let len = affine[0].len();
        for (y, x) in y.chunks_mut(len).zip(x.chunks(len)) {
            let n = x.len();
            let ([center, a, b], y) = (firsts(affine, n), &mut y[..n]);
            if silu {
                for j in 0..n {
                    let v = (x[j] - center[j]).fma::<FMA>(a[j], b[j]);
                    y[j] = v * v.sigmoid::<FMA>();
                }
            } else {
                for j in 0..n {
                    y[j] = (x[j] - center[j]).fma::<FMA>(a[j], b[j]);
                }
            }
        }
    }
}

/// The sums of `dv` and of `dv xhat` over the pixels of every image and channel, `[N, C]`.
fn backward_sums<T: Lane>(
    silu: bool,
    [_, h, w, c]: [usize; 4],
    channels: &[Channel],
    x: &[T],
    dy: &[T],
) -> Vec<[f64; 2]> {
    let image = h * w * c;
    let images = x.chunks_exact(image).zip(dy.chunks_exact(image));
    let of_image = |((x, dy), channels): ((&[T], &[T]), &[Channel])| {
        let affine = affine(channels);
        let mut sums = sums(c, image, |range, sums| {
            let mut scratch = vec![T::default(); 2 * row_len(c)];
            products(silu, &x[range.clone()], &dy[range], &affine, &mut scratch, sums);
        });
        for (sums, c) in sums.iter_mut().zip(channels) {
            sums[1] = c.rstd * (sums[1] - c.rest * sums[0]);
        }
        sums
    };
    images.zip(channels.chunks_exact(c)).flat_map(of_image).collect()
}

/// `dv` of one element.
#[inline(always)] // As the bodies that call it.
fn before_silu<T: Lane, const FMA: bool>(silu: bool, dy: T, v: T) -> T {
    if !silu {
        return dy;
    }
    let s = v.sigmoid::<FMA>();
    dy * s * (v - v * s + T::from_f64(1.0))
}

multiversion! {
    /// Adds the sums of `dv` and of `dv (x - center)` over rows to `sums`.
    fn products<T, FMA>(
        silu: bool,
        x: &[T],
        dy: &[T],
        affine: &Affine<T>,
        scratch: &mut [T],
        sums: &mut [f64],
    ) {
        let len = affine[0].len();
        let (s, q) = scratch.split_at_mut(len);
        let (sum, product) = sums.split_at_mut(len);
        for (x, dy) in x.chunks(BLOCK * len).zip(dy.chunks(BLOCK * len)) {
            s.fill(T::default());
            q.fill(T::default());
            for (x, dy) in x.chunks(len).zip(dy.chunks(len)) {
                let n = x.len();
                let [center, a, b] = firsts(affine, n);
                let (s, q, dy) = (&mut s[..n], &mut q[..n], &dy[..n]);
                for j in 0..n {
                    let d = x[j] - center[j];
                    let dv = before_silu::<T, FMA>(silu, dy[j], d.fma::<FMA>(a[j], b[j]));
                    s[j] += dv;
                    q[j] = dv.fma::<FMA>(d, q[j]);
                }
            }
            for j in 0..len {
                sum[j] += s[j].to_f64();
                product[j] += q[j].to_f64();
            }
        }
    }
}

/// The gradients of gamma, beta, scale and shift, from the sums of [`backward_sums`].
fn parameter_gradients(
    [_, _, _, c]: [usize; 4],
    channels: &[Channel],
    sums: &[[f64; 2]],
) -> [Vec<f64>; 4] {
    let [mut dgamma, mut dbeta] = [vec![0.0; c], vec![0.0; c]];
    for (i, (channel, [dv, dv_xhat])) in channels.iter().zip(sums).enumerate() {
        dgamma[i % c] += channel.film * dv_xhat;
        dbeta[i % c] += channel.film * dv;
    }
    let dscale = channels.iter().zip(sums).map(|(c, s)| c.gamma * s[1] + c.beta * s[0]);
    [dgamma, dbeta, dscale.collect(), sums.iter().map(|s| s[0]).collect()]
}

/// `k` and `l` of `dx = a dv + k (x - center) + l`, for every image and channel.
fn slopes(
    op: &GroupNorm,
    [_, h, w, c]: [usize; 4],
    channels: &[Channel],
    sums: &[[f64; 2]],
) -> Vec<[f64; 2]> {
    let per_group = c / op.groups;
    let m = (h * w * per_group) as f64;
    let groups = channels.chunks_exact(per_group).zip(sums.chunks_exact(per_group));
    let of_group = |(channels, sums): (&[Channel], &[[f64; 2]])| {
        let (mut g, mut g_xhat) = (0.0, 0.0);
        for (channel, sums) in channels.iter().zip(sums) {
            let weight = channel.film * channel.gamma;
            g += weight * sums[0];
            g_xhat += weight * sums[1];
        }
        let Channel { rstd, rest, .. } = channels[0];
        let k = -rstd * rstd * g_xhat / m;
        vec![[k, -rstd * g / m - k * rest]; per_group]
    };
    groups.flat_map(of_group).collect()
}

fn backward<T: Lane>(
    silu: bool,
    [_, h, w, c]: [usize; 4],
    channels: &[Channel],
    slopes: &[[f64; 2]],
    x: &[T],
    dy: &[T],
    dx: &mut [T],
) {
    let (image, task) = (h * w * c, task_len(c));
    pieces(dx, image, |n, dx| {
        let affine = affine(&channels[n * c..][..c]);
        let slope = |of: usize| -> Vec<T> {
            let row = slopes[n * c..][..c].iter().cycle().take(row_len(c));
            row.map(|s| T::from_f64(s[of])).collect()
        };
        let slopes = [slope(0), slope(1)];
        pieces(dx, task, |i, dx| {
            let of = n * image + i * task..n * image + i * task + dx.len();
            differentiate(silu, &x[of.clone()], &dy[of], &affine, &slopes, dx);
        });
    });
}

multiversion! {
    fn differentiate<T, FMA>(
        silu: bool,
        x: &[T],
        dy: &[T],
        affine: &Affine<T>,
        slopes: &[Vec<T>; 2],
        dx: &mut [T],
    ) {
        let len = affine[0].len();
        for (dx, (x, dy)) in dx.chunks_mut(len).zip(x.chunks(len).zip(dy.chunks(len))) {
            let n = x.len();
            let [center, a, b] = firsts(affine, n);
            let [k, l] = firsts(slopes, n);
            let (dx, dy) = (&mut dx[..n], &dy[..n]);
            for j in 0..n {
                let d = x[j] - center[j];
                let dv = before_silu::<T, FMA>(silu, dy[j], d.fma::<FMA>(a[j], b[j]));
                dx[j] = dv.fma::<FMA>(a[j], d.fma::<FMA>(k[j], l[j]));
            }
        }
    }
}
