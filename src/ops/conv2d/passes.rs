//! Both passes, on either device, and the gradient as ops.
use super::cpu;
use super::cuda::Epilogue;
use super::cuda_weights::{self, OutputSums};
use super::finish::After;
use super::op::{Activation, Conv2d};
use super::{cuda, fused, joined, normed, sloped, summed};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Call, Op, Recorded, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;
use crate::ops::conv_transpose2d::ConvTranspose2d;
use crate::ops::parallel;

impl Op for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, w) = (inputs[0], inputs[1]);
        let d = self.dims(x, w)?;
        if let Some(b) = inputs.get(2).filter(|b| b.shape() != [d.co]) {
            return Err(Error::shape("conv2d", format!("bias [{}]", d.co), b.shape()));
        }
        let mut y = d.output(x)?;
        on_device!(x,
            cpu::<T> => {
                let bias = inputs.get(2).map(|b| b.cpu::<T>()).transpose()?;
                cpu::forward::<T>(&d, After::of(self.relu), x.cpu()?, w.cpu()?, bias, y.cpu_mut()?);
            },
            cuda(gpu) => {
                let activation = if self.relu { Activation::Relu } else { Activation::None };
                let bias = inputs.get(2).copied();
                let epilogue = Epilogue { bias, activation, ..Epilogue::default() };
                cuda::forward(&gpu, &d, x, w, epilogue, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }

    fn backward(&self, call: &Call, dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let (x, w) = (call.inputs[0], call.inputs[1]);
        let d = self.dims(x, w)?;
        let masked = if self.relu { Some(relu_mask(call.output, dy)?) } else { None };
        let dz = masked.as_ref().unwrap_or(dy);
        let mut grads = call.empty_gradients()?;
        on_device!(x,
            cpu::<T> => {
                if let Some(dx) = &mut grads[0] {
                    cpu::input_gradient::<T>(&d, w.cpu()?, dz.cpu()?, dx.cpu_mut()?);
                }
                if let Some(dw) = &mut grads[1] {
                    cpu::weight_gradient::<T>(&d, x.cpu()?, dz.cpu()?, dw.cpu_mut()?);
                }
                if let Some(Some(db)) = grads.get_mut(2) {
                    parallel::sum_rows::<T>(dz.cpu()?, db.cpu_mut()?);
                }
            },
            cuda(gpu) => {
                if let Some(dx) = &mut grads[0] {
                    cuda::input_gradient(&gpu, &d, w, dz, Epilogue::default(), dx)?;
                }
                let [_, dw, rest @ ..] = &mut grads[..] else { return Ok(grads) };
                let bias = rest.first_mut().and_then(Option::as_mut);
                let mut beside = OutputSums { bias, shift: None };
                match dw {
                    Some(dw) => cuda_weights::weight_gradient(&gpu, &d, x, dz, dw, beside)?,
                    None => beside.find(&gpu, dz)?,
                }
            }
        );
        Ok(grads)
    }

    /// By its input: a transposed convolution, with the rows and columns that no window reached.
    fn gradient(&self, tape: &mut Tape, call: &Recorded, dy: &Var) -> Result<Vec<Option<Var>>> {
        if call.wants[1..].contains(&true) {
            let what = "a second derivative by its weights".to_owned();
            return Err(Error::Unsupported { op: self.name(), what });
        }
        let (x, w) = (&call.inputs[0], &call.inputs[1]);
        let dz = match self.relu {
            true => tape.leaky_relu_gradient(call.output, dy, 0.0)?,
            false => dy.clone(),
        };
        let unread = |side: usize| (side + 2 * self.pad - w.shape()[1]) % self.stride;
        let [rows, columns] = [unread(x.shape()[1]), unread(x.shape()[2])];
        let op = ConvTranspose2d::new(self.stride, self.pad).extra(rows, columns);
        Ok(vec![Some(tape.conv_transpose2d(&dz, w, None, op)?), None, None])
    }

    fn flops(&self, inputs: &[&[usize]]) -> u64 {
        let (x, w) = (inputs[0], inputs[1]);
        let out = |side: usize| (side + 2 * self.pad - w[1]) / self.stride + 1;
        2 * (x[0] * out(x[1]) * out(x[2]) * w.iter().product::<usize>()) as u64
    }
}

/// `dy` where `y` is positive, else 0.
pub(super) fn relu_mask(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let mut dz = Tensor::empty_as(dy, dy.shape())?;
    on_device!(y,
        cpu::<T> => {
            let zero = T::default();
            parallel::zip3(dz.cpu_mut::<T>()?, y.cpu()?, dy.cpu()?, move |dz, &y, &dy| {
                *dz = if y > zero { dy } else { zero };
            });
        },
        cuda(gpu) => cuda::relu_mask(&gpu, y, dy, &mut dz)?,
    );
    Ok(dz)
}

/// The fast path's edges (tiles over the border, channels that fill no vector, one pixel), strides,
/// even kernels, kernels larger than the map; and the sizes of PERFORMANCE's peers.
pub fn cases() -> Vec<OpCase> {
    let same = |k: usize, x: [usize; 4], co: usize, relu: bool| {
        let op = Conv2d { relu, ..Conv2d::same(k) };
        OpCase::new(move || op, &[&x, &[co, k, k, x[3]], &[co]])
            // Winograd's transforms cost about two digits of f32 (Lavin & Gray 2016, section 4).
            .f32_tol(2e-5)
    };
    let strided = |k: usize, stride: usize, pad: usize, x: [usize; 4], co: usize| {
        let op = Conv2d { stride, pad, relu: false };
        OpCase::new(move || op, &[&x, &[co, k, k, x[3]], &[co]])
    };
    let mut cases = vec![
        same(3, [2, 5, 7, 3], 4, false),
        same(3, [2, 9, 4, 17], 3, false),
        same(3, [2, 4, 8, 2], 16, true),
        same(3, [1, 3, 4, 18], 17, false),
        same(3, [1, 1, 1, 5], 2, false),
        same(1, [2, 3, 5, 6], 7, false),
        same(1, [2, 7, 5, 18], 33, true),
        strided(4, 2, 1, [2, 6, 7, 3], 2),
        strided(3, 2, 1, [1, 5, 5, 4], 3),
        strided(5, 1, 2, [1, 3, 2, 2], 3),
        strided(3, 1, 0, [2, 9, 10, 16], 20).f32_tol(2e-5),
        strided(3, 1, 2, [1, 6, 9, 4], 16).f32_tol(2e-5),
        strided(1, 1, 1, [2, 5, 7, 16], 6),
        OpCase::new(|| Conv2d::same(3), &[&[1, 5, 6, 4], &[3, 3, 3, 4]]).f32_tol(2e-5),
        // The blocks of the kernels: several in every direction, every width, split sums.
        same(3, [1, 12, 13, 64], 67, true).kernel_only(),
        same(3, [1, 12, 13, 8], 130, false).kernel_only(),
        same(1, [2, 15, 14, 72], 128, false).kernel_only(),
        same(3, [1, 24, 25, 6], 31, false).kernel_only(),
        // Few channels in and out: several blocks, of which one is half empty.
        same(3, [2, 23, 29, 3], 3, true).kernel_only(),
        same(1, [3, 17, 31, 6], 6, false).kernel_only(),
        same(3, [1, 31, 33, 7], 8, false).kernel_only(),
        strided(3, 2, 1, [2, 33, 41, 5], 3).kernel_only(),
        same(3, [1, 24, 25, 8], 16, false).kernel_only(),
        same(3, [1, 33, 35, 16], 64, true).kernel_only(),
        same(3, [1, 5, 6, 80], 72, false).kernel_only(),
        // Blocks that share the depth, which ends within a group's part.
        same(3, [1, 9, 7, 128], 128, true).kernel_only(),
        same(1, [2, 3, 11, 1096], 128, false).kernel_only(),
        strided(3, 2, 1, [1, 13, 19, 136], 128).kernel_only(),
        strided(4, 2, 1, [1, 11, 9, 16], 24).kernel_only(),
        strided(3, 3, 0, [1, 9, 9, 8], 8).kernel_only(),
        strided(3, 2, 1, [2, 9, 8, 16], 8).kernel_only(),
        same(3, [1, 128, 128, 64], 64, false).timed_only(),
        same(3, [1, 64, 64, 128], 128, false).timed_only(),
        same(3, [1, 32, 32, 256], 256, false).timed_only(),
        same(1, [1, 128, 128, 64], 64, false).timed_only(),
    ];
    cases.extend(fused::cases());
    cases.extend(summed::cases());
    cases.extend(sloped::cases());
    cases.extend(joined::cases());
    cases.extend(normed::cases());
    cases
}
