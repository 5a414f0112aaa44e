//! Device memory: recycled blocks with a known peak.
//!
//! Work runs in one ordered stream, so a block may be handed out again as soon as its owner drops
//! it: whatever still uses it was issued earlier. While a graph is recorded, blocks come from and
//! return to an arena of that graph, because its replays use the same addresses for ever. Graphs may share one: they
//! run one after the other.
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::driver::{DevicePointer, Driver};
use crate::error::{Error, Report, Result};

/// Sizes are rounded up to multiples of this, which is also the alignment.
const GRAIN: usize = 512;

/// Bytes of device memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Held by tensors.
    pub used: usize,
    /// The most that tensors ever held.
    pub peak: usize,
    /// Taken from the driver, recycled blocks included.
    pub reserved: usize,
}

/// Freed blocks by size, and the account.
#[derive(Debug, Default)]
struct Shelves {
    free: BTreeMap<usize, Vec<DevicePointer>>,
    arena: Option<Arc<Arena>>,
    usage: Usage,
}

/// The memory of one GPU.
#[derive(Debug)]
pub(super) struct Memory {
    driver: Arc<dyn Driver>,
    shelves: Mutex<Shelves>,
}

/// A block of device memory, given back when dropped.
#[derive(Debug)]
pub struct Buffer {
    memory: Weak<Memory>,
    arena: Option<Arc<Arena>>,
    at: DevicePointer,
    bytes: usize,
}

/// The blocks of recorded graphs. They return to the memory when graphs and results are gone.
#[derive(Debug)]
pub(super) struct Arena {
    memory: Weak<Memory>,
    free: Mutex<BTreeMap<usize, Vec<DevicePointer>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps stay valid whatever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the smallest block of at least `bytes` that wastes at most a quarter of itself.
fn fitting(
    free: &mut BTreeMap<usize, Vec<DevicePointer>>,
    bytes: usize,
) -> Option<(DevicePointer, usize)> {
    let (&size, blocks) = free.range_mut(bytes..=bytes + bytes / 3).next()?;
    let at = blocks.pop()?;
    if blocks.is_empty() {
        free.remove(&size);
    }
    Some((at, size))
}

impl Memory {
    pub(super) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, shelves: Mutex::default() }
    }

    pub(super) fn usage(&self) -> Usage {
        lock(&self.shelves).usage
    }

    /// At least `bytes` of memory of unspecified content.
    pub(super) fn allocate(self: &Arc<Self>, bytes: usize) -> Result<Buffer> {
        let wanted = match self.driver.recycles() {
            true => bytes.max(1).div_ceil(GRAIN) * GRAIN,
            false => bytes.max(1),
        };
        let mut shelves = lock(&self.shelves);
        let arena = shelves.arena.clone();
        let recycled = arena
            .as_ref()
            .and_then(|arena| fitting(&mut lock(&arena.free), wanted))
            .or_else(|| fitting(&mut shelves.free, wanted));
        let (at, bytes) = match recycled {
            Some((at, bytes)) => {
                // SAFETY: the block is this driver's, and nobody has it but for this buffer.
                unsafe { self.driver.renew(at, bytes)? };
                (at, bytes)
            }
            None => (self.fresh(&mut shelves, wanted)?, wanted),
        };
        shelves.usage.used += bytes;
        shelves.usage.peak = shelves.usage.peak.max(shelves.usage.used);
        Ok(Buffer { memory: Arc::downgrade(self), arena, at, bytes })
    }

    /// A block from the driver; when it is full, all recycled blocks are returned first.
    fn fresh(&self, shelves: &mut Shelves, bytes: usize) -> Result<DevicePointer> {
        let at = match self.driver.allocate(bytes) {
            Err(Error::Memory(_)) if !shelves.free.is_empty() => {
                self.driver.synchronize()?;
                self.release(shelves);
                self.driver.allocate(bytes)
            }
            other => other,
        };
        let at = at.map_err(|e| match e {
            Error::Memory(report) => Error::Memory(Report::new(
                report.what,
                format!("{} ({} MiB in use)", report.cause, shelves.usage.used >> 20),
            )),
            other => other,
        })?;
        shelves.usage.reserved += bytes;
        Ok(at)
    }

    fn release(&self, shelves: &mut Shelves) {
        for (size, blocks) in std::mem::take(&mut shelves.free) {
            shelves.usage.reserved -= size * blocks.len();
            // SAFETY: blocks on the shelves came from `fresh` and belong to nobody: no buffer holds one, and no graph,
            // whose blocks stay in its arena.
            blocks.into_iter().for_each(|at| unsafe { self.driver.free(at) });
        }
    }

    /// Opens the arena of a graph that is about to be recorded: `known`, or a new one.
    pub(super) fn open_arena(self: &Arc<Self>, known: Option<Arc<Arena>>) -> Arc<Arena> {
        let new = || Arc::new(Arena { memory: Arc::downgrade(self), free: Mutex::default() });
        let arena = known.unwrap_or_else(new);
        lock(&self.shelves).arena = Some(Arc::clone(&arena));
        arena
    }

    /// Ends the recording: from here on blocks are shared again.
    pub(super) fn close_arena(&self) {
        let arena = lock(&self.shelves).arena.take();
        drop(arena); // Outside the lock: the last clone returns its blocks.
    }

    fn put_back(&self, at: DevicePointer, bytes: usize) {
        let mut shelves = lock(&self.shelves);
        // What is recorded may have used the block: replays will.
        if let Some(arena) = &shelves.arena {
            lock(&arena.free).entry(bytes).or_default().push(at);
        } else if self.driver.recycles() {
            shelves.free.entry(bytes).or_default().push(at);
        } else {
            shelves.usage.reserved -= bytes;
            // SAFETY: the block came from `fresh`, and its last owner gave it back.
            unsafe { self.driver.free(at) };
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut shelves = std::mem::take(&mut *lock(&self.shelves));
        self.release(&mut shelves);
    }
}

impl Buffer {
    /// Where the block is.
    pub const fn pointer(&self) -> DevicePointer {
        self.at
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(memory) = self.memory.upgrade() else { return };
        lock(&memory.shelves).usage.used -= self.bytes;
        match self.arena.take() {
            Some(arena) => lock(&arena.free).entry(self.bytes).or_default().push(self.at),
            None => memory.put_back(self.at, self.bytes),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let Some(memory) = self.memory.upgrade() else { return };
        for (bytes, blocks) in std::mem::take(&mut *lock(&self.free)) {
            blocks.into_iter().for_each(|at| memory.put_back(at, bytes));
        }
    }
}
