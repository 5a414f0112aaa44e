//! Which network a state dict belongs to: one entry for each that srk runs.
//!
//! To add a network, add an entry to [`KNOWN`]: its kind as in `[model]`, some keys that no other has (the
//! widest layer among them, so that a file cannot ask for more memory than it is long), how its sizes
//! follow from shapes, and a narrow version, which `tests/suite/import.rs` takes through the whole import.
pub use super::shapes::{Known, Shapes};
use super::{resshift, upscalers};
use crate::models::ModelConfig;
use crate::models::attention_unet::AttentionUNetConfig;
use crate::models::biggan_unet::{BigGanUNetConfig, Injection};
use crate::models::dual_domain_grid::DualDomainGridConfig;
use crate::models::dual_domain_unet::DualDomainUNetConfig;
use crate::models::laplacian::LaplacianConfig;
use crate::models::residual_unet::ResidualUNetConfig;
use crate::models::rrdb::RrdbConfig;
use crate::models::sr3_unet::Sr3UNetConfig;
use crate::models::srddpm_unet::{SrddpmUNetConfig, TimeInput};
use crate::models::srdiff_unet::SrdiffUNetConfig;
use crate::models::srgan::SrganConfig;

/// All of them.
pub const KNOWN: &[Known] = &[
    Known {
        name: "dual-domain-grid",
        keys: &[
            "stem.weight",
            "blocks.0.time.weight",
            "blocks.0.spatial.conv.0.weight",
            "tail.weight",
        ],
        config: |s| {
            let scale = (1..=16).find(|n| s.dim("tail.weight", 0) == Some(3 * n * n))?;
            let (reduced, trunk) = (s.dim("blocks.0.reduce.weight", 0)?, s.dim("stem.weight", 0)?);
            let frequency = s.dim("blocks.0.dct.weight", 0)?;
            Some(ModelConfig::DualDomainGrid(DualDomainGridConfig {
                scale,
                channels: trunk,
                blocks: s.count(|i| format!("blocks.{i}.time.weight")),
                frequency_channels: frequency,
                wavelet_channels: reduced.checked_sub(frequency)?,
                time_dim: s.dim("time.0.weight", 1)?,
            }))
        },
        narrow: || {
            ModelConfig::DualDomainGrid(DualDomainGridConfig {
                scale: 4,
                channels: 8,
                blocks: 2,
                frequency_channels: 4,
                wavelet_channels: 6,
                time_dim: 12,
            })
        },
        assumed: "",
    },
    Known {
        name: "dual-domain-unet",
        keys: &["inc.conv.0.weight", "down1.1.dct_branch.process.0.weight", "dec2.fusion.weight"],
        config: |s| {
            Some(ModelConfig::DualDomainUNet(DualDomainUNetConfig {
                base: s.dim("dec2.fusion.weight", 0)? / 2,
                time_dim: s.dim("time_mlp.1.weight", 1)?,
                ..Default::default()
            }))
        },
        narrow: || {
            let config = DualDomainUNetConfig { base: 8, time_dim: 12, ..Default::default() };
            ModelConfig::DualDomainUNet(config)
        },
        assumed: "",
    },
    Known {
        name: "residual-unet",
        keys: &["time_emb.weight", "time_lin1.weight", "conv3_2.weight", "conv5_1.weight"],
        config: |s| {
            let base = s.dim("conv3_2.weight", 0)? / 2;
            Some(ModelConfig::ResidualUNet(ResidualUNetConfig { base, ..Default::default() }))
        },
        narrow: || ModelConfig::ResidualUNet(ResidualUNetConfig { base: 8, ..Default::default() }),
        assumed: "",
    },
    Known {
        name: "sr3-unet",
        keys: &[
            "noise_level_mlp.1.weight",
            "downs.0.weight",
            "mid.0.attn.qkv.weight",
            "final_conv.block.3.weight",
        ],
        config: sr3,
        narrow: || {
            ModelConfig::Sr3UNet(Sr3UNetConfig {
                base: 8,
                multipliers: vec![1, 2, 4],
                blocks: 1,
                groups: 8,
                attention: vec![64],
                ..Default::default()
            })
        },
        assumed: "groups of the norms (model.groups)",
    },
    Known {
        name: "attention-unet",
        keys: &[
            "encoder.enc1.models.0.model_ultim.models.6.weight",
            "bottleneck.layer1.models.0.res_block.model_ultim.models.10.weight",
            "decoder.last.models.0.model_ultim.models.6.weight",
        ],
        config: |s| {
            let [first, last] = ["encoder.enc1", "decoder.last"]
                .map(|part| format!("{part}.models.0.model_ultim.models.6.weight"));
            let widest = "bottleneck.layer1.models.0.res_block.model_ultim.models.10.weight";
            Some(ModelConfig::AttentionUNet(AttentionUNetConfig {
                base: s.dim(widest, 0)? / 16,
                // Both published models have its weights.
                attention: s.file.contains("attn"),
                time_dim: s.dim("encoder.enc1.models.0.model_ultim.models.3.func.weight", 1)?,
                input_channels: s.dim(&first, 1)?,
                output_channels: s.dim(&last, 0)?,
                ..Default::default()
            }))
        },
        narrow: || {
            let config = AttentionUNetConfig { base: 4, time_dim: 10, ..Default::default() };
            ModelConfig::AttentionUNet(config)
        },
        assumed: "whether attention runs (model.attention): by \"attn\" in the file's name",
    },
    Known {
        name: "biggan-unet",
        keys: &[
            "conv0.weight",
            "up_blocks.0.upsample.weight",
            "up_blocks.0.bn1.running_mean",
            "output.weight",
        ],
        config: |s| {
            let down = (0..).map(|i| s.dim(&format!("down_blocks.{i}.skip_conv.weight"), 0));
            let mut widths = vec![s.dim("conv0.weight", 0)?];
            widths.extend(down.map_while(|width| width));
            let first = s.dim("down_blocks.0.time_mlp.weight", 0)? == widths[0];
            let injection = if first { Injection::BeforeConv1 } else { Injection::BetweenConvs };
            Some(ModelConfig::BigGanUNet(BigGanUNetConfig {
                channels: s.dim("output.weight", 0)?,
                time_dim: s.dim("time_mlp.1.weight", 0)?,
                widths,
                injection,
                ..Default::default()
            }))
        },
        narrow: || {
            let widths = vec![4, 8, 12];
            let config =
                BigGanUNetConfig { channels: 3, time_dim: 16, widths, ..Default::default() };
            ModelConfig::BigGanUNet(config)
        },
        assumed: "",
    },
    Known {
        name: "laplacian",
        keys: &[
            "conv1.weight",
            "upsample_8x.weight",
            "channels_compression_2x.weight",
            "reconstruction_layer.weight",
        ],
        config: |s| {
            let channels = s.dim("channels_compression_2x.weight", 0)?;
            let distinct = s.dim("residual_block_8x.0.conv.weight", 0).is_some();
            // Published weights are of calls that all see the same.
            Some(ModelConfig::Laplacian(LaplacianConfig {
                channels,
                distinct,
                chained: distinct,
                ..LaplacianConfig::published()
            }))
        },
        narrow: || {
            ModelConfig::Laplacian(LaplacianConfig { channels: 16, ..LaplacianConfig::published() })
        },
        assumed: "whether blocks are chained (model.chained)",
    },
    Known {
        name: "srddpm-unet",
        keys: &[
            "lr_processor.0.weight",
            "time_mlp.0.weight",
            "bottleneck.conv2.weight",
            "out_conv.weight",
        ],
        config: |s| {
            let inputs = s.dim("time_mlp.0.weight", 1)?;
            let time = if inputs == 1 { TimeInput::Raw } else { TimeInput::Sinusoids };
            Some(ModelConfig::SrddpmUNet(SrddpmUNetConfig {
                base: s.dim("bottleneck.conv2.weight", 0)? / 8,
                time_dim: s.dim("time_mlp.0.weight", 0)?,
                time,
                ..Default::default()
            }))
        },
        narrow: || {
            let time = TimeInput::Raw;
            let config = SrddpmUNetConfig { base: 4, time_dim: 12, time, ..Default::default() };
            ModelConfig::SrddpmUNet(config)
        },
        assumed: "that images were in -1..1, where the published training has 0..1",
    },
    Known {
        name: "srgan",
        keys: &[
            "prelu1.weight",
            "residual_blocks.0.bn1.weight",
            "upsample.0.conv.weight",
            "conv3.weight",
        ],
        config: |s| {
            let doublings = s.count(|i| format!("upsample.{i}.conv.weight"));
            Some(ModelConfig::Srgan(SrganConfig {
                base: s.dim("residual_blocks.0.bn1.weight", 0)?,
                blocks: s.count(|i| format!("residual_blocks.{i}.conv1.weight")),
                scale: (doublings < 7).then(|| 1 << doublings)?,
            }))
        },
        narrow: || ModelConfig::Srgan(SrganConfig { base: 8, blocks: 2, ..Default::default() }),
        assumed: "",
    },
    Known {
        name: "rrdb",
        keys: &[
            "conv_first.weight",
            "RRDB_trunk.0.RDB1.conv5.weight",
            "HRconv.weight",
            "conv_last.weight",
        ],
        config: |s| {
            let encoder = encoder(s, "")?;
            let doublings = s.count(|i| format!("upconv{}.weight", i + 1));
            let finer = (doublings < 7).then(|| 1usize << doublings)?;
            let inputs = s.dim("conv_first.weight", 1);
            let unshuffle = [1, 2, 4].into_iter().find(|n| inputs == Some(3 * n * n))?;
            let scale = finer / unshuffle;
            Some(ModelConfig::Rrdb(RrdbConfig { scale, unshuffle, ..encoder }))
        },
        narrow: || {
            let config = RrdbConfig { base: 8, blocks: 3, growth: 4, ..Default::default() };
            ModelConfig::Rrdb(config)
        },
        assumed: "",
    },
    Known {
        name: "srdiff-unet",
        keys: &[
            "cond_proj.weight",
            "mlp.0.weight",
            "downs.0.0.block1.block.1.weight",
            "mid_block1.block1.block.1.weight",
            "rrdb.conv_first.weight",
        ],
        config: |s| {
            let encoder = encoder(s, "rrdb.")?;
            let base = s.dim("mlp.0.weight", 1)?;
            let widths = (0..).map(|i| s.dim(&format!("downs.{i}.0.block1.block.1.weight"), 0));
            let widths = widths.map_while(|width| width);
            Some(ModelConfig::SrdiffUNet(SrdiffUNetConfig {
                base,
                multipliers: widths.map(|width| width / base).collect(),
                encoder_base: encoder.base,
                encoder_blocks: encoder.blocks,
                encoder_growth: encoder.growth,
                scale: s.dim("cond_proj.weight", 2)? / 2,
            }))
        },
        narrow: || {
            ModelConfig::SrdiffUNet(SrdiffUNetConfig {
                base: 8,
                multipliers: vec![1, 2],
                encoder_base: 8,
                encoder_blocks: 8,
                encoder_growth: 4,
                scale: 4,
            })
        },
        assumed: "",
    },
    Known {
        name: "swin-unet",
        keys: &[
            "time_embed.0.weight",
            "input_blocks.0.0.weight",
            "middle_block.1.patch_embed.proj.weight",
            "out.2.weight",
        ],
        config: resshift::config,
        narrow: resshift::narrow,
        assumed: "nominal resolutions counted from latents of 64x64 (model.image_size)",
    },
    upscalers::ERRN2,
    upscalers::SPAN,
    upscalers::SPANV2,
    upscalers::COMPACT,
    upscalers::EDSR,
];

/// The sizes of an encoder of dense blocks whose names start with `prefix`.
fn encoder(s: &Shapes, prefix: &str) -> Option<RrdbConfig> {
    Some(RrdbConfig {
        base: s.dim(&format!("{prefix}conv_first.weight"), 0)?,
        blocks: s.count(|i| format!("{prefix}RRDB_trunk.{i}.RDB1.conv1.weight")),
        growth: s.dim(&format!("{prefix}RRDB_trunk.0.RDB1.conv1.weight"), 0)?,
        ..Default::default()
    })
}

/// Levels of blocks, a strided convolution between two; attention by which blocks have it.
fn sr3(s: &Shapes) -> Option<ModelConfig> {
    let base = s.dim("downs.0.weight", 0)?;
    let mut levels = vec![(0, 0, false)];
    for i in 1.. {
        let width = s.dim(&format!("downs.{i}.res_block.block1.block.3.weight"), 0);
        match (width, levels.last_mut()) {
            (Some(width), Some(level)) => {
                let attends = s.dim(&format!("downs.{i}.attn.qkv.weight"), 0).is_some();
                *level = (width, level.1 + 1, attends);
            }
            _ if s.dim(&format!("downs.{i}.conv.weight"), 0).is_some() => {
                levels.push((0, 0, false))
            }
            _ => break,
        }
    }
    let multipliers: Vec<usize> =
        levels.iter().map(|l| l.0.checked_div(base)).collect::<Option<_>>()?;
    let blocks = levels[0].1;
    if levels.len() > 16 {
        return None;
    }
    // As published: 16 groups for one block a level and 16 times the width, 32 for the others.
    let usual = if blocks == 1 && multipliers.last() == Some(&16) { 16 } else { 32 };
    let groups = [usual, 16, 8, 4, 2, 1].into_iter().find(|g| base.is_multiple_of(*g))?;
    // Nominal resolutions only say which levels attend.
    let image_size = if levels.len() > 8 { 1 << levels.len() } else { 128 };
    let attending = levels.iter().enumerate().filter(|(_, level)| level.2);
    Some(ModelConfig::Sr3UNet(Sr3UNetConfig {
        base,
        multipliers,
        blocks,
        groups,
        attention: attending.map(|(i, _)| image_size >> i).collect(),
        image_size,
        input_channels: s.dim("downs.0.weight", 1)?,
        output_channels: s.dim("final_conv.block.3.weight", 0)?,
        ..Default::default()
    }))
}

/// The network that the shapes belong to.
pub fn identify(shapes: &Shapes) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.fits(shapes))
}

/// The network called `name`.
pub fn by_name(name: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|known| known.name == name)
}

/// The network that shares most names with the shapes, in proportion to its own.
pub fn nearest(shapes: &Shapes) -> Option<(&'static Known, (usize, usize))> {
    let all = KNOWN.iter().map(|known| (known, known.matches(shapes)));
    all.max_by_key(|(_, (found, all))| found * 1000 / (*all).max(1))
}
