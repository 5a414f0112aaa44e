//! One description of UNets (Ronneberger et al. 2015): layers in a row, some of whose inputs are kept
//! for later ones.
use super::attention::SelfAttention;
use super::layers::{Conv2d, ConvTranspose2d};
use super::residual::{ResidualBlock, Shifts, Stage};
use super::swin::SwinLayer;
use crate::engine::tape::{Tape, Var};
use crate::error::{Error, Result};
use crate::ops::conv2d::Then;

/// One layer of a UNet.
#[derive(Clone, Debug)]
pub enum Layer {
    /// A convolution of any stride.
    Conv(Conv2d),
    /// A norm, SiLU and a convolution: the last layer of many UNets.
    Stage(Stage),
    /// A residual block, perhaps told about t.
    Block(ResidualBlock),
    /// Self-attention over the whole map.
    Attention(SelfAttention),
    /// Self-attention within windows.
    Swin(SwinLayer),
    /// Half the size: a convolution over a map that zeros at the bottom and the right make larger.
    Halve(Conv2d),
    /// Half the size: the largest of 2x2 pixels.
    MaxPool,
    /// Twice the size by repeating every pixel.
    Nearest,
    /// A larger map by a transposed convolution.
    Transposed(ConvTranspose2d),
    /// Keeps the map for a later [`Layer::Join`]; the last kept is the first joined.
    Keep,
    /// Joins the channels of the map kept last, at the side given.
    Join(Side),
}

/// Where the channels of a kept map go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Before those of the map that has come up.
    Before,
    /// Behind them.
    Behind,
}

/// Layers in the order they run.
#[derive(Clone, Debug, Default)]
pub struct UNet {
    layers: Vec<Layer>,
}

impl UNet {
    /// Appends a layer.
    pub fn push(&mut self, layer: Layer) {
        self.layers.push(layer);
    }

    /// The output for the map `x`, with the embedding of t `time` `[N, time_dim]` if there is a layer that
    /// asks for it.
    ///
    /// Blocks and attention are parts that a recomputing tape runs again.
    pub fn forward(&self, tape: &mut Tape, mut x: Var, time: Option<&Var>) -> Result<Var> {
        let mut kept = Vec::new();
        let mut shifts = self.shifts(tape, &x, time)?;
        let mut layers = self.layers.iter().peekable();
        while let Some(layer) = layers.next() {
            x = match layer {
                Layer::Nearest
                    if shifts.is_some() && matches!(layers.peek(), Some(Layer::Conv(_))) =>
                {
                    let Some(Layer::Conv(conv)) = layers.next() else { continue };
                    conv.forward_maps(tape, &[&x], true, Then::default())?
                }
                Layer::Conv(conv) => conv.forward(tape, &x)?,
                Layer::Stage(stage) => stage.forward(tape, &x, time)?,
                Layer::Block(block) => {
                    if let Some(shifts) = &mut shifts {
                        x = block.fused(tape, &x, time, shifts)?;
                        continue;
                    }
                    // A clone shares the weights.
                    let block = block.clone();
                    let inputs: Vec<&Var> = std::iter::once(&x).chain(time).collect();
                    tape.part(&inputs, move |tape, v| block.forward(tape, &v[0], v.get(1)))?
                }
                Layer::Attention(attention) => {
                    let attention = attention.clone();
                    tape.part(&[&x], move |tape, v| attention.forward(tape, &v[0]))?
                }
                Layer::Swin(swin) => swin.forward(tape, x)?,
                Layer::Halve(conv) => {
                    x = tape.pad_zero(&x, 1, 1)?;
                    conv.forward(tape, &x)?
                }
                Layer::MaxPool => tape.max_pool2(&x)?,
                Layer::Nearest => tape.nearest2(&x)?,
                Layer::Transposed(conv) => conv.forward(tape, &x)?,
                Layer::Keep => {
                    kept.push(x.clone());
                    x
                }
                Layer::Join(side) => {
                    let Some(skip) = kept.pop() else {
                        return Err(Error::shape("unet", "a kept map for every join", x.shape()));
                    };
                    match side {
                        Side::Before => tape.concat(&[&skip, &x])?,
                        Side::Behind => tape.concat(&[&x, &skip])?,
                    }
                }
            };
        }
        Ok(x)
    }

    /// What t has to say to the blocks, if what follows their convolutions is best given to these.
    fn shifts(&self, tape: &mut Tape, x: &Var, time: Option<&Var>) -> Result<Option<Shifts>> {
        if !tape.fuses(x) {
            return Ok(None);
        }
        let blocks = self.layers.iter().filter_map(|layer| match layer {
            Layer::Block(block) => Some(block),
            _ => None,
        });
        Shifts::new(tape, blocks, time).map(Some)
    }
}
