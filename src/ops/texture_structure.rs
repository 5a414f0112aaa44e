//! How much the channels of two maps differ in texture and structure: the distance of DISTS at one layer (Ding
//! et al. 2020, equations 4 to 6), of the means, variances and covariance over all pixels.
//!
//! ```text
//! l = (2 ma mb + e) / (ma^2 + mb^2 + e)    s = (2 cab + e) / (va + vb + e)    e = 1e-6
//! y[n] = sum over c of weight[0,c] (1 - l[n,c]) + weight[1,c] (1 - s[n,c])
//!
//! da[p] = -dy (slope + of_a (a[p] - ma) + of_b (b[p] - mb))
//! slope = weight[0] dl/dma / P,    of_a = -2 weight[1] s / (va + vb + e) / P,
//! of_b = 2 weight[1] / (va + vb + e) / P,    P pixels;    db alike
//! ```
//!
//! `1 - l` is computed as `(ma - mb)^2 / (..)` and `1 - s` alike, so that maps that are nearly equal keep their
//! digits. The moments are those of the population, in double precision on the CPU; a GPU takes the means first and
//! what is about them in a second pass.
use crate::engine::cuda::{Gpu, Grid, kernels, launch_one_of};
use crate::engine::device::DType;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::{column_blocks, same_shape};

impl Tape {
    /// The difference `[N, 1, 1, 1]` of `a` and `b`, both `[N, H, W, C]`, with constant weights `[2, C]` of the
    /// channels' textures and structures.
    pub fn texture_structure(&mut self, a: &Var, b: &Var, weight: &Var) -> Result<Var> {
        self.apply(TextureStructure, &[a, b, weight])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct TextureStructure;

/// Both means, both variances, the covariance.
const MOMENTS: usize = 5;

impl Op for TextureStructure {
    fn name(&self) -> &'static str {
        "texture_structure"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [a, b, weight] = inputs else { unreachable!("texture_structure takes three inputs") };
        let dims @ [n, h, w, c] = a.nhwc(self.name())?;
        same_shape(self.name(), a, b)?;
        if weight.shape() != [2, c] || h * w == 0 {
            return Err(Error::shape(self.name(), format!("weights [2, {c}]"), weight.shape()));
        }
        let mut y = Tensor::empty_as(a, &[n, 1, 1, 1])?;
        let moments = on_device!(a,
            cpu::<T> => {
                let maps = [a.cpu::<T>()?, b.cpu()?];
                let moments = cpu::forward(dims, maps, weight.cpu()?, y.cpu_mut()?);
                Tensor::from_f64(&moments, &[n, MOMENTS, c], a.dtype())
            },
            cuda(gpu) => forward_on_gpu(&gpu, dims, [a, b, weight], &mut y)?,
        );
        Ok((y, vec![moments]))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [a, b, weight] = call.inputs else { unreachable!("it takes three inputs") };
        let dims @ [n, h, w, c] = a.nhwc(self.name())?;
        let moments = &call.saved[0];
        let gradient = |second: usize, x: &Tensor, other: &Tensor| -> Result<Option<Tensor>> {
            if !call.wants[second] {
                return Ok(None);
            }
            let mut dx = Tensor::empty_as(x, x.shape())?;
            on_device!(x,
                cpu::<T> => {
                    let (maps, constants) = ([x.cpu()?, other.cpu()?], [weight.cpu()?, dy.cpu()?]);
                    cpu::backward::<T>(dims, second, maps, moments.cpu()?, constants, dx.cpu_mut()?);
                },
                cuda(gpu) => {
                    let (n, pixels) = (x.len(), h * w);
                    kernels::texture_structure_backward {
                        x, other, moments, weight, dy, dx: &mut dx, n, pixels, c, second,
                    }
                    .launch(&gpu, Grid::packs(n, x.dtype()))?;
                }
            );
            debug_assert_eq!(dx.shape()[0], n);
            Ok(Some(dx))
        };
        Ok(vec![gradient(0, a, b)?, gradient(1, b, a)?, None])
    }
}

/// Fills `y`; the moments `[N, 5, C]` in f32.
fn forward_on_gpu(
    gpu: &Gpu,
    [n, h, w, c]: [usize; 4],
    [a, b, weight]: [&Tensor; 3],
    y: &mut Tensor,
) -> Result<Tensor> {
    let (pixels, dtype, device) = (h * w, a.dtype(), a.device());
    let ([across, splits], rows) = column_blocks(dtype, pixels, c);
    let grid = Grid::new([across, splits, n], 256);
    let mut moments = Tensor::empty_on(&device, DType::F32, &[n, MOMENTS, c])?;
    let mut partial = Tensor::empty_on(&device, DType::F32, &[n, splits, 3, c])?;
    // The means first: the products are about them.
    for (first, count) in [(0, 2), (2, 3)] {
        let (moments, sums) = (&mut moments, &mut partial);
        launch_one_of!(gpu, grid, match first {
            0 => texture_structure_means,
            _ => texture_structure_products,
        } { a, b, moments: &*moments, partial: sums, pixels, c, rows })?;
        let n = n * count * c;
        kernels::texture_structure_finish {
            partial: &partial,
            moments,
            n,
            splits,
            c,
            pixels,
            first,
            count,
        }
        .launch(gpu, dtype, Grid::elements(n))?;
    }
    kernels::texture_structure_difference { moments: &moments, weight, y, c }
        .launch(gpu, Grid::new([n, 1, 1], 256))?;
    Ok(moments)
}

/// Odd sizes, one pixel, whole packs; several blocks down and across; the first layer of a training batch.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: [usize; 4]| {
        OpCase::new(|| TextureStructure, &[&shape, &shape, &[2, shape[3]]]).without_grad(2)
    };
    vec![
        case([2, 3, 5, 7]),
        case([2, 1, 1, 1]),
        case([2, 3, 2, 16]),
        case([2, 17, 31, 3]).kernel_only().kernel_tols([1e-5, 1e-2, 8e-3]),
        // Gradients of dy / (H W) are subnormal in f16, with steps of 6e-8: that is what loss scaling is for.
        case([1, 33, 16, 264]).kernel_only().kernel_tols([1e-5, 1e-2, 8e-3]),
        case([4, 128, 128, 64]).timed_only(),
    ]
}

mod cpu {
    use super::MOMENTS;
    use crate::engine::threads::map;
    use crate::ops::parallel::{CHUNK, rows};
    use crate::ops::simd::{Lane, multiversion};

    const E: f64 = 1e-6;

    /// Fills `y`; the moments `[N, 5, C]`.
    pub(super) fn forward<T: Lane>(
        [n, h, w, c]: [usize; 4],
        [a, b]: [&[T]; 2],
        weight: &[T],
        y: &mut [T],
    ) -> Vec<f64> {
        let (len, pixels) = (h * w * c, (h * w) as f64);
        let mut moments = Vec::with_capacity(n * MOMENTS * c);
        for (n, y) in y.iter_mut().enumerate() {
            let sums = sums([a, b].map(|x| &x[n * len..][..len]), c);
            let mut difference = 0.0;
            let all: Vec<[f64; MOMENTS]> = (0..c)
                .map(|k| {
                    let [ma, mb, aa, bb, ab] = [0, 1, 2, 3, 4].map(|i| sums[i * c + k] / pixels);
                    [ma, mb, (aa - ma * ma).max(0.0), (bb - mb * mb).max(0.0), ab - ma * mb]
                })
                .collect();
            for (k, &[ma, mb, va, vb, cab]) in all.iter().enumerate() {
                let [texture, structure] = [weight[k], weight[c + k]].map(|v| v.to_f64());
                difference += texture * (ma - mb).powi(2) / (ma * ma + mb * mb + E)
                    + structure * (va + vb - 2.0 * cab) / (va + vb + E);
            }
            *y = T::from_f64(difference);
            moments.extend((0..MOMENTS).flat_map(|i| all.iter().map(move |m| m[i])));
        }
        moments
    }

    /// The sums over the pixels of a, b, a a, b b and a b, `[5, C]`.
    fn sums<T: Lane>([a, b]: [&[T]; 2], c: usize) -> Vec<f64> {
        let each = (CHUNK / c).max(1) * c;
        let parts = map(a.len().div_ceil(each), |i| {
            let of = i * each..((i + 1) * each).min(a.len());
            let mut sums = vec![0.0; MOMENTS * c];
            add_sums(&a[of.clone()], &b[of], &mut sums);
            sums
        });
        let mut total = vec![0.0; MOMENTS * c];
        for part in &parts {
            total.iter_mut().zip(part).for_each(|(t, s)| *t += s);
        }
        total
    }

    multiversion! {
        fn add_sums<T, FMA>(a: &[T], b: &[T], sums: &mut [f64]) {
            let c = sums.len() / MOMENTS;
            let (sa, rest) = sums.split_at_mut(c);
            let (sb, rest) = rest.split_at_mut(c);
            let (saa, rest) = rest.split_at_mut(c);
            let (sbb, sab) = rest.split_at_mut(c);
            for (a, b) in a.chunks_exact(c).zip(b.chunks_exact(c)) {
                for k in 0..c {
                    let (a, b) = (a[k].to_f64(), b[k].to_f64());
                    sa[k] += a;
                    sb[k] += b;
                    saa[k] = a.fma::<FMA>(a, saa[k]);
                    sbb[k] = b.fma::<FMA>(b, sbb[k]);
                    sab[k] = a.fma::<FMA>(b, sab[k]);
                }
            }
        }
    }

    /// The gradient of the first map, or of the `second`, which then is `x`.
    pub(super) fn backward<T: Lane>(
        [n, h, w, c]: [usize; 4],
        second: usize,
        [x, other]: [&[T]; 2],
        moments: &[T],
        [weight, dy]: [&[T]; 2],
        dx: &mut [T],
    ) {
        let pixels = (h * w) as f64;
        // Slope, slopes by what is about the means, and both means: five rows of C for each image.
        let mut constants = vec![T::default(); n * MOMENTS * c];
        for (n, constants) in constants.chunks_exact_mut(MOMENTS * c).enumerate() {
            let of = |i: usize, k: usize| moments[(n * MOMENTS + i) * c + k].to_f64();
            let dy = -dy[n].to_f64() / pixels;
            for k in 0..c {
                let (mx, mo) = (of(second, k), of(1 - second, k));
                let (below, down) = (mx * mx + mo * mo + E, of(2, k) + of(3, k) + E);
                let above = 2.0 * mx * mo + E;
                let slope = (2.0 * mo * below - above * 2.0 * mx) / (below * below);
                let structure = dy * weight[c + k].to_f64();
                let s = (2.0 * of(4, k) + E) / down;
                let all = [
                    dy * weight[k].to_f64() * slope,
                    -2.0 * structure * s / down,
                    2.0 * structure / down,
                    mx,
                    mo,
                ];
                all.iter().enumerate().for_each(|(i, &v)| constants[i * c + k] = T::from_f64(v));
            }
        }
        rows(dx, c, |pixel, dx| {
            let constants = &constants[pixel / (h * w) * MOMENTS * c..][..MOMENTS * c];
            slopes([&x[pixel * c..][..c], &other[pixel * c..][..c]], constants, dx);
        });
    }

    multiversion! {
        fn slopes<T, FMA>(maps: [&[T]; 2], constants: &[T], dx: &mut [T]) {
            let c = dx.len();
            let (x, other) = (&maps[0][..c], &maps[1][..c]);
            let row = |i: usize| &constants[i * c..][..c];
            let (slope, of_x, of_other, mx, mo) = (row(0), row(1), row(2), row(3), row(4));
            for k in 0..c {
                let rest = of_other[k].fma::<FMA>(other[k] - mo[k], slope[k]);
                dx[k] = of_x[k].fma::<FMA>(x[k] - mx[k], rest);
            }
        }
    }
}
