//! Super-resolution with diffusion models on an engine of its own: tensors, a tape, ops in Rust and CUDA.
//!
//! ```
//! use srk::{Image, Upscaler};
//!
//! let upscaler = Upscaler::open("auto")?;
//! # let upscaler = Upscaler::open_with("auto", srk::Options { steps: Some(1), ..Default::default() })?;
//! let small = Image::read("examples/parrots.png")?;
//! # let small = srk::Image::new(24, 16, srk::Color::Rgb, srk::Depth::Eight);
//! let large = upscaler.upscale(&small)?;
//! # let folder = std::env::temp_dir().join("srk-doc-front");
//! # std::fs::create_dir_all(&folder).unwrap();
//! # std::env::set_current_dir(&folder).unwrap();
//! large.write("parrots_x4.png")?;
//! # std::env::set_current_dir("/").unwrap();
//! # std::fs::remove_dir_all(folder).unwrap();
//! assert_eq!(large.width, 4 * small.width);
//! # Ok::<(), srk::Error>(())
//! ```
//!
//! [`Options`] say how many steps, which factor, how much memory, on which GPU; on the processor in f32 if they say nothing. Models of others (`.pth`,
//! `.safetensors`, ncnn's `.param`) and the folders of training runs open in the same way.
//!
//! # Train
//!
//! The binary trains: `srk train --recipe srk-photo-x4`. A program reads the same configurations:
//!
//! ```
//! use srk::Config;
//!
//! let text = srk::recipe("srk-x4")?;
//! let config = Config::read(text, "srk-x4", &["optim.lr=1e-4".into(), "run.steps=100".into()])?;
//! assert_eq!((config.optim.lr, config.run.steps), (1e-4, 100));
//! let refused = Config::read(text, "srk-x4", &["optim.learning=1".into()]).unwrap_err();
//! assert_eq!(refused.exit_code(), 2);
//! # Ok::<(), srk::Error>(())
//! ```
//!
//! A tape records ops and replays them backward:
//!
//! ```
//! use srk::{Tape, Tensor};
//!
//! let mut tape = Tape::training();
//! let x = tape.variable(Tensor::from_vec(vec![1.0f32, -2.0, 3.0], &[3]));
//! let zero = tape.input(Tensor::from_vec(vec![0.0f32; 3], &[3]));
//! let loss = tape.mse_loss(&x, &zero)?;
//! let gradients = tape.backward(&loss, Tensor::from_vec(vec![1.0f32], &[1]))?;
//! let dx = gradients.of(&x).unwrap().to_f32_vec()?;
//! assert_eq!(dx, [2.0 / 3.0, -4.0 / 3.0, 2.0]);
//! # Ok::<(), srk::Error>(())
//! ```
//!
//! `examples/` has a whole upscale, a training step and a network of one's own.
//!
//! # Measure
//!
//! ```
//! use srk::{Color, Image, psnr, ssim};
//!
//! let picture = |v| Image::from_u8(16, 16, Color::Rgb, vec![v; 16 * 16 * 3]);
//! let (a, b) = (picture(100)?, picture(101)?);
//! // 20 log10(255 / (65.481 + 128.553 + 24.966) * 255), of Y in 16..=235.
//! assert!((psnr(&a, &b, 0)? - 49.45).abs() < 0.01);
//! assert!(ssim(&a, &b, 0)? > 0.99);
//! # Ok::<(), srk::Error>(())
//! ```
//!
//! # Add an op, a kernel, a network
//!
//! `docs/adding-an-op.md` and `ARCHITECTURE.md` in the repository. All modules are public for the tests, benches and
//! the binary, but only what this page lists is kept stable.
//!
//! # Features
//!
//! `cuda`, on by default: NVIDIA GPUs, by libraries that are looked for at run time. It needs no CUDA to build; without it
//! the crate runs on the processor alone.
//!
//! # Environment
//!
//! | variable | |
//! |---|---|
//! | `SRK_MODEL`, `SRK_DEVICE`, `SRK_RAM` | stand in for these options of the binary |
//! | `SRK_SIMD` | `portable`, `avx2` or `avx512`: at most these instructions, and no AMX |
//! | `SRK_CONV` | which engine convolutions and linear layers take on a GPU |
//! | `SRK_CUDA_LIBRARIES` | where cuDNN and cuBLASLt lie |
//! | `SRK_CUDA_RECYCLE` | `0`: memory of a GPU is not used again, so that compute-sanitizer knows where each tensor ends |
//! | `SRK_FEATURES` | the folder of weights for LPIPS, DISTS and NIQE |
//! | `SRK_KERNELS`, `SRK_CUDA_ARCHS`, `SRK_NVCC` | at build time: which kernels are embedded |
//! | `SRK_THREADS` | threads that share work on the processor; as many as there are processors if absent |

// Modules stand in the order of their dependencies: each uses only those above it.
#[doc(hidden)]
pub mod error;

#[doc(hidden)]
pub mod engine;
#[doc(hidden)]
pub mod ops;

#[doc(hidden)]
pub mod nn;

#[doc(hidden)]
pub mod models;

#[doc(hidden)]
pub mod diffusion;

#[doc(hidden)]
pub mod imaging;

#[doc(hidden)]
pub mod upscale;

#[doc(hidden)]
pub mod evaluate;

#[doc(hidden)]
pub mod data;
#[doc(hidden)]
pub mod training;

#[doc(hidden)]
pub mod import;

#[doc(hidden)]
pub mod library;

#[doc(hidden)]
pub mod cli;

#[doc(inline)]
pub use {
    engine::device::{DType, Device},
    engine::parameter::Parameter,
    engine::tape::{Grads, Op, Tape, Var},
    engine::tensor::Tensor,
    error::{Error, Report, Result},
    imaging::encode::Format,
    imaging::metrics::{psnr_y_float as psnr, ssim_y_float as ssim},
    imaging::{Color, Depth, Image, Metadata, Rect, Samples},
    library::{Options, Upscaler, recipe},
    training::config::Config,
    upscale::choice::Denoise,
};
