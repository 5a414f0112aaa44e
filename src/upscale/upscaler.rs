//! A system where it runs.
use crate::diffusion::system::System;
use crate::engine::device::{DType, Device};
use crate::error::Result;

/// A system where it runs.
pub struct Upscaler {
    /// As it was opened: on the CPU, in F32.
    system: System,
    /// Where it runs, if that is elsewhere.
    placed: Option<System>,
}

impl Upscaler {
    /// `system` on `device`, computing in `dtype` there.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn new(system: System, device: &Device, dtype: DType) -> Result<Self> {
        let stays = *device == Device::Cpu && dtype == DType::F32;
        let placed = (!stays).then(|| system.on(device, dtype)).transpose()?;
        Ok(Self { system, placed })
    }

    /// The system as it runs.
    pub fn system(&self) -> &System {
        self.placed.as_ref().unwrap_or(&self.system)
    }

    /// Bytes for the tiles in flight: `on_cpu`, or four fifths of what is free on the GPU.
    ///
    /// # Errors
    /// If the GPU cannot be asked.
    pub fn memory_or(&self, on_cpu: u64) -> Result<u64> {
        match self.system().network.device() {
            Device::Cpu => Ok(on_cpu),
            Device::Cuda(gpu) => Ok(gpu.driver().memory()?.0 as u64 / 5 * 4),
        }
    }

    /// The same in single precision on the same device.
    pub(super) fn precise(&self) -> Result<System> {
        self.system.on(&self.system().network.device(), DType::F32)
    }
}
