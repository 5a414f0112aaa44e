//! Convolutions, linear maps and norms with their parameters.
use super::init::Init;
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::Result;
use crate::ops::conv_transpose2d;
use crate::ops::conv2d::{self, Measured, Norm, Then};
use crate::ops::group_norm;

/// A 2-D convolution over `[N, H, W, Cin]` with weight `[Cout, k, k, Cin]`.
#[derive(Clone, Debug)]
pub struct Conv2d {
    weight: Parameter,
    bias: Option<Parameter>,
    op: conv2d::Conv2d,
}

impl Conv2d {
    /// Stride 1 and the padding that keeps the size, with a bias, initialised as PyTorch does.
    pub fn same(init: &mut Init, name: &str, inputs: usize, outputs: usize, kernel: usize) -> Self {
        Self::new(init, name, [inputs, outputs, kernel], conv2d::Conv2d::same(kernel))
    }

    /// A convolution of `[inputs, outputs, kernel]` with any stride and padding.
    pub fn new(
        init: &mut Init,
        name: &str,
        [inputs, outputs, kernel]: [usize; 3],
        op: conv2d::Conv2d,
    ) -> Self {
        init.at(name, |init| {
            let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
            let shape = [outputs, kernel, kernel, inputs];
            let weight = init.uniform("weight", Layout::Conv, &shape, bound);
            let bias = Some(init.uniform("bias", Layout::Plain, &[outputs], bound));
            Self { weight, bias, op }
        })
    }

    /// A linear map of all of a map `[N, side, side, inputs]`, with the names and shapes of one of a vector:
    /// `[N, 1, 1, outputs]`.
    pub fn flattened(init: &mut Init, name: &str, [inputs, outputs, side]: [usize; 3]) -> Self {
        init.at(name, |init| {
            let bound = 1.0 / ((inputs * side * side) as f64).sqrt();
            let (layout, shape) = (Layout::Flattened { side }, [outputs, side, side, inputs]);
            let weight = init.uniform("weight", layout, &shape, bound);
            let bias = Some(init.uniform("bias", Layout::Plain, &[outputs], bound));
            Self { weight, bias, op: conv2d::Conv2d { stride: 1, pad: 0, relu: false } }
        })
    }

    /// Without a bias.
    pub fn unbiased(
        init: &mut Init,
        name: &str,
        inputs: usize,
        outputs: usize,
        kernel: usize,
    ) -> Self {
        init.at(name, |init| {
            let bound = 1.0 / ((inputs * kernel * kernel) as f64).sqrt();
            let shape = [outputs, kernel, kernel, inputs];
            let weight = init.uniform("weight", Layout::Conv, &shape, bound);
            Self { weight, bias: None, op: conv2d::Conv2d::same(kernel) }
        })
    }

    /// The same layer followed by ReLU.
    pub fn relu(self) -> Self {
        Self { op: self.op.relu(), ..self }
    }

    /// The same layer with its initial weights and bias multiplied by `factor`: a residual branch
    /// that starts small keeps a deep network without norms trainable.
    pub fn scaled(self, factor: f64) -> Self {
        std::iter::once(&self.weight).chain(&self.bias).for_each(|p| scale(p, factor));
        self
    }

    /// Weights, which the processor may keep transformed, and bias.
    fn shared(&self, tape: &mut Tape) -> (Var, Option<Var>) {
        conv2d::share_weights(&self.weight);
        (tape.parameter(&self.weight), self.bias.as_ref().map(|b| tape.parameter(b)))
    }

    /// The layer's output.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = self.shared(tape);
        tape.conv2d(x, &weight, bias.as_ref(), self.op)
    }

    /// The layer's output plus `factor residual`, plus `shift` `[N, outputs]`, one number for each image and channel, as
    /// far as there are such.
    pub fn forward_summed(
        &self,
        tape: &mut Tape,
        x: &Var,
        shift: Option<&Var>,
        residual: Option<(&Var, f64)>,
    ) -> Result<Var> {
        if let Some(bias) = self.bias.as_ref().filter(|_| !self.op.relu) {
            let [weight, bias] = [&self.weight, bias].map(|p| tape.parameter(p));
            return tape.conv2d_summed([x, &weight, &bias], shift, residual, self.op);
        }
        let mut y = self.forward(tape, x)?;
        if let Some((residual, factor)) = residual {
            y = tape.scaled_add(residual, factor, &y, 1.0)?;
        }
        match shift {
            Some(shift) => tape.add_channels(&y, shift),
            None => Ok(y),
        }
    }

    /// The layer's output, then leaky ReLU of this slope left of 0.
    pub fn forward_leaky(&self, tape: &mut Tape, x: &Var, slope: f64) -> Result<Var> {
        if !tape.is_free() {
            let y = self.forward(tape, x)?;
            return tape.leaky_relu(&y, slope);
        }
        let (weight, bias) = self.shared(tape);
        tape.conv2d_leaky(x, &weight, bias.as_ref(), slope, self.op)
    }

    /// The layer's output for `maps` side by side, then leaky ReLU of this slope left of 0 (1 is none), for
    /// inference; the CPU reads the maps where they lie.
    pub fn forward_joined(&self, tape: &mut Tape, maps: &[Var], slope: f64) -> Result<Var> {
        let (weight, bias) = self.shared(tape);
        let maps: Vec<&Var> = maps.iter().collect();
        tape.conv2d_joined(&maps, &weight, bias.as_ref(), slope, self.op)
    }

    /// The layer's output and what follows it, in one pass; the bias is the layer's, and its ReLU unless there is another
    /// activation. For tapes that [fuse](Tape::fuses).
    pub fn forward_then(&self, tape: &mut Tape, x: &Var, then: Then<'_>) -> Result<Var> {
        self.forward_maps(tape, &[x], false, then)
    }

    /// The same for `maps` side by side, or `doubled`: for their enlargement to twice the sides by repeating pixels.
    pub fn forward_maps(
        &self,
        tape: &mut Tape,
        maps: &[&Var],
        doubled: bool,
        then: Then<'_>,
    ) -> Result<Var> {
        let weight = tape.parameter(&self.weight);
        let bias = self.bias.as_ref().map(|b| tape.parameter(b));
        let then = self.with_own(bias.as_ref(), then);
        tape.conv2d_of_maps(maps, doubled, &weight, self.op, then)
    }

    /// What follows, with the layer's bias and its ReLU unless there is another activation.
    fn with_own<'a>(&self, bias: Option<&'a Var>, then: Then<'a>) -> Then<'a> {
        let activation = match (self.op.relu, then.activation) {
            (true, conv2d::Activation::None) => conv2d::Activation::Relu,
            (_, activation) => activation,
        };
        Then { bias, activation, ..then }
    }

    /// As [`forward_then`](Self::forward_then), and what a norm of `groups` groups behind it asks for.
    pub fn forward_measured(
        &self,
        tape: &mut Tape,
        x: &Var,
        then: Then<'_>,
        groups: Option<usize>,
    ) -> Result<Measured> {
        let weight = tape.parameter(&self.weight);
        let bias = self.bias.as_ref().map(|b| tape.parameter(b));
        tape.conv2d_measured(x, &weight, self.op, self.with_own(bias.as_ref(), then), groups)
    }

    /// The same of `x` behind a norm, and SiLU where it is so.
    pub fn forward_normed(
        &self,
        tape: &mut Tape,
        x: &Measured,
        (norm, silu): (&GroupNorm, bool),
        then: Then<'_>,
        groups: Option<usize>,
    ) -> Result<Measured> {
        let weight = tape.parameter(&self.weight);
        let bias = self.bias.as_ref().map(|b| tape.parameter(b));
        let (gamma, beta) = (&tape.parameter(&norm.weight), &tape.parameter(&norm.bias));
        let op = group_norm::GroupNorm { groups: norm.groups, eps: norm.eps, silu };
        let norm = Norm { gamma, beta, op };
        tape.conv2d_normed(x, norm, &weight, self.op, self.with_own(bias.as_ref(), then), groups)
    }

    /// `residual + factor * output`.
    #[allow(clippy::float_cmp)] // A number as it was given.
    pub fn forward_onto(
        &self,
        tape: &mut Tape,
        x: &Var,
        residual: &Var,
        factor: f64,
    ) -> Result<Var> {
        if tape.fuses(x) {
            let residual = Some((residual, 1.0));
            return self.forward_then(tape, x, Then { scale: factor, residual, ..Then::default() });
        }
        if factor == 1.0 {
            return self.forward_summed(tape, x, None, Some((residual, 1.0)));
        }
        let y = self.forward(tape, x)?;
        tape.scaled_add(residual, 1.0, &y, factor)
    }

    /// The weight and the bias on `tape`, for ops that take a layer's product in with others.
    pub fn operands(&self, tape: &mut Tape) -> (Var, Option<Var>) {
        (tape.parameter(&self.weight), self.bias.as_ref().map(|b| tape.parameter(b)))
    }

    /// The layer's output, then SiLU.
    pub fn forward_silu(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        if tape.fuses(x) {
            let activation = conv2d::Activation::Silu;
            return self.forward_then(tape, x, Then { activation, ..Then::default() });
        }
        let y = self.forward(tape, x)?;
        tape.silu(&y)
    }

    /// The layer's output, then parametric ReLU.
    pub fn forward_prelu(&self, tape: &mut Tape, x: &Var, unit: &Prelu) -> Result<Var> {
        if !tape.is_free() {
            let y = self.forward(tape, x)?;
            return unit.forward(tape, &y);
        }
        let (weight, slopes) = (tape.parameter(&self.weight), tape.parameter(&unit.weight));
        let bias = self.bias.as_ref().map(|b| tape.parameter(b));
        tape.conv2d_prelu(x, &weight, bias.as_ref(), &slopes, self.op)
    }
}

/// Multiplies the initial values of `parameter` by `factor`.
fn scale(parameter: &Parameter, factor: f64) {
    let value = parameter.value();
    let scaled: Vec<f64> = match value.cpu::<f32>() {
        Ok(values) => values.iter().map(|&v| f64::from(v) * factor).collect(),
        Err(_) => unreachable!("a network is built on the CPU in F32"),
    };
    parameter.set(Tensor::from_f64(&scaled, value.shape(), value.dtype()));
}

/// A transposed convolution over `[N, H, W, Cin]` with weight `[Cin, k, k, Cout]`.
#[derive(Clone, Debug)]
pub struct ConvTranspose2d {
    weight: Parameter,
    bias: Parameter,
    op: conv_transpose2d::ConvTranspose2d,
}

impl ConvTranspose2d {
    /// A transposed convolution of `[inputs, outputs, kernel]`; PyTorch takes `outputs` for the fan-in.
    pub fn new(
        init: &mut Init,
        name: &str,
        [inputs, outputs, kernel]: [usize; 3],
        op: conv_transpose2d::ConvTranspose2d,
    ) -> Self {
        init.at(name, |init| {
            let bound = 1.0 / ((outputs * kernel * kernel) as f64).sqrt();
            let shape = [inputs, kernel, kernel, outputs];
            let weight = init.uniform("weight", Layout::ConvTranspose, &shape, bound);
            let bias = init.uniform("bias", Layout::Plain, &[outputs], bound);
            Self { weight, bias, op }
        })
    }

    /// The layer's output.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = (tape.parameter(&self.weight), tape.parameter(&self.bias));
        tape.conv_transpose2d(x, &weight, Some(&bias), self.op)
    }
}

/// A linear map of `[N, in]` with weight `[out, in]` and bias `[out]`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Parameter,
}

impl Linear {
    /// A linear map, initialised as PyTorch does.
    pub fn new(init: &mut Init, name: &str, inputs: usize, outputs: usize) -> Self {
        init.at(name, |init| {
            let bound = 1.0 / (inputs as f64).sqrt();
            let weight = init.uniform("weight", Layout::Plain, &[outputs, inputs], bound);
            let bias = init.uniform("bias", Layout::Plain, &[outputs], bound);
            Self { weight, bias }
        })
    }

    /// The same layer with its initial weights and bias multiplied by `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        [&self.weight, &self.bias].into_iter().for_each(|p| scale(p, factor));
        self
    }

    /// The layer's output `[N, out]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = (tape.parameter(&self.weight), tape.parameter(&self.bias));
        tape.linear(x, &weight, Some(&bias))
    }

    /// The layer's output, then SiLU.
    pub fn forward_silu(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let aligned = self.bias.value().len().is_multiple_of(8);
        if aligned && tape.fuses(x) {
            let map = [tape.parameter(&self.weight), tape.parameter(&self.bias)];
            return Ok(tape.linears(x, &[map], true)?.0);
        }
        let y = self.forward(tape, x)?;
        tape.silu(&y)
    }

    /// The outputs of `layers` for the same `x` `[N, in]`, each as one map of `[N, M]` and where it begins there: for
    /// tapes that [fuse](Tape::fuses).
    pub fn forward_all(tape: &mut Tape, layers: &[&Self], x: &Var) -> Result<(Var, Vec<usize>)> {
        let both = |l: &&Self| [tape.parameter(&l.weight), tape.parameter(&l.bias)];
        let maps: Vec<[Var; 2]> = layers.iter().map(both).collect();
        tape.linears(x, &maps, false)
    }
}

/// A depthwise convolution over `[N, H, W, Ci]` with weight `[Co, k, k, 1]`, without a bias: every channel by
/// itself, Co a multiple of Ci.
#[derive(Clone, Debug)]
pub struct DepthwiseConv2d {
    weight: Parameter,
}

impl DepthwiseConv2d {
    /// Stride 1 and the padding that keeps the size, for an odd `kernel`.
    pub fn same(init: &mut Init, name: &str, outputs: usize, kernel: usize) -> Self {
        init.at(name, |init| {
            let shape = [outputs, kernel, kernel, 1];
            let bound = 1.0 / kernel as f64;
            Self { weight: init.uniform("weight", Layout::Conv, &shape, bound) }
        })
    }

    /// The layer's output `[N, H, W, Co]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let weight = tape.parameter(&self.weight);
        tape.depthwise_conv2d(x, &weight, None)
    }
}

/// A rectified linear unit whose slopes left of 0 are learnt: one, or one for each channel.
#[derive(Clone, Debug)]
pub struct Prelu {
    weight: Parameter,
}

impl Prelu {
    /// A unit of slope 1/4, as PyTorch's.
    pub fn new(init: &mut Init, name: &str) -> Self {
        Self::of(init, name, 1)
    }

    /// A unit with a slope for each of so many channels, 1/4 at the start.
    pub fn of(init: &mut Init, name: &str, channels: usize) -> Self {
        let slopes = [channels];
        init.at(name, |init| Self { weight: init.constant("weight", Layout::Plain, &slopes, 0.25) })
    }

    /// The unit's output, of the shape of `x`.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let slope = tape.parameter(&self.weight);
        tape.prelu(x, &slope)
    }
}

/// Group normalisation with a per-channel affine map.
#[derive(Clone, Debug)]
pub struct GroupNorm {
    weight: Parameter,
    bias: Parameter,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Normalises `groups` groups of `channels` channels; weight 1 and bias 0 at the start.
    pub fn new(init: &mut Init, name: &str, groups: usize, channels: usize) -> Self {
        init.at(name, |init| {
            let weight = init.constant("weight", Layout::Plain, &[channels], 1.0);
            let bias = init.constant("bias", Layout::Plain, &[channels], 0.0);
            Self { weight, bias, groups, eps: 1e-5 }
        })
    }

    /// The same layer with another number added to the variance than 1e-5.
    pub fn with_eps(self, eps: f64) -> Self {
        Self { eps, ..self }
    }

    /// The layer's output.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = (tape.parameter(&self.weight), tape.parameter(&self.bias));
        tape.group_norm(x, &weight, &bias, self.groups, self.eps)
    }

    /// How many groups there are.
    pub const fn groups(&self) -> usize {
        self.groups
    }

    /// The layer's output, then SiLU.
    pub fn forward_silu(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let (weight, bias) = (tape.parameter(&self.weight), tape.parameter(&self.bias));
        tape.group_norm_silu(x, &weight, &bias, self.groups, self.eps)
    }

    /// The layer's output `* (1 + scale) + shift`, both `[N, C]`, then SiLU (FiLM, Perez et al. 2018).
    pub fn forward_film_silu(
        &self,
        tape: &mut Tape,
        x: &Var,
        scale_and_shift: [&Var; 2],
    ) -> Result<Var> {
        let affine = [tape.parameter(&self.weight), tape.parameter(&self.bias)];
        let affine = [&affine[0], &affine[1]];
        tape.group_norm_film_silu(x, affine, scale_and_shift, self.groups, self.eps)
    }
}

/// Batch normalisation with a per-channel affine map. A tape with batch statistics (see
/// [`Tape::uses_batch_statistics`]) normalises by those and moves the running ones; others use the
/// running ones.
#[derive(Clone, Debug)]
pub struct BatchNorm {
    weight: Parameter,
    bias: Parameter,
    /// Running means and variances, `[C]` each.
    running: [Parameter; 2],
    /// How often they moved.
    moved: Parameter,
}

/// PyTorch's defaults.
const BATCH_NORM_EPS: f64 = 1e-5;
const BATCH_NORM_MOMENTUM: f64 = 0.1;

impl BatchNorm {
    /// Normalises each of `channels` channels; weight and variance 1, bias and mean 0 at the start.
    pub fn new(init: &mut Init, name: &str, channels: usize) -> Self {
        init.at(name, |init| Self {
            weight: init.constant("weight", Layout::Plain, &[channels], 1.0),
            bias: init.constant("bias", Layout::Plain, &[channels], 0.0),
            running: [
                init.buffer("running_mean", &[channels], 0.0),
                init.buffer("running_var", &[channels], 1.0),
            ],
            moved: init.buffer("num_batches_tracked", &[], 0.0),
        })
    }

    /// The layer's output.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let affine = [tape.parameter(&self.weight), tape.parameter(&self.bias)];
        let affine = [&affine[0], &affine[1]];
        let mut running = self.statistics()?;
        if !tape.uses_batch_statistics() {
            let running = tape.input(running);
            return tape.batch_norm_with(x, affine, &running, BATCH_NORM_EPS);
        }
        let y = tape.batch_norm(x, affine, &mut running, BATCH_NORM_MOMENTUM, BATCH_NORM_EPS)?;
        self.store(running)?;
        Ok(y)
    }

    /// The running statistics as [`Tape::batch_norm`] takes them, `[2, C]`.
    fn statistics(&self) -> Result<Tensor> {
        let mut tape = Tape::inference();
        let [mean, variance] = self.running.each_ref().map(|p| {
            let value = p.value();
            value.try_clone()?.reshape(&[1, 1, 1, value.len()])
        });
        let [mean, variance] = [tape.input(mean?), tape.input(variance?)];
        let both = tape.concat(&[&mean, &variance])?.into_tensor()?;
        let channels = both.len() / 2;
        both.reshape(&[2, channels])
    }

    fn store(&self, statistics: Tensor) -> Result<()> {
        let mut tape = Tape::inference();
        let channels = statistics.len() / 2;
        let both = tape.input(statistics.reshape(&[1, 1, 1, 2 * channels])?);
        for (i, parameter) in self.running.iter().enumerate() {
            let part = tape.slice_channels(&both, i * channels, channels)?;
            parameter.set(part.into_tensor()?.reshape(&[channels])?);
        }
        let before = tape.input(self.moved.value());
        let after = tape.affine(&before, 1.0, 1.0)?;
        self.moved.set(after.into_tensor()?);
        Ok(())
    }
}
