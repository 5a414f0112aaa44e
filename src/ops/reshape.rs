//! The same elements under another shape.
//!
//! ```text
//! y  = x,    dx = dy        element by element, in the order of memory
//! ```
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

impl Tape {
    /// `x` under `shape`, whose product is the number of its elements.
    pub fn reshape(&mut self, x: &Var, shape: &[usize]) -> Result<Var> {
        self.apply(Reshape { shape: shape.to_vec() }, &[x])
    }
}

/// See the [module](self).
#[derive(Debug)]
pub struct Reshape {
    /// The shape of the output.
    pub shape: Vec<usize>,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x] = inputs else { unreachable!("reshape takes one input") };
        if x.len() != self.shape.iter().product::<usize>() {
            let wanted = format!("as many elements as {:?}", self.shape);
            return Err(Error::shape(self.name(), wanted, x.shape()));
        }
        Ok((x.try_clone()?.reshape(&self.shape)?, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy.try_clone()?.reshape(call.inputs[0].shape())?)])
    }

    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        Ok(vec![Some(tape.reshape(dy, call.inputs[0].shape())?)])
    }
}

/// A map flattened, one element, and a vector made a map.
pub fn cases() -> Vec<OpCase> {
    let case = |from: &[usize], to: &'static [usize]| {
        OpCase::new(move || Reshape { shape: to.to_vec() }, &[from])
    };
    vec![
        case(&[2, 3, 5, 7], &[2, 105]),
        case(&[1], &[1, 1, 1, 1]),
        case(&[3, 18], &[3, 3, 2, 3]),
        case(&[128, 4, 4, 128], &[128, 2048]).timed_only(),
    ]
}
