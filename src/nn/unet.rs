//! One description of UNets (Ronneberger et al. 2015): layers in a row, some of whose inputs are kept
//! for later ones.
use super::attention::SelfAttention;
use super::layers::{Conv2d, ConvTranspose2d};
use super::residual::{ResidualBlock, Shifts, Stage};
use super::swin::SwinLayer;
use crate::engine::tape::{Tape, Var};
use crate::error::{Error, Result};
use crate::ops::conv2d::{Measured, Then};

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

impl Side {
    const fn in_order<'a>(self, x: &'a Var, kept: &'a Var) -> [&'a Var; 2] {
        match self {
            Self::Before => [kept, x],
            Self::Behind => [x, kept],
        }
    }
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
        if tape.fuses(&x) {
            return self.fused(tape, x, time);
        }
        let mut kept = Vec::new();
        for layer in &self.layers {
            x = layer.forward(tape, x, time, &mut kept)?;
        }
        Ok(x)
    }

    /// As [`forward`](Self::forward) on a tape that [fuses](Tape::fuses): what is around convolutions is given to them.
    fn fused(&self, tape: &mut Tape, x: Var, time: Option<&Var>) -> Result<Var> {
        let mut kept = Vec::new();
        let mut shifts = Shifts::new(tape, self.blocks(), time)?;
        let (mut x, mut layers) = (Measured::from(x), self.layers.iter());
        while let Some(layer) = layers.next() {
            let groups = norm_of(layers.as_slice());
            x = match (layer, layers.as_slice().first()) {
                (Layer::Nearest, Some(Layer::Conv(conv))) => {
                    layers.next();
                    conv.forward_maps(tape, &x.maps(), true, Then::default())?.into()
                }
                (Layer::Conv(conv), _) if groups.is_some() => {
                    let x = x.whole(tape)?;
                    conv.forward_measured(tape, &x, Then::default(), groups)?
                }
                (Layer::Block(block), _) => block.fused(tape, &x, time, &mut shifts, groups)?,
                (Layer::Stage(stage), _) if !stage.is_told() => {
                    stage.fused(tape, &x, None, &mut shifts, Then::default(), groups)?
                }
                (Layer::Attention(attention), _) => attention.fused(tape, &x, groups)?,
                (Layer::Keep, _) => {
                    kept.push(x.whole(tape)?);
                    x
                }
                (Layer::Join(side), _) => {
                    let x = x.whole(tape)?;
                    let skip = popped(&mut kept, &x)?;
                    let [first, second] = side.in_order(&x, &skip);
                    Measured::of_two(tape, first, second)?
                }
                _ => {
                    let x = x.whole(tape)?;
                    layer.forward(tape, x, time, &mut kept)?.into()
                }
            };
        }
        x.whole(tape)
    }

    fn blocks(&self) -> impl Iterator<Item = &ResidualBlock> {
        self.layers.iter().filter_map(|layer| match layer {
            Layer::Block(block) => Some(block),
            _ => None,
        })
    }
}

/// Groups of the norm that sees the map before `layers` first, if one does.
fn norm_of(layers: &[Layer]) -> Option<usize> {
    match layers.iter().find(|layer| !matches!(layer, Layer::Keep))? {
        Layer::Stage(stage) => Some(stage.groups()),
        Layer::Block(block) => block.groups(),
        Layer::Attention(attention) => Some(attention.groups()),
        _ => None,
    }
}

/// The map kept last, for one that is to be joined to `x`.
fn popped(kept: &mut Vec<Var>, x: &Var) -> Result<Var> {
    kept.pop().ok_or_else(|| Error::shape("unet", "a kept map for every join", x.shape()))
}

impl Layer {
    /// The layer's output for `x`; maps for later layers are put to or taken from `kept`.
    fn forward(
        &self,
        tape: &mut Tape,
        mut x: Var,
        time: Option<&Var>,
        kept: &mut Vec<Var>,
    ) -> Result<Var> {
        match self {
            Self::Conv(conv) => conv.forward(tape, &x),
            Self::Stage(stage) => stage.forward(tape, &x, time, None),
            Self::Block(block) => {
                // A clone shares the weights.
                let block = block.clone();
                let inputs: Vec<&Var> = std::iter::once(&x).chain(time).collect();
                tape.part(&inputs, move |tape, v| block.forward(tape, &v[0], v.get(1)))
            }
            Self::Attention(attention) => {
                let attention = attention.clone();
                tape.part(&[&x], move |tape, v| attention.forward(tape, &v[0]))
            }
            Self::Swin(swin) => swin.forward(tape, x),
            Self::Halve(conv) => {
                x = tape.pad_zero(&x, 1, 1)?;
                conv.forward(tape, &x)
            }
            Self::MaxPool => tape.max_pool2(&x),
            Self::Nearest => tape.nearest2(&x),
            Self::Transposed(conv) => conv.forward(tape, &x),
            Self::Keep => {
                kept.push(x.clone());
                Ok(x)
            }
            Self::Join(side) => {
                let skip = popped(kept, &x)?;
                tape.concat(&side.in_order(&x, &skip))
            }
        }
    }
}
