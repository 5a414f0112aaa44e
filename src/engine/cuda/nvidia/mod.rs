//! GPUs of this machine, through the NVIDIA driver and nothing else.
//!
//! `open` is the only way in. Whatever is missing or unsuitable (no driver, a stub of one, no
//! GPU, one that is too old, kernels that it cannot run) is an [`Error::Device`](crate::error::Error::Device) that says so.
mod api;
mod arriving;
mod context;
mod cublas;
mod cudnn;
mod driver;
mod find;
mod kernels;
mod libraries;
mod nccl;
mod open;
mod staging;
mod symbols;
mod tensor_maps;
mod uploads;
mod workspace;

pub use self::find::Found;
pub use self::find::{find, find_nccl};
pub use open::{devices, open, open_with};
