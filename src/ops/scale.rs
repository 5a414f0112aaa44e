//! Multiplication by a number.
//!
//! ```text
//! y  = s x
//! dx = s dy
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// `factor * x`, elementwise.
    pub fn scale(&mut self, x: &Var, factor: f64) -> Result<Var> {
        self.apply(Scale { factor }, &[x])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Scale {
    /// What every element is multiplied by.
    pub factor: f64,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("scale takes one input") };
        Ok((x.times(self.factor)?, Saved::new()))
    }

    fn backward(&self, _: &Call, _: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None])
    }

    fn hands_on(&self, _: usize) -> Option<f64> {
        Some(self.factor)
    }

    fn gradient(&self, tape: &mut Tape, _: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        Ok(vec![Some(tape.scale(dy, self.factor)?)])
    }
}

/// An odd length, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Scale { factor: -0.3 }, &[&[2, 3, 5, 7]]),
        OpCase::new(|| Scale { factor: 0.5 }, &[&[1, 128, 128, 64]]).timed_only(),
    ]
}
