//! What everything with weights is: networks, discriminators, autoencoders, features.
use crate::engine::device::{DType, Device};
use crate::engine::parameter::Parameter;
use crate::error::Result;

/// Something with weights.
pub trait Module: Send + Sync {
    /// All parameters, in construction order.
    fn parameters(&self) -> &[Parameter];

    /// What files hold beside the parameters and training does not change by gradients, such as the
    /// running statistics of norms; in construction order.
    fn buffers(&self) -> &[Parameter] {
        &[]
    }

    /// Everything a file holds: parameters, then buffers.
    fn state(&self) -> Vec<Parameter> {
        [self.parameters(), self.buffers()].concat()
    }

    /// How many numbers training changes.
    fn parameter_count(&self) -> usize {
        self.parameters().iter().map(|p| p.value().len()).sum()
    }

    /// Where the weights are.
    fn device(&self) -> Device {
        self.parameters().first().map_or(Device::Cpu, |p| p.value().device())
    }

    /// The element type that is computed in.
    fn dtype(&self) -> DType {
        self.parameters().first().map_or(DType::F32, |p| p.value().dtype())
    }

    /// Changes the element type that is computed in.
    ///
    /// # Errors
    /// If the device has no such elements or its memory is full.
    fn cast(&self, dtype: DType) -> Result<()> {
        self.parameters().iter().try_for_each(|p| p.cast(dtype))?;
        self.buffers().iter().try_for_each(|b| b.cast(of_buffers(dtype)))
    }

    /// Moves the weights to `device`, as `dtype` there.
    ///
    /// # Errors
    /// If the memory of the device is full.
    fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        self.parameters().iter().try_for_each(|p| p.to_device(device, dtype))?;
        self.buffers().iter().try_for_each(|b| b.to_device(device, of_buffers(dtype)))
    }
}

/// The type of buffers of what computes in `dtype`: statistics are not kept in half precision.
const fn of_buffers(dtype: DType) -> DType {
    match dtype {
        DType::F64 => DType::F64,
        _ => DType::F32,
    }
}
