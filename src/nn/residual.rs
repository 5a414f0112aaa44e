//! Residual blocks of diffusion UNets: normalise, activate, convolve, and add what t has to say.
use super::init::Init;
use super::layers::{Conv2d, GroupNorm, Linear};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;

/// GroupNorm, SiLU, a convolution, and perhaps a shift per channel made of the embedding of t.
#[derive(Clone, Debug)]
pub struct Stage {
    norm: GroupNorm,
    conv: Conv2d,
    time: Option<Linear>,
}

impl Stage {
    /// The three parts; they name themselves.
    pub const fn new(norm: GroupNorm, conv: Conv2d, time: Option<Linear>) -> Self {
        Self { norm, conv, time }
    }

    /// The stage's output; `time` is `[N, time_dim]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var, time: &Var) -> Result<Var> {
        // Assigned, not shadowed, so that an inference tape frees what is no longer needed.
        let mut y = self.norm.forward_silu(tape, x)?;
        y = self.conv.forward(tape, &y)?;
        if let Some(linear) = &self.time {
            let shift = linear.forward(tape, time)?;
            y = tape.add_channels(&y, &shift)?;
        }
        Ok(y)
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

    /// The block's output, of the same height and width; `time` is `[N, time_dim]`.
    pub fn forward(&self, tape: &mut Tape, x: &Var, time: &Var) -> Result<Var> {
        let mut y = x.clone();
        for stage in &self.stages {
            y = stage.forward(tape, &y, time)?;
        }
        let skip = match &self.skip {
            Some(conv) => conv.forward(tape, x)?,
            None => x.clone(),
        };
        tape.scaled_add(&skip, self.skip_scale, &y, 1.0)
    }
}

/// The groups of a norm over `channels` where a group has 16; one if there are fewer.
pub const fn groups_of_16(channels: usize) -> usize {
    if channels < 16 { 1 } else { channels / 16 }
}
