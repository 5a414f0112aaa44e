//! Transposed 2-D convolution with square kernels: the input gradient of a [convolution](super::conv2d).
//!
//! x: `[N, H, W, Ci]`, w: `[Ci, k, k, Co]`, b: `[Co]` or absent, y: `[N, Ho, Wo, Co]` with
//! `Ho = (H - 1) stride - 2 pad + k + extra`.
//!
//! ```text
//! y[n, i s + u - p, j s + v - p, o] += w[c,u,v,o] x[n,i,j,c]      (+ b[o] once)
//!
//! dx = conv of dy with w     dw = weight gradient of that convolution     db[o] = sum dy[..,o]
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::conv2d::cuda::{self, Epilogue};
use crate::ops::conv2d::cuda_weights::{self, OutputSums};
use crate::ops::conv2d::{After, Conv2d, Dims, cpu};
use crate::ops::parallel;

impl Tape {
    /// The transposed convolution of `x` with `w`, plus the bias `b` if there is one.
    pub fn conv_transpose2d(
        &mut self,
        x: &Var,
        w: &Var,
        b: Option<&Var>,
        op: ConvTranspose2d,
    ) -> Result<Var> {
        match b {
            Some(b) => self.apply(op, &[x, w, b]),
            None => self.apply(op, &[x, w]),
        }
    }
}

/// See the [module](self) for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvTranspose2d {
    /// Distance in the output between the windows of neighbouring inputs.
    pub stride: usize,
    /// Rows and columns cut off each side of the output.
    pub pad: usize,
    /// Rows and columns that the output has beyond the last window, fewer than `stride`: of the sizes that a
    /// convolution rounds down to one, which is meant. PyTorch's `output_padding`.
    pub extra: [usize; 2],
}

impl ConvTranspose2d {
    /// Of this stride and padding, without extra rows and columns.
    pub const fn new(stride: usize, pad: usize) -> Self {
        Self { stride, pad, extra: [0, 0] }
    }

    /// The same with `rows` and `columns` more at the end.
    pub const fn extra(self, rows: usize, columns: usize) -> Self {
        Self { extra: [rows, columns], ..self }
    }

    /// The sizes of the convolution from y to x whose input gradient this is.
    fn dims(&self, x: &Tensor, w: &Tensor) -> Result<Dims> {
        const OP: &str = "conv_transpose2d";
        let [batch, height, width, ci] = x.nhwc(OP)?;
        let [w_ci, kernel, kernel_w, co] = w.nhwc(OP)?;
        if kernel != kernel_w || w_ci != ci {
            return Err(Error::shape(OP, format!("weight [{ci}, k, k, Co]"), w.shape()));
        }
        if self.extra.iter().any(|&e| e > 0 && e >= self.stride) {
            let expected = format!("fewer extra rows and columns than the stride {}", self.stride);
            return Err(Error::shape(OP, expected, &self.extra));
        }
        let out = |side: usize, extra: usize| {
            ((side.checked_sub(1)?) * self.stride + kernel + extra).checked_sub(2 * self.pad)
        };
        let [rows, columns] = self.extra;
        let (Some(height), Some(width)) = (out(height, rows), out(width, columns)) else {
            return Err(Error::shape(
                OP,
                format!("an output left by padding {}", self.pad),
                x.shape(),
            ));
        };
        let (stride, pad) = (self.stride, self.pad);
        Ok(Dims { batch, height, width, ci: co, co: ci, kernel, stride, pad })
    }
}

impl Op for ConvTranspose2d {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, w) = (inputs[0], inputs[1]);
        let d = self.dims(x, w)?;
        if let Some(b) = inputs.get(2).filter(|b| b.shape() != [d.ci]) {
            return Err(Error::shape("conv_transpose2d", format!("bias [{}]", d.ci), b.shape()));
        }
        let mut y = Tensor::empty_as(x, &[d.batch, d.height, d.width, d.ci])?;
        on_device!(x,
            cpu::<T> => {
                cpu::input_gradient::<T>(&d, w.cpu()?, x.cpu()?, y.cpu_mut()?);
                if let Some(b) = inputs.get(2) {
                    parallel::add_to_rows::<T>(y.cpu_mut()?, b.cpu()?);
                }
            },
            cuda(gpu) => {
                let epilogue = Epilogue { bias: inputs.get(2).copied(), ..Epilogue::default() };
                cuda::input_gradient(&gpu, &d, w, x, epilogue, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (call.inputs[0], call.inputs[1]);
        let d = self.dims(x, w)?;
        let mut grads = call.empty_gradients()?;
        on_device!(x,
            cpu::<T> => {
                if let Some(dx) = &mut grads[0] {
                    cpu::forward::<T>(&d, After::Nothing, dy.cpu()?, w.cpu()?, None, dx.cpu_mut()?);
                }
                if let Some(dw) = &mut grads[1] {
                    cpu::weight_gradient::<T>(&d, dy.cpu()?, x.cpu()?, dw.cpu_mut()?);
                }
                if let Some(Some(db)) = grads.get_mut(2) {
                    parallel::sum_rows::<T>(dy.cpu()?, db.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = &mut grads[0] {
                    cuda::forward(&gpu, &d, dy, w, Epilogue::default(), dx)?;
                }
                if let Some(dw) = &mut grads[1] {
                    cuda_weights::weight_gradient(&gpu, &d, dy, x, dw, OutputSums::default())?;
                }
                if let Some(Some(db)) = grads.get_mut(2) {
                    cuda_weights::sum_rows(&gpu, dy, db)?;
                }
            }
        );
        Ok(grads)
    }

    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        if call.wants[1..].contains(&true) {
            let what = "a second derivative by its weights".to_owned();
            return Err(Error::Unsupported { op: self.name(), what });
        }
        let op = Conv2d { stride: self.stride, pad: self.pad, relu: false };
        Ok(vec![Some(tape.conv2d(dy, &call.inputs[1], None, op)?), None, None])
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let (x, w) = (inputs[0], inputs[1]);
        2 * (x[0] * x[1] * x[2] * w.iter().product::<usize>()) as u64
    }
}

/// The kernels of the published networks: 2 stride 2, 4 stride 2 pad 1, 3 stride 2 pad 1 with and without
/// extra rows, 3 stride 1; of the teaching networks 3 stride 2, 4 stride 1 and 2.
pub fn cases() -> Vec<OpCase> {
    let of = |kernel: usize, op: ConvTranspose2d, x: [usize; 4], co: usize| {
        OpCase::new(move || op, &[&x, &[x[3], kernel, kernel, co], &[co]])
    };
    let case = |kernel: usize, stride: usize, pad: usize, x: [usize; 4], co: usize| {
        of(kernel, ConvTranspose2d::new(stride, pad), x, co)
    };
    vec![
        case(2, 2, 0, [2, 3, 2, 3], 2),
        case(4, 2, 1, [1, 3, 4, 2], 3),
        case(3, 2, 1, [1, 2, 3, 3], 2),
        case(3, 1, 1, [1, 1, 4, 2], 2),
        case(3, 2, 0, [2, 1, 1, 3], 4),
        case(4, 1, 0, [1, 3, 2, 3], 2),
        case(4, 2, 0, [1, 3, 4, 2], 1),
        of(3, ConvTranspose2d::new(2, 1).extra(1, 1), [1, 3, 2, 3], 2),
        of(4, ConvTranspose2d::new(2, 0).extra(1, 0), [2, 2, 3, 2], 3),
        of(3, ConvTranspose2d::new(3, 0).extra(2, 1), [1, 2, 2, 2], 2),
        OpCase::new(|| ConvTranspose2d::new(2, 1), &[&[1, 2, 2, 2], &[2, 4, 4, 3]]),
        case(4, 2, 1, [1, 9, 8, 16], 40).kernel_only(),
        case(2, 2, 0, [2, 5, 7, 8], 67).kernel_only(),
        of(3, ConvTranspose2d::new(2, 1).extra(1, 1), [1, 7, 6, 24], 40).kernel_only(),
        case(4, 2, 1, [1, 64, 64, 128], 64).timed_only(),
    ]
}
