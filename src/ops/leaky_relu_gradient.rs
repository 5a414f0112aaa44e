//! The gradient of [leaky ReLU](super::leaky_relu) as an op: what a second derivative passes through. With
//! slope 0 and an output of ReLU for x it is the gradient of ReLU.
//!
//! ```text
//! dx  = dy where x > 0, else slope dy
//! ddy = the same of what comes in;    by x it is zero wherever it exists
//! ```
use super::{leaky_relu, same_shape};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// `dy`, multiplied by `slope` where `x` is not positive.
    pub fn leaky_relu_gradient(&mut self, x: &Var, dy: &Var, slope: f64) -> Result<Var> {
        self.apply(LeakyReluGradient { slope }, &[x, dy])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct LeakyReluGradient {
    /// The factor where x is not positive.
    pub slope: f64,
}

impl Op for LeakyReluGradient {
    fn name(&self) -> &'static str {
        "leaky_relu_gradient"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, dy] = inputs else { unreachable!("leaky_relu_gradient takes two inputs") };
        same_shape(self.name(), x, dy)?;
        Ok((leaky_relu::gradient(self.slope, x, dy)?, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let passed = call.wants[1].then(|| leaky_relu::gradient(self.slope, call.inputs[0], dy));
        Ok(vec![None, passed.transpose()?])
    }

    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        Ok(vec![None, Some(tape.leaky_relu_gradient(&call.inputs[0], dy, self.slope)?)])
    }
}

/// An odd length, one element, ReLU, and a critic-sized map.
pub fn cases() -> Vec<OpCase> {
    let case = |slope: f64, shape: &[usize]| {
        OpCase::new(move || LeakyReluGradient { slope }, &[shape, shape]).without_grad(0)
    };
    vec![
        case(0.2, &[2, 3, 5, 7]),
        case(0.01, &[1]),
        case(0.0, &[1, 3, 3, 2]),
        case(0.2, &[64, 13, 13, 64]).timed_only(),
    ]
}
