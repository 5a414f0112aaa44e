//! Element types, and the arithmetic of those of the CPU.
use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

/// Element types. The CPU holds `F32` and `F64`, a GPU `F32`, `F16` and `BF16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
    /// Single precision: what models run in on the CPU.
    F32,
    /// Double precision: what gradients are checked in.
    F64,
}

impl DType {
    /// Bytes an element takes.
    pub const fn size(self) -> usize {
        match self {
            Self::F16 | Self::BF16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

/// The arithmetic a CPU op needs; `f32` is the product, `f64` the gradient check.
pub trait Real:
    Copy
    + Debug
    + Default
    + Send
    + Sync
    + 'static
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + Sum
{
    /// The type as a runtime value.
    const DTYPE: DType;
    /// The nearest value to `v`.
    fn from_f64(v: f64) -> Self;
    /// The same value in double precision.
    fn to_f64(self) -> f64;
    /// `e^self`.
    fn exp(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// The error function.
    fn erf(self) -> Self;
    /// The hyperbolic tangent.
    fn tanh(self) -> Self;
    /// The absolute value.
    fn abs(self) -> Self;
}

macro_rules! impl_real {
    ($t:ty, $dtype:ident, $erf:path) => {
        impl Real for $t {
            const DTYPE: DType = DType::$dtype;
            #[allow(clippy::cast_possible_truncation)] // Narrowing is what this function is for.
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                self.exp()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn erf(self) -> Self {
                $erf(self)
            }
            fn tanh(self) -> Self {
                self.tanh()
            }
            fn abs(self) -> Self {
                self.abs()
            }
        }
    };
}
impl_real!(f32, F32, libm::erff);
impl_real!(f64, F64, libm::erf);
