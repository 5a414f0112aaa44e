//! Copies between host and device through pinned memory.
//!
//! The driver copies asynchronously only from pages that cannot move. A small ring of such pieces
//! lets an upload return as soon as the bytes are in the ring, and overlaps the two halves of a
//! large copy: while the device moves one piece, the processor fills or empties another.
use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use super::context::{Context, Event, Stream};
use crate::engine::cuda::driver::DevicePointer;
use crate::error::Result;

/// Bytes of a piece: large enough that its fixed cost (about 10 us) is a twentieth.
const PIECE: usize = 2 << 20;
/// Pieces of the ring.
const PIECES: usize = 6;

/// The ring. Pieces are made when they are first needed.
#[derive(Debug, Default)]
pub(super) struct Staging {
    pieces: Vec<Piece>,
    next: usize,
}

/// Pinned memory, and the event behind the copy that uses it.
#[derive(Debug)]
pub(super) struct Piece {
    context: Arc<Context>,
    pub(super) at: *mut c_void,
    pub(super) free: Event,
}

// SAFETY: the memory belongs to this value alone.
unsafe impl Send for Piece {}

impl Piece {
    /// One of `bytes`.
    pub(super) fn new(context: &Arc<Context>, bytes: usize) -> Result<Self> {
        let free = Event::new(context)?;
        let mut at = ptr::null_mut();
        // SAFETY: the out-pointer is a local. Flags 0: cached memory, which the processor can read
        // at full speed.
        let status = unsafe { (context.api.mem_host_alloc)(&raw mut at, bytes, 0) };
        context.api.check(status, || "cannot allocate memory for copies to the GPU".to_owned())?;
        Ok(Self { context: Arc::clone(context), at, free })
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        // The device may still read or write the memory.
        let _ = self.free.wait();
        if self.context.bind().is_ok() {
            // SAFETY: allocated in `new`, and nothing uses it any more.
            unsafe { (self.context.api.mem_free_host)(self.at) };
        }
    }
}

impl Staging {
    /// The index of a piece that no copy uses, waiting for the oldest one if need be.
    fn take(&mut self, context: &Arc<Context>) -> Result<usize> {
        if self.pieces.len() < PIECES {
            self.pieces.push(Piece::new(context, PIECE)?);
            return Ok(self.pieces.len() - 1);
        }
        let index = self.next;
        self.next = (index + 1) % PIECES;
        self.pieces[index].free.wait()?;
        Ok(index)
    }

    /// Starts copies of `from` to the device; returns when `from` may change.
    ///
    /// # Safety
    /// As for [`Driver::upload`](crate::engine::cuda::Driver::upload).
    pub(super) unsafe fn upload(
        &mut self,
        stream: &Stream,
        to: DevicePointer,
        from: &[u8],
    ) -> Result<()> {
        for (i, part) in from.chunks(PIECE).enumerate() {
            let index = self.take(&stream.context)?;
            let piece = &self.pieces[index];
            // SAFETY: the piece holds PIECE bytes, no copy uses it, and `part` is no longer.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr(), piece.at.cast(), part.len()) };
            let to = to.offset(i * PIECE).address();
            stream.call(
                || format!("cannot copy {} bytes to the GPU", part.len()),
                // SAFETY: the device range is valid, as asked of this function; the piece stays as it is
                // until its event is reached.
                |api, s| unsafe { (api.memcpy_htod_async)(to, piece.at, part.len(), s) },
            )?;
            piece.free.record(stream)?;
        }
        Ok(())
    }

    /// Copies from the device into `to`, after all work issued before.
    ///
    /// # Safety
    /// As for [`Driver::download`](crate::engine::cuda::Driver::download).
    pub(super) unsafe fn download(
        &mut self,
        stream: &Stream,
        from: DevicePointer,
        to: &mut [u8],
    ) -> Result<()> {
        let mut on_the_way = VecDeque::new();
        for (i, part) in to.chunks_mut(PIECE).enumerate() {
            if on_the_way.len() == PIECES {
                self.arrive(on_the_way.pop_front())?;
            }
            let index = self.take(&stream.context)?;
            let piece = &self.pieces[index];
            let from = from.offset(i * PIECE).address();
            stream.call(
                || format!("cannot copy {} bytes from the GPU", part.len()),
                // SAFETY: the device range is valid, as asked of this function; the piece holds at least as many
                // bytes, and no other copy uses it.
                |api, s| unsafe { (api.memcpy_dtoh_async)(piece.at, from, part.len(), s) },
            )?;
            piece.free.record(stream)?;
            on_the_way.push_back((index, part));
        }
        while !on_the_way.is_empty() {
            self.arrive(on_the_way.pop_front())?;
        }
        Ok(())
    }

    /// Waits for a piece and copies it to where it belongs.
    fn arrive(&self, one: Option<(usize, &mut [u8])>) -> Result<()> {
        let Some((index, part)) = one else { return Ok(()) };
        let piece = &self.pieces[index];
        piece.free.wait()?;
        // SAFETY: the copy into the piece is done; it holds at least `part.len()` bytes.
        unsafe { ptr::copy_nonoverlapping(piece.at.cast(), part.as_mut_ptr(), part.len()) };
        Ok(())
    }
}
