//! Addresses of a GPU.

/// An address in device memory; the host never dereferences it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DevicePointer(pub u64);

impl DevicePointer {
    /// The address `bytes` further on.
    pub const fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}
