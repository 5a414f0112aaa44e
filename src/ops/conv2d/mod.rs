//! 2-D convolution with square kernels, optionally fused with ReLU.
//!
//! x: `[N, H, W, Ci]`, w: `[Co, k, k, Ci]`, b: `[Co]` or absent, y: `[N, Ho, Wo, Co]` with
//! `Ho = (H + 2 pad - k) / stride + 1`. With `z` the value before ReLU:
//!
//! ```text
//! z[n,i,j,o] = b[o] + sum_{u,v,c} w[o,u,v,c] x[n, i s + u - p, j s + v - p, c]      y = relu?(z)
//!
//! dz = dy [y > 0] or dy             db[o]       = sum_{n,i,j} dz[n,i,j,o]
//! dx = conv of dz with w flipped    dw[o,u,v,c] = sum_{n,i,j} dz[n,i,j,o] x[n, i s + u - p, ...]
//! ```
//!
//! On the CPU `fast` serves f32 with stride 1, "same" padding and kernels 3 or 1 on x86 with AVX2 or
//! better; `general` everything else. Both are tested against each other in every case.
pub(in crate::ops) mod cuda;
mod engines;
mod finish;
mod fused;
pub(in crate::ops) mod general;
mod sloped;

#[cfg(target_arch = "x86_64")]
mod fast;
#[cfg(target_arch = "x86_64")]
mod simd;

use self::cuda::Epilogue;
use self::finish::After;
pub use self::fused::Then;
use crate::engine::cuda::{Convolution, Pass, kernels};
use crate::engine::device::{DType, Real};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::conv_transpose2d::ConvTranspose2d;
use crate::ops::parallel;

impl Tape {
    /// The convolution of `x` with `w`, plus the bias `b` if there is one.
    pub fn conv2d(&mut self, x: &Var, w: &Var, b: Option<&Var>, op: Conv2d) -> Result<Var> {
        match b {
            Some(b) => self.apply(op, &[x, w, b]),
            None => self.apply(op, &[x, w]),
        }
    }
}

/// See the [module](self) for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Distance between the windows of neighbouring outputs.
    pub stride: usize,
    /// Zeros added on each side.
    pub pad: usize,
    /// Whether the output passes through ReLU.
    pub relu: bool,
}

impl Conv2d {
    /// Stride 1 and the padding that keeps the size, for an odd kernel.
    pub const fn same(kernel: usize) -> Self {
        Self { stride: 1, pad: kernel / 2, relu: false }
    }

    /// The same convolution followed by ReLU.
    pub const fn relu(self) -> Self {
        Self { relu: true, ..self }
    }

    fn dims(&self, x: &Tensor, w: &Tensor) -> Result<Dims> {
        const OP: &str = "conv2d";
        let [batch, height, width, ci] = x.nhwc(OP)?;
        let [co, kernel, kernel_w, w_ci] = w.nhwc(OP)?;
        if kernel != kernel_w || w_ci != ci {
            return Err(Error::shape(OP, format!("weight [Co, k, k, {ci}]"), w.shape()));
        }
        if height + 2 * self.pad < kernel || width + 2 * self.pad < kernel {
            let expected = format!("height and width of at least {}", kernel - 2 * self.pad);
            return Err(Error::shape(OP, expected, x.shape()));
        }
        Ok(Dims { batch, height, width, ci, co, kernel, stride: self.stride, pad: self.pad })
    }
}

/// Runs `body`, whose convolutions of single images on the CPU may leave all output rows but those from `rows[0]` to
/// `rows[1]` undefined: what a caller would throw away need not be computed.
pub fn rows_alone<R>(rows: [usize; 2], body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        fast::rows_alone(rows, body)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = rows;
        body()
    }
}

/// Runs `body` with convolutions of the CPU as plain sums: two digits of f32 more than the transforms of
/// the fast path leave, and several times slower. For comparisons where a sign near zero matters.
pub fn precisely<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    return fast::precisely(body);
    #[cfg(not(target_arch = "x86_64"))]
    body()
}

/// What is applied to the sum of a convolution; the numbers are the kernels'.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    #[default]
    None = kernels::Activation::NONE as isize,
    /// `max(x, 0)`.
    Relu = kernels::Activation::RELU as isize,
    /// `x sigmoid(x)`.
    Silu = kernels::Activation::SILU as isize,
}

/// The sizes that every implementation needs.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Dims {
    pub(in crate::ops) batch: usize,
    pub(in crate::ops) height: usize,
    pub(in crate::ops) width: usize,
    pub(in crate::ops) ci: usize,
    pub(in crate::ops) co: usize,
    pub(in crate::ops) kernel: usize,
    pub(in crate::ops) stride: usize,
    pub(in crate::ops) pad: usize,
}

impl Dims {
    /// What a library is told of this convolution.
    fn problem(&self, pass: Pass, dtype: DType) -> Convolution {
        Convolution {
            pass,
            dtype,
            input: [self.batch, self.height, self.width, self.ci],
            outputs: self.co,
            kernel: self.kernel,
            stride: self.stride,
            pad: self.pad,
        }
    }

    const fn out_height(&self) -> usize {
        (self.height + 2 * self.pad - self.kernel) / self.stride + 1
    }
    const fn out_width(&self) -> usize {
        (self.width + 2 * self.pad - self.kernel) / self.stride + 1
    }
}

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, w) = (inputs[0], inputs[1]);
        let d = self.dims(x, w)?;
        if let Some(b) = inputs.get(2).filter(|b| b.shape() != [d.co]) {
            return Err(Error::shape("conv2d", format!("bias [{}]", d.co), b.shape()));
        }
        let mut y = Tensor::empty_as(x, &[d.batch, d.out_height(), d.out_width(), d.co])?;
        on_device!(x,
            cpu::<T> => {
                let bias = inputs.get(2).map(|b| b.cpu::<T>()).transpose()?;
                cpu::forward::<T>(&d, After::of(self.relu), x.cpu()?, w.cpu()?, bias, y.cpu_mut()?);
            },
            cuda(gpu) => {
                let activation = if self.relu { Activation::Relu } else { Activation::None };
                let bias = inputs.get(2).copied();
                let epilogue = Epilogue { bias, activation, ..Epilogue::default() };
                cuda::forward(&gpu, &d, x, w, epilogue, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (call.inputs[0], call.inputs[1]);
        let d = self.dims(x, w)?;
        let masked = if self.relu { Some(relu_mask(call.output, dy)?) } else { None };
        let dz = masked.as_ref().unwrap_or(dy);
        let mut grads = call.empty_gradients()?;
        on_device!(x,
            cpu::<T> => {
                if let Some(dx) = &mut grads[0] {
                    cpu::input_gradient::<T>(&d, w.cpu()?, dz.cpu()?, dx.cpu_mut()?);
                }
                if let Some(dw) = &mut grads[1] {
                    cpu::weight_gradient::<T>(&d, x.cpu()?, dz.cpu()?, dw.cpu_mut()?);
                }
                if let Some(Some(db)) = grads.get_mut(2) {
                    parallel::sum_rows::<T>(dz.cpu()?, db.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = &mut grads[0] {
                    cuda::input_gradient(&gpu, &d, w, dz, Epilogue::default(), dx)?;
                }
                if let Some(dw) = &mut grads[1] {
                    cuda::weight_gradient(&gpu, &d, x, dz, dw)?;
                }
                if let Some(Some(db)) = grads.get_mut(2) {
                    cuda::sum_rows(&gpu, dz, db)?;
                }
            }
        );
        Ok(grads)
    }

    /// By its input: a transposed convolution, with the rows and columns that no window reached.
    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        if call.wants[1..].contains(&true) {
            let what = "a second derivative by its weights".to_owned();
            return Err(Error::Unsupported { op: self.name(), what });
        }
        let (x, w) = (&call.inputs[0], &call.inputs[1]);
        let dz = match self.relu {
            true => tape.leaky_relu_gradient(call.output, dy, 0.0)?,
            false => dy.clone(),
        };
        let unread = |side: usize| (side + 2 * self.pad - w.shape()[1]) % self.stride;
        let [rows, columns] = [unread(x.shape()[1]), unread(x.shape()[2])];
        let op = ConvTranspose2d::new(self.stride, self.pad).extra(rows, columns);
        Ok(vec![Some(tape.conv_transpose2d(&dz, w, None, op)?), None, None])
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let (x, w) = (inputs[0], inputs[1]);
        let out = |side: usize| (side + 2 * self.pad - w[1]) / self.stride + 1;
        2 * (x[0] * out(x[1]) * out(x[2]) * w.iter().product::<usize>()) as u64
    }
}

/// `dy` where `y` is positive, else 0.
fn relu_mask(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let mut dz = Tensor::empty_as(dy, dy.shape())?;
    on_device!(y,
        cpu::<T> => {
            let zero = T::default();
            parallel::zip3(dz.cpu_mut::<T>()?, y.cpu()?, dy.cpu()?, |dz, &y, &dy| {
                *dz = if y > zero { dy } else { zero };
            });
        },
        cuda(gpu) => cuda::relu_mask(&gpu, y, dy, &mut dz)?,
    );
    Ok(dz)
}

/// The fast path's edges (tiles over the border, channels that fill no vector, one pixel), strides,
/// even kernels, kernels larger than the map; and the sizes of PERFORMANCE's peers.
pub fn cases() -> Vec<OpCase> {
    let same = |k: usize, x: [usize; 4], co: usize, relu: bool| {
        let op = Conv2d { relu, ..Conv2d::same(k) };
        OpCase::new(move || op, &[&x, &[co, k, k, x[3]], &[co]])
            // Winograd's transforms cost about two digits of f32 (Lavin & Gray 2016, section 4).
            .f32_tol(2e-5)
    };
    let strided = |k: usize, stride: usize, pad: usize, x: [usize; 4], co: usize| {
        let op = Conv2d { stride, pad, relu: false };
        OpCase::new(move || op, &[&x, &[co, k, k, x[3]], &[co]])
    };
    let mut cases = vec![
        same(3, [2, 5, 7, 3], 4, false),
        same(3, [2, 9, 4, 17], 3, false),
        same(3, [2, 4, 8, 2], 16, true),
        same(3, [1, 3, 4, 18], 17, false),
        same(3, [1, 1, 1, 5], 2, false),
        same(1, [2, 3, 5, 6], 7, false),
        same(1, [2, 7, 5, 18], 33, true),
        strided(4, 2, 1, [2, 6, 7, 3], 2),
        strided(3, 2, 1, [1, 5, 5, 4], 3),
        strided(5, 1, 2, [1, 3, 2, 2], 3),
        OpCase::new(|| Conv2d::same(3), &[&[1, 5, 6, 4], &[3, 3, 3, 4]]).f32_tol(2e-5),
        // The blocks of the kernels: several in every direction, every width, split sums.
        same(3, [1, 12, 13, 64], 67, true).kernel_only(),
        same(3, [1, 12, 13, 8], 130, false).kernel_only(),
        same(1, [2, 15, 14, 72], 128, false).kernel_only(),
        same(3, [1, 24, 25, 6], 31, false).kernel_only(),
        same(3, [1, 24, 25, 8], 16, false).kernel_only(),
        same(3, [1, 5, 6, 80], 72, false).kernel_only(),
        strided(4, 2, 1, [1, 11, 9, 16], 24).kernel_only(),
        strided(3, 3, 0, [1, 9, 9, 8], 8).kernel_only(),
        strided(3, 2, 1, [2, 9, 8, 16], 8).kernel_only(),
        same(3, [1, 128, 128, 64], 64, false).timed_only(),
        same(3, [1, 64, 64, 128], 128, false).timed_only(),
        same(3, [1, 32, 32, 256], 256, false).timed_only(),
        same(1, [1, 128, 128, 64], 64, false).timed_only(),
    ];
    cases.extend(fused::cases());
    cases.extend(sloped::cases());
    cases
}

mod cpu {
    use super::{After, DType, Dims, Real, general};
    use crate::ops::parallel;

    pub(super) fn forward<T: Real>(
        d: &Dims,
        then: After<'_, T>,
        x: &[T],
        w: &[T],
        bias: Option<&[T]>,
        y: &mut [T],
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(k) = fast_path::<T>(d) {
            let (x, w, y) = (as_f32(x), as_f32(w), as_f32_mut(y));
            let packed = super::fast::pack(k, d, w, false);
            let then = match then {
                After::Nothing => After::Nothing,
                After::Relu => After::Relu,
                After::Slopes(slopes) => After::Slopes(as_f32(slopes)),
            };
            return super::fast::convolve(k, d, x, &packed, bias.map(as_f32), then, y);
        }
        general::forward(d, x, w, bias, y);
        let zero = T::default();
        match then {
            After::Nothing => {}
            After::Relu => y.iter_mut().filter(|v| **v < zero).for_each(|v| *v = zero),
            After::Slopes(slopes) => parallel::rows(y, d.co, |_, y| {
                for (v, &slope) in y.iter_mut().zip(slopes.iter().cycle()) {
                    *v = if *v > zero { *v } else { slope * *v };
                }
            }),
        }
    }

    pub(super) fn input_gradient<T: Real>(d: &Dims, w: &[T], dy: &[T], dx: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(k) = fast_path::<T>(d) {
            let packed = super::fast::pack(k, d, as_f32(w), true);
            let dx = as_f32_mut(dx);
            return super::fast::convolve(k, d, as_f32(dy), &packed, None, After::Nothing, dx);
        }
        general::input_gradient(d, w, dy, dx);
    }

    pub(super) fn weight_gradient<T: Real>(d: &Dims, x: &[T], dy: &[T], dw: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(k) = fast_path::<T>(d) {
            return super::fast::weight_gradient(k, d, as_f32(x), as_f32(dy), as_f32_mut(dw));
        }
        general::weight_gradient(d, x, dy, dw);
    }

    /// The condition of the fast path, and the instruction set it runs on.
    #[cfg(target_arch = "x86_64")]
    fn fast_path<T: Real>(d: &Dims) -> Option<&'static super::fast::Kernels> {
        let same = d.stride == 1 && matches!((d.kernel, d.pad), (3, 1) | (1, 0));
        // Below this the padding of the channels to 16 costs more than the transforms save.
        let wide = d.ci.max(d.co) >= 16;
        // On the few pixels of a deep level transforming the weights costs more than all products. Tiles of
        // a larger image are never so small: a tile computes what the whole would.
        let many = d.batch * d.height * d.width >= 64;
        (T::DTYPE == DType::F32 && same && wide && many).then(super::fast::chosen).flatten()
    }

    #[cfg(target_arch = "x86_64")]
    fn as_f32<T: Real>(v: &[T]) -> &[f32] {
        assert!(T::DTYPE == DType::F32, "only f32 takes the fast path");
        // SAFETY: DTYPE F32 is implemented by f32 alone.
        unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), v.len()) }
    }

    #[cfg(target_arch = "x86_64")]
    fn as_f32_mut<T: Real>(v: &mut [T]) -> &mut [f32] {
        assert!(T::DTYPE == DType::F32, "only f32 takes the fast path");
        // SAFETY: DTYPE F32 is implemented by f32 alone.
        unsafe { std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), v.len()) }
    }
}
