//! The batch that comes next, copied to a GPU while it computes.
//!
//! Uploads beside the stream go to memory of their own, since what recordings read is in use until a step is done. From
//! there a batch is copied within the device once its turn has come.
use std::sync::Arc;

use crate::engine::cuda::{Gpu, Uploads};
use crate::engine::device::{DType, Device};
use crate::engine::tensor::Tensor;
use crate::error::{Error, Result};
use crate::training::batch::Batch;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Staged {
    by: Arc<dyn Uploads>,
    /// What comes next, until it is on its way.
    next: Option<Batch>,
    /// Where it goes.
    room: Option<Batch>,
    /// Number and way of the batch that is in the room, or on its way there.
    here: Option<(u64, usize)>,
}

impl Staged {
    /// Copies by what `gpu` has for them, if it has.
    ///
    /// # Errors
    /// If the driver cannot begin.
    pub(super) fn new(gpu: &Gpu) -> Result<Option<Self>> {
        let by = gpu.driver().uploads()?;
        Ok(by.map(|by| Self { by, next: None, room: None, here: None }))
    }

    /// The batch that comes after those that are learned from now.
    pub(super) fn expect(&mut self, next: Batch) {
        self.next = Some(next);
    }

    /// Begins to copy what is expected. To be called while the GPU computes.
    ///
    /// # Errors
    /// If the driver cannot copy.
    pub(super) fn begin(&mut self, gpu: &Gpu) -> Result<()> {
        let Some(next) = self.next.take() else { return Ok(()) };
        if self.here.take().is_some() {
            // Nobody wanted it; two copies to one place have an order, but the room may go away.
            self.by.join()?;
        }
        if !self.room.as_ref().is_some_and(|room| room.fits(&next)) {
            let device = Device::Cuda(gpu.clone());
            self.room = None;
            let room = next.map(|tensor| Tensor::empty_on(&device, DType::F32, tensor.shape()));
            self.room = match room {
                Ok(room) => Some(room),
                // It is uploaded when its turn has come.
                Err(Error::Memory(_)) => return Ok(()),
                Err(other) => return Err(other),
            };
            // The memory may have been somebody else's, whose work is not done.
            self.by.follow()?;
        }
        let Some(room) = &mut self.room else { return Ok(()) };
        let by = &*self.by;
        self.here = Some((next.number, next.way));
        room.for_each(&next, |to, from| {
            let Some(at) = to.device_pointer() else { return Ok(()) };
            // SAFETY: both have one shape, and F32. Since the last `follow` nothing was issued that uses the room, and
            // nothing is before `take` or `begin` join; it is freed after that alone.
            unsafe { by.upload(at, bytemuck::cast_slice(from.cpu::<f32>()?)) }
        })
    }

    /// Puts `batch` into `inputs`, if it was copied ahead and these fit.
    ///
    /// # Errors
    /// If the driver cannot copy.
    pub(super) fn take(&mut self, batch: &Batch, inputs: &mut Batch) -> Result<bool> {
        let room = self.room.as_ref().filter(|room| room.fits(batch));
        let Some(room) = room.filter(|_| self.here == Some((batch.number, batch.way))) else {
            return Ok(false);
        };
        self.by.join()?;
        self.here = None;
        inputs.copy_from(room)?;
        inputs.number = batch.number;
        self.by.follow()?;
        Ok(true)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.here.is_some() {
            // Whoever gets the memory next waits for the copy. After a failure a later call reports it.
            let _ = self.by.join();
        }
    }
}
