//! Small downloads that nobody waits for yet.
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

use super::context::Stream;
use super::staging::Piece;
use crate::engine::cuda::driver::{Arriving, DevicePointer};
use crate::error::Result;

/// Bytes of pinned memory for one: a step's numbers are a few dozen.
pub(super) const MOST: usize = 4096;

/// Pinned memory that no download uses.
#[derive(Debug, Default)]
pub(super) struct Rooms(Arc<Mutex<Vec<Piece>>>);

impl Rooms {
    /// Starts a copy of `bytes`, at most [`MOST`], from the device.
    ///
    /// # Safety
    /// As for [`Driver::download_later`](crate::engine::cuda::Driver::download_later).
    pub(super) unsafe fn download(
        &self,
        stream: &Stream,
        from: DevicePointer,
        bytes: usize,
    ) -> Result<Box<dyn Arriving>> {
        assert!(bytes <= MOST, "a small download");
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let room = known.map_or_else(|| Piece::new(&stream.context, MOST), Ok)?;
        stream.call(
            || format!("cannot copy {bytes} bytes from the GPU"),
            // SAFETY: the device range is valid, as asked of this function; the room holds at least as many bytes, and
            // no other copy uses it.
            |api, s| unsafe { (api.memcpy_dtoh_async)(room.at, from.address(), bytes, s) },
        )?;
        room.free.record(stream)?;
        Ok(Box::new(OnTheWay { room, bytes, rooms: Arc::clone(&self.0) }))
    }
}

/// A copy into `room`, which goes back to `rooms`.
#[derive(Debug)]
struct OnTheWay {
    room: Piece,
    bytes: usize,
    rooms: Arc<Mutex<Vec<Piece>>>,
}

impl Arriving for OnTheWay {
    fn wait(self: Box<Self>) -> Result<Vec<u8>> {
        let Self { room, bytes, rooms } = *self;
        room.free.wait()?;
        let mut there = vec![0u8; bytes];
        // SAFETY: the copy into the room is done, and was of as many bytes.
        unsafe { ptr::copy_nonoverlapping(room.at.cast(), there.as_mut_ptr(), bytes) };
        rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        Ok(there)
    }
}
