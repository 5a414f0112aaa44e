//! The presets of `[degrade]`.
use super::config::{DegradeConfig, Preset};
use super::kernels::KernelKind;
use super::planes::Mode;
use crate::engine::document;

/// Real-ESRGAN's kinds of kernels.
const KERNELS: [KernelKind; 6] = [
    KernelKind::Iso,
    KernelKind::Aniso,
    KernelKind::GeneralizedIso,
    KernelKind::GeneralizedAniso,
    KernelKind::PlateauIso,
    KernelKind::PlateauAniso,
];

impl Preset {
    /// As configurations call it.
    pub fn name(self) -> String {
        let name = document::to_json(&self);
        name.as_str().unwrap_or_default().to_owned()
    }

    /// Its values.
    pub fn config(self) -> DegradeConfig {
        match self {
            Self::RealEsrgan => real_esrgan(),
            Self::Photo => photo(),
            Self::Web => web(),
            Self::Bicubic => DegradeConfig { preset: self, clean_prob: 1.0, usm: false, ..photo() },
        }
    }
}

/// `options/train_realesrgan_x4plus.yml` of Real-ESRGAN; what it has no key for is as its code does it.
fn real_esrgan() -> DegradeConfig {
    let kernel_prob = vec![0.45, 0.25, 0.12, 0.03, 0.12, 0.03];
    let modes = vec![Mode::Area, Mode::Bilinear, Mode::Bicubic];
    DegradeConfig {
        preset: Preset::RealEsrgan,
        clean_prob: 0.0,
        usm: true,
        antialias: false,
        subsampling_prob: 1.0,
        blur_prob: 1.0,
        blur_kernel_size: 21,
        kernel_list: KERNELS.to_vec(),
        kernel_prob: kernel_prob.clone(),
        sinc_prob: 0.1,
        blur_sigma: [0.2, 3.0],
        betag_range: [0.5, 4.0],
        betap_range: [1.0, 2.0],
        resize_prob: [0.2, 0.7, 0.1],
        resize_range: [0.15, 1.5],
        resize_modes: modes.clone(),
        noise_prob: 1.0,
        gaussian_noise_prob: 0.5,
        noise_range: [1.0, 30.0],
        poisson_scale_range: [0.05, 3.0],
        gray_noise_prob: 0.4,
        jpeg_prob: 1.0,
        jpeg_range: [30.0, 95.0],
        second_order_prob: 1.0,
        second_blur_prob: 0.8,
        blur_kernel_size2: 21,
        kernel_list2: KERNELS.to_vec(),
        kernel_prob2: kernel_prob,
        sinc_prob2: 0.1,
        blur_sigma2: [0.2, 1.5],
        betag_range2: [0.5, 4.0],
        betap_range2: [1.0, 2.0],
        resize_prob2: [0.3, 0.4, 0.3],
        resize_range2: [0.3, 1.2],
        resize_modes2: modes,
        noise_prob2: 1.0,
        gaussian_noise_prob2: 0.5,
        noise_range2: [1.0, 25.0],
        poisson_scale_range2: [0.05, 2.5],
        gray_noise_prob2: 0.4,
        jpeg_prob2: 1.0,
        jpeg_range2: [30.0, 95.0],
        final_sinc_prob: 0.8,
        jpeg_last_prob: 0.5,
        webp_prob: 0.0,
        webp_range: [30.0, 95.0],
        double_jpeg_prob: 0.0,
        deblock: 0.0,
    }
}

/// A mild blur, one shrinking by a good filter, noise as of a camera, a JPEG; each only sometimes.
fn photo() -> DegradeConfig {
    let modes = vec![Mode::Area, Mode::Bilinear, Mode::Bicubic, Mode::Lanczos];
    DegradeConfig {
        preset: Preset::Photo,
        clean_prob: 0.1,
        usm: false,
        antialias: true,
        subsampling_prob: 0.7,
        blur_prob: 0.5,
        kernel_prob: vec![0.6, 0.3, 0.04, 0.01, 0.04, 0.01],
        sinc_prob: 0.05,
        blur_sigma: [0.2, 2.4],
        resize_prob: [0.0, 0.0, 1.0],
        resize_modes: modes.clone(),
        noise_prob: 0.0,
        // The picture was a good JPEG before it was made small.
        jpeg_prob: 0.2,
        jpeg_range: [75.0, 95.0],
        second_blur_prob: 0.0,
        resize_prob2: [0.1, 0.1, 0.8],
        resize_range2: [0.7, 1.3],
        resize_modes2: modes,
        noise_prob2: 0.5,
        gaussian_noise_prob2: 0.6,
        noise_range2: [0.0, 14.0],
        poisson_scale_range2: [0.05, 1.0],
        jpeg_prob2: 0.8,
        final_sinc_prob: 0.0,
        jpeg_last_prob: 1.0,
        webp_prob: 0.15,
        double_jpeg_prob: 0.15,
        deblock: 0.0,
        ..real_esrgan()
    }
}

/// [`photo`] with all of it at once, and one JPEG at the end.
fn web() -> DegradeConfig {
    DegradeConfig {
        preset: Preset::Web,
        clean_prob: 0.0,
        blur_prob: 1.0,
        sinc_prob: 0.0,
        jpeg_prob: 0.0,
        resize_prob2: [0.0, 0.0, 1.0],
        noise_prob2: 1.0,
        jpeg_prob2: 1.0,
        jpeg_range2: [30.0, 92.0],
        webp_prob: 0.0,
        double_jpeg_prob: 0.0,
        deblock: 0.0,
        ..photo()
    }
}
