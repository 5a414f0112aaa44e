//! Layers as ops on the tape.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::fuse::Does;
use super::layer::{Activation, Kind, Layer, Window};
use super::plan::Plan;
use crate::engine::device::Device;
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tape::{Tape, Var};
use crate::error::{Error, Result};
use crate::nn::Init;
use crate::ops::conv_transpose2d::ConvTranspose2d;
use crate::ops::conv2d::{self, Conv2d, Then};
use crate::ops::resample::{Axis, Filter};

/// The parameters of each layer, and tables that depend on sizes.
#[derive(Debug)]
pub(super) struct Weights {
    of: Vec<[Option<Parameter>; 2]>,
    axes: Mutex<HashMap<AxisKey, Arc<Axis>>>,
}

/// Which table: for how many pixels, and of what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AxisKey {
    Edges { inputs: usize, before: usize, after: usize },
    Part { inputs: usize, first: usize, count: usize },
    Scaled { inputs: usize, over: usize, under: usize, filter: Filter },
}

/// Tables are forgotten when there are as many: pictures of all sizes would fill the memory. No recording
/// reads one then, since what it needs was there before it began.
const MOST_AXES: usize = 4096;

impl Weights {
    /// Zeros under the names `INDEX.weight` and `INDEX.bias`, counted from 0.
    pub(super) fn new(init: &mut Init, layers: &[Layer]) -> Self {
        let mut made = |(i, layer): (usize, &Layer)| {
            init.at(i.to_string(), |init| {
                let [weight, bias] = sizes(&layer.kind);
                let mut zeros = |name: &str, (layout, shape): (Layout, Vec<usize>)| {
                    init.constant(name, layout, &shape, 0.0)
                };
                [weight.map(|w| zeros("weight", w)), bias.map(|b| zeros("bias", b))]
            })
        };
        let of = layers.iter().enumerate().map(&mut made).collect();
        Self { of, axes: Mutex::default() }
    }

    /// `x` with its edges repeated.
    pub(super) fn bordered(&self, tape: &mut Tape, x: &Var, border: [usize; 2]) -> Result<Var> {
        let [before, after] = border;
        self.resampled(tape, x, |inputs| AxisKey::Edges { inputs, before, after })
    }

    /// `x` enlarged by repeating pixels.
    pub(super) fn repeated(&self, tape: &mut Tape, x: &Var, factor: usize) -> Result<Var> {
        let filter = Filter::Nearest;
        self.resampled(tape, x, |inputs| AxisKey::Scaled { inputs, over: factor, under: 1, filter })
    }

    fn resampled(&self, tape: &mut Tape, x: &Var, key: impl Fn(usize) -> AxisKey) -> Result<Var> {
        let [_, h, w, _] = x.value().nhwc("graph")?;
        if h * w == 0 {
            return Err(Error::shape("graph", "at least one pixel", x.shape()));
        }
        let (rows, columns) = (self.axis(key(h)), self.axis(key(w)));
        tape.resample(x, &rows, &columns)
    }

    fn axis(&self, key: AxisKey) -> Arc<Axis> {
        let mut axes = self.axes.lock().unwrap_or_else(PoisonError::into_inner);
        if axes.len() >= MOST_AXES && !axes.contains_key(&key) {
            axes.clear();
        }
        let make = || match key {
            AxisKey::Edges { inputs, before, after } => Axis::edges(inputs, before, after),
            AxisKey::Part { inputs, first, count } => Axis::part(inputs, first, count),
            AxisKey::Scaled { inputs, over, under, filter } => {
                Axis::scaled(inputs, inputs * over / under, [over, under], filter)
            }
        };
        Arc::clone(axes.entry(key).or_insert_with(make))
    }

    /// The rows and columns of `x` that are left without `before` at the top and left, `[height, width]` of them.
    fn part(&self, tape: &mut Tape, x: &Var, before: usize, size: [usize; 2]) -> Result<Var> {
        let [_, h, w, _] = x.value().nhwc("crop")?;
        if before + size[0] > h || before + size[1] > w {
            let wanted = format!("at least {} x {} pixels", before + size[0], before + size[1]);
            return Err(Error::shape("crop", wanted, x.shape()));
        }
        let axis = |inputs, count| self.axis(AxisKey::Part { inputs, first: before, count });
        let (rows, columns) = (axis(h, size[0]), axis(w, size[1]));
        tape.resample(x, &rows, &columns)
    }

    /// The vector `v` `[N, C]` at every pixel of a map of the size of `like`.
    fn spread(&self, tape: &mut Tape, v: &Var, like: &Var) -> Result<Var> {
        let [n, h, w, c] = like.value().nhwc("graph")?;
        let v = tape.reshape(v, &[n, 1, 1, c])?;
        let axis = |side: usize| {
            self.axis(AxisKey::Edges { inputs: 1, before: 0, after: side.saturating_sub(1) })
        };
        let (rows, columns) = (axis(h), axis(w));
        tape.resample(&v, &rows, &columns)
    }
}

/// Layout and shape of a layer's weight and of its bias.
fn sizes(kind: &Kind) -> [Option<(Layout, Vec<usize>)>; 2] {
    let plain = |shape: &[usize]| (Layout::Plain, shape.to_vec());
    let biased = |bias: bool, outputs: usize| bias.then(|| plain(&[outputs]));
    match *kind {
        Kind::Convolution(Window { channels: [ci, co], kernel, bias, .. }) => {
            [Some((Layout::Conv, vec![co, kernel, kernel, ci])), biased(bias, co)]
        }
        Kind::Deconvolution(Window { channels: [ci, co], kernel, bias, .. }) => {
            [Some((Layout::ConvTranspose, vec![ci, kernel, kernel, co])), biased(bias, co)]
        }
        Kind::Linear { channels: [ci, co], bias, .. } => [Some(plain(&[co, ci])), biased(bias, co)],
        Kind::Prelu { slopes } => [Some(plain(&[slopes])), None],
        Kind::Constant { channels } => [Some(plain(&[channels])), None],
        _ => [None, None],
    }
}

/// Runs `layers` on `x`, in the steps of `plan` unless gradients are wanted; a value is dropped after its last use.
pub(super) fn layers(
    layers: &[Layer],
    plan: &Plan,
    weights: &Weights,
    tape: &mut Tape,
    x: &Var,
) -> Result<Var> {
    let images = x.value().nhwc("graph")?[0];
    let training = tape.is_training();
    let mut values: Vec<Option<Var>> = vec![Some(x.clone())];
    for (i, (layer, step)) in layers.iter().zip(&plan.steps).enumerate() {
        let (does, reads) = match training {
            true => (&Does::Layer, &layer.from),
            false => (&step.does, &step.reads),
        };
        let read: Vec<Var> = reads.iter().filter_map(|&v| values[v].clone()).collect();
        for &v in reads.iter().filter(|&&v| !training && plan.last_use[v] == Some(i)) {
            values[v] = None;
        }
        let run = Run { weights, parameters: &weights.of[i], images };
        values.push(match *does {
            Does::Nothing => None,
            Does::Layer => Some(run.layer(tape, &layer.kind, read)?),
            Does::Attention => Some(tape.parameter_free_attention(&read[0], &read[1])?),
            Does::Convolution { layer: of } => {
                let unit = Unit::of(&layer.kind, weights.of[i][0].as_ref());
                let run = Run { weights, parameters: &weights.of[of], images };
                Some(run.convolution(tape, &layers[of].kind, &read, unit)?)
            }
        });
    }
    match values.pop().flatten() {
        Some(y) => Ok(y),
        None => unreachable!("a plan has layers, of which nothing takes in the last"),
    }
}

/// What follows a convolution.
enum Unit<'a> {
    Prelu(&'a Parameter),
    Activation(Activation),
}

impl<'a> Unit<'a> {
    /// Of the layer that a convolution ends with, and its slopes.
    const fn of(kind: &Kind, slopes: Option<&'a Parameter>) -> Self {
        match (kind, slopes) {
            (Kind::Prelu { .. }, Some(slopes)) => Self::Prelu(slopes),
            (Kind::Convolution(Window { activation, .. }) | Kind::Activation { activation }, _) => {
                Self::Activation(*activation)
            }
            _ => Self::Activation(Activation::None),
        }
    }
}

/// One layer.
struct Run<'a> {
    weights: &'a Weights,
    parameters: &'a [Option<Parameter>; 2],
    images: usize,
}

impl Run<'_> {
    fn layer(&self, tape: &mut Tape, kind: &Kind, read: Vec<Var>) -> Result<Var> {
        match *kind {
            Kind::Convolution(_) => self.convolution(tape, kind, &read, Unit::of(kind, None)),
            Kind::Deconvolution(Window { stride, pad, activation, .. }) => {
                let (weight, bias) = self.parameters(tape);
                let op = ConvTranspose2d::new(stride, pad);
                let y = tape.conv_transpose2d(&read[0], &weight, bias.as_ref(), op)?;
                drop(read);
                activate(tape, y, activation)
            }
            Kind::Linear { activation, .. } => {
                let (weight, bias) = self.parameters(tape);
                let y = tape.linear(&read[0], &weight, bias.as_ref())?;
                activate(tape, y, activation)
            }
            Kind::Activation { activation } => activate(tape, read[0].clone(), activation),
            Kind::Prelu { .. } => {
                let (slopes, _) = self.parameters(tape);
                tape.prelu(&read[0], &slopes)
            }
            Kind::Constant { .. } => {
                let (value, _) = self.parameters(tape);
                Ok(tape.input(value.value().stacked(self.images)?))
            }
            Kind::Concat => tape.concat(&read.iter().collect::<Vec<_>>()),
            Kind::Sum { ref factors } => self.sum(tape, factors, &read),
            Kind::Product => self.product(tape, &read[0], &read[1]),
            Kind::Gate => {
                let shape = [self.images, 1, 1, read[1].shape()[1]];
                let gate = tape.reshape(&read[1], &shape)?;
                tape.channel_gate(&read[0], &gate)
            }
            Kind::Affine { factor, shift } => tape.affine(&read[0], factor, shift),
            Kind::GlobalMean => {
                let mean = tape.mean_pixels(&read[0])?;
                tape.reshape(&mean, &[self.images, mean.value().len() / self.images.max(1)])
            }
            Kind::PixelShuffle { factor } => tape.pixel_shuffle(&read[0], factor),
            Kind::Interpolate { filter: Filter::Nearest, over, under: 1 }
                if over.is_power_of_two() =>
            {
                let mut y = read[0].clone();
                for _ in 0..over.ilog2() {
                    y = tape.nearest2(&y)?;
                }
                Ok(y)
            }
            Kind::Interpolate { filter, over, under } => {
                let key = |inputs| AxisKey::Scaled { inputs, over, under, filter };
                self.weights.resampled(tape, &read[0], key)
            }
            Kind::Crop { before, after } => {
                let [_, h, w, _] = read[0].value().nhwc("crop")?;
                let left = |side: usize| side.saturating_sub(before + after);
                self.weights.part(tape, &read[0], before, [left(h), left(w)])
            }
            Kind::CropLike { before } => {
                let [_, h, w, _] = read[1].value().nhwc("crop")?;
                self.weights.part(tape, &read[0], before, [h, w])
            }
        }
    }

    /// Weight and bias.
    ///
    /// # Panics
    /// If the layer has no weight: such kinds do not ask.
    fn parameters(&self, tape: &mut Tape) -> (Var, Option<Var>) {
        let [Some(weight), bias] = self.parameters else { unreachable!("the layer has a weight") };
        (tape.parameter(weight), bias.as_ref().map(|b| tape.parameter(b)))
    }

    /// The convolution `kind` of the maps `read`, and what follows it, in one pass where there is one for both.
    fn convolution(
        &self,
        tape: &mut Tape,
        kind: &Kind,
        read: &[Var],
        unit: Unit<'_>,
    ) -> Result<Var> {
        let &Kind::Convolution(Window { channels, kernel, stride, pad, .. }) = kind else {
            unreachable!("a step names a convolution")
        };
        let (x, (weight, bias)) = (&read[0], self.parameters(tape));
        // The CPU is several times faster at convolutions that keep the size.
        let wide = channels[0].max(channels[1]) >= 16;
        let eats = kernel == 3 && stride == 1 && pad == 0 && wide;
        let keeps = eats && x.value().device() == Device::Cpu;
        let op = Conv2d { stride, pad: if keeps { 1 } else { pad }, relu: false };
        let (w, b) = (&weight, bias.as_ref());
        let parts: Vec<&Var> = read.iter().collect();
        let (mut y, left) = match (unit, read.len()) {
            (Unit::Activation(Activation::LeakyRelu(slope)), 2..) => {
                (tape.conv2d_joined(&parts, w, b, slope, op)?, Activation::None)
            }
            (Unit::Activation(left), 2..) => (tape.conv2d_joined(&parts, w, b, 1.0, op)?, left),
            (Unit::Prelu(slopes), parts_read) => {
                let slopes = tape.parameter(slopes);
                let all = if parts_read > 1 { tape.concat(&parts)? } else { x.clone() };
                (tape.conv2d_prelu(&all, w, b, &slopes, op)?, Activation::None)
            }
            (Unit::Activation(Activation::LeakyRelu(slope)), _) if !tape.is_training() => {
                (tape.conv2d_leaky(x, w, b, slope, op)?, Activation::None)
            }
            (Unit::Activation(Activation::Relu), _) => {
                (tape.conv2d(x, w, b, op.relu())?, Activation::None)
            }
            (Unit::Activation(Activation::Silu), _) if !tape.is_training() => {
                let then =
                    Then { bias: b, activation: conv2d::Activation::Silu, ..Then::default() };
                (tape.conv2d_fused(x, w, op, then)?, Activation::None)
            }
            (Unit::Activation(left), _) => (tape.conv2d(x, w, b, op)?, left),
        };
        if keeps {
            let [_, h, w, _] = y.value().nhwc("conv2d")?;
            y = self.weights.part(tape, &y, 1, [h.saturating_sub(2), w.saturating_sub(2)])?;
        }
        activate(tape, y, left)
    }

    /// Maps first, so that vectors are spread over one that is there.
    fn sum(&self, tape: &mut Tape, factors: &[f64], read: &[Var]) -> Result<Var> {
        let is_map = |v: &Var| v.shape().len() == 4;
        let mut terms: Vec<(&Var, f64)> = read.iter().zip(factors.iter().copied()).collect();
        terms.sort_by_key(|(v, _)| !is_map(v));
        let (first, factor) = terms[0];
        let mut sum = first.clone();
        let mut scale = factor;
        for &(v, factor) in &terms[1..] {
            sum = match is_map(v) || !is_map(&sum) {
                true => tape.scaled_add(&sum, scale, v, factor)?,
                false => {
                    let scaled = if scale == 1.0 { sum } else { tape.scale(&sum, scale)? };
                    let v = if factor == 1.0 { v.clone() } else { tape.scale(v, factor)? };
                    tape.add_channels(&scaled, &v)?
                }
            };
            scale = 1.0;
        }
        if scale == 1.0 { Ok(sum) } else { tape.scale(&sum, scale) }
    }

    fn product(&self, tape: &mut Tape, a: &Var, b: &Var) -> Result<Var> {
        let spread = match (a.shape().len(), b.shape().len()) {
            (4, 2) => self.weights.spread(tape, b, a)?,
            (2, 4) => self.weights.spread(tape, a, b)?,
            _ => return tape.multiply(a, b),
        };
        tape.multiply(if a.shape().len() == 4 { a } else { b }, &spread)
    }
}

fn activate(tape: &mut Tape, x: Var, activation: Activation) -> Result<Var> {
    match activation {
        Activation::None => Ok(x),
        Activation::Relu => tape.relu(&x),
        Activation::LeakyRelu(slope) => tape.leaky_relu(&x, slope),
        Activation::Sigmoid => tape.sigmoid(&x),
        Activation::Silu => tape.silu(&x),
        Activation::Mish => tape.mish(&x),
        Activation::Tanh => tape.tanh(&x),
    }
}
