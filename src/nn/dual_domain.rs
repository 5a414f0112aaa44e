//! Dual-domain residual blocks: a spatial, a DCT and a wavelet stream side by side.
use std::ops::Range;

use super::init::Init;
use super::layers::Conv2d;
use super::strips;
use crate::engine::tape::{Tape, Var};
use crate::error::Result;
use crate::ops::conv2d::Then;
use crate::ops::spectral_product::SpectralProduct;

/// Two 3x3 convolutions, each followed by ReLU; names `conv.0` and `conv.2`.
#[derive(Clone, Debug)]
pub struct ConvBlock {
    first: Conv2d,
    second: Conv2d,
}

impl ConvBlock {
    /// `inputs -> outputs -> outputs` channels.
    pub fn new(init: &mut Init, inputs: usize, outputs: usize) -> Self {
        init.at("conv", |init| Self {
            first: Conv2d::same(init, "0", inputs, outputs, 3).relu(),
            second: Conv2d::same(init, "2", outputs, outputs, 3).relu(),
        })
    }

    /// The block's output, of the same height and width.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let x = self.first.forward(tape, x)?;
        self.second.forward(tape, &x)
    }
}

/// The published block: `x + F(cat[S(x), D(x), W(x)])` with a DCT over the whole map.
#[derive(Clone, Debug)]
pub struct DualDomainBlock {
    spatial: ConvBlock,
    dct: [Conv2d; 2],
    bands: [Conv2d; 4],
    fusion: Conv2d,
}

impl DualDomainBlock {
    /// A block of `channels` channels; height and width must be even.
    pub fn new(init: &mut Init, channels: usize) -> Self {
        let c = channels;
        Self {
            spatial: init.at("spatial_branch", |init| ConvBlock::new(init, c, c)),
            dct: init.at("dct_branch.process", |init| {
                [Conv2d::same(init, "0", c, c, 1).relu(), Conv2d::same(init, "2", c, c, 1)]
            }),
            bands: init.at("dwt_branch", |init| {
                ["ll_process", "lh_process", "hl_process", "hh_process"]
                    .map(|name| Conv2d::same(init, name, c, c, 1))
            }),
            fusion: Conv2d::same(init, "fusion", 3 * c, c, 1),
        }
    }

    /// The block's output, of the same shape.
    pub fn forward(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let spatial = self.spatial.forward(tape, x)?;
        let frequency = self.dct_stream(tape, x)?;
        let wavelet = self.wavelet_stream(tape, x)?;
        let all = tape.concat(&[&spatial, &frequency, &wavelet])?;
        drop((spatial, frequency, wavelet));
        self.fusion.forward_onto(tape, &all, x, 1.0)
    }

    fn dct_stream(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let coefficients = tape.dct2(x, None)?;
        let coefficients = self.dct[0].forward(tape, &coefficients)?;
        let coefficients = self.dct[1].forward(tape, &coefficients)?;
        tape.dct2_inverse(&coefficients, None)
    }

    fn wavelet_stream(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let channels = x.shape()[3];
        let bands = tape.haar(x)?;
        let mut processed = Vec::with_capacity(4);
        for (i, layer) in self.bands.iter().enumerate() {
            let band = tape.slice_channels(&bands, i * channels, channels)?;
            processed.push(layer.forward(tape, &band)?);
        }
        let bands = tape.concat(&processed.iter().collect::<Vec<_>>())?;
        tape.haar_inverse(&bands)
    }
}

/// The block of `dual-domain-grid`: bounded receptive field and no statistics over the map.
///
/// The DCT works on aligned 8x8 blocks, so that coefficients mean the same at every image size; its
/// 1x1 product has no bias, which would be a spike in the corner of each block. Both transformed
/// streams run on few channels: a 1x1 product before a transform commutes with it, so the reduction
/// costs nothing in expressiveness, and products after it are left to the fusion.
#[derive(Clone, Debug)]
pub struct GridBlock {
    spatial: ConvBlock,
    reduce: Conv2d,
    dct: Conv2d,
    bands: Conv2d,
    fusion: Conv2d,
    product: SpectralProduct,
}

/// The side of the DCT's blocks.
pub const DCT_BLOCK: usize = 8;

impl GridBlock {
    /// A block of `channels` channels with the widths of the two transformed streams.
    pub fn new(
        init: &mut Init,
        channels: usize,
        frequency_channels: usize,
        wavelet_channels: usize,
    ) -> Self {
        let (c, f, w) = (channels, frequency_channels, wavelet_channels);
        Self {
            spatial: init.at("spatial", |init| ConvBlock::new(init, c, c)),
            reduce: Conv2d::same(init, "reduce", c, f + w, 1),
            dct: Conv2d::unbiased(init, "dct", f, f, 1),
            bands: Conv2d::same(init, "bands", 4 * w, 4 * w, 1),
            fusion: Conv2d::same(init, "fusion", c + f + w, c, 1).scaled(0.1),
            product: SpectralProduct { cosines: f, wavelets: w },
        }
    }

    /// The block's output, of the same shape; height and width are multiples of [`DCT_BLOCK`].
    /// `shift` `[N, C]` is added to it: what the step t has to say.
    pub fn forward(&self, tape: &mut Tape, x: &Var, shift: &Var) -> Result<Var> {
        self.rows(tape, x, 0..x.shape()[1], shift)
    }

    /// As [`forward`](Self::forward), of which `shift` `[N, M]` holds what is added from channel `first` on, with all that
    /// follows a convolution in one pass: for tapes that [fuse](Tape::fuses).
    pub fn fused(&self, tape: &mut Tape, x: &Var, (shift, first): (&Var, usize)) -> Result<Var> {
        let transformed = self.transformed(tape, x)?;
        let spatial = self.spatial.forward(tape, x)?;
        let then =
            Then { shift: Some((shift, first)), residual: Some((x, 1.0)), ..Then::default() };
        self.fusion.forward_maps(tape, &[&spatial, &transformed], false, then)
    }

    /// The rows `rows` of the output, whole blocks of the DCT: all that the spatial stream sees of `x`
    /// around them is looked at.
    pub fn rows(&self, tape: &mut Tape, all: &Var, rows: Range<usize>, shift: &Var) -> Result<Var> {
        let x = &strips::part(tape, all, rows.clone())?;
        let transformed = self.transformed(tape, x)?;
        // Assigned, not shadowed: a shadowed value would live, and keep its memory, to the end.
        let mut spatial = self.spatial.forward(tape, all)?;
        spatial = strips::part(tape, &spatial, rows)?;
        let streams = tape.concat(&[&spatial, &transformed])?;
        drop((spatial, transformed));
        self.fusion.forward_summed(tape, &streams, Some(shift), Some((x, 1.0)))
    }

    /// The two transformed streams of `x`, side by side.
    fn transformed(&self, tape: &mut Tape, x: &Var) -> Result<Var> {
        let reduced = self.reduce.forward(tape, x)?;
        let ((u, _), (v, b)) = (self.dct.operands(tape), self.bands.operands(tape));
        let Some(b) = b else { unreachable!("the wavelet's product has a bias") };
        tape.spectral_product(&reduced, [&u, &v, &b], self.product)
    }
}
