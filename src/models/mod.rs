//! Networks, and the registry that builds one from its configuration.
pub mod attention_unet;
pub mod attentive_grid;
pub mod biggan_unet;
pub mod compact;
pub mod damage;
pub mod direct;
pub mod discriminator;
pub mod dual_domain_grid;
pub mod dual_domain_unet;
pub mod edsr;
pub mod errn2;
pub mod graph;
pub mod laplacian;
pub mod patch_discriminator;
pub mod perceptual;
pub mod residual_unet;
pub mod rrdb;
pub mod run_folder;
pub mod span;
pub mod spanv2;
pub mod sr3_unet;
pub mod srddpm_unet;
pub mod srdiff_unet;
pub mod srgan;
pub mod srgan_discriminator;
pub mod swin_unet;
pub mod teaching;
pub mod vgg19;
pub mod vq;
pub mod weights;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::engine::shield::shielded;
use crate::engine::tape::{Tape, Var};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Report, Result};
use crate::nn::init;
use crate::nn::rolling::RollingCall;
use weights::WeightsFile;

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

/// Why a network cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unbuilt {
    /// It has more parameters than it may.
    TooLarge,
    /// Its sizes make no network, in words.
    Unfit(String),
}

/// The numbers that a network may have whose weights are in `file`: some more, so that one that misses little is
/// told which tensors those are.
pub fn most_numbers(file: &WeightsFile) -> usize {
    let held: usize = file.tensors.values().map(|(_, values)| values.len()).sum();
    held + held / 4 + (1 << 20)
}

impl Unbuilt {
    /// The error of the model file `name`.
    pub fn of_file(self, name: &str) -> Error {
        let cause = match self {
            Self::TooLarge => {
                "its srk.config asks for a network of more numbers than its tensors hold".to_owned()
            }
            Self::Unfit(cause) => format!("its srk.config is wrong: {cause}"),
        };
        let report = Report::new(format!("cannot load the model {name}"), cause);
        Error::Model(report.help("srk models info FILE    shows what a file holds"))
    }

    /// The error of a configuration, where `most` numbers were what the memory holds.
    pub fn of_config(self, most: usize) -> Error {
        match self {
            Self::TooLarge => {
                let cause = format!(
                    "{} million parameters are what the free memory holds",
                    most / 1_000_000
                );
                let report = Report::new("the network does not fit in memory", cause);
                Error::Memory(report.help("make the sizes in [model] smaller"))
            }
            Self::Unfit(cause) => {
                let report = Report::new("wrong configuration", cause);
                Error::Usage(
                    report.help("srk train --list-recipes    shows configurations that work"),
                )
            }
        }
    }
}

/// What `build` makes of the sizes in `config`, with the limits of [`ModelConfig::build_within`].
///
/// # Errors
/// As there.
pub fn build_within<R>(
    config: &impl Serialize,
    most: usize,
    build: impl FnOnce() -> R,
) -> std::result::Result<R, Unbuilt> {
    let sizes = serde_json::to_value(config).map_err(|e| Unbuilt::Unfit(e.to_string()))?;
    refuse_huge("model", &sizes).map_err(Unbuilt::Unfit)?;
    let built = shielded(|| init::within(most, build));
    let unfit = |panic| Unbuilt::Unfit(format!("the sizes do not go together: {panic}"));
    built.map_err(unfit)?.ok_or(Unbuilt::TooLarge)
}

/// No size of a network is larger: the largest that are published are a quarter of it.
const MOST: u64 = 1 << 16;

/// Refuses numbers that no size has, before products of them overflow; `name` is the key of `sizes`.
fn refuse_huge(name: &str, sizes: &serde_json::Value) -> std::result::Result<(), String> {
    use serde_json::Value;
    match sizes {
        Value::Number(n) if n.as_u64().is_some_and(|n| n > MOST) => {
            Err(format!("{name} = {n} is above {MOST}"))
        }
        // Networks of ncnn are lists of hundreds of layers, and check them by themselves.
        Value::Array(all) if all.len() > 64 && name != "model.layers" => {
            Err(format!("{name} is a list of {}, which is more than 64", all.len()))
        }
        Value::Array(all) => all.iter().try_for_each(|one| refuse_huge(name, one)),
        Value::Object(all) => {
            all.iter().try_for_each(|(key, one)| refuse_huge(&format!("{name}.{key}"), one))
        }
        _ => Ok(()),
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

/// A network for super-resolution: a denoiser, or for the direct process one that enlarges in one call
/// and ignores state and t. Images are NHWC in `[-1, 1]`, with C [`channels`](Self::channels).
pub trait Network: Send + Sync {
    /// What the network sees besides the state `x_t`, computed once for all steps of a batch or tile.
    ///
    /// `low` is the low-resolution image `[N, h, w, C]`, `y0` its enlargement `[N, H, W, C]`.
    fn condition(&self, low: &Tensor, y0: &Tensor) -> Result<Tensor>;

    /// Whether the network looks at the low-resolution images alone: at no state, step or enlargement.
    fn sees_low_alone(&self) -> bool {
        false
    }

    /// Whether the network can be told how damaged its input is.
    fn takes_damage(&self) -> bool {
        false
    }

    /// As [`condition`](Self::condition), for images of which `damage` `[N, 6]` is known.
    ///
    /// # Errors
    /// If the network cannot be told.
    fn condition_on(&self, low: &Tensor, damage: &Tensor) -> Result<Tensor> {
        let what = format!("damage of {:?} to images of {:?}", damage.shape(), low.shape());
        Err(Error::Unsupported { op: "network", what })
    }

    /// The prediction `[N, H, W, C]` for the state `x` `[N, H, W, C]` at the steps `t` `[N]`, counted
    /// as the process counts them, in F32 or F64.
    fn forward(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var>;

    /// Whether the call at t = T, where a chain starts, is one of its own: [`forward_first`](Self::forward_first).
    fn has_first_call(&self) -> bool {
        false
    }

    /// A call at `t` `[1]` (the `first` of a chain or a later one) that goes over one image from top to bottom, at most
    /// `most` rows at a time, with the bits of [`forward`](Self::forward); none where the network cannot. The first
    /// call is given no state.
    ///
    /// # Errors
    /// If memory is full.
    fn rolling(
        &self,
        first: bool,
        t: &Tensor,
        most: usize,
    ) -> Result<Option<Box<dyn RollingCall + '_>>> {
        let (_, _, _) = (first, t, most);
        Ok(None)
    }

    /// Bytes that a walk of `steps` such calls holds at its peak, for images of `width` columns that come in pieces
    /// of `rows` rows, both of the low resolution; none where the network cannot.
    fn rolling_bytes(&self, width: usize, rows: usize, steps: usize) -> Option<u64> {
        let (_, _, _) = (width, rows, steps);
        None
    }

    /// As [`forward`](Self::forward), where all `t` are T.
    fn forward_first(&self, tape: &mut Tape, x: &Var, condition: &Var, t: &Tensor) -> Result<Var> {
        self.forward(tape, x, condition, t)
    }

    /// All parameters, in construction order.
    fn parameters(&self) -> &[Parameter];

    /// What files hold beside the parameters and training does not change by gradients, such as the
    /// running statistics of norms; in construction order.
    fn buffers(&self) -> &[Parameter] {
        &[]
    }

    /// Whether a training step changes the buffers. Not those of a part that is frozen.
    fn moves_buffers(&self) -> bool {
        !self.buffers().is_empty()
    }

    /// Everything a file holds: parameters, then buffers.
    fn state(&self) -> Vec<Parameter> {
        [self.parameters(), self.buffers()].concat()
    }

    /// Channels of an image: 3, or 1 for luma.
    fn channels(&self) -> usize {
        3
    }

    /// What the part is called that training leaves alone and that has weights of its own from elsewhere.
    fn frozen_part(&self) -> Option<&'static str> {
        None
    }

    /// Takes the weights of the [`frozen_part`](Self::frozen_part) from `file`, which messages call `name`.
    ///
    /// # Errors
    /// If there is no such part, or the file does not hold it.
    fn load_frozen(&self, file: &WeightsFile, name: &str) -> Result<()> {
        let what = format!("{name} ({} tensors)", file.tensors.len());
        let cause = "all parts of this network are trained";
        Err(Error::Usage(Report::new(format!("nothing takes the weights {what}"), cause)))
    }

    /// The autoencoder whose latents the network's states are; none if they are images.
    fn first_stage(&self) -> Option<&Arc<vq::Vq>> {
        None
    }

    /// What tiling and padding must respect.
    fn geometry(&self) -> Geometry;

    /// What the origins of tiles must be multiples of, so that a tile computes what the whole would; sides
    /// must be multiples of the alignment alone. The fast convolution computes blocks of 4x4 pixels, and rounding
    /// depends on where in a block a pixel stands.
    fn tile_align(&self) -> usize {
        self.geometry().align
    }

    /// How far blended tiles reach beyond their core, in low-resolution pixels.
    fn overlap(&self) -> usize {
        16
    }

    /// Floats that one call keeps alive at its peak, for each low-resolution pixel; tiles are sized
    /// by it.
    fn floats_per_pixel(&self) -> usize;

    /// Bytes that one call on the CPU keeps alive at its peak, for an image of `width` x `height`
    /// low-resolution pixels.
    fn bytes_on_cpu(&self, width: usize, height: usize) -> u64 {
        4 * (self.floats_per_pixel() * width * height) as u64
    }

    /// How many numbers training changes.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|p| p.value().len()).sum()
    }

    /// Where the weights are.
    fn device(&self) -> Device {
        self.parameters().first().map_or(Device::Cpu, |p| p.value().device())
    }

    /// The element type the network computes in.
    fn dtype(&self) -> DType {
        self.parameters().first().map_or(DType::F32, |p| p.value().dtype())
    }

    /// Changes the element type the network computes in.
    ///
    /// # Errors
    /// If the device has no such elements or its memory is full.
    fn cast(&self, dtype: DType) -> Result<()> {
        self.parameters().iter().try_for_each(|p| p.cast(dtype))?;
        self.buffers().iter().try_for_each(|b| b.cast(of_buffers(dtype)))
    }

    /// Moves the weights to `device`, as `dtype` there.
    ///
    /// # Errors
    /// If the memory of the device is full.
    fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        self.parameters().iter().try_for_each(|p| p.to_device(device, dtype))?;
        self.buffers().iter().try_for_each(|b| b.to_device(device, of_buffers(dtype)))
    }
}

/// The type of buffers of a network that computes in `dtype`: statistics are not kept in half precision.
const fn of_buffers(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}

/// How often a side doubles for `scale`, which `network` can only take a power of 2 for.
fn doublings(network: &'static str, scale: usize) -> Result<u32> {
    match scale.is_power_of_two() {
        true => Ok(scale.ilog2()),
        false => {
            let what = format!("a factor of {scale}; it doubles, so 2, 4, 8 and so on");
            Err(Error::Unsupported { op: network, what })
        }
    }
}

/// What tiling and padding must respect, in low-resolution pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Sides must be multiples of this, and tiles start at multiples of it.
    pub align: usize,
    /// How far an output can see in one call, already rounded up to `align`; none if it sees the
    /// whole map, so that tiles must be blended.
    pub receptive_field: Option<usize>,
}
