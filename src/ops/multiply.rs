//! Product of two tensors, elementwise.
//!
//! ```text
//! y  = a b
//! da = dy b,    db = dy a
//! ```
use super::same_shape;
use crate::engine::cuda::{Grid, kernels};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::on_device;

impl Tape {
    /// `a * b`, elementwise, of two tensors of one shape.
    pub fn multiply(&mut self, a: &Var, b: &Var) -> Result<Var> {
        self.apply(Multiply, &[a, b])
    }
}

/// See the [module](self) for the formulas.
#[derive(Debug)]
pub struct Multiply;

impl Op for Multiply {
    fn name(&self) -> &'static str {
        "multiply"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [a, b] = inputs else { unreachable!("multiply takes two inputs") };
        same_shape(self.name(), a, b)?;
        Ok((product(a, b)?, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [a, b] = call.inputs else { unreachable!("multiply takes two inputs") };
        let others = [b, a].into_iter().zip(call.wants);
        others.map(|(other, &wanted)| wanted.then(|| product(dy, other)).transpose()).collect()
    }
}

fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut y = Tensor::empty_as(a, a.shape())?;
    on_device!(a,
        cpu::<T> => crate::ops::parallel::zip3(y.cpu_mut::<T>()?, a.cpu()?, b.cpu()?, |y, &a, &b| {
            *y = a * b;
        }),
        cuda(gpu) => {
            let (n, dtype) = (a.len(), a.dtype());
            kernels::multiply { a, b, y: &mut y, n }.launch(&gpu, Grid::packs(n, dtype))?;
        }
    );
    Ok(y)
}

/// An odd length, several blocks, and the features of a small network.
pub fn cases() -> Vec<OpCase> {
    let case = |shape: &[usize]| OpCase::new(|| Multiply, &[shape, shape]);
    vec![case(&[2, 3, 5, 7]), case(&[4099]).kernel_only(), case(&[1, 128, 128, 32]).timed_only()]
}
