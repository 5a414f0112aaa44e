//! Group normalisation, with optional FiLM (scale and shift per image and channel) and SiLU.
//!
//! ```text
//! xhat = (x - mean) rstd,    rstd = 1 / sqrt(var + eps),    mean, var over a group of an image
//! v    = (xhat gamma + beta) (1 + scale) + shift            (scale = shift = 0 without FiLM)
//! y    = v, or v s(v) with s the logistic function
//!
//! dv     = dy, or dy s (1 + v (1 - s))
//! dshift = sum dv                       dscale = sum dv (xhat gamma + beta)       over h, w
//! dbeta  = sum dv (1 + scale)           dgamma = sum dv (1 + scale) xhat          over n, h, w
//! g      = dv (1 + scale) gamma
//! dx     = rstd (g - sum g / m - xhat sum(g xhat) / m)      sums over the m elements of the group
//! ```
//!
//! Saved: mean (in two parts) and rstd as `[N, G, 3]` in double precision. Both passes read `x` once
//! for the sums and once for the result. A mean far above the deviation must not cancel: sums are of
//! differences to a value of the same channel, joined in double precision, and the mean enters as a
//! rounded part, subtracted first, and a rest, joined to the shift.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x` `[N, H, W, C]` normalised in `groups` groups of channels, then `gamma` and `beta` `[C]`.
    pub fn group_norm(
        &mut self,
        x: &Var,
        gamma: &Var,
        beta: &Var,
        groups: usize,
        eps: f64,
    ) -> Result<Var> {
        self.apply(GroupNorm { groups, eps, silu: false }, &[x, gamma, beta])
    }

    /// [`group_norm`](Self::group_norm), then SiLU.
    pub fn group_norm_silu(
        &mut self,
        x: &Var,
        gamma: &Var,
        beta: &Var,
        groups: usize,
        eps: f64,
    ) -> Result<Var> {
        self.apply(GroupNorm { groups, eps, silu: true }, &[x, gamma, beta])
    }

    /// [`group_norm`](Self::group_norm), then `* (1 + scale) + shift` with both `[N, C]`, then SiLU.
    pub fn group_norm_film_silu(
        &mut self,
        x: &Var,
        [gamma, beta]: [&Var; 2],
        [scale, shift]: [&Var; 2],
        groups: usize,
        eps: f64,
    ) -> Result<Var> {
        self.apply(GroupNorm { groups, eps, silu: true }, &[x, gamma, beta, scale, shift])
    }
}

/// See the [module](self) for the formulas; inputs are x, gamma, beta and perhaps scale, shift.
#[derive(Debug)]
pub struct GroupNorm {
    /// How many groups the channels are divided into, in order.
    pub groups: usize,
    /// What is added to the variance.
    pub eps: f64,
    /// Whether SiLU follows.
    pub silu: bool,
}

impl Op for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let dims = self.check(inputs)?;
        let x = inputs[0];
        let mut y = Tensor::empty_as(x, x.shape())?;
        let stats = on_device!(x, cpu::<T> => {
            let stats = cpu::statistics::<T>(self, dims, x.cpu()?);
            let channels = cpu::channels::<T>(self, dims, &stats, inputs)?;
            cpu::forward::<T>(self.silu, dims, &channels, x.cpu()?, y.cpu_mut()?);
            stats
        });
        Ok((y, vec![Tensor::from_vec(stats, &[dims[0], self.groups, 3])]))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let dims = self.check(call.inputs)?;
        let x = call.inputs[0];
        let mut dx = call.wants[0].then(|| Tensor::empty_as(x, x.shape())).transpose()?;
        let parameters = on_device!(x, cpu::<T> => {
            let channels = cpu::channels::<T>(self, dims, call.saved[0].cpu()?, call.inputs)?;
            let (x, dy) = (x.cpu()?, dy.cpu()?);
            let sums = cpu::backward_sums::<T>(self.silu, dims, &channels, x, dy);
            if let Some(dx) = &mut dx {
                let slopes = cpu::slopes(self, dims, &channels, &sums);
                cpu::backward::<T>(self.silu, dims, &channels, &slopes, x, dy, dx.cpu_mut()?);
            }
            cpu::parameter_gradients(dims, &channels, &sums)
        });
        let shaped = |(values, of): (&Vec<f64>, &&Tensor)| {
            Some(Tensor::from_f64(values, of.shape(), of.dtype()))
        };
        let parameters = parameters.iter().zip(&call.inputs[1..]).map(shaped);
        Ok(std::iter::once(dx).chain(parameters).collect())
    }
}

impl GroupNorm {
    fn check(&self, inputs: &[&Tensor]) -> Result<[usize; 4]> {
        let (x, parameters) = (inputs[0], &inputs[1..]);
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if self.groups == 0 || c % self.groups != 0 || n * h * w * c == 0 {
            let wanted = format!("pixels with C divisible by {} groups", self.groups);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        for (i, parameter) in parameters.iter().enumerate() {
            let (what, shape) =
                if i < 2 { ("gamma and beta", vec![c]) } else { ("scale and shift", vec![n, c]) };
            if parameter.shape() != shape {
                let wanted = format!("{what} of {shape:?}");
                return Err(Error::shape(self.name(), wanted, parameter.shape()));
            }
        }
        Ok(dims)
    }
}

/// Odd sizes, one group, one channel a group, more channels than a vector row, a far mean, FiLM;
/// the maps of a UNet.
pub fn cases() -> Vec<OpCase> {
    let case = |groups, silu, film: bool, shape: &[usize]| {
        let (n, c) = (shape[0], shape[3]);
        let all: [&[usize]; 5] = [shape, &[c], &[c], &[n, c], &[n, c]];
        let inputs = if film { &all[..] } else { &all[..3] };
        OpCase::new(move || GroupNorm { groups, eps: 1e-5, silu }, inputs)
    };
    vec![
        case(3, false, false, &[2, 3, 5, 6]),
        case(1, true, false, &[2, 2, 3, 5]),
        case(4, true, false, &[1, 3, 3, 4]),
        case(2, true, true, &[2, 5, 3, 6]),
        case(1, false, true, &[1, 1, 1, 3]),
        case(8, true, false, &[1, 3, 2, 72]),
        case(1, true, false, &[1, 67, 1, 2]),
        // Mean 1000, deviation 0.58.
        case(2, false, false, &[1, 5, 4, 4]).inputs(1.0, 1000.0),
        case(32, true, false, &[1, 256, 256, 64]).timed_only(),
        case(32, true, false, &[1, 128, 128, 64]).timed_only(),
        case(32, true, false, &[1, 64, 64, 128]).timed_only(),
        case(32, true, false, &[1, 32, 32, 256]).timed_only(),
    ]
}

mod cpu {
    use rayon::prelude::*;

    use super::GroupNorm;
    use crate::engine::device::Real;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::parallel::CHUNK;
    use crate::ops::simd::{Lane, multiversion};

    /// Rows that are summed in the element type before the sums move on to double precision.
    const BLOCK: usize = 32;

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
        let partial: Vec<Vec<f64>> = (0..image.div_ceil(task))
            .into_par_iter()
            .map(|i| {
                let mut sums = vec![0.0; 2 * len];
                kernel(i * task..image.min((i + 1) * task), &mut sums);
                sums
            })
            .collect();
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
    pub(super) fn statistics<T: Lane>(
        op: &GroupNorm,
        [_, h, w, c]: [usize; 4],
        x: &[T],
    ) -> Vec<f64> {
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
        let images = y.par_chunks_mut(image).zip(x.par_chunks(image));
        images.zip(channels.par_chunks(c)).for_each(|((y, x), channels)| {
            let affine = affine(channels);
            y.par_chunks_mut(task)
                .zip(x.par_chunks(task))
                .for_each(|(y, x)| apply(silu, x, &affine, y));
        });
    }

    /// Rows of `center`, `a` and `b`.
    type Affine<T> = [Vec<T>; 3];

    fn affine<T: Real>(channels: &[Channel]) -> Affine<T> {
        [row(channels, |c| c.center), row(channels, Channel::a), row(channels, Channel::b)]
    }

    multiversion! {
        fn apply<T, FMA>(silu: bool, x: &[T], affine: &Affine<T>, y: &mut [T]) {
            let len = affine[0].len();
            for (y, x) in y.chunks_mut(len).zip(x.chunks(len)) {
                let n = x.len();
                let ([center, a, b], y) = (affine.each_ref().map(|v| &v[..n]), &mut y[..n]);
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
    pub(super) fn backward_sums<T: Lane>(
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
                    let [center, a, b] = affine.each_ref().map(|v| &v[..n]);
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
    pub(super) fn parameter_gradients(
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
    pub(super) fn slopes(
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

    pub(super) fn backward<T: Lane>(
        silu: bool,
        [_, h, w, c]: [usize; 4],
        channels: &[Channel],
        slopes: &[[f64; 2]],
        x: &[T],
        dy: &[T],
        dx: &mut [T],
    ) {
        let (image, task) = (h * w * c, task_len(c));
        let images = dx.par_chunks_mut(image).zip(x.par_chunks(image).zip(dy.par_chunks(image)));
        let shared = channels.par_chunks(c).zip(slopes.par_chunks(c));
        images.zip(shared).for_each(|((dx, (x, dy)), (channels, slopes))| {
            let affine = affine(channels);
            let slope = |of: usize| -> Vec<T> {
                let row = slopes.iter().cycle().take(row_len(c));
                row.map(|s| T::from_f64(s[of])).collect()
            };
            let slopes = [slope(0), slope(1)];
            dx.par_chunks_mut(task)
                .zip(x.par_chunks(task).zip(dy.par_chunks(task)))
                .for_each(|(dx, (x, dy))| differentiate(silu, x, dy, &affine, &slopes, dx));
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
                let [center, a, b] = affine.each_ref().map(|v| &v[..n]);
                let [k, l] = slopes.each_ref().map(|v| &v[..n]);
                let (dx, dy) = (&mut dx[..n], &dy[..n]);
                for j in 0..n {
                    let d = x[j] - center[j];
                    let dv = before_silu::<T, FMA>(silu, dy[j], d.fma::<FMA>(a[j], b[j]));
                    dx[j] = dv.fma::<FMA>(a[j], d.fma::<FMA>(k[j], l[j]));
                }
            }
        }
    }
}
