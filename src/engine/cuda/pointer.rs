//! Addresses of a GPU.

/// An address in device memory; the host never dereferences it, and what a [`Driver`](super::Driver) does with it is
/// unsafe to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DevicePointer(u64);

impl DevicePointer {
    /// What a driver calls `address`.
    pub const fn new(address: u64) -> Self {
        Self(address)
    }

    /// The number that the driver knows it by.
    pub const fn address(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on.
    pub const fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}
