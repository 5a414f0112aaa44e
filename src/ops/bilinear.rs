//! Bilinear resampling to a given size, without antialiasing.
//!
//! ```text
//! y[i,j] = sum over the two nearest rows r and columns s of v_i(r) h_j(s) x[r,s]
//! dx[r,s] = sum over i, j of v_i(r) h_j(s) dy[i,j]
//! ```
//!
//! Where output row `i` lies in the input, and with it the weights `v_i`, is what [`Sampling`] says;
//! columns likewise. Rows are mixed before columns. Backward gathers: every element of `dx` sums
//! what it gave weight to, in a fixed order.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `[N, H, W, C]` resampled to `[N, height, width, C]`.
    pub fn bilinear(&mut self, x: &Var, height: usize, width: usize, at: Sampling) -> Result<Var> {
        self.apply(Bilinear { height, width, at }, &[x])
    }

    /// Twice the size with the corner pixels kept in place: the decoder of a UNet.
    pub fn bilinear_up2(&mut self, x: &Var) -> Result<Var> {
        let [_, h, w, _] = x.value().nhwc("bilinear")?;
        self.bilinear(x, 2 * h, 2 * w, Sampling::AlignCorners)
    }

    /// `1 / factor` of the size, rounded down: samples `factor` pixels apart.
    pub fn bilinear_down(&mut self, x: &Var, factor: usize) -> Result<Var> {
        let [_, h, w, _] = x.value().nhwc("bilinear")?;
        let at = Sampling::HalfPixel { step: factor as f64 };
        self.bilinear(x, h / factor, w / factor, at)
    }
}

/// Where the centre of output pixel `i` lies in the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// `i (in - 1) / (out - 1)`: the corner pixels coincide.
    AlignCorners,
    /// `(i + 1/2) step - 1/2`, at least 0: the corners of the images coincide.
    HalfPixel {
        /// Input pixels between two output pixels: 1 / scale.
        step: f64,
    },
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Bilinear {
    /// Rows of the output.
    pub height: usize,
    /// Columns of the output.
    pub width: usize,
    /// Where the output pixels lie.
    pub at: Sampling,
}

impl Op for Bilinear {
    fn name(&self) -> &'static str {
        "bilinear"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("bilinear takes one input") };
        let dims @ [n, h, w, c] = x.nhwc(self.name())?;
        if h * w == 0 || self.height * self.width == 0 {
            let wanted = format!("pixels to make {} x {} of", self.height, self.width);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        let mut y = Tensor::empty_as(x, &[n, self.height, self.width, c])?;
        on_device!(x,
            cpu::<T> => cpu::forward::<T>(self, dims, x.cpu()?, y.cpu_mut()?),
            cuda(gpu) => cuda::forward(&gpu, self, dims, x, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("bilinear takes one input") };
        let dims = x.nhwc(self.name())?;
        let mut dx = Tensor::empty_as(x, x.shape())?;
        on_device!(x,
            cpu::<T> => cpu::backward::<T>(self, dims, dy.cpu()?, dx.cpu_mut()?),
            cuda(gpu) => cuda::backward(&gpu, self, dims, dy, &mut dx)?,
        );
        Ok(vec![Some(dx)])
    }
}

/// Both modes up and down, odd and single sizes, whole packs of channels, and what UNets and the multi-scale loss use.
pub fn cases() -> Vec<OpCase> {
    use Sampling::{AlignCorners, HalfPixel};
    let case = |height, width, at: Sampling, shape: &[usize]| {
        OpCase::new(move || Bilinear { height, width, at }, &[shape])
    };
    vec![
        case(6, 10, AlignCorners, &[2, 3, 5, 3]),
        case(3, 2, AlignCorners, &[1, 5, 7, 2]),
        case(2, 1, AlignCorners, &[2, 1, 4, 1]),
        case(2, 3, HalfPixel { step: 2.0 }, &[2, 5, 7, 3]),
        case(2, 1, HalfPixel { step: 4.0 }, &[1, 8, 7, 2]),
        case(7, 5, HalfPixel { step: 0.4 }, &[1, 3, 2, 1]),
        case(1, 1, HalfPixel { step: 2.0 }, &[2, 1, 1, 1]),
        case(4, 6, AlignCorners, &[1, 2, 3, 8]),
        case(37, 50, HalfPixel { step: 0.3 }, &[1, 11, 15, 3]).kernel_only(),
        case(9, 11, HalfPixel { step: 3.7 }, &[1, 33, 41, 16]).kernel_only(),
        case(128, 128, AlignCorners, &[1, 64, 64, 64]).timed_only(),
        case(256, 256, AlignCorners, &[1, 128, 128, 128]).timed_only(),
        case(128, 128, HalfPixel { step: 2.0 }, &[8, 256, 256, 3]).timed_only(),
    ]
}

/// The two input positions an output position mixes, and the weight of the second.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: f64,
}

impl Sampling {
    /// One tap for each of `output` positions along an axis of `input`.
    fn taps(self, input: usize, output: usize) -> Vec<Tap> {
        let last = input - 1;
        let tap = |i: usize| {
            let at = match self {
                Self::AlignCorners if output > 1 => (i * last) as f64 / (output - 1) as f64,
                Self::AlignCorners => 0.0,
                Self::HalfPixel { step } => ((i as f64 + 0.5) * step - 0.5).max(0.0),
            };
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 <= at
            let first = (at as usize).min(last);
            let weight = (at - first as f64).min(1.0);
            Tap { first, second: (first + 1).min(last), weight }
        };
        (0..output).map(tap).collect()
    }
}

mod cuda {
    use super::{Bilinear, Sampling};
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::tensor::Tensor;
    use crate::error::{Error, Result};

    /// Binary places of a position, as in the kernel.
    const FRACTION: i32 = 40;

    pub(super) fn forward(
        gpu: &Gpu,
        op: &Bilinear,
        [_, h, w, c]: [usize; 4],
        x: &Tensor,
        y: &mut Tensor,
    ) -> Result<()> {
        let Bilinear { height, width, at } = *op;
        let half_pixel = matches!(at, Sampling::HalfPixel { .. }).into();
        let (step_y, step_x) = (step(at, h, height)?, step(at, w, width)?);
        let (n, grid) = (y.len(), Grid::packs(y.len(), y.dtype()));
        kernels::bilinear_forward { x, y, n, h, w, c, height, width, step_y, step_x, half_pixel }
            .launch(gpu, grid)
    }

    /// `[.., h, w, c]` are the sizes of the input.
    pub(super) fn backward(
        gpu: &Gpu,
        op: &Bilinear,
        [_, h, w, c]: [usize; 4],
        dy: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()> {
        let Bilinear { height, width, at } = *op;
        let half_pixel = matches!(at, Sampling::HalfPixel { .. }).into();
        let (step_y, step_x) = (step(at, h, height)?, step(at, w, width)?);
        let (n, grid) = (dx.len(), Grid::packs(dx.len(), dx.dtype()));
        kernels::bilinear_backward { dy, dx, n, h, w, c, height, width, step_y, step_x, half_pixel }
            .launch(gpu, grid)
    }

    /// Between two output positions, in parts of a pixel that the kernel counts in.
    fn step(at: Sampling, input: usize, output: usize) -> Result<u64> {
        let step = match at {
            Sampling::AlignCorners if output > 1 => (input - 1) as f64 / (output - 1) as f64,
            Sampling::AlignCorners => 0.0,
            Sampling::HalfPixel { step } => step,
        };
        // Positions have 63 bits.
        let largest = f64::from(1 << (62 - FRACTION));
        if !(0.0..largest).contains(&(step * output as f64)) {
            let what = format!("steps of {step} pixels");
            return Err(Error::Unsupported { op: "bilinear", what });
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 <= step
        Ok((step * 2f64.powi(FRACTION)).round() as u64)
    }
}

mod cpu {
    use super::{Bilinear, Tap};
    use crate::engine::device::Real;
    use crate::ops::parallel::rows_with;

    pub(super) fn forward<T: Real>(op: &Bilinear, [_, h, w, c]: [usize; 4], x: &[T], y: &mut [T]) {
        let vertical = op.at.taps(h, op.height);
        let horizontal: Vec<_> =
            op.at.taps(w, op.width).into_iter().map(|t| (t, weights::<T>(t))).collect();
        rows_with(y, op.width * c, w * c, |r, y, line| {
            let (n, tap) = (r / op.height, vertical[r % op.height]);
            let row = |i: usize| &x[(n * h + i) * w * c..][..w * c];
            mix(line, row(tap.first), row(tap.second), weights(tap));
            for (y, &(tap, weights)) in y.chunks_exact_mut(c).zip(&horizontal) {
                mix(y, &line[tap.first * c..][..c], &line[tap.second * c..][..c], weights);
            }
        });
    }

    fn weights<T: Real>(tap: Tap) -> [T; 2] {
        [T::from_f64(1.0 - tap.weight), T::from_f64(tap.weight)]
    }

    fn mix<T: Real>(y: &mut [T], a: &[T], b: &[T], [wa, wb]: [T; 2]) {
        let (a, b) = (&a[..y.len()], &b[..y.len()]);
        for k in 0..y.len() {
            y[k] = wa * a[k] + wb * b[k];
        }
    }

    pub(super) fn backward<T: Real>(
        op: &Bilinear,
        [_, h, w, c]: [usize; 4],
        dy: &[T],
        dx: &mut [T],
    ) {
        let vertical = users::<T>(&op.at.taps(h, op.height), h);
        let horizontal = users::<T>(&op.at.taps(w, op.width), w);
        let line_len = op.width * c;
        rows_with(dx, w * c, line_len, |r, dx, line| {
            line.fill(T::default());
            for &(i, weight) in &vertical[r % h] {
                add(line, &dy[(r / h * op.height + i) * line_len..][..line_len], weight);
            }
            for (dx, users) in dx.chunks_exact_mut(c).zip(&horizontal) {
                dx.fill(T::default());
                for &(j, weight) in users {
                    add(dx, &line[j * c..][..c], weight);
                }
            }
        });
    }

    /// For each input position the outputs that it has weight in, in ascending order.
    fn users<T: Real>(taps: &[Tap], input: usize) -> Vec<Vec<(usize, T)>> {
        let mut users = vec![Vec::new(); input];
        for (i, tap) in taps.iter().enumerate() {
            users[tap.first].push((i, T::from_f64(1.0 - tap.weight)));
            users[tap.second].push((i, T::from_f64(tap.weight)));
        }
        users
    }

    fn add<T: Real>(y: &mut [T], x: &[T], weight: T) {
        let x = &x[..y.len()];
        for k in 0..y.len() {
            y[k] += weight * x[k];
        }
    }
}
