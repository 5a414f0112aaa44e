//! The registry: every network by its kind.
use serde::{Deserialize, Serialize};

use super::limits::{Unbuilt, build_within};
use super::network::Network;
use super::{
    attention_unet, attentive_grid, biggan_unet, compact, dual_domain_grid, dual_domain_unet, edsr,
    errn2, graph, laplacian, residual_unet, rrdb, span, spanv2, sr3_unet, srddpm_unet, srdiff_unet,
    srgan, swin_unet,
};

/// Which network, and its sizes: the `[model]` section of a recipe and the `srk.config` of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// Dual-domain blocks at the low resolution.
    DualDomainGrid(dual_domain_grid::DualDomainGridConfig),
    /// The network of the models in the binary.
    AttentiveGrid(attentive_grid::AttentiveGridConfig),
    /// The published `DualDomainUNet`.
    #[serde(rename = "dual-domain-unet")]
    DualDomainUNet(dual_domain_unet::DualDomainUNetConfig),
    /// The published `ResidualDiffusionUNet`.
    #[serde(rename = "residual-unet")]
    ResidualUNet(residual_unet::ResidualUNetConfig),
    /// SR3's network.
    #[serde(rename = "sr3-unet")]
    Sr3UNet(sr3_unet::Sr3UNetConfig),
    /// A deep UNet with self-attention, published for DIV2K.
    #[serde(rename = "attention-unet")]
    AttentionUNet(attention_unet::AttentionUNetConfig),
    /// The simplified SR3 of BigGAN blocks.
    #[serde(rename = "biggan-unet")]
    BigGanUNet(biggan_unet::BigGanUNetConfig),
    /// ResShift's network, for latents.
    #[serde(rename = "swin-unet")]
    SwinUNet(swin_unet::SwinUNetConfig),
    /// The Laplacian-pyramid CNN.
    Laplacian(laplacian::LaplacianConfig),
    /// The generator of SRDDPM.
    #[serde(rename = "srddpm-unet")]
    SrddpmUNet(srddpm_unet::SrddpmUNetConfig),
    /// The generator of SRGAN, from low resolution straight to high.
    Srgan(srgan::SrganConfig),
    /// The encoder of SRDiff by itself, from low resolution straight to high.
    Rrdb(rrdb::RrdbConfig),
    /// SRDiff's network.
    #[serde(rename = "srdiff-unet")]
    SrdiffUNet(srdiff_unet::SrdiffUNetConfig),
    /// ERRN2, from low resolution straight to high.
    Errn2(errn2::Errn2Config),
    /// SPAN, from low resolution straight to high.
    Span(span::SpanConfig),
    /// SPANV2, from low resolution straight to high.
    #[serde(rename = "spanv2")]
    SpanV2(spanv2::SpanV2Config),
    /// SRVGGNetCompact, from low resolution straight to high.
    Compact(compact::CompactConfig),
    /// EDSR, from low resolution straight to high.
    Edsr(edsr::EdsrConfig),
    /// The layers of an ncnn file, from low resolution straight to high.
    #[serde(rename = "ncnn-graph")]
    Graph(graph::GraphConfig),
}

impl ModelConfig {
    /// The network, its initial weights a function of `seed`.
    pub fn build(&self, seed: u64) -> Box<dyn Network> {
        match self {
            Self::DualDomainGrid(c) => Box::new(dual_domain_grid::DualDomainGrid::new(c, seed)),
            Self::AttentiveGrid(c) => Box::new(attentive_grid::AttentiveGrid::new(c, seed)),
            Self::DualDomainUNet(c) => Box::new(dual_domain_unet::DualDomainUNet::new(c, seed)),
            Self::ResidualUNet(c) => Box::new(residual_unet::ResidualUNet::new(c, seed)),
            Self::Sr3UNet(c) => Box::new(sr3_unet::Sr3UNet::new(c, seed)),
            Self::AttentionUNet(c) => Box::new(attention_unet::AttentionUNet::new(c, seed)),
            Self::BigGanUNet(c) => Box::new(biggan_unet::BigGanUNet::new(c, seed)),
            Self::SwinUNet(c) => Box::new(swin_unet::SwinUNet::new(c, seed)),
            Self::Laplacian(c) => Box::new(laplacian::Laplacian::new(c, seed)),
            Self::SrddpmUNet(c) => Box::new(srddpm_unet::SrddpmUNet::new(c, seed)),
            Self::Srgan(c) => Box::new(srgan::Srgan::new(c, seed)),
            Self::Rrdb(c) => Box::new(rrdb::Rrdb::new(c, seed)),
            Self::SrdiffUNet(c) => Box::new(srdiff_unet::SrdiffUNet::new(c, seed)),
            Self::Errn2(c) => Box::new(errn2::Errn2::network(c, seed)),
            Self::Span(c) => Box::new(span::Span::network(c, seed)),
            Self::SpanV2(c) => Box::new(spanv2::SpanV2::network(c, seed)),
            Self::Compact(c) => Box::new(compact::Compact::network(c, seed)),
            Self::Edsr(c) => Box::new(edsr::Edsr::network(c, seed)),
            Self::Graph(c) => Box::new(graph::Graph::new(c)),
        }
    }

    /// As [`build`](Self::build), of sizes that come from elsewhere: nothing is allocated beyond `most` numbers in all
    /// parameters and buffers.
    ///
    /// # Errors
    /// [`TooLarge`](Unbuilt::TooLarge) if there are more; [`Unfit`](Unbuilt::Unfit) if sizes are beyond all reason
    /// or do not go together.
    pub fn build_within(
        &self,
        seed: u64,
        most: usize,
    ) -> std::result::Result<Box<dyn Network>, Unbuilt> {
        build_within(self, most, || self.build(seed))
    }

    /// The factor between low and high resolution.
    pub const fn scale(&self) -> usize {
        match self {
            Self::DualDomainGrid(c) => c.scale,
            Self::AttentiveGrid(c) => c.scale,
            Self::DualDomainUNet(c) => c.scale,
            Self::ResidualUNet(c) => c.scale,
            Self::Sr3UNet(c) => c.scale,
            Self::AttentionUNet(c) => c.scale,
            Self::BigGanUNet(c) => c.scale,
            Self::SwinUNet(c) => c.scale,
            Self::Laplacian(c) => c.scale,
            Self::SrddpmUNet(c) => c.scale,
            Self::Srgan(c) => c.scale,
            Self::Rrdb(c) => c.scale,
            Self::SrdiffUNet(c) => c.scale,
            Self::Errn2(c) => c.scale,
            Self::Span(c) => c.scale,
            Self::SpanV2(c) => c.scale,
            Self::Compact(c) => c.scale,
            Self::Edsr(c) => c.scale,
            Self::Graph(c) => c.scale,
        }
    }
}

impl ModelConfig {
    /// Whether the network enlarges in one call, from low resolution straight to high, and knows no noise.
    pub const fn is_direct(&self) -> bool {
        matches!(
            self,
            Self::Laplacian(_)
                | Self::Srgan(_)
                | Self::Rrdb(_)
                | Self::Errn2(_)
                | Self::Span(_)
                | Self::SpanV2(_)
                | Self::Compact(_)
                | Self::Edsr(_)
                | Self::Graph(_)
        )
    }
}
