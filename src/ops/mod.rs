//! One file per op; [`all`] is the registry that the tests and the benches walk.
pub mod adam;
pub mod add_channels;
pub mod affine;
pub mod attention;
pub mod batch_norm;
pub mod batch_norm_gradient;
pub mod bce_with_logits;
pub mod bilinear;
pub mod cast;
pub mod channel_gate;
pub mod charbonnier_loss;
pub mod check_finite;
pub mod clamp;
pub mod clip_by_norm;
pub mod concat;
pub mod conv2d;
pub mod conv_transpose2d;
pub mod crop;
pub mod dct2;
pub mod depthwise_conv2d;
pub mod dssim;
pub mod ema;
pub mod fourier_position;
pub mod gelu;
pub mod gradient_penalty;
pub mod group_norm;
pub mod haar;
pub mod huber_loss;
pub mod kl_normal;
pub mod l1_loss;
pub mod l2_pool;
pub mod leaky_relu;
pub mod leaky_relu_gradient;
pub mod linear;
pub mod local_amplitude;
pub mod max_pool2;
pub mod max_pool3;
pub mod mean;
mod mean_loss;
pub mod mean_pixels;
pub mod mish;
pub mod mse_loss;
pub mod multi_tensor;
pub mod multiply;
pub mod nearest2;
pub mod noise;
pub mod pad_reflect;
pub mod pad_zero;
pub(crate) mod parallel;
pub mod parameter_free_attention;
pub mod pixel_shuffle;
pub mod prelu;
pub(crate) mod product;
pub mod q_sample;
pub mod relu;
pub mod reparameterise;
pub mod resample;
pub mod reshape;
pub mod sampler_step;
pub mod scale;
pub mod scale_images;
pub mod scaled_add;
pub mod sigmoid;
pub mod silu;
pub(crate) mod simd;
pub mod slice_channels;
pub mod tanh;
pub mod texture_structure;
pub mod time_embedding;
pub mod unit_distance;
pub mod vq_nearest;
pub mod window_attention;

use crate::engine::device::DType;
use crate::engine::op_case::OpCase;
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};

/// Every op with the shapes and tolerances it is checked and timed at.
pub fn all() -> Vec<OpCase> {
    [
        add_channels::cases(),
        affine::cases(),
        attention::cases(),
        batch_norm::cases(),
        batch_norm_gradient::cases(),
        bce_with_logits::cases(),
        bilinear::cases(),
        cast::cases(),
        channel_gate::cases(),
        charbonnier_loss::cases(),
        clamp::cases(),
        concat::cases(),
        conv2d::cases(),
        conv_transpose2d::cases(),
        crop::cases(),
        dct2::cases(),
        depthwise_conv2d::cases(),
        dssim::cases(),
        gelu::cases(),
        gradient_penalty::cases(),
        group_norm::cases(),
        haar::cases(),
        huber_loss::cases(),
        kl_normal::cases(),
        l1_loss::cases(),
        l2_pool::cases(),
        leaky_relu::cases(),
        leaky_relu_gradient::cases(),
        linear::cases(),
        max_pool2::cases(),
        max_pool3::cases(),
        mean::cases(),
        mean_pixels::cases(),
        mish::cases(),
        mse_loss::cases(),
        multiply::cases(),
        nearest2::cases(),
        pad_reflect::cases(),
        pad_zero::cases(),
        parameter_free_attention::cases(),
        pixel_shuffle::cases(),
        prelu::cases(),
        relu::cases(),
        reparameterise::cases(),
        resample::cases(),
        reshape::cases(),
        scale::cases(),
        scale_images::cases(),
        scaled_add::cases(),
        sigmoid::cases(),
        silu::cases(),
        slice_channels::cases(),
        texture_structure::cases(),
        unit_distance::cases(),
        vq_nearest::cases(),
        window_attention::cases(),
        tanh::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Blocks of a launch that sums the columns of `[rows, columns]` with `kernels/columns.cuh`: across the
/// columns and down the rows; and how many rows each takes. Follows from the shape alone, and with it
/// the order of the sum.
pub(crate) fn column_blocks(dtype: DType, rows: usize, columns: usize) -> ([usize; 2], usize) {
    let pack = 16 / dtype.size();
    let chunks = if columns.is_multiple_of(pack) { columns / pack } else { columns };
    let rows_each = rows.div_ceil(64).max(256);
    ([chunks.div_ceil(32), rows.div_ceil(rows_each).max(1)], rows_each)
}

/// Fails in the name of `op` unless `b` has the shape of `a`.
pub(crate) fn same_shape(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    if a.shape() == b.shape() {
        return Ok(());
    }
    Err(Error::shape(op, format!("{:?} as the first input", a.shape()), b.shape()))
}
