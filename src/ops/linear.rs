//! Fully connected layer.
//!
//! ```text
//! y = x w^T + b                                x: [M, in], w: [out, in], b: [out], y: [M, out]
//! dx = dy w,  dw = dy^T x,  db = sum of the rows of dy
//! ```
use super::conv_transpose2d::ConvTranspose2d;
use super::conv2d::Dims;
use super::conv2d::cuda::{self, Epilogue};
use super::conv2d::cuda_weights::{self, OutputSums};
use super::product::{Matrix, multiply_rows};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `x w^T + bias` of `x` `[M, in]`, `weight` `[out, in]` and `bias` `[out]`.
    pub fn linear(&mut self, x: &Var, weight: &Var, bias: Option<&Var>) -> Result<Var> {
        match bias {
            Some(bias) => self.apply(Linear, &[x, weight, bias]),
            None => self.apply(Linear, &[x, weight]),
        }
    }
}

/// See the [module](self) for the formulas; inputs are x, weight and perhaps the bias.
#[derive(Debug)]
pub struct Linear;

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, weight, bias) = unpack(inputs);
        let &[out, from] = weight.shape() else {
            return Err(Error::shape(self.name(), "a weight of [out, in]", weight.shape()));
        };
        let &[rows, columns] = x.shape() else {
            return Err(Error::shape(self.name(), format!("[M, {from}]"), x.shape()));
        };
        if columns != from {
            return Err(Error::shape(self.name(), format!("[M, {from}]"), x.shape()));
        }
        if let Some(bias) = bias.filter(|b| b.shape() != [out]) {
            return Err(Error::shape(self.name(), format!("a bias of [{out}]"), bias.shape()));
        }
        let mut y = Tensor::empty_as(x, &[rows, out])?;
        on_device!(x,
            cpu::<T> => {
                let w = Matrix::new(weight.cpu()?, out, from);
                multiply_rows(y.cpu_mut()?, Matrix::new(x.cpu::<T>()?, rows, from), w.t());
                if let Some(bias) = bias {
                    cpu::add_rows::<T>(bias.cpu()?, y.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                let epilogue = Epilogue { bias, ..Epilogue::default() };
                cuda::forward(&gpu, &dims(rows, out, from), x, weight, epilogue, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (x, weight, _) = unpack(call.inputs);
        let (rows, out, from) = (x.shape()[0], weight.shape()[0], weight.shape()[1]);
        let mut grads = call.empty_gradients()?.into_iter();
        let (mut dx, mut dw) = (grads.next().flatten(), grads.next().flatten());
        let mut db = grads.next().flatten();
        on_device!(x,
            cpu::<T> => {
                let dy = dy.cpu::<T>()?;
                let dys = Matrix::new(dy, rows, out);
                if let Some(dx) = &mut dx {
                    multiply_rows(dx.cpu_mut()?, dys, Matrix::new(weight.cpu()?, out, from));
                }
                if let Some(dw) = &mut dw {
                    multiply_rows(dw.cpu_mut()?, dys.t(), Matrix::new(x.cpu()?, rows, from));
                }
                if let Some(db) = &mut db {
                    cpu::sum_rows::<T>(dy, db.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                let d = dims(rows, out, from);
                if let Some(dx) = &mut dx {
                    cuda::input_gradient(&gpu, &d, weight, dy, Epilogue::default(), dx)?;
                }
                let mut beside = OutputSums { bias: db.as_mut(), shift: None };
                match &mut dw {
                    Some(dw) => cuda_weights::weight_gradient(&gpu, &d, x, dy, dw, beside)?,
                    None => beside.find(&gpu, dy)?,
                }
            }
        );
        Ok(vec![dx, dw, db])
    }

    /// By its input: `dy w` is a transposed convolution with one tap.
    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        if call.wants[1..].contains(&true) {
            let what = "a second derivative by its weights".to_owned();
            return Err(Error::Unsupported { op: self.name(), what });
        }
        let (x, w) = (&call.inputs[0], &call.inputs[1]);
        let (rows, out, from) = (x.shape()[0], w.shape()[0], w.shape()[1]);
        let dy = tape.reshape(dy, &[rows, 1, 1, out])?;
        let w = tape.reshape(w, &[out, 1, 1, from])?;
        let dx = tape.conv_transpose2d(&dy, &w, None, ConvTranspose2d::new(1, 0))?;
        Ok(vec![Some(tape.reshape(&dx, &[rows, from])?), None, None])
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        2 * (inputs[0][0] * inputs[1][0] * inputs[1][1]) as u64
    }
}

/// The convolution with one tap that a linear layer is on a GPU.
const fn dims(rows: usize, out: usize, from: usize) -> Dims {
    Dims { batch: 1, height: 1, width: rows, ci: from, co: out, kernel: 1, stride: 1, pad: 0 }
}

fn unpack<'a>(inputs: &[&'a Tensor]) -> (&'a Tensor, &'a Tensor, Option<&'a Tensor>) {
    match *inputs {
        [x, weight] => (x, weight, None),
        [x, weight, bias] => (x, weight, Some(bias)),
        _ => unreachable!("linear takes two or three inputs"),
    }
}

/// Odd sizes, one row, no bias, more rows than a task takes; a time embedding and an attention.
pub fn cases() -> Vec<OpCase> {
    vec![
        OpCase::new(|| Linear, &[&[3, 5], &[7, 5], &[7]]),
        OpCase::new(|| Linear, &[&[1, 1], &[2, 1], &[2]]),
        OpCase::new(|| Linear, &[&[2, 4], &[3, 4]]),
        OpCase::new(|| Linear, &[&[67, 2], &[3, 2], &[3]]),
        OpCase::new(|| Linear, &[&[150, 72], &[136, 72], &[136]]).kernel_only(),
        OpCase::new(|| Linear, &[&[600, 24], &[40, 24]]).kernel_only(),
        OpCase::new(|| Linear, &[&[8, 512], &[512, 512], &[512]]).timed_only(),
        OpCase::new(|| Linear, &[&[4096, 192], &[576, 192], &[576]]).timed_only(),
    ]
}

mod cpu {
    use crate::engine::device::Real;
    use crate::ops::parallel::{column_sums, rows};

    pub(super) fn add_rows<T: Real>(bias: &[T], y: &mut [T]) {
        rows(y, bias.len(), |_, y| {
            for k in 0..bias.len() {
                y[k] += bias[k];
            }
        });
    }

    pub(super) fn sum_rows<T: Real>(dy: &[T], db: &mut [T]) {
        let sums = column_sums(dy, db.len());
        db.iter_mut().zip(sums).for_each(|(db, sum)| *db = T::from_f64(sum));
    }
}
