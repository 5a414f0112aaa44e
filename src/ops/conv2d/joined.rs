//! A convolution of maps side by side, and leaky ReLU behind it, written once: for inference. The CPU's fast path and
//! GPUs read the maps where they lie; elsewhere they are put together first.
use super::sloped::SlopedConv2d;
use super::{Activation, Conv2d, Then, cpu};
use crate::engine::device::{DType, Device};
use crate::engine::op_case::OpCase;
use crate::engine::tape::{Op, Saved, Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::ops::concat::Concat;

impl Tape {
    /// As [`conv2d_leaky`](Self::conv2d_leaky) of `maps`, `[N, H, W, C_k]` each, as one `[N, H, W, sum of C_k]`; a
    /// `slope` of 1 is none. It has no gradient either, and gives the bits of a concatenation.
    pub fn conv2d_joined(
        &mut self,
        maps: &[&Var],
        w: &Var,
        b: Option<&Var>,
        slope: f64,
        conv: Conv2d,
    ) -> Result<Var> {
        if maps.first().is_some_and(|map| self.fuses(map)) {
            let activation = if slope == 1.0 { Activation::None } else { Activation::Leaky };
            let activation = if conv.relu { Activation::Relu } else { activation };
            let then = Then { bias: b, activation, slope, ..Then::default() };
            return self.conv2d_of_maps(maps, false, w, conv, then);
        }
        let inputs: Vec<&Var> = [w].into_iter().chain(b).chain(maps.iter().copied()).collect();
        self.apply(JoinedConv2d { conv, slope, bias: b.is_some() }, &inputs)
    }
}

/// Inputs are w, perhaps a bias, and the maps.
#[derive(Clone, Copy, Debug)]
struct JoinedConv2d {
    conv: Conv2d,
    slope: f64,
    bias: bool,
}

impl JoinedConv2d {
    /// The result, where the fast path takes the maps as they are.
    fn of_parts(
        &self,
        w: &Tensor,
        bias: Option<&Tensor>,
        maps: &[&Tensor],
    ) -> Result<Option<Tensor>> {
        let Some(&first) = maps.first() else {
            return Err(Error::shape("conv2d", "at least one map", &[]));
        };
        if first.device() != Device::Cpu || first.dtype() != DType::F32 {
            return Ok(None);
        }
        let [batch, height, width, _] = first.nhwc("conv2d")?;
        let mut parts = Vec::with_capacity(maps.len());
        for map in maps {
            let [.., channels] = map.nhwc("conv2d")?;
            if map.shape()[..3] != first.shape()[..3] {
                return Ok(None);
            }
            parts.push((map.cpu::<f32>()?, channels));
        }
        let ci = parts.iter().map(|(_, channels)| channels).sum();
        let d = self.conv.dims_of([batch, height, width, ci], first, w)?;
        if bias.is_some_and(|b| b.shape() != [d.co]) {
            return Ok(None);
        }
        let mut y = d.output(first)?;
        #[allow(clippy::cast_possible_truncation)] // A number from a file of f32.
        let slope = [self.slope as f32];
        let slopes = if self.slope == 1.0 { &[] } else { &slope[..] };
        let bias = bias.map(|b| b.cpu::<f32>()).transpose()?;
        Ok(cpu::forward_parts(&d, slopes, &parts, w.cpu()?, bias, y.cpu_mut()?).then_some(y))
    }
}

impl Op for JoinedConv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn forward(&self, inputs: &[&Tensor]) -> Result<(Tensor, Saved)> {
        let (given, maps) = inputs.split_at((1 + usize::from(self.bias)).min(inputs.len()));
        let Some(&w) = given.first() else {
            return Err(Error::shape("conv2d", "weights and maps", &[]));
        };
        if let Some(y) = self.of_parts(w, given.get(1).copied(), maps)? {
            return Ok((y, Saved::new()));
        }
        let (all, _) = Concat.forward(maps)?;
        let inputs: Vec<&Tensor> = [&all].into_iter().chain(given.iter().copied()).collect();
        match self.slope == 1.0 {
            true => self.conv.forward(&inputs),
            false => SlopedConv2d { conv: self.conv, slope: Some(self.slope) }.forward(&inputs),
        }
    }
}

/// Maps that fill blocks of channels, and maps that do not; with and without a bias and a slope.
pub(super) fn cases() -> Vec<OpCase> {
    let case = |slope: f64, channels: &'static [usize], co: usize, bias: bool| {
        let op = JoinedConv2d { conv: Conv2d::same(3), slope, bias };
        let mut shapes = vec![vec![co, 3, 3, channels.iter().sum()]];
        shapes.extend(bias.then(|| vec![co]));
        shapes.extend(channels.iter().map(|&c| vec![2, 9, 10, c]));
        let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
        let case = OpCase::new(move || op, &shapes).f32_tol(2e-5);
        (0..shapes.len()).fold(case, OpCase::without_grad)
    };
    vec![
        case(0.2, &[32, 16, 16], 32, true),
        case(1.0, &[16, 16], 21, true),
        case(0.2, &[16, 20], 16, false),
        case(1.0, &[3, 5, 2], 7, true),
    ]
}
