//! Structural dissimilarity of images in [0, 1]: a Gaussian window of 11 x 11 pixels with sigma 1.5.
//!
//! p, q: `[N, H, W, C]`, y: `[1]`. At each centre, with means over its window,
//!
//! ```text
//! S = A1 A2 / (B1 B2)
//! A1 = 2 mp mq + c1,      A2 = 2 (E[p q] - mp mq) + c2,                      c1 = 0.01^2
//! B1 = mp^2 + mq^2 + c1,  B2 = E[p p] - mp^2 + E[q q] - mq^2 + c2,           c2 = 0.03^2
//! y = (1 - mean of S over all centres, images and channels) / 2
//!
//! dS/dmp = 2 mq (A2 - A1) / (B1 B2) + 2 mp S (1 / B2 - 1 / B1),    dS/dmq likewise
//! dS/dE[p p] = dS/dE[q q] = -S / B2,    dS/dE[p q] = 2 A1 / (B1 B2)
//! dp[i] = -dy / (2 centres) sum over windows j that hold i of
//!         w[j,i] (dS/dmp[j] + 2 p[i] dS/dE[p p][j] + q[i] dS/dE[p q][j]),    dq likewise
//! ```
//!
//! Centres are all pixels, the image reflected at its edges, or those whose window lies inside. The CPU
//! computes in double precision whatever the inputs are, a GPU in single.
use super::same_shape;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

/// How far a window reaches from its centre.
const RADIUS: usize = 5;

impl Tape {
    /// `(1 - SSIM) / 2` of `p` and `q`, both `[N, H, W, C]` in `[0, 1]`: `[1]`.
    pub fn dssim(&mut self, p: &Var, q: &Var, centres: Centres) -> Result<Var> {
        self.apply(Dssim { centres }, &[p, q])
    }
}

/// The centres of windows that the mean is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Centres {
    /// Every pixel; windows see the image reflected, edge pixels not repeated.
    Reflected,
    /// The pixels whose window lies inside the image.
    Inside,
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Dssim {
    /// What the mean is taken over.
    pub centres: Centres,
}

impl Dssim {
    /// Pixels at each edge that are no centres.
    const fn margin(&self) -> usize {
        match self.centres {
            Centres::Reflected => 0,
            Centres::Inside => RADIUS,
        }
    }

    /// The number of centres in all channels and images; an error for images too small for any.
    fn count(&self, p: &Tensor, q: &Tensor) -> Result<usize> {
        same_shape(self.name(), p, q)?;
        let [n, h, w, c] = p.nhwc(self.name())?;
        let least = RADIUS + self.margin() + 1;
        if h < least || w < least || n * c == 0 {
            let wanted = format!("at least {least} x {least} pixels");
            return Err(Error::shape(self.name(), wanted, p.shape()));
        }
        Ok(n * c * (h - 2 * self.margin()) * (w - 2 * self.margin()))
    }
}

impl Op for Dssim {
    fn name(&self) -> &'static str {
        "dssim"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [p, q] = inputs else { unreachable!("losses take two inputs") };
        let count = self.count(p, q)?;
        let dims = p.nhwc(self.name())?;
        let y = on_device!(p,
            cpu::<T> => {
                let total = cpu::sum::<T>(dims, self.margin(), p.cpu()?, q.cpu()?);
                Tensor::from_f64(&[0.5 - 0.5 * total / count as f64], &[1], p.dtype())
            },
            cuda(gpu) => cuda::forward(&gpu, dims, self.margin(), count, p, q)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [p, q] = call.inputs else { unreachable!("losses take two inputs") };
        let count = self.count(p, q)?;
        let dims = p.nhwc(self.name())?;
        let mut dp = Tensor::empty_as(p, p.shape())?;
        let mut dq = Tensor::empty_as(q, q.shape())?;
        on_device!(p,
            cpu::<T> => {
                let each = -0.5 * dy.to_f64_vec()?[0] / count as f64;
                let gradients = [dp.cpu_mut()?, dq.cpu_mut()?];
                cpu::backward::<T>(dims, self.margin(), each, [p.cpu()?, q.cpu()?], gradients);
            },
            cuda(gpu) => {
                let gradients = [&mut dp, &mut dq];
                cuda::backward(&gpu, dims, self.margin(), count, [p, q, dy], gradients)?;
            }
        );
        Ok(vec![Some(dp), Some(dq)])
    }
}

/// The smallest sizes of both kinds of centres, reflections that meet, odd sizes, several images and
/// channels; several blocks; a training batch.
pub fn cases() -> Vec<OpCase> {
    let case = |centres: Centres, shape: &[usize]| {
        OpCase::new(move || Dssim { centres }, &[shape, shape]).inputs(0.5, 0.5)
    };
    use Centres::{Inside, Reflected};
    // Gradients of dy / n are subnormal in f16: that is what loss scaling is for.
    let small = |case: OpCase| case.kernel_tols([1e-5, 1e-2, 8e-3]);
    vec![
        small(case(Reflected, &[1, 6, 7, 1])),
        small(case(Reflected, &[2, 9, 12, 3])),
        small(case(Inside, &[1, 11, 11, 1])),
        small(case(Inside, &[2, 12, 15, 2])),
        small(case(Reflected, &[1, 31, 40, 3]).kernel_only()),
        case(Reflected, &[16, 128, 128, 3]).timed_only(),
    ]
}

mod cuda {
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::DType;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;

    /// Blocks of a launch over `n` centres: enough for any GPU, few enough for one block to add up.
    fn grid(n: usize) -> Grid {
        Grid::new([blocks(n), 1, 1], 256)
    }

    fn blocks(n: usize) -> usize {
        n.div_ceil(256).clamp(1, 1024)
    }

    pub(super) fn forward(
        gpu: &Gpu,
        [_, h, w, c]: [usize; 4],
        margin: usize,
        count: usize,
        p: &Tensor,
        q: &Tensor,
    ) -> Result<Tensor> {
        let n = p.len();
        let mut partial = Tensor::empty_on(&p.device(), DType::F32, &[blocks(n)])?;
        let mut y = Tensor::empty_as(p, &[1])?;
        let sums = &mut partial;
        kernels::dssim_windows { p, q, partial: sums, maps: None, n, h, w, c, margin }
            .launch(gpu, grid(n))?;
        kernels::dssim_finish { partial: &partial, y: &mut y, blocks: blocks(n), count }
            .launch(gpu, Grid::new([1, 1, 1], 256))?;
        Ok(y)
    }

    pub(super) fn backward(
        gpu: &Gpu,
        [_, h, w, c]: [usize; 4],
        margin: usize,
        count: usize,
        [p, q, dy]: [&Tensor; 3],
        [dp, dq]: [&mut Tensor; 2],
    ) -> Result<()> {
        let n = p.len();
        let mut partial = Tensor::empty_on(&p.device(), DType::F32, &[blocks(n)])?;
        let mut maps = Tensor::empty_on(&p.device(), DType::F32, &[4, n])?;
        let (sums, to) = (&mut partial, Some(&mut maps));
        kernels::dssim_windows { p, q, partial: sums, maps: to, n, h, w, c, margin }
            .launch(gpu, grid(n))?;
        let maps = &maps;
        kernels::dssim_backward { p, q, dy, maps, dp, dq, n, h, w, c, margin, count }
            .launch(gpu, Grid::elements(n))
    }
}

mod cpu {
    use super::RADIUS;
    use crate::engine::device::Real;
    use crate::engine::threads::map;

    const SIZE: usize = 2 * RADIUS + 1;
    const C1: f64 = 0.01 * 0.01;
    const C2: f64 = 0.03 * 0.03;

    /// For each centre on an axis, what its window reads: position and weight.
    type Axis = Vec<[(usize, f64); SIZE]>;

    fn axis(len: usize, margin: usize) -> Axis {
        let raw: [f64; SIZE] =
            std::array::from_fn(|k| (-(k.abs_diff(RADIUS) as f64 / 1.5).powi(2) / 2.0).exp());
        let total: f64 = raw.iter().sum();
        let read = |centre: usize, k: usize| {
            // The position is centre + k - RADIUS, reflected.
            let at = (centre + k).abs_diff(RADIUS);
            if at < len { at } else { 2 * (len - 1) - at }
        };
        (margin..len - margin)
            .map(|centre| std::array::from_fn(|k| (read(centre, k), raw[k] / total)))
            .collect()
    }

    /// One channel of one image of both inputs, and its windows.
    struct Plane {
        p: Vec<f64>,
        q: Vec<f64>,
        rows: Axis,
        columns: Axis,
        width: usize,
    }

    /// S at a centre, and its derivatives by mp, mq, `E[pp]` (and `E[qq]`), and `E[pq]`.
    struct Window {
        s: f64,
        slopes: [f64; 4],
    }

    impl Plane {
        fn new<T: Real>(
            [_, h, w, c]: [usize; 4],
            margin: usize,
            [p, q]: [&[T]; 2],
            number: usize,
        ) -> Self {
            let of = |x: &[T]| {
                let image = &x[number / c * h * w * c..][..h * w * c];
                image.iter().skip(number % c).step_by(c).map(|v| v.to_f64()).collect()
            };
            let (rows, columns) = (axis(h, margin), axis(w, margin));
            Self { p: of(p), q: of(q), rows, columns, width: w }
        }

        /// The means over all windows.
        fn means(&self, x: &[f64]) -> Vec<f64> {
            let w = self.width;
            let mut y = Vec::with_capacity(self.rows.len() * self.columns.len());
            let mut line = vec![0.0; w];
            for taps in &self.rows {
                line.fill(0.0);
                for &(i, weight) in taps {
                    line.iter_mut().zip(&x[i * w..]).for_each(|(sum, x)| *sum += weight * x);
                }
                let mean = |taps: &[(usize, f64); SIZE]| {
                    taps.iter().map(|&(i, weight)| weight * line[i]).sum::<f64>()
                };
                y.extend(self.columns.iter().map(mean));
            }
            y
        }

        /// The transpose of [`means`](Self::means): gives each window's value to what it read.
        fn spread(&self, y: impl Fn(usize) -> f64) -> Vec<f64> {
            let w = self.width;
            let mut x = vec![0.0; self.p.len()];
            let mut line = vec![0.0; w];
            for (j, taps) in self.rows.iter().enumerate() {
                line.fill(0.0);
                for (k, taps) in self.columns.iter().enumerate() {
                    let y = y(j * self.columns.len() + k);
                    taps.iter().for_each(|&(i, weight)| line[i] += weight * y);
                }
                for &(i, weight) in taps {
                    x[i * w..].iter_mut().zip(&line).for_each(|(x, v)| *x += weight * v);
                }
            }
            x
        }

        fn windows(&self) -> Vec<Window> {
            let product = |a: &[f64], b: &[f64]| {
                self.means(&a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>())
            };
            let (p, q) = (&self.p, &self.q);
            let (mp, mq) = (self.means(p), self.means(q));
            let (pp, qq, pq) = (product(p, p), product(q, q), product(p, q));
            let window = |i: usize| window(mp[i], mq[i], pp[i] + qq[i], pq[i]);
            (0..mp.len()).map(window).collect()
        }

        /// The gradients of `each * sum of S` by both inputs.
        fn gradients(&self, each: f64) -> [Vec<f64>; 2] {
            let windows = self.windows();
            let [mut dp, mut dq, own, other] =
                [0, 1, 2, 3].map(|k| self.spread(|i| each * windows[i].slopes[k]));
            for i in 0..dp.len() {
                dp[i] += 2.0 * self.p[i] * own[i] + self.q[i] * other[i];
                dq[i] += 2.0 * self.q[i] * own[i] + self.p[i] * other[i];
            }
            [dp, dq]
        }
    }

    fn window(mp: f64, mq: f64, squares: f64, pq: f64) -> Window {
        let (a1, a2) = (2.0 * mp * mq + C1, 2.0 * (pq - mp * mq) + C2);
        let means = mp * mp + mq * mq;
        let (b1, b2) = (means + C1, squares - means + C2);
        let below = 1.0 / (b1 * b2);
        let s = a1 * a2 * below;
        let slope =
            |m: f64, n: f64| 2.0 * n * (a2 - a1) * below + 2.0 * m * s * (1.0 / b2 - 1.0 / b1);
        Window { s, slopes: [slope(mp, mq), slope(mq, mp), -s / b2, 2.0 * a1 * below] }
    }

    /// The sum of S over all centres.
    pub(super) fn sum<T: Real>(dims: [usize; 4], margin: usize, p: &[T], q: &[T]) -> f64 {
        let of_plane = |number| {
            let windows = Plane::new(dims, margin, [p, q], number).windows();
            windows.iter().map(|w| w.s).sum::<f64>()
        };
        map(dims[0] * dims[3], of_plane).iter().sum()
    }

    pub(super) fn backward<T: Real>(
        dims: [usize; 4],
        margin: usize,
        each: f64,
        inputs: [&[T]; 2],
        gradients: [&mut [T]; 2],
    ) {
        let [n, h, w, c] = dims;
        let of_plane = |number| Plane::new(dims, margin, inputs, number).gradients(each);
        let planes = map(n * c, of_plane);
        for (k, to) in gradients.into_iter().enumerate() {
            for (number, found) in planes.iter().enumerate() {
                let image = &mut to[number / c * h * w * c..][..h * w * c];
                let channel = image.iter_mut().skip(number % c).step_by(c);
                channel.zip(&found[k]).for_each(|(to, &v)| *to = T::from_f64(v));
            }
        }
    }
}
