//! Recycled CPU buffers.
//!
//! A fresh allocation of some megabytes costs a page fault every 4 KiB, about a third of the time of
//! the convolution that fills it. Freed buffers are kept by length and handed out again.
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::device::Real;

/// Buffers shorter than this many elements go straight back to the allocator.
const SMALLEST: usize = 4096;

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

/// Freed buffers of one element type by length, as untyped vectors.
type Shelves = HashMap<usize, Vec<Kept>>;
type Kept = Box<dyn std::any::Any + Send>;

#[derive(Default)]
struct Pool {
    f32: Shelves,
    f64: Shelves,
    free_bytes: usize,
    /// Of buffers that are not small and in use.
    used_bytes: usize,
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

    /// A kept buffer of `len` elements.
    fn take<T: Real>(&mut self, len: usize) -> Option<Kept> {
        let found = self.shelves::<T>().get_mut(&len)?.pop()?;
        self.free_bytes -= len * size_of::<T>();
        Some(found)
    }

    /// Takes buffers out until `more` bytes have room in the budget; the caller frees them, unlocked.
    fn evict(&mut self, more: usize) -> Vec<Kept> {
        let budget = BUDGET_BYTES.load(Ordering::Relaxed);
        let mut out = Vec::new();
        while self.free_bytes > 0
            && self.used_bytes.saturating_add(self.free_bytes).saturating_add(more) > budget
        {
            for (shelves, size) in [(&mut self.f32, 4), (&mut self.f64, 8)] {
                let Some(len) = shelves.iter().find(|(_, v)| !v.is_empty()).map(|(&len, _)| len)
                else {
                    continue;
                };
                out.extend(shelves.get_mut(&len).and_then(Vec::pop));
                self.free_bytes -= len * size;
                break;
            }
        }
        out
    }
}

/// A vector that returns to the pool when dropped.
#[derive(Debug)]
pub struct Buffer<T: Real> {
    vec: Vec<T>,
    /// Bytes that count as used.
    counted: usize,
}

impl<T: Real> Buffer<T> {
    /// `len` elements of unspecified value: the caller writes every one.
    pub fn new(len: usize) -> Self {
        let (mut vec, counted) = match len >= SMALLEST {
            true => (Self::recycled(len), len * size_of::<T>()),
            // Not worth a lock.
            false => (vec![T::default(); len], 0),
        };
        if POISON.load(Ordering::Relaxed) {
            vec.fill(T::from_f64(f64::NAN));
        }
        Self { vec, counted }
    }

    fn recycled(len: usize) -> Vec<T> {
        let bytes = len * size_of::<T>();
        let mut pool = lock();
        let found = pool.take::<T>(len);
        let evicted = if found.is_none() { pool.evict(bytes) } else { Vec::new() };
        pool.used_bytes += bytes;
        drop(pool);
        drop(evicted);
        match found.and_then(|kept| kept.downcast::<Vec<T>>().ok()) {
            Some(vec) => *vec,
            None => vec![T::default(); len],
        }
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.vec.fill(T::default());
        buffer
    }
}

impl<T: Real> From<Vec<T>> for Buffer<T> {
    fn from(vec: Vec<T>) -> Self {
        Self { vec, counted: 0 }
    }
}

impl<T: Real> Deref for Buffer<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.vec
    }
}

impl<T: Real> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.vec
    }
}

impl<T: Real> Drop for Buffer<T> {
    fn drop(&mut self) {
        let len = self.vec.len();
        if len < SMALLEST && self.counted == 0 {
            return;
        }
        let bytes = len * size_of::<T>();
        let mut pool = lock();
        pool.used_bytes -= self.counted;
        let budget = BUDGET_BYTES.load(Ordering::Relaxed);
        let fits = pool.free_bytes + bytes <= LIMIT_BYTES.load(Ordering::Relaxed)
            && pool.used_bytes.saturating_add(pool.free_bytes + bytes) <= budget;
        if len >= SMALLEST && fits {
            pool.free_bytes += bytes;
            let vec = std::mem::take(&mut self.vec);
            pool.shelves::<T>().entry(len).or_default().push(Box::new(vec));
        }
    }
}
