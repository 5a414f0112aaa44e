//! Every op refuses inputs that do not fit, and says who refused, what it wanted and what it got.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeSet;

use srk::engine::device::DType;
use srk::engine::tape::{Op, Tape};
use srk::engine::tensor::Tensor;
use srk::error::Error;
use srk::ops::bilinear::{Bilinear, Sampling};
use srk::ops::conv_transpose2d::ConvTranspose2d;
use srk::ops::conv2d::Conv2d;
use srk::ops::{
    add_channels::AddChannels,
    affine::Affine,
    attention::Attention,
    batch_norm::BatchNorm,
    batch_norm_gradient::BatchNormGradient,
    bce_with_logits::BceWithLogits,
    channel_gate::ChannelGate,
    charbonnier_loss::CharbonnierLoss,
    concat::Concat,
    crop::Crop,
    dct2::Dct2,
    depthwise_conv2d::DepthwiseConv2d,
    dssim::{Centres, Dssim},
    gradient_penalty::GradientPenalty,
    group_norm::GroupNorm,
    haar::Haar,
    huber_loss::HuberLoss,
    kl_normal::KlNormal,
    l1_loss::L1Loss,
    l2_pool::L2Pool,
    leaky_relu_gradient::LeakyReluGradient,
    linear::Linear,
    linears::Linears,
    max_pool2::MaxPool2,
    max_pool3::MaxPool3,
    mean::Mean,
    mean_pixels::MeanPixels,
    mse_loss::MseLoss,
    multiply::Multiply,
    nearest2::Nearest2,
    pad_reflect::PadReflect,
    pad_zero::PadZero,
    parameter_free_attention::ParameterFreeAttention,
    pixel_shuffle::PixelShuffle,
    prelu::Prelu,
    reparameterise::Reparameterise,
    resample::{Axis, Resample},
    reshape::Reshape,
    scale_images::ScaleImages,
    scaled_add::ScaledAdd,
    slice_channels::SliceChannels,
    spectral_product::SpectralProduct,
    texture_structure::TextureStructure,
    unit_distance::UnitDistance,
    vq_nearest::VqNearest,
    window_attention::{Mask, WindowAttention},
};

/// Elementwise in one input: no shape is wrong.
const ANY_SHAPE: [&str; 10] =
    ["cast", "clamp", "gelu", "leaky_relu", "mish", "relu", "scale", "sigmoid", "silu", "tanh"];

/// An op, the shapes of its inputs, and words of the message.
type Wrong = (Box<dyn Op>, Vec<Vec<usize>>, &'static str);

fn wrong<const N: usize>(op: impl Op, shapes: [&[usize]; N], words: &'static str) -> Wrong {
    (Box::new(op), shapes.iter().map(|s| s.to_vec()).collect(), words)
}

fn table() -> Vec<Wrong> {
    let x: &[usize] = &[2, 3, 5, 4];
    let at = Sampling::AlignCorners;
    let batch = |training| BatchNorm { eps: 1e-5, training };
    let again = |training| BatchNormGradient { eps: 1e-5, training };
    let dct = |block| Dct2 { inverse: false, block };
    let norm = |groups| GroupNorm { groups, eps: 1e-5, silu: true };
    let windows = |shift| WindowAttention { heads: 2, window: 2, shift, mask: Mask::Published };
    let spectral = SpectralProduct { cosines: 2, wavelets: 1 };
    let (u, v): (&[usize], &[usize]) = (&[2, 1, 1, 2], &[4, 1, 1, 4]);
    let shuffle = |inverse| PixelShuffle { factor: 3, inverse };
    vec![
        wrong(AddChannels, [x, &[2, 3]], "a shift of [2, 4], got shape [2, 3]"),
        wrong(AddChannels, [&[2, 4], &[2, 4]], "[N, H, W, C], got shape [2, 4]"),
        wrong(Affine { channels: vec![[1.0, 0.0]; 3] }, [x], "3 channels"),
        wrong(Attention { heads: 2 }, [&[2, 3, 4], &[2, 3, 5], &[2, 3, 5]], "[2, 3, 5]"),
        wrong(Attention { heads: 3 }, [&[2, 3, 4], &[2, 3, 4], &[2, 3, 4]], "[N, L, 3 d]"),
        wrong(ChannelGate, [x, &[2, 4]], "a gate of [2, 1, 1, 4], got shape [2, 4]"),
        wrong(Dssim { centres: Centres::Inside }, [x, x], "pixels, got shape [2, 3, 5, 4]"),
        wrong(BceWithLogits { target: 1.0 }, [&[0, 1]], "at least one logit"),
        wrong(Mean, [&[2, 0]], "at least one element"),
        wrong(MeanPixels, [&[2, 0, 5, 4]], "at least one pixel"),
        wrong(batch(true), [x, &[3], &[4]], "[4] for the channels of x, got shape [3]"),
        wrong(batch(true), [&[0, 3, 5, 4], &[4], &[4]], "at least one pixel"),
        wrong(batch(false), [x, &[4], &[4], &[4]], "[2, 4] for the channels of x, got shape [4]"),
        wrong(again(true), [x, &[4], &[2, 3, 5, 3]], "got shape [2, 3, 5, 3]"),
        wrong(again(true), [x, &[3], x], "[4] for the channels of x, got shape [3]"),
        wrong(again(false), [x, &[4], x, &[4]], "[2, 4] for the channels of x, got shape [4]"),
        wrong(Bilinear { height: 0, width: 2, at }, [x], "0 x 2"),
        wrong(Bilinear { height: 2, width: 2, at }, [&[2, 0, 5, 4]], "got shape [2, 0, 5, 4]"),
        wrong(CharbonnierLoss { eps: 0.1 }, [x, &[4]], "got shape [4]"),
        wrong(Concat, [x, &[2, 3, 6, 4]], "[2, 3, 5, any] as the first input"),
        wrong(Concat, [], "at least one input"),
        wrong(Linears { silu: false }, [&[2, 4], &[3, 5], &[3]], "a weight [out, 4]"),
        wrong(Linears { silu: false }, [&[2, 4], &[3, 4], &[2]], "a bias [out]"),
        wrong(spectral, [x, u, v, &[4]], "sides of multiples of 8"),
        wrong(spectral, [&[1, 8, 8, 4], u, v, &[4]], "and 3 channels, got shape [1, 8, 8, 4]"),
        wrong(spectral, [&[1, 8, 8, 3], u, v, &[5]], "[4], got shape [5]"),
        wrong(spectral, [&[1, 8, 8, 3], u, u, &[4]], "[4, 1, 1, 4], got shape [2, 1, 1, 2]"),
        wrong(Conv2d::same(3), [x, &[2, 3, 3, 5]], "weight [Co, k, k, 4], got shape [2, 3, 3, 5]"),
        wrong(Conv2d::same(3), [x, &[2, 3, 1, 4]], "weight [Co, k, k, 4]"),
        wrong(Conv2d::same(3), [x, &[2, 3, 3, 4], &[3]], "bias [2], got shape [3]"),
        wrong(
            Conv2d { stride: 1, pad: 0, relu: false },
            [x, &[2, 5, 5, 4]],
            "height and width of at least 5, got shape [2, 3, 5, 4]",
        ),
        wrong(
            ConvTranspose2d::new(2, 1),
            [x, &[3, 4, 4, 2]],
            "weight [4, k, k, Co], got shape [3, 4, 4, 2]",
        ),
        wrong(ConvTranspose2d::new(2, 1), [x, &[4, 4, 4, 2], &[4]], "bias [2], got shape [4]"),
        wrong(
            ConvTranspose2d::new(2, 1).extra(1, 2),
            [x, &[4, 4, 4, 2]],
            "fewer extra rows and columns than the stride 2, got shape [1, 2]",
        ),
        wrong(ConvTranspose2d::new(2, 1), [&[1, 0, 2, 4], &[4, 4, 4, 2]], "an output left"),
        wrong(Crop { height: 4, width: 5, origin: None }, [x], "at least 4 x 5 pixels"),
        wrong(dct(None), [&[3, 5, 4]], "[N, H, W, C]"),
        wrong(dct(Some(2)), [x], "H and W divisible by 2"),
        wrong(DepthwiseConv2d, [x, &[6, 3, 3, 1]], "weight [m 4, k, k, 1] with k odd"),
        wrong(DepthwiseConv2d, [x, &[4, 2, 2, 1]], "got shape [4, 2, 2, 1]"),
        wrong(DepthwiseConv2d, [x, &[8, 3, 3, 1], &[4]], "bias [8], got shape [4]"),
        wrong(norm(3), [x, &[4], &[4]], "C divisible by 3 groups, got shape [2, 3, 5, 4]"),
        wrong(norm(0), [x, &[4], &[4]], "divisible by 0 groups"),
        wrong(norm(2), [x, &[4], &[3]], "gamma and beta of [4], got shape [3]"),
        wrong(norm(2), [x, &[4], &[4], &[2, 4], &[1, 4]], "scale and shift of [2, 4]"),
        wrong(GradientPenalty, [&[0, 4]], "[N, ...] with elements, got shape [0, 4]"),
        wrong(Haar { inverse: false }, [x], "even H and W"),
        wrong(Haar { inverse: true }, [&[2, 3, 5, 6]], "C divisible by 4"),
        wrong(HuberLoss { delta: 0.5 }, [x, &[4]], "got shape [4]"),
        wrong(KlNormal, [&[2, 3], &[3, 2]], "[2, 3] as the first input, got shape [3, 2]"),
        wrong(KlNormal, [&[0, 3], &[0, 3]], "with elements"),
        wrong(L1Loss, [x, &[2, 3, 5, 1]], "[2, 3, 5, 4] as the first input"),
        wrong(LeakyReluGradient { slope: 0.2 }, [x, &[4]], "got shape [4]"),
        wrong(Linear, [&[3, 4], &[5, 6], &[5]], "[M, 6], got shape [3, 4]"),
        wrong(Linear, [&[3, 6], &[5, 6], &[6]], "a bias of [5], got shape [6]"),
        wrong(Linear, [&[6], &[5, 6]], "[M, 6], got shape [6]"),
        wrong(Linear, [&[3, 6], &[6]], "[out, in], got shape [6]"),
        wrong(MaxPool2, [&[1, 1, 4, 3]], "at least 2 x 2 pixels"),
        wrong(MseLoss, [x, &[4]], "got shape [4]"),
        wrong(Multiply, [x, &[2, 3, 5, 1]], "got shape [2, 3, 5, 1]"),
        wrong(Nearest2, [&[7]], "[N, H, W, C], got shape [7]"),
        wrong(
            PadReflect { top: 0, left: 0, bottom: 1, right: 1 },
            [&[1, 0, 2, 3]],
            "at least one pixel",
        ),
        wrong(L2Pool, [&[1, 0, 2, 3]], "at least one pixel"),
        wrong(MaxPool3, [&[1, 2, 5, 3]], "at least 3 x 3 pixels"),
        wrong(TextureStructure, [x, x, &[4]], "weights [2, 4]"),
        wrong(UnitDistance, [x, x, &[3]], "a weight [4]"),
        wrong(PadZero { bottom: 1, right: 1 }, [&[1, 0, 2, 3]], "at least one pixel"),
        wrong(ParameterFreeAttention, [x, &[4]], "got shape [4]"),
        wrong(ParameterFreeAttention, [x, x, &[2, 3]], "limits [2, 4], got shape [2, 3]"),
        wrong(ParameterFreeAttention, [x, x, &[2, 3]], "limits [2, 4], got shape [2, 3]"),
        wrong(Prelu, [x, &[3]], "one slope, [1], or 4 slopes, got shape [3]"),
        wrong(shuffle(false), [x], "C divisible by 9"),
        wrong(shuffle(true), [x], "H and W divisible by 3"),
        wrong(Reparameterise, [&[2, 3], &[2, 3], &[2, 4]], "got shape [2, 4]"),
        wrong(
            Resample { rows: Axis::part(3, 0, 2), columns: Axis::edges(4, 1, 1) },
            [x],
            "[N, 3, 4, C], got shape [2, 3, 5, 4]",
        ),
        wrong(Reshape { shape: vec![5, 5] }, [x], "as many elements as [5, 5]"),
        wrong(ScaledAdd { s: 1.0, t: 1.0 }, [x, &[2, 3, 5, 1]], "got shape [2, 3, 5, 1]"),
        wrong(ScaleImages::new(&[1.0; 3]), [x], "3 images"),
        wrong(SliceChannels { from: 3, len: 2 }, [x], "at least 5 channels"),
        wrong(VqNearest, [x, &[7, 3]], "a codebook of [K, 4], got shape [7, 3]"),
        wrong(VqNearest, [x, &[0, 4]], "a codebook of [K, 4], got shape [0, 4]"),
        wrong(windows(1), [x, &[9, 2]], "[N, H, W, 3 x 2 d], got shape [2, 3, 5, 4]"),
        wrong(windows(1), [&[1, 4, 3, 6], &[9, 2]], "divisible by windows of 2, shifted by 1"),
        wrong(windows(2), [&[1, 4, 4, 6], &[9, 2]], "divisible by windows of 2, shifted by 2"),
        wrong(windows(1), [&[1, 4, 4, 6], &[9, 3]], "a table of [9, 2], got shape [9, 3]"),
    ]
}

#[test]
fn wrong_shapes_are_refused_in_the_name_of_the_op() {
    for (op, shapes, words) in table() {
        let inputs: Vec<Tensor> = shapes
            .iter()
            .map(|s| Tensor::from_f64(&vec![0.0; s.iter().product()], s, DType::F32))
            .collect();
        let mut tape = Tape::training();
        let vars: Vec<_> = inputs.into_iter().map(|t| tape.variable(t)).collect();
        let name = op.name();
        let label = format!("{op:?} {shapes:?}");
        let error = tape.apply_boxed(op, &vars.iter().collect::<Vec<_>>()).unwrap_err();
        assert!(matches!(error, Error::Shape { op, .. } if op == name), "{label}: {error}");
        let message = error.to_string();
        assert!(message.starts_with(name) && message.contains(words), "{label}: {message}");
    }
}

#[test]
fn every_op_of_the_registry_is_in_the_table() {
    let refused: BTreeSet<&str> = table().iter().map(|(op, ..)| op.name()).collect();
    for case in srk::ops::all() {
        let name = case.name();
        assert!(
            refused.contains(name) || ANY_SHAPE.contains(&name),
            "{name}: add a wrong shape to the table of this test"
        );
    }
}

#[test]
fn element_types_are_not_mixed() {
    let mut tape = Tape::inference();
    let a = tape.input(Tensor::from_f64(&[1.0], &[1], DType::F32));
    let b = tape.input(Tensor::from_f64(&[1.0], &[1], DType::F64));
    let message = tape.add(&a, &b).unwrap_err().to_string();
    assert!(message.contains("F32") && message.contains("F64"), "{message}");
}
