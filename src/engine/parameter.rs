//! A trainable tensor that layers share and optimizers replace.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::device::{DType, Device};
use super::tensor::Tensor;
use crate::error::Result;

/// How a parameter lies in a file of the original implementation, where it differs from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The same in memory and in files.
    Plain,
    /// A convolution: `[Cout, kh, kw, Cin]` in memory, `[Cout, Cin, kh, kw]` in files.
    Conv,
    /// A transposed convolution: `[Cin, kh, kw, Cout]` in memory, `[Cin, Cout, kh, kw]` in files.
    ConvTranspose,
    /// A linear map of a flattened square map, which is a convolution over all of it: `[out, side, side, in]`
    /// in memory, `[out, in side side]` in files.
    Flattened {
        /// Height and width of the map.
        side: usize,
    },
}

/// A named trainable tensor. Clones share the value: a layer used twice has one parameter.
#[derive(Clone, Debug)]
pub struct Parameter {
    id: u64,
    name: String,
    layout: Layout,
    value: Arc<Mutex<Arc<Tensor>>>,
}

impl Parameter {
    /// A parameter under its state-dict `name`.
    pub fn new(name: impl Into<String>, layout: Layout, value: Tensor) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, name: name.into(), layout, value: Arc::new(Mutex::new(Arc::new(value))) }
    }

    /// What tells this parameter from every other of the process.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// The name in the original state dict, such as `inc.conv.0.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How files store it.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The current value.
    pub fn value(&self) -> Arc<Tensor> {
        Arc::clone(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the value everywhere the parameter is used.
    pub fn set(&self, value: impl Into<Arc<Tensor>>) {
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = value.into();
    }

    /// Changes the element type.
    ///
    /// # Errors
    /// If the device has no such elements or its memory is full.
    pub fn cast(&self, dtype: DType) -> Result<()> {
        let value = self.value();
        if value.dtype() != dtype {
            self.set(value.cast(dtype)?);
        }
        Ok(())
    }

    /// Moves the value to `device`, as `dtype` there.
    ///
    /// # Errors
    /// If the memory of the device is full.
    pub fn to_device(&self, device: &Device, dtype: DType) -> Result<()> {
        let value = self.value();
        if value.device() != *device {
            self.set(value.to_device(device)?);
        }
        self.cast(dtype)
    }
}
