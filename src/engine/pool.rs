//! Recycled CPU buffers.
//!
//! A fresh allocation of some megabytes costs a page fault every 4 KiB, about a third of the time of
//! the convolution that fills it. Freed buffers are kept and handed out again, also for somewhat shorter ones; where
//! there is no room for all, those that were not asked for the longest are given back.
use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::device::Real;
use super::threads;

/// Buffers shorter than this many elements go straight back to the allocator.
const SMALLEST: usize = 4096;

/// Elements that are filled at a time.
const FILLED: usize = 1 << 16;

static POISON: AtomicBool = AtomicBool::new(false);
static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(2 << 30);
static BUDGET_BYTES: AtomicUsize = AtomicUsize::new(usize::MAX);

/// When on, every buffer starts as NaN, so that an element an op forgot to write is seen.
pub fn poison(on: bool) {
    POISON.store(on, Ordering::Relaxed);
}

/// Keeps at most `bytes` of freed buffers (2 GiB unless set); 0 keeps none. Those kept now are given
/// back.
pub fn limit(bytes: usize) {
    LIMIT_BYTES.store(bytes, Ordering::Relaxed);
    clear();
}

/// Keeps no more than fit into `bytes` together with the buffers in use (no such bound unless set).
pub fn budget(bytes: usize) {
    BUDGET_BYTES.store(bytes, Ordering::Relaxed);
    let evicted = lock().evict(0);
    drop(evicted);
}

/// Gives the buffers that are kept back: their lengths will not be asked for again.
pub fn clear() {
    let mut pool = lock();
    pool.free_bytes = 0;
    let freed = (std::mem::take(&mut pool.f32), std::mem::take(&mut pool.f64));
    drop(pool);
    drop(freed);
}

/// Counts as so many bytes in use, until it is dropped: for what is no buffer of the pool and shares its budget.
#[derive(Debug, Default)]
pub struct Beside(usize);

impl Beside {
    /// Gives kept buffers back as far as the budget has no room for these `bytes` beside them.
    pub fn new(bytes: usize) -> Self {
        let mut pool = lock();
        let evicted = pool.evict(bytes);
        pool.used_bytes += bytes;
        drop(pool);
        drop(evicted);
        Self(bytes)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        lock().used_bytes -= self.0;
    }
}

/// Freed buffers of one element type by capacity, each shelf with the latest last.
type Shelves = BTreeMap<usize, Vec<Kept>>;

/// A freed buffer as an untyped vector, and when it was freed.
struct Kept {
    vec: Box<dyn std::any::Any + Send>,
    at: u64,
}

#[derive(Default)]
struct Pool {
    f32: Shelves,
    f64: Shelves,
    free_bytes: usize,
    /// Of buffers that are not small and in use.
    used_bytes: usize,
    /// Buffers freed so far.
    freed: u64,
}

static POOL: LazyLock<Mutex<Pool>> = LazyLock::new(Mutex::default);

fn lock() -> MutexGuard<'static, Pool> {
    // The maps stay valid whatever panicked while holding them.
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn shelves<T: Real>(&mut self) -> &mut Shelves {
        if size_of::<T>() == 4 { &mut self.f32 } else { &mut self.f64 }
    }

    /// A kept buffer of `len` elements' capacity, or up to a quarter more.
    fn take<T: Real>(&mut self, len: usize) -> Option<Kept> {
        let shelves = self.shelves::<T>();
        let (&capacity, shelf) = shelves.range_mut(len..=len + len / 4).next()?;
        let found = shelf.pop()?;
        if shelf.is_empty() {
            shelves.remove(&capacity);
        }
        self.free_bytes -= capacity * size_of::<T>();
        Some(found)
    }

    /// Takes buffers out, those freed first, until `more` bytes have room in the budget; the caller frees them,
    /// unlocked.
    fn evict(&mut self, more: usize) -> Vec<Kept> {
        let budget = BUDGET_BYTES.load(Ordering::Relaxed);
        let mut out = Vec::new();
        while self.free_bytes > 0
            && self.used_bytes.saturating_add(self.free_bytes).saturating_add(more) > budget
        {
            let oldest = |shelves: &Shelves| {
                let first =
                    |(&capacity, shelf): (&usize, &Vec<Kept>)| Some((shelf.first()?.at, capacity));
                shelves.iter().filter_map(first).min()
            };
            let (shelves, capacity, size) = match (oldest(&self.f32), oldest(&self.f64)) {
                (Some(a), Some(b)) if b < a => (&mut self.f64, b.1, 8),
                (Some(a), _) => (&mut self.f32, a.1, 4),
                (None, Some(b)) => (&mut self.f64, b.1, 8),
                (None, None) => break,
            };
            let Some(shelf) = shelves.get_mut(&capacity) else { break };
            out.push(shelf.remove(0));
            if shelf.is_empty() {
                shelves.remove(&capacity);
            }
            self.free_bytes -= capacity * size;
        }
        out
    }
}

/// A vector that returns to the pool when dropped.
#[derive(Debug)]
pub struct Buffer<T: Real> {
    vec: Vec<T>,
    /// Elements of the vector's memory that were written once, `vec.len()` of them now.
    written: usize,
    /// Bytes that count as used.
    counted: usize,
}

impl<T: Real> Buffer<T> {
    /// `len` elements of unspecified value: the caller writes every one.
    pub fn new(len: usize) -> Self {
        let mut buffer = match len >= SMALLEST {
            true => Self::recycled(len),
            // Not worth a lock.
            false => vec![T::default(); len].into(),
        };
        if POISON.load(Ordering::Relaxed) {
            buffer.fill(T::from_f64(f64::NAN));
        }
        buffer
    }

    /// `len` elements, which count.
    fn recycled(len: usize) -> Self {
        let mut pool = lock();
        let found = pool.take::<T>(len).and_then(|kept| kept.vec.downcast::<Vec<T>>().ok());
        let capacity = found.as_ref().map_or(len, |vec| vec.capacity());
        let bytes = capacity * size_of::<T>();
        let evicted = if found.is_none() { pool.evict(bytes) } else { Vec::new() };
        pool.used_bytes += bytes;
        drop(pool);
        drop(evicted);
        let mut vec = found.map_or_else(|| vec![T::default(); len], |vec| *vec);
        let written = vec.len().max(len);
        // What an earlier use left stays; it is not written again.
        vec.resize(len, T::default());
        Self { vec, written, counted: bytes }
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        threads::pieces(&mut buffer, FILLED, |_, part| part.fill(T::default()));
        buffer
    }
}

impl<T: Real> From<Vec<T>> for Buffer<T> {
    fn from(vec: Vec<T>) -> Self {
        Self { written: vec.len(), vec, counted: 0 }
    }
}

impl<T: Real> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.vec
    }
}

impl<T: Real> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.vec
    }
}

impl<T: Real> Drop for Buffer<T> {
    fn drop(&mut self) {
        let capacity = self.vec.capacity();
        if capacity < SMALLEST && self.counted == 0 {
            return;
        }
        let bytes = capacity * size_of::<T>();
        let mut pool = lock();
        pool.used_bytes -= self.counted;
        let budget = BUDGET_BYTES.load(Ordering::Relaxed);
        let fits = pool.free_bytes + bytes <= LIMIT_BYTES.load(Ordering::Relaxed)
            && pool.used_bytes.saturating_add(pool.free_bytes + bytes) <= budget;
        if capacity >= SMALLEST && fits {
            pool.free_bytes += bytes;
            pool.freed += 1;
            let mut vec = std::mem::take(&mut self.vec);
            // SAFETY: so many of its elements were written, and its memory is the same: slices alone are handed out.
            unsafe { vec.set_len(self.written) };
            let kept = Kept { vec: Box::new(vec), at: pool.freed };
            pool.shelves::<T>().entry(capacity).or_default().push(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_serves_shorter_ones_and_is_whole_again() {
        // Lengths that no other test asks for.
        let len = 5_000_011;
        let first = Buffer::<f64>::zeros(len);
        let at = first.as_ptr();
        drop(first);
        let shorter = Buffer::<f64>::new(len - len / 6);
        assert_eq!((shorter.as_ptr(), shorter.len()), (at, len - len / 6));
        drop(shorter);
        let again = Buffer::<f64>::new(len);
        assert_eq!((again.as_ptr(), again.len()), (at, len));
        let other = Buffer::<f64>::new(len / 2);
        assert_ne!(other.as_ptr(), at);
        let beside = Beside::new(1 << 20);
        assert!(lock().used_bytes >= (1 << 20) + 8 * len);
        drop(beside);
    }
}
