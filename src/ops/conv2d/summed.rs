//! A convolution with a bias and what else is added to its output: the map around a residual block, and a shift for each
//! image and channel, which it makes of t.
//!
//! ```text
//! y[n,h,w,c] = (x * weight)[n,h,w,c] + b[c] + factor residual[n,h,w,c] + shift[n,c]
//! dshift[n,c] = sum over h, w of dy[n,h,w,c],    db = sum over n of dshift,    dresidual = factor dy
//! ```
use super::cuda::{self, Epilogue};
use super::cuda_weights::{self, OutputSums};
use super::finish::After;
use super::{Conv2d, cpu};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::{add_channels, parallel};

impl Tape {
    /// `conv(x, w) + b + factor residual + shift` of a `residual` like the output and a `shift` `[N, Co]`, each if there
    /// is one: on the CPU the same numbers as [`scaled_add`](Tape::scaled_add) and [`add_channels`](Tape::add_channels)
    /// behind a convolution without ReLU.
    pub fn conv2d_summed(
        &mut self,
        [x, w, b]: [&Var; 3],
        shift: Option<&Var>,
        residual: Option<(&Var, f64)>,
        conv: Conv2d,
    ) -> Result<Var> {
        let (residual, factor) = residual.unzip();
        let inputs = [x, w, b].into_iter().chain(shift).chain(residual);
        let inputs: Vec<&Var> = inputs.collect();
        self.apply(SummedConv2d { conv, shifts: shift.is_some(), residual: factor }, &inputs)
    }
}

/// Inputs are x, w, bias, and shift and residual if there are such.
#[derive(Clone, Copy, Debug)]
pub(super) struct SummedConv2d {
    pub(super) conv: Conv2d,
    /// Whether there is a shift.
    pub(super) shifts: bool,
    /// What the residual is multiplied by, if there is one.
    pub(super) residual: Option<f64>,
}

impl SummedConv2d {
    /// Which input is the residual, and what it is multiplied by.
    fn residual(&self) -> Option<(usize, f64)> {
        self.residual.map(|factor| (3 + usize::from(self.shifts), factor))
    }
}

impl Op for SummedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let [x, w, b, ..] = inputs else { unreachable!("a summed conv2d takes three inputs") };
        let d = self.conv.dims(x, w)?;
        let dims @ [_, height, width, co] = [d.batch, d.out_height(), d.out_width(), d.co];
        let shift = self.shifts.then(|| inputs[3]);
        let residual = self.residual().map(|(at, factor)| (inputs[at], factor));
        let is = |what: &str, shape: &[usize], given: &Tensor| match given.shape() == shape {
            true => Ok(()),
            false => Err(Error::shape("conv2d", format!("{what} {shape:?}"), given.shape())),
        };
        is("bias", &[co], b)?;
        shift.map_or(Ok(()), |shift| is("shift", &[d.batch, co], shift))?;
        residual.map_or(Ok(()), |(residual, _)| is("residual", &dims, residual))?;
        let mut y = Tensor::empty_as(x, &dims)?;
        on_device!(x,
            cpu::<T> => {
                let none = After::of(false);
                cpu::forward::<T>(&d, none, x.cpu()?, w.cpu()?, Some(b.cpu()?), y.cpu_mut()?);
                if let Some((residual, factor)) = residual {
                    let factor = T::from_f64(factor);
                    parallel::zip2(y.cpu_mut::<T>()?, residual.cpu()?, move |y, &r| *y += factor * r);
                }
                if let Some(shift) = shift {
                    let shift = shift.cpu::<T>()?;
                    parallel::rows(y.cpu_mut::<T>()?, co, |pixel, y| {
                        let shift = &shift[pixel / (height * width) * co..][..co];
                        for k in 0..co {
                            y[k] += shift[k];
                        }
                    });
                }
            },
            cuda(gpu) => {
                let (residual, of_residual) = residual.unzip();
                let epilogue = Epilogue {
                    bias: Some(b),
                    shift,
                    residual,
                    of_residual: of_residual.unwrap_or(1.0),
                    ..Epilogue::default()
                };
                cuda::forward(&gpu, &d, x, w, epilogue, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn hands_on(&self, input: usize) -> Option<f64> {
        self.residual().filter(|(at, _)| *at == input).map(|(_, factor)| factor)
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (call.inputs[0], call.inputs[1]);
        let d = self.conv.dims(x, w)?;
        let empty = |(i, x): (usize, &&Tensor)| {
            let computed = call.wants[i] && self.hands_on(i).is_none();
            computed.then(|| Tensor::empty_as(x, x.shape())).transpose()
        };
        let mut grads = call.inputs.iter().enumerate().map(empty).collect::<Result<Vec<_>>>()?;
        let [dx, dw, db, rest @ ..] = &mut grads[..] else { unreachable!("one for each input") };
        let mut dshift = rest.first_mut().filter(|_| self.shifts).and_then(Option::as_mut);
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
                if let Some(dshift) = &mut dshift {
                    add_channels::cpu::backward::<T>(dy.nhwc("conv2d")?, dy.cpu()?, dshift.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = dx {
                    cuda::input_gradient(&gpu, &d, w, dy, Epilogue::default(), dx)?;
                }
                let mut beside = OutputSums { bias: db.as_mut(), shift: dshift };
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

/// The kernels' blocks: packs and single channels, several ranges of an image, more images than ranges, a stride; a
/// residual of factors 1 and others, alone and behind a shift.
pub(super) fn cases() -> Vec<OpCase> {
    let case = |k: usize, stride: usize, x: [usize; 4], co: usize, residual: Option<f64>| {
        let conv = Conv2d { stride, ..Conv2d::same(k) };
        let y = [x[0], x[1].div_ceil(stride), x[2].div_ceil(stride), co];
        let all: [&[usize]; 5] = [&x, &[co, k, k, x[3]], &[co], &[x[0], co], &y];
        let op = SummedConv2d { conv, shifts: true, residual };
        // As for plain convolutions: Winograd's transforms cost about two digits of f32.
        OpCase::new(move || op, &all[..4 + usize::from(residual.is_some())]).f32_tol(2e-5)
    };
    let onto = |k: usize, x: [usize; 4], co: usize, factor: f64| {
        let op = SummedConv2d { conv: Conv2d::same(k), shifts: false, residual: Some(factor) };
        let y = [x[0], x[1], x[2], co];
        OpCase::new(move || op, &[&x, &[co, k, k, x[3]], &[co], &y]).f32_tol(2e-5)
    };
    vec![
        case(3, 1, [2, 5, 4, 3], 5, None),
        case(1, 1, [3, 2, 3, 8], 8, None),
        case(3, 2, [2, 5, 7, 4], 6, Some(0.7)),
        onto(3, [2, 3, 5, 4], 6, 1.0),
        onto(1, [1, 4, 3, 8], 8, -0.5),
        case(3, 1, [1, 33, 35, 16], 72, None).kernel_only(),
        case(3, 1, [5, 7, 9, 8], 136, Some(1.0)).kernel_only(),
        case(1, 1, [9, 2, 2, 24], 16, None).kernel_only(),
        onto(3, [1, 33, 35, 16], 72, 0.7).kernel_only(),
    ]
}
