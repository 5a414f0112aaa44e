//! Weighted sum of two tensors: a plain sum, a scaled residual, a mix.
//!
//! ```text
//! y  = s a + t b
//! da = s dy,    db = t dy
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;

impl Tape {
    /// `a + b`, elementwise.
    pub fn add(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.scaled_add(a, 1.0, b, 1.0)
    }

    /// `s * a + t * b`, elementwise.
    pub fn scaled_add(&mut self, a: &Var, s: f64, b: &Var, t: f64) -> Result<Var> {
        self.apply(ScaledAdd { s, t }, &[a, b])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct ScaledAdd {
    /// The weight of the first input.
    pub s: f64,
    /// The weight of the second input.
    pub t: f64,
}

impl Op for ScaledAdd {
    fn name(&self) -> &'static str {
        "scaled_add"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [a, b] = inputs else { unreachable!("scaled_add takes two inputs") };
        Ok((a.weighted(self.s, b, self.t)?, Saved::new()))
    }

    fn backward(&self, _: &Call, _: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![None, None])
    }

    fn hands_on(&self, input: usize) -> Option<f64> {
        Some([self.s, self.t][input])
    }

    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        [self.s, self.t]
            .into_iter()
            .zip(call.wants)
            .map(|(factor, &wanted)| wanted.then(|| tape.scale(dy, factor)).transpose())
            .collect()
    }
}

/// Both weights away from 1, a plain sum, and a UNet-sized map.
pub fn cases() -> Vec<OpCase> {
    let small: &[&[usize]] = &[&[2, 3, 5, 7], &[2, 3, 5, 7]];
    vec![
        OpCase::new(|| ScaledAdd { s: 0.7, t: -1.3 }, small),
        OpCase::new(|| ScaledAdd { s: 1.0, t: 1.0 }, small),
        OpCase::new(|| ScaledAdd { s: 1.0, t: 1.0 }, &[&[1, 128, 128, 64], &[1, 128, 128, 64]])
            .timed_only(),
    ]
}
