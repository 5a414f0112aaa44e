//! A convolution and leaky or parametric ReLU behind it, written once: for inference.
use super::cuda::{self, Epilogue};
use super::finish::After;
use super::{Activation, Conv2d, cpu};
use crate::engine::device::Real;
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::on_device;

impl Tape {
    /// `conv(x, w) + b`, multiplied by `slope` where it is not positive, in one pass. It has no gradient: models
    /// that train call the ops one by one, and get the same numbers.
    pub fn conv2d_leaky(
        &mut self,
        x: &Var,
        w: &Var,
        b: Option<&Var>,
        slope: f64,
        conv: Conv2d,
    ) -> Result<Var> {
        let inputs: Vec<&Var> = [x, w].into_iter().chain(b).collect();
        self.apply(SlopedConv2d { conv, slope: Some(slope) }, &inputs)
    }

    /// The same with slopes `[1]` or `[Co]`, as of parametric ReLU.
    pub fn conv2d_prelu(
        &mut self,
        x: &Var,
        w: &Var,
        b: Option<&Var>,
        slopes: &Var,
        conv: Conv2d,
    ) -> Result<Var> {
        let inputs: Vec<&Var> = [x, w, slopes].into_iter().chain(b).collect();
        self.apply(SlopedConv2d { conv, slope: None }, &inputs)
    }
}

/// Inputs are x, w, slopes unless there is one number for all, and perhaps a bias.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlopedConv2d {
    pub(super) conv: Conv2d,
    pub(super) slope: Option<f64>,
}

impl Op for SlopedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (x, w) = (inputs[0], inputs[1]);
        let given = usize::from(self.slope.is_none());
        let (slopes, bias) = (inputs[2..].first().filter(|_| given == 1), inputs.get(2 + given));
        let d = self.conv.dims(x, w)?;
        if let Some(b) = bias.filter(|b| b.shape() != [d.co]) {
            return Err(Error::shape("conv2d", format!("bias [{}]", d.co), b.shape()));
        }
        if let Some(s) = slopes.filter(|s| s.shape() != [1] && s.shape() != [d.co]) {
            return Err(Error::shape("conv2d", format!("slopes [1] or [{}]", d.co), s.shape()));
        }
        let mut y = d.output(x)?;
        on_device!(x,
            cpu::<T> => {
                let one = self.slope.map(T::from_f64);
                let slopes = match (slopes, &one) {
                    (Some(slopes), _) => slopes.cpu::<T>()?,
                    (None, one) => one.as_slice(),
                };
                let bias = bias.map(|b| b.cpu::<T>()).transpose()?;
                let then = After::Slopes(slopes);
                cpu::forward::<T>(&d, then, x.cpu()?, w.cpu()?, bias, y.cpu_mut()?);
            },
            cuda(gpu) => {
                let epilogue = Epilogue {
                    bias: bias.copied(),
                    activation: Activation::Leaky,
                    slope: self.slope.unwrap_or(1.0),
                    slopes: slopes.copied(),
                    ..Epilogue::default()
                };
                cuda::forward(&gpu, &d, x, w, epilogue, &mut y)?;
            }
        );
        Ok((y, Saved::new()))
    }
}

/// One slope, one for each channel, with and without a bias, on the fast paths and off them.
pub(super) fn cases() -> Vec<OpCase> {
    let case = |slope: Option<f64>, k: usize, x: [usize; 4], co: usize, bias: bool| {
        let op = SlopedConv2d { conv: Conv2d::same(k), slope };
        let mut shapes = vec![x.to_vec(), vec![co, k, k, x[3]]];
        shapes.extend(slope.is_none().then(|| vec![co]));
        shapes.extend(bias.then(|| vec![co]));
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        // As for plain convolutions: Winograd's transforms cost about two digits of f32.
        let case = OpCase::new(move || op, &shapes).f32_tol(2e-5);
        (0..shapes.len()).fold(case, OpCase::without_grad)
    };
    vec![
        case(Some(0.1), 3, [1, 9, 10, 16], 32, true),
        case(Some(0.2), 3, [2, 5, 3, 3], 5, false),
        case(None, 3, [1, 9, 10, 16], 21, true),
        case(None, 1, [2, 8, 5, 18], 33, true),
        case(None, 3, [1, 3, 2, 4], 6, false),
    ]
}
