//! Transformer blocks that attend within windows of a map (Swin, Liu et al. 2021), as the network of
//! ResShift has them: with GroupNorm and 1x1 convolutions.
use super::init::Init;
use super::layers::{Conv2d, GroupNorm};
use crate::engine::parameter::{Layout, Parameter};
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::ops::window_attention::{Mask, WindowAttention};

/// Groups of the norms.
const GROUPS: usize = 32;

/// The sizes of a layer of Swin blocks.
#[derive(Clone, Copy, Debug)]
pub struct SwinSizes {
    /// Channels inside.
    pub channels: usize,
    /// Channels between the two convolutions behind the attention.
    pub hidden: usize,
    /// Heads of the attention.
    pub heads: usize,
    /// Side of a window in pixels.
    pub window: usize,
    /// Blocks; windows of every second one are shifted by half a side.
    pub depth: usize,
    /// Which pixels of a shifted window do not see each other.
    pub mask: Mask,
}

/// A 1x1 convolution, Swin blocks, and a 1x1 convolution back; nothing leads around the whole.
#[derive(Clone, Debug)]
pub struct SwinLayer {
    embed: Conv2d,
    blocks: Vec<SwinBlock>,
    unembed: Conv2d,
}

impl SwinLayer {
    /// A layer between maps of `channels` channels whose nominal side is `resolution` pixels: where that
    /// is a window or less, windows are as large and not shifted, whatever size the map really has.
    pub fn new(init: &mut Init, channels: usize, resolution: usize, sizes: SwinSizes) -> Self {
        let inside = sizes.channels;
        let embed = init.at("patch_embed", |init| Conv2d::same(init, "proj", channels, inside, 1));
        let unembed =
            init.at("patch_unembed", |init| Conv2d::same(init, "proj", inside, channels, 1));
        let block = |i: usize| {
            let shifted = i % 2 == 1 && resolution > sizes.window;
            let windows = WindowAttention {
                heads: sizes.heads,
                window: sizes.window.min(resolution).max(1),
                shift: if shifted { sizes.window / 2 } else { 0 },
                mask: sizes.mask,
            };
            init.at(format!("blocks.{i}"), |init| {
                SwinBlock::new(init, inside, sizes.hidden, windows)
            })
        };
        Self { embed, blocks: (0..sizes.depth).map(block).collect(), unembed }
    }

    /// The layer's output, of the same shape. Blocks are parts that a recomputing tape runs again.
    pub fn forward(&self, tape: &mut Tape, x: Var) -> Result<Var> {
        let mut y = self.embed.forward(tape, &x)?;
        drop(x);
        for block in &self.blocks {
            // A clone shares the weights.
            let block = block.clone();
            y = tape.part(&[&y], move |tape, v| block.forward(tape, &v[0]))?;
        }
        self.unembed.forward(tape, &y)
    }
}

/// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
#[derive(Clone, Debug)]
struct SwinBlock {
    norms: [GroupNorm; 2],
    table: Parameter,
    qkv: Conv2d,
    project: Conv2d,
    mlp: [Conv2d; 2],
    windows: WindowAttention,
}

impl SwinBlock {
    fn new(init: &mut Init, channels: usize, hidden: usize, windows: WindowAttention) -> Self {
        let first = GroupNorm::new(init, "norm1", GROUPS, channels);
        let (table, qkv, project) = init.at("attn", |init| {
            let side = 2 * windows.window - 1;
            let shape = [side * side, windows.heads];
            let table = init.normal("relative_position_bias_table", Layout::Plain, &shape, 0.02);
            let qkv = Conv2d::flattened(init, "qkv", [channels, 3 * channels, 1]);
            (table, qkv, Conv2d::flattened(init, "proj", [channels, channels, 1]))
        });
        let second = GroupNorm::new(init, "norm2", GROUPS, channels);
        let mlp = init.at("mlp", |init| {
            let wide = Conv2d::same(init, "fc1", channels, hidden, 1);
            [wide, Conv2d::same(init, "fc2", hidden, channels, 1)]
        });
        Self { norms: [first, second], table, qkv, project, mlp, windows }
    }

    fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        // Assigned, not shadowed, so that an inference tape frees what is no longer needed.
        let mut y = self.norms[0].forward(tape, x)?;
        y = self.qkv.forward(tape, &y)?;
        let table = tape.parameter(&self.table);
        y = tape.window_attention(&y, &table, self.windows)?;
        y = self.project.forward(tape, &y)?;
        let x = tape.add(x, &y)?;
        y = self.norms[1].forward(tape, &x)?;
        y = self.mlp[0].forward(tape, &y)?;
        y = tape.gelu(&y)?;
        y = self.mlp[1].forward(tape, &y)?;
        tape.add(&x, &y)
    }
}
