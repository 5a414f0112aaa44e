//! ResShift's two files: the sizes of its UNet of Swin layers, and of the autoencoder below it.
use super::shapes::Shapes;
use crate::models::ModelConfig;
use crate::models::swin_unet::{FIRST_STAGE, SwinUNetConfig};
use crate::models::vq::VqConfig;
use crate::ops::window_attention::Mask;

/// The side of the latents that nominal resolutions of the published networks are counted from.
const IMAGE: usize = 64;

/// The sizes of the UNet; none where the shapes are not of one.
pub(super) fn config(s: &Shapes) -> Option<ModelConfig> {
    let base = s.dim("input_blocks.0.0.weight", 0)?;
    let levels = levels(s);
    if levels.len() > 6 {
        return None;
    }
    let latent_channels = s.dim("out.2.weight", 0)?;
    let halvings = s.count(|i| format!("feature_extractor.{}.op.weight", 3 * i + 2));
    let low_channels = match s.dim("feature_extractor.0.weight", 1) {
        Some(channels) => channels,
        None => s.dim("input_blocks.0.0.weight", 1)?.checked_sub(latent_channels)?,
    };
    // Every Swin layer has the same sizes.
    let block = "middle_block.1.blocks.0";
    let swin_channels = s.dim("middle_block.1.patch_embed.proj.weight", 0)?;
    let table = format!("{block}.attn.relative_position_bias_table");
    let (offsets, heads) = (s.dim(&table, 0)?, s.dim(&table, 1)?);
    let attending = levels.iter().enumerate().filter(|(_, level)| level.attends);
    let autoencoder = autoencoder(s, &format!("{FIRST_STAGE}."));
    let low_size = IMAGE << halvings;
    let factor = autoencoder.as_ref().map_or(4, VqConfig::factor);
    Some(ModelConfig::SwinUNet(SwinUNetConfig {
        base,
        multipliers: levels.iter().map(|l| l.width.checked_div(base)).collect::<Option<_>>()?,
        blocks: levels.iter().map(|l| l.blocks).collect(),
        attention: attending.map(|(i, _)| IMAGE >> i).collect(),
        image_size: IMAGE,
        low_size,
        swin_channels,
        head_channels: swin_channels.checked_div(heads)?,
        // (2 window - 1)^2 offsets.
        window: offsets.isqrt().div_ceil(2),
        depth: s.count(|i| format!("middle_block.1.blocks.{i}.norm1.weight")),
        mask: Mask::Published,
        mlp_ratio: s.dim(&format!("{block}.mlp.fc1.weight"), 0)?.checked_div(swin_channels)?,
        low_channels,
        latent_channels,
        scale: (IMAGE * factor / low_size).max(1),
        autoencoder,
    }))
}

/// A level of the UNet on the way down.
struct Level {
    width: usize,
    blocks: usize,
    attends: bool,
}

/// Blocks in a row, a strided convolution between two levels.
fn levels(s: &Shapes) -> Vec<Level> {
    let fresh = || Level { width: 0, blocks: 0, attends: false };
    let mut levels = vec![fresh()];
    for i in 1.. {
        let name = format!("input_blocks.{i}");
        let width = s.dim(&format!("{name}.0.out_layers.3.weight"), 0);
        match (width, levels.last_mut()) {
            (Some(width), Some(level)) => {
                level.width = width;
                level.blocks += 1;
                level.attends |= s.dim(&format!("{name}.1.patch_embed.proj.weight"), 0).is_some();
            }
            _ if s.dim(&format!("{name}.0.op.weight"), 0).is_some() => levels.push(fresh()),
            _ => break,
        }
    }
    levels
}

/// The sizes of an autoencoder whose names begin with `prefix`; none if there is none.
fn autoencoder(s: &Shapes, prefix: &str) -> Option<VqConfig> {
    let dim = |name: &str, axis: usize| s.dim(&format!("{prefix}{name}"), axis);
    let channels = dim("encoder.conv_in.weight", 0)?;
    let width = |i: usize| dim(&format!("encoder.down.{i}.block.0.conv2.weight"), 0);
    let widths: Vec<usize> = (0..8).map_while(width).collect();
    let resolution = VqConfig::default().resolution;
    let attends = |i: &usize| dim(&format!("encoder.down.{i}.attn.0.norm.weight"), 0).is_some();
    Some(VqConfig {
        channels,
        blocks: s.count(|i| format!("{prefix}encoder.down.0.block.{i}.norm1.weight")),
        attention: (0..widths.len()).filter(attends).map(|i| resolution >> i).collect(),
        multipliers: widths.iter().map(|w| w / channels).collect(),
        resolution,
        inner_channels: dim("encoder.conv_out.weight", 0)?,
        latent_channels: dim("quant_conv.weight", 0)?,
        codes: dim("quantize.embedding.weight", 0)?,
        image_channels: dim("encoder.conv_in.weight", 1)?,
    })
}

/// A narrow one with its autoencoder.
pub(super) fn narrow() -> ModelConfig {
    ModelConfig::SwinUNet(SwinUNetConfig {
        base: 32,
        multipliers: vec![1, 2],
        blocks: vec![1, 1],
        attention: vec![IMAGE, IMAGE / 2],
        swin_channels: 32,
        window: 4,
        mlp_ratio: 1,
        mask: Mask::Published,
        autoencoder: Some(VqConfig {
            channels: 32,
            multipliers: vec![1, 1, 1],
            blocks: 1,
            codes: 64,
            ..VqConfig::default()
        }),
        ..SwinUNetConfig::default()
    })
}
