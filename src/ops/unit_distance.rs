//! How far the channels of two maps point in different directions: the distance of LPIPS at one layer (Zhang
//! et al. 2018, equation 1).
//!
//! ```text
//! u = a / (|a| + eps), v = b / (|b| + eps)    over the channels of each pixel, eps = 1e-10
//! y[n] = sum over h, w, c of weight[c] (u - v)^2 / (H W)
//!
//! g  = 2 weight (u - v) dy[n] / (H W)
//! da = g / (|a| + eps) - (g . a) a / (|a| (|a| + eps)^2),    db by -g and b
//! ```
//!
//! A vector of zeros has no direction and no gradient: behind a ReLU none would pass there. Differences are
//! taken before they are squared, so that maps that are nearly alike keep their digits.
use crate::engine::cuda::{Gpu, Grid, kernels};
use crate::engine::device::DType;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::same_shape;

impl Tape {
    /// The distance `[N, 1, 1, 1]` of `a` and `b`, both `[N, H, W, C]`, with a constant `weight` `[C]`.
    pub fn unit_distance(&mut self, a: &Var, b: &Var, weight: &Var) -> Result<Var> {
        self.apply(UnitDistance, &[a, b, weight])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct UnitDistance;

impl Op for UnitDistance {
    fn name(&self) -> &'static str {
        "unit_distance"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [a, b, weight] = inputs else { unreachable!("unit_distance takes three inputs") };
        let dims @ [n, h, w, c] = a.nhwc(self.name())?;
        same_shape(self.name(), a, b)?;
        if weight.shape() != [c] || h * w == 0 {
            return Err(Error::shape(self.name(), format!("a weight [{c}]"), weight.shape()));
        }
        let mut y = Tensor::empty_as(a, &[n, 1, 1, 1])?;
        on_device!(a,
            cpu::<T> => {
                cpu::forward::<T>(dims, [a.cpu()?, b.cpu()?], weight.cpu()?, y.cpu_mut()?);
            },
            cuda(gpu) => forward_on_gpu(&gpu, dims, [a, b, weight], &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [a, b, weight] = call.inputs else { unreachable!("unit_distance takes three inputs") };
        let dims @ [n, h, w, c] = a.nhwc(self.name())?;
        // Of each of the two maps the other is the one that it is compared with.
        let gradient = |wanted: bool, x: &Tensor, other: &Tensor| -> Result<Option<Tensor>> {
            if !wanted {
                return Ok(None);
            }
            let mut dx = Tensor::empty_as(x, x.shape())?;
            on_device!(x,
                cpu::<T> => {
                    let maps = [x.cpu()?, other.cpu()?];
                    cpu::backward::<T>(dims, maps, weight.cpu()?, dy.cpu()?, dx.cpu_mut()?);
                },
                cuda(gpu) => {
                    let (pixels, n, da) = (h * w, n * h * w, &mut dx);
                    kernels::unit_distance_backward { a: x, b: other, weight, dy, da, n, pixels, c }
                        .launch(&gpu, Grid::new([n.div_ceil(PIXELS_OF_BLOCK), 1, 1], 256))?;
                }
            );
            Ok(Some(dx))
        };
        Ok(vec![gradient(call.wants[0], a, b)?, gradient(call.wants[1], b, a)?, None])
    }
}

/// A warp for each.
const PIXELS_OF_BLOCK: usize = 8;

fn forward_on_gpu(
    gpu: &Gpu,
    [n, h, w, c]: [usize; 4],
    [a, b, weight]: [&Tensor; 3],
    y: &mut Tensor,
) -> Result<()> {
    let pixels = h * w;
    // Follows from the shape alone, and with it the order of the sum.
    let blocks = pixels.div_ceil(PIXELS_OF_BLOCK).min(256);
    let mut partial = Tensor::empty_on(&a.device(), DType::F32, &[n, blocks])?;
    kernels::unit_distance_sums { a, b, weight, partial: &mut partial, pixels, c }
        .launch(gpu, Grid::new([blocks, n, 1], 256))?;
    kernels::unit_distance_finish { partial: &partial, y, n, blocks, pixels }
        .launch(gpu, Grid::elements(n))
}

/// Odd sizes, one pixel, whole lanes (one channel has no direction, only a sign); several blocks and ragged warps; the first layer of a
/// training batch.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: [usize; 4]| {
        OpCase::new(|| UnitDistance, &[&shape, &shape, &[shape[3]]]).without_grad(2)
    };
    vec![
        case([2, 3, 5, 7]),
        case([2, 1, 1, 2]),
        case([1, 2, 3, 24]),
        // Gradients of dy / (H W) are subnormal in f16, with steps of 6e-8: that is what loss scaling is for.
        case([2, 31, 17, 40]).kernel_only().kernel_tols([1e-5, 1e-2, 8e-3]),
        case([4, 128, 128, 64]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::threads::map;
    use crate::ops::parallel::{CHUNK, rows};
    use crate::ops::simd::{Lane, multiversion};

    const EPS: f64 = 1e-10;
    const LANES: usize = 16;

    pub(super) fn forward<T: Lane>(
        [n, h, w, c]: [usize; 4],
        [a, b]: [&[T]; 2],
        weight: &[T],
        y: &mut [T],
    ) {
        let (len, each) = (h * w * c, (CHUNK / c).max(1) * c);
        for n in 0..n {
            let [a, b] = [a, b].map(|x| &x[n * len..][..len]);
            let parts = map(len.div_ceil(each), |i| {
                let of = i * each..((i + 1) * each).min(len);
                let mut sum = 0.0;
                distances(&a[of.clone()], &b[of], weight, &mut sum);
                sum
            });
            y[n] = T::from_f64(parts.iter().sum::<f64>() / (h * w) as f64);
        }
    }

    multiversion! {
        /// Adds the distances of some pixels.
        fn distances<T, FMA>(a: &[T], b: &[T], weight: &[T], sum: &mut f64) {
            let c = weight.len();
            for (a, b) in a.chunks_exact(c).zip(b.chunks_exact(c)) {
                let i = T::from_f64(1.0 / (norm::<T, FMA>(a) + EPS));
                let j = T::from_f64(1.0 / (norm::<T, FMA>(b) + EPS));
                let square = |k: usize| {
                    let d = a[k] * i - b[k] * j;
                    weight[k] * d * d
                };
                *sum += lanes(c, square);
            }
        }
    }

    /// The sum of `f(k)` over `0..n`: several side by side, which is also how they fit into vectors.
    #[inline(always)]
    fn lanes<T: Lane>(n: usize, f: impl Fn(usize) -> T) -> f64 {
        let mut sums = [T::default(); LANES];
        let whole = n / LANES * LANES;
        for k in (0..whole).step_by(LANES) {
            for (lane, sum) in sums.iter_mut().enumerate() {
                *sum += f(k + lane);
            }
        }
        for k in whole..n {
            sums[k - whole] += f(k);
        }
        sums.iter().map(|s| s.to_f64()).sum()
    }

    #[inline(always)]
    fn norm<T: Lane, const FMA: bool>(x: &[T]) -> f64 {
        lanes(x.len(), |k| x[k] * x[k]).sqrt()
    }

    pub(super) fn backward<T: Lane>(
        [_, h, w, c]: [usize; 4],
        [a, b]: [&[T]; 2],
        weight: &[T],
        dy: &[T],
        da: &mut [T],
    ) {
        rows(da, c, |pixel, da| {
            let each = 2.0 * dy[pixel / (h * w)].to_f64() / (h * w) as f64;
            slopes(each, [&a[pixel * c..][..c], &b[pixel * c..][..c]], weight, da);
        });
    }

    multiversion! {
        /// The gradient of one pixel, `each` times that of `weight (u - v)^2 / 2`.
        fn slopes<T, FMA>(each: f64, ab: [&[T]; 2], weight: &[T], da: &mut [T]) {
            let [a, b] = ab;
            let size = norm::<T, FMA>(a);
            if size == 0.0 {
                return da.fill(T::default());
            }
            let i = T::from_f64(1.0 / (size + EPS));
            let j = T::from_f64(1.0 / (norm::<T, FMA>(b) + EPS));
            let each = T::from_f64(each);
            for (k, da) in da.iter_mut().enumerate() {
                *da = each * weight[k] * (a[k] * i - b[k] * j);
            }
            let along = lanes(a.len(), |k| da[k] * a[k]);
            let back = T::from_f64(-along / (size * (size + EPS) * (size + EPS)));
            for (da, &a) in da.iter_mut().zip(a) {
                *da = back.fma::<FMA>(a, *da * i);
            }
        }
    }
}
