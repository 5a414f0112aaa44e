//! Recycled CPU buffers.
//!
//! A fresh allocation of some megabytes costs a page fault every 4 KiB, about a third of the time of
//! the convolution that fills it. Freed buffers are kept by length and handed out again.
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::device::Real;

/// Buffers shorter than this many elements go straight back to the allocator.
const SMALLEST: usize = 4096;

static POISON: AtomicBool = AtomicBool::new(false);
static LIMIT_BYTES: AtomicUsize = AtomicUsize::new(2 << 30);

/// When on, every buffer starts as NaN, so that an element an op forgot to write is seen.
pub fn poison(on: bool) {
    POISON.store(on, Ordering::Relaxed);
}

/// Keeps at most `bytes` of freed buffers (2 GiB unless set); 0 keeps none.
pub fn limit(bytes: usize) {
    LIMIT_BYTES.store(bytes, Ordering::Relaxed);
    for free in [&FREE_F32.0, &FREE_F64.0] {
        let mut free = lock(free);
        free.clear();
    }
    *lock(&FREE_BYTES) = 0;
}

/// Freed buffers by length, as untyped vectors of one element type.
struct Free(Mutex<Shelves>);

type Shelves = HashMap<usize, Vec<Box<dyn std::any::Any + Send>>>;

static FREE_F32: std::sync::LazyLock<Free> = std::sync::LazyLock::new(|| Free(Mutex::default()));
static FREE_F64: std::sync::LazyLock<Free> = std::sync::LazyLock::new(|| Free(Mutex::default()));
static FREE_BYTES: Mutex<usize> = Mutex::new(0);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps stay valid whatever panicked while holding them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn shelf<T: Real>() -> &'static Free {
    if size_of::<T>() == 4 { &FREE_F32 } else { &FREE_F64 }
}

/// A vector that returns to the pool when dropped.
#[derive(Debug)]
pub struct Buffer<T: Real>(Vec<T>);

impl<T: Real> Buffer<T> {
    /// `len` elements of unspecified value: the caller writes every one.
    pub fn new(len: usize) -> Self {
        let recycled =
            (len >= SMALLEST).then(|| lock(&shelf::<T>().0).get_mut(&len)?.pop()).flatten();
        let mut vec = match recycled.and_then(|b| b.downcast::<Vec<T>>().ok()) {
            Some(vec) => {
                *lock(&FREE_BYTES) -= len * size_of::<T>();
                *vec
            }
            None => vec![T::default(); len],
        };
        if POISON.load(Ordering::Relaxed) {
            vec.fill(T::from_f64(f64::NAN));
        }
        Self(vec)
    }

    /// `len` zeros.
    pub fn zeros(len: usize) -> Self {
        let mut buffer = Self::new(len);
        buffer.0.fill(T::default());
        buffer
    }
}

impl<T: Real> From<Vec<T>> for Buffer<T> {
    fn from(vec: Vec<T>) -> Self {
        Self(vec)
    }
}

impl<T: Real> Deref for Buffer<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T: Real> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: Real> Drop for Buffer<T> {
    fn drop(&mut self) {
        let len = self.0.len();
        let bytes = len * size_of::<T>();
        let mut free_bytes = lock(&FREE_BYTES);
        if len < SMALLEST || *free_bytes + bytes > LIMIT_BYTES.load(Ordering::Relaxed) {
            return;
        }
        *free_bytes += bytes;
        let vec = std::mem::take(&mut self.0);
        lock(&shelf::<T>().0).entry(len).or_default().push(Box::new(vec));
    }
}
