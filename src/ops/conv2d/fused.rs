//! A convolution and what follows it, written once: for inference.
use rayon::prelude::*;

use super::cuda::{self, Epilogue};
use super::{Activation, Conv2d};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::parallel::CHUNK;
use crate::ops::simd::{Lane, multiversion};

impl Tape {
    /// `activation(conv(x, w) + bias + shift) + residual` in one pass. It has no gradient: models that
    /// train call the ops one by one.
    pub fn conv2d_fused(&mut self, x: &Var, w: &Var, conv: Conv2d, then: Then<'_>) -> Result<Var> {
        let Then { bias, shift, residual, activation } = then;
        let present = [bias, shift, residual].map(|v| v.is_some());
        let inputs: Vec<&Var> =
            [Some(x), Some(w), bias, shift, residual].into_iter().flatten().collect();
        self.apply(FusedConv2d { conv, activation, present }, &inputs)
    }
}

/// What follows a convolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Then<'a> {
    /// `[Co]`.
    pub bias: Option<&'a Var>,
    /// `[N, Co]`, for example of a time step.
    pub shift: Option<&'a Var>,
    /// As the output.
    pub residual: Option<&'a Var>,
    /// Applied before the residual is added; instead of that of the convolution.
    pub activation: Activation,
}

/// Inputs are x, w and those of bias, shift and residual that are present.
#[derive(Clone, Copy, Debug)]
struct FusedConv2d {
    conv: Conv2d,
    activation: Activation,
    present: [bool; 3],
}

impl Op for FusedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, w) = (inputs[0], inputs[1]);
        let mut rest = inputs[2..].iter().copied();
        let [bias, shift, residual] = self.present.map(|p| p.then(|| rest.next()).flatten());
        let d = self.conv.dims(x, w)?;
        let shape = [d.batch, d.out_height(), d.out_width(), d.co];
        for (input, shape) in [(bias, &shape[3..]), (shift, &[d.batch, d.co]), (residual, &shape)] {
            if let Some(input) = input.filter(|input| input.shape() != shape) {
                return Err(Error::shape("conv2d", format!("{shape:?}"), input.shape()));
            }
        }
        let y = on_device!(x,
            cpu::<T> => {
                let plain = Conv2d { relu: false, ..self.conv };
                let inputs = [Some(x), Some(w), bias].into_iter().flatten().collect::<Vec<_>>();
                let mut y = plain.forward(&inputs)?.0;
                let shift = shift.map(Tensor::cpu::<T>).transpose()?;
                let residual = residual.map(Tensor::cpu::<T>).transpose()?;
                let pixels = shape[1] * shape[2];
                finish(pixels, d.co, shift, residual, self.activation, y.cpu_mut()?);
                y
            },
            cuda(gpu) => {
                let mut y = Tensor::empty_as(x, &shape)?;
                let epilogue = Epilogue { bias, shift, residual, activation: self.activation };
                cuda::forward(&gpu, &d, x, w, epilogue, &mut y)?;
                y
            }
        );
        Ok((y, Saved::new()))
    }
}

/// `y = activation(y + shift) + residual`, for images of `pixels` rows of `channels`.
fn finish<T: Lane>(
    pixels: usize,
    channels: usize,
    shift: Option<&[T]>,
    residual: Option<&[T]>,
    activation: Activation,
    y: &mut [T],
) {
    let rows = (CHUNK / channels.max(1)).max(1);
    y.par_chunks_mut(rows * channels).enumerate().for_each(|(chunk, y)| {
        if let Some(shift) = shift {
            for (row, y) in y.chunks_exact_mut(channels).enumerate() {
                let image = (chunk * rows + row) / pixels;
                let shift = &shift[image * channels..][..channels];
                y.iter_mut().zip(shift).for_each(|(y, &s)| *y += s);
            }
        }
        match activation {
            Activation::None => {}
            Activation::Relu => {
                y.iter_mut().filter(|v| **v < T::default()).for_each(|v| *v = T::default())
            }
            Activation::Silu => silu(y),
        }
        if let Some(residual) = residual {
            let residual = &residual[chunk * rows * channels..][..y.len()];
            y.iter_mut().zip(residual).for_each(|(y, &r)| *y += r);
        }
    });
}

multiversion! {
    fn silu<T, FMA>(y: &mut [T]) {
        for y in y {
            *y = *y * y.sigmoid::<FMA>();
        }
    }
}

/// Every part alone and all together.
pub(super) fn cases() -> Vec<OpCase> {
    let case = |activation: Activation, present: [bool; 3], x: [usize; 4], co: usize| {
        let op = FusedConv2d { conv: Conv2d::same(3), activation, present };
        let optional = [vec![co], vec![x[0], co], vec![x[0], x[1], x[2], co]];
        let mut shapes = vec![x.to_vec(), vec![co, 3, 3, x[3]]];
        shapes.extend(optional.into_iter().zip(present).filter_map(|(s, p)| p.then_some(s)));
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let case = OpCase::new(move || op, &shapes).f32_tol(2e-5);
        (0..shapes.len()).fold(case, OpCase::without_grad)
    };
    vec![
        case(Activation::Silu, [true, true, true], [2, 5, 3, 8], 16),
        case(Activation::Relu, [false, true, false], [2, 3, 4, 3], 5),
        case(Activation::None, [false, false, true], [1, 3, 4, 8], 3),
        case(Activation::Silu, [true, false, false], [1, 4, 4, 16], 64),
    ]
}
