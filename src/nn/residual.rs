//! Residual blocks of diffusion UNets: normalise, activate, convolve, and add what t has to say.
use super::init::Init;
use super::layers::{Conv2d, GroupNorm, Linear};
use crate::engine::tape::{Tape, Var};
use crate::error::{Error, Result};
use crate::ops::conv2d::{Measured, Then};

/// GroupNorm, SiLU, a convolution, and perhaps something per channel made of the embedding of t.
#[derive(Clone, Debug)]
pub struct Stage {
    norm: GroupNorm,
    conv: Conv2d,
    time: Time,
}

/// What a stage does with the embedding of t.
#[derive(Clone, Debug)]
enum Time {
    Ignored,
    /// Adds a shift to the convolution's output.
    Shift(Linear),
    /// Scales and shifts the norm's output.
    Film(Linear),
}

impl Stage {
    /// The three parts; they name themselves. What `time` makes of the embedding of t is added.
    pub fn new(norm: GroupNorm, conv: Conv2d, time: Option<Linear>) -> Self {
        Self { norm, conv, time: time.map_or(Time::Ignored, Time::Shift) }
    }

    /// As [`new`](Self::new), but the first half of what `time` makes scales the norm's output, and the
    /// second half shifts it.
    pub const fn film(norm: GroupNorm, conv: Conv2d, time: Linear) -> Self {
        Self { norm, conv, time: Time::Film(time) }
    }

    /// The stage's output, plus a residual times a factor if there is one; `time` is `[N, time_dim]`.
    pub fn forward(
        &self,
        tape: &mut Tape,
        x: &Var,
        time: Option<&Var>,
        residual: Option<(&Var, f64)>,
    ) -> Result<Var> {
        // Assigned, not shadowed, so that an inference tape frees what is no longer needed.
        let mut y = self.normed(tape, x, time)?;
        let shift = match &self.time {
            Time::Shift(linear) => Some(linear.forward(tape, told(x, time)?)?),
            _ => None,
        };
        y = self.conv.forward_summed(tape, &y, shift.as_ref(), residual)?;
        Ok(y)
    }

    /// What the convolution sees.
    fn normed(&self, tape: &mut Tape, x: &Var, time: Option<&Var>) -> Result<Var> {
        let Time::Film(linear) = &self.time else { return self.norm.forward_silu(tape, x) };
        let both = linear.forward(tape, told(x, time)?)?;
        let channels = both.shape().last().map_or(0, |c| c / 2);
        let scale = tape.slice_channels(&both, 0, channels)?;
        let shift = tape.slice_channels(&both, channels, channels)?;
        self.norm.forward_film_silu(tape, x, [&scale, &shift])
    }

    /// The map that makes the shift.
    const fn shift(&self) -> Option<&Linear> {
        match &self.time {
            Time::Shift(linear) => Some(linear),
            _ => None,
        }
    }

    /// Whether it takes something of the embedding of t.
    pub const fn is_told(&self) -> bool {
        !matches!(self.time, Time::Ignored)
    }

    /// Groups of the norm.
    pub const fn groups(&self) -> usize {
        self.norm.groups()
    }

    /// As [`forward`](Self::forward), with all that follows the convolution in one pass, and what a norm of `groups` groups
    /// behind it asks for.
    pub fn fused(
        &self,
        tape: &mut Tape,
        x: &Measured,
        time: Option<&Var>,
        shifts: &mut Shifts,
        then: Then<'_>,
        groups: Option<usize>,
    ) -> Result<Measured> {
        if matches!(self.time, Time::Film(_)) {
            let x = x.whole(tape)?;
            let y = self.normed(tape, &x, time)?;
            return self.conv.forward_measured(tape, &y, then, groups);
        }
        let shift = if self.shift().is_some() { shifts.next() } else { None };
        self.conv.forward_normed(tape, x, (&self.norm, true), Then { shift, ..then }, groups)
    }
}

fn told<'a>(x: &Var, time: Option<&'a Var>) -> Result<&'a Var> {
    time.ok_or_else(|| Error::shape("residual", "an embedding of t beside x", x.shape()))
}

/// What t has to say to the stages of a network, in the order that they run: of one product.
#[derive(Debug)]
pub struct Shifts {
    all: Option<Var>,
    firsts: std::vec::IntoIter<usize>,
}

impl Shifts {
    /// Those of `blocks` for the embedding `time` `[N, time_dim]`, on a tape that [fuses](Tape::fuses).
    pub fn new<'a>(
        tape: &mut Tape,
        blocks: impl Iterator<Item = &'a ResidualBlock>,
        time: Option<&Var>,
    ) -> Result<Self> {
        let layers: Vec<&Linear> =
            blocks.flat_map(|b| b.stages.iter().filter_map(Stage::shift)).collect();
        let (all, firsts) = match (time, layers.is_empty()) {
            (Some(time), false) => {
                let (all, firsts) = Linear::forward_all(tape, &layers, time)?;
                (Some(all), firsts)
            }
            _ => (None, Vec::new()),
        };
        Ok(Self { all, firsts: firsts.into_iter() })
    }

    /// All, and where those of the next stage begin.
    fn next(&mut self) -> Option<(&Var, usize)> {
        self.all.as_ref().zip(self.firsts.next())
    }
}

/// `skip_scale * skip(x) + stages(x)`, `skip` the identity where the channels stay the same.
#[derive(Clone, Debug)]
pub struct ResidualBlock {
    stages: Vec<Stage>,
    skip: Option<Conv2d>,
    skip_scale: f64,
}

impl ResidualBlock {
    /// The block of DDPM (Ho et al. 2020, appendix B) as SR3's published implementation has it: two
    /// 3x3 convolutions, t added after the first, a 1x1 convolution where the channels change.
    pub fn ddpm(
        init: &mut Init,
        [inputs, outputs]: [usize; 2],
        time_dim: usize,
        groups: usize,
    ) -> Self {
        let time =
            init.at("noise_func.noise_func", |init| Linear::new(init, "0", time_dim, outputs));
        let mut stage = |name: &str, inputs: usize, time: Option<Linear>| {
            init.at(name, |init| {
                let norm = GroupNorm::new(init, "block.0", groups, inputs);
                Stage::new(norm, Conv2d::same(init, "block.3", inputs, outputs, 3), time)
            })
        };
        let stages = vec![stage("block1", inputs, Some(time)), stage("block2", outputs, None)];
        let skip = (inputs != outputs).then(|| Conv2d::same(init, "res_conv", inputs, outputs, 1));
        Self { stages, skip, skip_scale: 1.0 }
    }

    /// The block of guided diffusion (Dhariwal and Nichol 2021, section 3): as [`ddpm`](Self::ddpm), but
    /// what t has to say, from an embedding that has passed SiLU, scales and shifts the second norm. The
    /// last convolution starts at zero.
    pub fn guided(
        init: &mut Init,
        [inputs, outputs]: [usize; 2],
        time_dim: usize,
        groups: usize,
    ) -> Self {
        let first = init.at("in_layers", |init| {
            let norm = GroupNorm::new(init, "0", groups, inputs);
            Stage::new(norm, Conv2d::same(init, "2", inputs, outputs, 3), None)
        });
        let time = init.at("emb_layers", |init| Linear::new(init, "1", time_dim, 2 * outputs));
        let second = init.at("out_layers", |init| {
            let norm = GroupNorm::new(init, "0", groups, outputs);
            Stage::film(norm, Conv2d::same(init, "3", outputs, outputs, 3).scaled(0.0), time)
        });
        let skip =
            (inputs != outputs).then(|| Conv2d::same(init, "skip_connection", inputs, outputs, 1));
        Self { stages: vec![first, second], skip, skip_scale: 1.0 }
    }

    /// The block of latent diffusion's autoencoders (Esser et al. 2021), which is not told about t.
    pub fn timeless(init: &mut Init, [inputs, outputs]: [usize; 2], groups: usize) -> Self {
        let mut stage = |i: usize, inputs: usize| {
            let norm = GroupNorm::new(init, &format!("norm{i}"), groups, inputs).with_eps(1e-6);
            Stage::new(norm, Conv2d::same(init, &format!("conv{i}"), inputs, outputs, 3), None)
        };
        let stages = vec![stage(1, inputs), stage(2, outputs)];
        let skip =
            (inputs != outputs).then(|| Conv2d::same(init, "nin_shortcut", inputs, outputs, 1));
        Self { stages, skip, skip_scale: 1.0 }
    }

    /// The deep block of BigGAN (Brock et al. 2019, appendix B) without its bottleneck: convolutions
    /// 1x1, 3x3, 3x3 and 1x1, t added after the first three, the second changes the channels; the
    /// skip, a 3x3 convolution where they change, is divided by `sqrt(2)`. A group of the norms has
    /// 16 channels.
    pub fn biggan_deep(init: &mut Init, [inputs, outputs]: [usize; 2], time_dim: usize) -> Self {
        let stages = init.at("model_ultim.models", |init| {
            let channels = [[inputs, inputs], [inputs, outputs], [outputs, outputs], [outputs; 2]];
            let kernels = [1, 3, 3, 1];
            let stage = |(i, ([from, to], kernel)): (usize, ([usize; 2], usize))| {
                let name = |part: usize| (4 * i + part).to_string();
                let norm = GroupNorm::new(init, &name(0), groups_of_16(from), from);
                let conv = Conv2d::same(init, &name(2), from, to, kernel);
                let time = (i < 3)
                    .then(|| init.at(name(3), |init| Linear::new(init, "func", time_dim, to)));
                Stage::new(norm, conv, time)
            };
            channels.into_iter().zip(kernels).enumerate().map(stage).collect()
        });
        let skip = (inputs != outputs).then(|| Conv2d::same(init, "conv", inputs, outputs, 3));
        Self { stages, skip, skip_scale: std::f64::consts::FRAC_1_SQRT_2 }
    }

    /// Groups of the first norm.
    pub fn groups(&self) -> Option<usize> {
        self.stages.first().map(Stage::groups)
    }

    /// As [`forward`](Self::forward), each convolution with all that follows it in one pass, and what a norm of `groups`
    /// groups behind the block asks for.
    pub fn fused(
        &self,
        tape: &mut Tape,
        x: &Measured,
        time: Option<&Var>,
        shifts: &mut Shifts,
        groups: Option<usize>,
    ) -> Result<Measured> {
        let Some((last, before)) = self.stages.split_last() else { return Ok(x.clone()) };
        let mut y = x.clone();
        for (stage, next) in before.iter().zip(&self.stages[1..]) {
            let next = Some(next.groups());
            y = stage.fused(tape, &y, time, shifts, Then::default(), next)?;
        }
        let skip = match &self.skip {
            Some(conv) => conv.forward_maps(tape, &x.maps(), false, Then::default())?,
            None => x.whole(tape)?,
        };
        let residual = Some((&skip, self.skip_scale));
        last.fused(tape, &y, time, shifts, Then { residual, ..Then::default() }, groups)
    }

    /// The block's output, of the same height and width; `time` is `[N, time_dim]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var, time: Option<&Var>) -> Result<Var> {
        let Some((last, before)) = self.stages.split_last() else { return Ok(x.clone()) };
        let mut y = x.clone();
        for stage in before {
            y = stage.forward(tape, &y, time, None)?;
        }
        let skip = match &self.skip {
            Some(conv) => conv.forward(tape, x)?,
            None => x.clone(),
        };
        last.forward(tape, &y, time, Some((&skip, self.skip_scale)))
    }
}

/// The groups of a norm over `channels` where a group has 16; one if there are fewer.
pub const fn groups_of_16(channels: usize) -> usize {
    if channels < 16 { 1 } else { channels / 16 }
}
