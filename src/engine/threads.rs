//! Work for all threads. What is run goes through a pointer, so that what spreads it is compiled once and not for every
//! loop; a call a task is nothing beside the task. No result depends on the number of threads.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::workers;
pub use super::workers::{count, set_count, with_count};

/// `f(i)` for every `i` below `n`, in any order.
pub fn each(n: usize, f: &(dyn Fn(usize) + Sync)) {
    workers::run(n, f);
}

/// `[f(0), f(1), ...]`, `n` in all.
pub fn map<R: Send>(n: usize, f: impl Fn(usize) -> R + Sync) -> Vec<R> {
    let results: Vec<Mutex<Option<R>>> = (0..n).map(|_| Mutex::new(None)).collect();
    each(n, &|i| {
        let result = f(i);
        *results[i].lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    });
    let of = |result: Mutex<Option<R>>| result.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A task that panics ends all of this before.
    results.into_iter().filter_map(of).collect()
}

/// As [`map`], until one fails: what is not begun then stays undone. Of several errors it is that of the least `i`.
///
/// # Errors
/// What `f` says.
pub fn try_map<R: Send, E: Send>(
    n: usize,
    f: impl Fn(usize) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    let failed = AtomicBool::new(false);
    let results = map(n, |i| {
        let result = (!failed.load(Ordering::Relaxed)).then(|| f(i));
        failed.fetch_or(matches!(result, Some(Err(_))), Ordering::Relaxed);
        result
    });
    results.into_iter().flatten().collect()
}

/// `f(i, piece)` for every piece of `len` elements, the last of which may be shorter.
pub fn pieces<T: Send>(y: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let y = Pieces::of(y, len);
    // SAFETY: each piece is asked for once.
    each(y.count(), &|i| f(i, unsafe { y.get(i) }));
}

/// As [`pieces`], with what `new` makes; a task leaves it to a later one.
pub fn pieces_with<T: Send, S: Send>(
    y: &mut [T],
    len: usize,
    new: impl Fn() -> S + Sync,
    f: impl Fn(usize, &mut [T], &mut S) + Sync,
) {
    let idle = Mutex::new(Vec::new());
    let lock = || idle.lock().unwrap_or_else(PoisonError::into_inner);
    pieces(y, len, |i, piece| {
        let held = lock().pop();
        let mut scratch = held.unwrap_or_else(&new);
        f(i, piece, &mut scratch);
        lock().push(scratch);
    });
}

/// `f(i, piece of y, piece of z)` for all pieces of two slices, of the lengths `len`; there are as many of each.
pub fn pieces2<T: Send, U: Send>(
    y: &mut [T],
    z: &mut [U],
    len: [usize; 2],
    f: impl Fn(usize, &mut [T], &mut [U]) + Sync,
) {
    let (y, z) = (Pieces::of(y, len[0]), Pieces::of(z, len[1]));
    assert_eq!(y.count(), z.count(), "slices of other lengths");
    // SAFETY: each piece is asked for once.
    each(y.count(), &|i| f(i, unsafe { y.get(i) }, unsafe { z.get(i) }));
}

/// As [`pieces2`], of three slices.
pub fn pieces3<T: Send>(
    [x, y, z]: [&mut [T]; 3],
    len: usize,
    f: impl Fn(usize, [&mut [T]; 3]) + Sync,
) {
    let all = [Pieces::of(x, len), Pieces::of(y, len), Pieces::of(z, len)];
    let count = all[0].count();
    assert!(all.iter().all(|a| a.count() == count), "slices of other lengths");
    // SAFETY: each piece is asked for once.
    each(count, &|i| f(i, all.each_ref().map(|a| unsafe { a.get(i) })));
}

/// What `f(i, piece)` says of every piece, as [`pieces`].
pub fn map_pieces<T: Send, R: Send>(
    y: &mut [T],
    len: usize,
    f: impl Fn(usize, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let y = Pieces::of(y, len);
    // SAFETY: each piece is asked for once.
    map(y.count(), |i| f(i, unsafe { y.get(i) }))
}

/// A slice that is given away in pieces.
struct Pieces<T> {
    start: *mut T,
    elements: usize,
    len: usize,
}

// SAFETY: pieces are disjoint, so that threads have elements of their own.
unsafe impl<T: Send> Sync for Pieces<T> {}

impl<T> Pieces<T> {
    const fn of(all: &mut [T], len: usize) -> Self {
        assert!(len > 0, "pieces have elements");
        Self { start: all.as_mut_ptr(), elements: all.len(), len }
    }

    const fn count(&self) -> usize {
        self.elements.div_ceil(self.len)
    }

    /// # Safety
    /// No one has this piece, and the slice is borrowed as long as it is used.
    #[allow(clippy::mut_from_ref)]
    unsafe fn get(&self, i: usize) -> &mut [T] {
        let first = i * self.len;
        let len = self.len.min(self.elements - first);
        // SAFETY: the piece lies in the slice, and is the caller's alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(first), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        assert_eq!(map(1000, |i| 3 * i), (0..1000).map(|i| 3 * i).collect::<Vec<_>>());
        assert!(map(0, |i| i).is_empty());
        let failed = try_map(100, |i| if i % 40 == 39 { Err(i) } else { Ok(i) });
        assert!(matches!(failed, Err(39 | 79)), "{failed:?}");
        assert_eq!(try_map(100, Ok::<_, ()>).map(|all| all.len()), Ok(100));
        let mut y = vec![0usize; 1003];
        pieces(&mut y, 10, |i, y| y.iter_mut().enumerate().for_each(|(k, y)| *y += 10 * i + k));
        assert!(y.iter().enumerate().all(|(i, &y)| y == i));
        let mut z = vec![0; 201];
        pieces2(&mut y, &mut z, [5, 1], |i, y, z| z[0] = 100 * y.len() + i);
        assert!(z[..200].iter().enumerate().all(|(i, &z)| z == 500 + i), "{z:?}");
        assert_eq!(z[200], 500);
    }
}
