//! Convolutions and matrix products that libraries beside the driver can do instead of our kernels.
use std::fmt::Debug;

use super::pointer::DevicePointer;
use crate::engine::device::DType;
use crate::error::Result;

/// Which result of a convolution is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// y from x and w.
    Forward,
    /// dx from w and dy.
    InputGradient,
    /// dw from x and dy.
    WeightGradient,
}

/// A convolution without bias: x `[N, H, W, Ci]`, w `[Co, k, k, Ci]`, y `[N, Ho, Wo, Co]`, all of one
/// element type and without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// What is computed.
    pub pass: Pass,
    /// Element type of all three.
    pub dtype: DType,
    /// N, H, W, Ci.
    pub input: [usize; 4],
    /// Co.
    pub outputs: usize,
    /// k.
    pub kernel: usize,
    /// Distance between windows.
    pub stride: usize,
    /// Zeros on each side.
    pub pad: usize,
}

impl Convolution {
    /// Ho and Wo.
    pub fn output_size(&self) -> [usize; 2] {
        let out = |side: usize| (side + 2 * self.pad - self.kernel) / self.stride + 1;
        let [_, height, width, _] = self.input;
        [out(height), out(width)]
    }

    /// The matrix product that this is, if the kernel is one pixel.
    pub fn as_product(&self) -> Option<Product> {
        let [n, height, width, ci] = self.input;
        if (self.kernel, self.stride, self.pad) != (1, 1, 0) {
            return None;
        }
        let (pixels, co) = (n * height * width, self.outputs);
        let product = |rows, columns, inner, transposed| Product {
            dtype: self.dtype,
            rows,
            columns,
            inner,
            transposed,
            batch: 1,
        };
        Some(match self.pass {
            Pass::Forward => product(pixels, co, ci, [false, true]),
            Pass::InputGradient => product(pixels, ci, co, [false, false]),
            Pass::WeightGradient => product(co, ci, pixels, [true, false]),
        })
    }
}

/// `batch` products `C[rows, columns] = A[rows, inner] B[inner, columns]` of row-major matrices that
/// lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Element type of all three; sums are in f32.
    pub dtype: DType,
    /// Rows of C.
    pub rows: usize,
    /// Columns of C.
    pub columns: usize,
    /// The axis that is summed over.
    pub inner: usize,
    /// Whether A, and B, lie in memory as their transposes.
    pub transposed: [bool; 2],
    /// How many.
    pub batch: usize,
}

/// What was found beside the driver. Work goes into the driver's stream, in order; calls may be
/// recorded. Results do not vary from run to run, and f32 is computed in f32.
pub trait Libraries: Debug + Send + Sync {
    /// Name and version of each: `cudnn` and `cublas`.
    fn versions(&self) -> Vec<(&'static str, String)>;

    /// Why the library called `name` is not among them.
    fn why_not(&self, name: &str) -> String;

    /// How many ways cuDNN has to do `problem`, the most promising first; none without cuDNN.
    fn plans(&self, problem: &Convolution) -> usize;

    /// Does `problem` in one of these ways; x, w and y (or their gradients) in this order.
    ///
    /// # Errors
    /// If there is no such plan or it fails.
    ///
    /// # Safety
    /// Each address begins a tensor of the size that `problem` says, in a block of the driver's memory that is not
    /// freed; the one that is written overlaps none of the others.
    unsafe fn convolve(
        &self,
        problem: &Convolution,
        plan: usize,
        tensors: [DevicePointer; 3],
    ) -> Result<()>;

    /// Whether cuBLASLt does `product`.
    fn multiplies(&self, product: &Product) -> bool;

    /// `C = A B`; the tensors are A, B, C.
    ///
    /// # Errors
    /// If there is no cuBLASLt or it fails.
    ///
    /// # Safety
    /// As for [`convolve`](Self::convolve), with the matrices of `product`.
    unsafe fn multiply(&self, product: &Product, tensors: [DevicePointer; 3]) -> Result<()>;
}
