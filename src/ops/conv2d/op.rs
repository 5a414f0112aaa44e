//! The op, its sizes, and its entry on the tape.
use super::tuned::held_rows;
use crate::engine::cuda::{Convolution, Pass, kernels};
use crate::engine::device::{DType, Device};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// See the [module](super) for the formulas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Distance between the windows of neighbouring outputs.
    pub stride: usize,
    /// Zeros added on each side.
    pub pad: usize,
    /// Whether the output passes through ReLU.
    pub relu: bool,
}

impl Tape {
    /// The convolution of `x` with `w`, plus the bias `b` if there is one.
    pub fn conv2d(&mut self, x: &Var, w: &Var, b: Option<&Var>, op: Conv2d) -> Result<Var> {
        match b {
            Some(b) => self.apply(op, &[x, w, b]),
            None => self.apply(op, &[x, w]),
        }
    }
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

    pub(super) fn dims(&self, x: &Tensor, w: &Tensor) -> Result<Dims> {
        self.dims_of(x.nhwc("conv2d")?, x, w)
    }

    /// The sizes for maps `[batch, height, width, ci]`, of which `x` is the first.
    pub(super) fn dims_of(
        &self,
        [batch, height, width, ci]: [usize; 4],
        x: &Tensor,
        w: &Tensor,
    ) -> Result<Dims> {
        const OP: &str = "conv2d";
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
    /// `x`, multiplied by a slope where it is not positive: leaky or parametric ReLU.
    Leaky = kernels::Activation::LEAKY as isize,
    /// `x tanh(ln(1 + e^x))`.
    Mish = kernels::Activation::MISH as isize,
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
    pub(super) fn problem(&self, pass: Pass, dtype: DType) -> Convolution {
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

    pub(in crate::ops) const fn out_height(&self) -> usize {
        (self.height + 2 * self.pad - self.kernel) / self.stride + 1
    }
    pub(in crate::ops) const fn out_width(&self) -> usize {
        (self.width + 2 * self.pad - self.kernel) / self.stride + 1
    }

    /// The convolution of the output's gradient that gives the input's, for stride 1.
    pub(super) const fn back(&self) -> Self {
        Self {
            height: self.out_height(),
            width: self.out_width(),
            ci: self.co,
            co: self.ci,
            pad: self.kernel - 1 - self.pad,
            ..*self
        }
    }

    /// Memory for the output, in the manner of the input `x`: on the CPU of the rows that are [asked for](held_rows).
    pub(super) fn output(&self, x: &Tensor) -> Result<Tensor> {
        let rows = match x.device() {
            Device::Cpu => held_rows(self.batch, self.out_height()).len(),
            Device::Cuda(_) => self.out_height(),
        };
        Tensor::empty_as(x, &[self.batch, rows, self.out_width(), self.co])
    }
}
