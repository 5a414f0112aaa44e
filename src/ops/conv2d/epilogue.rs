//! What follows the sums of a convolution on a GPU, whichever kernel finds them.
use std::cell::RefCell;

use super::blocks::pack;
use super::{Activation, Dims};
use crate::engine::cuda::Gpu;
use crate::engine::device::DType;
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::ops::group_norm::moments;

/// What becomes of a sum before it is written:
/// `y = scale activation(sum + bias + shift) + of_residual residual + of_second second`.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Epilogue<'a> {
    /// `[Co]`.
    pub(in crate::ops) bias: Option<&'a Tensor>,
    /// `[N, M]`: one number an image and channel.
    pub(in crate::ops) shift: Option<&'a Tensor>,
    /// Which of the M is the first channel's.
    pub(in crate::ops) shift_first: usize,
    /// Whether the shift is added behind the activation.
    pub(in crate::ops) late: bool,
    pub(in crate::ops) activation: Activation,
    /// Of leaky ReLU where there are no slopes.
    pub(in crate::ops) slope: f64,
    /// `[Co]` or `[1]`.
    pub(in crate::ops) slopes: Option<&'a Tensor>,
    pub(in crate::ops) scale: f64,
    /// As the output.
    pub(in crate::ops) residual: Option<&'a Tensor>,
    pub(in crate::ops) of_residual: f64,
    /// As the output.
    pub(in crate::ops) second: Option<&'a Tensor>,
    pub(in crate::ops) of_second: f64,
}

impl Default for Epilogue<'_> {
    fn default() -> Self {
        Self {
            bias: None,
            shift: None,
            shift_first: 0,
            late: false,
            activation: Activation::None,
            slope: 1.0,
            slopes: None,
            scale: 1.0,
            residual: None,
            of_residual: 1.0,
            second: None,
            of_second: 1.0,
        }
    }
}

impl Epilogue<'_> {
    /// Whether the sum stays as it is.
    pub(super) fn is_none(&self) -> bool {
        let none = [self.bias, self.shift, self.residual, self.second].iter().all(Option::is_none);
        #[allow(clippy::float_cmp)] // What a caller left at 1.
        let unscaled = self.scale == 1.0;
        none && unscaled && self.activation == Activation::None
    }
}

/// Starts the one of several kernels that a pattern picks, whose arguments are these and an epilogue's.
macro_rules! launch_with {
    ($epilogue:ident, $gpu:expr, $grid:expr, match $which:tt $kernels:tt { $($fields:tt)* }) => {
        launch_one_of!($gpu, $grid, match $which $kernels {
            $($fields)*
            bias: $epilogue.bias,
            shift: $epilogue.shift,
            slopes: $epilogue.slopes,
            residual: $epilogue.residual,
            second: $epilogue.second,
            activation: $epilogue.activation as usize,
            shift_first: $epilogue.shift_first,
            shift_stride: $epilogue.shift.map_or(0, |shift| shift.shape()[1]),
            late: $epilogue.late.into(),
            slope_stride: $epilogue.slopes.is_some_and(|slopes| slopes.len() > 1).into(),
            slope: f32::from_f64($epilogue.slope),
            scale: f32::from_f64($epilogue.scale),
            of_residual: f32::from_f64($epilogue.of_residual),
            of_second: f32::from_f64($epilogue.of_second),
        })
    };
}
pub(super) use launch_with;

/// What a convolution is to find of its output for the norm of so many groups that follows.
pub(super) struct Found {
    pub(super) moments: RefCell<Tensor>,
    pub(super) groups: usize,
    pub(super) run: usize,
    /// Of an entry of the moments.
    pub(super) pixels: usize,
}

impl Found {
    /// Of the output of `d`, if its kernels find anything of it.
    pub(super) fn of(
        gpu: &Gpu,
        d: &Dims,
        dtype: DType,
        groups: Option<usize>,
    ) -> Result<Option<Self>> {
        let dims = [d.batch, d.out_height(), d.out_width(), d.co];
        let Some(groups) = groups.filter(|_| d.ci.is_multiple_of(pack(dtype))) else {
            return Ok(None);
        };
        let empty = moments::empty(gpu, dtype, dims, groups)?;
        let found = |empty| {
            let pixels = moments::pixels(&empty, dims[1] * dims[2]);
            Self { moments: RefCell::new(empty), groups, run: moments::run(d.co, groups), pixels }
        };
        Ok(empty.map(found))
    }

    pub(super) fn into_moments(self) -> Tensor {
        self.moments.into_inner()
    }
}
