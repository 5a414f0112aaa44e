//! Networks, and the list that builds one from its configuration. `docs/adding-a-network.md` says how to add one.
pub mod damage;
pub mod direct;
pub mod discriminator;
mod kind;
mod limits;
mod module;
mod network;
pub mod patch_discriminator;
pub mod perceptual;
mod registry;
pub mod run_folder;
mod shapes;
pub mod srgan_discriminator;
pub mod teaching;
pub mod vgg19;
pub mod vq;
pub mod weights;

pub use kind::{Assumption, FrozenPart, Kind, Known};
pub use limits::{Unbuilt, build_within, most_numbers};
pub use module::Module;
use network::doublings;
pub use network::{Geometry, Network};
pub use shapes::Shapes;

// Of each network its module (a file beside this one, which ends with the rest of its entry), its configuration, its
// name in Rust and in `[model]`, and what it is. The list declares the modules, so that a line is all a network needs.
registry::models! {
    dual_domain_grid::DualDomainGridConfig, DualDomainGrid, "dual-domain-grid", "Dual-domain blocks at the low resolution.";
    attentive_grid::AttentiveGridConfig, AttentiveGrid, "attentive-grid", "The network of the models in the binary.";
    dual_domain_unet::DualDomainUNetConfig, DualDomainUNet, "dual-domain-unet", "The published `DualDomainUNet`.";
    residual_unet::ResidualUNetConfig, ResidualUNet, "residual-unet", "The published `ResidualDiffusionUNet`.";
    sr3_unet::Sr3UNetConfig, Sr3UNet, "sr3-unet", "SR3's network.";
    attention_unet::AttentionUNetConfig, AttentionUNet, "attention-unet", "A deep UNet with self-attention, published for DIV2K.";
    biggan_unet::BigGanUNetConfig, BigGanUNet, "biggan-unet", "The simplified SR3 of BigGAN blocks.";
    swin_unet::SwinUNetConfig, SwinUNet, "swin-unet", "ResShift's network, for latents.";
    laplacian::LaplacianConfig, Laplacian, "laplacian", "The Laplacian-pyramid CNN.";
    srddpm_unet::SrddpmUNetConfig, SrddpmUNet, "srddpm-unet", "The generator of SRDDPM.";
    srgan::SrganConfig, Srgan, "srgan", "The generator of SRGAN, from low resolution straight to high.";
    rrdb::RrdbConfig, Rrdb, "rrdb", "The encoder of SRDiff by itself, from low resolution straight to high.";
    srdiff_unet::SrdiffUNetConfig, SrdiffUNet, "srdiff-unet", "SRDiff's network.";
    errn2::Errn2Config, Errn2, "errn2", "ERRN2, from low resolution straight to high.";
    span::SpanConfig, Span, "span", "SPAN, from low resolution straight to high.";
    spanv2::SpanV2Config, SpanV2, "spanv2", "SPANV2, from low resolution straight to high.";
    compact::CompactConfig, Compact, "compact", "SRVGGNetCompact, from low resolution straight to high.";
    edsr::EdsrConfig, Edsr, "edsr", "EDSR, from low resolution straight to high.";
    graph::GraphConfig, Graph, "ncnn-graph", "The layers of an ncnn file, from low resolution straight to high.";
}
