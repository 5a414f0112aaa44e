//! Depthwise 2-D convolution: every channel by itself, stride 1, "same" padding.
//!
//! x: `[N, H, W, Ci]`, w: `[Co, k, k, 1]` with k odd, b: `[Co]` or absent, y: `[N, H, W, Co]`, where Co is m Ci
//! and output channel o sees input channel `o / m` alone. With `p = (k - 1) / 2`:
//!
//! ```text
//! y[n,i,j,o]  = b[o] + sum_{u,v} w[o,u,v] x[n, i + u - p, j + v - p, o / m]
//! dx[n,i,j,c] = sum_{o / m = c} sum_{u,v} w[o,u,v] dy[n, i - u + p, j - v + p, o]
//! dw[o,u,v]   = sum_{n,i,j} dy[n,i,j,o] x[n, i + u - p, j + v - p, o / m]      db[o] = sum_{n,i,j} dy[n,i,j,o]
//! ```
//!
//! Sums over taps run row by row; those over pixels in double precision on the CPU, in single on a GPU, always
//! in the same order.
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::conv2d::cuda_weights::sum_rows;
use crate::ops::parallel;

impl Tape {
    /// Each channel of `x` `[N, H, W, Ci]` convolved with its own kernels of `w` `[Co, k, k, 1]`, plus the bias
    /// `b` `[Co]` if there is one.
    pub fn depthwise_conv2d(&mut self, x: &Var, w: &Var, b: Option<&Var>) -> Result<Var> {
        match b {
            Some(b) => self.apply(DepthwiseConv2d, &[x, w, b]),
            None => self.apply(DepthwiseConv2d, &[x, w]),
        }
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct DepthwiseConv2d;

/// The sizes that both devices need.
#[derive(Clone, Copy, Debug)]
struct Dims {
    batch: usize,
    height: usize,
    width: usize,
    ci: usize,
    co: usize,
    kernel: usize,
}

impl Dims {
    fn of(x: &Tensor, w: &Tensor) -> Result<Self> {
        const OP: &str = "depthwise_conv2d";
        let [batch, height, width, ci] = x.nhwc(OP)?;
        let [co, kernel, kernel_w, one] = w.nhwc(OP)?;
        let square = kernel == kernel_w && kernel % 2 == 1 && one == 1;
        if !square || ci == 0 || co == 0 || co % ci != 0 {
            let wanted = format!("weight [m {ci}, k, k, 1] with k odd");
            return Err(Error::shape(OP, wanted, w.shape()));
        }
        Ok(Self { batch, height, width, ci, co, kernel })
    }

    const fn each(&self) -> usize {
        self.co / self.ci
    }

    /// What `x` lies at for tap `u` of output `i`, along a side of this size; none outside.
    fn source(&self, i: usize, u: usize, size: usize) -> Option<usize> {
        (i + u).checked_sub(self.kernel / 2).filter(|&at| at < size)
    }
}

impl Op for DepthwiseConv2d {
    fn name(&self) -> &'static str {
        "depthwise_conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, w, bias) = (inputs[0], inputs[1], inputs.get(2).copied());
        let d = Dims::of(x, w)?;
        if let Some(b) = bias.filter(|b| b.shape() != [d.co]) {
            return Err(Error::shape(self.name(), format!("bias [{}]", d.co), b.shape()));
        }
        let mut y = Tensor::empty_as(x, &[d.batch, d.height, d.width, d.co])?;
        on_device!(x,
            cpu::<T> => {
                let bias = bias.map(Tensor::cpu::<T>).transpose()?;
                cpu::forward::<T>(&d, x.cpu()?, w.cpu()?, bias, y.cpu_mut()?);
            },
            cuda(gpu) => cuda::forward(&gpu, &d, [x, w], bias, &mut y)?,
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (call.inputs[0], call.inputs[1]);
        let d = Dims::of(x, w)?;
        let mut grads = call.empty_gradients()?;
        on_device!(x,
            cpu::<T> => {
                if let Some(dx) = &mut grads[0] {
                    cpu::input_gradient::<T>(&d, w.cpu()?, dy.cpu()?, dx.cpu_mut()?);
                }
                if let Some(dw) = &mut grads[1] {
                    cpu::weight_gradient::<T>(&d, x.cpu()?, dy.cpu()?, dw.cpu_mut()?);
                }
                if let Some(Some(db)) = grads.get_mut(2) {
                    parallel::sum_rows::<T>(dy.cpu()?, db.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = &mut grads[0] {
                    cuda::input_gradient(&gpu, &d, w, dy, dx)?;
                }
                if let Some(dw) = &mut grads[1] {
                    cuda::weight_gradient(&gpu, &d, x, dy, dw)?;
                }
                if let Some(Some(db)) = grads.get_mut(2) {
                    sum_rows(&gpu, dy, db)?;
                }
            }
        );
        Ok(grads)
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let (x, w) = (inputs[0], inputs[1]);
        2 * (x[0] * x[1] * x[2] * w.iter().product::<usize>()) as u64
    }
}

/// One pixel, kernels larger than the map, several outputs of an input, without a bias; whole packs, several
/// blocks and split sums; the ends of SPANV2.
pub fn cases() -> Vec<OpCase> {
    let case = |x: [usize; 4], each: usize, k: usize| {
        let co = each * x[3];
        OpCase::new(|| DepthwiseConv2d, &[&x, &[co, k, k, 1], &[co]])
    };
    vec![
        case([2, 5, 7, 3], 1, 3),
        case([2, 4, 3, 2], 3, 3),
        case([1, 1, 1, 4], 1, 3),
        case([2, 2, 3, 2], 2, 5),
        case([1, 3, 4, 5], 1, 1),
        OpCase::new(|| DepthwiseConv2d, &[&[2, 3, 5, 3], &[6, 3, 3, 1]]),
        case([2, 17, 19, 16], 1, 3).kernel_only(),
        case([1, 33, 20, 3], 16, 3).kernel_only(),
        case([1, 9, 8, 264], 1, 3).kernel_only(),
        case([1, 128, 128, 80], 1, 3).timed_only(),
        case([1, 128, 128, 3], 16, 3).timed_only(),
    ]
}

mod cuda {
    use super::Dims;
    use crate::engine::cuda::{Gpu, Grid, kernels};
    use crate::engine::device::DType;
    use crate::engine::tensor::Tensor;
    use crate::error::Result;
    use crate::ops::column_blocks;

    pub(super) fn forward(
        gpu: &Gpu,
        d: &Dims,
        [x, weight]: [&Tensor; 2],
        bias: Option<&Tensor>,
        y: &mut Tensor,
    ) -> Result<()> {
        let (n, dtype) = (y.len(), x.dtype());
        let Dims { height: h, width: w, ci, co, kernel, .. } = *d;
        kernels::depthwise_conv2d_forward { x, weight, bias, y, n, h, w, ci, co, kernel }
            .launch(gpu, Grid::packs(n, dtype))
    }

    pub(super) fn input_gradient(
        gpu: &Gpu,
        d: &Dims,
        weight: &Tensor,
        dy: &Tensor,
        dx: &mut Tensor,
    ) -> Result<()> {
        let (n, dtype) = (dx.len(), dy.dtype());
        let Dims { height: h, width: w, ci, co, kernel, .. } = *d;
        kernels::depthwise_conv2d_input { weight, dy, dx, n, h, w, ci, co, kernel }
            .launch(gpu, Grid::packs(n, dtype))
    }

    /// A tap for each block along z; blocks sum ranges of pixels, then their sums are added up.
    pub(super) fn weight_gradient(
        gpu: &Gpu,
        d: &Dims,
        x: &Tensor,
        dy: &Tensor,
        dw: &mut Tensor,
    ) -> Result<()> {
        let (pixels, taps, dtype) = (d.batch * d.height * d.width, d.kernel * d.kernel, dy.dtype());
        let ([across, splits], rows) = column_blocks(dtype, pixels, d.co);
        let mut partial = Tensor::empty_on(&dy.device(), DType::F32, &[taps, splits, d.co])?;
        let Dims { height: h, width: w, ci, co, kernel, .. } = *d;
        let sums = &mut partial;
        kernels::depthwise_conv2d_weight_sums {
            x,
            dy,
            partial: sums,
            pixels,
            h,
            w,
            ci,
            co,
            kernel,
            rows,
        }
        .launch(gpu, Grid::new([across, splits, taps], 256))?;
        let n = dw.len();
        kernels::depthwise_conv2d_weight_finish { partial: &partial, dw, n, splits, co, taps }
            .launch(gpu, Grid::elements(n))
    }
}

mod cpu {
    use super::Dims;
    use crate::engine::threads::map;
    use crate::ops::parallel::{chunks, rows};
    use crate::ops::simd::{Lane, multiversion};

    /// `w` `[Co, k, k]` as `[k, k, Co]`, so that a tap's weights lie side by side.
    fn by_tap<T: Lane>(d: &Dims, w: &[T]) -> Vec<T> {
        let taps = d.kernel * d.kernel;
        (0..w.len()).map(|i| w[i % d.co * taps + i / d.co]).collect()
    }

    /// The columns of outputs that tap `v` serves, and the column of `x` that the first one sees.
    fn columns(d: &Dims, v: usize) -> (std::ops::Range<usize>, usize) {
        let pad = d.kernel / 2;
        let (from, to) = (pad.saturating_sub(v), (d.width + pad).saturating_sub(v).min(d.width));
        (from.min(to)..to, (from + v).saturating_sub(pad))
    }

    pub(super) fn forward<T: Lane>(d: &Dims, x: &[T], w: &[T], bias: Option<&[T]>, y: &mut [T]) {
        let w = by_tap(d, w);
        rows(y, d.width * d.co, |row, y| {
            let (image, i) = (row / d.height, row % d.height);
            for y in y.chunks_exact_mut(d.co) {
                match bias {
                    Some(bias) => y.copy_from_slice(bias),
                    None => y.fill(T::default()),
                }
            }
            for u in 0..d.kernel {
                let Some(source) = d.source(i, u, d.height) else { continue };
                for v in 0..d.kernel {
                    let (range, first) = columns(d, v);
                    if range.is_empty() {
                        continue;
                    }
                    let x = &x[((image * d.height + source) * d.width + first) * d.ci..];
                    let w = &w[(u * d.kernel + v) * d.co..][..d.co];
                    let y = &mut y[range.start * d.co..range.end * d.co];
                    match d.each() {
                        1 => add_products(x, w, y),
                        each => add_spread(x, w, each, y),
                    }
                }
            }
        });
    }

    multiversion! {
        /// `y += x w` for pixels of as many channels as `w` has.
        fn add_products<T, FMA>(x: &[T], w: &[T], y: &mut [T]) {
            for (y, x) in y.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len())) {
                for (y, (&x, &w)) in y.iter_mut().zip(x.iter().zip(w)) {
                    *y = x.fma::<FMA>(w, *y);
                }
            }
        }
    }

    multiversion! {
        /// The same where each channel of `x` serves `each` of `y`.
        fn add_spread<T, FMA>(x: &[T], w: &[T], each: usize, y: &mut [T]) {
            for (y, x) in y.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len() / each)) {
                let parts = y.chunks_exact_mut(each).zip(w.chunks_exact(each));
                for ((y, w), &x) in parts.zip(x) {
                    for (y, &w) in y.iter_mut().zip(w) {
                        *y = x.fma::<FMA>(w, *y);
                    }
                }
            }
        }
    }

    pub(super) fn input_gradient<T: Lane>(d: &Dims, w: &[T], dy: &[T], dx: &mut [T]) {
        let (w, each) = (by_tap(d, w), d.each());
        rows(dx, d.ci, |pixel, dx| {
            let (row, j) = (pixel / d.width, pixel % d.width);
            let (image, i) = (row / d.height, row % d.height);
            dx.fill(T::default());
            for u in 0..d.kernel {
                // The output whose tap u sees this pixel is the source of the tap opposite.
                let Some(y) = d.source(i, d.kernel - 1 - u, d.height) else { continue };
                for v in 0..d.kernel {
                    let Some(x) = d.source(j, d.kernel - 1 - v, d.width) else { continue };
                    let dy = &dy[((image * d.height + y) * d.width + x) * d.co..][..d.co];
                    let w = &w[(u * d.kernel + v) * d.co..][..d.co];
                    let products = dy.chunks_exact(each).zip(w.chunks_exact(each));
                    for (dx, (dy, w)) in dx.iter_mut().zip(products) {
                        for (&dy, &w) in dy.iter().zip(w) {
                            *dx = dy.fma::<false>(w, *dx);
                        }
                    }
                }
            }
        });
    }

    /// Rows of pixels that are summed at a time; the order of the sums follows from it.
    const ROWS: usize = 16;

    pub(super) fn weight_gradient<T: Lane>(d: &Dims, x: &[T], dy: &[T], dw: &mut [T]) {
        let (all, taps) = (d.batch * d.height, d.kernel * d.kernel);
        let parts = map(all.div_ceil(ROWS), |part| {
            let mut sums = vec![0.0; d.co * taps];
            for row in part * ROWS..((part + 1) * ROWS).min(all) {
                add_row(d, row, x, dy, &mut sums);
            }
            sums
        });
        chunks(dw, taps, |at, dw| {
            for (k, dw) in dw.iter_mut().enumerate() {
                let (o, tap) = ((at + k) / taps, (at + k) % taps);
                *dw = T::from_f64(parts.iter().map(|part| part[tap * d.co + o]).sum());
            }
        });
    }

    /// Adds what a row of outputs says to `sums` `[k, k, Co]`.
    fn add_row<T: Lane>(d: &Dims, row: usize, x: &[T], dy: &[T], sums: &mut [f64]) {
        let (image, i, each) = (row / d.height, row % d.height, d.each());
        for u in 0..d.kernel {
            let Some(source) = d.source(i, u, d.height) else { continue };
            for v in 0..d.kernel {
                let (range, first) = columns(d, v);
                if range.is_empty() {
                    continue;
                }
                let x = &x[((image * d.height + source) * d.width + first) * d.ci..];
                let dy =
                    &dy[(row * d.width + range.start) * d.co..(row * d.width + range.end) * d.co];
                let sums = &mut sums[(u * d.kernel + v) * d.co..][..d.co];
                for (dy, x) in dy.chunks_exact(d.co).zip(x.chunks_exact(d.ci)) {
                    for (o, (sum, dy)) in sums.iter_mut().zip(dy).enumerate() {
                        *sum += dy.to_f64() * x[o / each].to_f64();
                    }
                }
            }
        }
    }
}
