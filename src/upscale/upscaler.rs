//! A system where it runs.
use std::sync::Arc;

use crate::diffusion::system::System;
use crate::engine::device::{DType, Device};
use crate::error::Result;

/// A system where it runs.
pub struct Upscaler {
    /// As it was opened: on the CPU, in F32.
    system: Arc<System>,
    /// Where it runs, if that is elsewhere: on one device, or the same on several.
    placed: Vec<Arc<System>>,
}

impl Upscaler {
    /// `system` on `device`, computing in `dtype` there.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn new(system: System, device: &Device, dtype: DType) -> Result<Self> {
        Self::over(system, std::slice::from_ref(device), dtype)
    }

    /// `system` on each of `devices`, of which there is one at least: they share the tiles of each picture.
    ///
    /// # Errors
    /// If the memory of a GPU is full.
    pub fn over(system: System, devices: &[Device], dtype: DType) -> Result<Self> {
        let stays = *devices == [Device::Cpu] && dtype == DType::F32;
        let devices = if stays { &[] } else { devices };
        let placed = devices.iter().map(|device| Ok(Arc::new(system.on(device, dtype)?)));
        Ok(Self { placed: placed.collect::<Result<_>>()?, system: Arc::new(system) })
    }

    /// The system as it runs, on the first device.
    pub fn system(&self) -> &System {
        self.placed.first().unwrap_or(&self.system)
    }

    /// The system as it runs, on each device.
    pub fn systems(&self) -> Vec<&System> {
        match &self.placed[..] {
            [] => vec![&self.system],
            placed => placed.iter().map(|system| &**system).collect(),
        }
    }

    /// The same for each device alone.
    pub fn apart(&self) -> Vec<Self> {
        let alone = |placed: Vec<Arc<System>>| Self { system: Arc::clone(&self.system), placed };
        match &self.placed[..] {
            [] => vec![alone(vec![])],
            placed => placed.iter().map(|system| alone(vec![Arc::clone(system)])).collect(),
        }
    }

    /// Bytes for the tiles in flight: `on_cpu`, or four fifths of what is free on the GPU; of several, on the fullest.
    ///
    /// # Errors
    /// If a GPU cannot be asked.
    pub fn memory_or(&self, on_cpu: u64) -> Result<u64> {
        let free = |system: &System| match system.network.device() {
            Device::Cpu => Ok(on_cpu),
            Device::Cuda(gpu) => Ok(gpu.driver().memory()?.0 as u64 / 5 * 4),
        };
        let all = self.systems().into_iter().map(free).collect::<Result<Vec<_>>>()?;
        Ok(all.into_iter().min().unwrap_or(on_cpu))
    }

    /// `placed`, one of its systems, in single precision on the same device.
    pub(super) fn precise(&self, placed: &System) -> Result<System> {
        self.system.on(&placed.network.device(), DType::F32)
    }
}
