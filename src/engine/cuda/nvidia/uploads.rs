//! Copies from the host on a stream of their own.
use std::sync::{Arc, Mutex, PoisonError};

use super::context::{Event, Stream};
use super::staging::Staging;
use crate::engine::cuda::driver::{DevicePointer, Uploads};
use crate::error::Result;

/// See the [module](self). Fields are dropped in order: the streams last.
#[derive(Debug)]
pub(super) struct UploadsBeside {
    staging: Mutex<Staging>,
    /// Behind what uploads wait for, and behind the uploads.
    before: Event,
    there: Event,
    beside: Arc<Stream>,
    stream: Arc<Stream>,
}

impl UploadsBeside {
    /// Copies beside `stream`.
    pub(super) fn new(stream: &Arc<Stream>) -> Result<Self> {
        let context = &stream.context;
        Ok(Self {
            staging: Mutex::default(),
            before: Event::new(context)?,
            there: Event::new(context)?,
            beside: Stream::new(context)?,
            stream: Arc::clone(stream),
        })
    }
}

impl Uploads for UploadsBeside {
    fn follow(&self) -> Result<()> {
        self.before.record(&self.stream)?;
        self.before.holds(&self.beside)
    }

    unsafe fn upload(&self, to: DevicePointer, from: &[u8]) -> Result<()> {
        self.stream.context.bind()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: as asked of this function.
        unsafe { staging.upload(&self.beside, to, from) }
    }

    fn join(&self) -> Result<()> {
        self.there.record(&self.beside)?;
        self.there.holds(&self.stream)
    }
}
