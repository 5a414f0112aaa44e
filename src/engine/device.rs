//! Where a tensor lives, and the one macro that picks an implementation.
use super::cuda::Gpu;
pub use super::dtype::{DType, Real};

/// A place that holds tensors and runs ops. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor, with the threads of [`threads`](super::threads).
    Cpu,
    /// A GPU.
    Cuda(Gpu),
}

impl From<&Gpu> for Device {
    fn from(gpu: &Gpu) -> Self {
        Self::Cuda(gpu.clone())
    }
}

/// Runs the arm of the device that `x` lives on. In the `cpu` arm the named type is `x`'s element
/// type; in the `cuda` arm the named value is the [`Gpu`].
#[macro_export]
macro_rules! on_device {
    ($x:expr, cpu::<$t:ident> => $cpu:expr, cuda($gpu:ident) => $cuda:expr $(,)?) => {
        match ($x.device(), $x.dtype()) {
            ($crate::engine::device::Device::Cpu, $crate::engine::device::DType::F64) => {
                type $t = f64;
                $cpu
            }
            ($crate::engine::device::Device::Cpu, _) => {
                type $t = f32;
                $cpu
            }
            ($crate::engine::device::Device::Cuda($gpu), _) => $cuda,
        }
    };
}
