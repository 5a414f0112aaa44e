//! What a caller may ask of the convolutions of the processor.
use std::cell::Cell;
use std::ops::Range;

use super::source::Shared;

/// See [`rows_from`].
#[derive(Clone, Copy)]
struct Asked {
    rows: [usize; 2],
    first: isize,
}

thread_local! {
    /// Of convolutions that this thread starts.
    static ASKED: Cell<Option<Asked>> = const { Cell::new(None) };
}

/// Runs `body`, whose convolutions of single images on the CPU compute the output rows from `rows[0]` to `rows[1]` alone.
/// Their outputs hold the rows from `first`, perhaps above the map, to `rows[1]`; those before `rows[0]` are undefined. For stride 1, and not for one convolution of another's output.
pub fn rows_from<R>(first: isize, rows: [usize; 2], body: impl FnOnce() -> R) -> R {
    assert!(first <= rows[0] as isize, "outputs hold the rows that are computed");
    let before = ASKED.replace(Some(Asked { rows, first }));
    let result = body();
    ASKED.set(before);
    result
}

/// Where row 0 of the output is in `y`, which holds [those](held_rows) of `height`, each of `line` numbers: perhaps outside.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) fn row_0(batch: usize, height: usize, line: usize, y: &mut [f32]) -> Shared {
    let held = held_rows(batch, height);
    assert_eq!(y.len(), batch * held.len() * line, "y does not hold the rows that are asked for");
    Shared(y.as_mut_ptr().wrapping_offset(-held.start * line as isize))
}

pub(super) fn wanted_rows() -> Option<[usize; 2]> {
    ASKED.get().map(|asked| asked.rows)
}

/// The rows that the output of a convolution on the CPU holds, of `height`.
pub(super) fn held_rows(batch: usize, height: usize) -> Range<isize> {
    match ASKED.get() {
        Some(Asked { rows: [_, end], first }) if batch == 1 => first..end.min(height) as isize,
        _ => 0..height as isize,
    }
}
