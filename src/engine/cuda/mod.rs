//! The GPU: [launchers](kernels) of kernels, device memory, graphs.
//!
//! Under everything lies one seam, the [`Driver`]: NVIDIA's, or in tests an emulator that runs the
//! same `kernels/*.cu` on the processor. Above it nothing knows which.
mod choose;
mod driver;
mod gpu;
pub mod images;
mod kernel;
pub mod kernels;
mod launch;
#[cfg(test)]
mod launchers; // build.rs runs it; here are its tests.
mod libraries;
mod memory;
#[cfg(feature = "cuda")]
pub mod nvidia;
mod pointer;
pub mod sha256;
mod tensor_map;
pub mod tuning;

pub use choose::{
    choose, choose_several, devices, is_device_name, libraries, open, open_best, ordinals,
};
pub use driver::{
    Argument, Arriving, Collective, Description, Driver, Launch, Members, Replay, Uploads,
};
pub use gpu::{Gpu, Graph, Grid};
pub use kernel::Kernel;
pub use launch::Mapped;
pub(crate) use launch::launch_one_of;
pub use libraries::{Convolution, Libraries, Pass, Product};
pub use memory::{Buffer, Usage};
pub use pointer::DevicePointer;
pub use tensor_map::{Boxes, Extent, TensorMap};
