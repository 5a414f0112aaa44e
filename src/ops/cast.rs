//! Change of element type, such as to run a part of a network in half precision.
//!
//! ```text
//! y  = x, rounded to the nearest element of the type
//! dx = dy, as the type of x
//! ```
use crate::engine::device::DType;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// `x` with elements of type `to`.
    pub fn cast(&mut self, x: &Var, to: DType) -> Result<Var> {
        self.apply(Cast { to }, &[x])
    }
}

/// See the [module](self) for the formulas. The kernels are those of [`Tensor::cast`].
#[derive(Debug)]
pub struct Cast {
    /// The type of the output's elements.
    pub to: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("cast takes one input") };
        Ok((x.cast(self.to)?, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x] = call.inputs else { unreachable!("cast takes one input") };
        Ok(vec![Some(dy.cast(x.dtype())?)])
    }
}

/// An odd length, and several blocks. Not against finite differences, which f32 would round away;
/// `tests/suite/ops_gpu.rs` has the other pairs of types.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Cast { to: DType::F32 }, &[&[3, 5, 7]]).kernel_only(),
        OpCase::new(|| Cast { to: DType::F32 }, &[&[4099]]).kernel_only(),
    ]
}
