//! A convolution with a bias and a shift for each image and channel: what a residual block makes of its map and t.
//!
//! ```text
//! y[n,h,w,c] = (x * weight)[n,h,w,c] + b[c] + shift[n,c]
//! dshift[n,c] = sum over h, w of dy[n,h,w,c],    db = sum over n of dshift
//! ```
use super::cuda::{self, Epilogue};
use super::cuda_weights::{self, OutputSums};
use super::finish::After;
use super::{Conv2d, cpu};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::{add_channels, parallel};

impl Tape {
    /// `conv(x, w) + b + shift` of a `shift` `[N, Co]`, the same numbers as
    /// [`add_channels`](Tape::add_channels) behind a convolution without ReLU, in one pass.
    pub fn conv2d_shifted(
        &mut self,
        [x, w, b]: [&Var; 3],
        shift: &Var,
        conv: Conv2d,
    ) -> Result<Var> {
        self.apply(ShiftedConv2d { conv }, &[x, w, b, shift])
    }
}

/// Inputs are x, w, bias and shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShiftedConv2d {
    pub(super) conv: Conv2d,
}

impl Op for ShiftedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, w, b, shift] = inputs else { unreachable!("a shifted conv2d takes four inputs") };
        let d = self.conv.dims(x, w)?;
        if b.shape() != [d.co] {
            return Err(Error::shape("conv2d", format!("bias [{}]", d.co), b.shape()));
        }
        if shift.shape() != [d.batch, d.co] {
            let expected = format!("shift {:?}", [d.batch, d.co]);
            return Err(Error::shape("conv2d", expected, shift.shape()));
        }
        let dims @ [_, height, width, co] = [d.batch, d.out_height(), d.out_width(), d.co];
        let mut y = Tensor::empty_as(x, &dims)?;
        on_device!(x,
            cpu::<T> => {
                let none = After::of(false);
                cpu::forward::<T>(&d, none, x.cpu()?, w.cpu()?, Some(b.cpu()?), y.cpu_mut()?);
                let shift = shift.cpu::<T>()?;
                parallel::rows(y.cpu_mut::<T>()?, co, |pixel, y| {
                    let shift = &shift[pixel / (height * width) * co..][..co];
                    y.iter_mut().zip(shift).for_each(|(y, &s)| *y += s);
                });
            },
            cuda(gpu) => {
                let epilogue = Epilogue { bias: Some(b), shift: Some(shift), ..Epilogue::default() };
                cuda::forward(&gpu, &d, x, w, epilogue, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (call.inputs[0], call.inputs[1]);
        let d = self.conv.dims(x, w)?;
        let mut grads = call.empty_gradients()?;
        let [dx, dw, db, dshift] = &mut grads[..] else { unreachable!("one for each input") };
        on_device!(x,
            cpu::<T> => {
                if let Some(dx) = dx {
                    cpu::input_gradient::<T>(&d, w.cpu()?, dy.cpu()?, dx.cpu_mut()?);
                }
                if let Some(dw) = dw {
                    cpu::weight_gradient::<T>(&d, x.cpu()?, dy.cpu()?, dw.cpu_mut()?);
                }
                if let Some(db) = db {
                    parallel::sum_rows::<T>(dy.cpu()?, db.cpu_mut()?);
                }
                if let Some(dshift) = dshift {
                    add_channels::cpu::backward::<T>(dy.nhwc("conv2d")?, dy.cpu()?, dshift.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = dx {
                    cuda::input_gradient(&gpu, &d, w, dy, Epilogue::default(), dx)?;
                }
                let mut beside = OutputSums { bias: db.as_mut(), shift: dshift.as_mut() };
                match dw {
                    Some(dw) => cuda_weights::weight_gradient(&gpu, &d, x, dy, dw, beside)?,
                    None => beside.find(&gpu, dy)?,
                }
            }
        );
        Ok(grads)
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        Op::flops(&self.conv, inputs)
    }
}

/// The kernels' blocks: packs and single channels, several ranges of an image, more images than ranges, a stride.
pub(super) fn cases() -> Vec<OpCase> {
    let case = |k: usize, stride: usize, x: [usize; 4], co: usize| {
        let op = ShiftedConv2d { conv: Conv2d { stride, ..Conv2d::same(k) } };
        // As for plain convolutions: Winograd's transforms cost about two digits of f32.
        OpCase::new(move || op, &[&x, &[co, k, k, x[3]], &[co], &[x[0], co]]).f32_tol(2e-5)
    };
    vec![
        case(3, 1, [2, 5, 4, 3], 5),
        case(1, 1, [3, 2, 3, 8], 8),
        case(3, 2, [2, 5, 7, 4], 6),
        case(3, 1, [1, 33, 35, 16], 72).kernel_only(),
        case(3, 1, [5, 7, 9, 8], 136).kernel_only(),
        case(1, 1, [9, 2, 2, 24], 16).kernel_only(),
    ]
}
