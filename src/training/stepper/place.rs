//! The stepper of a device.
use super::cpu::OnCpu;
use super::gpu::OnGpu;
use super::interface::{Fewer, Joint, Stepper};
use crate::engine::device::{DType, Device};
use crate::error::Result;
use crate::training::checkpoint::Part;
use crate::training::optimizer::Optimizer;
use crate::training::sections::OptimConfig;

/// What trains `parts`, which lie on the CPU, on `device` in `dtype`, going on with `optimizers`, one for each; `fewer` is what to do where a
/// batch does not fit, `joint` how several processes make one sum.
///
/// # Errors
/// If the memory of a GPU is full.
pub fn place(
    (device, dtype): (&Device, DType),
    parts: &[Part<'_>],
    optimizers: Vec<Optimizer>,
    (optim, fewer): (&OptimConfig, Fewer),
    joint: Joint,
) -> Result<Box<dyn Stepper>> {
    match device {
        Device::Cpu => Ok(Box::new(OnCpu::new(dtype, parts, optimizers, joint)?)),
        Device::Cuda(gpu) => {
            Ok(Box::new(OnGpu::new((gpu, dtype), parts, optimizers, (optim, fewer), joint)?))
        }
    }
}
