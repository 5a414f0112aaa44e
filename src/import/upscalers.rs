//! Entries of [`KNOWN`](super::detect::KNOWN) for networks that go from low resolution straight to high.
use super::shapes::{Known, Shapes};
use crate::models::ModelConfig;
use crate::models::compact::{Activation, CompactConfig};
use crate::models::edsr::EdsrConfig;
use crate::models::errn2::Errn2Config;
use crate::models::span::{DIV2K_MEAN, SpanConfig};
use crate::models::spanv2::SpanV2Config;

/// The factor whose square, times 3 colours, is the number of channels before a pixel shuffle.
fn shuffle(s: &Shapes, name: &str) -> Option<usize> {
    (1..=16).find(|n| s.dim(name, 0) == Some(3 * n * n))
}

/// Whether nothing about this network is assumed after all.
pub(super) fn is_settled(model: &ModelConfig) -> bool {
    match model {
        ModelConfig::Compact(c) => c.activation == Activation::Prelu,
        // As told by `no_norm`, or by the user.
        ModelConfig::Span(c) => (c.range, c.mean) != (255.0, DIV2K_MEAN),
        _ => false,
    }
}

pub(super) const ERRN2: Known = Known {
    name: "errn2",
    keys: &["conv_1.weight", "block_1.rep1.rep_conv.weight", "conv_2.weight", "upsampler.0.weight"],
    config: |s| {
        Some(ModelConfig::Errn2(Errn2Config {
            channels: s.dim("conv_1.weight", 0)?,
            blocks: s.count(|i| format!("block_{}.rep1.rep_conv.weight", i + 1)),
            depth: s.count(|i| format!("block_1.rep{}.rep_conv.weight", i + 1)),
            scale: shuffle(s, "upsampler.0.weight")?,
        }))
    },
    narrow: || ModelConfig::Errn2(Errn2Config { channels: 8, blocks: 2, depth: 3, scale: 2 }),
    assumed: "",
};

pub(super) const SPAN: Known = Known {
    name: "span",
    keys: &[
        "conv_1.eval_conv.weight",
        "block_1.c1_r.eval_conv.weight",
        "conv_cat.weight",
        "conv_2.eval_conv.weight",
        "upsampler.0.weight",
    ],
    config: |s| {
        let plain = s.shapes.contains_key("no_norm");
        let seen = if plain { (1.0, [0.0; 3]) } else { (255.0, DIV2K_MEAN) };
        Some(ModelConfig::Span(SpanConfig {
            channels: s.dim("conv_1.eval_conv.weight", 0)?,
            blocks: s.count(|i| format!("block_{}.c1_r.eval_conv.weight", i + 1)),
            scale: shuffle(s, "upsampler.0.weight")?,
            range: seen.0,
            mean: seen.1,
            branches: false,
        }))
    },
    narrow: || ModelConfig::Span(SpanConfig { channels: 8, blocks: 3, ..Default::default() }),
    assumed: "that the network sees 255 (x - mean of DIV2K) unless there is a tensor no_norm (--set model.range=1 \
              --set model.mean=[0,0,0] where it sees colours as they are)",
};

pub(super) const SPANV2: Known = Known {
    name: "spanv2",
    keys: &[
        "conv_near.weight",
        "block_1.c1.conv.weight",
        "block_2.guidance_map_conv.weight",
        "depthwise_conv.weight",
        "pointwise_conv.weight",
    ],
    config: |s| {
        Some(ModelConfig::SpanV2(SpanV2Config {
            channels: s.dim("block_2.guidance_map_conv.weight", 0)?,
            blocks: s.count(|i| format!("block_{}.c1.conv.weight", i + 1)),
            scale: shuffle(s, "conv_near.weight")?,
        }))
    },
    narrow: || ModelConfig::SpanV2(SpanV2Config { channels: 8, blocks: 2, scale: 3 }),
    assumed: "",
};

pub(super) const COMPACT: Known = Known {
    name: "compact",
    keys: &["body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"],
    config: |s| {
        let convs = s.count(|i| format!("body.{}.weight", 2 * i));
        let slopes = s.dim("body.1.weight", 0).is_some();
        let activation = if slopes { Activation::Prelu } else { Activation::Relu };
        let colours = s.dim("body.0.weight", 1) == Some(3);
        Some(ModelConfig::Compact(CompactConfig {
            channels: s.dim("body.0.weight", 0)?,
            depth: convs.checked_sub(2).filter(|_| colours)?,
            scale: shuffle(s, &format!("body.{}.weight", 2 * (convs - 1)))?,
            activation,
        }))
    },
    narrow: || {
        let config = CompactConfig { channels: 8, depth: 2, scale: 3, ..Default::default() };
        ModelConfig::Compact(config)
    },
    assumed: "ReLU behind convolutions where there are no slopes (model.activation, such as leaky-relu)",
};

pub(super) const EDSR: Known = Known {
    name: "edsr",
    keys: &[
        "conv_first.weight",
        "body.0.conv1.weight",
        "conv_after_body.weight",
        "conv_last.weight",
    ],
    config: |s| {
        let steps = (0..).map(|i| s.dim(&format!("upsample.{}.weight", 2 * i), 0));
        let channels = s.dim("conv_first.weight", 0)?;
        let factor = |outputs: usize| (2..=3).find(|n| outputs == n * n * channels);
        let factors: Vec<_> = steps.map_while(|outputs| outputs).map(factor).collect();
        Some(ModelConfig::Edsr(EdsrConfig {
            channels,
            blocks: s.count(|i| format!("body.{i}.conv1.weight")),
            scale: factors.into_iter().take(6).product::<Option<usize>>()?,
            // As published: wide networks damp their blocks.
            residual_scale: if channels >= 256 { 0.1 } else { 1.0 },
            ..Default::default()
        }))
    },
    narrow: || {
        let config = EdsrConfig { channels: 8, blocks: 2, scale: 2, ..Default::default() };
        ModelConfig::Edsr(config)
    },
    assumed: "that the network sees 255 (x - mean of DIV2K) (model.range, model.mean); blocks damped by 0.1 from \
              256 channels on (model.residual_scale)",
};
