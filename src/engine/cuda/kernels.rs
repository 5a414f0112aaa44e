//! A launcher for each of `kernels/*.cu`'s kernels: a struct with a field for each parameter, by name and kind.
//!
//! | the kernel declares | the field is |
//! |---|---|
//! | `const T *x` | `&Tensor`, of the type of the launch: that of the first such tensor |
//! | `T *y` | `&mut Tensor`, of the same type |
//! | `float *`, `__half *` | the same of F32, of F16 |
//! | `const int *`, `const unsigned long long *` | a table: `&Tensor` of F32 whose bits they are |
//! | a pointer `/* or null */` | an `Option` of it |
//! | `const __grid_constant__ TensorMap x` | `Mapped`: a tensor of the launch's type, and the boxes it is loaded in |
//! | `int`, `unsigned`, `unsigned long long`, `float` | `usize`, if it fits, `u32`, `u64`, `f32` |
//!
//! `launch(gpu, grid)` starts the kernel of the right type. It fails if a tensor is elsewhere or has other elements than
//! the kernel reads, in words: `silu_backward: dy is on the CPU`, `silu_backward: x is F16, dy is F32`. That shapes and
//! numbers belong together is the op's to see to, and so is the grid: that is why only this crate can launch.
//!
//! Arguments in each other's place do not compile:
//!
//! ```compile_fail,E0308
//! use srk::engine::{cuda::kernels, tensor::Tensor};
//! fn exchanged<'a>(x: &'a Tensor, y: &'a mut Tensor) -> kernels::clamp_forward<'a> {
//!     kernels::clamp_forward { x, y, low: 12, high: 1.0, finite: 0, n: 0.0 }
//! }
//! ```
//!
//! and those in their own do:
//!
//! ```
//! use srk::engine::{cuda::kernels, tensor::Tensor};
//! fn right<'a>(x: &'a Tensor, y: &'a mut Tensor) -> kernels::clamp_forward<'a> {
//!     kernels::clamp_forward { x, y, low: 0.0, high: 1.0, finite: 0, n: 12 }
//! }
//! ```
//!
//! A kernel that nothing launches is dead code, and the compiler says so.
#![allow(non_camel_case_types)] // Launchers have the names of their kernels.
use super::driver::Argument;
use super::gpu::{Gpu, Grid};
use super::kernel::Kernel;
use super::launch::{Call, Mapped};
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::Result;

include!(concat!(env!("OUT_DIR"), "/launchers.rs"));
